//! `/stats`: the counters and gauges of secrets, of their streams, and of TLS.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::AnswerError;
use crate::timeline::Stats;

/// Only what tells modes apart; Envoy matches the expression against each of its thousands of names.
pub const STATS_PATH: &str = "/stats?filter=(^sds%5C.|ssl_context_update_by_sds%24|ssl%5C.(fail_verify|session_reused)|^cluster%5C.sds-grpc.*%5C.upstream_cx_(total|active|connect_fail)%24|^listener_manager%5C.lds%5C.)";

/// What a process has shown of its counters, so that it need not be asked for all of them each time: with 45 contexts
/// Envoy answers `usedonly` five times faster.
#[derive(Default)]
pub(in crate::probe) struct Counters {
    pid: Option<i32>,
    names: BTreeSet<String>,
    sessions: Option<u64>,
    /// Of the cluster that is there to resume them.
    resumed: Option<u64>,
}

impl Counters {
    /// What to ask this process. `whole`: whatever it has shown before.
    pub(super) fn path(&self, pid: i32, whole: bool) -> Cow<'static, str> {
        if whole || self.pid != Some(pid) { STATS_PATH.into() } else { format!("{STATS_PATH}&usedonly").into() }
    }

    /// Takes the answer. What was shown once and was not used since stands at zero; of the many counters of each
    /// context's TLS only those that moved are told again.
    pub(super) fn take(&mut self, pid: i32, path: &str, stats: &mut Stats) {
        if self.pid != Some(pid) {
            *self = Self { pid: Some(pid), ..Self::default() };
        }
        if path == STATS_PATH {
            self.names.extend(stats.values.keys().cloned());
        }
        for name in self.names.iter().filter(|name| !name.contains("ssl.fail_verify") && !counts_sessions(name)) {
            stats.values.entry(name.clone()).or_insert(0);
        }
    }

    /// Whether the cluster that is there to resume sessions did so since this was asked last.
    pub(in crate::probe) fn resuming(&mut self, stats: &Stats) -> Option<bool> {
        if !self.names.contains(RESUMING) {
            return None;
        }
        let now = stats.values.get(RESUMING).copied().unwrap_or(0);
        Some(now != self.resumed.replace(now).unwrap_or(0))
    }

    /// Whether a session was resumed since this was asked last; `None` where the counters don't show it.
    pub(in crate::probe) fn resumed(&mut self, stats: &Stats) -> Option<bool> {
        if !self.names.iter().any(|name| counts_sessions(name)) {
            return None;
        }
        let counters = stats.values.iter().filter(|(name, _)| counts_sessions(name));
        let now = counters.fold(0u64, |sum, (_, value)| sum.saturating_add(*value));
        // Who was not asked before may have resumed long ago, unless it never did.
        let before = self.sessions.replace(now).or((now == 0).then_some(0))?;
        Some(now != before)
    }
}

/// Sessions that the cluster which is there to resume them has resumed.
const RESUMING: &str = "cluster.resuming.ssl.session_reused";

/// Whether this counter tells of sessions that the proxy resumed towards a peer on fresh connections.
fn counts_sessions(name: &str) -> bool {
    let cluster = name.strip_prefix("cluster.").and_then(|rest| rest.strip_suffix("ssl.session_reused"));
    cluster.is_some_and(|cluster| cluster.contains("outbound") && !cluster.contains("long-lived"))
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
    // The time of the last update moves with each sample and tells nothing.
    Ok(Stats { values: values.into_iter().filter(|(name, _)| !name.ends_with(".update_time")).collect() })
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

    #[test]
    fn a_process_is_asked_for_all_its_counters_once() {
        let stats = |text: &str| parse(text.as_bytes()).unwrap();
        let mut counters = Counters::default();
        let whole = counters.path(1, false);
        assert_eq!(whole, STATS_PATH);
        let mut first =
            stats("sds.default.update_rejected: 0\ncluster.outbound.ssl.session_reused: 0\nssl.fail_verify_san: 0");
        counters.take(1, &whole, &mut first);
        assert_eq!((first.values.len(), counters.resumed(&first)), (3, Some(false)));

        let used = counters.path(1, false);
        assert!(used.ends_with("&usedonly"));
        let mut second = stats("sds.default.update_success: 2\ncluster.outbound.ssl.session_reused: 1");
        counters.take(1, &used, &mut second);
        assert_eq!(second.values.get("sds.default.update_rejected"), Some(&0));
        assert_eq!(second.values.get("ssl.fail_verify_san"), None);
        assert_eq!(counters.resumed(&second), Some(true));
        assert_eq!(counters.resumed(&second), Some(false));

        assert_eq!(counters.path(2, false), STATS_PATH, "another process has counters of its own");
    }

    #[test]
    fn sessions_are_unknown_where_the_counters_are_hidden_or_were_never_seen_at_rest() {
        let mut counters = Counters::default();
        counters.take(1, STATS_PATH, &mut Stats { values: BTreeMap::new() });
        assert_eq!(counters.resumed(&Stats { values: BTreeMap::new() }), None);

        let mut late = parse(b"cluster.outbound.ssl.session_reused: 4").unwrap();
        counters.take(1, STATS_PATH, &mut late);
        assert_eq!((counters.resumed(&late), counters.resumed(&late)), (None, Some(false)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "[a-z:. 0-9\\n{\"]{0,80}") {
            let _ = (parse(&body), parse(text.as_bytes()));
        }
    }
}
