//! What the user may do, asked of the cluster before anything is made.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};

use super::Cluster;

impl Cluster {
    /// Those of these rights that the user lacks in a namespace: `create jobs.batch`, each a verb and a resource in the words
    /// of a Role, with its subresource behind a `/` and its group behind a `.`. Where the cluster does not tell, the right is
    /// taken to be there: what it is for will tell.
    pub async fn lacking(&self, namespace: &str, rights: &[&str]) -> Vec<String> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let asked = rights.iter().map(async |right| {
            let review = review(namespace, right);
            let told = reviews.create(&PostParams::default(), &review).await;
            let told = told.inspect_err(|e| tracing::debug!("whether the user may {right}: {e}"));
            told.is_ok_and(|told| told.status.is_some_and(|status| !status.allowed))
        });
        let lacks = join_all(asked).await;
        rights.iter().zip(lacks).filter(|(_, lacks)| *lacks).map(|(right, _)| (*right).to_owned()).collect()
    }
}

fn review(namespace: &str, right: &str) -> SelfSubjectAccessReview {
    let (verb, resource) = right.split_once(' ').unwrap_or((right, ""));
    let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(r, sub)| (r, Some(sub)));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: subresource.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::canned::{answering, status};

    #[tokio::test]
    async fn what_the_cluster_denies_is_named_and_what_it_does_not_tell_is_not() {
        let told = |allowed: bool| {
            let kind = ("authorization.k8s.io/v1", "SelfSubjectAccessReview");
            json!({ "apiVersion": kind.0, "kind": kind.1, "metadata": {}, "spec": {}, "status": { "allowed": allowed } })
        };
        let rights = ["list pods", "create jobs.batch", "get pods/log"];
        let (cluster, asked) =
            answering(vec![(201, told(true)), (201, told(false)), (403, status(403, "no reviews for you"))]);
        assert_eq!(cluster.lacking("ns", &rights).await, ["create jobs.batch"]);
        let asked = asked.await.unwrap();
        assert!(asked.iter().all(|path| path.starts_with("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")));
    }

    #[test]
    fn a_right_is_asked_for_in_its_group_and_as_a_subresource() {
        let asked =
            |right: &str| serde_json::to_value(review("ns", right)).unwrap()["spec"]["resourceAttributes"].clone();
        assert_eq!(
            asked("create jobs.batch"),
            json!({ "namespace": "ns", "verb": "create", "group": "batch", "resource": "jobs" })
        );
        let log = json!({ "namespace": "ns", "verb": "get", "group": "", "resource": "pods", "subresource": "log" });
        assert_eq!(asked("get pods/log"), log);
    }
}
