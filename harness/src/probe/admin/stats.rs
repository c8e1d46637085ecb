//! `/stats`: the counters and gauges of secrets, of their streams, and of TLS.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::AnswerError;
use crate::timeline::Stats;

/// Only what tells modes apart; Envoy matches the expression against each of its thousands of names.
pub(super) const PATH: &str = "/stats?filter=(^sds%5C.|ssl_context_update_by_sds%24|ssl%5C.(fail_verify|session_reused)|^cluster%5C.sds-grpc.*%5C.upstream_cx_(total|active|connect_fail)%24|^listener_manager%5C.lds%5C.)";

/// The counters of resumed sessions alone.
pub(super) const SESSIONS_PATH: &str = "/stats?filter=^cluster%5C..*ssl%5C.session_reused%24";

/// Whether this counter tells of sessions that the proxy resumed as a client.
pub(super) fn counts_client_sessions(name: &str) -> bool {
    name.starts_with("cluster.") && name.ends_with(".session_reused")
}

#[derive(Deserialize)]
struct Answer {
    stats: Vec<Stat>,
}

#[derive(Deserialize)]
struct Stat {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    value: serde_json::Value,
}

/// Takes both forms of the answer, text and JSON. Histograms and texts are left out.
pub(super) fn parse(body: &[u8]) -> Result<Stats, AnswerError> {
    let text = std::str::from_utf8(body).map_err(|_| AnswerError::Text)?;
    let values = if text.trim_start().starts_with('{') { parse_json(text)? } else { parse_text(text)? };
    Ok(Stats { values })
}

fn parse_json(text: &str) -> Result<BTreeMap<String, u64>, AnswerError> {
    let answer: Answer = serde_json::from_str(text)?;
    let values = answer.stats.into_iter().filter_map(|stat| Some((stat.name?, stat.value.as_u64()?)));
    Ok(values.collect())
}

fn parse_text(text: &str) -> Result<BTreeMap<String, u64>, AnswerError> {
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        // A name may hold a colon itself.
        let (name, value) = line.rsplit_once(": ").ok_or(AnswerError::Text)?;
        if let Ok(value) = value.trim().parse() {
            values.insert(name.to_owned(), value);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let text = "sds.default.update_success: 3\ncluster.outbound|80||a;.ssl.session_reused: 0\n\
            sds.default.version_text: \"17\"\nsds.default.update_duration: P0(nan,1) P25(nan,1)\n";
        let json = r#"{"stats":[{"name":"sds.default.update_success","value":3},
            {"name":"cluster.outbound|80||a;.ssl.session_reused","value":0},
            {"name":"sds.default.version_text","value":"17"},{"histograms":{"supported_quantiles":[0]}}]}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), parse(json.as_bytes()).unwrap());
        assert_eq!(parse(text.as_bytes()).unwrap().values.len(), 2);
    }

    #[test]
    fn hidden_statistics_are_absent_not_an_error() {
        assert!(parse(b"").unwrap().values.is_empty());
        assert!(parse(br#"{"stats":[]}"#).unwrap().values.is_empty());
    }

    #[test]
    fn nonsense_is_an_error() {
        for body in [&b"<html>"[..], b"{}", b"\xff\xfe", br#"{"stats":[3]}"#] {
            assert!(parse(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "[a-z:. 0-9\\n{\"]{0,80}") {
            let _ = (parse(&body), parse(text.as_bytes()));
        }
    }
}
