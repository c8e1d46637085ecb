//! A container that joins a pod which runs, and stays in its description until the pod goes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::error::{Right, shortened};
use super::pods::place;
use super::watch::UNMAKEABLE;
use super::{Cluster, ClusterError, PodName};
use crate::clock::Deadline;

/// Between two looks how a container is: to watch the pods of a namespace would take a right more.
const LOOK: Duration = Duration::from_millis(500);

/// What became of a container that was to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It runs.
    Runs,
    /// It has ended already, with this code.
    Ended {
        /// Of its process.
        code: i32,
        /// In words, where the node has some.
        reason: String,
    },
    /// It will not run, or does not yet: why, in the node's words.
    Waits {
        /// In words.
        reason: String,
    },
}

impl Cluster {
    /// Adds a container to a pod (`EphemeralContainer` of the Kubernetes API). It can't be taken away again.
    pub async fn join(&self, pod: &PodName, container: &Value) -> Result<(), ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let patch = json!({ "spec": { "ephemeralContainers": [container] } });
        let patched =
            pods.patch_ephemeral_containers(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|e| ClusterError::of(&e, Right::Join, &place(Some(&pod.namespace))))
    }

    /// Waits until it runs or has ended, or it is clear that it won't; until the deadline, after which it still waits.
    pub async fn joined(&self, pod: &PodName, container: &str, deadline: Deadline) -> Result<Joined, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        loop {
            let seen = pods.get(&pod.name).await;
            let seen = seen.map_err(|e| ClusterError::of(&e, Right::GetPods, &place(Some(&pod.namespace))))?;
            match joined(&seen, container) {
                Joined::Waits { reason } => {
                    let hopeless = UNMAKEABLE.iter().any(|known| reason.starts_with(known));
                    if hopeless || deadline.left() <= LOOK {
                        return Ok(Joined::Waits { reason });
                    }
                }
                done => return Ok(done),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn joined(pod: &Pod, container: &str) -> Joined {
    let statuses = pod.status.as_ref().and_then(|s| s.ephemeral_container_statuses.as_ref());
    let state = statuses.into_iter().flatten().find(|s| s.name == container).and_then(|s| s.state.as_ref());
    let words = |reason: Option<&String>, message: Option<&String>| {
        let all: Vec<&str> = [reason, message].into_iter().flatten().map(String::as_str).collect();
        shortened(&all.join(": "))
    };
    match state {
        Some(state) if state.running.is_some() => Joined::Runs,
        Some(state) => match (&state.terminated, &state.waiting) {
            (Some(ended), _) => {
                Joined::Ended { code: ended.exit_code, reason: words(ended.reason.as_ref(), ended.message.as_ref()) }
            }
            (None, Some(waits)) => Joined::Waits { reason: words(waits.reason.as_ref(), waits.message.as_ref()) },
            (None, None) => Joined::Waits { reason: String::new() },
        },
        None => Joined::Waits { reason: "its node has not begun with it".into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::canned::{answering, status};

    fn pod() -> PodName {
        PodName { namespace: "ns".into(), name: "a".into() }
    }

    fn with(state: &Value) -> (u16, Value) {
        let status =
            json!({"name": "w", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        (
            200,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "status": {"ephemeralContainerStatuses": [status]}}),
        )
    }

    #[tokio::test]
    async fn a_container_joins_by_its_own_right_and_the_missing_one_is_named() {
        let joins = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        let (cluster, asked) = answering(vec![(200, joins), (403, status(403, "it is forbidden"))]);
        let container = json!({"name": "w", "image": "x"});
        cluster.join(&pod(), &container).await.unwrap();
        let e = cluster.join(&pod(), &container).await.unwrap_err();
        assert_eq!(e.missing_right(), Some(Right::Join));
        assert!(e.hint().contains("can-i patch pods/ephemeralcontainers -n ns"), "{}", e.hint());
        assert!(asked.await.unwrap()[0].starts_with("/api/v1/namespaces/ns/pods/a/ephemeralcontainers"));
    }

    #[tokio::test]
    async fn what_becomes_of_it_is_awaited_and_told() {
        let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
        let no_image = json!({"waiting": {"reason": "ErrImagePull", "message": "no such\nhost"}});
        let ended = json!({"terminated": {"exitCode": 5, "reason": "Error"}});
        for (state, expected) in [
            (json!({"running": {}}), Joined::Runs),
            (no_image, Joined::Waits { reason: "ErrImagePull: no such host".into() }),
            (ended, Joined::Ended { code: 5, reason: "Error".into() }),
        ] {
            let (cluster, _) = answering(vec![with(&waiting), with(&state)]);
            let deadline = Deadline::after(Duration::from_secs(30));
            assert_eq!(cluster.joined(&pod(), "w", deadline).await.unwrap(), expected);
        }
        let (cluster, _) = answering(vec![with(&waiting)]);
        let waits = cluster.joined(&pod(), "w", Deadline::after(Duration::ZERO)).await.unwrap();
        assert_eq!(waits, Joined::Waits { reason: "ContainerCreating".into() });
    }
}
