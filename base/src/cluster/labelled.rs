//! Objects that are known by their labels, wherever they are.

use std::fmt;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};

use super::objects::delete;
use super::{Cluster, ClusterError};

/// What is looked for: group, version, kind.
const KINDS: [(&str, &str, &str); 3] = [("", "v1", "Namespace"), ("batch", "v1", "Job"), ("", "v1", "Pod")];

/// An object that is known by its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
    /// The value of the label that was asked for.
    pub value: String,
}

impl fmt::Display for Labelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        write!(f, "{} {namespace}{}", self.resource.kind, self.name)
    }
}

impl Cluster {
    /// Namespaces, and Jobs and Pods of all namespaces, that a selector (`app=x`) picks and that have this label; not those
    /// that go with another object.
    pub async fn labelled(&self, selector: &str, label: &str) -> Result<Vec<Labelled>, ClusterError> {
        let mut found = Vec::new();
        for (group, version, kind) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let list = api.list(&ListParams::default().labels(selector)).await;
            let list = list.map_err(|e| ClusterError::undone(format!("list the {}", resource.plural), &e))?;
            let stands_alone =
                |object: &DynamicObject| object.metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
            found.extend(list.items.into_iter().filter(stands_alone).filter_map(|object| {
                Some(Labelled {
                    resource: resource.clone(),
                    value: object.metadata.labels?.remove(label)?,
                    namespace: object.metadata.namespace,
                    name: object.metadata.name?,
                })
            }));
        }
        Ok(found)
    }

    /// Takes one of them away, with all that belongs to it; does not wait until it is gone. One that is not there is no
    /// error.
    pub async fn delete(&self, object: &Labelled) -> Result<(), ClusterError> {
        let api: Api<DynamicObject> = match &object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &object.resource),
            None => Api::all_with(self.client.clone(), &object.resource),
        };
        delete(&api, &object.name, &DeleteParams::background(), format!("the {object}")).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cluster::canned::{answering, status};

    fn list(kind: &str, items: &[Value]) -> (u16, Value) {
        (200, json!({ "apiVersion": "v1", "kind": format!("{kind}List"), "metadata": {}, "items": items }))
    }

    #[tokio::test]
    async fn what_is_labelled_is_found_and_taken_away_wherever_it_is() {
        let labelled = |name: &str, namespace: Option<&str>, labels: Value| json!({ "metadata": { "name": name, "namespace": namespace, "labels": labels } });
        // A pod of the Job's.
        let mut owned = labelled("d", Some("ns"), json!({ "run": "2-b" }));
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "c", "uid": "1" });
        owned["metadata"]["ownerReferences"] = json!([owner]);
        let (cluster, asked) = answering(vec![
            list("Namespace", &[labelled("a", None, json!({ "run": "1-a" })), labelled("b", None, json!({}))]),
            list("Job", &[labelled("c", Some("ns"), json!({ "run": "2-b" }))]),
            list("Pod", &[owned]),
            (200, json!({ "kind": "Status", "status": "Success" })),
            (404, status(404, "not found")),
        ]);
        let found = cluster.labelled("machine=x", "run").await.unwrap();
        let told: Vec<_> = found.iter().map(|object| format!("{object}: {}", object.value)).collect();
        assert_eq!(told, ["Namespace a: 1-a", "Job ns/c: 2-b"]);
        for object in &found {
            cluster.delete(object).await.unwrap();
        }
        let asked = asked.await.unwrap();
        assert!(asked[0].contains("labelSelector=machine%3Dx"), "{asked:?}");
        let paths: Vec<_> = asked.iter().map(|path| path.split('?').next().unwrap()).collect();
        insta::assert_snapshot!(paths.join("\n"), @r"
        /api/v1/namespaces
        /apis/batch/v1/jobs
        /api/v1/pods
        /api/v1/namespaces/a
        /apis/batch/v1/namespaces/ns/jobs/c
        ");
    }

    #[tokio::test]
    async fn a_list_that_is_forbidden_is_named() {
        let (cluster, _) = answering(vec![(403, status(403, "namespaces is forbidden"))]);
        let e = cluster.labelled("x", "run").await.unwrap_err();
        assert_eq!(e.to_string(), "list the namespaces: namespaces is forbidden");
    }
}
