//! Test doubles: an authority, and a proxy in this process whose certificate can be exchanged.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls::{self, Capture};
use super::{OutboundServer, ProbeContext, Roots};
use crate::clock::Clock;
use crate::fleet::Proxy;
use crate::pki;
use crate::scenario::KeyType;
use crate::timeline::*;

pub(super) const IDENTITY: &str = "spiffe://td/ns/demo/sa/a";

pub(super) struct Authority {
    authority: pki::Authority,
    pub(super) der: CertificateDer<'static>,
}

/// A leaf with its key.
#[derive(Debug)]
pub(super) struct Svid(pki::Leaf);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let lasting = Duration::from_secs(86_400);
        let now = jiff::Timestamp::now();
        let authority = pki::Authority::new(name, pki::Validity::ending(now + lasting, 2 * lasting)).unwrap();
        let der = CertificateDer::from(authority.der().to_vec());
        Self { authority, der }
    }

    pub(super) fn pem(&self) -> String {
        self.authority.pem()
    }

    /// A leaf that is valid until this many seconds from now (negative: it has expired).
    pub(super) fn svid(&self, seconds_left: i64) -> Svid {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds_left);
        let request = pki::LeafRequest {
            names: vec![pki::San::Spiffe(SpiffeId::parse(IDENTITY).unwrap())],
            validity: pki::Validity::ending(end, Duration::from_secs(3600)),
            key_type: KeyType::EcdsaP256,
            serial: None,
        };
        Svid(self.authority.mint(&request).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }
}

impl Svid {
    pub(super) fn facts(&self) -> CertFacts {
        self.0.facts.clone()
    }

    /// A server that requires a client certificate of this authority, and issues session tickets.
    pub(super) fn server_config(&self, clients: &Authority) -> Arc<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), tls::provider()).build().unwrap();
        let (chain, key) = self.0.to_rustls();
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    /// A client that shows this certificate to whoever asks, and resumes sessions when it may.
    pub(super) fn client_config(&self) -> ClientConfig {
        let (chain, key) = self.0.to_rustls();
        ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Capture::default()))
            .with_client_auth_cert(chain, key)
            .unwrap()
    }
}

/// One request over TLS to the harness's server, as the proxy of this name.
pub(super) async fn dial(server: SocketAddr, name: &str, config: Arc<ClientConfig>) -> std::io::Result<String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(server).await?;
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A context whose recorder writes nowhere, with an outbound server of its own.
pub(super) async fn context(patience: Duration) -> ProbeContext {
    let header = Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: "0".into(),
        cell: CellId::parse("x@y").unwrap(),
        scenario: ScenarioName::parse("x").unwrap(),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject { version: EnvoyVersion::parse("1.38.3").unwrap(), source: "path".into() },
            istio: None,
            provider: ProviderSubject { kind: "fake".into(), profile: None, version: "0".into() },
            cluster: None,
        },
        clock: ClockKind::Real,
        started: jiff::Timestamp::UNIX_EPOCH,
        proxies: Vec::new(),
        criteria: Criteria {
            ttl_s: 120,
            renew_every_s: None,
            lag_bound_ms: 5000,
            margin_floor_s: 12,
            margin_floor_ms: None,
            newer_generations: 2,
            generations_past_first_expiry: 2,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    };
    let recorder = Recorder::new(header, Clock::real(), None);
    let roots = Roots::default();
    let server = OutboundServer::start(recorder.clone(), roots.clone()).await.unwrap();
    ProbeContext::new(recorder, roots, server).with_patience(patience)
}

pub(super) fn facts(ctx: &ProbeContext) -> Vec<Fact> {
    ctx.recorder.since(0).iter().map(|o| o.fact.clone()).collect()
}

/// Nothing of it can be reached.
pub(super) fn unreachable() -> Proxy {
    // Port 1 is nobody's.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    Proxy {
        id: ProxyId::parse("a").unwrap(),
        spiffe_id: Some(SpiffeId::parse(IDENTITY).unwrap()),
        pid: 1,
        listens: None,
        admin: nowhere,
        inbound: nowhere,
        outbound: nowhere,
        resumes: false,
        keeps_no_sessions: false,
        sides: crate::fleet::Sides::ALL,
        dial_out: nowhere,
        next: ProxyId::parse("b").unwrap(),
        stapled: None,
        socket: None,
        watches: None,
        contexts: 2,
        bootstrap: "/nowhere".into(),
        log: "/nowhere".into(),
        telling: &[],
    }
}

/// Accepts, and leaves the connections to `serve`.
pub(super) async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// Answers each request of a connection by its path.
pub(super) async fn http<F: Future<Output = (u16, String)>>(mut stream: TcpStream, answer: impl Fn(String) -> F) {
    let mut head = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut head).await {
        let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        head.drain(..end + 4);
        let (status, body) = answer(path).await;
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A listener that does mTLS with the certificate that it is given.
pub(super) async fn tls_listener(config: Arc<ServerConfig>) -> SocketAddr {
    listen(move |stream| {
        let acceptor = TlsAcceptor::from(config.clone());
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 16]).await;
            }
        }
    })
    .await
}

/// A proxy in this process: it serves, loads and shows the certificate that it was given last.
pub(super) struct FakeProxy {
    pub(super) proxy: Proxy,
    svid: Arc<RwLock<Arc<Svid>>>,
}

impl FakeProxy {
    pub(super) async fn start(authority: Arc<Authority>, svid: Svid, ctx: &ProbeContext) -> Self {
        let svid = Arc::new(RwLock::new(Arc::new(svid)));
        let held = |svid: &Arc<RwLock<Arc<Svid>>>| svid.read().unwrap().clone();
        let inbound = {
            let svid = svid.clone();
            listen(move |stream| {
                let acceptor = TlsAcceptor::from(held(&svid).server_config(&authority));
                async move {
                    let _ = acceptor.accept(stream).await;
                }
            })
            .await
        };
        let dial_out = {
            let (svid, server) = (svid.clone(), ctx.outbound.as_ref().unwrap().addr());
            listen(move |stream| {
                let svid = held(&svid);
                http(stream, move |_| {
                    let config = Arc::new(svid.client_config());
                    async move {
                        match dial(server, "a", config).await {
                            Ok(_) => (200, String::new()),
                            Err(e) => (503, e.to_string()),
                        }
                    }
                })
            })
            .await
        };
        let admin = {
            let svid = svid.clone();
            listen(move |stream| {
                let leaf = held(&svid).facts();
                http(stream, move |_| {
                    let entry = serde_json::json!({"cert_chain": [{
                        "serial_number": leaf.serial, "subject_alt_names": [{"uri": IDENTITY}],
                        "valid_from": leaf.not_before, "expiration_time": leaf.not_after}]});
                    let body = serde_json::json!({"certificates": [entry, entry]}).to_string();
                    async move { (200, body) }
                })
            })
            .await
        };
        Self { proxy: Proxy { inbound, dial_out, admin, ..unreachable() }, svid }
    }

    pub(super) fn rotate(&self, svid: Svid) {
        *self.svid.write().unwrap() = Arc::new(svid);
    }
}
