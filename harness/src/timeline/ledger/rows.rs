//! The rows of the ledger: one generation on its way to one proxy.

use std::time::Duration;

use super::super::{CertFacts, Fingerprint, Layer, TlsRole};
use super::proxy::ProxyLedger;
use super::{Answer, Generation, Ledger, Mark};

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

/// One generation on its way to one proxy.
#[derive(Debug, Clone)]
pub struct Row {
    /// The generation.
    pub generation: Fingerprint,
    /// Its facts.
    pub cert: CertFacts,
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

impl Row {
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

impl Ledger {
    /// Whether this generation is meant for this proxy: minted for its identity, and, where the provider mints per
    /// stream, for its own stream of its certificate.
    pub fn is_due(&self, generation: &Generation, proxy: &ProxyLedger) -> bool {
        generation.issued.iter().any(|issue| {
            let for_proxy = match &issue.proxy {
                Some(id) => *id == proxy.id,
                None => proxy.spiffe_id.as_ref().is_some_and(|id| generation.cert.uris.contains(id)),
            };
            let for_stream = issue.stream.is_none_or(|number| {
                proxy.streams.iter().any(|s| s.number == number && s.asked_for(proxy.svid.as_str()))
            });
            for_proxy && for_stream
        })
    }
}

pub(super) fn build(ledger: &mut Ledger) {
    let mut all: Vec<&Generation> = ledger.generations.values().collect();
    all.sort_by_key(|g| g.first.seq);
    let rows: Vec<Vec<Row>> = ledger
        .proxies
        .iter()
        .map(|p| all.iter().filter(|g| concerns(ledger, g, p)).map(|g| row(ledger, g, p)).collect())
        .collect();
    for (p, rows) in ledger.proxies.iter_mut().zip(rows) {
        p.rows = rows;
    }
}

fn concerns(ledger: &Ledger, g: &Generation, p: &ProxyLedger) -> bool {
    let fp = &g.cert.fingerprint;
    ledger.is_due(g, p)
        || p.served.iter().any(|s| s.leaf().is_some_and(|l| l.fingerprint == *fp))
        || p.pushes.iter().any(|push| push.leaf(&p.svid).is_some_and(|l| l.fingerprint == *fp))
}

fn row(ledger: &Ledger, g: &Generation, p: &ProxyLedger) -> Row {
    let cert = &g.cert;
    let fp = &cert.fingerprint;
    let issued = match g.issued.first() {
        Some(issue) => Entry::at(issue.mark),
        None if ledger.issuer_seen => Entry::NotReached,
        None => Entry::unseen("no journal of what was minted"),
    };

    let pushes: Vec<_> =
        p.pushes.iter().filter(|push| push.leaf(&p.svid).is_some_and(|l| l.fingerprint == *fp)).collect();
    let sent = match pushes.first() {
        Some(push) => Entry::at(push.mark),
        None if ledger.streams_seen => Entry::NotReached,
        None => Entry::unseen("nobody saw the stream"),
    };
    let acked = pushes
        .iter()
        .find_map(|push| push.refusal())
        .map(|(at, text)| Entry::Rejected { at: *at, text: text.to_owned() })
        .or_else(|| {
            pushes.iter().find_map(|push| match &push.answer {
                Some(Answer::Acked(mark)) => Some(Entry::at(*mark)),
                _ => None,
            })
        })
        .unwrap_or_else(
            || if ledger.streams_seen { Entry::NotReached } else { Entry::unseen("nobody saw the stream") },
        );

    let dumped = p
        .dumps
        .iter()
        .find(|d| d.active(&p.svid).is_some_and(|s| s.chain.first().is_some_and(|l| l.fingerprint == *fp)))
        .map_or_else(|| looked(p.dumps.last().map(|d| d.mark), g, "no config_dump was read"), |d| Entry::at(d.mark));

    Row {
        generation: fp.clone(),
        cert: cert.clone(),
        issued,
        sent,
        sends: u32::try_from(pushes.len()).unwrap_or(u32::MAX),
        acked,
        dumped,
        loaded: loaded(ledger, g, p),
        inbound: served(p, g, TlsRole::Inbound),
        outbound: served(p, g, TlsRole::Outbound),
    }
}

/// A look that was made before the generation existed proves nothing about it.
fn looked(last: Option<Mark>, g: &Generation, why: &str) -> Entry {
    match last {
        Some(mark) if mark.seq > g.first.seq => Entry::NotReached,
        _ => Entry::unseen(why),
    }
}

fn served(p: &ProxyLedger, g: &Generation, role: TlsRole) -> Entry {
    match p.full_handshakes(role).find(|(_, leaf)| leaf.fingerprint == g.cert.fingerprint) {
        Some((s, _)) => Entry::at(s.mark),
        None => {
            looked(p.full_handshakes(role).next_back().map(|(s, _)| s.mark), g, "no full handshake shows this role")
        }
    }
}

fn loaded(ledger: &Ledger, g: &Generation, p: &ProxyLedger) -> Entry {
    let twins = ledger.generations.values().filter(|other| {
        other.cert.fingerprint != g.cert.fingerprint
            && other.cert.serial == g.cert.serial
            && other.cert.not_before == g.cert.not_before
            && other.cert.not_after == g.cert.not_after
            && other.cert.uris == g.cert.uris
    });
    if twins.count() > 0 {
        return Entry::unseen("two certificates share serial, validity and identity; /certs can't tell them apart");
    }
    let (mut first, mut all, mut most, mut of) = (None, None, 0, 0);
    for load in &p.loads {
        let holding = load.holding(&g.cert);
        if holding == 0 {
            continue;
        }
        let expected = p.contexts.unwrap_or(0).max(load.contexts());
        first.get_or_insert(load.mark);
        if holding >= expected {
            all.get_or_insert(load.mark);
        }
        if holding >= most {
            (most, of) = (holding, expected);
        }
    }
    match first {
        Some(first) => Entry::Reached { first, all, count: most, of },
        None => looked(p.loads.last().map(|l| l.mark), g, "no /certs was read"),
    }
}
