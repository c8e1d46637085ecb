//! Kubernetes calls: which pods have a proxy, and the ways to one of them; and, in a cluster that is the harness's to use,
//! objects that are made, watched until they are as they should be, and taken away. Whoever only looks makes nothing but
//! what a question needs: a forwarded connection, a command in the proxy's own container.

mod ephemeral;
mod error;
mod labelled;
mod log;
mod objects;
mod pods;
mod port;
mod rights;
mod watch;
mod way;

use camino::Utf8Path;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use ephemeral::Joined;
pub use error::{ClusterError, Right};
pub use labelled::Labelled;
pub use pods::{Mount, PodName, Sidecar};
pub use port::LocalPort;
pub use watch::{ContainerSeen, PodSeen, PodWatch, process_number};
pub use way::{Forwarded, Way};

/// A cluster, as one user may see it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    context: String,
}

impl Cluster {
    /// The cluster of a context of the user's kubeconfig (`KUBECONFIG`, else `~/.kube/config`); by default of the current
    /// one. Where there is no kubeconfig, the one that this process is a pod of. Nothing is asked yet.
    pub async fn of_context(context: Option<&str>) -> Result<Self, ClusterError> {
        let unusable = |e: &dyn std::error::Error| ClusterError::Config {
            context: context.map(str::to_owned),
            why: error::with_sources(e),
        };
        let (config, context) = match Kubeconfig::read() {
            Ok(file) => {
                let name = context.map(str::to_owned).or_else(|| file.current_context.clone());
                let options = KubeConfigOptions { context: name.clone(), ..KubeConfigOptions::default() };
                let config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| unusable(&e))?;
                (config, name.unwrap_or_else(|| "default".into()))
            }
            Err(e) => match kube::Config::incluster() {
                Ok(config) if context.is_none() => (config, "in-cluster".into()),
                _ => return Err(unusable(&e)),
            },
        };
        let client = kube::Client::try_from(config).map_err(|e| unusable(&e))?;
        Ok(Self { client, context })
    }

    /// The cluster of the current context of a kubeconfig. Nothing is asked yet.
    pub async fn of_file(path: &Utf8Path) -> Result<Self, ClusterError> {
        let unusable = |e: &dyn std::error::Error| ClusterError::Config { context: None, why: error::with_sources(e) };
        let file = Kubeconfig::read_from(path.as_std_path()).map_err(|e| unusable(&e))?;
        let context = file.current_context.clone().unwrap_or_default();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = kube::Client::try_from(config.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
        Ok(Self { client, context })
    }

    /// The name of its context.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The cluster that this client reaches.
    #[cfg(any(test, feature = "testing"))]
    pub fn of(client: kube::Client) -> Self {
        Self { client, context: "test".into() }
    }
}

/// A cluster that gives the answers which a test has made for it.
#[cfg(any(test, feature = "testing"))]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]
pub mod canned {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::task::JoinHandle;

    use super::Cluster;

    /// A cluster that gives these answers, one after the other, and then the paths that it was asked for.
    pub fn answering(answers: Vec<(u16, Value)>) -> (Cluster, JoinHandle<Vec<String>>) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (request, respond) = handle.next_request().await.expect("it is asked as often as it answers");
                asked.push(request.uri().to_string());
                let body = match body.as_str().filter(|text| text.is_empty() || text.ends_with('\n')) {
                    Some(lines) => lines.as_bytes().to_vec(),
                    None => serde_json::to_vec(&body).unwrap(),
                };
                let body = Body::from(body);
                respond.send_response(Response::builder().status(status).body(body).unwrap());
            }
            asked
        });
        (Cluster::of(kube::Client::new(service, "default")), asked)
    }

    /// What a watch tells: an answer of several lines, kept apart from other texts by being one.
    pub fn lines(told: &[Value]) -> Value {
        Value::String(told.iter().map(|line| format!("{line}\n")).collect())
    }

    /// What an API server says where it refuses.
    pub fn status(code: u16, message: &str) -> Value {
        let reason = if code == 404 { "NotFound" } else { "Forbidden" };
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message, "code": code,
            "reason": reason})
    }
}
