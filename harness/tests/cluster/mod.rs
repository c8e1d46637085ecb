//! A Kubernetes API of a few pods on loopback, which forwards connections to the admin API of proxies that the test makes
//! up.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "part of a test: what is unexpected shall panic")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use camino::Utf8Path;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rotacheck::pki::{Authority, Leaf, LeafRequest, San, Validity};
use rotacheck::scenario::KeyType;
use rotacheck::timeline::CertFacts;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// What a proxy's certificate is, and how its secret's version moves.
#[derive(Debug, Clone)]
pub struct Held {
    pub serial: &'static str,
    /// Seconds since it became valid, and until it expires.
    pub age: i64,
    pub left: i64,
    /// Whether config_dump has another version at each look.
    pub version_moves: bool,
}

/// A pod's name, its certificate, and whether its secret's version moves.
type Pod = (String, Arc<Leaf>, bool);

#[derive(Default)]
struct Shared {
    pods: Vec<Pod>,
    /// Method and path of each request.
    asked: Mutex<Vec<String>>,
    /// Parts of paths that are forbidden.
    forbidden: Vec<&'static str>,
    dumps: Mutex<u32>,
    /// What a container that joins a pod logs, and how its node tells that it is.
    witness: Mutex<(Vec<u8>, Value)>,
    /// Containers that joined.
    joined: Mutex<Vec<Value>>,
    logger: Mutex<Logger>,
}

/// Envoy's logger `config`, of all proxies.
#[derive(Debug, Clone, Default)]
pub struct Logger {
    /// Its level, as it was set last.
    pub level: String,
    /// Every change that was asked for.
    pub set: Vec<String>,
    /// What the proxy logs while it is at debug, with the time in front.
    pub says: String,
    /// What it logs at any level: what it has just said whenever somebody reads it.
    pub lately: Vec<String>,
    /// After so many changes, no further one is done.
    pub stuck_after: Option<usize>,
}

/// Its threads end with the test.
pub struct FakeCluster {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeCluster {
    pub fn start(pods: Vec<(String, Held)>, forbidden: Vec<&'static str>) -> Self {
        let pods = pods.into_iter().map(|(name, held)| (name, Arc::new(mint(&held)), held.version_moves)).collect();
        let logger = Mutex::new(Logger { level: "warning".into(), ..Logger::default() });
        let shared = Arc::new(Shared { pods, forbidden, logger, ..Shared::default() });
        let (tell, told) = std::sync::mpsc::channel();
        let serving = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let shared = serving.clone();
                    let answer = service_fn(move |request| api(request, shared.clone()));
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                    tokio::spawn(connection.with_upgrades());
                }
            });
        });
        Self { address: told.recv().unwrap(), shared }
    }

    /// A kubeconfig that leads there.
    pub fn kubeconfig(&self, path: &Utf8Path) {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "somebody", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "somebody"}}]});
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// What the containers log that join pods, and their state (`ContainerState` of the Kubernetes API).
    pub fn let_join(&self, log: impl Into<Vec<u8>>, state: Value) {
        *self.shared.witness.lock().unwrap() = (log.into(), state);
    }

    /// What the proxies log while their logger `config` is at debug; after so many changes of its level, none is done.
    pub fn let_log(&self, says: impl Into<String>, stuck_after: Option<usize>) {
        let mut logger = self.shared.logger.lock().unwrap();
        (logger.says, logger.stuck_after) = (says.into(), stuck_after);
    }

    /// What the proxies log at any level.
    pub fn let_log_always(&self, lines: &[&str]) {
        self.shared.logger.lock().unwrap().lately = lines.iter().map(|line| (*line).to_owned()).collect();
    }

    /// The level of the logger `config`, before anybody changes it.
    pub fn log_at(&self, level: &str) {
        self.shared.logger.lock().unwrap().level = level.to_owned();
    }

    /// How the logger is.
    pub fn logger(&self) -> Logger {
        self.shared.logger.lock().unwrap().clone()
    }

    /// The containers that joined.
    pub fn joined(&self) -> Vec<Value> {
        self.shared.joined.lock().unwrap().clone()
    }

    /// What the proxy of a pod holds.
    pub fn leaf(&self, pod: &str) -> CertFacts {
        self.shared.pods.iter().find(|(name, ..)| name == pod).unwrap().1.facts.clone()
    }

    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

fn mint(held: &Held) -> Leaf {
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
    let authority = Authority::new("root", Validity { not_before: at(-90_000), not_after: at(90_000) }).unwrap();
    let request = LeafRequest {
        names: vec![San::Spiffe("spiffe://td/ns/shop/sa/web".parse().unwrap())],
        validity: Validity { not_before: at(-held.age), not_after: at(held.left) },
        key_type: KeyType::EcdsaP256,
        serial: Some(hex::decode(held.serial).unwrap()),
    };
    authority.mint(&request).unwrap()
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn answer(status: StatusCode, body: &Value) -> Answer {
    Ok(Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
}

async fn api(request: Request<Incoming>, shared: Arc<Shared>) -> Answer {
    let path = request.uri().path().to_owned();
    shared.asked.lock().unwrap().push(format!("{} {path}", request.method()));
    if shared.forbidden.iter().any(|part| path.ends_with(part)) {
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": format!("{path} is forbidden")});
        return answer(StatusCode::FORBIDDEN, &status);
    }
    if path.ends_with("/pods") {
        let items: Vec<_> = shared.pods.iter().map(|(name, ..)| pod(name)).collect();
        return answer(StatusCode::OK, &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}));
    }
    if let Some(name) = path.strip_suffix("/ephemeralcontainers").and_then(|path| path.rsplit('/').next()) {
        let described = pod(name);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let patch: Value = serde_json::from_slice(&body).unwrap();
        shared.joined.lock().unwrap().extend(patch["spec"]["ephemeralContainers"].as_array().unwrap().clone());
        return answer(StatusCode::OK, &described);
    }
    if let Some(name) = path.split("/pods/").nth(1).filter(|rest| !rest.contains('/')) {
        let mut described = pod(name);
        let state = shared.witness.lock().unwrap().1.clone();
        let joined = shared.joined.lock().unwrap();
        let status = |container: &Value| json!({"name": container["name"], "restartCount": 0, "ready": false, "image": "", "imageID": "", "state": state});
        described["status"]["ephemeralContainerStatuses"] = joined.iter().map(status).collect();
        return answer(StatusCode::OK, &described);
    }
    if path.ends_with("/log") && request.uri().query().is_some_and(|query| query.contains("rotacheck-witness")) {
        return Ok(Response::new(Full::from(shared.witness.lock().unwrap().0.clone())));
    }
    if path.ends_with("/log") && request.uri().query().is_some_and(|query| query.contains("follow=true")) {
        return Ok(Response::new(Full::from(shared.logger.lock().unwrap().says.clone())));
    }
    if path.ends_with("/log") {
        let agent = "info\tExisting workload SDS socket found at /x. Default Istio SDS Server will only serve files";
        let lately = shared.logger.lock().unwrap().lately.clone();
        let lines = std::iter::once(agent.to_owned()).chain(lately);
        let log: String = lines.map(|line| format!("{} {line}\n", jiff::Timestamp::now())).collect();
        return Ok(Response::new(Full::from(log)));
    }
    let Some(name) = path.strip_suffix("/portforward").and_then(|path| path.rsplit('/').next()) else {
        return answer(StatusCode::NOT_FOUND, &json!({"kind": "Status", "code": 404, "reason": "NotFound"}));
    };
    let held = shared.pods.iter().find(|(pod, ..)| pod == name).unwrap().clone();
    let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        forward(socket, &held, &shared).await;
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io");
    Ok(response.body(Full::default()).unwrap())
}

fn pod(name: &str) -> Value {
    let status = json!({"name": "istio-proxy", "restartCount": 0, "ready": true, "image": "", "imageID": "",
        "state": {"running": {}}});
    let mount = json!({"name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds"});
    let proxy = json!({"name": "istio-proxy", "image": "istio/proxyv2:1.31.0", "volumeMounts": [mount],
        "securityContext": {"runAsUser": 1337, "runAsGroup": 1337}});
    // All certificates are of "web".
    let account = if name.starts_with("foreign") { "foreign" } else { "web" };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"containers": [proxy], "nodeName": "n1", "serviceAccountName": account},
        "status": {"phase": "Running", "containerStatuses": [status]}})
}

/// Channel 0 has the data of the one port, channel 1 its errors; both begin with the port.
async fn forward(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, held: &Pod, shared: &Shared) {
    let port = 15000_u16.to_le_bytes();
    for channel in [0, 1] {
        let _ = socket.send(Message::binary(vec![channel, port[0], port[1]])).await;
    }
    let mut request = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        request.extend_from_slice(&bytes[1..]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
        let path = text.split(' ').nth(1).unwrap().to_owned();
        let body = if text.starts_with("POST /logging") { logging(&path, shared) } else { admin(&path, held, shared) };
        let mut bytes = vec![0];
        bytes.extend(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes());
        if socket.send(Message::binary(bytes)).await.is_err() {
            return;
        }
    }
}

fn logging(path: &str, shared: &Shared) -> String {
    let mut logger = shared.logger.lock().unwrap();
    if let Some(level) = path.strip_prefix("/logging?config=") {
        if logger.stuck_after.is_none_or(|most| logger.set.len() < most) {
            level.clone_into(&mut logger.level);
        }
        logger.set.push(level.to_owned());
    }
    format!("active loggers:\n  admin: warning\n  config: {}\n", logger.level)
}

fn admin(path: &str, (_, leaf, version_moves): &Pod, shared: &Shared) -> String {
    let body = match path.split('?').next().unwrap() {
        "/server_info" => json!({"version": "00/1.38.3/Clean/RELEASE/BoringSSL", "state": "LIVE",
            "uptime_current_epoch": "86400s"}),
        "/certs" => {
            let facts = &leaf.facts;
            let uris: Vec<_> = facts.uris.iter().map(|uri| json!({"uri": uri})).collect();
            let details = json!({"serial_number": facts.serial.as_str(), "subject_alt_names": uris,
                "valid_from": facts.not_before.to_string(), "expiration_time": facts.not_after.to_string()});
            let context = json!({"ca_cert": [], "cert_chain": [details]});
            json!({"certificates": [context, context]})
        }
        "/config_dump" if path.contains("dynamic_active_secrets") => {
            let mut dumps = shared.dumps.lock().unwrap();
            *dumps += u32::from(*version_moves);
            let chain = json!({"certificate_chain": {"inline_string": leaf.chain_pem()}});
            let secret = json!({"tls_certificate": chain});
            json!({"configs": [{"name": "default", "version_info": dumps.to_string(), "secret": secret}]})
        }
        "/stats" => return String::new(),
        _ => json!({}),
    };
    body.to_string()
}
