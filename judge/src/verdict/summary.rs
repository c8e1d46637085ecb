//! Where each proxy stands at the end, and the lags.

use std::collections::BTreeMap;

use super::evidence::{ROLES, due};
use super::{LagSummary, ProxySummary, ServedLeaf};
use crate::timeline::ledger::{Mark, ProxyLedger};
use crate::timeline::{CertFacts, Layer, Ledger, TlsRole};

pub(super) fn proxy(ledger: &Ledger, p: &ProxyLedger) -> ProxySummary {
    let served = p.rows.iter().filter(|row| row.shown(p.looked_at()).first().is_some()).count();
    let issued = due(ledger, p).iter().filter(|(_, g)| !g.issued.is_empty()).count();
    let last_served: BTreeMap<_, _> = ROLES
        .into_iter()
        .filter_map(|role| {
            let (s, leaf) = p.full_handshakes(role).next_back()?;
            Some((role, ServedLeaf::new(leaf, s.mark.at.wall)))
        })
        .collect();
    let contexts = p.loads.last().and_then(|load| {
        let leaf = p.full_handshakes(TlsRole::Inbound).next_back()?.1;
        Some((load.holding(leaf), load.contexts()))
    });
    ProxySummary {
        id: p.id.clone(),
        spiffe_id: p.spiffe_id.clone(),
        generations_served: count(served),
        generations_issued: ledger.issuer_seen.then_some(count(issued)),
        last_served,
        contexts,
        restarts: count(p.starts.len().saturating_sub(1)),
    }
}

pub(super) fn lags(ledger: &Ledger) -> BTreeMap<Layer, LagSummary> {
    let mut all = BTreeMap::new();
    for layer in [Layer::Acked, Layer::Dumped, Layer::Loaded, Layer::Served] {
        let mut lags = ledger.lags(layer);
        lags.sort_by(f64::total_cmp);
        if let Some(max) = lags.last() {
            let round = |ms: f64| (ms * 1000.0).round() / 1000.0;
            let summary =
                LagSummary { count: count(lags.len()), median: round(lags[lags.len() / 2]), max: round(*max) };
            all.insert(layer, summary);
        }
    }
    all
}

/// Smallest margin over all proxies and roles, milliseconds of cell time.
pub(super) fn margin(ledger: &Ledger) -> Option<i64> {
    let margins = ledger.proxies.iter().flat_map(|p| ROLES.into_iter().flat_map(move |role| margins(ledger, p, role)));
    margins.map(|m| m.left_ms).min()
}

/// One renewal as a peer saw it.
pub(super) struct Margin<'a> {
    /// Until when the old leaf worked.
    old_until: jiff::Timestamp,
    /// The leaf that took the old one's place.
    pub(super) new: &'a CertFacts,
    /// Handshake that last showed the old leaf.
    pub(super) old_seen: Mark,
    /// Handshake that first showed the new one.
    pub(super) new_seen: Mark,
    /// What was left of the old leaf when it was last shown: at least so much too late is the new one.
    pub(super) left_when_old_ms: i64,
    /// What was left of it when the new one was first shown.
    pub(super) left_ms: i64,
}

impl Margin<'_> {
    /// What was left of the old leaf at this time, in milliseconds.
    pub(super) fn left_at(&self, at: jiff::Timestamp) -> i64 {
        left_ms(self.old_until, at)
    }
}

fn left_ms(until: jiff::Timestamp, at: jiff::Timestamp) -> i64 {
    i64::try_from(until.duration_since(at).as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn margins<'a>(ledger: &Ledger<'a>, p: &'a ProxyLedger<'a>, role: TlsRole) -> Vec<Margin<'a>> {
    let shown = p.full_handshakes(role);
    let changes = shown.scan(None, |before, now| Some(before.replace(now).map(|before| (before, now)))).flatten();
    changes
        .filter(|((_, old), (_, new))| old.fingerprint != new.fingerprint)
        .map(|((before, old), (now, new))| {
            let old_until = ledger.works_until(before).unwrap_or(old.not_after);
            Margin {
                old_until,
                new,
                old_seen: before.mark,
                new_seen: now.mark,
                left_when_old_ms: left_ms(old_until, before.mark.at.wall),
                left_ms: left_ms(old_until, now.mark.at.wall),
            }
        })
        .collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
