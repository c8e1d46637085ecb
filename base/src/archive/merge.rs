//! Several runs joined into one: parts of a plan that ran on several machines, or plans of their own.

use std::collections::BTreeMap;
use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::confined::Confined;
use super::directory::{CELLS, RUN, ShardRecord, private, private_file};
use super::{Archive, ArchiveError, Host, Part, RunDirectory, RunRecord};
use crate::plan::{CellReport, Outcome, Shard};
use crate::timeline::CellId;

/// What one cell may have kept: files, the bytes of each, directories in one another.
const MOST_FILES: usize = 10_000;
const LARGEST_FILE: u64 = 1 << 30;
const DEEPEST: usize = 8;

/// Why runs can't be joined. Reads well after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One of them can't be read, or the new one not written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There are two answers, and nobody may choose.
    #[error("merge {a} and {b}: both ran {cell}")]
    Twice {
        /// The cell.
        cell: CellId,
        /// One run.
        a: Utf8PathBuf,
        /// The other.
        b: Utf8PathBuf,
    },
    /// Parts of something else.
    #[error("merge {a} and {b}: they are parts of different plans")]
    DifferentPlans {
        /// One run.
        a: Utf8PathBuf,
        /// The other.
        b: Utf8PathBuf,
    },
    /// The same name for different programs.
    #[error("merge {a} and {b}: {program} was another executable in each")]
    DifferentPrograms {
        /// Name and version.
        program: String,
        /// One run.
        a: Utf8PathBuf,
        /// The other.
        b: Utf8PathBuf,
    },
}

/// Joins runs into a new one under `base`, and gives it with the parts of the plan that are missing; their cells were
/// not run. Nothing in the runs is trusted.
pub fn merge(runs: &[Archive], base: &Utf8Path) -> Result<(RunDirectory, Vec<Shard>), MergeError> {
    let (plan, missing) = plan(runs)?;
    let begun = begun(runs)?;
    let digests = digests(runs)?;
    let directory = RunDirectory::create(base)?;
    match write(runs, &directory, &plan, &begun, digests) {
        Ok(()) => Ok((directory, missing)),
        Err(e) => {
            // Half of the evidence would look like all of it.
            let _ = std::fs::remove_dir_all(directory.path());
            Err(e.into())
        }
    }
}

/// Every cell that should have been run, each once; and the parts that are not there.
fn plan(runs: &[Archive]) -> Result<(Vec<CellReport>, Vec<Shard>), MergeError> {
    let mut cells: Vec<CellReport> = Vec::new();
    let mut first: Option<(&Archive, &ShardRecord)> = None;
    let mut given = Vec::new();
    for run in runs {
        let Some(part) = run.part() else { continue };
        let ids = |part: &ShardRecord| part.plan.iter().map(|cell| cell.id.clone()).collect::<Vec<_>>();
        match first {
            Some((other, plan)) if plan.shard.of() != part.shard.of() || ids(plan) != ids(part) => {
                return Err(MergeError::DifferentPlans { a: other.path().to_owned(), b: run.path().to_owned() });
            }
            Some(_) => {}
            None => {
                first = Some((run, part));
                cells.clone_from(&part.plan);
            }
        }
        given.push(part.shard);
    }
    let all = first.map_or(0, |(_, part)| part.shard.of());
    let missing: Vec<Shard> = Shard::all(all).filter(|shard| !given.contains(shard)).collect();
    for (place, cell) in cells.iter_mut().enumerate() {
        if let Some(shard) = missing.iter().find(|shard| shard.has(place))
            && cell.outcome != Outcome::Unsupported
        {
            cell.reason = Some(format!("its part of the plan, {shard}, was not among the runs that were merged"));
        }
    }
    for run in runs.iter().filter(|run| run.part().is_none()) {
        for cell in run.cells() {
            if !cells.iter().any(|other| other.id == cell.id) {
                cells.push(cell);
            }
        }
    }
    Ok((cells, missing))
}

/// Which run has which cell.
fn begun(runs: &[Archive]) -> Result<BTreeMap<CellId, &Archive>, MergeError> {
    let mut begun: BTreeMap<CellId, &Archive> = BTreeMap::new();
    for run in runs {
        for name in run.files().names(Utf8Path::new(CELLS))? {
            let Ok(cell) = CellId::parse(&name) else { continue };
            if let Some(other) = begun.insert(cell.clone(), run) {
                return Err(MergeError::Twice { cell, a: other.path().to_owned(), b: run.path().to_owned() });
            }
        }
    }
    Ok(begun)
}

fn digests(runs: &[Archive]) -> Result<BTreeMap<String, String>, MergeError> {
    let mut digests: BTreeMap<String, (String, &Archive)> = BTreeMap::new();
    for run in runs {
        for (program, digest) in &run.record().digests {
            let (known, other) = digests.entry(program.clone()).or_insert_with(|| (digest.clone(), run));
            if known != digest {
                let (a, b) = (other.path().to_owned(), run.path().to_owned());
                return Err(MergeError::DifferentPrograms { program: program.clone(), a, b });
            }
        }
    }
    Ok(digests.into_iter().map(|(program, (digest, _))| (program, digest)).collect())
}

fn write(
    runs: &[Archive],
    directory: &RunDirectory,
    plan: &[CellReport],
    begun: &BTreeMap<CellId, &Archive>,
    digests: BTreeMap<String, String>,
) -> Result<(), ArchiveError> {
    for (cell, run) in begun {
        let kept = directory.cell_directory(cell)?;
        let mut files = 0;
        copy(run.files(), &Utf8Path::new(CELLS).join(cell.as_str()), kept.path(), DEEPEST, &mut files)?;
    }
    let planned: Vec<CellReport> = plan.iter().map(as_planned).collect();
    directory.write_plan(&planned)?;
    directory.write_record(&record(runs, directory, digests)?)?;
    directory.announce()
}

/// As it stood before it was begun.
fn as_planned(cell: &CellReport) -> CellReport {
    if cell.outcome == Outcome::Unsupported {
        return cell.clone();
    }
    CellReport { outcome: Outcome::NotRun, as_expected: false, verdict: None, ..cell.clone() }
}

fn copy(
    from: &Confined,
    relative: &Utf8Path,
    to: &Utf8Path,
    deeper: usize,
    files: &mut usize,
) -> Result<(), ArchiveError> {
    let refused = |why: &str| ArchiveError::Malformed { path: from.path().join(relative), why: why.to_owned() };
    if deeper == 0 {
        return Err(refused("its directories lie deeper in one another than those of any run"));
    }
    for name in from.names(relative)? {
        *files += 1;
        if *files > MOST_FILES {
            return Err(refused("there are more files than any cell keeps"));
        }
        let (inner, target) = (relative.join(&name), to.join(&name));
        if from.is_directory(&inner)? {
            private().recursive(true).create(&target).map_err(ArchiveError::io("make the directory", &target))?;
            copy(from, &inner, &target, deeper - 1, files)?;
        } else {
            let mut input = from.file(&inner, LARGEST_FILE)?;
            let mut output = private_file(&target).map_err(ArchiveError::io("write", &target))?;
            std::io::copy(&mut input, &mut output).map_err(ArchiveError::io("write", &target))?;
            output.flush().map_err(ArchiveError::io("write", &target))?;
        }
    }
    Ok(())
}

/// When a run ended, if that is known. A duration may be any number that somebody wrote.
fn end(run: &Archive) -> Result<Option<jiff::Timestamp>, ArchiveError> {
    let RunRecord { started, duration_ms, .. } = run.record();
    let Some(duration_ms) = duration_ms else { return Ok(None) };
    let end = i64::try_from(*duration_ms).ok();
    let end = end.and_then(|ms| started.checked_add(jiff::SignedDuration::from_millis(ms)).ok());
    let why = || format!("with a duration_ms of {duration_ms} it would have ended after the year 9999");
    end.map(Some).ok_or_else(|| ArchiveError::Malformed { path: run.path().join(RUN), why: why() })
}

fn record(
    runs: &[Archive],
    directory: &RunDirectory,
    digests: BTreeMap<String, String>,
) -> Result<RunRecord, ArchiveError> {
    let records = || runs.iter().map(Archive::record);
    let started = records().map(|r| r.started).min().unwrap_or_default();
    // They may have run at the same time: from the first start to the last end, if each of them has one.
    let ends = runs.iter().map(end).collect::<Result<Vec<_>, _>>()?;
    let ended = ends.into_iter().collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
    let duration_ms = ended.and_then(|ended| u64::try_from(ended.duration_since(started).as_millis()).ok());
    let sum =
        |of: fn(&RunRecord) -> Option<u64>| records().map(of).try_fold(0u64, |sum, one| Some(sum.saturating_add(one?)));
    Ok(RunRecord {
        id: directory.id().to_owned(),
        directory: directory.path().to_string(),
        started,
        duration_ms,
        rotacheck: env!("CARGO_PKG_VERSION").to_owned(),
        command_line: std::iter::once("rotacheck".to_owned())
            .chain(std::iter::once("merge".to_owned()))
            .chain(records().map(|r| r.id.clone()))
            .collect(),
        jobs: records().map(|r| r.jobs).fold(0, u32::saturating_add),
        interrupted: records().any(|r| r.interrupted),
        require_controls: records().any(|r| r.require_controls),
        host: together(records().map(|r| &r.host)),
        digests,
        parts: runs.iter().map(part).collect(),
        harness_cpu_ms: sum(|r| r.harness_cpu_ms),
        children_cpu_ms: sum(|r| r.children_cpu_ms),
    })
}

fn part(run: &Archive) -> Part {
    let RunRecord { id, started, duration_ms, host, .. } = run.record().clone();
    Part { id, shard: run.part().map(|part| part.shard.to_string()), started, duration_ms, host }
}

fn together<'a>(hosts: impl Iterator<Item = &'a Host>) -> Host {
    let (mut systems, mut processors): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut cpus, mut memory_bytes) = (0u32, 0u64);
    for host in hosts {
        for (all, one) in [(&mut systems, host.os.as_str()), (&mut processors, host.arch.as_str())] {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        cpus = cpus.saturating_add(host.cpus);
        memory_bytes = memory_bytes.saturating_add(host.memory_bytes);
    }
    Host { os: systems.join(", "), arch: processors.join(", "), cpus, memory_bytes }
}
