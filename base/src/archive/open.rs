//! A run directory as one reads it, wherever it comes from.

use std::collections::BTreeMap;
use std::io::BufReader;

use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;

use super::confined::Confined;
use super::directory::{CELLS, DEFAULT_BASE, LATEST, PLAN, RUN, SHARD, ShardRecord, TIMELINE, VERDICT};
use super::{ArchiveError, Host, RunRecord};
use crate::plan::{CellReport, Outcome};
use crate::timeline::{CellId, Header, Timeline};

const LARGEST_RECORD: u64 = 4 << 20;
const LARGEST_VERDICT: u64 = 32 << 20;
const LARGEST_PLAN: u64 = 64 << 20;
const LARGEST_TIMELINE: u64 = 1 << 30;

/// A run that is over (or was killed), opened for reading. Nothing in it is trusted.
#[derive(Debug)]
pub struct Archive {
    files: Confined,
    record: RunRecord,
    cells: Vec<CellReport>,
    part: Option<ShardRecord>,
    problems: Vec<ArchiveError>,
}

impl Archive {
    /// Opens a run directory, the newest run of a directory of runs, or, for the word `latest`, the newest one under
    /// [`DEFAULT_BASE`].
    ///
    /// What is missing or broken in single cells is no error here: see [`Archive::problems`].
    pub fn open(path: &Utf8Path) -> Result<Self, ArchiveError> {
        let files = Confined::open(&resolve(path))?;
        let mut record: RunRecord = match json(&files, Utf8Path::new(RUN), LARGEST_RECORD) {
            Err(e) if e.is_absence() => return Err(ArchiveError::NotARun { path: files.path().to_owned() }),
            other => other?,
        };
        // A copied run is where it is now.
        record.directory = files.path().to_string();
        let mut problems = Vec::new();
        let cells = collect(&files, &record, &mut problems);
        let part = match json(&files, Utf8Path::new(SHARD), LARGEST_PLAN) {
            Ok(part) => Some(part),
            Err(e) if e.is_absence() => None,
            Err(e) => return Err(e),
        };
        Ok(Self { files, record, cells, part, problems })
    }

    /// Opens one recording by itself: a `timeline.ndjson`, or the directory of a cell that holds one. It shows as a
    /// run of one cell that nobody has judged.
    pub fn recording(path: &Utf8Path) -> Result<(Self, Timeline), ArchiveError> {
        let file = if path.is_dir() { path.join(TIMELINE) } else { path.to_owned() };
        let absolute = file.canonicalize_utf8().map_err(ArchiveError::io("open", &file))?;
        let (directory, name) = match (absolute.parent(), absolute.file_name()) {
            (Some(directory), Some(name)) => (directory, name),
            _ => return Err(ArchiveError::NotARun { path: absolute }),
        };
        let files = Confined::open(directory)?;
        let input = files.file(Utf8Path::new(name), LARGEST_TIMELINE)?;
        let timeline = Timeline::read(BufReader::new(input))
            .map_err(|e| ArchiveError::Malformed { path: absolute.clone(), why: e.to_string() })?;
        // Inside a run, the run's directory is where pages find the recording.
        let cell = timeline.header.cell.as_str();
        let run = directory.ancestors().nth(2).filter(|run| run.join(CELLS).join(cell) == directory);
        let header = &timeline.header;
        let record = RunRecord {
            id: header.cell.to_string(),
            directory: run.unwrap_or(directory).to_string(),
            started: header.started,
            duration_ms: timeline.observations.last().map(|o| u64::try_from(o.at.mono.as_millis()).unwrap_or(u64::MAX)),
            rotacheck: header.rotacheck.clone(),
            command_line: Vec::new(),
            jobs: 1,
            interrupted: false,
            require_controls: false,
            host: Host { os: "unknown".into(), arch: "unknown".into(), cpus: 0, memory_bytes: 0 },
            digests: BTreeMap::new(),
            parts: Vec::new(),
            harness_cpu_ms: None,
            children_cpu_ms: None,
        };
        let cell = from_header(header.clone(), header.cell.clone(), &record);
        Ok((Self { files, record, cells: vec![cell], part: None, problems: Vec::new() }, timeline))
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        self.files.path()
    }

    /// What the run says of itself; its directory is where it was opened.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// Which part of a plan it is.
    pub(super) fn part(&self) -> Option<&ShardRecord> {
        self.part.as_ref()
    }

    pub(super) fn files(&self) -> &Confined {
        &self.files
    }

    /// Every planned cell, in the order of the matrix. A cell that was begun and never judged is an `error`, one
    /// that was not begun `not_run`, unless the plan says that it makes no sense.
    pub fn cells(&self) -> Vec<CellReport> {
        self.cells.clone()
    }

    /// What is missing or broken, piece by piece.
    pub fn problems(&self) -> &[ArchiveError] {
        &self.problems
    }

    /// The recording of a cell; one that was cut short is read as far as it goes.
    pub fn timeline(&self, cell: &CellId) -> Result<Timeline, ArchiveError> {
        timeline(&self.files, cell)
    }
}

/// The recording of one cell of a run directory, read with the same distrust as by [`Archive`].
pub fn read_timeline(directory: &Utf8Path, cell: &CellId) -> Result<Timeline, ArchiveError> {
    timeline(&Confined::open(directory)?, cell)
}

fn resolve(path: &Utf8Path) -> Utf8PathBuf {
    if path == LATEST && !path.exists() {
        return Utf8Path::new(DEFAULT_BASE).join(LATEST);
    }
    let latest = path.join(LATEST);
    if !path.join(RUN).exists() && latest.exists() { latest } else { path.to_owned() }
}

fn collect(files: &Confined, record: &RunRecord, problems: &mut Vec<ArchiveError>) -> Vec<CellReport> {
    let mut cells: Vec<CellReport> = match json(files, Utf8Path::new(PLAN), LARGEST_PLAN) {
        Ok(plan) => plan,
        Err(e) => {
            problems.push(match e.is_absence() {
                true => ArchiveError::Missing {
                    path: files.path().join(PLAN),
                    why: "cells that were not begun do not show",
                },
                false => e,
            });
            Vec::new()
        }
    };
    let begun = names_of_cells(files, problems);
    for cell in &mut cells {
        if begun.contains(&cell.id) {
            match begun_cell(files, &cell.id, problems) {
                Some(judged) => *cell = judged,
                None => unjudged(cell, record),
            }
        } else if cell.outcome != Outcome::Unsupported {
            cell.outcome = Outcome::NotRun;
            cell.as_expected = false;
            cell.verdict = None;
            cell.reason.get_or_insert_with(|| ended(record, "begun"));
        }
    }
    for id in begun {
        if cells.iter().any(|c| c.id == id) {
            continue;
        }
        match begun_cell(files, &id, problems) {
            Some(judged) => cells.push(judged),
            // Without a plan, its timeline's header still says what it was.
            None => match timeline(files, &id) {
                Ok(timeline) => cells.push(from_header(timeline.header, id, record)),
                Err(e) => problems.push(e),
            },
        }
    }
    cells
}

fn names_of_cells(files: &Confined, problems: &mut Vec<ArchiveError>) -> Vec<CellId> {
    let names = match files.names(Utf8Path::new(CELLS)) {
        Ok(names) => names,
        Err(e) => {
            problems.push(e);
            return Vec::new();
        }
    };
    let mut cells = Vec::new();
    for name in names {
        match CellId::parse(&name) {
            Ok(id) => cells.push(id),
            Err(e) => {
                problems.push(ArchiveError::Malformed { path: files.path().join(CELLS), why: e.to_string() });
            }
        }
    }
    cells
}

/// The report of a cell that has a directory; `None` if it was not judged or its verdict cannot be used.
fn begun_cell(files: &Confined, id: &CellId, problems: &mut Vec<ArchiveError>) -> Option<CellReport> {
    let path = Utf8Path::new(CELLS).join(id.as_str());
    if !files.has_file(&path.join(TIMELINE)) {
        // Opening it says why: absent, a link, a pipe.
        problems.extend(files.file(&path.join(TIMELINE), u64::MAX).err().map(|e| match e.is_absence() {
            true => ArchiveError::Missing {
                path: files.path().join(&path).join(TIMELINE),
                why: "the cell has no recording that could be judged again",
            },
            false => e,
        }));
    }
    let verdict = path.join(VERDICT);
    match json::<CellReport>(files, &verdict, LARGEST_VERDICT) {
        Ok(report) if report.id == *id => Some(report),
        Ok(report) => {
            let why = format!("it is the verdict of {}", report.id);
            problems.push(ArchiveError::Malformed { path: files.path().join(verdict), why });
            None
        }
        Err(e) if e.is_absence() => {
            let why = "the cell was not judged";
            problems.push(ArchiveError::Missing { path: files.path().join(verdict), why });
            None
        }
        Err(e) => {
            problems.push(e);
            None
        }
    }
}

fn unjudged(cell: &mut CellReport, record: &RunRecord) {
    cell.outcome = Outcome::Error;
    cell.as_expected = false;
    cell.verdict = None;
    cell.reason = Some(ended(record, "judged"));
}

fn ended(record: &RunRecord, done: &str) -> String {
    match (record.duration_ms, record.interrupted) {
        (None, _) => format!("the run ended without a word before it was {done}"),
        (Some(_), true) => format!("the run was interrupted before it was {done}"),
        (Some(_), false) => format!("it was not {done}"),
    }
}

fn from_header(header: Header, id: CellId, record: &RunRecord) -> CellReport {
    let command = format!("rotacheck run {} --envoy {}", header.scenario, header.subject.envoy.version);
    let mut cell = CellReport {
        id,
        scenario: header.scenario,
        summary: String::new(),
        role: header.role,
        subject: header.subject,
        disclosed: Vec::new(),
        clock: header.clock,
        expect: header.expect,
        outcome: Outcome::Error,
        as_expected: false,
        reason: None,
        verdict: None,
        duration_ms: 0,
        cell_time_s: 0,
        command,
    };
    unjudged(&mut cell, record);
    cell
}

fn timeline(files: &Confined, cell: &CellId) -> Result<Timeline, ArchiveError> {
    let relative = Utf8Path::new(CELLS).join(cell.as_str()).join(TIMELINE);
    let file = files.file(&relative, LARGEST_TIMELINE)?;
    let malformed = |why: String| ArchiveError::Malformed { path: files.path().join(&relative), why };
    let timeline = Timeline::read(BufReader::new(file)).map_err(|e| malformed(e.to_string()))?;
    if timeline.header.cell != *cell {
        return Err(malformed(format!("it is the recording of {}", timeline.header.cell)));
    }
    Ok(timeline)
}

fn json<T: DeserializeOwned>(files: &Confined, relative: &Utf8Path, limit: u64) -> Result<T, ArchiveError> {
    let malformed = |why: String| ArchiveError::Malformed { path: files.path().join(relative), why };
    let text = String::from_utf8(files.read(relative, limit)?).map_err(|e| malformed(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))
}
