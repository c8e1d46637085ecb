//! One timed fact from one source.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fact, ProxyId, SecretName};

/// When something was seen.
///
/// Lags are differences of `mono`; expiry and margin are compared with `wall`, which is the time of the domain in
/// which the observed party lives: moved by `offset_s` from the machine's own clock (0: real time).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Since the recording began.
    pub mono: Duration,
    /// Time of day in the observed party's domain.
    pub wall: jiff::Timestamp,
    /// Seconds by which that domain is ahead of the machine's clock.
    pub offset_s: i64,
}

/// Who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The provider's own journal: what it minted, sent and was answered.
    Provider,
    /// The relay between a proxy and a provider that is not ours.
    Tap,
    /// A subscription of the harness's own.
    Witness,
    /// The proxy's admin API.
    Admin,
    /// A TLS handshake that the harness made with the proxy's listener.
    Inbound,
    /// A TLS handshake that the proxy made with the harness's server.
    Outbound,
    /// A request through a pair of proxies.
    Traffic,
    /// The peers of the provider's socket, as the kernel tells them.
    Census,
    /// Moved time and the receipts for it.
    Clock,
    /// A process of the cell: started, ended, said something.
    Process,
    /// The harness itself.
    Harness,
    /// One that this version does not know: what it saw is kept, and ignored.
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Unknown,
}

/// One timed fact from one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Position in the timeline, from 0, without gaps.
    pub seq: u64,
    /// When it was seen.
    pub at: At,
    /// Who saw it.
    pub source: Source,
    /// The proxy that it concerns.
    pub proxy: Option<ProxyId>,
    /// The secret that it concerns.
    pub secret: Option<SecretName>,
    /// What was seen.
    pub fact: Fact,
}
