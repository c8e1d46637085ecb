//! The run directory as a run writes it.
//!
//! ```text
//! rotacheck-runs/
//!   latest -> 20261124T173555Z-3f9c
//!   20261124T173555Z-3f9c/           0700
//!     run.json                       the run; replaced as a whole
//!     plan.json                      every planned cell, in the order of the matrix, as it stands before it is begun
//!     shard.json                     of a part of a plan: which, and the whole plan
//!     cells/<cell>/
//!       scenario.yaml
//!       timeline.ndjson
//!       verdict.json                 appears when the cell is judged
//!       proxies/<proxy>/             bootstrap, log, admin answers
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{ArchiveError, RunRecord};
use crate::plan::{CellReport, Shard};
use crate::timeline::{CellId, ProxyId};

/// Where runs are kept, in the current directory, unless the user says otherwise.
pub const DEFAULT_BASE: &str = "rotacheck-runs";

pub(super) const LATEST: &str = "latest";
pub(super) const RUN: &str = "run.json";
pub(super) const PLAN: &str = "plan.json";
pub(super) const SHARD: &str = "shard.json";
pub(super) const CELLS: &str = "cells";
pub(super) const SCENARIO: &str = "scenario.yaml";
pub(super) const TIMELINE: &str = "timeline.ndjson";
pub(super) const VERDICT: &str = "verdict.json";

/// The directory of a run that is going on.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    id: String,
    path: Utf8PathBuf,
}

impl RunDirectory {
    /// Makes a private directory under `base` (made as well, if need be).
    pub fn create(base: &Utf8Path) -> Result<Self, ArchiveError> {
        private().recursive(true).create(base).map_err(ArchiveError::io("make the directory", base))?;
        // Children run in directories of their own: a relative path would mean something else to them.
        let base = base.canonicalize_utf8().map_err(ArchiveError::io("resolve", base))?;
        let started = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let (id, path) = loop {
            let id = format!("{started}-{:04x}", random());
            let path = base.join(&id);
            match private().create(&path) {
                Ok(()) => break (id, path),
                // Another run of the same second drew the same number.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(ArchiveError::io("make the directory", path)(e)),
            }
        };
        let cells = path.join(CELLS);
        private().create(&cells).map_err(ArchiveError::io("make the directory", cells))?;
        Ok(Self { id, path })
    }

    /// Lets `latest` beside it point to it: when there is something to be read, for it may be killed at any moment.
    pub fn announce(&self) -> Result<(), ArchiveError> {
        point_latest(self.path.parent().unwrap_or(&self.path), &self.id)
    }

    /// The run's name: its start in UTC and a random part, such as `20261124T173555Z-3f9c`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Writes `run.json`; whoever reads it sees the old one or the new one.
    pub fn write_record(&self, record: &RunRecord) -> Result<(), ArchiveError> {
        write_json(&self.path, RUN, record)
    }

    /// Writes down what is going to be run, so that a run that is killed still tells what it left out. Each report
    /// is the cell as it stands before it is begun (`not_run`).
    pub fn write_plan(&self, cells: &[CellReport]) -> Result<(), ArchiveError> {
        write_json(&self.path, PLAN, cells)
    }

    /// Writes down of which plan this run is which part, so that a part that gets lost is missed.
    pub fn write_shard(&self, shard: Shard, plan: &[CellReport]) -> Result<(), ArchiveError> {
        write_json(&self.path, SHARD, &ShardRecord { shard, plan: plan.to_vec() })
    }

    /// The directory of a cell, made if it isn't there.
    pub fn cell_directory(&self, cell: &CellId) -> Result<CellDirectory, ArchiveError> {
        let path = self.path.join(CELLS).join(cell.as_str());
        private().recursive(true).create(&path).map_err(ArchiveError::io("make the directory", &path))?;
        Ok(CellDirectory { path })
    }
}

/// `shard.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardRecord {
    /// Which part.
    pub(super) shard: Shard,
    /// Every cell of the whole plan, as it stands before it is begun.
    pub(super) plan: Vec<CellReport>,
}

/// The directory of one cell.
#[derive(Debug, Clone)]
pub struct CellDirectory {
    path: Utf8PathBuf,
}

impl CellDirectory {
    /// The directory, absolute.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Keeps the scenario as it was read.
    pub fn write_scenario(&self, yaml: &str) -> Result<(), ArchiveError> {
        replace(&self.path, SCENARIO, yaml.as_bytes())
    }

    /// The file for the timeline, empty. A cell has one recording: a second one is refused.
    pub fn create_timeline(&self) -> Result<File, ArchiveError> {
        let path = self.path.join(TIMELINE);
        private_file(&path).map_err(ArchiveError::io("make", path))
    }

    /// Writes `verdict.json`; whoever reads it sees the old one or the new one.
    pub fn write_verdict(&self, report: &CellReport) -> Result<(), ArchiveError> {
        write_json(&self.path, VERDICT, report)
    }

    /// The directory for what belongs to one proxy: bootstrap, log, admin answers.
    pub fn proxy_directory(&self, proxy: &ProxyId) -> Result<Utf8PathBuf, ArchiveError> {
        let path = self.path.join("proxies").join(proxy.as_str());
        private().recursive(true).create(&path).map_err(ArchiveError::io("make the directory", &path))?;
        Ok(path)
    }
}

/// A file that is not there yet.
pub(super) fn private_file(path: &Utf8Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Enough to tell apart runs of the same second; the standard library seeds it from the system.
fn random() -> u16 {
    (RandomState::new().hash_one(0u8) & 0xffff) as u16
}

/// A link under another name first, then renamed: there is a `latest` at every moment.
fn point_latest(base: &Utf8Path, id: &str) -> Result<(), ArchiveError> {
    let fresh = base.join(format!(".{LATEST}-{id}"));
    std::os::unix::fs::symlink(id, &fresh).map_err(ArchiveError::io("make the link", &fresh))?;
    std::fs::rename(&fresh, base.join(LATEST)).map_err(|e| {
        let _ = std::fs::remove_file(&fresh);
        ArchiveError::io("replace the link", base.join(LATEST))(e)
    })
}

fn write_json(directory: &Utf8Path, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), ArchiveError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| ArchiveError::Malformed { path: directory.join(name), why: e.to_string() })?;
    bytes.push(b'\n');
    replace(directory, name, &bytes)
}

/// Writes a file as a whole: under another name in the same directory, then renamed.
fn replace(directory: &Utf8Path, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    let path = directory.join(name);
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        .tempfile_in(directory)
        .map_err(ArchiveError::io("write", &path))?;
    file.write_all(bytes).map_err(ArchiveError::io("write", &path))?;
    file.persist(&path).map_err(|e| ArchiveError::io("write", &path)(e.error))?;
    Ok(())
}
