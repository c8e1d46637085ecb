//! The rows of the ledger: one generation on its way to one proxy.

use std::time::Duration;

use foldhash::{HashMap, HashSet};

use super::super::{CertFacts, Fingerprint, Layer, Serial, TlsRole};
use super::proxy::{ProxyLedger, is_same};
use super::{Answer, Generation, Ledger, Mark, Push, Stream, succession};
use crate::spread::spread;

/// How far a generation came, at one layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// It came here.
    Reached {
        /// First seen here.
        first: Mark,
        /// First seen at all places of the layer; absent where some never showed it.
        all: Option<Mark>,
        /// Most places that showed it at once.
        count: u32,
        /// Of how many.
        of: u32,
    },
    /// The proxy refused it.
    Rejected {
        /// When.
        at: Mark,
        /// Its words.
        text: String,
    },
    /// One looked, and it was not there.
    NotReached,
    /// Nobody could look.
    Unseen {
        /// Why.
        why: String,
    },
}

impl Entry {
    fn at(mark: Mark) -> Self {
        Entry::Reached { first: mark, all: Some(mark), count: 1, of: 1 }
    }
    fn unseen(why: impl Into<String>) -> Self {
        Entry::Unseen { why: why.into() }
    }
    /// First seen, if it was.
    pub fn first(&self) -> Option<&Mark> {
        match self {
            Entry::Reached { first, .. } => Some(first),
            _ => None,
        }
    }
    /// Whether it came here wholly.
    pub fn complete(&self) -> bool {
        matches!(self, Entry::Reached { all: Some(_), .. })
    }
}

/// Whom a generation was minted for, as the provider's journal has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MintedFor {
    /// Somebody else, or nobody knows.
    Others,
    /// This proxy's identity; for which subscriber is not said, and it may have been another one's.
    Identity,
    /// This proxy, or its own stream of its certificate.
    Proxy,
}

/// One generation on its way to one proxy.
#[derive(Debug, Clone)]
pub struct Row<'t> {
    /// The generation.
    pub generation: Fingerprint,
    /// Its facts.
    pub cert: &'t CertFacts,
    /// Whom it was minted for.
    pub minted_for: MintedFor,
    /// Minted.
    pub issued: Entry,
    /// On the stream, under the subscribed name and the right type.
    pub sent: Entry,
    /// How often.
    pub sends: u32,
    /// Accepted, or refused. Once refused, it stays refused.
    pub acked: Entry,
    /// Inside `/config_dump`.
    pub dumped: Entry,
    /// In the live contexts.
    pub loaded: Entry,
    /// In handshakes in which the proxy is the server.
    pub inbound: Entry,
    /// In handshakes in which the proxy is the client.
    pub outbound: Entry,
}

impl Row<'_> {
    /// The entry of a layer; `served` is the later of both roles, so that it is complete only if both are.
    pub fn entry(&self, layer: Layer) -> Entry {
        match layer {
            Layer::Issued => self.issued.clone(),
            Layer::Sent => self.sent.clone(),
            Layer::Acked => self.acked.clone(),
            Layer::Dumped => self.dumped.clone(),
            Layer::Loaded => self.loaded.clone(),
            Layer::Served => both(&self.inbound, &self.outbound),
        }
    }

    /// How far it came in the handshakes of one role.
    pub fn shown(&self, role: TlsRole) -> &Entry {
        match role {
            TlsRole::Inbound => &self.inbound,
            TlsRole::Outbound => &self.outbound,
        }
    }

    /// Real time from sent to this layer.
    pub fn lag(&self, layer: Layer) -> Option<Duration> {
        let sent = self.sent.first()?.at.mono;
        match self.entry(layer) {
            Entry::Reached { all: Some(mark), .. } => mark.at.mono.checked_sub(sent),
            _ => None,
        }
    }
}

fn both(inbound: &Entry, outbound: &Entry) -> Entry {
    match (inbound, outbound) {
        (Entry::Reached { first: a, .. }, Entry::Reached { first: b, .. }) => {
            let (first, last) = if a.seq <= b.seq { (*a, *b) } else { (*b, *a) };
            Entry::Reached { first, all: Some(last), count: 2, of: 2 }
        }
        (Entry::Reached { first, .. }, other) | (other, Entry::Reached { first, .. }) => {
            // A role that nobody could look at takes nothing away from the other.
            let all = matches!(other, Entry::Unseen { .. }).then_some(*first);
            Entry::Reached { first: *first, all, count: 1, of: if all.is_some() { 1 } else { 2 } }
        }
        (Entry::NotReached, _) | (_, Entry::NotReached) => Entry::NotReached,
        _ => inbound.clone(),
    }
}

/// Whom a generation was minted for. Where the provider mints per stream, only this proxy's streams of its own
/// certificate count: those of the bundle get certificates too, which are never sent.
fn minted_for(g: &Generation<'_>, p: &ProxyLedger<'_>, streams: &HashSet<u64>) -> MintedFor {
    let of = |issue: &super::Issue<'_>| match (issue.proxy, issue.stream) {
        (Some(id), _) if *id != p.id => MintedFor::Others,
        (_, Some(stream)) if !streams.contains(&stream) => MintedFor::Others,
        (Some(_), _) | (_, Some(_)) => MintedFor::Proxy,
        (None, None) if p.spiffe_id.as_ref().is_some_and(|id| g.cert.uris.contains(id)) => MintedFor::Identity,
        (None, None) => MintedFor::Others,
    };
    g.issued.iter().map(of).max().unwrap_or(MintedFor::Others)
}

pub(super) fn build(ledger: &mut Ledger<'_>) {
    let mut all: Vec<&Generation<'_>> = ledger.generations.values().collect();
    all.sort_by_key(|g| g.first.seq);
    let twins = twins(&all);
    let by_validity = by_validity(&all);
    let observations = ledger.observations();
    let rows = spread(&ledger.proxies, observations, |p| rows_of(ledger, p, &all, &by_validity, &twins));
    for (p, rows) in ledger.proxies.iter_mut().zip(rows) {
        p.index = rows.iter().enumerate().map(|(i, row)| (row.generation, i)).collect();
        p.rows = rows;
    }
    let lines = spread(&ledger.proxies, observations, |p| succession::build(ledger, p));
    for (p, lines) in ledger.proxies.iter_mut().zip(lines) {
        p.successions = lines;
    }
}

/// Builds the rows of one proxy anew, of those generations.
pub(super) fn rebuild<'t>(ledger: &Ledger<'t>, p: &mut ProxyLedger<'t>, of: &dyn Fn(&Fingerprint) -> bool) {
    let mut all: Vec<&Generation<'t>> = ledger.generations.values().filter(|g| of(&g.cert.fingerprint)).collect();
    all.sort_by_key(|g| g.first.seq);
    p.rows = rows_of(ledger, p, &all, &by_validity(&all), &twins(&all));
    p.index = p.rows.iter().enumerate().map(|(i, row)| (row.generation, i)).collect();
    p.successions = succession::build(ledger, p);
}

type Validity<'a> = (&'a Serial, jiff::Timestamp, jiff::Timestamp);

fn validity(cert: &CertFacts) -> Validity<'_> {
    (&cert.serial, cert.not_before, cert.not_after)
}

/// Certificates that `/certs` can't tell apart: it shows serial, validity and identity only.
fn twins(all: &[&Generation<'_>]) -> HashSet<Fingerprint> {
    let mut alike: HashMap<_, Vec<Fingerprint>> = with_room(all.len());
    for g in all {
        alike.entry((validity(g.cert), &g.cert.uris)).or_default().push(g.cert.fingerprint);
    }
    alike.into_values().filter(|same| same.len() > 1).flatten().collect()
}

type ByValidity<'a> = HashMap<Validity<'a>, Vec<&'a CertFacts>>;

fn by_validity<'a>(all: &[&Generation<'a>]) -> ByValidity<'a> {
    let mut by_validity: ByValidity<'_> = with_room(all.len());
    for g in all {
        by_validity.entry(validity(g.cert)).or_default().push(g.cert);
    }
    by_validity
}

/// With room for as many: growing means to hash all that is there once more.
pub(super) fn with_room<K, V>(entries: usize) -> HashMap<K, V> {
    HashMap::with_capacity_and_hasher(entries, foldhash::fast::RandomState::default())
}

/// What one proxy showed of one generation, gathered in one pass over each kind of observation.
#[derive(Default)]
struct Seen {
    sends: u32,
    sent: Option<Mark>,
    acked: Option<Mark>,
    refused: Option<(Mark, String)>,
    dumped: Option<Mark>,
    inbound: Option<Mark>,
    outbound: Option<Mark>,
    loaded: Loaded,
}

#[derive(Default, Clone, Copy)]
struct Loaded {
    first: Option<Mark>,
    all: Option<Mark>,
    count: u32,
    of: u32,
}

/// When each source was asked last.
struct Last {
    dump: Option<Mark>,
    load: Option<Mark>,
    inbound: Option<Mark>,
    outbound: Option<Mark>,
}

fn rows_of<'t>(
    ledger: &Ledger<'t>,
    p: &ProxyLedger<'t>,
    all: &[&Generation<'t>],
    by_validity: &ByValidity<'_>,
    twins: &HashSet<Fingerprint>,
) -> Vec<Row<'t>> {
    let mut seen = gather(p);
    gather_loads(p, by_validity, &mut seen);
    let handshake = |role| p.full_handshakes(role).next_back().map(|(s, _)| s.mark);
    let last = Last {
        dump: p.dumps.last().map(|d| d.mark),
        load: p.loads.last().map(|l| l.mark),
        inbound: handshake(TlsRole::Inbound),
        outbound: handshake(TlsRole::Outbound),
    };
    let own = |s: &&Stream| p.certificates().any(|name| s.asked_for(name.as_str()));
    let streams: HashSet<u64> = p.streams.iter().filter(own).map(|s| s.number).collect();
    let by_files = p.by_files();
    let mut rows = Vec::new();
    for g in all {
        let minted_for = minted_for(g, p, &streams);
        let seen = seen.remove(&g.cert.fingerprint).unwrap_or_default();
        let concerns =
            minted_for > MintedFor::Others || seen.sends > 0 || seen.inbound.is_some() || seen.outbound.is_some();
        if concerns {
            rows.push(row(ledger, g, minted_for, seen, &last, twins.contains(&g.cert.fingerprint), by_files));
        }
    }
    rows
}

fn gather(p: &ProxyLedger<'_>) -> HashMap<Fingerprint, Seen> {
    let mut all: HashMap<Fingerprint, Seen> = HashMap::default();
    let leaves = |push| p.certificates().filter_map(move |name| Push::whole_leaf(push, name));
    for (push, leaf) in p.pushes.iter().flat_map(|push| leaves(push).map(move |leaf| (push, leaf))) {
        let seen = all.entry(leaf.fingerprint).or_default();
        seen.sends = seen.sends.saturating_add(1);
        seen.sent.get_or_insert(push.mark);
        match &push.answer {
            Some(Answer::Acked(mark)) => {
                seen.acked.get_or_insert(*mark);
            }
            Some(Answer::Nacked(mark, text)) if seen.refused.is_none() => seen.refused = Some((*mark, text.clone())),
            _ => {}
        }
    }
    for d in &p.dumps {
        for leaf in p.certificates().filter_map(|name| d.active(name)?.chain.first()) {
            all.entry(leaf.fingerprint).or_default().dumped.get_or_insert(d.mark);
        }
    }
    // Handshake after handshake shows the same leaf; only the first of them counts.
    let mut before: HashMap<TlsRole, Fingerprint> = HashMap::default();
    for s in &p.served {
        let Some(leaf) = s.leaf() else { continue };
        if before.insert(s.role, leaf.fingerprint) == Some(leaf.fingerprint) {
            continue;
        }
        let seen = all.entry(leaf.fingerprint).or_default();
        match s.role {
            TlsRole::Inbound => seen.inbound.get_or_insert(s.mark),
            TlsRole::Outbound => seen.outbound.get_or_insert(s.mark),
        };
    }
    all
}

fn gather_loads(p: &ProxyLedger<'_>, by_validity: &ByValidity<'_>, seen: &mut HashMap<Fingerprint, Seen>) {
    for load in &p.loads {
        let expected = p.contexts.unwrap_or(0).max(load.contexts());
        let mut holding: HashMap<Fingerprint, u32> = HashMap::default();
        for leaf in load.own.iter() {
            let alike = by_validity.get(&(&leaf.serial, leaf.not_before, leaf.not_after));
            for cert in alike.into_iter().flatten().filter(|cert| is_same(leaf, cert)) {
                let n = holding.entry(cert.fingerprint).or_default();
                *n = n.saturating_add(leaf.contexts);
            }
        }
        for (fingerprint, n) in holding.into_iter().filter(|(_, n)| *n > 0) {
            let loaded = &mut seen.entry(fingerprint).or_default().loaded;
            loaded.first.get_or_insert(load.mark);
            if n >= expected {
                loaded.all.get_or_insert(load.mark);
            }
            if n >= loaded.count {
                (loaded.count, loaded.of) = (n, expected);
            }
        }
    }
}

fn row<'t>(
    ledger: &Ledger<'t>,
    g: &Generation<'t>,
    minted_for: MintedFor,
    seen: Seen,
    last: &Last,
    twin: bool,
    by_files: bool,
) -> Row<'t> {
    let issued = match g.issued.first() {
        Some(issue) => Entry::at(issue.mark),
        None if ledger.issuer_seen => Entry::NotReached,
        None => Entry::unseen("no journal of what was minted"),
    };
    let on_stream = |mark: Option<Mark>| match mark {
        Some(mark) => Entry::at(mark),
        None if ledger.streams_seen => Entry::NotReached,
        None => Entry::unseen("nobody saw the stream"),
    };
    let acked = match seen.refused {
        Some((at, text)) => Entry::Rejected { at, text },
        None if by_files => Entry::unseen("nobody acknowledges files"),
        None => on_stream(seen.acked),
    };
    let shown = |mark: Option<Mark>, looked: Option<Mark>, why: &str| match (mark, looked) {
        (Some(mark), _) => Entry::at(mark),
        // A look that was made before the generation existed proves nothing about it.
        (None, Some(look)) if look.seq > g.first.seq => Entry::NotReached,
        _ => Entry::unseen(why),
    };
    let loaded = match seen.loaded {
        _ if twin => {
            Entry::unseen("two certificates share serial, validity and identity; /certs can't tell them apart")
        }
        Loaded { first: Some(first), all, count, of } => Entry::Reached { first, all, count, of },
        _ => shown(None, last.load, "no /certs was read"),
    };
    Row {
        generation: g.cert.fingerprint,
        cert: g.cert,
        minted_for,
        issued,
        sent: on_stream(seen.sent),
        sends: seen.sends,
        acked,
        dumped: shown(seen.dumped, last.dump, "no config_dump was read"),
        loaded,
        inbound: shown(seen.inbound, last.inbound, "no full handshake shows this role"),
        outbound: shown(seen.outbound, last.outbound, "no full handshake shows this role"),
    }
}
