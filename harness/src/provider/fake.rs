//! The fake: issuer and outlet in this process, driven by whoever holds it.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::{oneshot, watch};

use super::ProviderError;
use super::issuer::{Deliver, Issuer};
use super::renewal::{Closed, Pushed, Renewal};
use crate::clock::Deadline;
use crate::pki::PkiError;
use crate::scenario::ProviderSpec;
use crate::timeline::{ProxyId, Recorder, SecretName, Source, SpiffeId};
use crate::xds::{Delivery, Event, Journal, Outlet, OutletApart, Sink, Socket, Subscribers};

/// What a fake is to be.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// Where it serves.
    pub socket: Utf8PathBuf,
    /// For whom.
    pub trust_domain: String,
    /// Profile, lifetimes, faults.
    pub spec: ProviderSpec,
    /// The proxies and their identities. Whoever else asks is `spiffe://<trust domain>/workload`.
    pub identities: Vec<(ProxyId, SpiffeId)>,
}

/// A running fake.
pub struct Fake {
    outlet: Place,
    journal: Arc<Journal>,
    proxies: Vec<ProxyId>,
    trusted: watch::Receiver<Vec<Vec<u8>>>,
    /// The issuer mints on a thread of its own: an RSA key takes longer than a runtime may be held up.
    issuer: IssuerThread,
}

/// Where the sockets are served.
enum Place {
    Here(Outlet),
    Apart(OutletApart),
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
    Stop,
}

impl Fake {
    /// Issues generation 0 at the recorder's present cell time and serves it.
    pub async fn start(config: FakeConfig, recorder: Recorder) -> Result<Self, ProviderError> {
        Self::start_in(None, config, recorder).await
    }

    /// As `start`, but the socket is served by a process of its own, which runs `program` (rotacheck itself) and can
    /// be frozen and killed; minting goes on here.
    pub async fn start_apart(
        program: &Utf8Path,
        config: FakeConfig,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        Self::start_in(Some(program), config, recorder).await
    }

    async fn start_in(
        program: Option<&Utf8Path>,
        config: FakeConfig,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        let FakeConfig { socket, trust_domain, spec, identities } = config;
        if SpiffeId::parse(&format!("spiffe://{trust_domain}/workload")).is_err() {
            return Err(ProviderError::TrustDomain(trust_domain));
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
        let outlet = match program {
            None => Place::Here(Outlet::serve(Socket::bind(&socket)?, 1, sink)?),
            Some(program) => Place::Apart(OutletApart::spawn(program, &socket, sink).await?),
        };
        let deliver = outlet.deliver();
        let proxies = identities.iter().map(|(proxy, _)| proxy.clone()).collect();
        let (started, starting) = oneshot::channel();
        let its_journal = journal.clone();
        std::thread::Builder::new()
            .name("issuer".into())
            .spawn(move || {
                let identities = identities.into_iter().collect();
                match Issuer::start(spec, trust_domain, identities, its_journal, deliver) {
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
        Ok(Self { outlet, journal, proxies, trusted, issuer: IssuerThread(issuer) })
    }

    /// Where proxies subscribe.
    pub fn delivery(&self) -> Delivery {
        Delivery::Socket(match &self.outlet {
            Place::Here(outlet) => outlet.path().to_owned(),
            Place::Apart(outlet) => outlet.path().to_owned(),
        })
    }

    /// The process that serves the socket, where that is another one.
    pub fn pid(&self) -> Option<u32> {
        match &self.outlet {
            Place::Here(_) => None,
            Place::Apart(outlet) => outlet.pid(),
        }
    }

    /// The authorities that are trusted now, DER, the oldest first.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        self.trusted.borrow().clone()
    }

    /// From now on, connections of this process are this proxy's, also where they carry no `node.id`.
    pub fn attest(&self, pid: i32, proxy: ProxyId) {
        self.journal.attest(pid, proxy);
    }

    /// Carries out renewal `number` (from 1; 0 was the start) at the present cell time: authorities first, then bundles,
    /// then leaves. It returns when all is on its way; `answered` awaits the answers.
    pub async fn renew(&self, number: u32) -> Result<Renewal, ProviderError> {
        let (answer, answered) = oneshot::channel();
        self.issuer.0.send(Ask::Renew(number, answer)).map_err(|_| ProviderError::Stopped)?;
        Ok(answered.await.map_err(|_| ProviderError::Stopped)??)
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
        super::settled::settled(self.journal.recorder(), Source::Provider, &self.proxies, deadline).await
    }

    /// Ends all streams and removes the socket.
    pub async fn stop(self) {
        drop(self.issuer);
        match self.outlet {
            Place::Here(outlet) => outlet.stop().await,
            Place::Apart(outlet) => outlet.stop().await,
        }
    }
}

impl Place {
    fn deliver(&self) -> Deliver {
        match self {
            Place::Here(outlet) => {
                let hub = outlet.hub();
                Box::new(move |command| hub.deliver(command))
            }
            Place::Apart(outlet) => {
                let commands = outlet.commands();
                Box::new(move |command| {
                    // Lost only once the process has ended, and with it the streams.
                    let _ = commands.as_ref().map(|commands| commands.send(command));
                })
            }
        }
    }
}

fn work(mut issuer: Issuer, asks: &mpsc::Receiver<Ask>) {
    while let Ok(ask) = asks.recv() {
        match ask {
            Ask::Hear(event, proxy) => issuer.hear(event, proxy),
            Ask::Renew(number, answer) => drop(answer.send(issuer.renew(number))),
            Ask::Stop => return,
        }
    }
}
