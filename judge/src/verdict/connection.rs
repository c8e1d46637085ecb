//! Whether a proxy keeps its connection to the provider, as seen from its pod.

use std::collections::BTreeSet;

use super::evidence::{clock_time, span};
use crate::timeline::ledger::ProxyLedger;

/// What was seen of its connections.
pub(super) enum Kept {
    /// Some, in a sentence.
    Some(String),
    /// None at the last look, in a sentence.
    None(String),
}

/// Whether Envoy itself was seen to have one at the last look.
pub(super) fn is_connected(p: &ProxyLedger) -> bool {
    p.held.last().is_some_and(|(_, own, sockets)| *own && !sockets.is_empty())
}

/// Absent where nobody looked.
pub(super) fn kept(p: &ProxyLedger) -> Option<Kept> {
    let (first, last) = (p.held.first()?, p.held.last()?);
    let whose = if last.1 { "Envoy" } else { "something in its pod" };
    let n = last.2.len();
    let time = span(last.0.at.wall.duration_since(first.0.at.wall).as_secs());
    let (looks, at) = (p.held.len(), clock_time(last.0.at.wall));
    let place = "to the provider's socket";
    if n == 0 {
        let before = p.held.iter().filter(|(.., sockets)| !sockets.is_empty()).count();
        let before =
            if before > 0 { format!(", and had at {before} of {looks} looks in {time}") } else { String::new() };
        return Some(Kept::None(format!("{whose} has no connection {place} (at {at}){before}")));
    }
    let all: BTreeSet<_> = p.held.iter().flat_map(|(.., sockets)| sockets.iter()).collect();
    let of = if n == 1 { "1 connection".to_owned() } else { format!("{n} connections") };
    let how = match (looks, all.len() == n && p.held.iter().all(|(.., sockets)| sockets.len() == n)) {
        (1, _) => format!("at {at}"),
        (_, true) => format!("the same at each of {looks} looks in {time}"),
        (_, false) => format!("at {at}; not the same at each of {looks} looks in {time}: {} different ones", all.len()),
    };
    Some(Kept::Some(format!("{whose} has {of} {place} ({how})")))
}
