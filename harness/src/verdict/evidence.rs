//! Questions about the ledger that several checks ask.

use crate::timeline::ledger::{Generation, Mark, ProxyLedger, Push, Row, Served};
use crate::timeline::{CertFacts, Ledger, TlsRole};

pub(super) const ROLES: [TlsRole; 2] = [TlsRole::Inbound, TlsRole::Outbound];

/// `14:10:56`, UTC: what people compare with their logs.
pub(super) fn clock_time(t: jiff::Timestamp) -> String {
    t.strftime("%H:%M:%S").to_string()
}

/// `12 min`, `8 s`: whole and rounded down, the largest unit that leaves two digits of meaning.
pub(super) fn span(seconds: i64) -> String {
    let s = seconds.abs();
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

pub(super) fn role_name(role: TlsRole) -> &'static str {
    match role {
        TlsRole::Inbound => "inbound",
        TlsRole::Outbound => "outbound",
    }
}

/// The certificate that all of the proxy's renewals are counted from: the first that it served.
pub(super) fn first_served(p: &ProxyLedger) -> Option<(&Served, &CertFacts)> {
    p.full_handshakes(TlsRole::Inbound).next().or_else(|| p.full_handshakes(TlsRole::Outbound).next())
}

/// What can be wrong with a leaf from the day it was minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    Expired,
    NotYetValid,
    WrongIdentity,
}

/// Whether the leaf was unfit when it was first seen. `seen` must be the moment of its minting or sending, or a
/// moment at which it replaced another one: an old leaf found expired at the first look is not defective as issued.
pub(super) fn defect(cert: &CertFacts, seen: jiff::Timestamp, identity: Option<&str>) -> Option<Defect> {
    if identity.is_some_and(|id| cert.uris.len() != 1 || cert.uris[0] != id) {
        Some(Defect::WrongIdentity)
    } else if cert.not_after <= seen {
        Some(Defect::Expired)
    } else if cert.not_before > seen {
        Some(Defect::NotYetValid)
    } else {
        None
    }
}

/// The moment from which the provider answers for the leaf: minted, or else sent.
pub(super) fn delivered_by_provider(ledger: &Ledger, p: &ProxyLedger, row: &Row) -> Option<Mark> {
    let issued = ledger.generations.get(&row.generation).and_then(|g| g.issued.first()).map(|i| i.mark);
    issued.or_else(|| row.sent.first().copied()).or_else(|| {
        // Nobody saw it coming, but it replaced another leaf in the proxy's handshakes.
        let mut before = false;
        for (s, leaf) in p.full_handshakes(TlsRole::Inbound) {
            if leaf.fingerprint == row.generation {
                return before.then_some(s.mark);
            }
            before = true;
        }
        None
    })
}

/// Generations meant for this proxy, in the order in which they were first seen: minted for it, or sent to it.
pub(super) fn due<'a>(ledger: &'a Ledger, p: &'a ProxyLedger) -> Vec<(&'a Row, &'a Generation)> {
    p.rows
        .iter()
        .filter_map(|row| Some((row, ledger.generations.get(&row.generation)?)))
        .filter(|(row, g)| row.sends > 0 || ledger.is_due(g, p))
        .collect()
}

/// Responses on the streams of the proxy's own certificate, after `from` and before `to`.
pub(super) fn pushes_between(p: &ProxyLedger, from: u64, to: u64) -> Vec<&Push> {
    p.pushes_of(&p.svid).filter(|push| push.mark.seq > from && push.mark.seq < to).collect()
}

/// Longest time for which the harness itself did not run between two moments, in seconds.
pub(super) fn longest_stall(ledger: &Ledger, from: u64, to: u64) -> u64 {
    let within = ledger.stalls.iter().filter(|(m, _)| m.seq >= from && m.seq <= to);
    within.map(|(_, ms)| ms.div_ceil(1000)).max().unwrap_or(0)
}
