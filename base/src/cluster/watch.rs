//! Pods as they come, change and go.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};

use super::error::Right;
use super::pods::place;
use super::{Cluster, ClusterError, PodName};
use crate::clock::Deadline;

/// A container, as its node tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerSeen {
    /// Whether it runs.
    pub running: bool,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// Its exit code, if it ended.
    pub exit_code: Option<i32>,
    /// Why it does not run: `ImagePullBackOff`, `Error`.
    pub reason: Option<String>,
    /// How often it was started again.
    pub restarts: i32,
    /// What was run, with its digest.
    pub image_id: String,
}

/// A pod, as the API server tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodSeen {
    /// Tells it from another pod that has the same name later.
    pub uid: String,
    /// Its address in the cluster, once it has one.
    pub ip: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
    /// Whether its condition Ready is true.
    pub ready: bool,
    /// Whether it is to end.
    pub ending: bool,
    /// Its service account.
    pub account: String,
    /// Its annotations that are ours (`rotacheck.dev/...`), or say what Istio is to inject (`inject.istio.io/...`).
    pub annotations: BTreeMap<String, String>,
    /// The Secrets that it mounts.
    pub secrets: BTreeSet<String>,
    /// Its containers by their names, sidecars among them.
    pub containers: BTreeMap<String, ContainerSeen>,
}

/// What a node says of a container that it can't make or start, for want of its image most often: it goes on trying.
pub(super) const UNMAKEABLE: [&str; 8] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
    "RunContainerError",
];

impl ContainerSeen {
    /// Whether its node fails to make it.
    pub fn cannot_be_made(&self) -> bool {
        self.reason.as_deref().is_some_and(|reason| UNMAKEABLE.contains(&reason))
    }
}

impl PodSeen {
    /// Whether its node fails to make a container of it.
    pub fn cannot_be_made(&self) -> bool {
        self.containers.values().any(ContainerSeen::cannot_be_made)
    }

    /// What keeps it from being ready, in words.
    pub fn state(&self) -> String {
        if self.node.is_none() {
            return "no node takes it".to_owned();
        }
        let waits = |(name, c): (&String, &ContainerSeen)| match (&c.reason, c.running) {
            // What was to be done before the others.
            (Some(reason), _) if reason == "Completed" => None,
            (Some(reason), _) => Some(format!("{name}: {reason}")),
            (None, false) => Some(format!("{name} does not run yet")),
            (None, true) => (!c.ready).then(|| format!("{name} runs, and is not ready")),
        };
        let waiting: Vec<String> = self.containers.iter().filter_map(waits).collect();
        if waiting.is_empty() { "its containers run".to_owned() } else { waiting.join(", ") }
    }

    /// A number that is another one for each start of this container, and for each pod that has its name later.
    pub fn process(&self, container: &str) -> i32 {
        process_number(&self.uid, self.containers.get(container).map_or(0, |c| c.restarts))
    }
}

/// A number for one run of a container in a pod, as a process has one.
pub fn process_number(uid: &str, restarts: i32) -> i32 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hash = DefaultHasher::new();
    (uid, restarts).hash(&mut hash);
    i32::from_be_bytes(hash.finish().to_be_bytes()[..4].try_into().expect("four of eight bytes")) & i32::MAX
}

/// Pods of a namespace, watched.
pub struct PodWatch {
    api: Api<Pod>,
    what: String,
    selector: String,
    known: BTreeMap<String, PodSeen>,
    changes: Option<Changes>,
}

type Changes = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>> + Send>>;

impl Cluster {
    /// Pods of a namespace that have these labels (`app=x`; all with an empty text). Nothing is asked yet.
    pub fn watch_pods(&self, namespace: &str, selector: &str) -> PodWatch {
        PodWatch {
            api: Api::namespaced(self.client.clone(), namespace),
            what: format!("watch the pods of {namespace}"),
            selector: selector.to_owned(),
            known: BTreeMap::new(),
            changes: None,
        }
    }
}

impl Cluster {
    /// How one pod is; none where there is no such pod.
    pub async fn pod(&self, pod: &PodName) -> Result<Option<PodSeen>, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let got = pods.get_opt(&pod.name).await;
        let got = got.map_err(|e| ClusterError::of(&e, Right::GetPods, &place(Some(&pod.namespace))))?;
        Ok(got.as_ref().map(seen))
    }
}

impl PodWatch {
    /// The pods by their names: at first as they are, then after each change. An error may pass: the next call begins anew.
    pub async fn next(&mut self) -> Result<&BTreeMap<String, PodSeen>, ClusterError> {
        loop {
            let Some(changes) = &mut self.changes else {
                self.list().await?;
                return Ok(&self.known);
            };
            match changes.next().await {
                Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))) => {
                    let Some(name) = pod.metadata.name.clone() else { continue };
                    let seen = seen(&pod);
                    if self.known.get(&name) != Some(&seen) {
                        self.known.insert(name, seen);
                        return Ok(&self.known);
                    }
                }
                Some(Ok(WatchEvent::Deleted(pod))) => {
                    self.known.remove(pod.metadata.name.as_deref().unwrap_or_default());
                    return Ok(&self.known);
                }
                Some(Ok(WatchEvent::Bookmark(_))) => {}
                // The version is too old, the API server had enough: what is there now counts.
                Some(Ok(WatchEvent::Error(_))) | None => self.changes = None,
                Some(Err(e)) => {
                    self.changes = None;
                    return Err(ClusterError::undone(&self.what, &e));
                }
            }
        }
    }

    async fn list(&mut self) -> Result<(), ClusterError> {
        let undone = |e: kube::Error| ClusterError::undone(&self.what, &e);
        let list = self.api.list(&ListParams::default().labels(&self.selector)).await.map_err(undone)?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().labels(&self.selector);
        self.changes = Some(Box::pin(self.api.watch(&params, &version).await.map_err(undone)?));
        self.known = list.items.iter().filter_map(|pod| Some((pod.metadata.name.clone()?, seen(pod)))).collect();
        Ok(())
    }

    /// Until the pods are as they should be. `None` when the deadline passed before; [`PodWatch::known`] tells how they are
    /// then.
    pub async fn until(
        &mut self,
        deadline: Deadline,
        mut done: impl FnMut(&BTreeMap<String, PodSeen>) -> bool,
    ) -> Result<Option<BTreeMap<String, PodSeen>>, ClusterError> {
        loop {
            match tokio::time::timeout_at(deadline.instant(), self.next()).await {
                Err(_) => return Ok(None),
                Ok(Err(e)) => return Err(e),
                Ok(Ok(pods)) if done(pods) => return Ok(Some(pods.clone())),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The pods as they were seen last.
    pub fn known(&self) -> &BTreeMap<String, PodSeen> {
        &self.known
    }
}

fn seen(pod: &Pod) -> PodSeen {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let annotations = pod.metadata.annotations.iter().flatten();
    let told = ["rotacheck.dev/", "inject.istio.io/"];
    let own = |(name, _): &(&String, &String)| told.iter().any(|prefix| name.starts_with(prefix));
    let volumes = spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
    let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let statuses =
        [status.and_then(|s| s.init_container_statuses.as_ref()), status.and_then(|s| s.container_statuses.as_ref())];
    PodSeen {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        ip: status.and_then(|s| s.pod_ip.clone()),
        node: spec.and_then(|spec| spec.node_name.clone()),
        ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        ending: pod.metadata.deletion_timestamp.is_some(),
        account: spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        annotations: annotations.filter(own).map(|(name, text)| (name.clone(), text.clone())).collect(),
        secrets: volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.clone()).collect(),
        containers: statuses.into_iter().flatten().flatten().map(|s| (s.name.clone(), container(s))).collect(),
    }
}

fn container(status: &ContainerStatus) -> ContainerSeen {
    let state = status.state.as_ref();
    let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.clone());
    let ended = state.and_then(|s| s.terminated.as_ref());
    // One that was started again tells of its end before.
    let before = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    ContainerSeen {
        running: state.is_some_and(|s| s.running.is_some()),
        ready: status.ready,
        exit_code: ended.or(before).map(|t| t.exit_code),
        reason: waiting
            .filter(|reason| reason != "PodInitializing" && reason != "ContainerCreating")
            .or_else(|| ended.and_then(|t| t.reason.clone())),
        restarts: status.restart_count,
        image_id: status.image_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::canned::{answering, lines, status};

    fn pod(name: &str, ready: bool, restarts: i32) -> Value {
        json!({
            "metadata": { "name": name, "namespace": "ns", "uid": "u" },
            "spec": { "nodeName": "n", "containers": [] },
            "status": { "podIP": "10.0.0.1",
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
                "containerStatuses": [{ "name": "app", "image": "x", "imageID": "x@1", "ready": ready,
                    "restartCount": restarts, "state": if ready { json!({ "running": {} }) } else {
                        json!({ "waiting": { "reason": "ImagePullBackOff" } }) } }] },
        })
    }

    fn listed(pods: &[Value]) -> Value {
        json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "7" }, "items": pods })
    }

    fn told(kind: &str, pod: Value) -> Value {
        let mut pod = pod;
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        json!({ "type": kind, "object": pod })
    }

    #[tokio::test]
    async fn pods_are_told_at_first_and_after_each_change() {
        let changes = lines(&[told("MODIFIED", pod("a", false, 0)), told("MODIFIED", pod("a", true, 0))]);
        let (cluster, asked) = answering(vec![(200, listed(&[pod("a", false, 0)])), (200, changes)]);
        let mut watch = cluster.watch_pods("ns", "app=a");
        let first = watch.next().await.unwrap()["a"].clone();
        assert_eq!((first.ready, first.state()), (false, "app: ImagePullBackOff".to_owned()));
        // What changes nothing is not told.
        let second = watch.next().await.unwrap()["a"].clone();
        assert!(second.ready && second.process("app") == first.process("app"));
        let asked = asked.await.unwrap();
        assert!(asked[1].contains("watch=true") && asked[1].contains("resourceVersion=7"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_watch_that_ends_is_begun_anew_with_what_is_there() {
        let gone = lines(&[told("DELETED", pod("a", true, 0))]);
        let answers = vec![(200, listed(&[pod("a", true, 0)])), (200, gone), (200, listed(&[])), (200, lines(&[]))];
        let (cluster, _) = answering(answers);
        let mut watch = cluster.watch_pods("ns", "");
        assert_eq!(watch.next().await.unwrap().len(), 1);
        assert_eq!(watch.next().await.unwrap().len(), 0);
        assert_eq!(watch.next().await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait_and_the_state_tells_why() {
        let answers = vec![(200, listed(&[pod("a", false, 0)])), (200, lines(&[told("MODIFIED", pod("a", false, 1))]))];
        let (cluster, _) = answering(answers);
        let mut watch = cluster.watch_pods("ns", "");
        let ready = |pods: &BTreeMap<String, PodSeen>| pods.values().all(|pod| pod.ready);
        let waited = watch.until(Deadline::after(Duration::from_millis(50)), ready).await;
        // The mock has no further answer: either the time was over, or the next question failed.
        assert!(!matches!(waited, Ok(Some(_))), "{waited:?}");
        assert_eq!(watch.known()["a"].state(), "app: ImagePullBackOff");
    }

    #[tokio::test]
    async fn who_may_not_watch_is_told_so() {
        let (cluster, _) = answering(vec![(403, status(403, "pods is forbidden"))]);
        let e = cluster.watch_pods("ns", "").next().await.unwrap_err();
        assert_eq!(e.to_string(), "watch the pods of ns: pods is forbidden");
    }

    #[test]
    fn a_container_that_runs_and_is_not_ready_is_what_a_pod_waits_for() {
        let container = |running: bool, ready: bool, reason: Option<&str>| ContainerSeen {
            running,
            ready,
            reason: reason.map(str::to_owned),
            ..ContainerSeen::default()
        };
        let containers = [
            ("a-init", container(false, true, Some("Completed"))),
            ("b-proxy", container(true, false, None)),
            ("c-app", container(false, false, None)),
            ("d-well", container(true, true, None)),
        ];
        let containers = containers.map(|(name, seen)| (name.to_owned(), seen)).into();
        let pod = PodSeen { node: Some("n".into()), containers, ..PodSeen::default() };
        assert_eq!(pod.state(), "b-proxy runs, and is not ready, c-app does not run yet");
    }

    #[test]
    fn another_start_is_another_process() {
        assert_ne!(process_number("u", 0), process_number("u", 1));
        assert_ne!(process_number("u", 0), process_number("v", 0));
        assert!(process_number("u", 0) >= 0);
    }
}
