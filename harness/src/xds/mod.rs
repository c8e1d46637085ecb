//! SDS and Workload API streams, and where they are served.

use camino::Utf8PathBuf;

/// What a provider hands to a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A Unix socket that serves SDS.
    Socket(Utf8PathBuf),
}
