//! Which pods have a proxy.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, VolumeMount};
use kube::api::{Api, ListParams};

use super::error::Right;
use super::{Cluster, ClusterError};

/// The container that Istio injects.
const ISTIO_PROXY: &str = "istio-proxy";
/// Pods that are asked for at once; the rest comes with the next page.
const PAGE: u32 = 500;

/// A pod's name, with its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod with a proxy in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// The pod.
    pub pod: PodName,
    /// Tells it from another pod that has the same name later.
    pub uid: String,
    /// The container that the proxy is in.
    pub container: String,
    /// Whether Istio's agent runs it.
    pub is_istio: bool,
    /// The container's image.
    pub image: String,
    /// The pod's address in the cluster.
    pub ip: Option<String>,
    /// The pod's service account.
    pub account: String,
    /// User and group that the container runs as, where the pod says so.
    pub user: (Option<i64>, Option<i64>),
    /// Where it sees volumes.
    pub mounts: Vec<Mount>,
    /// The node that it is on.
    pub node: Option<String>,
    /// How often the container was started again.
    pub restarts: i32,
    /// Why it can't be asked: it does not run.
    pub down: Option<String>,
}

/// A volume of a pod, in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume.
    pub volume: String,
    /// Where it is.
    pub path: String,
    /// Whether only a part of it.
    pub part: bool,
}

impl Sidecar {
    /// The volume in which the proxy sees this path.
    pub fn mount_of(&self, path: &str) -> Option<&Mount> {
        let holds = |mount: &&Mount| {
            let at = mount.path.trim_end_matches('/');
            path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'))
        };
        self.mounts.iter().filter(holds).max_by_key(|mount| mount.path.len())
    }
}

impl Cluster {
    /// Pods with a proxy in a namespace, or in all of them, in the order of their names.
    pub async fn sidecars(&self, namespace: Option<&str>) -> Result<Vec<Sidecar>, ClusterError> {
        let place = place(namespace);
        let pods: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = pods.list(&params).await.map_err(|e| ClusterError::of(&e, Right::ListPods, &place))?;
            found.extend(page.items.iter().filter_map(sidecar));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        found.sort_by(|a, b| a.pod.cmp(&b.pod));
        Ok(found)
    }

    /// The proxy of one pod; whoever may not list pods may still know one by name.
    pub async fn sidecar(&self, namespace: &str, name: &str) -> Result<Sidecar, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let place = place(Some(namespace));
        let pod = pods.get_opt(name).await.map_err(|e| ClusterError::of(&e, Right::GetPods, &place))?;
        let missing = |what: String| ClusterError::Missing { what };
        let pod = pod.ok_or_else(|| missing(format!("the pod {namespace}/{name}")))?;
        sidecar(&pod).ok_or_else(|| missing(format!("a proxy in the pod {namespace}/{name}")))
    }
}

pub(super) fn place(namespace: Option<&str>) -> String {
    namespace.map_or("all namespaces".into(), |namespace| format!("namespace {namespace}"))
}

/// What a pod's proxy is, if it has one: Istio's, among the containers or (a native sidecar) those that start before them;
/// else an Envoy.
fn sidecar(pod: &Pod) -> Option<Sidecar> {
    let spec = pod.spec.as_ref()?;
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let istio = all().find(|c| c.name == ISTIO_PROXY);
    let container = istio.or_else(|| all().find(|c| is_envoy(c)))?;
    let status = pod.status.as_ref();
    let statuses = || {
        let statuses = [
            status.and_then(|s| s.container_statuses.as_ref()),
            status.and_then(|s| s.init_container_statuses.as_ref()),
        ];
        statuses.into_iter().flatten().flatten()
    };
    let own = statuses().find(|s| s.name == container.name);
    let (of_pod, of_container) = (spec.security_context.as_ref(), container.security_context.as_ref());
    let user = of_container.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user));
    let group = of_container.and_then(|c| c.run_as_group).or(of_pod.and_then(|c| c.run_as_group));
    let mount = |m: &VolumeMount| Mount {
        volume: m.name.clone(),
        path: m.mount_path.clone(),
        part: m.sub_path.is_some() || m.sub_path_expr.is_some(),
    };
    Some(Sidecar {
        pod: PodName { namespace: pod.metadata.namespace.clone()?, name: pod.metadata.name.clone()? },
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        container: container.name.clone(),
        is_istio: istio.is_some(),
        image: container.image.clone().unwrap_or_default(),
        ip: status.and_then(|s| s.pod_ip.clone()),
        account: spec.service_account_name.clone().unwrap_or_default(),
        user: (user, group),
        mounts: container.volume_mounts.iter().flatten().map(mount).collect(),
        node: spec.node_name.clone(),
        restarts: own.map_or(0, |s| s.restart_count),
        down: down(own, status.and_then(|s| s.phase.as_deref())),
    })
}

/// An image of that name which runs what it was made for.
fn is_envoy(container: &Container) -> bool {
    let repository = container.image.as_deref().unwrap_or_default().split('@').next().unwrap_or_default();
    let name = repository.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let command = container.command.as_ref().and_then(|command| command.first());
    name.contains("envoy") && command.is_none_or(|command| command.contains("envoy"))
}

fn down(status: Option<&ContainerStatus>, phase: Option<&str>) -> Option<String> {
    let state = status.and_then(|s| s.state.as_ref());
    if state.is_some_and(|s| s.running.is_some()) {
        return None;
    }
    let reason = state.and_then(|s| {
        let waiting = s.waiting.as_ref().and_then(|w| w.reason.clone());
        waiting.or_else(|| s.terminated.as_ref().and_then(|t| t.reason.clone()))
    });
    Some(format!("its container does not run ({})", reason.as_deref().or(phase).unwrap_or("no status")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::canned::{answering, status};

    fn pod(name: &str, containers: Value, inits: Value) -> Value {
        let running = |c: &Value| {
            json!({"name": c["name"], "restartCount": 2, "ready": true, "image": "", "imageID": "",
            "state": {"running": {}}})
        };
        let statuses = |all: &Value| all.as_array().unwrap().iter().map(running).collect::<Vec<_>>();
        json!({"metadata": {"name": name, "namespace": "ns1", "uid": format!("uid-{name}")},
            "spec": {"containers": containers, "initContainers": inits, "nodeName": "n1"},
            "status": {"phase": "Running", "containerStatuses": statuses(&containers),
                "initContainerStatuses": statuses(&inits)}})
    }

    fn list(pods: &[Value], token: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": token}, "items": pods})
    }

    #[tokio::test]
    async fn injected_sidecars_native_ones_and_plain_envoys_are_found_and_nothing_else() {
        let proxy = json!({"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"});
        let app = json!({"name": "app", "image": "local/envoy:1.38.3", "command": ["sleep", "1000"]});
        let pods = [
            pod("b", json!([app, proxy]), json!([])),
            pod("a", json!([app]), json!([proxy])),
            pod("plain", json!([{"name": "e", "image": "r:5000/envoyproxy/envoy-distroless@sha256:00"}]), json!([])),
            pod("none", json!([app, {"name": "web", "image": "nginx"}]), json!([])),
        ];
        let cluster = answering(vec![(200, list(&pods, ""))]).0;
        let found = cluster.sidecars(Some("ns1")).await.unwrap();
        let names: Vec<_> = found.iter().map(|s| (s.pod.name.as_str(), s.container.as_str(), s.is_istio)).collect();
        assert_eq!(names, [("a", "istio-proxy", true), ("b", "istio-proxy", true), ("plain", "e", false)]);
        assert!(found.iter().all(|s| s.down.is_none() && s.restarts == 2 && s.node.as_deref() == Some("n1")));
    }

    #[tokio::test]
    async fn the_volume_of_a_path_is_the_one_that_is_mounted_nearest() {
        let mounts = json!([{"name": "all", "mountPath": "/var/run/"}, {"name": "uds", "mountPath": "/var/run/uds"},
            {"name": "other", "mountPath": "/var/run/ud"}]);
        let mut found = pod(
            "a",
            json!([{"name": "istio-proxy", "image": "x", "volumeMounts": mounts,
            "securityContext": {"runAsUser": 1337}}]),
            json!([]),
        );
        found["spec"]["securityContext"] = json!({"runAsUser": 1, "runAsGroup": 2});
        let sidecar = answering(vec![(200, list(&[found], ""))]).0.sidecars(None).await.unwrap().remove(0);
        let volume = |path: &str| sidecar.mount_of(path).map(|mount| mount.volume.as_str());
        assert_eq!(volume("/var/run/uds/socket"), Some("uds"));
        assert_eq!((volume("/var/run/x"), volume("/tmp/x"), volume("/var/run")), (Some("all"), None, None));
        assert_eq!(sidecar.user, (Some(1337), Some(2)));
    }

    #[tokio::test]
    async fn a_list_that_comes_in_pages_is_read_to_its_end() {
        let proxy = json!([{"name": "istio-proxy", "image": "x"}]);
        let page = |name: &str, token: &str| (200, list(&[pod(name, proxy.clone(), json!([]))], token));
        let (cluster, asked) = answering(vec![page("a", "more"), page("b", "")]);
        assert_eq!(cluster.sidecars(None).await.unwrap().len(), 2);
        let asked = asked.await.unwrap();
        assert!(asked[0].starts_with("/api/v1/pods?") && asked[1].contains("continue=more"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_pod_that_does_not_run_is_found_with_the_reason() {
        let mut waiting = pod("a", json!([{"name": "istio-proxy", "image": "x"}]), json!([]));
        waiting["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
        let found = answering(vec![(200, list(&[waiting], ""))]).0.sidecars(Some("ns1")).await.unwrap();
        assert_eq!(found[0].down.as_deref(), Some("its container does not run (ImagePullBackOff)"));
    }

    #[tokio::test]
    async fn a_right_that_is_missing_is_named_with_what_asks_for_it() {
        let refused = answering(vec![(403, status(403, "pods is forbidden: User \"x\" cannot list resource"))]);
        let e = refused.0.sidecars(Some("ns1")).await.unwrap_err();
        assert_eq!(e.missing_right(), Some(Right::ListPods));
        assert!(
            e.to_string().starts_with("list pods in namespace ns1: the cluster forbids it (pods is forbidden"),
            "{e}"
        );
        assert!(e.hint().starts_with("`kubectl auth can-i list pods -n ns1`"), "{}", e.hint());
        let refused = answering(vec![(401, status(401, "Unauthorized"))]);
        assert!(matches!(refused.0.sidecars(None).await, Err(ClusterError::Unauthorized { .. })));
    }

    #[tokio::test]
    async fn a_pod_that_is_not_there_and_one_without_proxy_are_told_apart() {
        let e = answering(vec![(404, status(404, "not found"))]).0.sidecar("ns1", "x").await.unwrap_err();
        assert_eq!(e.to_string(), "find the pod ns1/x in the cluster");
        let web = pod("x", json!([{"name": "web", "image": "nginx"}]), json!([]));
        let e = answering(vec![(200, web)]).0.sidecar("ns1", "x").await.unwrap_err();
        assert_eq!(e.to_string(), "find a proxy in the pod ns1/x in the cluster");
    }
}
