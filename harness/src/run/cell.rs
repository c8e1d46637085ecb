//! A cell's life: prepare, bring up, observe, collect, tear down, judge.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::mpsc::UnboundedSender;

use super::lanes::Turn;
use super::observe::{Observed, observe};
use super::site::Site;
use super::stall::StallWatch;
use super::teller::Teller;
use super::{RunError, RunOptions, Stop, milliseconds};
use crate::archive::{CellDirectory, RunDirectory, RunEvent};
use crate::clock::{Clock, Deadline, OffsetFile};
#[cfg(feature = "kubernetes")]
use crate::fleet::{Asked, Place};
use crate::fleet::{
    Dialled, Fleet, FleetConfig, FleetError, ForeignConfig, Istio, IstioPrograms, Vessel, expectations, workload_socket,
};
use crate::plan::{CellReport, Outcome, unsupported};
use crate::probe::{OutboundServer, ProbeContext, Roots};
use crate::proc::{Guard, ProcError};
use crate::provider::{Approached, FakeConfig, Ground, Provider, SpireFrom};
use crate::scenario::{ClockKind, Scenario, Span, TRUST_DOMAIN};
use crate::timeline::{
    CellId, Disclosure, Header, ProxyId, Recorder, Role, SCHEMA_VERSION, SpiffeId, Subject, Timeline,
    without_private_keys,
};
use crate::verdict::{Judgement, Unproven, judge};
use crate::xds::Delivery;

/// One cell that is to be run: everything decided, nothing started.
#[derive(Debug, Clone)]
pub struct CellJob {
    /// `scenario@subject`.
    pub id: CellId,
    /// The scenario, with the user's overrides.
    pub scenario: Scenario,
    /// The scenario as it is kept in the run directory.
    pub yaml: String,
    /// What is tested; versions measured.
    pub subject: Subject,
    /// The Envoy executable; in a cluster, where it is in its image.
    pub envoy: Utf8PathBuf,
    /// Istio's programs, where its agent is to start the Envoys.
    pub istio: Option<IstioPrograms>,
    /// SPIRE, where it is to issue.
    pub spire: Option<SpireFrom>,
    /// What the proxies' containers are to be made of, where they are to be in some.
    pub vessel: Option<Vessel>,
    /// The cluster in which the proxies are to be pods.
    #[cfg(feature = "kubernetes")]
    pub place: Option<Place>,
    /// Who is asked for certificates there, where the harness does not issue them.
    #[cfg(feature = "kubernetes")]
    pub asked: Option<Asked>,
    /// Where the subject is not as its makers ship it.
    pub disclosed: Vec<Disclosure>,
    /// The command that repeats just this cell.
    pub command: String,
    /// Why this scenario makes no sense on this subject.
    pub unsupported: Option<String>,
    /// Checks whose pass is refused, because their controls were missed on this subject; the run itself fills it in.
    pub unproven: Vec<Unproven>,
}

impl CellJob {
    /// The report of a cell that was not begun; one that makes no sense never will be.
    pub fn planned(&self) -> CellReport {
        let not_run = || "it was not begun".to_owned();
        CellReport {
            id: self.id.clone(),
            scenario: self.scenario.name.clone(),
            summary: self.scenario.summary.clone(),
            role: self.scenario.role,
            subject: self.subject.clone(),
            disclosed: self.disclosed.clone(),
            clock: self.scenario.clock,
            expect: self.scenario.expect.clone(),
            outcome: if self.unsupported.is_some() { Outcome::Unsupported } else { Outcome::NotRun },
            as_expected: self.unsupported.is_some(),
            reason: Some(self.unsupported.clone().unwrap_or_else(not_run)),
            verdict: None,
            duration_ms: 0,
            cell_time_s: 0,
            command: self.command.clone(),
        }
    }

    /// The job as far as it is known once the provider was asked.
    fn with_what_is_learnt(&self, provider: &Approached) -> Result<Self, RunError> {
        let mut job = self.clone();
        if let Some(learnt) = provider.learnt() {
            learnt.teach(&mut job.scenario);
            if let Some(version) = &learnt.version {
                job.subject.provider.version.clone_from(version);
            }
            if let Some(why) = unsupported(&job.scenario) {
                return Err(RunError::Lifetime(why));
            }
        }
        Ok(job)
    }

    /// The proxies, with their identities where the harness gives them.
    fn members(&self, provider: &Approached, namespace: Option<&str>) -> Vec<(ProxyId, Option<SpiffeId>)> {
        let given = provider.learnt().is_none();
        self.identities(namespace).into_iter().map(|(id, spiffe_id)| (id, given.then_some(spiffe_id))).collect()
    }

    /// The proxies, each with the identity of its service account.
    pub(super) fn identities(&self, namespace: Option<&str>) -> Vec<(ProxyId, SpiffeId)> {
        let fleet = &self.scenario.fleet;
        namespace.map_or_else(|| fleet.members(), |namespace| fleet.members_of(namespace))
    }

    fn header(&self, clock: &Clock, members: &[(ProxyId, Option<SpiffeId>)]) -> Header {
        Header {
            schema_version: SCHEMA_VERSION,
            rotacheck: env!("CARGO_PKG_VERSION").to_owned(),
            cell: self.id.clone(),
            scenario: self.scenario.name.clone(),
            role: self.scenario.role,
            subject: self.subject.clone(),
            clock: self.scenario.clock,
            started: clock.now(),
            proxies: expectations(members, {
                let fleet = &self.scenario.fleet;
                fleet.contexts + u32::from(fleet.resumption) + u32::from(fleet.must_staple)
            }),
            criteria: self.scenario.criteria(),
            expect: self.scenario.expect.clone(),
        }
    }
}

/// Runs one cell. Whatever happens, there is a report.
pub(super) async fn run(
    job: &CellJob,
    directory: &RunDirectory,
    options: &RunOptions,
    stop: &Stop,
    events: &UnboundedSender<RunEvent>,
    turn: &Turn,
) -> CellReport {
    let began = Instant::now();
    let mut report = job.planned();
    if job.unsupported.is_some() {
        return report;
    }
    let kept = match directory.cell_directory(&job.id) {
        Ok(kept) => kept,
        Err(e) => {
            report.outcome = Outcome::Error;
            report.reason = Some(RunError::from(e).with_advice());
            return report;
        }
    };
    match live(job, &kept, options, stop, events, turn).await {
        Ok((timeline, cell_time_s, unready)) => {
            report.cell_time_s = cell_time_s;
            // The provider's version may be known only since it was started.
            report.subject = timeline.header.subject.clone();
            let mut verdict = judge(&timeline);
            if job.scenario.role == Role::Conformance {
                verdict.refuse(&job.unproven);
            }
            match unready {
                // Whose fault it is that it was never ready has to be proved.
                Some(why) if verdict.judgement != Judgement::Fail => {
                    report.outcome = Outcome::Error;
                    report.reason = Some(RunError::from(why).with_advice());
                }
                _ => report.judged(verdict),
            }
        }
        Err(e) => {
            report.outcome = Outcome::Error;
            report.reason = Some(e.with_advice());
        }
    }
    if stop.asked() && report.outcome == Outcome::Inconclusive {
        report.reason = Some("the run was interrupted".to_owned());
    }
    // It may have the words of others in it.
    report.reason = report.reason.map(|reason| without_private_keys(&reason).into_owned());
    report.duration_ms = milliseconds(began.elapsed());
    if let Err(e) = kept.write_verdict(&report) {
        report.as_expected = false;
        // What went wrong first says more.
        if report.outcome != Outcome::Error {
            report.outcome = Outcome::Error;
            report.reason = Some(RunError::from(e).with_advice());
        }
    }
    report
}

/// From nothing to a finished recording; gives the cell time that passed as well.
async fn live(
    job: &CellJob,
    kept: &CellDirectory,
    options: &RunOptions,
    stop: &Stop,
    events: &UnboundedSender<RunEvent>,
    turn: &Turn,
) -> Result<(Timeline, u64, Option<FleetError>), RunError> {
    kept.write_scenario(&job.yaml)?;
    // The guard comes first: whatever there is to clean up, it knows of.
    let guard = Guard::start(&options.exe, Vec::new()).await?;
    let scratch = Scratch::make(&guard).await?;
    let clock = match job.scenario.clock {
        ClockKind::Virtual => Clock::moved(OffsetFile::create(&scratch.0)?),
        ClockKind::Real => Clock::real(),
    };
    let site = Site::prepare(job, kept.path(), &scratch.0, &clock, stop).await?;
    let (job, provider) = match approach(job, kept, &guard, &scratch.0, &clock, &site, stop).await {
        Ok(known) => known,
        Err(e) => {
            // Why there is no cell says more than that something of it is left.
            let _ = site.clear().await;
            return Err(e);
        }
    };
    let job = &site.with_what_is_learnt(&job);
    let members = job.members(&provider, site.namespace());
    let recorder = Recorder::new(job.header(&clock, &members), clock.clone(), Some(kept.create_timeline()?));
    let _stalls = StallWatch::start(recorder.clone());
    let tell = Teller { cell: &job.id, events, recorder: &recorder, turn };
    tell.phase("prepare");
    tell.known_defects(&job.scenario, &job.subject);
    let started = clock.now();

    // Where others can bring proxies in, it may last longer for them.
    let longer = site.namespace().map_or(Duration::ZERO, |_| longer(&job.scenario));
    let limit = Limit::from_now(options.timeout + real_time(&job.scenario) + longer);
    let sockets = scratch.0.join(SOCKETS);
    std::fs::create_dir(&sockets).map_err(|source| RunError::Scratch { directory: sockets.clone(), source })?;
    let socket = sockets.join("socket");
    let living = Living {
        job,
        kept,
        options,
        stop,
        tell: &tell,
        guard: &guard,
        scratch: &scratch.0,
        socket,
        limit,
        site: &site,
    };
    let result = living.bring_up_observe_collect(provider, members, &recorder).await;
    let passed = clock.now().duration_since(started).as_secs();
    let timeline = recorder.finish(incomplete(&result));
    let cleared = site.clear().await;
    let stopped = guard.stop().await;
    let unready = match result? {
        Observed::NeverReady(why) => Some(why),
        Observed::ToTheEnd | Observed::Until(_) => None,
    };
    stopped?;
    if let Err(e) = cleared {
        // What was seen stands, whatever is left.
        tell.left(site.namespace().unwrap_or_default(), &e.to_string());
    }
    Ok((timeline?, u64::try_from(passed).unwrap_or(0), unready))
}

/// Goes to see the provider; gives the job as it is known then.
async fn approach(
    job: &CellJob,
    kept: &CellDirectory,
    guard: &Guard,
    scratch: &Utf8Path,
    clock: &Clock,
    site: &Site,
    stop: &Stop,
) -> Result<(CellJob, Approached), RunError> {
    let ground = Ground { clock, guard, directory: kept.path(), scratch, witness: site.witness(), logs: site.logs() };
    let provider = tokio::select! {
        biased;
        () = stop.requested() => return Err(RunError::Interrupted),
        approached = Approached::to(&job.scenario.provider, job.spire.as_ref(), &ground) => approached?,
    };
    Ok((job.with_what_is_learnt(&provider)?, provider))
}

struct Living<'a> {
    job: &'a CellJob,
    kept: &'a CellDirectory,
    options: &'a RunOptions,
    stop: &'a Stop,
    tell: &'a Teller<'a>,
    guard: &'a Guard,
    scratch: &'a Utf8Path,
    socket: Utf8PathBuf,
    limit: Limit,
    site: &'a Site,
}

/// How long the cell may take, until what is there is collected.
#[derive(Clone, Copy)]
struct Limit {
    allowed: Duration,
    deadline: Deadline,
}

impl Limit {
    fn from_now(allowed: Duration) -> Self {
        Self { allowed, deadline: Deadline::after(allowed) }
    }

    async fn on<T, E: Into<RunError>>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, RunError> {
        match tokio::time::timeout_at(self.deadline.instant(), work).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => Err(RunError::TimedOut(self.allowed)),
        }
    }

    /// A proxy that is never ready shall be told as that, also where little time is given.
    fn ready(self) -> Duration {
        READY.min(self.allowed / 2)
    }
}

/// The directory for sockets in a cell's scratch: a proxy sees it, and what comes and goes in it.
const SOCKETS: &str = "sockets";

/// How long proxies may take until they are ready, and to answer at the end. A busy machine takes seconds.
const READY: Duration = Duration::from_secs(30);
const COLLECT: Duration = Duration::from_secs(10);

impl Living<'_> {
    async fn bring_up_observe_collect(
        &self,
        provider: Approached,
        members: Vec<(ProxyId, Option<SpiffeId>)>,
        recorder: &Recorder,
    ) -> Result<Observed, RunError> {
        self.tell.phase("bring_up");
        let scenario = &self.job.scenario;
        let identity = provider.learnt().and_then(|learnt| learnt.spiffe_id.clone());
        let config = FakeConfig {
            socket: self.socket.clone(),
            trust_domain: TRUST_DOMAIN.to_owned(),
            spec: scenario.provider.clone(),
            identities: self.job.identities(self.site.namespace()),
            staples: scenario.fleet.must_staple,
            by_account: false,
        };
        let program = self.options.exe.clone();
        let agents = self.agents(&members)?;
        let provider = self.limit.on(provider.start(config, agents, program, recorder.clone())).await?;
        let result = self.with_provider(&provider, members, identity, recorder).await;
        // The recording ends before anything is taken down: what dies then says nothing.
        let _ = recorder.finish(incomplete(&result));
        provider.stop().await;
        result
    }

    async fn with_provider(
        &self,
        provider: &Provider,
        members: Vec<(ProxyId, Option<SpiffeId>)>,
        identity: Option<SpiffeId>,
        recorder: &Recorder,
    ) -> Result<Observed, RunError> {
        let roots = Roots::default();
        super::observe::trust(&roots, provider);
        let outbound = OutboundServer::start(recorder.clone(), roots.clone()).await?;
        let config = FleetConfig {
            envoy: self.job.envoy.clone(),
            directory: self.kept.path().to_owned(),
            delivery: provider.delivery(),
            members,
            identity,
            further_contexts: self.job.scenario.fleet.contexts,
            duplicate_subscription: self.job.scenario.fleet.duplicate_subscription,
            resumption: self.job.scenario.fleet.resumption,
            must_staple: self.job.scenario.fleet.must_staple,
            foreign: self.job.scenario.fleet.foreign_certificate.then(|| ForeignConfig {
                directory: self.socket.with_file_name("foreign"),
                ttl: self.job.scenario.provider.ttl().duration(),
            }),
            lds_socket: self.job.scenario.fleet.late_listener.map(|_| self.socket.with_file_name("lds.sock")),
            socket_mounted_by: self.job.scenario.fleet.socket_file_mounted.then(|| self.options.exe.clone()),
            stats: self.job.scenario.fleet.stats,
            istio: self.job.istio.clone().map(|programs| Istio {
                programs,
                scratch: self.istio_scratch(),
                secret_ttl: self.job.scenario.provider.ttl(),
                agents_first: self.job.scenario.fleet.agents_first,
                files_socket_blocked: self.job.scenario.fleet.files_socket_blocked,
            }),
            vessel: self.job.vessel.clone(),
            #[cfg(feature = "kubernetes")]
            yard: None,
            dialled: Dialled { server: outbound.addr(), authority_pem: outbound.authority_pem().to_owned() },
        };
        let config = self.site.settle(config);
        let fleet = self.limit.on(Fleet::start(config, self.guard, recorder)).await?;
        let probes = ProbeContext::new(recorder.clone(), roots, outbound);
        let probes = match provider.delivery() {
            // Who connects to it in a cluster does so through us.
            Delivery::Socket(socket) if self.site.namespace().is_none() => probes.with_socket(socket),
            Delivery::Socket(_) | Delivery::Files(_) | Delivery::Mesh(_) => probes,
        };

        let observed = tokio::select! {
            biased;
            () = self.stop.requested() => Ok(Observed::Until("the run was interrupted".to_owned())),
            observed = self.limit.on(observe(&self.job.scenario, provider, &fleet, &probes, self.guard, self.tell, self.ready()))
                => observed,
        };
        self.tell.phase("collect");
        // Also when something went wrong: then it is wanted most.
        let collected = fleet.collect(self.kept.path(), Deadline::after(COLLECT)).await;
        if self.options.keep && !self.stop.asked() {
            self.hold(&fleet, &provider.delivery()).await;
        }
        let observed = observed?;
        collected.map_err(RunError::Collect)?;
        Ok(observed)
    }

    /// Where the proxies' own agents will serve: those of Istio, or of what issues in a cluster.
    fn agents(&self, members: &[(ProxyId, Option<SpiffeId>)]) -> Result<BTreeMap<ProxyId, Utf8PathBuf>, RunError> {
        if let Some(there) = self.site.agents(members, self.scratch)? {
            return Ok(there);
        }
        let scratch = self.istio_scratch();
        Ok(members.iter().map(|(id, _)| (id.clone(), workload_socket(&scratch, id))).collect())
    }

    /// Where Istio's programs read and write.
    fn istio_scratch(&self) -> Utf8PathBuf {
        self.scratch.join("istio")
    }

    fn ready(&self) -> Duration {
        let own = self.job.scenario.observe.ready_within.map(Span::duration);
        own.map_or(self.limit.ready(), |own| own.min(self.limit.ready()))
    }

    /// Leaves everything up until the user asks to stop.
    async fn hold(&self, fleet: &Fleet, delivery: &Delivery) {
        for p in fleet.proxies() {
            let text = format!("{} is kept: admin http://{}, inbound {}, pid {}", p.id, p.admin, p.inbound, p.pid);
            let _ = self.tell.events.send(RunEvent::Notice { text });
        }
        let text = match delivery {
            Delivery::Socket(socket) => format!("the provider's socket: {socket}; Ctrl-C goes on"),
            Delivery::Files(files) => format!("the provider's files: {files}; Ctrl-C goes on"),
            Delivery::Mesh(_) => {
                "the proxies have their certificates from agents of their own; Ctrl-C goes on".to_owned()
            }
        };
        let _ = self.tell.events.send(RunEvent::Notice { text });
        self.tell.progress("kept", 0, 0, 0);
        self.stop.hold().await;
    }
}

/// Why the recording does not reach its planned end.
fn incomplete(result: &Result<Observed, RunError>) -> Option<String> {
    match result {
        // Nothing more was to come of proxies that are not ready.
        Ok(Observed::ToTheEnd | Observed::NeverReady(_)) => None,
        Ok(Observed::Until(why)) => Some(why.clone()),
        Err(e) => Some(e.to_string()),
    }
}

/// Real time that the scenario takes by itself.
fn real_time(scenario: &Scenario) -> Duration {
    match scenario.clock {
        ClockKind::Virtual => Duration::ZERO,
        ClockKind::Real => scenario.observed().duration(),
    }
}

/// Real time by which it may be longer.
fn longer(scenario: &Scenario) -> Duration {
    match scenario.clock {
        ClockKind::Virtual => Duration::ZERO,
        ClockKind::Real => scenario.longer().duration(),
    }
}

/// A private directory for sockets and the shared offset, outside the run: its path must be short. The guard made it
/// and removes it; if the guard is lost, it goes with this value.
struct Scratch(Utf8PathBuf);

impl Scratch {
    async fn make(guard: &Guard) -> Result<Self, RunError> {
        let refused = |directory: &Utf8Path, source| RunError::Scratch { directory: directory.to_owned(), source };
        let base = Utf8PathBuf::from_path_buf(std::env::temp_dir()).map_err(|other| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "its path is not UTF-8");
            refused(Utf8Path::new(&other.to_string_lossy()), source)
        })?;
        let base = camino::absolute_utf8(&base).map_err(|source| refused(&base, source))?;
        loop {
            // The standard library seeds it from the system.
            let random = RandomState::new().hash_one(0u8) & 0xffff_ffff;
            let path = base.join(format!("rotacheck-{random:08x}"));
            match guard.make_scratch(&path).await {
                Ok(()) => return Ok(Self(path)),
                Err(ProcError::Scratch { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(ProcError::Scratch { source, .. }) => return Err(refused(&base, source)),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // As a rule there is nothing any more.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
