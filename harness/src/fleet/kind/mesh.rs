//! What is made in a cell's namespace.
//!
//! Kinds and fields: the Kubernetes API and Istio's configuration reference.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::asked::Asked;
use crate::fleet::agent::without_sessions;
use crate::fleet::owner::{CELL, MACHINE, RUN};
use crate::scenario::StatsInclusion;
use crate::timeline::ProxyId;

/// Where a pod's relay listens, on its loopback; where the application answers; where the proxy listens for requests that
/// lead to the harness; where a node's relay listens for what the proxies dial.
pub(super) const RELAY: u16 = 15_999;
pub(super) const APP: u16 = 8080;
pub(super) const DIAL_OUT: u16 = 15_996;
pub(super) const DIALLED: u16 = 15_998;
/// Where gateways are to show their certificate as servers.
pub(super) const GATEWAY: u16 = 15_997;
/// The port of every service.
pub(super) const SERVICE: u16 = 80;
/// Admin API of Istio's sidecars; what catches all that comes in.
pub(super) const ADMIN: u16 = 15_000;
pub(super) const INBOUND: u16 = 15_006;
/// Names of what is in the namespace, and of containers.
pub(super) const NODE: &str = "rotacheck-node";
pub(super) const WITNESS: &str = "rotacheck-witness";
pub(super) const SIDECAR: &str = "istio-proxy";
pub(super) const APPLICATION: &str = "app";
pub(super) const KEYS: &str = "rotacheck-relay";
const KEYS_AT: &str = "/run/rotacheck-keys";
/// Istio's bootstrap template, where it is not that of the image: the name of what holds it, and where the sidecar sees it.
const BOOTSTRAP: &str = "rotacheck-bootstrap";
const BOOTSTRAP_AT: &str = "/var/run/rotacheck-bootstrap";
/// Where a sidecar whose agent has a socket of its own sees the tap's.
pub(super) const TAP: &str = "/var/run/rotacheck-sockets/socket";
/// What is to be injected; what our injection template reads.
pub(super) const TEMPLATES: &str = "inject.istio.io/templates";
pub(super) const SOCKETS: &str = "rotacheck.dev/sockets";
const CLOCK: &str = "rotacheck.dev/clock";
const WITH_APPLICATION: &str = "rotacheck.dev/with-application";
pub(super) const OTHER_BOOTSTRAP: &str = "rotacheck.dev/bootstrap";

/// A cell's namespace, and what its pods see of their node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) namespace: String,
    pub(super) run: String,
    pub(super) machine: String,
    pub(super) image: String,
    /// Time is moved there.
    pub(super) moved: bool,
}

impl Ground {
    /// Where the node's relay may write. Not below /run, where nothing may be executed.
    pub(super) fn files(&self) -> String {
        format!("/var/lib/rotacheck/{}", self.namespace)
    }

    fn sockets(&self) -> String {
        format!("{}/sockets", self.files())
    }

    fn clock(&self) -> String {
        format!("{}/clock", self.files())
    }

    /// The provider's socket, on the node; where each proxy has one of its own, that of this one.
    pub(super) fn socket(&self, own: Option<&ProxyId>) -> String {
        format!("{}/socket", self.sockets_of(own))
    }

    fn sockets_of(&self, own: Option<&ProxyId>) -> String {
        own.map_or_else(|| self.sockets(), |id| format!("{}/{id}", self.sockets()))
    }

    /// Where SPIRE's agent on a node serves.
    pub(super) fn spire_sockets(&self) -> String {
        format!("{}/spire", self.files())
    }

    /// Where tbot on a node serves.
    pub(super) fn tbot_sockets(&self) -> String {
        format!("{}/tbot", self.files())
    }

    /// Files that a pod of this name reads, and nobody else.
    pub(super) fn secret(&self, name: &str, files: &[(&str, &str)]) -> Value {
        let files: Map<String, Value> = files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        let mut secret = self.object("v1", "Secret", name, Value::Null);
        secret["stringData"] = Value::Object(files);
        secret
    }

    /// Made first.
    pub(super) fn namespace(&self, cell: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": self.namespace,
            "labels": { RUN: self.run, MACHINE: self.machine, CELL: label(cell), "istio-injection": "enabled" },
        } })
    }

    /// Whom the proxies run as.
    pub(super) fn accounts(&self, ids: &[ProxyId]) -> Vec<Value> {
        ids.iter().map(|id| self.object("v1", "ServiceAccount", id.as_str(), Value::Null)).collect()
    }

    /// A pod that asks the provider as the application's container of this proxy will.
    pub(super) fn witness(&self, id: &ProxyId, asked: &Asked) -> Value {
        let mut pod = self.object(
            "v1",
            "Pod",
            WITNESS,
            json!({
                "serviceAccountName": id.as_str(),
                "terminationGracePeriodSeconds": 0,
                "containers": [self.relay(APPLICATION, &[], vec![asked.mount()])],
                "volumes": with_keys(asked.volume(self).into_iter().collect()),
            }),
        );
        let labels = json!({ "app": WITNESS, RUN: self.run, "sidecar.istio.io/inject": "false" });
        pod["metadata"]["labels"] = labels;
        pod
    }

    /// What needs only the namespace. `keys`: the relay's files.
    pub(super) fn relays(&self, keys: &[(&str, &str)]) -> Vec<Value> {
        let secret = self.secret(KEYS, keys);
        let labels = json!({ "app": NODE, RUN: self.run, "sidecar.istio.io/inject": "false" });
        let mount = |name: &str, path: String| {
            (json!({ "name": name, "mountPath": path }), host(name, path, "DirectoryOrCreate"))
        };
        let (mounts, volumes): (Vec<_>, Vec<_>) =
            [mount("sockets", self.sockets()), mount("clock", self.clock())].into_iter().unzip();
        let node = self.object(
            "apps/v1",
            "DaemonSet",
            NODE,
            json!({
                "selector": { "matchLabels": { "app": NODE } },
                "template": { "metadata": { "labels": labels }, "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": false,
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [self.relay("relay", &["--files", &self.files()], mounts)],
                    "volumes": with_keys(volumes),
                } },
            }),
        );
        let strict = json!({ "mtls": { "mode": "STRICT" } });
        // Only what is in the namespace: what else is in the cluster shall change nothing here.
        let own = json!({ "egress": [{ "hosts": ["./*"] }] });
        vec![
            secret,
            node,
            self.object("security.istio.io/v1", "PeerAuthentication", "default", strict),
            self.object("networking.istio.io/v1", "Sidecar", "default", own),
        ]
    }

    /// The services, and how the proxies are to reach them: all but the pods. `dial_out`: cluster and listener by which each
    /// dials the harness; those that come later do as well.
    pub(super) fn services(&self, ids: &[&ProxyId], dial_out: [Value; 2], further_contexts: u32) -> Vec<Value> {
        let mut all: Vec<Value> = ids.iter().flat_map(|id| self.service(id)).collect();
        let [cluster, listener] = dial_out.map(|value| json!({ "operation": "ADD", "value": value }));
        let dial_out = [
            json!({ "applyTo": "CLUSTER", "patch": by_host(cluster) }),
            json!({ "applyTo": "LISTENER", "patch": listener }),
        ];
        let patches: Vec<Value> =
            dial_out.into_iter().chain(ids.iter().map(|id| without_sessions(&self.host(id.as_str())))).collect();
        let filter = json!({ "configPatches": patches });
        all.push(self.object("networking.istio.io/v1alpha3", "EnvoyFilter", "rotacheck", filter));
        // Of gateways there may come some: each gets a listener that terminates TLS with its own certificate, and leads nowhere.
        let server = json!({
            "port": { "number": GATEWAY, "name": "https-rotacheck", "protocol": "HTTPS" },
            "tls": { "mode": "ISTIO_MUTUAL" }, "hosts": ["*"],
        });
        let gateway = json!({ "selector": { "rotacheck.dev/gateway": "true" }, "servers": [server] });
        all.push(self.object("networking.istio.io/v1", "Gateway", "rotacheck", gateway));
        // Services that nobody calls: a cluster each, with a TLS context of its own.
        for n in 1..=further_contexts {
            let name = format!("context-{n:03}");
            let endpoint = json!({ "address": "127.0.0.1", "labels": { "security.istio.io/tlsMode": "istio" } });
            all.push(self.object(
                "networking.istio.io/v1",
                "ServiceEntry",
                &name,
                json!({
                    "hosts": [self.host(&name)], "location": "MESH_INTERNAL", "resolution": "STATIC",
                    "ports": [{ "number": SERVICE, "name": "http", "protocol": "HTTP" }], "endpoints": [endpoint],
                }),
            ));
        }
        all
    }

    fn service(&self, id: &ProxyId) -> Vec<Value> {
        let labels = json!({ "app": id.as_str() });
        let kept = kept(id);
        let service = |name: &str| {
            let ports = json!([{ "name": "http", "port": SERVICE, "targetPort": APP }]);
            self.object("v1", "Service", name, json!({ "selector": labels, "ports": ports }))
        };
        let to = |name: &str| json!([{ "destination": { "host": name } }]);
        let once = json!({ "connectionPool": { "http": { "maxRequestsPerConnection": 1 } } });
        vec![
            service(id.as_str()),
            service(&kept),
            self.object(
                "networking.istio.io/v1",
                "DestinationRule",
                id.as_str(),
                json!({
                    "host": id.as_str(), "trafficPolicy": once,
                }),
            ),
            self.object(
                "networking.istio.io/v1",
                "VirtualService",
                id.as_str(),
                json!({
                    "hosts": [id.as_str()],
                    "http": [
                        { "match": [{ "uri": { "prefix": "/long-lived" } }], "route": to(&kept) },
                        { "route": to(id.as_str()) },
                    ],
                }),
            ),
        ]
    }

    /// Istio's bootstrap template as its sidecars are to have it.
    pub(super) fn bootstrap(&self, template: &str) -> Value {
        let mut map = self.object("v1", "ConfigMap", BOOTSTRAP, Value::Null);
        map["data"] = json!({ BOOTSTRAP: template });
        map
    }

    /// A proxy's pod: the application, and beside it what Istio injects. By the application's relay the proxy's provider is
    /// reached, where that has to see from which pod it is asked.
    pub(super) fn pod(&self, id: &ProxyId, stats: StatsInclusion, asked: Option<&Asked>) -> Value {
        let mut config = json!({ "concurrency": 1, "terminationDrainDuration": "0s" });
        if stats == StatsInclusion::All {
            config["proxyStatsMatcher"] = json!({ "inclusionRegexps": [".*"] });
        }
        let mut annotations = json!({
            TEMPLATES: "sidecar,rotacheck",
            SOCKETS: self.sockets_of(asked.map(|_| id)),
            "sidecar.istio.io/logLevel": "warning",
            "sidecar.istio.io/componentLogLevel": "config:info",
        });
        if self.moved {
            annotations[CLOCK] = json!(self.clock());
        }
        let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
        if let Some(asked) = asked {
            annotations[WITH_APPLICATION] = json!("true");
            mounts.push(asked.mount());
            volumes.extend(asked.volume(self));
        }
        if let Some(Asked::Istio { ttl }) = asked {
            annotations[OTHER_BOOTSTRAP] = json!(BOOTSTRAP);
            config["proxyBootstrapTemplatePath"] = json!(format!("{BOOTSTRAP_AT}/{BOOTSTRAP}"));
            // As the agent reads its environment.
            let times = json!({ "SECRET_TTL": ttl.to_string(), "SECRET_GRACE_PERIOD_RATIO_JITTER": "0" });
            config["proxyMetadata"] = times;
        }
        annotations["proxy.istio.io/config"] = json!(config.to_string());
        let mut pod = self.object(
            "v1",
            "Pod",
            id.as_str(),
            json!({
                "serviceAccountName": id.as_str(),
                "terminationGracePeriodSeconds": 1,
                "containers": [self.relay(APPLICATION, &["--echo", &format!("0.0.0.0:{APP}")], mounts)],
                "volumes": with_keys(volumes),
            }),
        );
        pod["metadata"]["labels"]["app"] = json!(id.as_str());
        pod["metadata"]["annotations"] = annotations;
        pod
    }

    fn relay(&self, name: &str, further: &[&str], mut mounts: Vec<Value>) -> Value {
        mounts.push(json!({ "name": KEYS, "mountPath": KEYS_AT, "readOnly": true }));
        let listen = SocketAddr::from(([127, 0, 0, 1], RELAY)).to_string();
        let args = [&["relay", "--listen", listen.as_str(), "--credentials", KEYS_AT], further].concat();
        json!({
            "name": name, "image": self.image, "imagePullPolicy": "IfNotPresent",
            "args": args, "volumeMounts": mounts,
            "securityContext": { "runAsUser": 0 },
        })
    }

    /// What Istio calls the clusters of those who call this one.
    pub(super) fn calls(&self, id: &ProxyId) -> Vec<String> {
        [id.to_string(), kept(id)].map(|name| format!("outbound|{SERVICE}||{}", self.host(&name))).to_vec()
    }

    pub(super) fn host(&self, name: &str) -> String {
        format!("{name}.{}.svc.cluster.local", self.namespace)
    }

    fn object(&self, version: &str, kind: &str, name: &str, spec: Value) -> Value {
        let mut object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": { "name": name, "namespace": self.namespace, "labels": { RUN: self.run } },
        });
        if !spec.is_null() {
            object["spec"] = spec;
        }
        object
    }
}

/// As one cluster is to do for all proxies: what a request asks for is the name under which the proxy dials.
fn by_host(mut patch: Value) -> Value {
    let cluster = &mut patch["value"];
    if let Some(tls) = cluster["transport_socket"]["typed_config"].as_object_mut() {
        tls.remove("sni");
    }
    let http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster["typed_extension_protocol_options"][http]["upstream_http_protocol_options"] = json!({ "auto_sni": true });
    patch
}

/// The same pod under a second name, to which connections are kept.
fn kept(id: &ProxyId) -> String {
    format!("{id}-long-lived")
}

fn host(name: &str, path: String, kind: &str) -> Value {
    json!({ "name": name, "hostPath": { "path": path, "type": kind } })
}

fn with_keys(mut volumes: Vec<Value>) -> Vec<Value> {
    volumes.push(json!({ "name": KEYS, "secret": { "secretName": KEYS, "defaultMode": 0o400 } }));
    volumes
}

/// As much of a text as a label's value may hold.
fn label(text: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '.' };
    let text: String = text.chars().map(fit).take(63).collect();
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// A name for a cell's namespace, after its scenario; `random` tells it from others.
pub(super) fn namespace(scenario: &str, random: u32) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = scenario.chars().map(fit).take(40).collect();
    format!("rotacheck-{}-{random:06x}", name.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    fn ground() -> Ground {
        Ground {
            namespace: "rotacheck-x-1".into(),
            run: "7-ab".into(),
            machine: "0a".into(),
            image: "rotacheck:0".into(),
            moved: true,
        }
    }

    #[test]
    fn a_cells_namespace_holds_relays_services_and_pods() {
        let ids = ["proxy-a", "proxy-b"].map(|id| ProxyId::parse(id).unwrap());
        let sni = json!({ "typed_config": { "sni": "proxy-a", "max_session_keys": 0 } });
        let dial_out = [json!({ "name": "a-cluster", "transport_socket": sni }), json!({ "name": "a-listener" })];
        let mut all = vec![ground().namespace("rotation@envoy-1.38.3+image")];
        all.extend(ground().accounts(&ids));
        all.extend(ground().relays(&[("ca.pem", "CA")]));
        all.extend(ground().services(&[&ids[0], &ids[1]], dial_out, 1));
        all.push(ground().pod(&ids[0], StatsInclusion::All, None));
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }

    #[test]
    fn a_pod_in_real_time_sees_no_clock() {
        let id = ProxyId::parse("proxy-a").unwrap();
        let pod = Ground { moved: false, ..ground() }.pod(&id, StatsInclusion::IstioDefault, None);
        let annotations = pod["metadata"]["annotations"].to_string();
        assert!(!annotations.contains(CLOCK) && !annotations.contains("proxyStatsMatcher"), "{annotations}");
    }

    #[test]
    fn a_pod_whose_own_relay_leads_to_the_provider_has_a_socket_of_its_own_and_waits_for_nothing() {
        let id = ProxyId::parse("proxy-a").unwrap();
        let pod = ground().pod(&id, StatsInclusion::All, Some(&Asked::Spire));
        let annotations = &pod["metadata"]["annotations"];
        assert_eq!(annotations[WITH_APPLICATION], "true");
        assert_eq!(format!("{}/socket", annotations[SOCKETS].as_str().unwrap()), ground().socket(Some(&id)));
        assert_ne!(ground().socket(Some(&id)), ground().socket(None));
        assert_eq!(pod["spec"]["volumes"][0]["hostPath"]["path"], ground().spire_sockets());
        let seen = &pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"];
        assert!(Asked::Spire.socket().starts_with(seen.as_str().unwrap()));
    }

    #[test]
    fn a_pod_whose_own_agent_issues_leaves_the_agents_socket_alone_and_leads_its_envoy_elsewhere() {
        let id = ProxyId::parse("proxy-a").unwrap();
        let asked = Asked::Istio { ttl: Span::seconds(90) };
        let pod = Ground { moved: false, ..ground() }.pod(&id, StatsInclusion::All, Some(&asked));
        let annotations = &pod["metadata"]["annotations"];
        let config: Value = serde_json::from_str(annotations["proxy.istio.io/config"].as_str().unwrap()).unwrap();
        assert_eq!(config["proxyMetadata"]["SECRET_TTL"], "1m30s");
        let map = ground().bootstrap("{}");
        assert_eq!(map["metadata"]["name"], annotations[OTHER_BOOTSTRAP]);
        let path = config["proxyBootstrapTemplatePath"].as_str().unwrap();
        assert_eq!(map["data"][path.strip_prefix(&format!("{BOOTSTRAP_AT}/")).unwrap()], "{}");
        // The injector gives the volume that the application's container mounts.
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        assert_eq!((volumes.len(), &volumes[0]["name"]), (1, &json!(KEYS)));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "workload-socket");
    }

    #[test]
    fn a_provider_of_the_users_is_asked_where_its_socket_is_on_the_node_also_by_who_is_no_proxy() {
        let id = ProxyId::parse("proxy-a").unwrap();
        let asked = Asked::OnNode { socket: "/run/vendor/x/sds.sock".into() };
        let pod = ground().pod(&id, StatsInclusion::All, Some(&asked));
        let witness = ground().witness(&id, &asked);
        assert_eq!(witness["spec"]["serviceAccountName"], pod["spec"]["serviceAccountName"]);
        for pod in [&pod, &witness] {
            assert_eq!(pod["spec"]["volumes"][0]["hostPath"]["path"], "/run/vendor/x");
            let seen = pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"].as_str().unwrap();
            assert_eq!(asked.socket(), format!("{seen}/sds.sock"));
        }
        // It is no sidecar, and nobody's neighbour.
        assert_eq!(witness["metadata"]["labels"]["sidecar.istio.io/inject"], "false");
        assert_ne!(witness["metadata"]["labels"]["app"], "proxy-a");
    }

    #[test]
    fn the_injection_template_reads_what_is_annotated() {
        let template = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/istio.yaml"));
        let read = [SOCKETS, CLOCK, WITH_APPLICATION, OTHER_BOOTSTRAP];
        assert!(read.iter().all(|name| template.contains(&format!("\"{name}\""))));
        for place in [BOOTSTRAP_AT, TAP.strip_suffix("/socket").unwrap()] {
            assert!(template.contains(&format!("mountPath: {place}\n")), "{place}");
        }
    }

    #[test]
    fn names_are_fit_for_kubernetes() {
        assert_eq!(label("rotation@envoy-1.38.3+image+"), "rotation.envoy-1.38.3.image");
        assert_eq!(label(&"x".repeat(100)).len(), 63);
        assert_eq!(namespace("my_Scenario", 10), "rotacheck-my-scenario-00000a");
        assert!(namespace(&"x".repeat(100), u32::MAX).len() <= 63);
    }
}
