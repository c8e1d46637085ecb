//! What was seen of one proxy, indexed by kind.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use super::super::{
    CertFacts, DumpedSecret, Fingerprint, LoadedCert, Payload, ProxyId, SecretName, SecretSource, SentSecret,
    SourceKind, StaticContext, TlsRole,
};
use super::{Mark, Row, Succession};

/// Resource type of a secret (xDS v3).
pub const SECRET_TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A request that names resources.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// When.
    pub mark: Mark,
    /// Names asked for.
    pub names: Arc<[String]>,
    /// Version that the proxy already held.
    pub version_info: String,
}

/// How a stream ended.
#[derive(Debug, Clone)]
pub struct StreamEnd {
    /// When.
    pub mark: Mark,
    /// `provider`, `proxy` or `connection`.
    pub by: String,
    /// Status or reason.
    pub status: String,
}

/// One stream between a proxy and a provider.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its number.
    pub number: u64,
    /// `sds_stream`, or empty where its opening was not seen; others subscribe to nothing lasting.
    pub rpc: String,
    /// When it was opened (or first seen).
    pub opened: Mark,
    /// What it asked for, in order.
    pub subscriptions: Vec<Subscription>,
    /// How it ended, if it did.
    pub end: Option<StreamEnd>,
}

impl Stream {
    /// The names that it is subscribed to.
    pub fn names(&self) -> &[String] {
        self.subscriptions.last().map_or(&[], |s| &s.names)
    }

    /// Whether it ever subscribed to this name: a single fetch is no subscription.
    pub fn asked_for(&self, name: &str) -> bool {
        matches!(self.rpc.as_str(), "" | "sds_stream")
            && self.subscriptions.iter().any(|s| s.names.iter().any(|n| n == name))
    }
}

/// What the proxy said to a response.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Accepted.
    Acked(Mark),
    /// Refused, with its text.
    Nacked(Mark, String),
}

/// Authorities that were delivered under a name.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'t> {
    /// The name.
    pub name: &'t str,
    /// The authorities.
    pub roots: &'t [CertFacts],
    /// What tells it from others.
    pub digest: &'t Fingerprint,
}

/// One response on a stream.
#[derive(Debug, Clone)]
pub struct Push<'t> {
    /// When it was sent.
    pub mark: Mark,
    /// On which stream.
    pub stream: u64,
    /// Its resource type.
    pub type_url: &'t str,
    /// Its version.
    pub version_info: &'t str,
    /// Its nonce.
    pub nonce: &'t str,
    /// What the stream was subscribed to.
    pub subscribed: Arc<[String]>,
    /// What it held.
    pub secrets: &'t [SentSecret],
    /// What the proxy said.
    pub answer: Option<Answer>,
    /// How it was put into place (`moved` or `in_place`), where it came by files: then no stream carried it, and nobody
    /// answers.
    pub by_file: Option<&'t str>,
}

impl<'t> Push<'t> {
    /// Whether it went to a stream that is subscribed to this name. A response may bring only some of what its stream is
    /// subscribed to: then it says nothing of the rest.
    pub fn concerns(&self, name: &SecretName) -> bool {
        let of_others = || {
            self.type_url == SECRET_TYPE_URL
                && !self.secrets.is_empty()
                && self.secrets.iter().all(|s| s.name != name.as_str() && self.asked_for(&s.name))
        };
        self.asked_for(name.as_str()) && !(self.subscribed.len() > 1 && of_others())
    }

    /// Whether its stream is subscribed to this name.
    pub fn asked_for(&self, name: &str) -> bool {
        self.subscribed.iter().any(|n| n == name)
    }

    /// What it delivered under this name: the stream is subscribed to it, and the response has the right type.
    pub fn delivered(&self, name: &SecretName) -> Option<&'t Payload> {
        (self.type_url == SECRET_TYPE_URL && self.concerns(name))
            .then(|| self.secrets.iter().find(|s| s.name == name.as_str()).map(|s| &s.payload))
            .flatten()
    }

    /// The leaf that it delivered under this name.
    pub fn leaf(&self, name: &SecretName) -> Option<&'t CertFacts> {
        match self.delivered(name)? {
            Payload::Certificate { chain, .. } => chain.first(),
            _ => None,
        }
    }

    /// As `leaf`; of files, only where the key beside the chain is the leaf's: what no reader can use was not delivered.
    pub fn whole_leaf(&self, name: &SecretName) -> Option<&'t CertFacts> {
        let usable = |payload: &Payload| !matches!(payload, Payload::Certificate { key_matches: Some(false), .. } if self.by_file.is_some());
        self.delivered(name).filter(|payload| usable(payload)).and_then(|_| self.leaf(name))
    }

    /// The bundles that it delivered, each under its name: whatever that is, its stream is subscribed to it.
    pub fn bundles(&self) -> impl Iterator<Item = Bundle<'t>> {
        let sound = self.type_url == SECRET_TYPE_URL;
        self.secrets.iter().filter(move |s| sound && self.asked_for(&s.name)).filter_map(|s| match &s.payload {
            Payload::Bundle { roots, digest, .. } => Some(Bundle { name: &s.name, roots, digest }),
            _ => None,
        })
    }

    /// Whether it was refused.
    pub fn refusal(&self) -> Option<(&Mark, &str)> {
        match &self.answer {
            Some(Answer::Nacked(mark, text)) => Some((mark, text)),
            _ => None,
        }
    }

    /// Whether it was accepted.
    pub fn accepted(&self) -> bool {
        matches!(self.answer, Some(Answer::Acked(_)))
    }
}

/// A listener that was sent to the proxy by LDS.
#[derive(Debug, Clone)]
pub struct LateListener {
    /// When it was sent.
    pub mark: Mark,
    /// Its name.
    pub name: String,
    /// What the proxy said, and why it refused it if it did.
    pub answer: Option<(Mark, Option<String>)>,
    /// Whether it listened at the last look.
    pub listens: Option<(Mark, bool)>,
}

/// The provider's socket, as the proxy's mounts show it.
#[derive(Debug, Clone)]
pub struct SocketSeen {
    /// When.
    pub mark: Mark,
    /// Device and inode for the proxy.
    pub inside: Option<String>,
    /// Device and inode for the provider.
    pub outside: Option<String>,
}

/// One TLS handshake with the proxy.
#[derive(Debug, Clone)]
pub struct Served<'t> {
    /// When it was over.
    pub mark: Mark,
    /// Which side the proxy took.
    pub role: TlsRole,
    /// TLS version.
    pub tls: &'t str,
    /// A resumed one shows nothing.
    pub resumed: bool,
    /// What it showed, leaf first.
    pub chain: &'t [CertFacts],
    /// Whether a peer with the newest bundle accepts it.
    pub verified: Option<bool>,
    /// Why not, or why there is no chain.
    pub error: Option<&'t str>,
}

impl<'t> Served<'t> {
    /// The leaf of a full handshake.
    pub fn leaf(&self) -> Option<&'t CertFacts> {
        if self.resumed { None } else { self.chain.first() }
    }
}

/// One look at `/certs`.
#[derive(Debug, Clone)]
pub struct Load<'t> {
    /// When.
    pub mark: Mark,
    /// Leaves that carry the proxy's identity (all, where it is unknown).
    pub own: Cow<'t, [LoadedCert]>,
    /// Leaves of others: gateways' and file certificates.
    pub others: Vec<LoadedCert>,
}

impl Load<'_> {
    /// Contexts that hold a leaf of the proxy's identity.
    pub fn contexts(&self) -> u32 {
        self.own.iter().fold(0, |n, l| n.saturating_add(l.contexts))
    }

    /// Contexts that hold this leaf: serial, validity and identity must agree.
    pub fn holding(&self, cert: &CertFacts) -> u32 {
        self.own.iter().filter(|l| is_same(l, cert)).fold(0, |n, l| n.saturating_add(l.contexts))
    }
}

/// Whether an entry of `/certs` can be this certificate.
pub fn is_same(loaded: &LoadedCert, cert: &CertFacts) -> bool {
    loaded.serial == cert.serial
        && loaded.not_before == cert.not_before
        && loaded.not_after == cert.not_after
        && (loaded.uris.is_empty() || loaded.uris == cert.uris)
}

/// One look at `/config_dump`.
#[derive(Debug, Clone)]
pub struct Dump<'t> {
    /// When.
    pub mark: Mark,
    /// The secrets in it.
    pub secrets: &'t [DumpedSecret],
    /// TLS contexts whose certificate comes by no subscription.
    pub static_contexts: &'t [StaticContext],
    /// Where the others get theirs.
    pub subscriptions: &'t [SecretSource],
}

impl<'t> Dump<'t> {
    /// The active secret of this name; the first, where the dump lists it twice.
    pub fn active(&self, name: &SecretName) -> Option<&'t DumpedSecret> {
        self.secrets.iter().find(|s| s.name == *name && s.state == "active")
    }
}

/// One look at `/stats`.
#[derive(Debug, Clone)]
pub struct StatSample<'t> {
    /// When.
    pub mark: Mark,
    /// Name to value.
    pub values: &'t BTreeMap<String, u64>,
}

impl StatSample<'_> {
    /// Sum of the values whose names match; absent where there is none.
    pub fn sum(&self, matches: impl Fn(&str) -> bool) -> Option<u64> {
        let hits = self.values.iter().filter(|(name, _)| matches(name)).map(|(_, v)| *v);
        hits.reduce(u64::saturating_add)
    }
}

/// One request through the proxy to its peer.
#[derive(Debug, Clone)]
pub struct Traffic<'t> {
    /// When it was over.
    pub mark: Mark,
    /// The peer.
    pub to: &'t str,
    /// On a fresh connection.
    pub fresh: bool,
    /// HTTP status.
    pub status: Option<u16>,
    /// Whether its TLS session was resumed.
    pub resumed: Option<bool>,
    /// What went wrong.
    pub error: Option<&'t str>,
}

impl Traffic<'_> {
    /// Whether the peer accepted it.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|s| (200..300).contains(&s))
    }
}

/// The end of the proxy's process.
#[derive(Debug, Clone)]
pub struct Exit {
    /// When.
    pub mark: Mark,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Whether the harness asked for it.
    pub expected: bool,
    /// Its last log lines.
    pub log_tail: Vec<String>,
}

/// When a proxy came that was not there at the beginning.
#[derive(Debug, Clone)]
pub struct Join<'t> {
    /// When.
    pub mark: Mark,
    /// Whose place it took.
    pub after: Option<&'t ProxyId>,
    /// The roles in which it can be seen.
    pub roles: &'t [TlsRole],
}

/// All that was seen of one proxy.
#[derive(Debug, Clone)]
pub struct ProxyLedger<'t> {
    /// Its name.
    pub id: ProxyId,
    /// Its identity, from the header, else from the first leaf that it served or was sent.
    pub spiffe_id: Option<String>,
    /// TLS contexts expected to hold its certificate.
    pub contexts: Option<u32>,
    /// That it came later than the others, where it did.
    pub joined: Option<Join<'t>>,
    /// The secret that carries its certificate.
    pub svid: SecretName,
    /// Further secrets that carry certificates of its identity: one for each role, for example.
    pub further: Vec<SecretName>,
    /// Its streams, in the order of their opening.
    pub streams: Vec<Stream>,
    /// Responses to it.
    pub pushes: Vec<Push<'t>>,
    /// Answers to responses that nobody recorded.
    pub answers_to_nothing: Vec<Mark>,
    /// Handshakes.
    pub served: Vec<Served<'t>>,
    /// Looks at `/certs`.
    pub loads: Vec<Load<'t>>,
    /// Looks at `/config_dump`.
    pub dumps: Vec<Dump<'t>>,
    /// Looks at `/stats`.
    pub stats: Vec<StatSample<'t>>,
    /// Requests through it.
    pub traffic: Vec<Traffic<'t>>,
    /// Clock receipts, and whether it followed.
    pub receipts: Vec<(Mark, bool)>,
    /// Ends of its process.
    pub exits: Vec<Exit>,
    /// Starts of its process.
    pub starts: Vec<Mark>,
    /// Log lines that were worth keeping.
    pub logs: Vec<(Mark, String)>,
    /// What could not be asked, and why.
    pub blind: Vec<(Mark, String)>,
    /// What a tap saw on its streams that is no message.
    pub remarks: Vec<(Mark, String)>,
    /// Connections to the provider's socket, by the inodes of their near ends, each time somebody looked from its pod; and
    /// whether they are known to be its own.
    pub held: Vec<(Mark, bool, &'t [u64])>,
    /// For how many seconds its process had run, by its own account.
    pub uptimes: Vec<(Mark, i64)>,
    /// Whether it watches the directory into which its files are moved, at each census.
    pub watches: Vec<(Mark, bool)>,
    /// The provider's socket as it sees it, at each census.
    pub sockets: Vec<SocketSeen>,
    /// What it said when it could not take files that it watches.
    pub reload_failures: Vec<(Mark, String)>,
    /// Listeners that were added to it.
    pub late_listeners: Vec<LateListener>,
    /// Its rows of the ledger, in the order of the generations.
    pub rows: Vec<Row<'t>>,
    /// Its lines of succession: one, unless it has several streams for its certificate at once.
    pub successions: Vec<Succession>,
    /// Row of a generation.
    pub(super) index: HashMap<Fingerprint, usize>,
}

impl<'t> ProxyLedger<'t> {
    pub(super) fn new(id: ProxyId) -> Self {
        Self {
            id,
            spiffe_id: None,
            contexts: None,
            joined: None,
            svid: SecretName::default_svid(),
            further: Vec::new(),
            streams: Vec::new(),
            pushes: Vec::new(),
            answers_to_nothing: Vec::new(),
            served: Vec::new(),
            loads: Vec::new(),
            dumps: Vec::new(),
            stats: Vec::new(),
            traffic: Vec::new(),
            receipts: Vec::new(),
            exits: Vec::new(),
            starts: Vec::new(),
            logs: Vec::new(),
            blind: Vec::new(),
            remarks: Vec::new(),
            held: Vec::new(),
            uptimes: Vec::new(),
            watches: Vec::new(),
            sockets: Vec::new(),
            reload_failures: Vec::new(),
            late_listeners: Vec::new(),
            rows: Vec::new(),
            successions: Vec::new(),
            index: HashMap::default(),
        }
    }

    /// Its end, where it was not started again.
    pub fn gone(&self) -> Option<&Exit> {
        self.exits.last().filter(|exit| self.starts.last().is_none_or(|start| start.seq < exit.mark.seq))
    }

    /// Whether it can be seen in this role.
    pub fn seen_in(&self, role: TlsRole) -> bool {
        self.joined.as_ref().is_none_or(|join| join.roles.contains(&role))
    }

    /// The role in which it is known best: as a server, where it can be seen as one.
    pub fn looked_at(&self) -> TlsRole {
        if self.seen_in(TlsRole::Inbound) { TlsRole::Inbound } else { TlsRole::Outbound }
    }

    /// The secrets that carry certificates of its identity.
    pub fn certificates(&self) -> impl Iterator<Item = &SecretName> {
        std::iter::once(&self.svid).chain(&self.further)
    }

    /// Under which of these it was delivered; none where it was not.
    pub fn carried_by(&self, leaf: &Fingerprint) -> Option<&SecretName> {
        let by = |name: &&SecretName| {
            self.pushes.iter().any(|push| push.leaf(name).is_some_and(|sent| sent.fingerprint == *leaf))
        };
        self.certificates().find(by)
    }

    /// Its streams for its own certificate, in the order of their opening.
    pub fn certificate_streams(&self) -> impl DoubleEndedIterator<Item = &Stream> {
        self.streams.iter().filter(|s| s.asked_for(self.svid.as_str()))
    }

    /// Name of a statistic of its certificate's subscription, as Envoy keeps it: without the colons of the secret's name.
    pub fn sds_stat(&self, stat: &str) -> String {
        let name = self.svid.as_str().replace("://", "_").replace(":/", "_").replace(':', "_");
        format!("sds.{name}.{stat}")
    }

    /// Full handshakes of one role.
    pub fn full_handshakes(&self, role: TlsRole) -> impl DoubleEndedIterator<Item = (&Served<'t>, &'t CertFacts)> {
        self.served.iter().filter(move |s| s.role == role).filter_map(|s| s.leaf().map(|l| (s, l)))
    }

    /// Responses on streams that are subscribed to this name.
    pub fn pushes_of(&self, name: &SecretName) -> impl DoubleEndedIterator<Item = &Push<'t>> {
        self.pushes.iter().filter(move |p| p.concerns(name))
    }

    /// Bundles that it was sent, in their order. What came under the name of its certificate is none of them.
    pub fn bundles(&self) -> impl Iterator<Item = (&Push<'t>, Bundle<'t>)> {
        let all = self.pushes.iter().flat_map(|push| push.bundles().map(move |bundle| (push, bundle)));
        all.filter(|(_, bundle)| bundle.name != self.svid.as_str())
    }

    /// In which way its configuration says that its certificate comes; none where that was not seen, or differs.
    pub fn source(&self) -> Option<SourceKind> {
        let dump = self.dumps.iter().rev().find(|d| !d.subscriptions.is_empty())?;
        let mut own = dump.subscriptions.iter().filter(|s| s.name == self.svid.as_str()).map(|s| s.by);
        let first = own.next()?;
        own.all(|by| by == first).then_some(first)
    }

    /// Whether its certificate comes by files.
    pub fn by_files(&self) -> bool {
        self.source() == Some(SourceKind::File)
            || !self.watches.is_empty()
            || self.pushes.iter().any(|push| push.by_file.is_some())
    }

    /// First and last value of a counter, where it was shown.
    pub fn counter(&self, matches: impl Fn(&str) -> bool) -> Option<(u64, u64)> {
        Some((self.stats.iter().find_map(|s| s.sum(&matches))?, self.stats.iter().rev().find_map(|s| s.sum(&matches))?))
    }

    /// By how much a counter rose up to this observation, over all processes that the proxy had: with each it begins
    /// at zero again. Absent where it was never shown: hidden is not zero.
    pub fn risen(&self, until: u64, matches: impl Fn(&str) -> bool) -> Option<u64> {
        let mut shown = self.stats.iter().filter(|s| s.mark.seq <= until).filter_map(|s| s.sum(&matches));
        let mut before = shown.next()?;
        let mut risen = 0_u64;
        for value in shown {
            risen = risen.saturating_add(value.checked_sub(before).unwrap_or(value));
            before = value;
        }
        Some(risen)
    }

    /// When the process that was there at this observation had started, by its own account.
    pub fn started(&self, at: u64) -> Option<jiff::Timestamp> {
        let (mark, uptime_s) = self.uptimes.iter().rfind(|(mark, _)| mark.seq <= at).or(self.uptimes.first())?;
        mark.at.wall.checked_sub(jiff::SignedDuration::from_secs(*uptime_s)).ok()
    }

    /// Row of a generation.
    pub fn row(&self, generation: &Fingerprint) -> Option<&Row<'t>> {
        self.rows.get(*self.index.get(generation)?)
    }
}
