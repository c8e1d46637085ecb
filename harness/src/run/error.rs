//! Why a cell could not be carried out.

use crate::archive::ArchiveError;
use crate::clock::ClockError;
use crate::fleet::FleetError;
use crate::probe::OutboundError;
use crate::proc::ProcError;
use crate::provider::ProviderError;
use crate::timeline::RecordError;

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
    #[error("{0}")]
    Record(#[from] RecordError),
    /// Moved time.
    #[error("cannot move time: {0}")]
    Clock(#[from] ClockError),
    /// The guard, or a process.
    #[error("{0}")]
    Proc(#[from] ProcError),
    /// The provider.
    #[error("cannot start the provider: {0}")]
    Provider(#[from] ProviderError),
    /// The proxies.
    #[error("cannot start the proxies: {0}")]
    Fleet(#[from] FleetError),
    /// The harness's own server.
    #[error("cannot start the server that the proxies dial: {0}")]
    Outbound(#[from] OutboundError),
    /// The harness took longer than it may.
    #[error("the cell took longer than {0} s; give it more with --timeout")]
    TimedOut(u64),
}
