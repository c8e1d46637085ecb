//! Why a cell could not be carried out.

use std::time::Duration;

use crate::archive::ArchiveError;
use crate::clock::ClockError;
use crate::fleet::FleetError;
use crate::probe::OutboundError;
use crate::proc::ProcError;
use crate::provider::ProviderError;
use crate::timeline::{ProxyId, RecordError};

/// Why a cell could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No private directory for sockets.
    #[error(
        "cannot make a scratch directory in {directory}: {source}; set TMPDIR to a writable place with a short path"
    )]
    Scratch {
        /// Where it was to be.
        directory: camino::Utf8PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The run directory.
    #[error("cannot keep the evidence: {0}")]
    Archive(#[from] ArchiveError),
    /// The recording.
    #[error("cannot keep the evidence: {0}")]
    Record(#[from] RecordError),
    /// Moved time.
    #[error("cannot move time: {0}")]
    Clock(#[from] ClockError),
    /// The guard, or a process.
    #[error("cannot {0}")]
    Proc(#[from] ProcError),
    /// The provider.
    #[error("cannot use the provider: {0}")]
    Provider(#[from] ProviderError),
    /// The proxies.
    #[error("cannot start the proxies: {0}")]
    Fleet(#[from] FleetError),
    /// What the proxies said at the end.
    #[error("cannot keep what the proxies say: {0}")]
    Collect(FleetError),
    /// The harness's own server.
    #[error("cannot start the server that the proxies dial: {0}")]
    Outbound(#[from] OutboundError),
    /// The harness took longer than it may.
    #[error("the cell took longer than {0:?}; give it more with --timeout")]
    TimedOut(Duration),
    /// The certificates' lifetime, which the provider alone knows, is no good for an observation.
    #[error("cannot observe this provider: {0}")]
    Lifetime(String),
    /// Before there was anything to judge.
    #[error("the run was interrupted")]
    Interrupted,
    /// A proxy stays in the machine's time.
    #[error("{proxy} does not live in moved time: {why}")]
    NotMoved {
        /// Which.
        proxy: ProxyId,
        /// What was seen.
        why: String,
    },
}

impl RunError {
    /// What to do about it, where the message does not say so itself.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Archive(e) => Some(e.advice()),
            Self::Record(e) => Some(e.advice()),
            Self::Clock(ClockError::Path { .. }) => Some("set TMPDIR to a path without these"),
            Self::Clock(ClockError::NoExec { .. }) => {
                Some("set TMPDIR to a directory on a file system that is not mounted noexec")
            }
            Self::Clock(ClockError::File { .. }) => Some("is there room in TMPDIR, and is it writable?"),
            Self::NotMoved { .. } => Some(
                "a statically linked Envoy, one with file capabilities, or a wrapper that clears LD_PRELOAD can't be \
                 moved: use another build, or --clock real with a short --ttl",
            ),
            Self::Provider(e) => e.hint(),
            Self::Lifetime(_) => Some("have it issue certificates that live 20 to 60 seconds"),
            Self::Fleet(e) | Self::Collect(e) => e.hint(),
            _ => None,
        }
    }

    /// The message, with what to do about it.
    pub(super) fn with_advice(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{self}; {advice}"),
            None => self.to_string(),
        }
    }
}
