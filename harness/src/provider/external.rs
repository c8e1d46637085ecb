//! A provider that is not ours: a tap in front of its socket, and what a fresh subscriber gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::select_all;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::settled::settled;
use super::signed::SignedLog;
use super::spire::{Spire, SpirePrograms};
use super::tbot::Tbot;
use super::{Ground, ProviderError};
use crate::clock::{Clock, Deadline};
use crate::proc::{Guard, Process, Signal, Spawn};
use crate::scenario::{ProviderAction, ProviderSpec, Span};
use crate::timeline::{
    At, Exited, Fact, FaultNote, Observation, ProxyId, Recorder, SecretName, Source, Spawned, SpiffeId,
};
use crate::xds::{Delivery, Journal, Question, Subscribers, Tap, WitnessError, ask, ask_workload_api};

/// How long the first secret is waited for before the proxies are brought up without it.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a provider that is started may take until it serves.
const TO_SERVE: Duration = Duration::from_secs(60);
/// Between two looks for its socket: nothing tells that somebody begins to listen.
const LOOK: Duration = Duration::from_millis(50);
/// Longer than any cell lives.
const FOREVER: Duration = Duration::from_secs(30 * 86_400);
/// How long it may take to end when it is asked to.
const TO_END: Duration = Duration::from_secs(2);

/// What a fresh subscriber got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learnt {
    /// The identity in the leaf.
    pub spiffe_id: Option<SpiffeId>,
    /// Lifetime of the leaf.
    pub ttl: Option<Span>,
    /// Whether both the certificate and the bundle came.
    pub complete: bool,
    /// Its version, where its program says one.
    pub version: Option<String>,
}

/// An external provider that serves and was asked once, before anything is recorded.
pub struct Met {
    upstream: Utf8PathBuf,
    /// What was started for it.
    processes: Vec<Process>,
    /// What can be done to it.
    spire: Option<Spire>,
    /// What it says that it signed.
    signed: Option<SignedLog>,
    next_stream: Arc<AtomicU64>,
    /// What was seen so far.
    seen: Vec<(At, Source, Option<SecretName>, Fact)>,
    roots: Vec<Vec<u8>>,
    learnt: Learnt,
}

impl Met {
    pub(super) async fn meet(spec: &ProviderSpec, ground: &Ground<'_>) -> Result<Self, ProviderError> {
        let socket = spec.socket.clone().unwrap_or_default();
        let upstream =
            camino::absolute_utf8(&socket).map_err(|source| WitnessError::Refused { path: socket.clone(), source })?;
        let mut met = Self::at(upstream);
        if let [program, arguments @ ..] = spec.command.as_slice() {
            met.begin(program, arguments, ground).await?;
        }
        met.ask_first(ground.clock).await?;
        Ok(met)
    }

    /// SPIRE, started for this cell. It is there when its agent knows us.
    pub(super) async fn spire(
        spec: &ProviderSpec,
        programs: &SpirePrograms,
        ground: &Ground<'_>,
    ) -> Result<Self, ProviderError> {
        let (spire, started) = Spire::start(programs, spec, ground).await?;
        let mut met = Self::at(spire.socket());
        met.signed = Some(spire.signed());
        met.spire = Some(spire);
        started.into_iter().for_each(|process| met.own(process));
        met.ask_until_known(ground.clock).await?;
        Ok(met)
    }

    /// One that is beside the proxies, which a pod asks through this socket.
    pub(super) async fn by_witness(door: &Utf8Path, clock: &Clock) -> Result<Self, ProviderError> {
        let mut met = Self::at(door.to_owned());
        met.ask_until_known(clock).await?;
        Ok(met)
    }

    /// A tbot, started for this cell.
    pub(super) async fn tbot(spec: &ProviderSpec, ground: &Ground<'_>) -> Result<Self, ProviderError> {
        let Tbot { socket, process, signed, version } = Tbot::start(spec, ground).await?;
        let mut met = Self::at(socket);
        met.signed = Some(signed);
        met.own(process);
        met.ask_first(ground.clock).await?;
        met.learnt.version = version;
        Ok(met)
    }

    fn at(upstream: Utf8PathBuf) -> Self {
        Self {
            upstream,
            processes: Vec::new(),
            spire: None,
            signed: None,
            next_stream: Arc::new(AtomicU64::new(1)),
            seen: Vec::new(),
            roots: Vec::new(),
            learnt: Learnt::default(),
        }
    }

    /// What a fresh subscriber got.
    pub fn learnt(&self) -> &Learnt {
        &self.learnt
    }

    async fn begin(&mut self, program: &str, arguments: &[String], ground: &Ground<'_>) -> Result<(), ProviderError> {
        let found = which(program).ok_or_else(|| ProviderError::NoProgram(program.to_owned()))?;
        let spawn = Spawn {
            what: format!("provider {program}"),
            program: found,
            args: arguments.to_vec(),
            // It is the user's, and finds things as the user does.
            env: std::env::vars().collect(),
            cwd: None,
            log: ground.directory.join("provider.log"),
        };
        let at = ground.clock.at();
        let process = ground.guard.spawn(spawn).await?;
        self.own((at, process.clone()));
        until_served(&process, &self.upstream).await
    }

    /// It was started for this cell, and ends with it.
    fn own(&mut self, (at, process): (At, Process)) {
        let spawned = Spawned { pid: process.pid, what: process.what.to_string() };
        self.seen.push((at, Source::Process, None, spawned.into()));
        self.processes.push(process);
    }

    /// As below; who is not known yet may be so soon: an entry takes a while to come to the agent, and nothing tells that it has.
    async fn ask_until_known(&mut self, clock: &Clock) -> Result<(), ProviderError> {
        let deadline = Deadline::after(TO_SERVE);
        let own = self.seen.len();
        loop {
            match self.ask_first(clock).await {
                Err(ProviderError::Witness(WitnessError::Denied { .. })) if !deadline.passed() => {
                    self.seen.truncate(own);
                    tokio::time::sleep(LOOK).await;
                }
                asked => return asked,
            }
        }
    }

    /// Both names at once, as a proxy does: what waits for a bundle shall not wait twice.
    async fn ask_first(&mut self, clock: &Clock) -> Result<(), ProviderError> {
        let names = [SecretName::default_svid(), SecretName::root_ca()];
        let [svid, bundle] = names.map(|name| {
            let (stream, upstream) = (self.next_stream.fetch_add(1, Ordering::Relaxed), self.upstream.clone());
            async move {
                let mut seen = Vec::new();
                let note = |fact| seen.push((clock.at(), Source::Witness, Some(name.clone()), fact));
                let asked = ask(Question::of(&upstream, &name), stream, FIRST_ANSWER, note).await;
                (asked, seen)
            }
        });
        let ((svid, first), (bundle, second)) = tokio::join!(svid, bundle);
        self.seen.extend(first);
        self.seen.extend(second);
        self.seen.sort_by_key(|(at, ..)| at.mono);
        let svid = svid?;
        // Without a bundle the proxies will wait, which is to be judged.
        let bundle = match bundle {
            Err(WitnessError::Denied { .. }) => crate::xds::Asked::default(),
            bundle => bundle?,
        };
        self.learnt = Learnt {
            spiffe_id: svid.leaf.as_ref().and_then(|leaf| SpiffeId::parse(leaf.uris.first()?).ok()),
            ttl: svid.leaf.as_ref().and_then(|leaf| {
                let lifetime = leaf.not_after.duration_since(leaf.not_before).as_secs();
                u64::try_from(lifetime).ok().filter(|s| *s > 0).map(Span::seconds)
            }),
            complete: svid.answered && bundle.answered,
            version: None,
        };
        self.roots = bundle.roots;
        Ok(())
    }
}

/// A provider that is not ours, behind taps, and its process if it is ours to end.
pub struct External {
    outlets: Vec<Outlet>,
    next_stream: Arc<AtomicU64>,
    proxies: Vec<ProxyId>,
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
        let tap = Tap::start(socket, &upstream, journal, next_stream.clone(), roots)?;
        let ends = Ends::default();
        for process in &processes {
            ends.tell(process, &recorder);
        }
        let spire = spire.map(Mutex::new);
        let signed = signed.into_iter().map(|log| Telling::start(log, &recorder)).collect();
        let outlets = vec![Outlet { tap, upstream, of: None, present: AtomicBool::new(true) }];
        let (learnt, witness) = (Some(learnt), None);
        Ok(Self { outlets, next_stream, proxies, processes, spire, signed, ends, recorder, learnt, witness })
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
            let path = socket.with_file_name(format!("{id}.sock"));
            let tap = Tap::start(&path, upstream, journal.clone(), next_stream.clone(), roots.clone())?;
            let present = AtomicBool::new(false);
            Ok::<_, ProviderError>(Outlet { tap, upstream: upstream.clone(), of: Some(id.clone()), present })
        };
        let outlets = agents.iter().map(outlet).collect::<Result<_, _>>()?;
        let signed = signed.into_iter().map(|log| Telling::start(log, &recorder)).collect();
        Ok(Self {
            outlets,
            next_stream,
            proxies,
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

/// What a provider's log says that it signed, on its way into the recording. It goes on until this is dropped.
struct Telling {
    log: Arc<std::sync::Mutex<SignedLog>>,
    recorder: Recorder,
    task: AbortHandle,
}

impl Telling {
    /// Whenever something moves on the provider's streams, its log is read: what is signed is signed for them.
    fn start(log: SignedLog, recorder: &Recorder) -> Self {
        let log = Arc::new(std::sync::Mutex::new(log));
        record_signed(&log, recorder);
        let task = tokio::spawn({
            let (log, recorder) = (log.clone(), recorder.clone());
            async move {
                loop {
                    let from = recorder.len();
                    let moved = |o: &Observation| matches!(o.source, Source::Tap | Source::Witness);
                    recorder.await_until(from, Deadline::after(FOREVER), moved).await;
                    // It may write a moment after it has sent.
                    tokio::time::sleep(LOOK).await;
                    record_signed(&log, &recorder);
                }
            }
        });
        Self { log, recorder: recorder.clone(), task: task.abort_handle() }
    }

    fn tell(&self) {
        record_signed(&self.log, &self.recorder);
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn record_signed(log: &std::sync::Mutex<SignedLog>, recorder: &Recorder) {
    // Held until all is recorded, so that it is recorded in its order.
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    for signed in log.news() {
        recorder.record(Source::Provider, None, None, signed);
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

/// Awaits that somebody listens at the socket. Who does not within a minute is asked all the same, and the answer says
/// more.
pub(super) async fn until_served(process: &Process, socket: &Utf8Path) -> Result<(), ProviderError> {
    let deadline = Deadline::after(TO_SERVE);
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        if let Some(how) = process.exit_now() {
            let (what, socket, log) = (process.what.to_string(), socket.to_owned(), process.log.to_path_buf());
            return Err(ProviderError::CommandEnded { what, how, socket, log });
        }
        if deadline.passed() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Proxies are known by the nodes that they say to be.
fn journal(proxies: &[ProxyId], recorder: &Recorder) -> Arc<Journal> {
    let nodes = proxies.iter().map(|proxy| (proxy.to_string(), proxy.clone())).collect();
    Arc::new(Journal::new(recorder.clone(), Source::Tap, Subscribers { nodes, pids: HashMap::new() }))
}

/// The program as a shell finds it.
pub(super) fn which(program: &str) -> Option<Utf8PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|dir| Utf8Path::new(dir).join(program)).find(|candidate| candidate.is_file())
}
