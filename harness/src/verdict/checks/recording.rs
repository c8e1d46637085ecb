//! Whether the recording can bear a judgement at all.

use super::{finding, or_holds};
use crate::timeline::{ClockKind, Ledger};
use crate::verdict::evidence::{ROLES, clock_time, first_served, role_name};
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
        // A receipt between each move of time and the next.
        let mut receipts = p.receipts.iter().map(|(m, _)| m.seq).peekable();
        for (i, jump) in ledger.jumps.iter().enumerate() {
            while receipts.next_if(|r| *r < jump.seq).is_some() {}
            let next = ledger.jumps.get(i + 1).map_or(u64::MAX, |j| j.seq);
            let died = p.exits.first().is_some_and(|e| e.mark.seq < next);
            if receipts.peek().is_none_or(|r| *r > next) && !died {
                let message = format!("{} gave no receipt for the move of time at {}", p.id, clock_time(jump.at.wall));
                found.push(finding(NAME, CheckResult::Undecided, message, vec![jump.seq]).of(p));
                break;
            }
        }
    }
    or_holds(found, NAME, format!("every proxy's clock followed all {} moves of time", ledger.jumps.len()))
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
            let last = p.served.last().and_then(|s| s.error.clone()).map(|e| format!(" (last: {e})"));
            let evidence = p.served.last().map(|s| s.mark.seq).into_iter().collect();
            found.push(finding(NAME, CheckResult::Undecided, message + &last.unwrap_or_default(), evidence).of(p));
            continue;
        };
        let expiry = first.not_after;
        for role in ROLES {
            let mut past = p.full_handshakes(role).filter(|(s, _)| s.mark.at.wall > expiry);
            if past.next().is_some() {
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
