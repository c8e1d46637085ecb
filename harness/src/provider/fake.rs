//! The fake: issuer and outlet in this process, driven by whoever holds it.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::{oneshot, watch};

use super::ProviderError;
use super::faults::Faults;
use super::files::Files;
use super::issuer::Issuer;
use super::renewal::{Closed, Pushed, Renewal};
use super::serving::Served;
use crate::clock::Deadline;
use crate::pki::PkiError;
use crate::scenario::{Fault, ProviderSpec};
use crate::timeline::{Fact, FaultNote, ProxyId, Recorder, SecretName, Source, SpiffeId};
use crate::xds::{Delivery, Event, Journal, Sink, Subscribers};

/// What a fake is to be.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// Where it serves. Files lie in a directory beside it.
    pub socket: Utf8PathBuf,
    /// For whom.
    pub trust_domain: String,
    /// Profile, lifetimes, faults.
    pub spec: ProviderSpec,
    /// The proxies and their identities. Whoever else asks is `spiffe://<trust domain>/workload`.
    pub identities: Vec<(ProxyId, SpiffeId)>,
    /// Whether certificates come with an OCSP response that says that they are good.
    pub staples: bool,
    /// Whether an Istio proxy that is none of these has the identity of the service account that it says to be of.
    pub by_account: bool,
}

/// A running fake.
pub struct Fake {
    served: tokio::sync::Mutex<Served>,
    delivery: Delivery,
    pid: Option<u32>,
    faults: Faults,
    journal: Arc<Journal>,
    proxies: Vec<ProxyId>,
    trusted: watch::Receiver<Vec<Vec<u8>>>,
    /// The issuer mints on a thread of its own: an RSA key takes longer than a runtime may be held up.
    issuer: IssuerThread,
}

/// Ends the thread when it is dropped: the outlet, which the thread holds, holds a sender too.
struct IssuerThread(mpsc::Sender<Ask>);

impl Drop for IssuerThread {
    fn drop(&mut self) {
        let _ = self.0.send(Ask::Stop);
    }
}

enum Ask {
    Hear(Event, Option<ProxyId>),
    Renew(u32, oneshot::Sender<Result<Renewal, PkiError>>),
    ChangeBundle(oneshot::Sender<Result<Renewal, PkiError>>),
    Open(oneshot::Sender<Vec<Closed>>),
    Admit(ProxyId, SpiffeId),
    Stop,
}

impl Fake {
    /// Issues generation 0 at the recorder's present cell time and serves it.
    pub async fn start(config: FakeConfig, recorder: Recorder) -> Result<Self, ProviderError> {
        let (journal, issuer, asks, sink) = Self::desk(&config, recorder)?;
        let served = Served::start(None, &config.socket, sink).await?;
        Self::start_issuing(served, config, journal, issuer, asks).await
    }

    /// As `start`, but there is no socket: certificate, key and trust bundle are put into `directory`, where the proxies
    /// watch for them.
    pub async fn start_with_files(
        directory: &Utf8Path,
        config: FakeConfig,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        let (journal, issuer, asks, _) = Self::desk(&config, recorder.clone())?;
        let proxies: Vec<ProxyId> = config.identities.iter().map(|(proxy, _)| proxy.clone()).collect();
        let faults = Faults::new(config.spec.faults.clone());
        let unwatched = |proxy: &ProxyId| faults.of_files(1, proxy) == Some(Fault::NotWatched);
        let files = Files::lay_out(directory, &proxies, unwatched, recorder)?;
        let subscriptions: Vec<_> = files.subscriptions().collect();
        let fake = Self::start_issuing(Served::files(files), config, journal, issuer, asks).await?;
        for (event, proxy) in subscriptions {
            fake.issuer.0.send(Ask::Hear(event, Some(proxy))).map_err(|_| ProviderError::Stopped)?;
        }
        // Answered when all that came before is done.
        fake.ask(Ask::Open).await?;
        let failed = fake.served.lock().await.as_files().and_then(Files::failure);
        failed.map_or(Ok(fake), Err)
    }

    /// As `start`, but the socket is served by a process of its own, which runs `program` (rotacheck itself) and can
    /// be frozen and killed; minting goes on here.
    pub async fn start_apart(
        program: &Utf8Path,
        config: FakeConfig,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        let (journal, issuer, asks, sink) = Self::desk(&config, recorder)?;
        let served = Served::start(Some(program), &config.socket, sink).await?;
        Self::start_issuing(served, config, journal, issuer, asks).await
    }

    /// Where what happens on streams is noted, and handed on to the issuer.
    #[expect(clippy::type_complexity, reason = "the two ends of one channel, and who writes into it")]
    fn desk(
        config: &FakeConfig,
        recorder: Recorder,
    ) -> Result<(Arc<Journal>, mpsc::Sender<Ask>, mpsc::Receiver<Ask>, Sink), ProviderError> {
        let FakeConfig { trust_domain, identities, .. } = config;
        if SpiffeId::parse(&format!("spiffe://{trust_domain}/workload")).is_err() {
            return Err(ProviderError::TrustDomain(trust_domain.clone()));
        }
        let nodes = identities.iter().map(|(proxy, _)| (proxy.to_string(), proxy.clone())).collect();
        let subscribers = Subscribers { nodes, pids: HashMap::new() };
        let journal = Arc::new(Journal::new(recorder, Source::Provider, subscribers));

        let (issuer, asks) = mpsc::channel();
        let heard = (journal.clone(), issuer.clone());
        let sink: Sink = Arc::new(move |event| {
            let proxy = heard.0.note(&event);
            // Fails only once the issuer has stopped; then nobody waits for its answer.
            let _ = heard.1.send(Ask::Hear(event, proxy));
        });
        Ok((journal, issuer, asks, sink))
    }

    async fn start_issuing(
        served: Served,
        config: FakeConfig,
        journal: Arc<Journal>,
        issuer: mpsc::Sender<Ask>,
        asks: mpsc::Receiver<Ask>,
    ) -> Result<Self, ProviderError> {
        let FakeConfig { trust_domain, spec, identities, staples, by_account, .. } = config;
        let delivery = served.delivery();
        let (deliver, pid) = (served.deliver(), served.pid());
        let faults = Faults::new(spec.faults.clone());
        let proxies = identities.iter().map(|(proxy, _)| proxy.clone()).collect();
        let (started, starting) = oneshot::channel();
        let its_journal = journal.clone();
        std::thread::Builder::new()
            .name("issuer".into())
            .spawn(move || {
                let identities = identities.into_iter().collect();
                match Issuer::start(spec, staples, trust_domain, identities, by_account, its_journal, deliver) {
                    Ok((issuer, trusted)) => {
                        if started.send(Ok(trusted)).is_ok() {
                            work(issuer, &asks);
                        }
                    }
                    Err(e) => drop(started.send(Err(e))),
                }
            })
            .map_err(ProviderError::Thread)?;
        let trusted = starting.await.map_err(|_| ProviderError::Stopped)??;
        let issuer = IssuerThread(issuer);
        Ok(Self { served: tokio::sync::Mutex::new(served), delivery, pid, faults, journal, proxies, trusted, issuer })
    }

    /// Where proxies subscribe.
    pub fn delivery(&self) -> Delivery {
        self.delivery.clone()
    }

    /// The process that serves the socket, where that is another one.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The authorities that are trusted now, DER, the oldest first.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        self.trusted.borrow().clone()
    }

    /// From now on, connections of this process are this proxy's, also where they carry no `node.id`.
    pub fn attest(&self, pid: i32, proxy: ProxyId) {
        self.journal.attest(pid, proxy);
    }

    /// From now on, who says to be this proxy's node is this proxy, and is given this identity.
    pub fn admit(&self, proxy: ProxyId, spiffe_id: SpiffeId) {
        self.journal.admit(proxy.clone());
        // Fails only once the issuer has stopped; then nobody is served any more.
        let _ = self.issuer.0.send(Ask::Admit(proxy, spiffe_id));
    }

    /// Carries out renewal `number` (from 1; 0 was the start) at the present cell time: authorities first, then bundles,
    /// then leaves. It returns when all is on its way; `answered` awaits the answers.
    ///
    /// What befalls the socket in this renewal comes before it.
    pub async fn renew(&self, number: u32) -> Result<Renewal, ProviderError> {
        let mut served = self.served.lock().await;
        let fault = self.faults.of_socket(number);
        let open = self.ask(Ask::Open).await?;
        let from = self.journal.recorder().len();
        if served.befall(fault).await?
            && let Some(fault) = fault
        {
            let (name, deed) = super::faults::words(fault);
            let fact = FaultNote { fault: name.to_owned(), action: format!("renewal {number}: {deed}") };
            self.journal.recorder().record(Source::Provider, None, None, fact);
            if matches!(fault, Fault::SocketReplaced | Fault::SocketGone) {
                self.lost(from, &open).await;
            }
        }
        served.befall_files(|| {
            let of = |proxy: &ProxyId| Some((proxy.clone(), self.faults.of_files(number, proxy)?));
            let faults: HashMap<ProxyId, Fault> = self.proxies.iter().filter_map(of).collect();
            for (proxy, fault) in &faults {
                let (name, deed) = super::faults::words(*fault);
                let fact = FaultNote { fault: name.to_owned(), action: format!("renewal {number}: {deed}") };
                self.journal.recorder().record(Source::Provider, Some(proxy), Some(&SecretName::default_svid()), fact);
            }
            faults
        });
        let mut renewal = self.ask(|answer| Ask::Renew(number, answer)).await??;
        if let Some(failed) = served.as_files().and_then(Files::failure) {
            return Err(failed);
        }
        if fault == Some(Fault::SocketReplaced) {
            renewal.from = from;
            renewal.closed.extend(open.into_iter().filter(|closed| self.ended(from, closed.stream)));
        }
        let silent = !renewal.minted.is_empty() && renewal.pushes.is_empty() && renewal.closed.is_empty();
        served.ask(self.journal.recorder(), silent);
        Ok(renewal)
    }

    /// The trust bundle changes, and is pushed to whoever subscribed to it.
    pub async fn change_bundle(&self) -> Result<Renewal, ProviderError> {
        Ok(self.ask(Ask::ChangeBundle).await??)
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, ProviderError> {
        let (answer, answered) = oneshot::channel();
        self.issuer.0.send(ask(answer)).map_err(|_| ProviderError::Stopped)?;
        answered.await.map_err(|_| ProviderError::Stopped)
    }

    /// Awaits that the ends of these streams are known.
    async fn lost(&self, from: usize, open: &[Closed]) {
        let mut waiting: Vec<u64> = open.iter().map(|closed| closed.stream).collect();
        let deadline = Deadline::after(std::time::Duration::from_secs(5));
        if !waiting.is_empty() {
            self.journal
                .recorder()
                .await_until(from, deadline, |o| {
                    if let Fact::StreamClosed(closed) = &o.fact {
                        waiting.retain(|stream| *stream != closed.stream);
                    }
                    waiting.is_empty()
                })
                .await;
        }
    }

    fn ended(&self, from: usize, stream: u64) -> bool {
        let closed = self.journal.recorder().since(from);
        closed.iter().any(|o| matches!(&o.fact, Fact::StreamClosed(c) if c.stream == stream))
    }

    /// Awaits that each push of the renewal is accepted, refused, or lost with its stream; returns the others.
    pub async fn answered(&self, renewal: &Renewal, deadline: Deadline) -> Vec<Pushed> {
        renewal.answered(self.journal.recorder(), deadline).await
    }

    /// Awaits that the streams which the renewal ended are open again and had their first push answered; returns
    /// those that are not.
    pub async fn reconnected(&self, renewal: &Renewal, deadline: Deadline) -> Vec<Closed> {
        renewal.reconnected(self.journal.recorder(), deadline).await
    }

    /// Awaits that every proxy has answered a first `default` and a first `ROOTCA`; returns what is missing.
    pub async fn settled(&self, deadline: Deadline) -> Vec<(ProxyId, SecretName)> {
        if matches!(self.delivery, Delivery::Files(_)) {
            // Nobody answers, and they were there before the proxies.
            return Vec::new();
        }
        super::settled::settled(self.journal.recorder(), Source::Provider, &self.proxies, deadline).await
    }

    /// Ends all streams and removes the socket.
    pub async fn stop(self) {
        drop(self.issuer);
        self.served.into_inner().stop().await;
    }
}

fn work(mut issuer: Issuer, asks: &mpsc::Receiver<Ask>) {
    while let Ok(ask) = asks.recv() {
        match ask {
            Ask::Hear(event, proxy) => issuer.hear(event, proxy),
            Ask::Renew(number, answer) => drop(answer.send(issuer.renew(number))),
            Ask::ChangeBundle(answer) => drop(answer.send(issuer.change_bundle())),
            Ask::Admit(proxy, spiffe_id) => issuer.admit(proxy, spiffe_id),
            Ask::Open(answer) => drop(answer.send(issuer.open_streams())),
            Ask::Stop => return,
        }
    }
}
