//! The mesh that istiod is given in files: one namespace, STRICT mTLS, a workload for each proxy, which is called by
//! the one before it in the ring; and, as an EnvoyFilter, the listener through which the harness has itself dialled.
//!
//! Kinds and fields: Istio's configuration reference.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::fleet::ports::Addresses;
use crate::timeline::{ProxyId, SpiffeId};

/// The namespace of all workloads; it stands in their SPIFFE IDs.
pub(super) const NAMESPACE: &str = "demo";

/// One workload.
pub(super) struct Workload<'a> {
    pub(super) id: &'a ProxyId,
    /// The address that Istio knows it by, unlike any other's of the mesh.
    pub(super) address: Ipv4Addr,
    pub(super) at: Addresses,
    /// The application behind it.
    pub(super) app: SocketAddr,
    /// Who calls it, and where that one's calls go in.
    pub(super) caller: SocketAddr,
    pub(super) next: &'a ProxyId,
    /// What its certificate will say, where that is not the name of its service account.
    pub(super) identity: Option<&'a SpiffeId>,
    /// What Envoy is given beside Istio's own: a cluster and a listener.
    pub(super) dial_out: [Value; 2],
}

/// Services that nobody calls: a cluster each, with a TLS context of its own.
fn uncalled(n: u32) -> String {
    format!("context-{n:03}")
}

/// The configuration of the mesh, in the order in which it is written down.
pub(super) fn configuration(workloads: &[Workload<'_>], further_contexts: u32) -> Vec<Value> {
    let strict = json!({ "mtls": { "mode": "STRICT" } });
    let mut all = vec![object("security.istio.io/v1", "PeerAuthentication", "istio-system", "default", strict)];
    for workload in workloads {
        all.extend(of_workload(workload, further_contexts));
    }
    for n in 1..=further_contexts {
        // Port 1, where nobody listens; each caller's own port, or its listener would not import it.
        let ports: Vec<Value> = workloads.iter().map(|w| port(w.at.outbound.port())).collect();
        let ours: serde_json::Map<String, Value> =
            workloads.iter().map(|w| (port_name(w.at.outbound.port()), json!(1))).collect();
        let endpoint =
            json!({ "address": "127.0.0.1", "ports": ours, "labels": { "security.istio.io/tlsMode": "istio" } });
        let entry = json!({
            "hosts": [host(&uncalled(n))], "location": "MESH_INTERNAL", "resolution": "STATIC",
            "ports": ports, "endpoints": [endpoint],
        });
        all.push(networking("ServiceEntry", &uncalled(n), entry));
    }
    all
}

fn of_workload(workload: &Workload<'_>, further_contexts: u32) -> Vec<Value> {
    let Workload { id, address, at, app, caller, next, identity, dial_out } = workload;
    let labels = json!({ "app": id.as_str() });
    let selector = json!({ "labels": labels });
    // The same endpoint under a second name, to which connections are kept.
    let kept = kept(id);
    let service = |name: &str| {
        let mut service = json!({
            "hosts": [host(name)], "location": "MESH_INTERNAL", "resolution": "STATIC",
            "ports": [port(caller.port())], "workloadSelector": selector,
        });
        if let Some(identity) = identity {
            service["subjectAltNames"] = json!([identity.as_str()]);
        }
        service
    };
    let [cluster, listener] = dial_out;
    let hosts: Vec<String> = [next.to_string(), self::kept(next)]
        .into_iter()
        .chain((1..=further_contexts).map(uncalled))
        .map(|name| format!("./{}", host(&name)))
        .collect();
    let sidecar = json!({
        "workloadSelector": selector,
        "ingress": [{
            "port": { "number": at.inbound.port(), "name": "http", "protocol": "HTTP" },
            "bind": address.to_string(), "captureMode": "NONE", "defaultEndpoint": app.to_string(),
        }],
        "egress": [{
            "port": { "number": at.outbound.port(), "name": "http", "protocol": "HTTP" },
            "bind": at.outbound.ip().to_string(), "captureMode": "NONE", "hosts": hosts,
        }],
    });
    vec![
        networking("ServiceEntry", id.as_str(), service(id.as_str())),
        networking("ServiceEntry", &kept, service(&kept)),
        networking(
            "WorkloadEntry",
            id.as_str(),
            json!({
                "address": address.to_string(), "serviceAccount": id.as_str(), "labels": labels,
                "ports": { port_name(caller.port()): at.inbound.port() },
            }),
        ),
        networking(
            "DestinationRule",
            id.as_str(),
            json!({
                "host": host(id.as_str()),
                "trafficPolicy": { "connectionPool": { "http": { "maxRequestsPerConnection": 1 } } },
            }),
        ),
        networking(
            "VirtualService",
            id.as_str(),
            json!({
                "hosts": [host(id.as_str())],
                "http": [
                    { "match": [{ "uri": { "prefix": "/long-lived" } }], "route": [to(&kept)] },
                    { "route": [to(id.as_str())] },
                ],
            }),
        ),
        networking("Sidecar", id.as_str(), sidecar),
        object(
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            NAMESPACE,
            id.as_str(),
            json!({
                "workloadSelector": selector,
                "configPatches": [
                    { "applyTo": "CLUSTER", "patch": { "operation": "ADD", "value": cluster } },
                    { "applyTo": "LISTENER", "patch": { "operation": "ADD", "value": listener } },
                    without_sessions(&host(next.as_str())),
                ],
            }),
        ),
    ]
}

/// Istio leaves its clusters Envoy's default: they resume TLS sessions, and a request that passes so has shown no
/// certificate. The one for fresh connections keeps none; that for long-lived ones stays as it is.
/// `host`: the service that it leads to.
pub(in crate::fleet) fn without_sessions(host: &str) -> Value {
    json!({
        "applyTo": "CLUSTER",
        "match": { "context": "SIDECAR_OUTBOUND", "cluster": { "service": host } },
        "patch": { "operation": "MERGE", "value": { "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "max_session_keys": 0,
            },
        } } },
    })
}

/// The name under which connections to a workload are kept.
fn kept(id: &ProxyId) -> String {
    format!("{id}-long-lived")
}

fn host(name: &str) -> String {
    format!("{name}.{NAMESPACE}.svc.cluster.local")
}

fn port(number: u16) -> Value {
    json!({ "number": number, "name": port_name(number), "protocol": "HTTP" })
}

/// Istio takes the protocol from the beginning of the name.
fn port_name(number: u16) -> String {
    format!("http-{number}")
}

fn to(name: &str) -> Value {
    json!({ "destination": { "host": host(name) } })
}

fn networking(kind: &str, name: &str, spec: Value) -> Value {
    object("networking.istio.io/v1", kind, NAMESPACE, name, spec)
}

fn object(version: &str, kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workload_calls_the_next_one() {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let at = |port| Addresses {
            admin: local(port),
            inbound: local(port + 1),
            outbound: local(port + 2),
            dial_out: local(port + 3),
            stapled: local(port + 4),
            late: local(port + 5),
            foreign: local(port + 6),
        };
        let ids = ["proxy-a", "proxy-b"].map(|id| ProxyId::parse(id).unwrap());
        let learnt = SpiffeId::parse("spiffe://cluster.local/ns/demo/sa/proxies").unwrap();
        let workload = |n: usize| Workload {
            id: &ids[n],
            address: Ipv4Addr::new(127, 0, 1, 1 + n as u8),
            at: at(if n == 0 { 15000 } else { 16000 }),
            app: local(8000),
            caller: local(if n == 0 { 16002 } else { 15002 }),
            next: &ids[1 - n],
            identity: (n == 1).then_some(&learnt),
            dial_out: [json!({ "name": "a-cluster" }), json!({ "name": "a-listener" })],
        };
        let all = configuration(&[workload(0), workload(1)], 1);
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }
}
