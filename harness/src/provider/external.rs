//! A provider that is not ours: a tap in front of its socket, and what a fresh subscriber gets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::ProviderError;
use super::settled::settled;
use crate::clock::{Clock, Deadline};
use crate::proc::{Guard, Process, Signal, Spawn};
use crate::scenario::{ProviderSpec, Span};
use crate::timeline::{At, Exited, Fact, ProxyId, Recorder, SecretName, Source, Spawned, SpiffeId};
use crate::xds::{Delivery, Journal, Subscribers, Tap, WitnessError, ask};

/// How long the first secret is waited for before the proxies are brought up without it.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a provider that is started may take until it serves.
const TO_SERVE: Duration = Duration::from_secs(60);
/// Between two looks for its socket: nothing tells that somebody begins to listen.
const LOOK: Duration = Duration::from_millis(50);
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
}

/// An external provider that serves and was asked once, before anything is recorded.
pub struct Met {
    upstream: Utf8PathBuf,
    process: Option<Process>,
    next_stream: Arc<AtomicU64>,
    /// What was seen so far.
    seen: Vec<(At, Source, Option<SecretName>, Fact)>,
    roots: Vec<Vec<u8>>,
    learnt: Learnt,
}

impl Met {
    pub(super) async fn meet(
        spec: &ProviderSpec,
        clock: &Clock,
        guard: &Guard,
        directory: &Utf8Path,
    ) -> Result<Self, ProviderError> {
        let socket = spec.socket.clone().unwrap_or_default();
        let upstream =
            camino::absolute_utf8(&socket).map_err(|source| WitnessError::Refused { path: socket.clone(), source })?;
        let mut met = Self {
            upstream,
            process: None,
            next_stream: Arc::new(AtomicU64::new(1)),
            seen: Vec::new(),
            roots: Vec::new(),
            learnt: Learnt::default(),
        };
        if let [program, arguments @ ..] = spec.command.as_slice() {
            met.begin(program, arguments, clock, guard, directory).await?;
        }
        met.ask_first(clock).await?;
        Ok(met)
    }

    /// What a fresh subscriber got.
    pub fn learnt(&self) -> &Learnt {
        &self.learnt
    }

    async fn begin(
        &mut self,
        program: &str,
        arguments: &[String],
        clock: &Clock,
        guard: &Guard,
        directory: &Utf8Path,
    ) -> Result<(), ProviderError> {
        let found = which(program).ok_or_else(|| ProviderError::NoProgram(program.to_owned()))?;
        let log = directory.join("provider.log");
        let spawn = Spawn {
            what: format!("provider {program}"),
            program: found,
            args: arguments.to_vec(),
            // It is the user's, and finds things as the user does.
            env: std::env::vars().collect(),
            cwd: None,
            log: log.clone(),
        };
        let process = guard.spawn(spawn).await?;
        let spawned = Spawned { pid: process.pid, what: "provider".to_owned() };
        self.seen.push((clock.at(), Source::Process, None, spawned.into()));
        let deadline = Deadline::after(TO_SERVE);
        while tokio::net::UnixStream::connect(&self.upstream).await.is_err() {
            if let Some(how) = process.exit_now() {
                let (what, socket) = (program.to_owned(), self.upstream.clone());
                return Err(ProviderError::CommandEnded { what, how, socket, log });
            }
            if deadline.passed() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Both names at once, as a proxy does: what waits for a bundle shall not wait twice.
    async fn ask_first(&mut self, clock: &Clock) -> Result<(), ProviderError> {
        let names = [SecretName::default_svid(), SecretName::root_ca()];
        let [svid, bundle] = names.map(|name| {
            let (stream, upstream) = (self.next_stream.fetch_add(1, Ordering::Relaxed), self.upstream.clone());
            async move {
                let mut seen = Vec::new();
                let note = |fact| seen.push((clock.at(), Source::Witness, Some(name.clone()), fact));
                let asked = ask(&upstream, stream, &name, FIRST_ANSWER, note).await;
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
        };
        self.roots = bundle.roots;
        Ok(())
    }
}

/// An external provider, its tap, and its process if it is ours to end.
pub struct External {
    tap: Tap,
    upstream: Utf8PathBuf,
    next_stream: Arc<AtomicU64>,
    proxies: Vec<ProxyId>,
    process: Option<Process>,
    recorder: Recorder,
    learnt: Learnt,
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
        let Met { upstream, process, next_stream, seen, roots, learnt } = met;
        for (at, source, secret, fact) in seen {
            recorder.record_at(Some(at), source, None, secret.as_ref(), fact);
        }
        let nodes = proxies.iter().map(|proxy| (proxy.to_string(), proxy.clone())).collect();
        let subscribers = Subscribers { nodes, pids: HashMap::new() };
        let journal = Arc::new(Journal::new(recorder.clone(), Source::Tap, subscribers));
        let tap = Tap::start(socket, &upstream, journal, next_stream.clone(), roots)?;
        if let Some(process) = process.clone() {
            let recorder = recorder.clone();
            // It ends with the process, which the guard ends at the latest.
            tokio::spawn(async move {
                let exit = process.exited().await;
                let (code, signal) = (exit.code, exit.signal);
                // What it said is in its log, and is not ours to repeat.
                let exited = Exited { code, signal, expected: false, log_tail: Vec::new() };
                recorder.record(Source::Process, None, None, exited);
            });
        }
        Ok(Self { tap, upstream, next_stream, proxies, process, recorder, learnt, present: AtomicBool::new(true) })
    }

    /// Where proxies subscribe: at the tap.
    pub fn delivery(&self) -> Delivery {
        Delivery::Socket(self.tap.path().to_owned())
    }

    /// The authorities that were sent last, DER.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        self.tap.roots()
    }

    /// What a fresh subscriber got before the proxies came.
    pub fn learnt(&self) -> &Learnt {
        &self.learnt
    }

    /// As [`super::Provider::settled`].
    pub async fn settled(&self, deadline: Deadline) -> Vec<(ProxyId, SecretName)> {
        settled(&self.recorder, Source::Tap, &self.proxies, deadline).await
    }

    /// Why the recording is no longer complete: the provider sends more than can be kept. Pending while it does not.
    pub async fn flooded(&self) -> String {
        self.tap.flooded().await
    }

    /// Asks what a fresh subscriber gets for its certificate now, and records it; as well as what open streams wait for.
    pub async fn ask(&self, patience: Duration) {
        self.tap.tell_unfinished();
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let name = SecretName::default_svid();
        let note = |fact| {
            self.recorder.record(Source::Witness, None, Some(&name), fact);
        };
        if let Err(e) = ask(&self.upstream, stream, &name, patience, note).await {
            self.recorder.record(Source::Witness, None, Some(&name), e.blind());
        }
    }

    /// Looks whether whoever came now would find a socket, without going there; records when there is none any more.
    pub fn look_at_path(&self) {
        let present = self.upstream.exists();
        if self.present.swap(present, Ordering::Relaxed) && !present {
            let gone = WitnessError::Missing(self.upstream.clone()).blind();
            self.recorder.record(Source::Witness, None, Some(&SecretName::default_svid()), gone);
        }
    }

    /// Takes the tap away; a provider that was started for this cell is asked to end.
    pub async fn stop(self) {
        drop(self.tap);
        if let Some(process) = self.process {
            // What does not end is the guard's.
            if process.signal(Signal::TERM).await.is_ok() {
                let _ = tokio::time::timeout(TO_END, process.exited()).await;
            }
        }
    }
}

/// The program as a shell finds it.
fn which(program: &str) -> Option<Utf8PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|dir| Utf8Path::new(dir).join(program)).find(|candidate| candidate.is_file())
}
