//! Modes that are no failure by themselves: what was recovered from, and what hides a failure. Noted, never judged.

use super::attendance::is_missed;
use super::evidence::clock_time;
use super::{CheckResult, Finding};
use crate::timeline::ledger::{Mark, ProxyLedger, Stream, Traffic};
use crate::timeline::{AGENT_FOUND_SOCKET, AGENT_NO_SOCKET, Ledger, TlsRole};

/// One finding for each proxy and mode.
pub(super) fn all(ledger: &Ledger) -> Vec<Finding> {
    let of = |p| [reopened(p), duplicate(p), kept(ledger, p), resumed(ledger, p), red_herring(p)];
    let mut found: Vec<Finding> = ledger.proxies.iter().flat_map(of).flatten().collect();
    found.extend(unlinked(ledger));
    found
}

fn note(mode: &str, p: Option<&ProxyLedger>, message: String, evidence: Vec<u64>) -> Finding {
    Finding {
        check: mode.to_owned(),
        result: CheckResult::Noted,
        proxy: p.map(|p| p.id.clone()),
        secret: p.map(|p| p.svid.clone()),
        message,
        evidence,
    }
}

/// The stream for its certificate ended, and came again: on the connection that it had, or on a new one.
fn reopened(p: &ProxyLedger) -> Option<Finding> {
    let of_svid: Vec<&Stream> = p.certificate_streams().collect();
    let gaps: Vec<(Mark, Mark, &str)> = of_svid
        .iter()
        .filter_map(|s| s.end.as_ref())
        .filter_map(|end| {
            let next = of_svid.iter().find(|s| s.opened.seq > end.mark.seq)?;
            Some((end.mark, next.opened, end.status.as_str()))
        })
        .collect();
    let (first, last) = (gaps.first()?, gaps.last()?);
    // Only what was answered on it again is recovered.
    let again = p.pushes_of(&p.svid).find(|push| push.mark.seq > last.1.seq && push.accepted())?;
    let ms = again.mark.at.mono.saturating_sub(last.0.at.mono).as_millis();
    let total = |name: &str| name.starts_with("cluster.sds-grpc") && name.ends_with("upstream_cx_total");
    let anew = p.risen(u64::MAX, total).zip(p.risen(first.0.seq, total)).map(|(all, before)| all > before);
    // A connection on which another stream went on was not lost.
    let other = |s: &Stream| !s.asked_for(p.svid.as_str()) && s.opened.seq < first.0.seq;
    let kept = p.streams.iter().any(|s| other(s) && s.end.as_ref().is_none_or(|end| end.mark.seq > last.1.seq));
    let (mode, how) = match anew.or(kept.then_some(false)) {
        Some(true) => ("socket-replaced", "on a new connection"),
        Some(false) => ("stream-closed-once", "on the connection that it had"),
        None => ("stream-reopened", "(whether on a new connection was not seen)"),
    };
    let ended = match gaps.len() {
        1 => format!("was gone from {} on ({})", clock_time(first.0.at.wall), first.2),
        n => format!(
            "ended {n} times, first at {} and last at {} ({})",
            clock_time(first.0.at.wall),
            clock_time(last.0.at.wall),
            last.2
        ),
    };
    let message = format!("{}: its stream for {} {ended}; {ms} ms later it was served again {how}", p.id, p.svid);
    Some(note(mode, Some(p), message, vec![first.0.seq, last.1.seq, again.mark.seq]))
}

/// Two streams for its certificate at one time.
fn duplicate(p: &ProxyLedger) -> Option<Finding> {
    let of_svid: Vec<&Stream> = p.certificate_streams().collect();
    let (one, other) = of_svid.iter().zip(of_svid.iter().skip(1)).find(|(one, other)| {
        let over = one.end.as_ref().map_or(u64::MAX, |end| end.mark.seq);
        let died = p.exits.iter().map(|e| e.mark.seq).find(|seq| *seq > one.opened.seq).unwrap_or(u64::MAX);
        other.opened.seq < over.min(died)
    })?;
    let message = format!(
        "{}: two streams for {} were open at one time (streams {} and {}): its ConfigSources differ",
        p.id, p.svid, one.number, other.number
    );
    Some(note("duplicate-subscription", Some(p), message, vec![one.opened.seq, other.opened.seq]))
}

/// The agent says that it has no socket for certificates from files, and the proxy has its certificate nevertheless.
fn red_herring(p: &ProxyLedger) -> Option<Finding> {
    let (said, _) = p.logs.iter().find(|(_, line)| line.contains(AGENT_NO_SOCKET))?;
    let (found, _) = p.logs.iter().find(|(_, line)| line.contains(AGENT_FOUND_SOCKET))?;
    let (served, _) = p.full_handshakes(TlsRole::Inbound).find(|(s, _)| s.mark.seq > said.seq)?;
    let message = format!(
        "{}: its agent failed to set up a socket at {}; that is the one for certificates from files, and does not concern \
         {}, which comes from the provider",
        p.id,
        clock_time(said.at.wall),
        p.svid
    );
    Some(note("files-socket-red-herring", Some(p), message, vec![said.seq, found.seq, served.mark.seq]))
}

/// From when on fresh requests with full handshakes failed.
fn failing(ledger: &Ledger, p: &ProxyLedger) -> Option<Mark> {
    p.traffic
        .iter()
        .filter(|t| t.fresh && t.resumed != Some(true) && !t.succeeded() && t.status.is_some())
        .find(|t| !is_missed(ledger, p, t))
        .map(|t| t.mark)
}

/// A kept connection went on while fresh ones failed.
fn kept(ledger: &Ledger, p: &ProxyLedger) -> Option<Finding> {
    let from = failing(ledger, p)?;
    let passed: Vec<&Traffic> =
        p.traffic.iter().filter(|t| t.mark.seq > from.seq && !t.fresh && t.succeeded()).collect();
    let (first, last) = (passed.first()?, passed.last()?);
    let message = format!(
        "{}: from {} on requests on fresh connections to {} failed, while {} on the connection kept since the beginning \
         succeeded: that proves nothing",
        p.id,
        clock_time(from.at.wall),
        first.to,
        passed.len()
    );
    Some(note("masked-by-pool", Some(p), message, vec![from.seq, first.mark.seq, last.mark.seq]))
}

/// Fresh connections that resumed a session went on with an expired certificate.
fn resumed(ledger: &Ledger, p: &ProxyLedger) -> Option<Finding> {
    let expired = p.full_handshakes(TlsRole::Outbound).find(|(s, leaf)| leaf.not_after <= s.mark.at.wall);
    let from = failing(ledger, p).into_iter().chain(expired.map(|(s, _)| s.mark)).min_by_key(|m| m.seq)?;
    let resumed = |t: &&Traffic| t.mark.seq > from.seq && t.fresh && t.resumed == Some(true) && t.succeeded();
    let passed: Vec<&Traffic> = p.traffic.iter().filter(resumed).collect();
    let (first, last) = (passed.first()?, passed.last()?);
    let message = format!(
        "{}: after {} {} requests on fresh connections to {} succeeded with resumed TLS sessions, which show no \
         certificate: that proves nothing",
        p.id,
        clock_time(from.at.wall),
        passed.len(),
        first.to
    );
    Some(note("masked-by-resumption", Some(p), message, vec![from.seq, first.mark.seq, last.mark.seq]))
}

/// A fresh subscriber could not reach the provider, while it went on serving open streams.
fn unlinked(ledger: &Ledger) -> Option<Finding> {
    let (from, why) = ledger.unreachable.first()?;
    let (served, push) = ledger.proxies.iter().find_map(|p| {
        let held = |stream: u64| p.streams.iter().any(|s| s.number == stream && s.opened.seq < from.seq);
        let push =
            p.pushes_of(&p.svid).rfind(|push| push.mark.seq > from.seq && held(push.stream) && push.accepted())?;
        Some((p, push))
    })?;
    let message = format!(
        "at {} {why}; the streams that were open went on being served ({} as late as {})",
        clock_time(from.at.wall),
        served.id,
        clock_time(push.mark.at.wall)
    );
    Some(note("socket-unlinked-alive", None, message, vec![from.seq, push.mark.seq]))
}
