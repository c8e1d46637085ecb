//! A run: cells in parallel, each from nothing to a verdict; signals; one ordered stream of events.

#[cfg(feature = "kubernetes")]
mod attached;
mod cell;
mod error;
mod lanes;
mod observe;
#[cfg(feature = "kubernetes")]
mod parts;
mod proof;
mod site;
mod stall;
mod stop;
mod teller;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use futures::future::maybe_done;
use futures::poll;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch as watched;
use tokio::task::{JoinError, JoinSet};

#[cfg(feature = "kubernetes")]
pub use attached::{AttachError, Attachment, Attended, LeftRaised, Probe, UNKNOWN_VERSION, Witness, attend};
pub use cell::CellJob;
pub use error::RunError;
#[cfg(feature = "kubernetes")]
pub use parts::{Carried, PORT, Part, Parts, RIGHTS, delete_parts, run_parts, serve};
pub use stop::Stop;

use crate::archive::{ArchiveError, Host, PlannedCell, RunDirectory, RunEvent, RunRecord};
use crate::plan::{CellReport, Outcome, Shard};
use crate::scenario::Role;
use crate::timeline::CellId;
use lanes::{Lanes, Turn};
use proof::Proofs;
pub(crate) use proof::proofs;

/// How a run is carried out.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where runs are kept.
    pub base: Utf8PathBuf,
    /// Cells that compute at a time.
    pub jobs: u32,
    /// Cells that mostly wait, in real time, beside them.
    pub waiting: u32,
    /// Longest time for one cell, beyond the real time that its scenario takes.
    pub timeout: Duration,
    /// Hold every cell at its end, with its processes, until the user has looked.
    pub keep: bool,
    /// Refuse a pass whose checks are not proven by controls in the same run; they go first.
    pub require_controls: bool,
    /// This program, to be re-executed as the guard.
    pub exe: Utf8PathBuf,
    /// Of which plan this is which part, with every cell of that plan as it stands before it is begun.
    pub shard: Option<(Shard, Vec<CellReport>)>,
    /// What the user typed.
    pub command_line: Vec<String>,
    /// SHA-256 of the executables, by name and version.
    pub digests: BTreeMap<String, String>,
}

/// How often listeners hear that time passes.
const TICK: Duration = Duration::from_millis(100);

/// What a listener is told.
pub enum Told<'a> {
    /// Something happened.
    Event(&'a RunEvent),
    /// Time passed.
    Tick,
}

/// What became of a run.
#[derive(Debug)]
pub struct Ran {
    /// Every planned cell, in the order of the matrix.
    pub reports: Vec<CellReport>,
    /// Where the run is kept.
    pub directory: Utf8PathBuf,
    /// A cell panicked, which is a bug of rotacheck; its report says so.
    pub bug: bool,
    /// Why the run directory does not tell how the run ended.
    pub unkept: Option<ArchiveError>,
}

/// Carries out a run. `listen` hears every event, in the one order in which things happened. An error means that
/// nothing was begun.
pub async fn run(
    jobs: Vec<CellJob>,
    options: RunOptions,
    stop: Stop,
    listen: impl FnMut(Told<'_>),
) -> Result<Ran, ArchiveError> {
    carry_out(jobs, options, stop, listen, |job, run: Arc<Run>, turn| async move {
        cell::run(&job, &run.directory, &run.options, &run.stop, &run.events, &turn).await
    })
    .await
}

/// What the cells of a run share.
struct Run {
    directory: RunDirectory,
    options: RunOptions,
    stop: Stop,
    events: UnboundedSender<RunEvent>,
}

async fn carry_out<C>(
    jobs: Vec<CellJob>,
    options: RunOptions,
    stop: Stop,
    listen: impl FnMut(Told<'_>),
    cell: impl Fn(CellJob, Arc<Run>, Turn) -> C + Clone + Send + 'static,
) -> Result<Ran, ArchiveError>
where
    C: Future<Output = CellReport> + Send,
{
    let directory = RunDirectory::create(&options.base)?;
    let began = Instant::now();
    // Whoever started us may have used processor time in this very process before.
    let before = crate::proc::cpu_times();
    let mut record = record(&directory, &options);
    directory.write_record(&record)?;
    let mut reports: Vec<CellReport> = jobs.iter().map(CellJob::planned).collect();
    directory.write_plan(&reports)?;
    if let Some((shard, plan)) = &options.shard {
        directory.write_shard(*shard, plan)?;
    }
    directory.announce()?;
    let cells = jobs.iter().map(|j| PlannedCell {
        id: j.id.clone(),
        scenario: j.scenario.name.clone(),
        subject: j.subject.clone(),
    });
    let mut audience = Audience { listen, begun: BTreeSet::new() };
    audience.hear(&RunEvent::RunStarted { run: record.clone(), cells: cells.collect() });

    let (events, mut incoming) = mpsc::unbounded_channel();
    let lanes = Lanes::new(&options);
    let run = Arc::new(Run { directory, options, stop: stop.clone(), events });
    let mut tasks = JoinSet::new();
    let mut places = HashMap::new();
    // Cells in real time first: they take longest, and leave the processors to the others.
    let mut order: Vec<(usize, CellJob)> = jobs.into_iter().enumerate().collect();
    order.sort_by_key(|(_, job)| !lanes::waits(job));
    let is_control = |job: &CellJob| run.options.require_controls && job.scenario.role == Role::Control;
    // Places of the controls that are not over yet; the others wait for what these prove.
    let mut unproven: BTreeSet<usize> =
        order.iter().filter(|(_, job)| is_control(job)).map(|(place, _)| *place).collect();
    let nothing =
        || unproven.is_empty().then(|| if run.options.require_controls { proven_by(&reports) } else { Proofs::new() });
    let (prove, proven) = watched::channel(nothing());
    for (place, mut job) in order {
        let (run, cell) = (run.clone(), cell.clone());
        let mut proven = (!unproven.contains(&place)).then(|| proven.clone());
        let mut turn = Box::pin(maybe_done(lanes.turn(&job)));
        // Tasks begin in any order; turns are given in that of the first polls. Who waits for proofs must not hold one.
        if proven.as_ref().is_none_or(|proven| proven.borrow().is_some()) {
            let _ = poll!(turn.as_mut());
        }
        let task = tasks.spawn(async move {
            if let Some(proven) = &mut proven
                && let Ok(known) = proven.wait_for(Option::is_some).await
            {
                let here = known.as_ref().and_then(|known| known.get(&job.subject.envoy));
                job.unproven = here.cloned().unwrap_or_default();
            }
            turn.as_mut().await;
            let turn = turn.as_mut().take_output()?;
            if run.stop.asked() {
                return None;
            }
            let _ = run.events.send(RunEvent::CellStarted { cell: job.id.clone() });
            Some(cell(job, run, turn).await)
        });
        places.insert(task.id(), place);
    }

    let mut tick = tokio::time::interval(TICK);
    let (mut asked, mut killed, mut bug) = (false, false, false);
    loop {
        tokio::select! {
            biased;
            Some(event) = incoming.recv() => audience.hear(&event),
            ended = tasks.join_next_with_id() => {
                // What the cell still said goes before its end.
                while let Ok(event) = incoming.try_recv() {
                    audience.hear(&event);
                }
                let (place, report) = match ended {
                    None => break,
                    Some(Ok((task, report))) => (places[&task], report),
                    Some(Err(e)) => {
                        let place = places[&e.id()];
                        bug |= e.is_panic();
                        let begun = audience.begun.contains(&reports[place].id);
                        (place, begun.then(|| broken_off(&run.directory, &reports[place], e)))
                    }
                };
                if let Some(report) = report {
                    audience.hear(&RunEvent::CellFinished { report: Box::new(report.clone()) });
                    reports[place] = report;
                }
                if unproven.remove(&place) && unproven.is_empty() {
                    prove.send_replace(Some(proven_by(&reports)));
                }
            }
            () = stop.requested(), if !asked => {
                asked = true;
                audience.hear(&RunEvent::Interrupted);
            }
            () = stop.forced(), if !killed => {
                killed = true;
                // Dropping the cells closes their guards' pipes; the guards end every process.
                tasks.abort_all();
            }
            _ = tick.tick() => (audience.listen)(Told::Tick),
        }
    }

    let cpu = crate::proc::cpu_times();
    record.duration_ms = Some(milliseconds(began.elapsed()));
    record.interrupted = stop.asked();
    record.harness_cpu_ms = Some(milliseconds(cpu.own.saturating_sub(before.own)));
    record.children_cpu_ms = Some(milliseconds(cpu.children.saturating_sub(before.children)));
    // Whoever waits for reports gets them, also where the run directory can't take anything any more.
    let unkept = run.directory.write_record(&record).err();
    audience.hear(&RunEvent::RunFinished { run: record, cells: reports.clone() });
    Ok(Ran { reports, directory: run.directory.path().to_owned(), bug, unkept })
}

/// Who listens, and what they have heard so far.
struct Audience<L> {
    listen: L,
    begun: BTreeSet<CellId>,
}

impl<L: FnMut(Told<'_>)> Audience<L> {
    fn hear(&mut self, event: &RunEvent) {
        if let RunEvent::CellStarted { cell } = event {
            self.begun.insert(cell.clone());
        }
        (self.listen)(Told::Event(event));
    }
}

fn proven_by(reports: &[CellReport]) -> Proofs {
    proofs(reports.iter().map(|cell| cell.subject.envoy.clone()), reports)
}

/// The report of a cell that gave none: it panicked, or was aborted.
fn broken_off(directory: &RunDirectory, planned: &CellReport, why: JoinError) -> CellReport {
    let reason = match why.try_into_panic() {
        Ok(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            format!("this is a bug of rotacheck, please report it with what stands on standard error: {message}")
        }
        Err(_) => "it was cut short by a second interrupt".to_owned(),
    };
    let report = CellReport { outcome: Outcome::Error, reason: Some(reason), ..planned.clone() };
    // Should it fail, the archive shows the cell as it stands in the plan.
    let _ = directory.cell_directory(&planned.id).and_then(|kept| kept.write_verdict(&report));
    report
}

fn record(directory: &RunDirectory, options: &RunOptions) -> RunRecord {
    RunRecord {
        id: directory.id().to_owned(),
        directory: directory.path().to_string(),
        started: jiff::Timestamp::now(),
        duration_ms: None,
        rotacheck: env!("CARGO_PKG_VERSION").to_owned(),
        command_line: options.command_line.clone(),
        jobs: options.jobs,
        interrupted: false,
        require_controls: options.require_controls,
        host: host(),
        digests: options.digests.clone(),
        parts: Vec::new(),
        harness_cpu_ms: None,
        children_cpu_ms: None,
    }
}

fn host() -> Host {
    let name = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    Host {
        os: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
        arch: name.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
    }
}

fn milliseconds(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Archive, sample};

    pub(super) fn job(report: &CellReport) -> CellJob {
        CellJob {
            id: report.id.clone(),
            scenario: crate::scenario::Scenario::read(SCENARIO, "rotation.yaml").unwrap(),
            yaml: SCENARIO.to_owned(),
            subject: report.subject.clone(),
            envoy: "/x/envoy".into(),
            istio: None,
            spire: None,
            vessel: None,
            #[cfg(feature = "kubernetes")]
            place: None,
            #[cfg(feature = "kubernetes")]
            asked: None,
            disclosed: Vec::new(),
            command: report.command.clone(),
            unsupported: None,
            unproven: Vec::new(),
        }
    }

    const SCENARIO: &str = "name: rotation\nsummary: It renews.\nprovider:\n  ttl: 2m\n";

    pub(super) fn options(base: Utf8PathBuf) -> RunOptions {
        RunOptions {
            base,
            jobs: 2,
            waiting: 8,
            timeout: Duration::from_secs(60),
            keep: false,
            require_controls: false,
            exe: "/x/rotacheck".into(),
            shard: None,
            command_line: Vec::new(),
            digests: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn a_cell_that_panics_is_an_error_and_a_bug_and_leaves_the_others_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let base = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let options = options(base.clone());
        let jobs: Vec<CellJob> = sample::every_outcome().iter().take(2).map(job).collect();
        let panics = jobs[0].id.clone();
        let cell = move |job: CellJob, _, _| {
            let panics = panics.clone();
            async move {
                assert!(job.id != panics, "three is not four");
                CellReport { outcome: Outcome::Pass, as_expected: true, ..job.planned() }
            }
        };
        let ran = carry_out(jobs, options, Stop::default(), |_| {}, cell).await.unwrap();
        assert!(ran.bug);
        let outcomes: Vec<_> = ran.reports.iter().map(|r| r.outcome).collect();
        assert_eq!(outcomes, [Outcome::Error, Outcome::Pass]);
        let reason = ran.reports[0].reason.as_deref().unwrap();
        assert!(reason.contains("bug of rotacheck") && reason.contains("three is not four"), "{reason}");
        let kept = Archive::open(&base.join("latest")).unwrap().cells();
        assert_eq!((kept[0].outcome, &kept[0].reason), (Outcome::Error, &ran.reports[0].reason));
    }
}
