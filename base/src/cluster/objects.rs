//! Objects that are made, and taken away again; what is said of them meanwhile.

use std::fmt::Debug;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::shortened;
use super::{Cluster, ClusterError};

/// Of events, the newest; of a log, its end.
const EVENTS: usize = 20;
const LOG_BYTES: i64 = 8 << 20;

/// An object that can't be made, for it lacks what every object has.
fn incomplete(what: &str) -> ClusterError {
    ClusterError::Undone { what: "make an object".into(), said: format!("it has no {what}") }
}

impl Cluster {
    /// Makes an object, given as JSON with `apiVersion`, `kind` and `metadata`; what the API server made of it.
    pub async fn create(&self, object: &Value) -> Result<Value, ClusterError> {
        let text = |value: &Value, what: &str| value.as_str().map(str::to_owned).ok_or_else(|| incomplete(what));
        let (kind, name) = (text(&object["kind"], "kind")?, text(&object["metadata"]["name"], "name")?);
        let version = text(&object["apiVersion"], "apiVersion")?;
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let parsed = serde_json::from_value(object.clone()).map_err(|e| incomplete(&e.to_string()))?;
        let made = api.create(&PostParams::default(), &parsed).await;
        let made = made.map_err(|e| ClusterError::undone(format!("create the {kind} {name}"), &e))?;
        serde_json::to_value(made).map_err(|e| incomplete(&e.to_string()))
    }

    /// Makes several at the same time, where none needs another.
    pub async fn create_all(&self, objects: &[Value]) -> Result<Vec<Value>, ClusterError> {
        try_join_all(objects.iter().map(|object| self.create(object))).await
    }

    /// Takes a namespace away, with all that is in it; does not wait until it is gone. One that is not there is no error.
    pub async fn delete_namespace(&self, name: &str) -> Result<(), ClusterError> {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        delete(&api, name, &DeleteParams::background(), format!("the Namespace {name}")).await
    }

    /// Takes a Job away, with its pods; does not wait until they are gone. One that is not there is no error.
    pub async fn delete_job(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        let api: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(self.client.clone(), namespace);
        delete(&api, name, &DeleteParams::background(), format!("the Job {namespace}/{name}")).await
    }

    /// Takes a pod away at once. One that is not there is no error.
    pub async fn delete_pod(&self, namespace: &str, name: &str) -> Result<(), ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        delete(&api, name, &DeleteParams::default().grace_period(0), format!("the Pod {namespace}/{name}")).await
    }

    /// The names of the nodes.
    pub async fn nodes(&self) -> Result<Vec<String>, ClusterError> {
        let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let nodes = api.list(&ListParams::default()).await.map_err(|e| ClusterError::undone("list the nodes", &e))?;
        Ok(nodes.items.into_iter().filter_map(|node| node.metadata.name).collect())
    }

    /// The version of the API server: `v1.34.0`.
    pub async fn version(&self) -> Result<String, ClusterError> {
        let told =
            self.client.apiserver_version().await.map_err(|e| ClusterError::undone("ask for the version", &e))?;
        // It becomes a part of reports, whoever it comes from.
        Ok(told.git_version.chars().filter(|c| c.is_ascii_graphic()).take(64).collect())
    }

    /// What happened in a namespace, a line each, the newest last: `Pod/proxy-a Warning FailedMount: ...`.
    pub async fn events(&self, namespace: &str) -> Result<Vec<String>, ClusterError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let list = api.list(&ListParams::default()).await;
        let mut events = list.map_err(|e| ClusterError::undone(format!("list the events of {namespace}"), &e))?.items;
        events.sort_by_key(|event| event.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok()));
        Ok(events.iter().map(line).collect())
    }

    /// The events that tell why something does not come up, in one text: those of pods whose names begin so, each once.
    pub async fn warnings(&self, namespace: &str, pods: &str) -> String {
        match self.events(namespace).await {
            Ok(events) => {
                let tells = |line: &&String| line.starts_with(&format!("Pod/{pods}")) && line.contains(" Warning ");
                let mut warnings: Vec<&String> = events.iter().filter(tells).collect();
                warnings.dedup();
                let newest = warnings.len().saturating_sub(EVENTS);
                warnings[newest..].iter().map(|line| format!("\n    {line}")).collect()
            }
            Err(e) => format!(" (its events: {e})"),
        }
    }

    /// The log of a container, from its beginning.
    pub async fn log_of(&self, namespace: &str, pod: &str, container: &str) -> Result<String, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params =
            LogParams { container: Some(container.into()), limit_bytes: Some(LOG_BYTES), ..LogParams::default() };
        let log = api.logs(pod, &params).await;
        log.map_err(|e| ClusterError::undone(format!("read the log of {namespace}/{pod} {container}"), &e))
    }
}

fn line(event: &Event) -> String {
    let about = &event.involved_object;
    let [kind, name, type_, reason] =
        [&about.kind, &about.name, &event.type_, &event.reason].map(|text| text.as_deref().unwrap_or("?"));
    shortened(&format!("{kind}/{name} {type_} {reason}: {}", event.message.as_deref().unwrap_or_default()))
}

/// Deletes what is there; `which` it is, for an error.
pub(super) async fn delete<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    name: &str,
    how: &DeleteParams,
    which: String,
) -> Result<(), ClusterError> {
    match api.delete(name, how).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(|_| ()).map_err(|e| ClusterError::undone(format!("delete {which}"), &e)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cluster::canned::{answering, status};

    #[tokio::test]
    async fn objects_of_all_groups_go_where_their_kind_belongs() {
        let object = |version: &str, kind: &str, namespace: Option<&str>| {
            let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "x" } });
            if let Some(namespace) = namespace {
                object["metadata"]["namespace"] = json!(namespace);
            }
            object
        };
        let objects = [
            object("v1", "Namespace", None),
            object("apps/v1", "DaemonSet", Some("ns")),
            object("security.istio.io/v1", "PeerAuthentication", Some("ns")),
            object("networking.istio.io/v1", "ServiceEntry", Some("ns")),
        ];
        let (cluster, asked) = answering(objects.iter().map(|object| (201, object.clone())).collect());
        for object in &objects {
            assert_eq!(cluster.create(object).await.unwrap()["kind"], object["kind"]);
        }
        let asked: Vec<String> =
            asked.await.unwrap().iter().map(|path| path.trim_end_matches(['?', '&']).to_owned()).collect();
        insta::assert_snapshot!(asked.join("\n"), @r"
        /api/v1/namespaces
        /apis/apps/v1/namespaces/ns/daemonsets
        /apis/security.istio.io/v1/namespaces/ns/peerauthentications
        /apis/networking.istio.io/v1/namespaces/ns/serviceentries
        ");
    }

    #[tokio::test]
    async fn an_object_that_is_refused_is_named_with_the_reason() {
        let (cluster, _) = answering(vec![(403, status(403, "pods \"x\" is forbidden: exceeded quota"))]);
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x", "namespace": "ns" } });
        let e = cluster.create(&pod).await.unwrap_err();
        assert_eq!(e.to_string(), "create the Pod x: pods \"x\" is forbidden: exceeded quota");
        for nothing in [json!({}), json!({ "kind": "Pod" }), json!(null)] {
            assert!(cluster.create(&nothing).await.unwrap_err().to_string().contains("it has no "));
        }
    }

    #[tokio::test]
    async fn a_namespace_that_is_not_there_is_gone() {
        let (cluster, _) = answering(vec![(404, status(404, "not found")), (403, status(403, "forbidden"))]);
        cluster.delete_namespace("x").await.unwrap();
        cluster.delete_namespace("x").await.unwrap_err();
    }

    #[tokio::test]
    async fn a_job_is_deleted_with_its_pods_and_one_that_is_not_there_is_gone() {
        let (cluster, asked) = answering(vec![
            (200, json!({ "kind": "Status", "status": "Success" })),
            (404, status(404, "not found")),
            (403, status(403, "forbidden")),
        ]);
        cluster.delete_job("ns", "x").await.unwrap();
        cluster.delete_job("ns", "x").await.unwrap();
        let e = cluster.delete_job("ns", "x").await.unwrap_err();
        assert_eq!(e.to_string(), "delete the Job ns/x: forbidden");
        assert!(asked.await.unwrap()[0].starts_with("/apis/batch/v1/namespaces/ns/jobs/x"));
    }

    #[tokio::test]
    async fn warnings_tell_why_a_pod_does_not_start() {
        let event = |version: &str, kind: &str, reason: &str| {
            json!({ "metadata": { "name": reason, "resourceVersion": version },
                "involvedObject": { "kind": "Pod", "name": "proxy-a" },
                "type": kind, "reason": reason, "message": "back-off\npulling" })
        };
        let list = json!({ "apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": [
            event("12", "Warning", "BackOff"), event("9", "Warning", "Failed"), event("10", "Normal", "Pulling"),
            event("13", "Warning", "BackOff"),
        ] });
        let (cluster, _) = answering(vec![(200, list)]);
        let told = cluster.warnings("ns", "proxy-").await;
        assert_eq!(
            told,
            "\n    Pod/proxy-a Warning Failed: back-off pulling\n    Pod/proxy-a Warning BackOff: back-off pulling"
        );
    }
}
