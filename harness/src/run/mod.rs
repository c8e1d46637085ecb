//! A run: cells in parallel, each from nothing to a verdict; signals; one ordered stream of events.

mod cell;
mod error;
mod observe;
mod stall;
mod stop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

pub use cell::CellJob;
pub use error::RunError;
pub use stop::Stop;

use crate::archive::{ArchiveError, Host, PlannedCell, RunDirectory, RunEvent, RunRecord};
use crate::plan::CellReport;
use crate::scenario::ClockKind;

/// How a run is carried out.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where runs are kept.
    pub base: Utf8PathBuf,
    /// Cells that compute at a time.
    pub jobs: u32,
    /// Longest time for one cell, beyond the real time that its scenario takes.
    pub timeout: Duration,
    /// Hold the first cell that is not as expected, with its processes, until the user has looked.
    pub keep: bool,
    /// This program, to be re-executed as the guard.
    pub exe: Utf8PathBuf,
    /// What the user typed.
    pub command_line: Vec<String>,
    /// SHA-256 of the executables, by name and version.
    pub digests: BTreeMap<String, String>,
}

/// A cell in real time waits most of the time: so many of them weigh as much as one whose time is moved.
const REAL_CELLS_PER_JOB: u32 = 4;

/// How often listeners hear that time passes.
const TICK: Duration = Duration::from_millis(100);

/// What a listener is told.
pub enum Told<'a> {
    /// Something happened.
    Event(&'a RunEvent),
    /// Time passed.
    Tick,
}

/// Carries out a run. `listen` hears every event, in the one order in which things happened.
pub async fn run(
    jobs: Vec<CellJob>,
    options: RunOptions,
    stop: Stop,
    mut listen: impl FnMut(Told<'_>),
) -> Result<Vec<CellReport>, ArchiveError> {
    let directory = RunDirectory::create(&options.base)?;
    let began = Instant::now();
    // Whoever started us may have used processor time in this very process before.
    let before = crate::proc::cpu_times();
    let mut record = record(&directory, &options);
    directory.write_record(&record)?;
    let mut reports: Vec<CellReport> = jobs.iter().map(CellJob::not_run).collect();
    directory.write_plan(&reports)?;
    let cells = jobs.iter().map(|j| PlannedCell {
        id: j.id.clone(),
        scenario: j.scenario.name.clone(),
        subject: j.subject.clone(),
    });
    listen(Told::Event(&RunEvent::RunStarted { run: record.clone(), cells: cells.collect() }));

    let (events, mut incoming) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new((options.jobs * REAL_CELLS_PER_JOB) as usize));
    let mut tasks = JoinSet::new();
    let options = Arc::new(options);
    // Cells in real time first: they take longest, and leave the processors to the others.
    let mut order: Vec<(usize, CellJob)> = jobs.into_iter().enumerate().collect();
    order.sort_by_key(|(_, job)| job.scenario.clock == ClockKind::Virtual);
    for (place, job) in order {
        let (permits, options, events) = (permits.clone(), options.clone(), events.clone());
        let (directory, stop) = (directory.clone(), stop.clone());
        tasks.spawn(async move {
            let weight = if job.scenario.clock == ClockKind::Real { 1 } else { REAL_CELLS_PER_JOB };
            let _permit = permits.acquire_many_owned(weight).await;
            if stop.asked() {
                return (place, None);
            }
            let _ = events.send(RunEvent::CellStarted { cell: job.id.clone() });
            let report = cell::run(&job, &directory, &options, &stop, &events).await;
            (place, Some(report))
        });
    }
    drop(events);

    let mut tick = tokio::time::interval(TICK);
    let mut asked = false;
    loop {
        tokio::select! {
            biased;
            Some(event) = incoming.recv() => listen(Told::Event(&event)),
            ended = tasks.join_next() => {
                // What the cell still said goes before its end.
                while let Ok(event) = incoming.try_recv() {
                    listen(Told::Event(&event));
                }
                match ended {
                    None => break,
                    Some(Ok((place, Some(report)))) => {
                        listen(Told::Event(&RunEvent::CellFinished { report: Box::new(report.clone()) }));
                        reports[place] = report;
                    }
                    Some(Ok((_, None))) => {}
                    // A cell that panicked is a bug: its report says so, and the others go on.
                    Some(Err(e)) => listen(Told::Event(&RunEvent::Notice { text: format!("bug: a cell panicked: {e}") })),
                }
            }
            () = stop.requested(), if !asked => {
                asked = true;
                listen(Told::Event(&RunEvent::Interrupted));
            }
            () = stop.forced() => {
                // Dropping the cells closes their guards' pipes; the guards end every process.
                tasks.abort_all();
                while tasks.join_next().await.is_some() {}
                break;
            }
            _ = tick.tick() => listen(Told::Tick),
        }
    }

    let cpu = crate::proc::cpu_times();
    record.duration_ms = Some(milliseconds(began.elapsed()));
    record.interrupted = stop.asked();
    record.harness_cpu_ms = Some(milliseconds(cpu.own.saturating_sub(before.own)));
    record.children_cpu_ms = Some(milliseconds(cpu.children.saturating_sub(before.children)));
    directory.write_record(&record)?;
    listen(Told::Event(&RunEvent::RunFinished { run: record, cells: reports.clone() }));
    Ok(reports)
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
        host: host(),
        digests: options.digests.clone(),
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
