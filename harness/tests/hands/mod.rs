//! Hands in a cell's namespace, while it is observed: as of somebody who scales, deletes and makes what is there.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "part of a test: what is unexpected shall panic")]

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// As for runs: it ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// The namespace of a cell in a kind cluster.
pub struct Hands {
    client: kube::Client,
    namespace: String,
}

async fn client(cluster: &str) -> kube::Client {
    let file = Command::new("kind").args(["get", "kubeconfig", "--name", cluster]).output().unwrap();
    let file = Kubeconfig::from_yaml(&String::from_utf8(file.stdout).unwrap()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

impl Hands {
    /// Of the only cell.
    pub async fn of_the_cell_in(cluster: &str) -> Self {
        Self::of_the_cell_of(cluster, |_| true).await
    }

    /// Of the only one with such a namespace.
    pub async fn of_the_cell_of(cluster: &str, is_it: impl Fn(&str) -> bool) -> Self {
        let client = client(cluster).await;
        let began = Instant::now();
        loop {
            let all: Api<Namespace> = Api::all(client.clone());
            let of_cells = ListParams::default().labels("rotacheck.dev/cell");
            let there = all.list(&of_cells).await.unwrap().items.into_iter();
            let there = there.filter(|namespace| namespace.metadata.deletion_timestamp.is_none());
            let mut names: Vec<_> =
                there.filter_map(|namespace| namespace.metadata.name).filter(|n| is_it(n)).collect();
            if let (Some(namespace), true) = (names.pop(), names.is_empty()) {
                return Self { client, namespace };
            }
            assert!(began.elapsed() < PATIENCE, "in {cluster} there is not one cell, but more than {names:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has an SDS server of somebody else's serve this socket on every node. Its image is the relay's, which is there.
    pub async fn provide(cluster: &str, socket: &str) {
        let client = client(cluster).await;
        let image = std::env::var("ROTACHECK_RELAY_IMAGE").unwrap();
        let (directory, _) = socket.rsplit_once('/').unwrap();
        let words = ["provider", "--istio", "--trust-domain", "cluster.local", "--ttl", "20s", "--socket", socket];
        let server = json!({
            "name": "sds", "image": image, "imagePullPolicy": "IfNotPresent", "args": words,
            "securityContext": { "runAsUser": 0 }, "volumeMounts": [{ "name": "socket", "mountPath": directory }],
        });
        let labels = json!({ "app": "vendor" });
        let set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "vendor" },
            "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
                "terminationGracePeriodSeconds": 1, "tolerations": [{ "operator": "Exists" }], "containers": [server],
                "volumes": [{ "name": "socket", "hostPath": { "path": directory, "type": "DirectoryOrCreate" } }],
            } } },
        });
        let all: Api<DaemonSet> = Api::namespaced(client, "default");
        all.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pod as it was before Istio put its sidecar into it.
    pub async fn plain(&self, name: &str) -> Value {
        let pod = serde_json::to_value(self.pods().get(name).await.unwrap()).unwrap();
        let ours = |items: &Value, is: &dyn Fn(&str) -> bool| -> Vec<Value> {
            items.as_array().unwrap().iter().filter(|item| is(item["name"].as_str().unwrap())).cloned().collect()
        };
        // What was not injected: the relay's keys, and the socket of who is asked, which may be the agent's.
        let own = |name: &str| matches!(name, "rotacheck-relay" | "provider");
        let mounted = |name: &str| own(name) || name == "workload-socket";
        let mut containers = ours(&pod["spec"]["containers"], &|name| name == "app");
        // A token of its service account is mounted anew.
        for container in &mut containers {
            container["volumeMounts"] = json!(ours(&container["volumeMounts"], &mounted));
            container.as_object_mut().unwrap().remove("env");
        }
        let said = pod["metadata"]["annotations"].as_object().unwrap().iter();
        let said = said.filter(|(name, _)| name.starts_with("rotacheck.dev/") || name.contains("istio.io/"));
        let annotations: serde_json::Map<String, Value> = said
            .filter(|(name, _)| !name.starts_with("sidecar.istio.io/status") && !name.starts_with("istio.io/rev"))
            .map(|(name, text)| (name.clone(), text.clone()))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name }, "annotations": annotations },
            "spec": {
                "serviceAccountName": pod["spec"]["serviceAccountName"], "terminationGracePeriodSeconds": 1,
                "containers": containers, "volumes": ours(&pod["spec"]["volumes"], &own),
            },
        })
    }

    /// Makes a Deployment of pods like this one, as yet without any.
    pub async fn deploy(&self, name: &str, pod: &Value) {
        let mut template = json!({ "metadata": pod["metadata"], "spec": pod["spec"] });
        template["metadata"]["labels"] = json!({ "app": name });
        template["metadata"].as_object_mut().unwrap().remove("name");
        template["spec"]["serviceAccountName"] = json!("default");
        // Istio's injector gives it, but to pods only: a Deployment is refused before.
        let volumes = template["spec"]["volumes"].as_array_mut().unwrap();
        volumes.push(json!({ "name": "workload-socket", "emptyDir": {} }));
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": { "replicas": 0, "selector": { "matchLabels": { "app": name } }, "template": template },
        });
        let all: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        all.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    }

    pub async fn scale(&self, name: &str, replicas: u32) {
        let all: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        all.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Awaits a ready pod of the Deployment.
    pub async fn appears(&self, name: &str) {
        let of_it = ListParams::default().labels(&format!("app={name}"));
        let is_ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let began = Instant::now();
        while !self.pods().list(&of_it).await.unwrap().items.iter().any(is_ready) {
            assert!(began.elapsed() < PATIENCE, "no pod of {name} is ready");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Deletes the pod, waits until it is gone, and makes this one.
    pub async fn replace(&self, name: &str, by: &Value) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        let began = Instant::now();
        while self.pods().get_opt(name).await.unwrap().is_some() {
            assert!(began.elapsed() < PATIENCE, "the pod {name} does not go");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.pods().create(&PostParams::default(), &serde_json::from_value(by.clone()).unwrap()).await.unwrap();
    }

    /// Ends Istio's control plane, which issues for the whole cluster.
    pub async fn end_istiod(&self) {
        let all: Api<Deployment> = Api::namespaced(self.client.clone(), "istio-system");
        let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
        all.patch("istiod", &PatchParams::default(), &none).await.unwrap();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "istio-system");
        let now = DeleteParams::default().grace_period(0);
        pods.delete_collection(&now, &ListParams::default().labels("app=istiod")).await.unwrap();
    }

    /// The relay's keys under another name: nothing tells that a pod with these has a relay.
    pub async fn copy_keys(&self, to: &str) {
        let all: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let keys = all.get("rotacheck-relay").await.unwrap();
        let copy = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": to }, "data": keys.data });
        all.create(&PostParams::default(), &serde_json::from_value(copy).unwrap()).await.unwrap();
    }
}
