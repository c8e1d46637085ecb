//! Which generation follows which.

use foldhash::{HashMap, HashSet};

use super::super::SecretName;
use super::proxy::ProxyLedger;
use super::{Ledger, MintedFor};

/// Generations of which each is to replace the one before.
///
/// A proxy has one line for each secret that carries a certificate of its identity, unless it has several streams for one
/// at the same time (a duplicate subscription) and its provider mints per stream: then each stream has its own. A stream
/// that takes the place of one that ended goes on with that one's line.
#[derive(Debug, Clone, Default)]
pub struct Succession {
    /// First observation of each, and its place in `rows`; in their order.
    members: Vec<(u64, usize)>,
    /// Place in `members` by place in `rows`.
    place: HashMap<usize, usize>,
}

impl Succession {
    /// Whether the row stands in this line.
    pub fn holds(&self, row: usize) -> bool {
        self.place.contains_key(&row)
    }

    /// How many newer ones were known before this observation; absent where the row stands not in this line.
    pub fn newer(&self, row: usize, before: u64) -> Option<usize> {
        let place = *self.place.get(&row)?;
        let known = self.members.partition_point(|(seq, _)| *seq < before);
        Some(known.saturating_sub(place + 1))
    }

    fn push(&mut self, seq: u64, row: usize) {
        self.place.insert(row, self.members.len());
        self.members.push((seq, row));
    }
}

impl ProxyLedger<'_> {
    /// How many generations newer than this row were known before an observation, in the line in which it is nearest
    /// to the newest; absent where it stands in none.
    pub fn behind(&self, row: usize, before: u64) -> Option<usize> {
        self.successions.iter().filter_map(|line| line.newer(row, before)).min()
    }

    /// Place of a generation in `rows`.
    pub fn place(&self, generation: &crate::timeline::Fingerprint) -> Option<usize> {
        self.index.get(generation).copied()
    }
}

/// Builds the lines of one proxy whose rows are complete.
pub(super) fn build(ledger: &Ledger<'_>, p: &ProxyLedger<'_>) -> Vec<Succession> {
    let names: Vec<&SecretName> = p.certificates().collect();
    let (line_of, count) = lines(p, &names);
    let mut lines = vec![Succession::default(); count];
    let mut on_streams: HashMap<usize, HashSet<usize>> = HashMap::default();
    for push in &p.pushes {
        for (nth, name) in names.iter().enumerate() {
            if let Some(leaf) = push.leaf(name)
                && let (Some(row), Some(line)) = (p.place(&leaf.fingerprint), line_of.get(&(push.stream, nth)))
            {
                on_streams.entry(row).or_default().insert(*line);
            }
        }
    }
    for (row, r) in p.rows.iter().enumerate() {
        let Some(g) = ledger.generations.get(&r.generation) else { continue };
        let sent = on_streams.get(&row);
        // On a stream of several secrets, what was sent tells for which of them it was minted.
        let of_stream = |stream: u64| (0..names.len()).map(move |nth| (stream, nth));
        let minted_for = g.issued.iter().filter_map(|i| i.stream).flat_map(of_stream);
        let minted_for = minted_for.filter(|_| names.len() == 1 || sent.is_none());
        let mut at: HashSet<usize> = minted_for.filter_map(|of| line_of.get(&of)).copied().collect();
        at.extend(sent.into_iter().flatten());
        // What was minted for the identity only, and not sent, may have been meant for somebody else.
        if at.is_empty() && (r.sends > 0 || r.minted_for == MintedFor::Proxy) {
            at.extend(0..count);
        }
        for line in at {
            lines[line].push(g.first.seq, row);
        }
    }
    lines
}

/// Line of each stream for each of the proxy's certificates, and how many lines there are.
fn lines(p: &ProxyLedger<'_>, names: &[&SecretName]) -> (HashMap<(u64, usize), usize>, usize) {
    let (mut line_of, mut before) = (HashMap::default(), 0);
    for (nth, name) in names.iter().enumerate() {
        // Where the last stream of each line ended.
        let mut ends: Vec<u64> = Vec::new();
        for s in p.streams.iter().filter(|s| s.asked_for(name.as_str())) {
            let died = p.exits.iter().map(|e| e.mark.seq).find(|seq| *seq > s.opened.seq);
            let end = s.end.as_ref().map(|e| e.mark.seq).into_iter().chain(died).min().unwrap_or(u64::MAX);
            let line = ends.iter().position(|end| *end < s.opened.seq).unwrap_or(ends.len());
            ends.resize(ends.len().max(line + 1), 0);
            ends[line] = end;
            line_of.insert((s.number, nth), before + line);
        }
        before += ends.len();
    }
    (line_of, before.max(1))
}
