//! The ledger: for every proxy, secret and generation, how far it came. One indexed fold over the observations.

mod alone;
mod chain;
mod fold;
mod owner;
mod proxy;
mod rows;
mod succession;

use std::collections::BTreeMap;

pub use proxy::is_same;
pub use proxy::{
    Answer, Bundle, Dump, Exit, Join, LateListener, Load, ProxyLedger, Push, SECRET_TYPE_URL, Served, SocketSeen,
    StatSample, Stream, StreamEnd, Subscription, Traffic,
};
pub use rows::{Entry, MintedFor, Row};
pub use succession::Succession;

use super::{At, Authority, CertFacts, Fingerprint, Header, Layer, ProxyId, SecretName, Signed, Timeline};

/// An observation's place in the timeline, and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its `seq`.
    pub seq: u64,
    /// Its time.
    pub at: At,
}

/// A leaf that some source showed whole.
#[derive(Debug, Clone)]
pub struct Generation<'t> {
    /// Its facts.
    pub cert: &'t CertFacts,
    /// The first observation that shows it; generations are ordered by it.
    pub first: Mark,
    /// Each time the provider's own journal says that it was minted (once, unless the journal is odd).
    pub issued: Vec<Issue<'t>>,
}

/// An entry of the provider's own journal.
#[derive(Debug, Clone)]
pub struct Issue<'t> {
    /// When.
    pub mark: Mark,
    /// The proxy it was minted for, where the journal says so.
    pub proxy: Option<&'t ProxyId>,
    /// The secret it was minted for, where the journal says so.
    pub secret: Option<&'t SecretName>,
    /// The stream it was minted for, where the provider mints per stream.
    pub stream: Option<u64>,
}

/// A subscription of the harness's own: what does a fresh subscriber get?
#[derive(Debug, Clone)]
pub struct Asked<'t> {
    /// When it asked.
    pub mark: Mark,
    /// The first response.
    pub answered: Option<Mark>,
    /// The certificate in it.
    pub leaf: Option<&'t CertFacts>,
    /// Every certificate that came, with its version: who stays is sent more than one.
    pub came: Vec<(Mark, &'t str, &'t CertFacts)>,
    /// When and how it was ended, if that was not by the harness.
    pub ended: Option<(Mark, &'t str)>,
    /// Through whose own socket, where that is known.
    pub proxy: Option<&'t ProxyId>,
}

/// The whole table. It borrows what the observations hold: a copy of each would be most of the work.
#[derive(Debug, Clone)]
pub struct Ledger<'t> {
    /// What the recording is about.
    pub header: &'t Header,
    /// Why the recording is not complete, if it is not.
    pub incomplete: Option<String>,
    /// Every leaf seen whole, by identity.
    pub generations: BTreeMap<Fingerprint, Generation<'t>>,
    /// The proxies, those of the header first.
    pub proxies: Vec<ProxyLedger<'t>>,
    /// Changes of the signing authorities, as the provider's journal has them.
    pub authorities: Vec<(Mark, &'t Authority)>,
    anchors: chain::Anchors<'t>,
    /// Whether there is a journal of what was minted.
    pub issuer_seen: bool,
    /// What the provider's own log says that it signed, seen or not.
    pub signed: Vec<(Mark, &'t Signed)>,
    /// Whether anything was seen of what is delivered: on SDS streams, by the provider or a tap; or in files.
    pub streams_seen: bool,
    /// Streams of which nothing tells whose they are.
    pub unattributed_streams: usize,
    /// Subscriptions of the harness's own.
    pub witness: Vec<Asked<'t>>,
    /// Those that could not be made, and why.
    pub unreachable: Vec<(Mark, String)>,
    /// Steps of the schedule, with the renewal that was due.
    pub steps: Vec<(Mark, Option<u32>)>,
    /// From here on the cell was collected and taken down: what ends then was ended.
    pub collecting: Option<Mark>,
    /// Moves of cell time.
    pub jumps: Vec<Mark>,
    /// Times at which the harness itself did not run, with the gap in milliseconds.
    pub stalls: Vec<(Mark, u64)>,
    /// What did not come in time.
    pub missed: Vec<(Mark, Option<ProxyId>, String)>,
    /// Last observation.
    pub end: Option<Mark>,
}

impl<'t> Ledger<'t> {
    /// Folds a timeline.
    pub fn of(timeline: &'t Timeline) -> Self {
        fold::fold(timeline)
    }

    /// A proxy by name.
    pub fn proxy(&self, id: &ProxyId) -> Option<&ProxyLedger<'t>> {
        self.proxies.iter().find(|p| p.id == *id)
    }

    /// How many observations it is made of.
    pub(crate) fn observations(&self) -> u64 {
        self.end.map_or(0, |end| end.seq)
    }

    /// Cell time of the last observation.
    pub fn end_wall(&self) -> jiff::Timestamp {
        self.end.map_or(self.header.started, |m| m.at.wall)
    }

    /// Lags from `sent` to this layer, in milliseconds of real time, over all proxies and generations.
    pub fn lags(&self, layer: Layer) -> Vec<f64> {
        let rows = self.proxies.iter().flat_map(|p| &p.rows);
        rows.filter_map(|row| row.lag(layer)).map(|d| d.as_secs_f64() * 1e3).collect()
    }
}
