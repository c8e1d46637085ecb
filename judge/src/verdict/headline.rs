//! The one sentence for the matrix.

use super::attendance::is_released;
use super::blame::Stop;
use super::contradictions::last_claim;
use super::evidence::{ROLES, clock_time};
use super::{Candidate, CheckResult, Finding, Judgement};
use crate::timeline::ledger::ProxyLedger;
use crate::timeline::{Layer, Ledger};

pub(super) fn headline(
    ledger: &Ledger,
    judgement: Judgement,
    layer: Option<Layer>,
    candidates: &[Candidate],
    stops: &[Stop],
    findings: &[Finding],
    missing: &[String],
) -> String {
    match judgement {
        Judgement::Pass => passed(ledger),
        Judgement::Inconclusive => match missing {
            [] => "the evidence does not suffice".to_owned(),
            [only] => only.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        },
        Judgement::Fail => failed(ledger, layer, candidates, stops, findings),
    }
}

fn passed(ledger: &Ledger) -> String {
    // Those that owe nothing any more proved nothing.
    let judged: Vec<_> = ledger.proxies.iter().filter(|p| !is_released(ledger, p)).collect();
    let least = judged.iter().map(|p| {
        let leaves: std::collections::BTreeSet<_> =
            p.full_handshakes(p.looked_at()).map(|(_, leaf)| &leaf.fingerprint).collect();
        leaves.len()
    });
    let least = least.min().unwrap_or(0);
    match judged.len() {
        1 => format!("the proxy served {least} generations, past the first expiry"),
        n => format!("{n} proxies served {least} generations each, past the first expiry"),
    }
}

fn failed(
    ledger: &Ledger,
    layer: Option<Layer>,
    candidates: &[Candidate],
    stops: &[Stop],
    findings: &[Finding],
) -> String {
    let Some(stop) = stops.first() else {
        let first = findings.iter().find(|f| f.result == CheckResult::Violated);
        return format!("{}; no known mode fits", first.map_or("a check failed", |f| f.message.as_str()));
    };
    let mut text = stop.story.clone();
    if let Some(p) = ledger.proxy(&stop.proxy)
        && let Some(end) = consequence(p)
    {
        // What the dump claimed is worth a word only where it sounds as if all were well.
        match last_claim(p) {
            Some(claim) => text.push_str(&format!("; config_dump said updated {claim}, {end}")),
            None => text.push_str(&format!("; {end}")),
        }
    }
    if candidates.is_empty() {
        text.push_str("; no known mode fits");
    } else if candidates.len() > 1 {
        let names: Vec<_> = candidates.iter().map(|c| c.mode.as_str()).collect();
        text.push_str(&format!("; could be {}", names.join(" or ")));
    }
    if layer.is_none() && stops.iter().any(|s| s.layer.is_some()) {
        text.push_str("; the proxies stopped at different layers");
    }
    text
}

/// What the proxy's peers saw in the end.
fn consequence(p: &ProxyLedger) -> Option<String> {
    let shown: Vec<_> = ROLES.into_iter().flat_map(|role| p.full_handshakes(role)).collect();
    let expired: Vec<_> = shown.iter().filter(|(s, leaf)| leaf.not_after <= s.mark.at.wall).collect();
    let (_, leaf) = expired.last()?;
    let since = expired.iter().map(|(_, l)| l.not_after).min().unwrap_or(leaf.not_after);
    let first = expired.iter().map(|(s, _)| s.mark.seq).min()?;
    let after = shown.iter().filter(|(s, _)| s.mark.seq >= first).count();
    let every =
        if after == expired.len() { "every handshake".to_owned() } else { format!("{} handshakes", expired.len()) };
    Some(format!("{every} served a certificate expired since {}", clock_time(since)))
}
