//! The Job, and its pods' names.

use serde_json::{Value, json};

use super::{PORT, Parts};

/// The container that runs a part.
pub(super) const CONTAINER: &str = "part";
/// A Job that nobody deletes goes by itself, so long after its pods have ended.
const SECONDS_TO_STAY: u32 = 3600;

impl Parts {
    /// Each pod has an index of its own, and none is started again: what it would say then would be a second answer.
    pub(super) fn job(&self) -> Value {
        let mut command = ["rotacheck", "__part", "--of"].map(str::to_owned).to_vec();
        command.extend([self.of.to_string(), "--port".to_owned(), PORT.to_string(), "--".to_owned()]);
        command.extend(self.words.iter().cloned());
        let mut labels = json!(self.labels);
        labels["sidecar.istio.io/inject"] = json!("false");
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": self.labels },
            "spec": {
                "completionMode": "Indexed", "completions": self.of, "parallelism": self.of,
                // One part that is lost ends no other.
                "backoffLimitPerIndex": 0, "ttlSecondsAfterFinished": SECONDS_TO_STAY,
                "template": { "metadata": { "labels": labels }, "spec": {
                    "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": CONTAINER, "image": self.image, "command": command,
                        "env": [{ "name": "TMPDIR", "value": "/tmp" }],
                        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                        "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
                    }],
                    // What a run keeps; and an image from scratch has no such place.
                    "volumes": [{ "name": "tmp", "emptyDir": {} }],
                } },
            },
        })
    }
}

/// A pod's index, by its name: `JOB-INDEX-RANDOM`.
pub(super) fn index_of(job: &str, pod: &str) -> Option<u32> {
    let (index, random) = pod.strip_prefix(job)?.strip_prefix('-')?.split_once('-')?;
    index.parse().ok().filter(|_| !random.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_index() {
        assert_eq!(index_of("rotacheck-7-00ab", "rotacheck-7-00ab-3-x7kq2"), Some(3));
        for other in
            ["rotacheck-7-00ab", "rotacheck-7-00ab-x-1", "rotacheck-7-00ab-3", "rotacheck-7-00ab-3-", "other-3-x"]
        {
            assert_eq!(index_of("rotacheck-7-00ab", other), None, "{other}");
        }
    }

    #[test]
    fn the_job_has_a_pod_for_each_part_that_is_started_once() {
        let parts = Parts {
            namespace: "ns".into(),
            name: "rotacheck-7-00ab".into(),
            labels: [("rotacheck.dev/run".to_owned(), "7-00ab".to_owned())].into(),
            image: "registry.example/rotacheck:1".into(),
            of: 4,
            words: vec!["--envoy=1.38.3".into(), "--".into(), "rotation".into()],
        };
        insta::assert_json_snapshot!(parts.job());
    }
}
