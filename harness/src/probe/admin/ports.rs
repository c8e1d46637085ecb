//! By which port a proxy's certificate is shown to whoever comes from outside, in `/config_dump` (Envoy's `Listener`).

use serde_json::{Map, Value};

use super::{AnswerError, object};

/// What catches all that comes into an Istio sidecar's pod, and the port that it listens on. Nobody connects to that one: its
/// chains are chosen by the port that was meant.
const VIRTUAL_INBOUND: &str = "virtualInbound";
/// The workload's own certificate, as Istio names it.
const DEFAULT: &str = "default";
/// A port for which there is no chain of its own is caught all the same.
const ANY: u16 = 8080;

/// Where to knock, and for whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The port.
    pub port: u16,
    /// The server name (SNI) that its chain wants, where it wants one.
    pub server_name: Option<String>,
}

impl Door {
    fn at(port: u16) -> Self {
        Self { port, server_name: None }
    }
}

/// The door, if some listener in the dump terminates TLS with a certificate of the proxy's own; of a gateway, that is where
/// its mode is ISTIO_MUTUAL.
pub(super) fn parse(body: &[u8]) -> Result<Option<Door>, AnswerError> {
    let dump = Value::Object(object::<Map<String, Value>>(body)?);
    let mut listeners = Vec::new();
    collect(&dump, &mut listeners);
    let is_inbound = |listener: &&&Value| listener["name"] == VIRTUAL_INBOUND;
    if let Some(inbound) = listeners.iter().find(is_inbound) {
        let own = own_port(inbound);
        let chains = chains(inbound).filter(|chain| terminates_tls(chain));
        let ports: Vec<Option<u16>> = chains.map(meant).filter(|port| port.is_none() || *port != own).collect();
        let named = ports.iter().flatten().min().copied();
        return Ok(named.or((!ports.is_empty()).then_some(ANY)).map(Door::at));
    }
    let is_open = |listener: &&&Value| {
        let address = listener.pointer("/address/socket_address/address").and_then(Value::as_str);
        address.is_some_and(|address| !address.starts_with("127."))
    };
    let open = listeners.iter().filter(is_open).filter_map(|listener| Some((own_port(listener)?, *listener)));
    let own = open.flat_map(|(port, listener)| chains(listener).map(move |chain| (port, chain)));
    let own: Vec<_> = own.filter(|(_, chain)| terminates_tls(chain) && !certificates(chain).any(is_anothers)).collect();
    let default = own.iter().find(|(_, chain)| certificates(chain).any(|name| name == DEFAULT));
    Ok(default.or(own.first()).map(|(port, chain)| Door { port: *port, server_name: server_name(chain) }))
}

/// Names of the certificates that a chain subscribes to.
fn certificates(chain: &Value) -> impl Iterator<Item = &str> {
    let configs = chain.pointer("/transport_socket/typed_config/common_tls_context/tls_certificate_sds_secret_configs");
    configs.and_then(Value::as_array).into_iter().flatten().filter_map(|config| config["name"].as_str())
}

/// One that a gateway has from elsewhere, such as `kubernetes://name`; a SPIFFE ID is a workload's own.
fn is_anothers(name: &str) -> bool {
    name.contains("://") && !name.starts_with("spiffe://")
}

/// A name that the chain is chosen by.
fn server_name(chain: &Value) -> Option<String> {
    let names = chain.pointer("/filter_chain_match/server_names").and_then(Value::as_array)?;
    let name = names.iter().find_map(Value::as_str)?;
    Some(name.strip_prefix("*.").map_or_else(|| name.to_owned(), |domain| format!("rotacheck.{domain}")))
}

/// JSON is nested as deep as its reader allows, no deeper.
fn collect<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(map) if map.contains_key("filter_chains") => found.push(value),
        Value::Object(map) => map.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    let default = listener.get("default_filter_chain");
    listener["filter_chains"].as_array().into_iter().flatten().chain(default)
}

fn terminates_tls(chain: &Value) -> bool {
    let kind = chain.pointer("/transport_socket/typed_config/@type").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with(".DownstreamTlsContext"))
}

fn meant(chain: &Value) -> Option<u16> {
    port(chain.pointer("/filter_chain_match/destination_port"))
}

fn own_port(listener: &Value) -> Option<u16> {
    port(listener.pointer("/address/socket_address/port_value"))
}

fn port(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(port: Option<u16>, tls: bool) -> Value {
        let kind = if tls { "DownstreamTlsContext" } else { "RawBuffer" };
        json!({"filter_chain_match": {"destination_port": port},
            "transport_socket": {"typed_config": {"@type": format!("type.googleapis.com/x.{kind}")}}})
    }

    fn dumped(name: &str, address: &str, chains: &[Value]) -> Option<u16> {
        let address = json!({"socket_address": {"address": address, "port_value": 15006}});
        let listener = json!({"name": name, "address": address, "filter_chains": chains});
        let other = json!({"name": "x_0", "address": {"pipe": {"path": "/x"}}, "filter_chains": [chain(None, true)]});
        let body =
            json!({"configs": [{"active_state": {"listener": other}}, {"active_state": {"listener": listener}}]});
        parse(body.to_string().as_bytes()).unwrap().map(|door| door.port)
    }

    #[test]
    fn a_gateway_is_reached_where_it_shows_its_own_certificate_and_no_other() {
        let chain = |certificate: &str, names: &[&str]| {
            let configs = json!([{"name": certificate}]);
            json!({"filter_chain_match": {"server_names": names}, "transport_socket": {"typed_config":
                {"@type": "type.googleapis.com/x.DownstreamTlsContext",
                "common_tls_context": {"tls_certificate_sds_secret_configs": configs}}}})
        };
        let door = |chains: &[Value]| {
            let listener = |port: u16, chain: &Value| {
                let address = json!({"socket_address": {"address": "0.0.0.0", "port_value": port}});
                json!({"name": format!("0.0.0.0_{port}"), "address": address, "filter_chains": [chain]})
            };
            let listeners: Vec<_> = (8443..).zip(chains).map(|(port, chain)| listener(port, chain)).collect();
            parse(json!({"configs": listeners}).to_string().as_bytes()).unwrap()
        };
        let other = chain("kubernetes://shop-tls", &["shop.example"]);
        let own = Door { port: 8444, server_name: Some("rotacheck.mesh.example".into()) };
        assert_eq!(door(&[other.clone(), chain("default", &["*.mesh.example"])]), Some(own));
        assert_eq!(door(&[other]), None);
        let unnamed = door(&[chain("spiffe://td/ns/a/sa/b", &[])]);
        assert_eq!(unnamed, Some(Door { port: 8443, server_name: None }));
    }

    #[test]
    fn a_sidecar_is_reached_by_a_port_that_has_a_tls_chain() {
        let all = [chain(Some(15006), true), chain(None, true), chain(Some(9000), true), chain(Some(80), false)];
        assert_eq!(dumped(VIRTUAL_INBOUND, "0.0.0.0", &all), Some(9000));
        assert_eq!(dumped(VIRTUAL_INBOUND, "0.0.0.0", &all[..2]), Some(ANY), "what has no chain of its own is caught");
        assert_eq!(dumped(VIRTUAL_INBOUND, "0.0.0.0", &[chain(Some(80), false), chain(Some(15006), true)]), None);
    }

    #[test]
    fn another_envoy_is_reached_where_it_listens_for_others() {
        assert_eq!(dumped("in", "0.0.0.0", &[chain(None, true)]), Some(15006));
        assert_eq!(dumped("in", "127.0.0.1", &[chain(None, true)]), None);
        assert_eq!(dumped("in", "0.0.0.0", &[chain(None, false)]), None);
    }

    #[test]
    fn nonsense_is_an_error_or_no_port() {
        for body in [&b""[..], b"[]", b"null", b"{\"configs\":"] {
            assert!(parse(body).is_err());
        }
        for body in [r#"{}"#, r#"{"configs":3}"#, r#"{"configs":[{"name":"virtualInbound","filter_chains":[7]}]}"#] {
            assert_eq!(parse(body.as_bytes()).unwrap(), None, "{body}");
        }
    }
}
