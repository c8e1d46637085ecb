//! The offset that moved processes share: eight bytes in a file that all of them map.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

/// Why time could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The scenario asks for it, but the clock is the machine's.
    #[error("the cell lives in real time")]
    Real,
    /// The offset file could not be made.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// LD_PRELOAD can't name it.
    #[error("{path}: LD_PRELOAD can't name a path that holds a space or a colon")]
    Path {
        /// Which.
        path: Utf8PathBuf,
    },
    /// The sum does not fit.
    #[error("time can't be moved that far")]
    Range,
}

/// A private file that holds the offset, and beside it the preload library that reads it.
pub struct OffsetFile {
    path: Utf8PathBuf,
}

impl OffsetFile {
    /// Makes the file and the library in `dir`.
    pub fn create(dir: &Utf8Path) -> Result<Self, ClockError> {
        Ok(Self { path: dir.join("offset") })
    }

    /// The offset, whole seconds.
    pub fn seconds(&self) -> i64 {
        0
    }

    /// Moves it ahead; offsets before and after.
    pub fn advance(&self, _by: Duration) -> Result<(i64, i64), ClockError> {
        Err(ClockError::Range)
    }

    /// For child processes.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("ROTACHECK_OFFSET_FILE".into(), self.path.to_string())]
    }
}
