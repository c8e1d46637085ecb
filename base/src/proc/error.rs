//! Why a process could not be started, steered or cleared away.

use std::io;

use camino::Utf8PathBuf;

use super::Exit;

/// Why a process could not be started, steered or cleared away.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// The guard itself did not start.
    #[error("start the guard process {exe}: {source}")]
    GuardStart {
        /// The executable.
        exe: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something killed the guard, or it failed.
    #[error("go on without the guard process: it ended before its time")]
    GuardLost,
    /// The guard did not answer in time.
    #[error("wait longer for the guard process: no answer in {0} s")]
    GuardSilent(u64),
    /// The guard could not make a scratch directory.
    #[error("make the scratch directory {path}: {source}")]
    Scratch {
        /// Where.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The executable is not there.
    #[error("start {what}: there is no {program}")]
    NoProgram {
        /// For whom.
        what: String,
        /// The executable.
        program: Utf8PathBuf,
    },
    /// The executable is there, but what it needs to be loaded is not.
    #[error("start {what}: {program} is there, but not its loader or interpreter (built for another system?)")]
    NoLoader {
        /// For whom.
        what: String,
        /// The executable.
        program: Utf8PathBuf,
    },
    /// The executable does not start.
    #[error("start {what}: {program}: {source}")]
    Program {
        /// For whom.
        what: String,
        /// The executable.
        program: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The working directory is not usable.
    #[error("start {what} in {cwd}: {source}")]
    Cwd {
        /// For whom.
        what: String,
        /// The directory.
        cwd: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log file can't be written.
    #[error("start {what}: its log {log}: {source}")]
    Log {
        /// For whom.
        what: String,
        /// The file.
        log: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process has ended, so it can't be sent a signal.
    #[error("signal {what}: it {exit}")]
    Ended {
        /// Whom.
        what: String,
        /// How.
        exit: Exit,
    },
    /// The kernel refused the signal.
    #[error("signal {what}: {source}")]
    Signal {
        /// Whom.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Processes or scratch directories withstood the clean-up.
    #[error("clean up: {} left", .0.join(", "))]
    Left(Vec<String>),
}
