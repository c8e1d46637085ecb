//! The bootstrap of one proxy: what Istio configures for a sidecar, as far as certificates are concerned, and the
//! listeners through which the harness looks at it.
//!
//! Field names and defaults: Envoy's v3 API reference. Values go in as JSON values, never as text.

use std::net::SocketAddr;

use camino::Utf8Path;
use serde_json::{Value, json};

use super::foreign::Foreign;
use crate::fleet::ports::Addresses;
use crate::scenario::StatsInclusion;
use crate::timeline::{ProxyId, SecretName, SpiffeId};
use crate::xds::{Delivery, secret_file};

/// Entries in `/certs` that hold the proxy's certificate when no further contexts are asked for: the inbound
/// listener, the fresh and the long-lived cluster to the next proxy, the cluster that dials the harness.
///
/// Measured on 1.36.4, 1.37.0, 1.38.3, 1.39.3 and 1.40.0: one entry for each transport socket with a
/// certificate, used or not, before and after requests. The clusters need no request, the listener no connection.
pub(super) const OWN_CONTEXTS: u32 = 4;

/// What one bootstrap is made of.
pub(super) struct Sidecar<'a> {
    pub(super) id: &'a ProxyId,
    pub(super) spiffe_id: Option<&'a SpiffeId>,
    pub(super) at: Addresses,
    /// Where the next proxy of the ring takes connections, and who it must be, where that is known.
    pub(super) next: (SocketAddr, Option<&'a SpiffeId>),
    /// Where identities are not known, the trust domain of peers, if that is.
    pub(super) trust_domain: Option<&'a str>,
    /// Where its secrets come from.
    pub(super) delivery: &'a Delivery,
    /// The harness's TLS server, and the authority that vouches for it.
    pub(super) dialled: (SocketAddr, &'a str),
    pub(super) further_contexts: u32,
    pub(super) duplicate_subscription: bool,
    pub(super) resumption: bool,
    /// A further inbound listener must staple an OCSP response.
    pub(super) must_staple: bool,
    /// A further inbound listener has this certificate instead of the proxy's own.
    pub(super) foreign: Option<&'a Foreign>,
    /// Where further listeners come from.
    pub(super) lds_socket: Option<&'a Utf8Path>,
    pub(super) stats: StatsInclusion,
}

pub(super) fn bootstrap(sidecar: &Sidecar<'_>) -> Value {
    let Sidecar { id, spiffe_id, at, next: (next, next_id), delivery, dialled: (server, authority), .. } = *sidecar;
    let secrets = Secrets { delivery, id };
    let next_matcher = next_id.map(|id| exact(id.as_str())).or_else(|| sidecar.trust_domain.map(of_domain));
    let peer_matcher = spiffe_id.map(SpiffeId::trust_domain).or(sidecar.trust_domain).map(of_domain);
    let to_next = || upstream_tls(secrets, secrets.peer_validation(next_matcher.clone()), None);

    let [dialling, dialled] = dial_out(id, at.dial_out, delivery, (server, authority));
    let mut clusters = vec![
        cluster("outbound", next, to_next(), true),
        cluster("outbound-long-lived", next, to_next(), false),
        dialling,
    ];
    if sidecar.duplicate_subscription {
        let kept = &mut clusters[1];
        other_source(&mut kept["transport_socket"]);
    }
    let sources = [("sds-grpc", secrets.socket()), ("lds-grpc", sidecar.lds_socket)];
    let sources = sources.into_iter().filter_map(|(name, socket)| Some(grpc_cluster(name, socket?)));
    clusters.splice(..0, sources);
    // Nothing is routed to them and nobody listens there: they only hold TLS contexts, as the clusters of a mesh do
    // that this workload never calls.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    clusters
        .extend((1..=sidecar.further_contexts).map(|n| cluster(&format!("context-{n:03}"), nowhere, to_next(), false)));

    if sidecar.resumption {
        // As Envoy's clients do unless they are told not to.
        let mut tls = to_next();
        if let Some(config) = tls["typed_config"].as_object_mut() {
            config.remove("max_session_keys");
        }
        clusters.push(cluster("resuming", next, tls, true));
    }
    let mut routes = vec![
        json!({ "match": { "prefix": "/long-lived" }, "route": { "cluster": cluster_name("outbound-long-lived") } }),
        json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster_name("outbound") } }),
    ];
    if sidecar.resumption {
        let route = json!({ "match": { "prefix": "/resumed" }, "route": { "cluster": cluster_name("resuming") } });
        routes.insert(0, route);
    }

    let inbound = || downstream_tls(secrets, peer_matcher.clone());
    let mut listeners = vec![
        listener("inbound", at.inbound, Some(inbound()), answering(id)),
        listener("outbound", at.outbound, None, Value::Array(routes)),
        dialled,
    ];
    if sidecar.must_staple {
        let mut tls = inbound();
        tls["typed_config"]["ocsp_staple_policy"] = json!("MUST_STAPLE");
        listeners.push(listener("stapled", at.stapled, Some(tls), answering(id)));
    }
    if let Some(foreign) = sidecar.foreign {
        listeners.push(listener("foreign", at.foreign, Some(foreign_tls(foreign)), answering(id)));
    }

    let mut bootstrap = json!({
        "node": { "id": id.as_str(), "cluster": "rotacheck" },
        "admin": {
            "address": address(at.admin),
            "ignore_global_conn_limit": true,
            // Its port is held by the harness too, from before the start.
            "socket_options": [{
                "description": "SO_REUSEPORT", "level": 1, "name": 15, "int_value": 1, "state": "STATE_PREBIND",
            }],
        },
        // There is no sink; a flush would only merge histograms.
        "stats_flush_interval": "60s",
        "static_resources": {
            "listeners": listeners,
            "clusters": clusters,
        },
    });
    if sidecar.lds_socket.is_some() {
        bootstrap["dynamic_resources"] = json!({ "lds_config": grpc_source("lds-grpc") });
    }
    if sidecar.stats == StatsInclusion::IstioDefault {
        bootstrap["stats_config"] = istio_stats();
    }
    bootstrap
}

/// The cluster that dials the harness, and the listener that leads there.
pub(super) fn dial_out(
    id: &ProxyId,
    at: SocketAddr,
    delivery: &Delivery,
    (server, authority): (SocketAddr, &str),
) -> [Value; 2] {
    let tls = upstream_tls(Secrets { delivery, id }, static_validation(authority), Some(id.as_str()));
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": cluster_name("dial-out") } }]);
    [cluster("dial-out", server, tls, true), listener("dial_out", at, None, routes)]
}

/// The inbound listener once more, as one that is added later has it.
pub(super) fn late_listener(sidecar: &Sidecar<'_>) -> Value {
    let Sidecar { id, spiffe_id, at, delivery, trust_domain, .. } = *sidecar;
    let domain = spiffe_id.map(SpiffeId::trust_domain).or(trust_domain);
    let tls = downstream_tls(Secrets { delivery, id }, domain.map(of_domain));
    listener("late", at.late, Some(tls), answering(id))
}

fn of_domain(domain: &str) -> Value {
    json!({ "prefix": format!("spiffe://{domain}/") })
}

/// The proxy answers by itself.
fn answering(id: &ProxyId) -> Value {
    json!([
        { "match": { "prefix": "/" }, "direct_response": {
            "status": 200, "body": { "inline_string": format!("{id}\n") } } },
    ])
}

/// The inclusion list of Istio's bootstrap.
fn istio_stats() -> Value {
    let prefixes = StatsInclusion::ISTIO_PREFIXES.iter().map(|prefix| json!({ "prefix": prefix }));
    let suffixes = StatsInclusion::ISTIO_SUFFIXES.iter().map(|suffix| json!({ "suffix": suffix }));
    let routes = json!({ "safe_regex": { "regex": r"vhost\.*\.route\.*" } });
    let patterns: Vec<Value> = prefixes.chain(suffixes).chain([routes]).collect();
    json!({ "use_all_default_tags": false, "stats_matcher": { "inclusion_list": { "patterns": patterns } } })
}

fn listener(name: &str, at: SocketAddr, tls: Option<Value>, routes: Value) -> Value {
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
                "route_config": {
                    "name": name,
                    "virtual_hosts": [{ "name": name, "domains": ["*"], "routes": routes }],
                },
            },
        }],
    });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({
        "name": name,
        "stat_prefix": name,
        "address": address(at),
        // The default, and needed: the harness holds the port from before the start.
        "enable_reuse_port": true,
        "filter_chains": [chain],
    })
}

/// `fresh`: each request makes a connection and a full handshake. Without `max_session_keys: 0` (see `upstream_tls`)
/// a fresh connection would resume a session and show no certificate.
fn cluster(stats: &str, to: SocketAddr, tls: Value, fresh: bool) -> Value {
    let name = cluster_name(stats);
    let mut http = http_options(json!({ "http_protocol_options": {} }));
    if fresh {
        http["common_http_protocol_options"] = json!({ "max_requests_per_connection": 1 });
    }
    json!({
        "name": name,
        "alt_stat_name": stats,
        "type": "STATIC",
        "connect_timeout": "10s",
        "transport_socket": tls,
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http },
        "load_assignment": endpoint(&name, address(to)),
    })
}

/// Envoy initialises static clusters in the order of their names. One before `sds-grpc` would ask for its secrets while
/// that is not there yet, and back off for up to a second. Istio's come later in any case, by CDS. In statistics they go
/// without the prefix.
fn cluster_name(stats: &str) -> String {
    format!("workload-{stats}")
}

/// As Istio's bootstrap has it: no keepalive, one second to connect.
fn grpc_cluster(name: &str, socket: &Utf8Path) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
                http_options(json!({ "http2_protocol_options": {} })),
        },
        "load_assignment": endpoint(name, json!({ "pipe": { "path": socket.as_str() } })),
    })
}

fn http_options(explicit: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": explicit,
    })
}

fn downstream_tls(secrets: Secrets<'_>, peers: Option<Value>) -> Value {
    let mut common = tls_context(secrets, secrets.peer_validation(peers));
    common["alpn_protocols"] = json!(["h2", "http/1.1"]);
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": true,
        },
    })
}

/// A certificate that no SDS update reaches.
fn foreign_tls(foreign: &Foreign) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": { "tls_certificates": [{
                "certificate_chain": { "filename": foreign.chain.as_str() },
                "private_key": { "filename": foreign.key.as_str() },
            }] },
        },
    })
}

fn upstream_tls(secrets: Secrets<'_>, validation: (&str, Value), sni: Option<&str>) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": tls_context(secrets, validation),
        // No session is kept, so none is resumed: a request that passes has shown its certificate.
        "max_session_keys": 0,
    });
    if let Some(sni) = sni {
        config["sni"] = json!(sni);
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}

fn tls_context(secrets: Secrets<'_>, (kind, validation): (&str, Value)) -> Value {
    json!({
        // Envoy's own default for clients is TLS 1.2 only; Istio sets both.
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificate_sds_secret_configs": [secrets.config(&SecretName::default_svid())],
        kind: validation,
    })
}

fn static_validation(authority_pem: &str) -> (&'static str, Value) {
    ("validation_context", json!({ "trusted_ca": { "inline_string": authority_pem } }))
}

fn exact(name: &str) -> Value {
    json!({ "exact": name })
}

/// Where a proxy's secrets come from.
#[derive(Clone, Copy)]
struct Secrets<'a> {
    delivery: &'a Delivery,
    id: &'a ProxyId,
}

impl<'a> Secrets<'a> {
    /// The socket that serves them, where one does.
    fn socket(self) -> Option<&'a Utf8Path> {
        match self.delivery {
            Delivery::Socket(socket) => Some(socket),
            Delivery::Files(_) | Delivery::Mesh(_) => None,
        }
    }

    /// The one ConfigSource of this secret: were its bytes to differ between two places, Envoy would open two streams
    /// for one name.
    fn config(self, name: &SecretName) -> Value {
        let mut source = match self.delivery {
            Delivery::Socket(_) | Delivery::Mesh(_) => grpc_source("sds-grpc"),
            Delivery::Files(files) => {
                let path = secret_file(files, self.id, name);
                json!({ "path_config_source": { "path": path.as_str() }, "resource_api_version": "V3" })
            }
        };
        // Wait for the first secret however long it takes.
        source["initial_fetch_timeout"] = json!("0s");
        json!({ "name": name.as_str(), "sds_config": source })
    }

    /// The trust bundle by SDS, and which names it may vouch for: all, if none are given.
    fn peer_validation(self, matcher: Option<Value>) -> (&'static str, Value) {
        let own = match matcher {
            Some(matcher) => json!({ "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": matcher }] }),
            None => json!({}),
        };
        let validation = json!({
            "default_validation_context": own,
            "validation_context_sds_secret_config": self.config(&SecretName::root_ca()),
        });
        ("combined_validation_context", validation)
    }
}

fn grpc_source(cluster: &str) -> Value {
    json!({
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{ "envoy_grpc": { "cluster_name": cluster } }],
        },
        "resource_api_version": "V3",
    })
}

/// Another ConfigSource for every secret below: one that waits for the first one only as long as Envoy does by default.
fn other_source(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(source) = map.get_mut("sds_config").and_then(Value::as_object_mut) {
                source.remove("initial_fetch_timeout");
            }
            map.values_mut().for_each(other_source);
        }
        Value::Array(items) => items.iter_mut().for_each(other_source),
        _ => {}
    }
}

fn endpoint(cluster: &str, address: Value) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
    })
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(further_contexts: u32) -> Value {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let id = ProxyId::parse("proxy-1").unwrap();
        let own = SpiffeId::parse("spiffe://cluster.local/ns/demo/sa/proxy-1").unwrap();
        let next = SpiffeId::parse("spiffe://cluster.local/ns/demo/sa/proxy-2").unwrap();
        bootstrap(&Sidecar {
            id: &id,
            spiffe_id: Some(&own),
            at: Addresses {
                admin: local(15000),
                inbound: local(15006),
                outbound: local(15001),
                dial_out: local(15002),
                stapled: local(15003),
                late: local(15004),
                foreign: local(15005),
            },
            next: (local(16006), Some(&next)),
            trust_domain: None,
            delivery: &Delivery::Socket("/run/cell/provider.sock".into()),
            dialled: (local(17000), "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
            further_contexts,
            duplicate_subscription: false,
            resumption: false,
            must_staple: false,
            foreign: None,
            lds_socket: None,
            stats: StatsInclusion::All,
        })
    }

    #[test]
    fn a_proxy_is_an_istio_shaped_sidecar() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&example(1)).unwrap());
    }

    #[test]
    fn every_config_source_is_identical() {
        fn sources<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match key.as_str() {
                    "sds_config" => found.push(value),
                    _ => sources(value, found),
                }),
                Value::Array(items) => items.iter().for_each(|item| sources(item, found)),
                _ => {}
            }
        }
        let config = example(3);
        let mut found = Vec::new();
        sources(&config, &mut found);
        // Each context but the one that dials the harness has two secrets.
        assert_eq!(found.len() as u32, 2 * (OWN_CONTEXTS + 3) - 1);
        assert!(found.iter().all(|source| *source == found[0]));
    }
}
