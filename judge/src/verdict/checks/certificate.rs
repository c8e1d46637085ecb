//! What the certificates that are served and loaded must be.

use foldhash::HashMap;

use super::{finding, or_holds, or_holds_if_shown};
use crate::timeline::ledger::{Load, ProxyLedger, Served, is_same};
use crate::timeline::{CertFacts, Ledger, LoadedCert, Serial};
use crate::verdict::evidence::{ROLES, authority, clock_time, role_name, stall_explains};
use crate::verdict::{CheckResult, Finding};

pub(super) fn fresh(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "both_roles_fresh";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        for role in ROLES {
            let shown: Vec<_> = p.full_handshakes(role).collect();
            let bad = |unfit: fn(&CertFacts, jiff::Timestamp) -> bool| {
                shown.iter().filter(move |(s, leaf)| unfit(leaf, s.mark.at.wall)).collect::<Vec<_>>()
            };
            let expired = bad(|leaf, at| leaf.not_after <= at);
            let late = |s: &Served, leaf: &CertFacts| s.mark.at.wall.duration_since(leaf.not_after).as_secs();
            let explained = expired.iter().all(|(s, leaf)| stall_explains(ledger, s.mark, late(s, leaf)));
            let result = if explained { CheckResult::Undecided } else { CheckResult::Violated };
            if let (Some((first, leaf)), Some((last, _))) = (expired.first(), expired.last()) {
                let message = format!(
                    "{}: {} of {} full {} handshakes served a certificate that had expired (first serial {}, since {})",
                    p.id,
                    expired.len(),
                    shown.len(),
                    role_name(role),
                    leaf.serial.short(),
                    clock_time(leaf.not_after),
                );
                let evidence = vec![first.mark.seq, last.mark.seq];
                found.push(finding(NAME, result, message, evidence).of(p).about(&p.svid));
            }
            let above = |s: &Served, leaf: &CertFacts| {
                let at = s.mark.at.wall;
                let expired = ledger.ends_first(s).filter(|c| c.not_after <= at && leaf.not_after > at);
                expired.filter(|c| !stall_explains(ledger, s.mark, late(s, c))).cloned()
            };
            let broken: Vec<_> = shown.iter().filter_map(|(s, leaf)| Some((s, above(s, leaf)?))).collect();
            if let (Some((first, above)), Some((last, _))) = (broken.first(), broken.last()) {
                let message = format!(
                    "{}: {} of {} full {} handshakes served a certificate, and {} had expired (since {})",
                    p.id,
                    broken.len(),
                    shown.len(),
                    role_name(role),
                    authority(above),
                    clock_time(above.not_after),
                );
                let evidence = vec![first.mark.seq, last.mark.seq];
                found.push(finding(NAME, CheckResult::Violated, message, evidence).of(p).about(&p.svid));
            }
            let early = bad(|leaf, at| leaf.not_before > at);
            if let Some((first, leaf)) = early.first() {
                let message = format!(
                    "{}: {} of {} full {} handshakes served a certificate that is not valid before {} (serial {})",
                    p.id,
                    early.len(),
                    shown.len(),
                    role_name(role),
                    clock_time(leaf.not_before),
                    leaf.serial.short(),
                );
                found.push(finding(NAME, CheckResult::Violated, message, vec![first.mark.seq]).of(p).about(&p.svid));
            }
        }
    }
    or_holds_if_shown(
        ledger,
        found,
        NAME,
        "every full handshake, in both roles, showed a certificate valid at its time",
    )
}

pub(super) fn contexts(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "every_context_fresh";
    let found: Vec<_> = ledger.proxies.iter().filter_map(|p| contexts_of(ledger, p, NAME)).collect();
    let counted = ledger.proxies.iter().filter_map(|p| p.loads.last()).map(|l| u64::from(l.contexts())).sum::<u64>();
    or_holds(found, NAME, format!("all {counted} TLS contexts hold a valid certificate"))
}

fn contexts_of(ledger: &Ledger, p: &ProxyLedger, name: &str) -> Option<Finding> {
    let violated = |message: String, load: &Load| {
        Some(finding(name, CheckResult::Violated, message, vec![load.mark.seq]).of(p).about(&p.svid))
    };
    let undecided = |message: String, load: Option<&Load>| {
        let evidence = load.map(|l| l.mark.seq).into_iter().collect();
        Some(finding(name, CheckResult::Undecided, message, evidence).of(p))
    };
    let Some(last) = p.loads.last() else {
        return undecided(format!("{}: /certs was never read", p.id), None);
    };
    // Not only at the end: what was left behind for a while was left behind.
    let expired = |load: &&Load| {
        let over = load.own.iter().filter(|l| l.not_after <= load.mark.at.wall);
        let late = over.map(|l| load.mark.at.wall.duration_since(l.not_after).as_secs()).max();
        late.is_some_and(|late| !stall_explains(ledger, load.mark, late))
    };
    if let Some(first) = p.loads.iter().find(expired) {
        let bad = Some(last).filter(expired).unwrap_or(first);
        let now = bad.mark.at.wall;
        let stale = bad.own.iter().filter(|l| l.not_after <= now).fold(0_u32, |n, l| n.saturating_add(l.contexts));
        let message = format!(
            "{}: at {} {stale} of {} TLS contexts hold a certificate that has expired (/certs)",
            p.id,
            clock_time(now),
            bad.contexts()
        );
        return violated(message, first);
    }
    let known = by_validity(p);
    if let Some((load, leaf)) = p.loads.iter().find_map(|load| Some((load, stranger(ledger, p, &known, load)?))) {
        let message = format!(
            "{}: at {} {} of {} TLS contexts hold serial {}, which its provider never sent to it (/certs)",
            p.id,
            clock_time(load.mark.at.wall),
            leaf.contexts,
            load.contexts(),
            leaf.serial.short()
        );
        return violated(message, load);
    }
    if let Some((load, leaf, behind)) = p.loads.iter().find_map(|load| left_behind(p, &known, load)) {
        let message = format!(
            "{}: at {} {} of {} TLS contexts still hold serial {}, {behind} generations behind the newest (/certs)",
            p.id,
            clock_time(load.mark.at.wall),
            leaf.contexts,
            load.contexts(),
            leaf.serial.short()
        );
        return violated(message, load);
    }
    // Several leaves at once in a settled proxy: some contexts were left behind, though none has expired yet.
    let lines = p.successions.len().max(1);
    let mixed = |load: &Load| load.own.len() > lines;
    if mixed(last) && p.loads.iter().rev().nth(1).is_some_and(mixed) {
        let message = format!("{}: its TLS contexts hold {} different certificates (/certs)", p.id, last.own.len());
        return violated(message, last);
    }
    let shown = last.contexts();
    if shown == 0 {
        return undecided(format!("{}: /certs shows no TLS context of its identity", p.id), Some(last));
    }
    let expected = p.contexts?;
    if shown < expected {
        let message =
            format!("{}: /certs shows {shown} TLS contexts of its identity, {expected} should be there", p.id);
        return undecided(message, Some(last));
    }
    None
}

/// Places in `rows` by what `/certs` shows of a leaf.
type Known<'a> = HashMap<(&'a Serial, jiff::Timestamp, jiff::Timestamp), Vec<usize>>;

fn by_validity<'a>(p: &ProxyLedger<'a>) -> Known<'a> {
    let mut known = Known::default();
    for (i, row) in p.rows.iter().enumerate() {
        known.entry((&row.cert.serial, row.cert.not_before, row.cert.not_after)).or_default().push(i);
    }
    known
}

fn alike<'a>(p: &'a ProxyLedger<'a>, known: &'a Known<'_>, leaf: &'a LoadedCert) -> impl Iterator<Item = usize> + 'a {
    let same = known.get(&(&leaf.serial, leaf.not_before, leaf.not_after));
    same.into_iter().flatten().copied().filter(move |i| is_same(leaf, p.rows[*i].cert))
}

/// A leaf of the proxy's identity in `/certs` that is none of its generations, where all that it was sent was seen.
fn stranger<'a>(ledger: &Ledger, p: &ProxyLedger, known: &Known<'_>, load: &'a Load<'a>) -> Option<&'a LoadedCert> {
    let first_push = p.pushes_of(&p.svid).find(|push| push.leaf(&p.svid).is_some())?;
    // A proxy without any generation is spoken of elsewhere; what it held before its first response may be older.
    if !ledger.streams_seen || load.mark.seq < first_push.mark.seq {
        return None;
    }
    let unknown = |l: &&LoadedCert| alike(p, known, l).next().is_none();
    let held_before = |l: &LoadedCert| {
        let before = p.loads.iter().take_while(|x| x.mark.seq < first_push.mark.seq);
        before.flat_map(|x| x.own.iter()).any(|x| x.serial == l.serial && x.not_after == l.not_after)
    };
    load.own.iter().filter(unknown).find(|l| !held_before(l))
}

/// A leaf in `/certs` that more than one newer generation of its line should have replaced, because it was accepted.
fn left_behind<'a>(
    p: &ProxyLedger,
    known: &Known<'_>,
    load: &'a Load<'a>,
) -> Option<(&'a Load<'a>, &'a LoadedCert, usize)> {
    // One leaf everywhere is what handshakes show as well: their check speaks of it.
    if load.own.len() < 2 {
        return None;
    }
    load.own.iter().find_map(|leaf| {
        let mut alike = alike(p, known, leaf);
        // Two that look the same are not told apart here.
        let row = alike.next().filter(|_| alike.next().is_none())?;
        let behind = p.behind(row, load.mark.seq)?;
        (behind > 1).then_some((load, leaf, behind))
    })
}

pub(super) fn identity(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "identity_unchanged";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let Some(id) = &p.spiffe_id else { continue };
        for role in ROLES {
            let strange = |leaf: &CertFacts| leaf.uris.len() != 1 || leaf.uris[0] != *id;
            if let Some((s, leaf)) = p.full_handshakes(role).find(|(_, leaf)| strange(leaf)) {
                let role = role_name(role);
                let message = match leaf.uris.as_slice() {
                    [] => format!("{}: an {role} handshake showed no identity, not {id}", p.id),
                    [other] => format!("{}: an {role} handshake showed the identity {other}, not {id}", p.id),
                    several => format!(
                        "{}: an {role} handshake showed {} identities ({}); an SVID has exactly one, {id}",
                        p.id,
                        several.len(),
                        several.join(", ")
                    ),
                };
                found.push(finding(NAME, CheckResult::Violated, message, vec![s.mark.seq]).of(p).about(&p.svid));
                break;
            }
        }
    }
    or_holds_if_shown(ledger, found, NAME, "every leaf carries the identity that its proxy is to have")
}
