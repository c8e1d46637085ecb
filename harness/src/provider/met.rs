//! A provider that is not ours, met before the proxies come: it is started where that is asked for, and what a fresh subscriber
//! gets tells its lifetimes and identities.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::signed::SignedLog;
use super::spire::{Spire, SpirePrograms};
use super::tbot::Tbot;
use super::{Ground, ProviderError};
use crate::clock::{Clock, Deadline};
use crate::proc::{Process, Spawn};
use crate::scenario::{ProviderSpec, Scenario, Share, Span};
use crate::timeline::{At, CertFacts, Fact, SecretName, Source, Spawned, SpiffeId};
use crate::xds::{Question, WitnessError, ask};

/// How long the first secret is waited for before the proxies are brought up without it.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a provider that is started may take until it serves.
const TO_SERVE: Duration = Duration::from_secs(60);
/// Between two looks for its socket: nothing tells that somebody begins to listen.
const LOOK: Duration = Duration::from_millis(50);

/// What a fresh subscriber got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learnt {
    /// The identity in the leaf.
    pub spiffe_id: Option<SpiffeId>,
    /// Lifetime of the leaf, as it is dated.
    pub ttl: Option<Span>,
    /// What was left of it.
    pub left: Option<Span>,
    /// Whether both the certificate and the bundle came.
    pub complete: bool,
    /// Its version, where its program says one.
    pub version: Option<String>,
}

impl Learnt {
    /// Completes what the scenario leaves open.
    ///
    /// Many a provider dates its certificates back, by minutes: they live shorter than they say. The margin floor is a share of what
    /// was left to a fresh subscriber, so that a healthy provider is not accused. One whose certificate comes out of a cache
    /// has a lower floor by that, which its own renewals have to hold all the same. How long is observed follows what is dated: too
    /// short an observation shows nothing.
    pub fn teach(&self, scenario: &mut Scenario) {
        if scenario.provider.ttl.is_some() {
            return;
        }
        scenario.provider.ttl = self.ttl;
        if let (Some(ttl), Some(left)) = (self.ttl, self.left)
            && left.duration() < ttl.duration() * 9 / 10
        {
            scenario.criteria.margin_floor = Share::Time(scenario.criteria.margin_floor.of(left));
        }
    }
}

/// An external provider that serves and was asked once, before anything is recorded.
pub struct Met {
    pub(super) upstream: Utf8PathBuf,
    /// What was started for it.
    pub(super) processes: Vec<Process>,
    /// What can be done to it.
    pub(super) spire: Option<Spire>,
    /// What it says that it signed.
    pub(super) signed: Option<SignedLog>,
    pub(super) next_stream: Arc<AtomicU64>,
    /// What was seen so far.
    pub(super) seen: Vec<(At, Source, Option<SecretName>, Fact)>,
    pub(super) roots: Vec<Vec<u8>>,
    pub(super) learnt: Learnt,
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
        let span = |from: jiff::Timestamp, leaf: &CertFacts| {
            // Certificates are dated in whole seconds, and a part of one has passed already.
            let milliseconds = leaf.not_after.duration_since(from).as_millis();
            u64::try_from(milliseconds).ok().map(|ms| ms.div_ceil(1000)).filter(|s| *s > 0).map(Span::seconds)
        };
        let came = self.seen.last().map(|(at, ..)| at.wall);
        let bundle = match bundle {
            Err(WitnessError::Denied { .. }) => crate::xds::Asked::default(),
            bundle => bundle?,
        };
        self.learnt = Learnt {
            spiffe_id: svid.leaf.as_ref().and_then(|leaf| SpiffeId::parse(leaf.uris.first()?).ok()),
            ttl: svid.leaf.as_ref().and_then(|leaf| span(leaf.not_before, leaf)),
            left: svid.leaf.as_ref().zip(came).and_then(|(leaf, came)| span(came, leaf)),
            complete: svid.answered && bundle.answered,
            version: None,
        };
        self.roots = bundle.roots;
        Ok(())
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

/// The program as a shell finds it.
pub(super) fn which(program: &str) -> Option<Utf8PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|dir| Utf8Path::new(dir).join(program)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(given: &str, ttl: u64, left: u64) -> (u64, u128) {
        let yaml = format!("name: x\nsummary: X.\nprovider:\n  kind: external\n  socket: /x\n{given}clock: real\n");
        let mut scenario = Scenario::read(&yaml, "x.yaml").unwrap();
        let [ttl, left] = [ttl, left].map(|s| Some(Span::seconds(s)));
        Learnt { ttl, left, ..Learnt::default() }.teach(&mut scenario);
        let ttl = scenario.provider.ttl();
        (ttl.as_secs(), scenario.criteria.margin_floor.of(ttl).duration().as_millis())
    }

    #[test]
    fn the_margin_floor_is_a_share_of_what_a_certificate_has_left_where_it_is_dated_back() {
        assert_eq!(floor("", 316, 15), (316, 1500));
        assert_eq!(floor("", 16, 15), (16, 1600));
        assert_eq!(floor("  ttl: 15s\n", 316, 15), (15, 1500));
        assert_eq!(floor("criteria:\n  margin_floor: 3s\n", 316, 15), (316, 3000));
    }
}
