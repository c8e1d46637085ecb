//! Whether the recording can bear a judgement at all.

use super::{finding, or_holds};
use crate::timeline::ledger::{Mark, ProxyLedger};
use crate::timeline::{ClockKind, Ledger, TlsRole};
use crate::verdict::evidence::{ROLES, clock_time, first_served, role_name, span};
use crate::verdict::{CheckResult, Finding};

pub(super) fn complete(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "recording_complete";
    let found = ledger
        .incomplete
        .iter()
        .map(|why| finding(NAME, CheckResult::Undecided, format!("the recording is not complete: {why}"), Vec::new()));
    let mut found: Vec<_> = found.collect();
    if ledger.proxies.is_empty() {
        found.push(finding(NAME, CheckResult::Undecided, "the recording knows no proxy", Vec::new()));
    }
    or_holds(found, NAME, "the recording is complete")
}

pub(super) fn receipts(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "clock_receipts";
    if ledger.jumps.is_empty() {
        let message = match ledger.header.clock {
            ClockKind::Virtual => "time was not moved",
            ClockKind::Real => "the proxies lived in real time",
        };
        return vec![finding(NAME, CheckResult::Holds, message, Vec::new())];
    }
    let mut found = Vec::new();
    for p in &ledger.proxies {
        if let Some((mark, _)) = p.receipts.iter().find(|(_, followed)| !followed) {
            let message = format!("{}'s own clock did not follow a move of time: nothing about expiry is proved", p.id);
            found.push(finding(NAME, CheckResult::Undecided, message, vec![mark.seq]).of(p));
            continue;
        }
        // A receipt for each move of time after which something was seen of the proxy. One that started meanwhile
        // began at the moved time.
        for (i, jump) in ledger.jumps.iter().enumerate() {
            let next = ledger.jumps.get(i + 1).map_or(u64::MAX, |j| j.seq);
            let within = |m: &Mark| m.seq > jump.seq && m.seq < next;
            let seen = from(&p.served, |s| s.mark, jump.seq).is_some_and(|m| within(&m))
                || from(&p.loads, |l| l.mark, jump.seq).is_some_and(|m| within(&m));
            let receipt = from(&p.receipts, |r| r.0, jump.seq).is_some_and(|m| within(&m));
            let moved = p.exits.iter().any(|e| within(&e.mark)) || p.starts.iter().any(within);
            if seen && !receipt && !moved {
                let message = format!("{} gave no receipt for the move of time at {}", p.id, clock_time(jump.at.wall));
                found.push(finding(NAME, CheckResult::Undecided, message, vec![jump.seq]).of(p));
                break;
            }
        }
    }
    or_holds(found, NAME, format!("every proxy's clock followed all {} moves of time", ledger.jumps.len()))
}

/// The first observation of a kind after another one; they are in the recording's order.
fn from<T>(all: &[T], mark: impl Fn(&T) -> Mark, after: u64) -> Option<Mark> {
    all.get(all.partition_point(|x| mark(x).seq <= after)).map(mark)
}

pub(super) fn alive(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "process_alive";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        for e in p.exits.iter().filter(|e| !e.expected) {
            let how = match (e.code, e.signal) {
                (_, Some(signal)) => format!("was ended by signal {signal}"),
                (Some(code), None) => format!("exited with code {code}"),
                (None, None) => "ended".to_owned(),
            };
            // SIGKILL and SIGTERM come from outside (a person, the OOM killer): they say nothing about the proxy.
            let result = if matches!(e.signal, Some(9 | 15)) { CheckResult::Undecided } else { CheckResult::Violated };
            let last = e.log_tail.last().map(|l| format!("; its last words: {l}")).unwrap_or_default();
            found.push(finding(NAME, result, format!("{} {how}{last}", p.id), vec![e.mark.seq]).of(p));
        }
    }
    or_holds(found, NAME, "no proxy ended by itself")
}

pub(super) fn handshakes(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "full_handshakes";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let Some((_, first)) = first_served(p) else {
            let message = format!("no full handshake shows {} at all", p.id);
            let last = p.served.last().and_then(|s| s.error).map(|e| format!(" (last: {e})"));
            let evidence = p.served.last().map(|s| s.mark.seq).into_iter().collect();
            found.push(finding(NAME, CheckResult::Undecided, message + &last.unwrap_or_default(), evidence).of(p));
            continue;
        };
        let expiry = first.not_after;
        for role in ROLES {
            let last = p.full_handshakes(role).next_back().map(|(s, _)| s.mark);
            if let Some(last) = last.filter(|m| m.at.wall > expiry) {
                if let Some(message) = unwatched(ledger, p, role, last) {
                    found.push(finding(NAME, CheckResult::Undecided, message, vec![last.seq]).of(p));
                }
                continue;
            }
            let resumed = p.served.iter().filter(|s| s.role == role && s.resumed).count();
            let (name, when) = (role_name(role), clock_time(expiry));
            let message = if resumed > 0 {
                format!(
                    "{}: no full {name} handshake after the first expiry at {when}; {resumed} were resumed, and a resumed session shows no certificate",
                    p.id
                )
            } else {
                format!("{}: no full {name} handshake after the first expiry at {when}", p.id)
            };
            found.push(finding(NAME, CheckResult::Undecided, message, Vec::new()).of(p));
        }
    }
    let full = ledger.proxies.iter().flat_map(|p| &p.served).filter(|s| s.leaf().is_some()).count();
    or_holds(found, NAME, format!("{full} full handshakes show every proxy in both roles, past the first expiry"))
}

/// Whether the proxy went on for so long after the last full handshake that a renewal could have failed unseen.
fn unwatched(ledger: &Ledger, p: &ProxyLedger, role: TlsRole, last: Mark) -> Option<String> {
    let criteria = &ledger.header.criteria;
    let end = ledger.collecting.or(ledger.end)?;
    let passed = end.at.wall.duration_since(last.at.wall).as_secs();
    let tolerable = criteria.renew_every_s.unwrap_or(criteria.ttl_s).saturating_mul(2);
    (u64::try_from(passed).is_ok_and(|s| s >= tolerable)).then(|| {
        let role = role_name(role);
        format!("{}: no full {role} handshake in the last {}", p.id, span(passed))
    })
}
