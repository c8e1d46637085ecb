//! A cell's life: prepare, bring up, observe, collect, tear down, judge.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::mpsc::UnboundedSender;

use super::observe::{Observed, observe};
use super::stall::StallWatch;
use super::{RunError, RunOptions, Stop, milliseconds};
use crate::archive::{CellDirectory, RunDirectory, RunEvent};
use crate::clock::{Clock, Deadline, OffsetFile};
use crate::fleet::{Dialled, Fleet, FleetConfig, expectations};
use crate::plan::{CellReport, Outcome};
use crate::probe::{OutboundServer, ProbeContext, Roots};
use crate::proc::Guard;
use crate::provider::{Fake, FakeConfig};
use crate::scenario::{ClockKind, Scenario, TRUST_DOMAIN};
use crate::timeline::{CellId, Header, Phase, ProxyId, Recorder, SCHEMA_VERSION, Source, SpiffeId, Subject, Timeline};
use crate::verdict::judge;

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
    /// The Envoy executable.
    pub envoy: Utf8PathBuf,
    /// The command that repeats just this cell.
    pub command: String,
    /// Why this scenario makes no sense on this subject.
    pub unsupported: Option<String>,
}

impl CellJob {
    /// The report of a cell that was not begun.
    pub fn not_run(&self) -> CellReport {
        CellReport {
            id: self.id.clone(),
            scenario: self.scenario.name.clone(),
            summary: self.scenario.summary.clone(),
            role: self.scenario.role,
            subject: self.subject.clone(),
            clock: self.scenario.clock,
            expect: self.scenario.expect.clone(),
            outcome: Outcome::NotRun,
            as_expected: false,
            reason: Some("it was not begun".to_owned()),
            verdict: None,
            duration_ms: 0,
            cell_time_s: 0,
            command: self.command.clone(),
        }
    }

    fn header(&self, clock: &Clock) -> Header {
        Header {
            schema_version: SCHEMA_VERSION,
            rotacheck: env!("CARGO_PKG_VERSION").to_owned(),
            cell: self.id.clone(),
            scenario: self.scenario.name.clone(),
            role: self.scenario.role,
            subject: self.subject.clone(),
            clock: self.scenario.clock,
            started: clock.now(),
            proxies: expectations(&self.scenario.fleet.members(), self.scenario.fleet.contexts),
            criteria: self.scenario.criteria(),
            expect: self.scenario.expect.clone(),
        }
    }
}

/// Where a cell tells how it gets on.
pub(super) struct Teller<'a> {
    pub(super) cell: &'a CellId,
    pub(super) events: &'a UnboundedSender<RunEvent>,
    pub(super) recorder: &'a Recorder,
}

impl Teller<'_> {
    /// Enters a phase: recorded, and shown.
    pub(super) fn phase(&self, name: &str) {
        self.recorder.record(Source::Harness, None, None, Phase { name: name.to_owned() });
        self.progress(name, 0, 0, 0);
    }

    pub(super) fn progress(&self, phase: &str, step: u32, steps: u32, cell_time_s: u64) {
        let event =
            RunEvent::CellProgress { cell: self.cell.clone(), phase: phase.to_owned(), step, steps, cell_time_s };
        // Nobody listens any more only when the run itself is over.
        let _ = self.events.send(event);
    }
}

/// Runs one cell. Whatever happens, there is a report.
pub(super) async fn run(
    job: &CellJob,
    directory: &RunDirectory,
    options: &RunOptions,
    stop: &Stop,
    events: &UnboundedSender<RunEvent>,
) -> CellReport {
    let began = Instant::now();
    let mut report = job.not_run();
    if let Some(why) = &job.unsupported {
        report.outcome = Outcome::Unsupported;
        report.as_expected = true;
        report.reason = Some(why.clone());
        return report;
    }
    let kept = match directory.cell_directory(&job.id) {
        Ok(kept) => kept,
        Err(e) => {
            report.outcome = Outcome::Error;
            report.reason = Some(RunError::from(e).to_string());
            return report;
        }
    };
    match live(job, &kept, options, stop, events).await {
        Ok((timeline, cell_time_s)) => {
            report.cell_time_s = cell_time_s;
            report.judged(judge(&timeline));
        }
        Err(e) => {
            report.outcome = Outcome::Error;
            report.reason = Some(e.to_string());
        }
    }
    if stop.asked() && report.outcome == Outcome::Inconclusive {
        report.reason = Some("the run was interrupted".to_owned());
    }
    report.duration_ms = milliseconds(began.elapsed());
    if let Err(e) = kept.write_verdict(&report) {
        report.outcome = Outcome::Error;
        report.as_expected = false;
        report.reason = Some(RunError::from(e).to_string());
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
) -> Result<(Timeline, u64), RunError> {
    kept.write_scenario(&job.yaml)?;
    let scratch = scratch()?;
    let scratch_path = Utf8Path::from_path(scratch.path()).ok_or_else(not_utf8)?;
    let clock = match job.scenario.clock {
        ClockKind::Virtual => Clock::moved(OffsetFile::create(scratch_path)?),
        ClockKind::Real => Clock::real(),
    };
    let recorder = Recorder::new(job.header(&clock), clock.clone(), Some(kept.create_timeline()?));
    let _stalls = StallWatch::start(recorder.clone());
    let tell = Teller { cell: &job.id, events, recorder: &recorder };
    tell.phase("prepare");
    let guard = Guard::start(&options.exe, vec![scratch_path.to_owned()]).await?;
    let started = clock.now();

    let living = Living { job, kept, options, stop, tell: &tell, guard: &guard, socket: scratch_path.join("sds.sock") };
    let limit = options.timeout + real_time(&job.scenario);
    let result = match tokio::time::timeout(limit, living.from_bring_up_to_collect(&recorder)).await {
        Ok(result) => result,
        Err(_) => Err(RunError::TimedOut(limit.as_secs())),
    };
    let passed = clock.now().duration_since(started).as_secs();
    let timeline = recorder.finish(incomplete(&result));
    let stopped = guard.stop().await;
    result?;
    stopped?;
    Ok((timeline?, u64::try_from(passed).unwrap_or(0)))
}

struct Living<'a> {
    job: &'a CellJob,
    kept: &'a CellDirectory,
    options: &'a RunOptions,
    stop: &'a Stop,
    tell: &'a Teller<'a>,
    guard: &'a Guard,
    socket: Utf8PathBuf,
}

/// How long proxies may take until they are ready, and to answer at the end. A busy machine takes seconds.
const READY: Duration = Duration::from_secs(30);
const COLLECT: Duration = Duration::from_secs(10);

impl Living<'_> {
    async fn from_bring_up_to_collect(&self, recorder: &Recorder) -> Result<Observed, RunError> {
        self.tell.phase("bring_up");
        let scenario = &self.job.scenario;
        let members = scenario.fleet.members();
        let provider = Fake::start(
            FakeConfig {
                socket: self.socket.clone(),
                trust_domain: TRUST_DOMAIN.to_owned(),
                spec: scenario.provider.clone(),
                identities: members.clone(),
            },
            recorder.clone(),
        )
        .await?;
        let result = self.with_provider(&provider, members, recorder).await;
        // The recording ends before anything is taken down: what dies then says nothing.
        let _ = recorder.finish(incomplete(&result));
        provider.stop().await;
        result
    }

    async fn with_provider(
        &self,
        provider: &Fake,
        members: Vec<(ProxyId, SpiffeId)>,
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
            further_contexts: self.job.scenario.fleet.contexts,
            dialled: Dialled { server: outbound.addr(), authority_pem: outbound.authority_pem().to_owned() },
        };
        let fleet = Fleet::start(config, self.guard, recorder).await?;
        let probes = ProbeContext::new(recorder.clone(), roots, outbound).with_socket(self.socket.clone());

        let observed = tokio::select! {
            biased;
            () = self.stop.requested() => Ok(Observed::Until("the run was interrupted".to_owned())),
            observed = observe(&self.job.scenario, provider, &fleet, &probes, self.tell, READY) => observed,
        };
        self.tell.phase("collect");
        // Also when something went wrong: then it is wanted most.
        let collected = fleet.collect(self.kept.path(), Deadline::after(COLLECT)).await;
        if self.options.keep && !self.stop.asked() {
            self.hold(&fleet).await;
        }
        let observed = observed?;
        collected?;
        Ok(observed)
    }

    /// Leaves everything up until the user asks to stop.
    async fn hold(&self, fleet: &Fleet) {
        for p in fleet.proxies() {
            let text = format!("{} is kept: admin http://{}, inbound {}, pid {}", p.id, p.admin, p.inbound, p.pid);
            let _ = self.tell.events.send(RunEvent::Notice { text });
        }
        let text = format!("the provider's socket: {}; Ctrl-C goes on", self.socket);
        let _ = self.tell.events.send(RunEvent::Notice { text });
        self.stop.requested().await;
    }
}

/// Why the recording does not reach its planned end.
fn incomplete(result: &Result<Observed, RunError>) -> Option<String> {
    match result {
        Ok(Observed::ToTheEnd) => None,
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

/// A private directory for sockets and the shared offset, outside the run: its path must be short.
fn scratch() -> Result<tempfile::TempDir, RunError> {
    let made = tempfile::Builder::new().prefix("rotacheck-").permissions(private()).tempdir();
    made.map_err(|source| RunError::Scratch {
        directory: Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap_or_default(),
        source,
    })
}

fn private() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o700)
}

fn not_utf8() -> RunError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "its path is not UTF-8");
    RunError::Scratch { directory: Utf8PathBuf::new(), source }
}
