//! Whether the recording can bear a judgement at all.

use super::{finding, or_holds};
use crate::timeline::ledger::{Mark, ProxyLedger};
use crate::timeline::{ClockKind, Ledger, TlsRole};
use crate::verdict::attendance::follower;
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
            // With the first look at one that came later it is measured from where its clock stands.
            let first = p.served.first().map(|s| s.mark).into_iter().chain(p.loads.first().map(|l| l.mark));
            let first = first.min_by_key(|m| m.seq).filter(|_| p.joined.is_some());
            let moved = moved || first.is_some_and(|m| within(&m));
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
        found.extend(came_or_went(ledger, p, NAME));
    }
    or_holds(found, NAME, "no proxy ended by itself")
}

/// That the proxies of a cell did not stay the same.
fn came_or_went(ledger: &Ledger, p: &ProxyLedger, name: &str) -> Vec<Finding> {
    let mut told = Vec::new();
    if let Some(join) = &p.joined {
        let at = clock_time(join.mark.at.wall);
        let message = match join.after {
            Some(before) => {
                format!("{} took the place of {before} at {at}; it is judged from its own first certificate on", p.id)
            }
            None => format!("{} came at {at}; it is judged from its own first certificate on", p.id),
        };
        told.push(finding(name, CheckResult::Noted, message, vec![join.mark.seq]).of(p));
        let unseen = ROLES.into_iter().filter(|role| !p.seen_in(*role));
        told.extend(unseen.map(|role| {
            let message = format!("{}: no way leads to its {} handshakes, which were not seen", p.id, role_name(role));
            finding(name, CheckResult::Noted, message, vec![join.mark.seq]).of(p)
        }));
    }
    let by_others = p.gone().filter(|exit| exit.expected && ledger.collecting.is_none_or(|c| exit.mark.seq < c.seq));
    if let Some(exit) = by_others {
        let at = clock_time(exit.mark.at.wall);
        let how = exit.log_tail.last().map_or_else(|| "was ended".to_owned(), Clone::clone);
        let what_then = match follower(ledger, p) {
            Some(next) => format!("{} took its place", next.id),
            None => "it vanished, and nothing took its place".to_owned(),
        };
        let message = format!("{}: at {at} {how}; {what_then}", p.id);
        told.push(finding(name, CheckResult::Noted, message, vec![exit.mark.seq]).of(p));
    }
    told
}

pub(super) fn handshakes(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "full_handshakes";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let Some((_, first)) = first_served(p) else {
            let message = format!("no full handshake shows {} at all", p.id);
            let why = p.blind.last().filter(|_| p.joined.is_some()).map(|(_, why)| why.as_str());
            let last = p.served.last().and_then(|s| s.error).or(why).map(|e| format!(" (last: {e})"));
            let evidence = p.served.last().map(|s| s.mark.seq).into_iter().collect();
            found.push(finding(NAME, CheckResult::Undecided, message + &last.unwrap_or_default(), evidence).of(p));
            continue;
        };
        let expiry = first.not_after;
        for role in ROLES.into_iter().filter(|role| p.seen_in(*role)) {
            let last = p.full_handshakes(role).next_back().map(|(s, _)| s.mark);
            if let Some(last) = last.filter(|m| m.at.wall > expiry) {
                if let Some(message) = unwatched(ledger, p, role, last) {
                    found.push(finding(NAME, CheckResult::Undecided, message, vec![last.seq]).of(p));
                }
                continue;
            }
            let resumed = p.served.iter().filter(|s| s.role == role && s.resumed).count();
            let (name, when) = (role_name(role), clock_time(expiry));
            let came = p.joined.as_ref().map(|join| format!(" (it came at {})", clock_time(join.mark.at.wall)));
            let message = if resumed > 0 {
                format!(
                    "{}: no full {name} handshake after the first expiry at {when}; {resumed} were resumed, and a resumed session shows no certificate",
                    p.id
                )
            } else {
                format!("{}: no full {name} handshake after the first expiry at {when}", p.id)
            };
            let message = message + &came.unwrap_or_default();
            found.push(finding(NAME, CheckResult::Undecided, message, Vec::new()).of(p));
        }
    }
    let full = ledger.proxies.iter().flat_map(|p| &p.served).filter(|s| s.leaf().is_some()).count();
    or_holds(found, NAME, format!("{full} full handshakes show every proxy in both roles, past the first expiry"))
}

/// Whether the proxy went on for so long after the last full handshake that a renewal could have failed unseen.
fn unwatched(ledger: &Ledger, p: &ProxyLedger, role: TlsRole, last: Mark) -> Option<String> {
    let criteria = &ledger.header.criteria;
    let end = p.gone().map(|exit| exit.mark).or(ledger.collecting).or(ledger.end)?;
    let passed = end.at.wall.duration_since(last.at.wall).as_secs();
    let tolerable = criteria.renew_every_s.unwrap_or(criteria.ttl_s).saturating_mul(2);
    (u64::try_from(passed).is_ok_and(|s| s >= tolerable)).then(|| {
        let role = role_name(role);
        format!("{}: no full {role} handshake in the last {}", p.id, span(passed))
    })
}
