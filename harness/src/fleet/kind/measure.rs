//! Which Envoy, which agent, and which bootstrap template an image has: they are asked in the cluster, where the image is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::KindError;
use crate::artifact::version_told;
use crate::clock::Deadline;
use crate::cluster::{Cluster, PodSeen};
use crate::fleet::owner;
use crate::timeline::EnvoyVersion;

/// The image may have to be pulled first.
const PATIENCE: Duration = Duration::from_secs(240);
const NAMESPACE: &str = "default";
const ENVOY: &str = "envoy";
const AGENT: &str = "agent";
const FILTERS: &str = "filters";
const TEMPLATE: &str = "template";
/// Where an image has Istio's bootstrap template.
pub(super) const TEMPLATE_AT: &str = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json";

/// What an image has.
pub(super) struct Measured {
    pub(super) envoy: EnvoyVersion,
    pub(super) istio: Option<String>,
    /// Its Envoy takes a filter that only Istio's own build knows.
    pub(super) own_envoy: bool,
    /// Istio's bootstrap template; none where the image has no program to print it.
    pub(super) bootstrap: Option<String>,
    pub(super) digests: BTreeMap<String, String>,
}

pub(super) async fn measure(cluster: &Cluster, image: &str, run: &str) -> Result<Measured, KindError> {
    let name = format!("rotacheck-measure-{run}");
    cluster.create(&pod(&name, image, run)).await?;
    let measured = ended(cluster, &name, image).await;
    // Also when it told nothing.
    let deleted = cluster.delete_pod(NAMESPACE, &name).await;
    let measured = measured?;
    deleted?;
    Ok(measured)
}

fn pod(name: &str, image: &str, run: &str) -> Value {
    let container = |name: &str, command: Value| json!({ "name": name, "image": image, "command": command });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": {
            owner::RUN: run, owner::MACHINE: owner::machine(), "sidecar.istio.io/inject": "false",
        } },
        "spec": { "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [
            container(ENVOY, json!(["/usr/local/bin/envoy", "--version"])),
            container(AGENT, json!(["/usr/local/bin/pilot-agent", "version", "--output", "json"])),
            container(FILTERS, json!(["/usr/local/bin/envoy", "--mode", "validate", "--config-yaml", filtered().to_string()])),
            container(TEMPLATE, json!(["cat", TEMPLATE_AT])),
        ] },
    })
}

/// A listener with one of the filters that istiod configures where it is not told otherwise.
fn filtered() -> Value {
    json!({ "static_resources": { "listeners": [{
        "name": "x", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{ "name": "istio.metadata_exchange", "typed_config": {
            "@type": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange", "protocol": "istio-peer-exchange",
        } }] }],
    }] } })
}

async fn ended(cluster: &Cluster, name: &str, image: &str) -> Result<Measured, KindError> {
    let mut watch = cluster.watch_pods(NAMESPACE, "");
    let all_ended = |pod: &PodSeen| pod.containers.len() == 4 && pod.containers.values().all(|c| c.exit_code.is_some());
    let done = |pods: &BTreeMap<String, PodSeen>| pods.get(name).is_some_and(|pod| all_ended(pod) || hopeless(pod));
    let pods = watch.until(Deadline::after(PATIENCE), done).await?;
    let unmeasured = async |state: String| KindError::Unmeasured {
        image: image.to_owned(),
        state,
        events: cluster.warnings(NAMESPACE, name).await,
    };
    let pod = pods.as_ref().unwrap_or(watch.known()).get(name).cloned().unwrap_or_default();
    if !all_ended(&pod) {
        return Err(unmeasured(pod.state()).await);
    }
    let said = cluster.log_of(NAMESPACE, name, ENVOY).await?;
    let Some(envoy) = version_told(&said) else {
        return Err(unmeasured(format!("its Envoy says {:?}", said.trim())).await);
    };
    let agent = cluster.log_of(NAMESPACE, name, AGENT).await?;
    let bootstrap = match pod.containers[TEMPLATE].exit_code {
        Some(0) => Some(cluster.log_of(NAMESPACE, name, TEMPLATE).await?),
        _ => None,
    };
    let digest = pod.containers[ENVOY].image_id.clone();
    Ok(Measured {
        envoy,
        istio: istio_version(&agent),
        own_envoy: pod.containers[FILTERS].exit_code == Some(0),
        bootstrap,
        digests: [(format!("image {image}"), digest)].into(),
    })
}

/// The image can't be had: waiting longer would not help.
fn hopeless(pod: &PodSeen) -> bool {
    // An image without shell tools can print nothing, and is well all the same.
    let needed = pod.containers.iter().filter(|(name, _)| *name != TEMPLATE);
    needed.into_iter().any(|(_, container)| container.cannot_be_made())
}

/// What the agent's build says, if whoever built it told it.
fn istio_version(said: &str) -> Option<String> {
    let told: Value = serde_json::from_str(&said[said.find('{')?..]).ok()?;
    let version = told["clientVersion"]["version"].as_str()?;
    (version != "unknown" && !version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_what_the_programs_say() {
        assert_eq!(istio_version(r#"{"clientVersion": {"version": "1.29.0"}}"#).as_deref(), Some("1.29.0"));
        assert_eq!(istio_version(r#"{"clientVersion": {"version": "unknown"}}"#), None);
        assert_eq!(istio_version("no such command"), None);
    }

    #[test]
    fn an_image_that_can_not_be_pulled_is_not_waited_for() {
        let mut pod = PodSeen::default();
        pod.containers.entry(ENVOY.to_owned()).or_default();
        assert!(!hopeless(&pod));
        pod.containers.entry(TEMPLATE.to_owned()).or_default().reason = Some("RunContainerError".into());
        assert!(!hopeless(&pod));
        pod.containers.entry(AGENT.to_owned()).or_default().reason = Some("ImagePullBackOff".into());
        assert!(hopeless(&pod));
    }
}
