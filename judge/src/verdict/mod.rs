//! What a timeline proves: checks over the ledger, the layer to blame, the mode that fits. Pure: no clock, no
//! network, no process.

mod activity;
mod alerts;
mod attendance;
mod blame;
mod blindfold;
mod checks;
mod connection;
mod contradictions;
mod evidence;
mod headline;
mod hypotheses;
mod model;
mod modes;
mod newcomer;
mod notes;
mod peers;
mod proof;
mod standing;
mod summary;
mod suspects;

use std::collections::BTreeMap;

pub use alerts::{ALERTS, Alert, Inclusion, WITHOUT_ALERT, alerts_of, rule_file, why_no_alert};
pub use blindfold::{Blindfold, judge_without, untrue};
pub use checks::{CHECKS, Check};
pub use model::*;
pub use modes::{LooksLike, MODES, Mode, mode};
pub use proof::Unproven;
pub use standing::{Standing, State, standings};
pub use suspects::{Suspects, suspects};

use crate::spread::spread;
use crate::timeline::ledger::ProxyLedger;
use crate::timeline::{Ledger, ProxyId, Timeline};
use blame::Stop;

/// Judges a recording. The same recording gives the same verdict, wherever and whenever it is judged.
pub fn judge(timeline: &Timeline) -> Verdict {
    judge_ledger(&Ledger::of(timeline))
}

/// Judges a ledger.
pub fn judge_ledger(ledger: &Ledger) -> Verdict {
    let findings = spread(CHECKS, ledger.observations(), |check| (check.evaluate)(ledger));
    let mut findings: Vec<Finding> = findings.into_iter().flatten().collect();
    attendance::release(ledger, &mut findings);
    let undecided = |check: &str, findings: &[Finding]| {
        findings.iter().any(|f| f.check == check && f.result == CheckResult::Undecided)
    };
    // Without these, what looks like a failure may be a gap in what was seen or a clock that did not follow.
    let untrustworthy = ["recording_complete", "clock_receipts"].iter().any(|c| undecided(c, &findings));
    let violated = findings.iter().any(|f| f.result == CheckResult::Violated);
    let judgement = match (untrustworthy, violated) {
        (false, true) => Judgement::Fail,
        (true, _) => Judgement::Inconclusive,
        _ if findings.iter().any(|f| f.result == CheckResult::Undecided) => Judgement::Inconclusive,
        _ => Judgement::Pass,
    };
    let missing = findings.iter().filter(|f| f.result == CheckResult::Undecided).map(|f| f.message.clone()).fold(
        Vec::new(),
        |mut all, m| {
            if !all.contains(&m) {
                all.push(m);
            }
            all
        },
    );

    let stops = if violated { stops(ledger, &findings) } else { Vec::new() };
    for stop in &stops {
        findings.extend(stop.notes.iter().cloned());
    }
    findings.extend(notes::all(ledger));
    let (layer, diagnosis, candidates) = match judgement {
        Judgement::Fail => combine(&stops),
        _ => (None, None, Vec::new()),
    };
    Verdict {
        judgement,
        layer,
        headline: headline::headline(ledger, judgement, layer, &candidates, &stops, &findings, &missing),
        hypotheses: match judgement {
            Judgement::Fail => hypotheses::answered(ledger, &findings),
            _ => Vec::new(),
        },
        contradictions: if violated { contradictions::all(ledger, &stops) } else { Vec::new() },
        diagnosis,
        candidates,
        missing,
        proxies: spread(&ledger.proxies, ledger.observations(), |p| summary::proxy(ledger, p)),
        lag_ms: summary::lags(ledger),
        margin_ms: summary::margin(ledger),
        findings,
    }
}

/// Proxies that came later, and of which it can't be told yet whether their certificates are renewed: more time would tell.
pub fn undecided_latecomers(timeline: &Timeline) -> Vec<ProxyId> {
    let ledger = Ledger::of(timeline);
    let verdict = judge_ledger(&ledger);
    let is_open = |p: &&ProxyLedger| {
        let undecided = |f: &Finding| f.result == CheckResult::Undecided && f.proxy.as_ref() == Some(&p.id);
        p.joined.is_some() && p.gone().is_none() && verdict.findings.iter().any(undecided)
    };
    ledger.proxies.iter().filter(is_open).map(|p| p.id.clone()).collect()
}

/// Where the new certificate stopped, for each proxy that a violated check names.
fn stops(ledger: &Ledger, findings: &[Finding]) -> Vec<Stop> {
    let mut by_proxy: BTreeMap<&ProxyId, Vec<&Finding>> = BTreeMap::new();
    for f in findings.iter().filter(|f| f.result == CheckResult::Violated) {
        if let Some(id) = &f.proxy {
            by_proxy.entry(id).or_default().push(f);
        }
    }
    let of_proxy = |p: &ProxyLedger| {
        let violated = by_proxy.get(&p.id)?;
        let late = blame::late_listener(ledger, p);
        // A refusal that was made good is what the listener still suffers from, not another failure.
        let lasting = |f: &Finding| f.secret.as_ref() == Some(&p.svid) && f.check != "accepted";
        let own = match late {
            Some(_) if !violated.iter().any(|f| lasting(f)) => None,
            _ => blame::own_certificate(ledger, p, violated),
        };
        // What goes on failing is why the listener did too.
        let late = late.filter(|stop| own.is_none() || stop.candidates.is_empty());
        Some(own.into_iter().chain(late))
    };
    let mut stops: Vec<Stop> = ledger.proxies.iter().filter_map(of_proxy).flatten().collect();
    stops.extend(peers::refused_bundles(ledger, findings));
    // A peer that refuses is explained by what is wrong with a certificate, if something is; else look at the bundles.
    if stops.is_empty() {
        stops.extend(peers::refusals(ledger, findings));
    }
    stops
}

/// One layer and one name if all stops agree; else every candidate, and no name.
fn combine(stops: &[Stop]) -> (Option<crate::timeline::Layer>, Option<String>, Vec<Candidate>) {
    let mut layer = stops.first().and_then(|s| s.layer);
    if stops.iter().any(|s| s.layer != layer) {
        layer = None;
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for c in stops.iter().flat_map(|s| &s.candidates) {
        match candidates.iter_mut().find(|have| have.mode == c.mode) {
            Some(have) => have.evidence.extend(&c.evidence),
            None => candidates.push(c.clone()),
        }
    }
    for c in &mut candidates {
        c.evidence.sort_unstable();
        c.evidence.dedup();
        c.evidence.truncate(40);
    }
    let unknown = stops.iter().any(|s| s.candidates.is_empty());
    let diagnosis = match candidates.as_slice() {
        [only] if !unknown => Some(only.mode.clone()),
        _ => None,
    };
    (layer, diagnosis, candidates)
}

#[cfg(test)]
mod tests;
