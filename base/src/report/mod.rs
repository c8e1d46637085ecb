//! Listeners of events and readers of archives: the matrix and its evidence, for people and for machines.
//!
//! `mark`, `matrix`, `differ` and `text` are what all formats share: how a cell shows, where, what columns that end alike
//! do not have in common, and in which signs. Each format
//! has a folder of its own.

mod differ;
mod file;
pub mod html;
pub mod json;
pub mod junit;
mod mark;
pub mod markdown;
mod matrix;
mod spec;
pub mod terminal;
mod text;

#[cfg(test)]
mod agreement;

use camino::Utf8PathBuf;

use crate::archive::{Archive, RunEvent};

pub use differ::Difference;
pub use mark::{Counts, Mark};
pub use matrix::Matrix;
pub use spec::{FileFormat, InvalidSpec, ReportSpec};

/// A report could not be made. Reads well after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It could not be written.
    #[error("write the report {path}: {source}")]
    Write {
        /// Where to.
        path: Utf8PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The terminal went away.
    #[error("write to the terminal: {0}")]
    Terminal(std::io::Error),
    /// It could not be put into its format.
    #[error("make the {format} report: {why}")]
    Format {
        /// Which.
        format: &'static str,
        /// In words.
        why: String,
    },
}

/// A listener of a run. The one open list: whatever wants to tell of runs implements it.
pub trait Reporter: Send {
    /// Something happened.
    fn event(&mut self, event: &RunEvent) -> Result<(), ReportError>;

    /// Time passed; called about once a second, whether or not something happens.
    fn tick(&mut self) -> Result<(), ReportError> {
        Ok(())
    }
}

/// Tells the end of a finished run, as its reporters would have heard it.
pub fn replay(archive: &Archive, reporter: &mut dyn Reporter) -> Result<(), ReportError> {
    reporter.event(&RunEvent::RunFinished { run: archive.record().clone(), cells: archive.cells() })
}
