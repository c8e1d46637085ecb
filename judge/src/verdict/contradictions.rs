//! Observations that cannot both mean what they say.

use super::Contradiction;
use super::blame::Stop;
use super::evidence::clock_time;
use crate::timeline::ledger::ProxyLedger;
use crate::timeline::{Ledger, TlsRole};

pub(super) fn all(ledger: &Ledger, stops: &[Stop]) -> Vec<Contradiction> {
    let named: Vec<_> = stops.iter().filter_map(|s| ledger.proxy(&s.proxy)).collect();
    named.into_iter().flat_map(of_proxy).collect()
}

/// When the dump says that the secret was last updated, if that was after the served leaf had expired, or long after
/// it had been loaded: what it claimed in the night of the incident.
pub(super) fn last_claim(p: &ProxyLedger) -> Option<String> {
    let (_, leaf) = p.full_handshakes(TlsRole::Inbound).next_back()?;
    let updated = p.dumps.last()?.active(&p.svid)?.last_updated?;
    (updated > leaf.not_after).then(|| clock_time(updated))
}

fn of_proxy(p: &ProxyLedger) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let expired: Vec<_> =
        p.full_handshakes(TlsRole::Inbound).filter(|(s, leaf)| leaf.not_after <= s.mark.at.wall).collect();
    let wire = expired.last().map(|(s, leaf)| {
        let against = format!(
            "{}: {} full handshakes served serial {}, expired since {}",
            p.id,
            expired.len(),
            leaf.serial.short(),
            clock_time(leaf.not_after)
        );
        (against, s.mark.seq)
    });
    let Some((against, last)) = wire else { return refused_but_dumped(p).into_iter().collect() };

    if let (Some(claim), Some(dump)) = (last_claim(p), p.dumps.last()) {
        found.push(Contradiction {
            claim: format!("config_dump: {} was last updated at {claim}", p.svid),
            against: against.clone(),
            evidence: vec![dump.mark.seq, last],
        });
    }
    let after: Vec<_> = p
        .pushes_of(&p.svid)
        .filter(|push| push.accepted() && expired.first().is_some_and(|(_, leaf)| push.mark.at.wall >= leaf.not_after))
        .collect();
    if let (Some(first), Some(newest)) = (after.first(), after.last()) {
        found.push(Contradiction {
            claim: format!(
                "{} accepted {} responses after that, the last at {} as version {}",
                p.id,
                after.len(),
                clock_time(newest.mark.at.wall),
                newest.version_info
            ),
            against: against.clone(),
            evidence: vec![first.mark.seq, newest.mark.seq, last],
        });
    }
    let stat = p.sds_stat("update_success");
    if let Some((from, to)) = p.counter(|n| n == stat).filter(|(from, to)| to > from) {
        let contexts = p.counter(|n| n.ends_with("ssl_context_update_by_sds"));
        let flat = contexts.filter(|(a, b)| a == b).map(|_| "; ssl_context_update_by_sds did not move".to_owned());
        found.push(Contradiction {
            claim: format!("stats: {stat} rose from {from} to {to}"),
            against: format!("{against}{}", flat.unwrap_or_default()),
            evidence: p.stats.last().map(|s| s.mark.seq).into_iter().chain([last]).collect(),
        });
    }
    found.extend(refused_but_dumped(p));
    found.extend(masked(p, &against, last));
    found
}

/// Requests that go on succeeding, on a connection of old or with a resumed session: no peer looked at a certificate.
fn masked(p: &ProxyLedger, against: &str, last: u64) -> Vec<Contradiction> {
    let failed = p.traffic.iter().find(|t| t.fresh && !t.succeeded() && t.status.is_some());
    let expired = p.full_handshakes(TlsRole::Inbound).find(|(s, leaf)| leaf.not_after <= s.mark.at.wall);
    let Some(from) = failed.map(|t| t.mark).or(expired.map(|(s, _)| s.mark)) else { return Vec::new() };
    let after = p.traffic.iter().filter(|t| t.mark.seq > from.seq && t.succeeded());
    let (resumed, kept): (Vec<_>, Vec<_>) =
        after.filter(|t| !t.fresh || t.resumed == Some(true)).partition(|t| t.fresh);
    let told = |how: &str, hits: &[&crate::timeline::ledger::Traffic]| {
        Some(Contradiction {
            claim: format!("{}: {} requests {how} succeeded after that", p.id, hits.len()),
            against: against.to_owned(),
            evidence: vec![hits.first()?.mark.seq, hits.last()?.mark.seq, last],
        })
    };
    let both = [told("on the connection kept since the beginning", &kept), told("with a resumed session", &resumed)];
    both.into_iter().flatten().collect()
}

/// The dump holds a certificate that the proxy refused.
fn refused_but_dumped(p: &ProxyLedger) -> Option<Contradiction> {
    let dump = p.dumps.last()?;
    let leaf = dump.active(&p.svid)?.chain.first()?;
    let (served, shown) = p.full_handshakes(TlsRole::Inbound).next_back()?;
    (shown.fingerprint != leaf.fingerprint).then(|| Contradiction {
        claim: format!("config_dump: {} holds serial {}", p.svid, leaf.serial.short()),
        against: format!("{}: handshakes show serial {}", p.id, shown.serial.short()),
        evidence: vec![dump.mark.seq, served.mark.seq],
    })
}
