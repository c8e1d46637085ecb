//! What can go wrong with a run directory.

use std::io::ErrorKind;

use camino::Utf8PathBuf;

/// A run directory could not be written or read. Reads well after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system said no (full, read-only, no permission).
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No run is there.
    #[error("read {path} as a run: it holds no run.json")]
    NotARun {
        /// The directory.
        path: Utf8PathBuf,
    },
    /// A symbolic link inside of a run directory could lead anywhere.
    #[error("read {path}: it is a symbolic link, and none belongs into a run directory")]
    Symlink {
        /// The link.
        path: Utf8PathBuf,
    },
    /// A directory, a pipe or a device where a file should be.
    #[error("read {path}: it is not a regular file")]
    NotAFile {
        /// It.
        path: Utf8PathBuf,
    },
    /// Larger than anything that a run writes.
    #[error("read {path}: it is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: Utf8PathBuf,
        /// What is read at most.
        limit: u64,
    },
    /// It is not what its name says.
    #[error("read {path}: {why}")]
    Malformed {
        /// The file.
        path: Utf8PathBuf,
        /// In words.
        why: String,
    },
    /// A piece that should be there is not.
    #[error("find {path}: {why}")]
    Missing {
        /// The piece.
        path: Utf8PathBuf,
        /// What follows from it.
        why: &'static str,
    },
}

impl ArchiveError {
    pub(super) fn io(action: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: plain(source) }
    }

    /// What to do about one that came up while a run was written.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                "the disk is full: make room, or keep runs elsewhere with --runs DIR"
            }
            _ => "keep runs elsewhere with --runs DIR",
        }
    }

    /// Whether it is just that nothing is there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// Temporary files add their random names to the errors of the system, which say nothing to anybody.
fn plain(error: std::io::Error) -> std::io::Error {
    match error.to_string().split_once(" at path \"") {
        Some((why, _)) => std::io::Error::new(error.kind(), why),
        None => error,
    }
}
