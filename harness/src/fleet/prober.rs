//! A pod outside of the mesh that carries bytes: whoever shakes hands through it comes to a proxy as a stranger does, and not
//! by a forwarded connection, which a sidecar never sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::owner::run_labels;
use super::{FleetError, RUN};
use crate::clock::Deadline;
use crate::cluster::{Cluster, Forwarded, PodName};
use crate::remote::{Connector, Credentials, Event, Forward, Keys, Link, Opened, RemoteError, Target};

/// Where its relay listens, on its loopback.
const RELAY: u16 = 15_999;
const KEYS_AT: &str = "/run/rotacheck-keys";
/// Nobody's user.
const USER: u32 = 65_532;
/// How long its image may take to come, and its relay to answer.
const TO_START: Duration = Duration::from_secs(90);
/// Between two looks whether it runs: to watch the pods of a namespace would take a right more.
const LOOK: Duration = Duration::from_millis(300);

/// A port on 127.0.0.1 that leads through the prober; closed when this is dropped.
pub type WayThrough = Forward;

/// Such a pod. [`Prober::clear`] takes it away.
pub struct Prober {
    cluster: Cluster,
    pod: PodName,
    labels: Value,
    uid: Value,
    link: Option<Link>,
    cleared: AtomicBool,
}

impl Prober {
    /// Makes the pod in a namespace, from an image of rotacheck.
    pub async fn make(cluster: &Cluster, namespace: &str, image: &str) -> Result<Self, FleetError> {
        let labels = run_labels();
        let name = format!("rotacheck-prober-{}", labels.get(RUN).map_or("0", String::as_str));
        let pod = PodName { namespace: namespace.to_owned(), name };
        let made = cluster.create(&description(&pod, &json!(labels), image)).await?;
        let uid = made["metadata"]["uid"].clone();
        Ok(Self {
            cluster: cluster.clone(),
            pod,
            labels: json!(labels),
            uid,
            link: None,
            cleared: AtomicBool::new(false),
        })
    }

    /// Waits until its relay answers. `tell` hears what befalls the way to it later.
    pub async fn come_up(&mut self, tell: impl Fn(String) + Send + Sync + 'static) -> Result<(), FleetError> {
        let keys = Keys::new()?;
        // The pod's own: it goes with it.
        self.cluster.create(&secret(&self.pod, &self.labels, &self.uid, &keys.relay()?)).await?;
        self.wait().await?;
        self.link = Some(self.connect(&keys.harness()?, tell).await?);
        Ok(())
    }

    async fn wait(&self) -> Result<(), FleetError> {
        let deadline = Deadline::after(TO_START);
        loop {
            let seen = self.cluster.pod(&self.pod).await?.unwrap_or_default();
            if seen.containers.values().any(|c| c.running) {
                return Ok(());
            }
            let ended = seen.containers.values().any(|c| c.exit_code.is_some());
            if seen.cannot_be_made() || ended || deadline.passed() {
                return Err(FleetError::NotUp {
                    what: "its pod".into(),
                    namespace: self.pod.namespace.clone(),
                    state: seen.state(),
                    events: String::new(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn connect(
        &self,
        credentials: &Credentials,
        tell: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Link, FleetError> {
        let (cluster, pod) = (self.cluster.clone(), self.pod.clone());
        let connector: Connector = Arc::new(move || {
            let (cluster, pod) = (cluster.clone(), pod.clone());
            Box::pin(async move {
                let Forwarded { stream, said } = cluster.forwarded(&pod, RELAY).await.map_err(|e| e.to_string())?;
                Ok(Opened { io: Box::new(stream), said })
            })
        });
        let hear = Arc::new(move |event| match event {
            Event::Cut { why } => tell(format!("the way through it was cut: {why}")),
            Event::Gone { why } => tell(format!("the way through it was given up: {why}")),
            // Whoever dialled sees a connection that broke.
            Event::Failed { asked, why } => tracing::debug!("{asked}: {why}"),
            Event::Restored { .. } => {}
        });
        Ok(Link::connect(self.pod.to_string(), connector, credentials, hear, Deadline::after(TO_START)).await?)
    }

    /// Its name.
    pub fn pod(&self) -> &PodName {
        &self.pod
    }

    /// A way to a port of a pod.
    pub async fn way_to(&self, ip: &str, port: u16) -> Result<Forward, RemoteError> {
        match &self.link {
            Some(link) => link.forward(Target::tcp(ip, port)).await,
            None => Err(RemoteError::Unreachable { relay: self.pod.to_string(), why: "it was never reached".into() }),
        }
    }

    /// Takes it away.
    pub async fn clear(&self) -> Result<(), FleetError> {
        self.cleared.store(true, Ordering::Release);
        Ok(self.cluster.delete_pod(&self.pod.namespace, &self.pod.name).await?)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if self.cleared.swap(true, Ordering::AcqRel) {
            return;
        }
        // It was cut short.
        let (cluster, pod) = (self.cluster.clone(), self.pod.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Its label tells whose it is, if it stays.
                let _ = cluster.delete_pod(&pod.namespace, &pod.name).await;
            });
        }
    }
}

/// Fit for namespaces that admit restricted pods only (Pod Security Standards).
fn description(pod: &PodName, labels: &Value, image: &str) -> Value {
    let mut labels = labels.clone();
    labels["sidecar.istio.io/inject"] = json!("false");
    let listen = format!("127.0.0.1:{RELAY}");
    let resources = json!({ "cpu": "500m", "memory": "128Mi" });
    let container = json!({
        "name": "relay", "image": image, "imagePullPolicy": "IfNotPresent",
        "args": ["relay", "--listen", listen, "--credentials", KEYS_AT],
        "volumeMounts": [{ "name": "keys", "mountPath": KEYS_AT, "readOnly": true }],
        "resources": { "limits": resources, "requests": { "cpu": "10m", "memory": "32Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        },
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "labels": labels,
            "annotations": { "sidecar.istio.io/inject": "false" } },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [container],
            "volumes": [{ "name": "keys", "secret": { "secretName": pod.name, "defaultMode": 0o440 } }],
        },
    })
}

fn secret(pod: &PodName, labels: &Value, uid: &Value, credentials: &Credentials) -> Value {
    let files: Map<String, Value> =
        credentials.files().iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "labels": labels, "ownerReferences": [
            { "apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": uid },
        ] },
        "stringData": files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_restricted_pod_outside_of_the_mesh_that_sweep_finds_and_its_keys_go_with_it() {
        let pod = PodName { namespace: "shop".into(), name: "rotacheck-prober-1-ab".into() };
        let labels = json!({ RUN: "1-ab", "rotacheck.dev/machine": "0a" });
        let made = description(&pod, &labels, "rotacheck:1");
        insta::assert_snapshot!(serde_json::to_string_pretty(&made).unwrap());
        let keys = secret(&pod, &labels, &json!("u-1"), &Keys::new().unwrap().relay().unwrap());
        assert_eq!(keys["metadata"]["ownerReferences"][0]["uid"], "u-1");
        assert_eq!(keys["stringData"].as_object().unwrap().len(), 3);
        assert_eq!(made["spec"]["volumes"][0]["secret"]["secretName"], keys["metadata"]["name"]);
    }
}
