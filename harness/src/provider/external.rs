//! A provider that is not ours: taps in front of its sockets, and what is done to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::select_all;
use tokio::sync::Mutex;

use super::ProviderError;
use super::met::{Learnt, Met};
use super::settled::settled;
use super::signed::SignedLog;
use super::spire::Spire;
use super::telling::Telling;
use crate::clock::Deadline;
use crate::proc::{Guard, Process, Signal};
use crate::scenario::ProviderAction;
use crate::timeline::{At, Exited, Fact, FaultNote, ProxyId, Recorder, SecretName, Source, Spawned};
use crate::xds::{Delivery, Journal, Question, Subscribers, Tap, Way, WitnessError, ask, ask_workload_api, socket_of};

/// How long it may take to end when it is asked to.
const TO_END: Duration = Duration::from_secs(2);

/// A provider that is not ours, behind taps, and its process if it is ours to end.
pub struct External {
    outlets: Vec<Outlet>,
    next_stream: Arc<AtomicU64>,
    proxies: Vec<ProxyId>,
    journal: Arc<Journal>,
    processes: Vec<Process>,
    /// A SPIRE to which something can be done.
    spire: Option<Mutex<Spire>>,
    /// What it says that it signed, of those that are started for the cell: they serve the Workload API too.
    signed: Vec<Telling>,
    /// Processes that are ended on purpose.
    ends: Ends,
    recorder: Recorder,
    /// What a fresh subscriber got before the proxies came; of Istio's agents, which come with them, nothing.
    learnt: Option<Learnt>,
    /// Where it is asked by somebody who is no proxy, where each proxy has a socket of its own.
    witness: Option<Utf8PathBuf>,
}

/// A socket of it.
struct Outlet {
    tap: Tap,
    upstream: Utf8PathBuf,
    /// Whose it is, where each proxy has its own.
    of: Option<ProxyId>,
    /// Whether the socket's path was there when it was looked at last.
    present: AtomicBool,
}

impl External {
    pub(super) fn start(
        met: Met,
        socket: &Utf8Path,
        proxies: Vec<ProxyId>,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        let Met { upstream, processes, spire, signed, next_stream, seen, roots, learnt } = met;
        record(seen, &recorder);
        let journal = journal(&proxies, &recorder);
        let tap = Tap::start(socket, Way::to(&upstream), journal.clone(), next_stream.clone(), roots)?;
        let ends = Ends::default();
        for process in &processes {
            ends.tell(process, &recorder);
        }
        let spire = spire.map(Mutex::new);
        let signed = signed.into_iter().map(|log| Telling::start(log, &recorder)).collect();
        let outlets = vec![Outlet { tap, upstream, of: None, present: AtomicBool::new(true) }];
        let (learnt, witness) = (Some(learnt), None);
        Ok(Self { outlets, next_stream, proxies, journal, processes, spire, signed, ends, recorder, learnt, witness })
    }

    /// Sockets at which agents will serve, each its own proxy: Istio's, or those that know the proxy's pod. The taps lie beside
    /// `socket`. `met`: what a pod got that asked before.
    pub(super) fn behind(
        agents: &BTreeMap<ProxyId, Utf8PathBuf>,
        socket: &Utf8Path,
        signed: Vec<SignedLog>,
        met: Option<Met>,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        let (next_stream, roots, learnt, witness) = match met {
            Some(Met { upstream, next_stream, seen, roots, learnt, .. }) => {
                record(seen, &recorder);
                (next_stream, roots, Some(learnt), Some(upstream))
            }
            None => (Arc::new(AtomicU64::new(1)), Vec::new(), None, None),
        };
        let proxies: Vec<ProxyId> = agents.keys().cloned().collect();
        let journal = journal(&proxies, &recorder);
        let outlet = |(id, upstream): (&ProxyId, &Utf8PathBuf)| {
            let path = socket.with_file_name(socket_of(id));
            // Where sockets are called by their proxies, others may join them.
            let called = upstream.file_name() == Some(&socket_of(id));
            let way = if called { Way::by_node(upstream) } else { Way::to(upstream) };
            let tap = Tap::start(&path, way, journal.clone(), next_stream.clone(), roots.clone())?;
            let present = AtomicBool::new(false);
            Ok::<_, ProviderError>(Outlet { tap, upstream: upstream.clone(), of: Some(id.clone()), present })
        };
        let outlets = agents.iter().map(outlet).collect::<Result<_, _>>()?;
        let signed = signed.into_iter().map(|log| Telling::start(log, &recorder)).collect();
        Ok(Self {
            outlets,
            next_stream,
            proxies,
            journal,
            processes: Vec::new(),
            spire: None,
            signed,
            ends: Ends::default(),
            recorder,
            learnt,
            witness,
        })
    }

    /// Where proxies subscribe: at the taps.
    pub fn delivery(&self) -> Delivery {
        let path = |outlet: &Outlet| outlet.tap.path().to_owned();
        match &self.outlets[..] {
            [outlet @ Outlet { of: None, .. }] => Delivery::Socket(path(outlet)),
            all => Delivery::Mesh(all.iter().filter_map(|o| Some((o.of.clone()?, path(o)))).collect()),
        }
    }

    /// The authorities that were sent last, DER.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = self.outlets.iter().flat_map(|outlet| outlet.tap.roots()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether proxies that come now will have their first secrets, as far as that was seen.
    pub fn complete(&self) -> bool {
        self.learnt.as_ref().is_none_or(|learnt| learnt.complete)
    }

    /// From now on, streams of this proxy's node are its own. Whom it serves, the provider knows by itself.
    pub(super) fn admit(&self, proxy: ProxyId) {
        self.journal.admit(proxy);
    }

    /// As [`super::Provider::settled`].
    pub async fn settled(&self, deadline: Deadline) -> Vec<(ProxyId, SecretName)> {
        settled(&self.recorder, Source::Tap, &self.proxies, deadline).await
    }

    /// Why the recording is no longer complete: the provider sends more than can be kept. Pending while it does not.
    pub async fn flooded(&self) -> String {
        let (why, ..) = select_all(self.outlets.iter().map(|outlet| Box::pin(outlet.tap.flooded()))).await;
        why
    }

    /// Asks once more, by the SPIFFE Workload API, where the provider is known to serve that on the same socket. What
    /// comes must be what its SDS gives: the API, and the client, are others.
    pub async fn ask_workload_api(&self, patience: Duration) {
        if self.signed.is_empty() {
            return;
        }
        for outlet in self.outlets.iter().filter(|outlet| outlet.of.is_none()) {
            let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
            let name = SecretName::default_svid();
            let note = |fact| {
                self.recorder.record(Source::Witness, None, Some(&name), fact);
            };
            ask_workload_api(&outlet.upstream, stream, patience, note).await;
        }
    }

    /// Asks what a fresh subscriber gets for its certificate now, and records it; as well as what open streams wait for.
    ///
    /// An agent of Istio has one subscriber, its proxy, and is not asked.
    pub async fn ask(&self, patience: Duration) {
        self.outlets.iter().for_each(|outlet| outlet.tap.tell_unfinished());
        let shared = self.outlets.iter().filter(|outlet| outlet.of.is_none()).map(|outlet| &outlet.upstream);
        for upstream in shared.chain(&self.witness) {
            let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
            let name = SecretName::default_svid();
            let note = |fact| {
                self.recorder.record(Source::Witness, None, Some(&name), fact);
            };
            if let Err(e) = ask(Question::of(upstream, &name), stream, patience, note).await {
                self.recorder.record(Source::Witness, None, Some(&name), e.blind());
            }
        }
    }

    /// Looks whether whoever came now would find a socket, without going there; records when there is none any more.
    pub fn look_at_path(&self) {
        for Outlet { upstream, of, present, .. } in &self.outlets {
            let there = upstream.exists();
            if present.swap(there, Ordering::Relaxed) && !there {
                let gone = WitnessError::Missing(upstream.clone()).blind();
                self.recorder.record(Source::Witness, of.as_ref(), Some(&SecretName::default_svid()), gone);
            }
        }
    }

    /// Does something to it, and records that.
    pub async fn undergo(&self, action: ProviderAction, guard: &Guard) -> Result<(), ProviderError> {
        let Some(spire) = &self.spire else { return Ok(()) };
        let note = FaultNote { fault: action.name().to_owned(), action: "done to SPIRE".to_owned() };
        self.recorder.record(Source::Provider, None, None, note);
        let mut spire = spire.lock().await;
        if let Some(process) = spire.ended_by(action) {
            self.ends.expect(process);
        }
        if let Some(process) = spire.undergo(action, guard).await? {
            let spawned = Spawned { pid: process.pid, what: process.what.to_string() };
            self.recorder.record(Source::Process, None, None, spawned);
            self.ends.tell(&process, &self.recorder);
        }
        Ok(())
    }

    /// Records what its own log says that it signed until now, where it has one that is understood.
    pub fn tell_signed(&self) {
        self.signed.iter().for_each(Telling::tell);
    }

    /// Takes the taps away; a provider that was started for this cell is asked to end.
    pub async fn stop(self) {
        drop(self.outlets);
        let spire = self.spire.map(Mutex::into_inner);
        let started = spire.iter().flat_map(Spire::processes).chain(&self.processes);
        let ends = started.filter(|process| process.exit_now().is_none()).map(|process| async {
            // What does not end is the guard's.
            if process.signal(Signal::TERM).await.is_ok() {
                let _ = tokio::time::timeout(TO_END, process.exited()).await;
            }
        });
        futures::future::join_all(ends).await;
        if let Some(spire) = &spire {
            spire.keep_logs();
        }
    }
}

/// What was seen before there was a recording.
fn record(seen: Vec<(At, Source, Option<SecretName>, Fact)>, recorder: &Recorder) {
    for (at, source, secret, fact) in seen {
        recorder.record_at(Some(at), source, None, secret.as_ref(), fact);
    }
}

/// Ends of a provider's processes, and which of them were asked for.
#[derive(Clone, Default)]
struct Ends(Arc<std::sync::Mutex<BTreeSet<i32>>>);

impl Ends {
    fn asked_for(&self) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It will be ended.
    fn expect(&self, process: &Process) {
        self.asked_for().insert(process.pid);
    }

    /// Records its end when it comes: at the latest when the guard ends it.
    fn tell(&self, process: &Process, recorder: &Recorder) {
        // A number that comes again is another process.
        self.asked_for().remove(&process.pid);
        let (process, recorder, ends) = (process.clone(), recorder.clone(), self.clone());
        tokio::spawn(async move {
            let exit = process.exited().await;
            let (code, signal, expected) = (exit.code, exit.signal, ends.asked_for().contains(&process.pid));
            // What it said is in its log, and is not ours to repeat.
            recorder.record(Source::Process, None, None, Exited { code, signal, expected, log_tail: Vec::new() });
        });
    }
}

/// Proxies are known by the nodes that they say to be.
fn journal(proxies: &[ProxyId], recorder: &Recorder) -> Arc<Journal> {
    let nodes = proxies.iter().map(|proxy| (proxy.to_string(), proxy.clone())).collect();
    Arc::new(Journal::new(recorder.clone(), Source::Tap, Subscribers { nodes, pids: HashMap::new() }))
}
