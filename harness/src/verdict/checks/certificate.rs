//! What the certificates that are served and loaded must be.

use super::{finding, or_holds};
use crate::timeline::ledger::ProxyLedger;
use crate::timeline::{CertFacts, Ledger};
use crate::verdict::evidence::{ROLES, clock_time, role_name};
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
            if let (Some((first, leaf)), Some((last, newest))) = (expired.first(), expired.last()) {
                let message = format!(
                    "{}: {} of {} full {} handshakes served a certificate that had expired (serial {}, since {})",
                    p.id,
                    expired.len(),
                    shown.len(),
                    role_name(role),
                    newest.serial.short(),
                    clock_time(leaf.not_after),
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
    or_holds(found, NAME, "every full handshake, in both roles, showed a certificate valid at its time")
}

pub(super) fn contexts(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "every_context_fresh";
    let found: Vec<_> = ledger.proxies.iter().filter_map(|p| contexts_of(p, NAME)).collect();
    let counted: u32 = ledger.proxies.iter().filter_map(|p| p.loads.last()).map(|l| l.contexts()).sum();
    or_holds(found, NAME, format!("all {counted} TLS contexts hold a valid certificate"))
}

fn contexts_of(p: &ProxyLedger, name: &str) -> Option<Finding> {
    let Some(last) = p.loads.last() else {
        let message = format!("{}: /certs was never read", p.id);
        return Some(finding(name, CheckResult::Undecided, message, Vec::new()).of(p));
    };
    let now = last.mark.at.wall;
    let stale: u32 = last.own.iter().filter(|l| l.not_after <= now).map(|l| l.contexts).sum();
    if stale > 0 {
        let message = format!(
            "{}: {stale} of {} TLS contexts hold a certificate that has expired (/certs)",
            p.id,
            last.contexts()
        );
        return Some(finding(name, CheckResult::Violated, message, vec![last.mark.seq]).of(p).about(&p.svid));
    }
    // Several leaves at once in a settled proxy: some contexts were left behind, though none has expired yet.
    if last.own.len() > 1 && p.loads.iter().rev().nth(1).is_some_and(|before| before.own.len() > 1) {
        let message = format!("{}: its TLS contexts hold {} different certificates (/certs)", p.id, last.own.len());
        return Some(finding(name, CheckResult::Violated, message, vec![last.mark.seq]).of(p).about(&p.svid));
    }
    let expected = p.contexts?;
    (last.contexts() < expected).then(|| {
        let message = format!(
            "{}: /certs shows {} TLS contexts of its identity, {expected} should be there",
            p.id,
            last.contexts()
        );
        finding(name, CheckResult::Undecided, message, vec![last.mark.seq]).of(p)
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
                let message = format!(
                    "{}: an {} handshake showed the identity {}, not {id}",
                    p.id,
                    role_name(role),
                    if leaf.uris.is_empty() { "(none)".to_owned() } else { leaf.uris.join(", ") },
                );
                found.push(finding(NAME, CheckResult::Violated, message, vec![s.mark.seq]).of(p).about(&p.svid));
                break;
            }
        }
    }
    or_holds(found, NAME, "every leaf carries the identity that its proxy is to have")
}
