//! By which port a proxy's certificate is shown to whoever comes from outside, in `/config_dump` (Envoy's `Listener`).

use serde_json::{Map, Value};

use super::{AnswerError, object};

/// What catches all that comes into an Istio sidecar's pod, and the port that it listens on. Nobody connects to that one: its
/// chains are chosen by the port that was meant.
const VIRTUAL_INBOUND: &str = "virtualInbound";
/// A port for which there is no chain of its own is caught all the same.
const ANY: u16 = 8080;

/// The port, if some listener in the dump terminates TLS.
pub(super) fn parse(body: &[u8]) -> Result<Option<u16>, AnswerError> {
    let dump = Value::Object(object::<Map<String, Value>>(body)?);
    let mut listeners = Vec::new();
    collect(&dump, &mut listeners);
    let is_inbound = |listener: &&&Value| listener["name"] == VIRTUAL_INBOUND;
    if let Some(inbound) = listeners.iter().find(is_inbound) {
        let own = own_port(inbound);
        let chains = chains(inbound).filter(|chain| terminates_tls(chain));
        let ports: Vec<Option<u16>> = chains.map(meant).filter(|port| port.is_none() || *port != own).collect();
        let named = ports.iter().flatten().min().copied();
        return Ok(named.or((!ports.is_empty()).then_some(ANY)));
    }
    let open = |listener: &&&Value| {
        let address = listener.pointer("/address/socket_address/address").and_then(Value::as_str);
        address.is_some_and(|address| !address.starts_with("127.")) && chains(listener).any(terminates_tls)
    };
    Ok(listeners.iter().filter(open).find_map(|listener| own_port(listener)))
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
        parse(body.to_string().as_bytes()).unwrap()
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
