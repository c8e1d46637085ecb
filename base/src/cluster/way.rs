//! The ways to a proxy's admin API, which listens on its own loopback only: a forwarded connection, kept for further
//! questions; where those are forbidden, a command of Istio's agent.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, LogParams};
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::error::{Right, shortened, with_sources};
use super::log::timed;
use super::pods::place;
use super::{Cluster, ClusterError, PodName, Sidecar};

/// A longer answer is refused: a dump of a large mesh has some 30 MB.
const LARGEST_ANSWER: usize = 128 << 20;
/// How long a command may take.
const TO_END: std::time::Duration = std::time::Duration::from_secs(30);
/// Of a log, as much as tells what happens now.
const LOG_BYTES: i64 = 1 << 20;

/// One proxy, and the way to its admin API.
pub struct Way {
    pods: Api<Pod>,
    place: String,
    sidecar: Sidecar,
    port: u16,
    /// The forwarded connection; one question at a time.
    connection: tokio::sync::Mutex<Option<SendRequest<Empty<Bytes>>>>,
    /// Why connections are not tried any more: they are forbidden.
    forbidden: std::sync::OnceLock<ClusterError>,
}

impl Cluster {
    /// A connection to a port of a pod's loopback.
    pub async fn forwarded(&self, pod: &PodName, port: u16) -> Result<Forwarded, ClusterError> {
        forwarded(&Api::namespaced(self.client.clone(), &pod.namespace), pod, port).await
    }

    /// What a command printed that was run in a container: its answers, and then its complaints.
    pub async fn run(&self, pod: &PodName, container: &str, command: &[&str]) -> Result<String, ClusterError> {
        let pods = Api::namespaced(self.client.clone(), &pod.namespace);
        let ended = tokio::time::timeout(TO_END, run(&pods, pod, container, command)).await;
        let Printed { mut answer, complaint } = ended.unwrap_or_else(|_| {
            let said = format!("{}: it did not end within {} s", command.join(" "), TO_END.as_secs());
            Err(ClusterError::Failed { right: Right::Exec, place: pod.to_string(), said })
        })?;
        answer.extend(complaint);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The way to a proxy whose admin API has this port. Nothing is asked yet.
    pub fn way(&self, sidecar: &Sidecar, port: u16) -> Way {
        Way {
            pods: Api::namespaced(self.client.clone(), &sidecar.pod.namespace),
            place: place(Some(&sidecar.pod.namespace)),
            sidecar: sidecar.clone(),
            port,
            connection: tokio::sync::Mutex::default(),
            forbidden: std::sync::OnceLock::new(),
        }
    }
}

/// A forwarded connection.
pub struct Forwarded {
    /// What is said on it.
    pub stream: DuplexStream,
    /// What the node says when it ends, if it could not be made or was broken.
    pub said: BoxFuture<'static, Option<String>>,
}

async fn forwarded(pods: &Api<Pod>, pod: &PodName, port: u16) -> Result<Forwarded, ClusterError> {
    let place = place(Some(&pod.namespace));
    let opened = pods.portforward(&pod.name, &[port]).await;
    let mut opened = opened.map_err(|e| ClusterError::of(&e, Right::Forward, &place))?;
    let stream = opened.take_stream(port).expect("it was asked for, and not taken yet");
    let said = opened.take_error(port).expect("it was asked for, and not taken yet");
    // It carries until the stream is dropped; how it ended, the stream and the node say.
    tokio::spawn(opened.join());
    Ok(Forwarded { stream, said: Box::pin(said) })
}

/// What a command printed.
struct Printed {
    answer: Vec<u8>,
    complaint: Vec<u8>,
}

/// Runs a command in a container to its end; one that fails is an error with its words.
async fn run(pods: &Api<Pod>, pod: &PodName, container: &str, command: &[&str]) -> Result<Printed, ClusterError> {
    let params = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
    let started = pods.exec(&pod.name, command.iter().copied(), &params).await;
    let mut process = started.map_err(|e| ClusterError::of(&e, Right::Exec, &place(Some(&pod.namespace))))?;
    let failed = |said: String| ClusterError::Failed {
        right: Right::Exec,
        place: pod.to_string(),
        said: format!("{}: {said}", command.join(" ")),
    };
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let mut answer = Vec::new();
    let mut complaint = Vec::new();
    let read = async {
        if let Some(stdout) = stdout {
            stdout.take(LARGEST_ANSWER as u64 + 1).read_to_end(&mut answer).await?;
        }
        std::io::Result::Ok(())
    };
    let read_complaint = async {
        if let Some(stderr) = stderr {
            stderr.take(64 << 10).read_to_end(&mut complaint).await?;
        }
        std::io::Result::Ok(())
    };
    tokio::try_join!(read, read_complaint).map_err(|e| failed(e.to_string()))?;
    if answer.len() > LARGEST_ANSWER {
        return Err(failed(format!("its answer is longer than {LARGEST_ANSWER} bytes")));
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    if status.as_ref().is_some_and(|status| status.status.as_deref() == Some("Failure")) {
        let complaint = String::from_utf8_lossy(&complaint);
        let said = status.and_then(|status| status.message).unwrap_or_default();
        return Err(failed(shortened(&format!("{said} {complaint}"))));
    }
    Ok(Printed { answer, complaint })
}

impl Way {
    /// Whose way it is.
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Asks for `path`, such as `/certs`: status and body.
    pub async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes), ClusterError> {
        self.request(&Method::GET, path).await
    }

    /// The same of what only a POST gets, as it may change something: `/logging`.
    pub async fn post(&self, path: &str) -> Result<(StatusCode, Bytes), ClusterError> {
        self.request(&Method::POST, path).await
    }

    async fn request(&self, method: &Method, path: &str) -> Result<(StatusCode, Bytes), ClusterError> {
        if self.forbidden.get().is_none() {
            match self.by_connection(method, path).await {
                Err(e @ ClusterError::Forbidden { .. }) if self.sidecar.is_istio => {
                    let _ = self.forbidden.set(e);
                }
                answer => return answer,
            }
        }
        // The agent's command has the path without its slash.
        let command = ["pilot-agent", "request", method.as_str(), path.trim_start_matches('/')];
        self.run(&command).await.map(|body| (StatusCode::OK, body))
    }

    /// Why it is asked by commands: connections are forbidden.
    pub fn forbidden(&self) -> Option<&ClusterError> {
        self.forbidden.get()
    }

    async fn by_connection(&self, method: &Method, path: &str) -> Result<(StatusCode, Bytes), ClusterError> {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // The answer before is over only when its connection says so; and Envoy, or the node, may have closed it since.
        if connection.ready().await.is_err() {
            connection = self.connect().await?;
        }
        let failed = |said: String| self.failed(Right::Forward, format!("no answer to {path}: {said}"));
        let request =
            Request::builder().method(method).uri(path).header(header::HOST, format!("127.0.0.1:{}", self.port));
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| failed(e.to_string()))?;
        let response = connection.send_request(request).await.map_err(|e| failed(with_sources(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
            Some(_) => failed(format!("it is longer than {LARGEST_ANSWER} bytes")),
            None => failed(with_sources(e.as_ref())),
        })?;
        *kept = Some(connection);
        Ok((status, body.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, ClusterError> {
        let Forwarded { stream, said } = forwarded(&self.pods, &self.sidecar.pod, self.port).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.failed(Right::Forward, with_sources(&e)))?;
        tokio::spawn(async move {
            // It ends with its sender; what went wrong on it, the question says that was asked.
            let _ = connection.await;
            drop(said);
        });
        Ok(sender)
    }

    /// What a command in the proxy's container printed.
    async fn run(&self, command: &[&str]) -> Result<Bytes, ClusterError> {
        let Printed { answer, complaint } =
            run(&self.pods, &self.sidecar.pod, &self.sidecar.container, command).await?;
        if answer.is_empty() {
            let said = String::from_utf8_lossy(&complaint).into_owned();
            return Err(self.failed(Right::Exec, format!("{}: {}", command.join(" "), shortened(&said))));
        }
        Ok(answer.into())
    }

    /// The end of the proxy's log, at most of so many seconds: its lines, each with the time at which its node took it.
    pub async fn log(&self, since_s: Option<i64>) -> Result<Vec<(jiff::Timestamp, String)>, ClusterError> {
        let params = LogParams {
            container: Some(self.sidecar.container.clone()),
            limit_bytes: Some(LOG_BYTES),
            tail_lines: Some(2000),
            since_seconds: since_s,
            timestamps: true,
            ..LogParams::default()
        };
        let log = self.pods.logs(&self.sidecar.pod.name, &params).await;
        let log = log.map_err(|e| ClusterError::of(&e, Right::Logs, &self.place))?;
        Ok(log.lines().filter_map(timed).map(|(time, line)| (time, line.to_owned())).collect())
    }

    fn failed(&self, right: Right, said: String) -> ClusterError {
        ClusterError::Failed { right, place: self.sidecar.pod.to_string(), said }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::canned::{answering, status};

    fn sidecar(is_istio: bool) -> Sidecar {
        Sidecar {
            pod: PodName { namespace: "ns1".into(), name: "a".into() },
            uid: "u".into(),
            container: "istio-proxy".into(),
            is_istio,
            image: String::new(),
            ip: None,
            account: "default".into(),
            user: (None, None),
            mounts: Vec::new(),
            node: None,
            restarts: 0,
            down: None,
        }
    }

    #[tokio::test]
    async fn where_connections_are_forbidden_the_agents_command_is_tried_and_then_both_rights_are_known() {
        let forbidden = |what: &str| (403, status(403, &format!("pods/{what} is forbidden")));
        let (cluster, asked) = answering(vec![forbidden("portforward"), forbidden("exec"), forbidden("exec")]);
        let way = cluster.way(&sidecar(true), 15000);
        let e = way.ask("/certs").await.unwrap_err();
        assert_eq!(e.missing_right(), Some(Right::Exec));
        assert_eq!(way.forbidden().unwrap().missing_right(), Some(Right::Forward));
        // A connection is not tried again.
        assert_eq!(way.ask("/certs").await.unwrap_err().missing_right(), Some(Right::Exec));
        let asked = asked.await.unwrap();
        assert!(
            asked[0].contains("/namespaces/ns1/pods/a/portforward?") && asked[0].contains("ports=15000"),
            "{asked:?}"
        );
        for exec in &asked[1..] {
            assert!(exec.contains("/pods/a/exec?") && exec.contains("container=istio-proxy"), "{exec}");
            assert!(exec.ends_with("command=pilot-agent&command=request&command=GET&command=certs"), "{exec}");
        }
    }

    #[tokio::test]
    async fn an_envoy_without_istios_agent_has_no_command_to_ask() {
        let (cluster, _) = answering(vec![(403, status(403, "pods/portforward is forbidden"))]);
        let e = cluster.way(&sidecar(false), 15000).ask("/certs").await.unwrap_err();
        assert_eq!(e.missing_right(), Some(Right::Forward));
    }

    #[tokio::test]
    async fn a_node_that_does_not_forward_is_told_with_its_words() {
        let (cluster, _) = answering(vec![(500, status(500, "error upgrading connection: node gone"))]);
        let e = cluster.way(&sidecar(true), 15000).ask("/certs").await.unwrap_err();
        assert!(e.to_string().contains("get pods/portforward") && e.to_string().contains("node gone"), "{e}");
    }

    #[tokio::test]
    async fn the_log_of_the_proxys_own_container_is_read() {
        let (cluster, asked) = answering(vec![(200, json!("2026-11-26T22:39:02.5Z a line\nno time\n"))]);
        let log = cluster.way(&sidecar(true), 15000).log(Some(50)).await.unwrap();
        assert_eq!(log, [("2026-11-26T22:39:02.5Z".parse().unwrap(), "a line".to_owned())]);
        let asked = asked.await.unwrap();
        assert!(asked[0].contains("container=istio-proxy") && asked[0].contains("sinceSeconds=50"), "{asked:?}");
    }
}
