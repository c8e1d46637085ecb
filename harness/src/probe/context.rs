//! What all probes of a cell share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use camino::Utf8PathBuf;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::OutboundServer;
use super::admin::Counters;
use super::receipt::Baseline;
use super::tls;
use super::traffic::LongLived;
use crate::clock::{Clock, Deadline};
use crate::fleet::Proxy;
use crate::pki;
use crate::timeline::{Blind, CertFacts, Handshake, Layer, ProxyId, Recorder, Source, TlsRole};

/// The authorities by which handshakes are judged: the bundle issued last. Cheap to clone; all clones change together.
#[derive(Clone, Default)]
pub struct Roots(Arc<RwLock<Option<Arc<Trusted>>>>);

struct Trusted {
    /// With the end of each.
    authorities: Vec<(jiff::Timestamp, CertificateDer<'static>)>,
    /// All of them.
    store: Arc<RootCertStore>,
}

impl Roots {
    /// From now on these authorities judge. What is no certificate is left out: it could judge nothing.
    pub fn replace<'a>(&self, authorities: impl IntoIterator<Item = CertificateDer<'a>>) {
        let with_its_end = |der: CertificateDer<'a>| Some((pki::facts(&der).ok()?.not_after, der.into_owned()));
        let authorities: Vec<_> = authorities.into_iter().filter_map(with_its_end).collect();
        let store = store_of(&authorities);
        let trusted = Arc::new(Trusted { authorities, store });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(trusted);
    }

    /// Those that have not expired. Path validation here looks at the dates of what is shown only, and Envoy's at those of
    /// its trust anchors too.
    fn at(&self, now: jiff::Timestamp) -> Option<Arc<RootCertStore>> {
        let trusted = self.0.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        if trusted.authorities.iter().all(|(end, _)| *end > now) {
            return Some(trusted.store.clone());
        }
        let living: Vec<_> = trusted.authorities.iter().filter(|(end, _)| *end > now).cloned().collect();
        Some(store_of(&living))
    }
}

fn store_of(authorities: &[(jiff::Timestamp, CertificateDer<'static>)]) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(authorities.iter().map(|(_, der)| der.clone()));
    Arc::new(store)
}

/// What all probes of a cell share: where they record, whom they trust, how long they wait.
pub struct ProbeContext {
    pub(super) recorder: Recorder,
    pub(super) roots: Roots,
    /// None where proxies are only asked by their admin APIs.
    pub(super) outbound: Option<OutboundServer>,
    pub(super) socket: Option<Utf8PathBuf>,
    pub(super) patience: Duration,
    counters: Mutex<HashMap<ProxyId, Counters>>,
    /// Bytes of each proxy's log that were read.
    logs: Mutex<HashMap<ProxyId, u64>>,
    pub(super) baselines: Mutex<HashMap<ProxyId, Baseline>>,
    pub(super) long_lived: tokio::sync::Mutex<HashMap<ProxyId, Arc<LongLived>>>,
}

impl ProbeContext {
    /// The outbound server must record with the same recorder and judge by the same roots.
    pub fn new(recorder: Recorder, roots: Roots, outbound: OutboundServer) -> Self {
        Self { roots, outbound: Some(outbound), ..Self::of_admin(recorder) }
    }

    /// For questions to admin APIs alone: no handshake is made or awaited.
    pub fn of_admin(recorder: Recorder) -> Self {
        Self {
            recorder,
            roots: Roots::default(),
            outbound: None,
            socket: None,
            patience: Duration::from_secs(2),
            counters: Mutex::default(),
            logs: Mutex::default(),
            baselines: Mutex::default(),
            long_lived: tokio::sync::Mutex::default(),
        }
    }

    /// The provider's socket, whose peers are counted.
    #[must_use]
    pub fn with_socket(mut self, socket: Utf8PathBuf) -> Self {
        self.socket = Some(socket);
        self
    }

    /// How long one question may take. Default two seconds.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The authorities by which handshakes are judged.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The harness's own TLS server.
    pub fn outbound_server(&self) -> Option<&OutboundServer> {
        self.outbound.as_ref()
    }

    pub(super) fn clock(&self) -> &Clock {
        self.recorder.clock()
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    pub(super) fn counters<T>(&self, proxy: &ProxyId, work: impl FnOnce(&mut Counters) -> T) -> T {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        work(all.entry(proxy.clone()).or_default())
    }

    pub(super) fn read_so_far(&self, proxy: &Proxy) -> u64 {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(&proxy.id).copied().unwrap_or(0)
    }

    pub(super) fn has_read(&self, proxy: &Proxy, bytes: u64) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).insert(proxy.id.clone(), bytes);
    }

    pub(super) fn blind(&self, source: Source, proxy: &ProxyId, layer: Option<Layer>, what: &str, why: impl ToString) {
        let blind = Blind { layer, what: what.to_owned(), why: why.to_string() };
        self.recorder.record(source, Some(proxy), None, blind);
    }
}

/// A chain as it was shown, before it is judged.
pub(super) struct Shown {
    pub(super) tls: String,
    pub(super) resumed: bool,
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Why there is no chain.
    pub(super) error: Option<String>,
}

impl Shown {
    /// The fact: the chain's facts, and what the roots say of it now.
    pub(super) fn judged(self, roots: &Roots, now: jiff::Timestamp, role: TlsRole) -> Handshake {
        let Shown { tls, resumed, chain, mut error } = self;
        let mut facts: Vec<CertFacts> = Vec::with_capacity(chain.len());
        for der in &chain {
            match pki::facts(der) {
                Ok(cert) => facts.push(cert),
                // Without its leaf a chain identifies nothing; without an intermediate it still does.
                Err(e) if facts.is_empty() => {
                    let why = format!("the leaf that was shown is unreadable: {e}");
                    return Handshake { tls, resumed, chain: Vec::new(), verified: Some(false), error: Some(why) };
                }
                Err(_) => {}
            }
        }
        let mut verified = None;
        if !chain.is_empty()
            && let Some(store) = roots.at(now)
        {
            let judgement = tls::judge(&chain, &store, now, role);
            verified = Some(judgement.is_ok());
            error = error.or(judgement.err());
        }
        Handshake { tls, resumed, chain: facts, verified, error }
    }
}
