//! What happens on the streams, and between the proxies.

use std::collections::BTreeMap;

use super::{finding, or_holds};
use crate::timeline::ledger::{Entry, Exit, Mark, ProxyLedger, Push, Row, Served, StatSample, Traffic};
use crate::timeline::{CertFacts, Layer, Ledger, ProxyId, SecretName};
use crate::verdict::attendance::is_missed;
use crate::verdict::evidence::{ROLES, clock_time, first_served, is_stat, stall_explains};
use crate::verdict::summary::margins;
use crate::verdict::{CheckResult, Finding};

/// Envoy's longest back-off between two attempts to open a stream, with its jitter.
const LONGEST_BACK_OFF_MS: u128 = 45_000;

/// What is broken once is broken often.
const MOST_REMARKS: usize = 3;

pub(super) fn arrived(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "secrets_arrived";
    if !ledger.streams_seen {
        return vec![finding(NAME, CheckResult::Noted, "nobody saw the streams", Vec::new())];
    }
    let mut found = Vec::new();
    for p in &ledger.proxies {
        // Who serves a certificate has received one, whatever was seen of its streams.
        let serves = first_served(p).is_some();
        let mut names: Vec<&str> =
            p.streams.iter().flat_map(|s| &s.subscriptions).flat_map(|s| s.names.iter()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        for name in names.into_iter().filter_map(|n| SecretName::parse(n).ok()) {
            let asked = p.streams.iter().find(|s| s.asked_for(name.as_str()));
            if serves || p.pushes.iter().any(|push| push.delivered(&name).is_some()) {
                continue;
            }
            let seq = asked.map(|s| s.opened.seq).into_iter().collect();
            let message = format!("{} subscribed to {name}, which was never sent to it", p.id);
            found.push(finding(NAME, CheckResult::Violated, message, seq).of(p).about(&name));
        }
    }
    or_holds(found, NAME, "every secret that was subscribed to arrived")
}

pub(super) fn accepted(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "accepted";
    // Of files the proxy itself says so.
    let mut found = untaken_files(ledger, NAME);
    if !ledger.streams_seen && found.is_empty() {
        return vec![finding(NAME, CheckResult::Noted, "nobody saw the streams", Vec::new())];
    }
    for p in &ledger.proxies {
        let mut refused: BTreeMap<SecretName, Vec<&Push>> = BTreeMap::new();
        for push in p.pushes.iter().filter(|push| push.refusal().is_some()) {
            refused.entry(refused_secret(p, push)).or_default().push(push);
        }
        for (secret, pushes) in refused {
            let Some((push, (mark, text))) = pushes.first().and_then(|push| Some((push, push.refusal()?))) else {
                continue;
            };
            let message = format!(
                "{} refused {} of {} responses for {secret}, first at {}: {text}",
                p.id,
                pushes.len(),
                p.pushes_of(&secret).count(),
                clock_time(mark.at.wall),
            );
            found.push(
                finding(NAME, CheckResult::Violated, message, vec![push.mark.seq, mark.seq]).of(p).about(&secret),
            );
        }
    }
    if ledger.proxies.iter().any(ProxyLedger::by_files) {
        return or_holds(found, NAME, "no files were refused; nobody acknowledges those that are taken");
    }
    let answers = ledger.proxies.iter().flat_map(|p| &p.pushes).filter(|push| push.accepted()).count();
    or_holds(found, NAME, format!("{answers} responses were accepted, none refused"))
}

/// Which secret a refused response was about: what it held, or else what its stream had asked for.
fn refused_secret(p: &ProxyLedger, push: &Push) -> SecretName {
    let held: Vec<&str> = push.secrets.iter().map(|s| s.name.as_str()).filter(|name| push.asked_for(name)).collect();
    let names = if held.is_empty() { push.subscribed.iter().map(String::as_str).take(1).collect() } else { held };
    // Of several it may have been any: its certificate is what is looked into first.
    let own = names.iter().any(|name| *name == p.svid.as_str());
    let other = names.first().filter(|_| !own).and_then(|name| SecretName::parse(name).ok());
    other.unwrap_or_else(|| p.svid.clone())
}

/// What it counts and logs, where it could not take files that it watches. Made good in time it is no failure: whoever
/// publishes key and chain one after the other makes such moments.
fn untaken_files(ledger: &Ledger, name: &str) -> Vec<Finding> {
    let of = |p: &ProxyLedger| {
        let stat = p.sds_stat("key_rotation_failed");
        let counts = |s: &&StatSample| s.values.iter().any(|(name, value)| is_stat(name, &stat) && *value > 0);
        let said = p.reload_failures.first();
        let first = p.stats.iter().find(counts).map(|s| s.mark).into_iter().chain(said.map(|(m, _)| *m));
        let first = first.min_by_key(|m| m.seq)?;
        let words = said.map(|(_, why)| format!(": {why}")).unwrap_or_default();
        let message = format!("{} could not take its files, first seen at {}{words}", p.id, clock_time(first.at.wall));
        let told = match made_good(ledger, p) {
            Some((row, shown)) => {
                let serial = row.cert.serial.short();
                let message = format!("{message}; later ones came in time, and it serves the last (serial {serial})");
                finding(name, CheckResult::Noted, message, vec![first.seq, shown.seq])
            }
            None => finding(name, CheckResult::Violated, message, vec![first.seq]),
        };
        Some(told.of(p).about(&p.svid))
    };
    ledger.proxies.iter().filter_map(of).collect()
}

/// The last files' generation and when it was served, where they are whole and no renewal came below the floor.
fn made_good<'a>(ledger: &Ledger<'a>, p: &'a ProxyLedger<'a>) -> Option<(&'a Row<'a>, Mark)> {
    let last = p.pushes_of(&p.svid).rfind(|push| push.by_file.is_some())?;
    let row = p.row(&last.whole_leaf(&p.svid)?.fingerprint)?;
    let floor = i64::try_from(ledger.header.criteria.margin_floor()).unwrap_or(i64::MAX);
    let in_time = ROLES.into_iter().flat_map(|role| margins(ledger, p, role)).all(|m| m.left_ms >= floor);
    match row.entry(Layer::Served) {
        Entry::Reached { all: Some(shown), .. } if in_time => Some((row, shown)),
        _ => None,
    }
}

pub(super) fn peers_accept(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "peers_accept";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        // What could not arrive says nothing about certificates.
        let counts = |t: &&Traffic| t.fresh && (t.succeeded() || !is_missed(ledger, p, t));
        let fresh: Vec<_> = p.traffic.iter().filter(counts).collect();
        let failed: Vec<_> = fresh.iter().filter(|t| !t.succeeded()).collect();
        if let Some(first) = failed.first() {
            let last = failed.last().unwrap_or(first);
            let how = match (last.status, last.error) {
                (Some(status), _) => format!("status {status}"),
                (None, Some(error)) => error.to_owned(),
                (None, None) => "no answer".to_owned(),
            };
            let message = format!(
                "{} of {} requests from {} to {} on fresh connections failed, first at {} ({how})",
                failed.len(),
                fresh.len(),
                p.id,
                first.to,
                clock_time(first.mark.at.wall),
            );
            let result = match unexplained(ledger, p, &fresh) {
                // Nothing in the request itself tells a broken network from a refused certificate.
                _ if failed.iter().all(|t| t.status.is_none() || stalled(ledger, p, t)) => CheckResult::Undecided,
                true => CheckResult::Noted,
                false => CheckResult::Violated,
            };
            found.push(finding(NAME, result, message, vec![first.mark.seq, last.mark.seq]).of(p));
            if result != CheckResult::Noted {
                continue;
            }
        }
        let Some((_, leaf)) = first_served(p) else { continue };
        let proof = |t: &&&Traffic| t.succeeded() && t.resumed == Some(false) && t.mark.at.wall > leaf.not_after;
        if !fresh.is_empty() && !fresh.iter().any(|t| proof(&t)) {
            let message = format!(
                "no request of {} on a fresh connection with a full handshake was seen after the first expiry",
                p.id
            );
            found.push(finding(NAME, CheckResult::Undecided, message, Vec::new()).of(p));
        }
    }
    let all = ledger.proxies.iter().flat_map(|p| &p.traffic).filter(|t| t.fresh).count();
    if all == 0 && found.is_empty() {
        return vec![finding(NAME, CheckResult::Undecided, "no request from proxy to proxy was made", Vec::new())];
    }
    or_holds(found, NAME, format!("{all} requests from proxy to proxy succeeded on fresh connections"))
}

/// What the proxy showed last, at that moment.
fn last_shown<'a>(q: &'a ProxyLedger<'a>, at: Mark) -> Option<&'a CertFacts> {
    q.served.iter().filter(|s| s.mark.seq <= at.seq).rev().find_map(Served::leaf)
}

/// Whether a request failed by a certificate that had expired since the harness stood still, and could not renew it.
fn stalled(ledger: &Ledger, p: &ProxyLedger, t: &Traffic) -> bool {
    let peer = ProxyId::parse(t.to).ok().and_then(|id| ledger.proxy(&id));
    let pair = peer.into_iter().chain([p]).filter_map(|q| last_shown(q, t.mark));
    let mut expired = pair.filter(|leaf| leaf.not_after <= t.mark.at.wall).peekable();
    let late = |leaf: &CertFacts| t.mark.at.wall.duration_since(leaf.not_after).as_secs();
    expired.peek().is_some() && expired.all(|leaf| stall_explains(ledger, t.mark, late(leaf)))
}

/// Whether all failed requests were passing ones: each was followed by one that succeeded between the very same
/// certificates, trusted by the same bundles. Then it was not the certificates that failed it.
fn unexplained(ledger: &Ledger, p: &ProxyLedger, fresh: &[&Traffic]) -> bool {
    let changes = |from: u64, to: u64, q: &ProxyLedger| {
        let newly_shown = |row: &Row| {
            let marks = [row.inbound.first(), row.outbound.first(), row.acked.first()];
            marks.into_iter().flatten().any(|m| m.seq > from && m.seq < to)
        };
        q.rows.iter().any(newly_shown) || q.pushes.iter().any(|push| push.mark.seq > from && push.mark.seq < to)
    };
    // A certificate that was not valid at that time is reason enough.
    let invalid = |at: Mark, q: &ProxyLedger| {
        let leaf = last_shown(q, at);
        leaf.is_none_or(|leaf| leaf.not_after <= at.at.wall || leaf.not_before > at.at.wall)
    };
    fresh.iter().enumerate().filter(|(_, t)| !t.succeeded()).all(|(i, t)| {
        let peer = ProxyId::parse(t.to).ok().and_then(|id| ledger.proxy(&id));
        let next =
            fresh[i + 1..].iter().find(|next| next.to == t.to && next.succeeded() && next.resumed == Some(false));
        next.is_some_and(|next| {
            let pair = || peer.into_iter().chain([p]);
            !pair().any(|q| changes(t.mark.seq, next.mark.seq, q) || invalid(t.mark, q))
        })
    })
}

pub(super) fn listeners(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "listeners_accepted";
    let mut found = Vec::new();
    let mut added = 0;
    for p in &ledger.proxies {
        for late in &p.late_listeners {
            added += 1;
            let at = clock_time(late.mark.at.wall);
            let (result, how, seen) = match (&late.answer, late.listens) {
                (Some((mark, Some(error))), _) => (CheckResult::Violated, format!("was refused: {error}"), Some(*mark)),
                (_, Some((mark, false))) => (CheckResult::Violated, "does not listen".to_owned(), Some(mark)),
                (_, Some((_, true))) => continue,
                (Some((_, None)), None) => {
                    (CheckResult::Undecided, "was accepted, and not looked for".to_owned(), None)
                }
                (None, None) => (CheckResult::Undecided, "was not answered".to_owned(), None),
            };
            let message = format!("{}: the listener {}, added at {at}, {how}", p.id, late.name);
            let evidence = [late.mark.seq].into_iter().chain(seen.map(|m| m.seq)).collect();
            found.push(finding(NAME, result, message, evidence).of(p));
        }
    }
    let told = match added {
        0 => "no listener was added".to_owned(),
        n => format!("all {n} listeners that were added listen"),
    };
    or_holds(found, NAME, told)
}

pub(super) fn alive(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "stream_alive";
    if !ledger.streams_seen {
        return vec![finding(NAME, CheckResult::Noted, "nobody saw the streams", Vec::new())];
    }
    let (mut found, mut by_files) = (Vec::new(), false);
    for p in &ledger.proxies {
        let of_svid: Vec<_> = p.certificate_streams().collect();
        by_files |= p.by_files();
        for closed in of_svid.iter().filter_map(|s| Some((s, s.end.as_ref()?))) {
            let (stream, end) = closed;
            // It ended with its process, or so shortly before that nothing came of it.
            let soon = |e: &Exit| e.mark.at.mono.saturating_sub(end.mark.at.mono).as_millis() < LONGEST_BACK_OFF_MS;
            if p.exits.iter().any(|e| e.mark.seq < end.mark.seq || e.expected) || p.gone().is_some_and(soon) {
                continue;
            }
            let again = of_svid.iter().find(|s| s.opened.seq > end.mark.seq);
            let (result, message, evidence) = match again {
                Some(next) => {
                    let gap = next.opened.at.mono.saturating_sub(end.mark.at.mono).as_millis();
                    let message = format!(
                        "{}: its stream for {} was ended by the {} at {} ({}) and opened again {gap} ms later",
                        p.id,
                        p.svid,
                        end.by,
                        clock_time(end.mark.at.wall),
                        end.status
                    );
                    (CheckResult::Noted, message, vec![end.mark.seq, next.opened.seq])
                }
                None if of_svid.iter().any(|s| s.end.is_none() && s.number != stream.number) => continue,
                None => {
                    let waited = ledger
                        .collecting
                        .or(ledger.end)
                        .map_or(0, |m| m.at.mono.saturating_sub(end.mark.at.mono).as_millis());
                    let result =
                        if waited > LONGEST_BACK_OFF_MS { CheckResult::Violated } else { CheckResult::Undecided };
                    let message = format!(
                        "{}: its stream for {} was ended by the {} at {} ({}) and not opened again for {:.1} s",
                        p.id,
                        p.svid,
                        end.by,
                        clock_time(end.mark.at.wall),
                        end.status,
                        waited as f64 / 1000.0
                    );
                    (result, message, vec![end.mark.seq])
                }
            };
            found.push(finding(NAME, result, message, evidence).of(p).about(&p.svid));
        }
    }
    for p in &ledger.proxies {
        for (mark, line) in p.remarks.iter().take(MOST_REMARKS) {
            let message = format!("{}: at {} on {line}", p.id, clock_time(mark.at.wall));
            found.push(finding(NAME, CheckResult::Noted, message, vec![mark.seq]).of(p));
        }
    }
    if found.is_empty() && by_files {
        return vec![finding(NAME, CheckResult::Noted, "certificates come by files, without streams", Vec::new())];
    }
    or_holds(found, NAME, "every proxy's stream for its certificate stayed open")
}
