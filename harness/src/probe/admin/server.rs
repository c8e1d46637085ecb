//! `/server_info` and `/listeners` (Envoy's `envoy.admin.v3.ServerInfo` and `Listeners`).

use serde::Deserialize;

use super::{AnswerError, object};
use crate::timeline::{EnvoyVersion, Listeners, ServerInfo};

#[derive(Deserialize)]
struct Info {
    version: String,
    #[serde(default)]
    state: String,
    uptime_current_epoch: String,
}

/// Uptime is a proto duration, in practice of whole seconds; a clock that was set back makes it negative.
pub(super) fn parse_info(body: &[u8]) -> Result<ServerInfo, AnswerError> {
    let info: Info = object(body)?;
    let seconds = info.uptime_current_epoch.strip_suffix('s').unwrap_or_default();
    let whole = seconds.split('.').next().unwrap_or_default();
    let uptime_s = whole.parse().map_err(|e| AnswerError::field("uptime_current_epoch", e))?;
    Ok(ServerInfo { version: info.version, state: info.state, uptime_s })
}

/// The version in an answer to `/server_info`, `<commit>/1.38.3/Clean/RELEASE/BoringSSL`, if it is one.
pub fn version_of(body: &[u8]) -> Option<EnvoyVersion> {
    let info = parse_info(body).ok()?;
    EnvoyVersion::parse(info.version.split('/').nth(1)?).ok()
}

#[derive(Deserialize)]
struct ListenersAnswer {
    #[serde(default)]
    listener_statuses: Vec<ListenerStatus>,
}

#[derive(Deserialize)]
struct ListenerStatus {
    #[serde(default)]
    name: String,
    #[serde(default)]
    local_address: serde_json::Value,
}

pub(super) fn parse_listeners(body: &[u8]) -> Result<Listeners, AnswerError> {
    let answer: ListenersAnswer = object(body)?;
    let listeners = answer.listener_statuses.into_iter().map(|l| (l.name, address(&l.local_address))).collect();
    Ok(Listeners { listeners })
}

/// `127.0.0.1:15006`, `/a/pipe`, or what else there is, as it is.
fn address(address: &serde_json::Value) -> String {
    if let Some(socket) = address.get("socket_address") {
        let host = socket.get("address").and_then(serde_json::Value::as_str).unwrap_or_default();
        let port = socket.get("port_value").and_then(serde_json::Value::as_u64).unwrap_or_default();
        return if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    }
    match address.pointer("/pipe/path").and_then(serde_json::Value::as_str) {
        Some(path) => path.to_owned(),
        None if address.is_null() => String::new(),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uptime_is_read_in_seconds_however_it_is_written() {
        for (text, seconds) in [("12s", 12), ("0s", 0), ("39600.250s", 39_600), ("-3s", -3)] {
            let body = format!(r#"{{"version":"x/1.38.3/Clean","state":"LIVE","uptime_current_epoch":"{text}"}}"#);
            assert_eq!(parse_info(body.as_bytes()).unwrap().uptime_s, seconds);
        }
        for body in [r#"{"version":"x","uptime_current_epoch":"soon"}"#, r#"{"version":"x"}"#, "", "[]"] {
            assert!(parse_info(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn listeners_of_every_kind_are_named() {
        let body = br#"{"listener_statuses":[
            {"name":"a","local_address":{"socket_address":{"address":"127.0.0.1","port_value":1}}},
            {"name":"b","local_address":{"socket_address":{"address":"::1","port_value":2}}},
            {"name":"c","local_address":{"pipe":{"path":"/p"}}},
            {"name":"d","local_address":{"odd":1}}, {}]}"#;
        let listeners = parse_listeners(body).unwrap().listeners;
        let addresses: Vec<_> = listeners.iter().map(|(_, a)| a.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1:1", "[::1]:2", "/p", r#"{"odd":1}"#, ""]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), uptime in ".{0,12}") {
            let _ = (parse_info(&body), parse_listeners(&body));
            let info = serde_json::json!({"version": "x", "uptime_current_epoch": uptime});
            let _ = parse_info(info.to_string().as_bytes());
        }
    }
}
