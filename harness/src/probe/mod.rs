//! What is asked from outside: handshakes in both roles, the admin API, traffic, the peers of the provider's socket.
//!
//! Every probe records what it saw through the timeline's recorder, and returns it. A probe that gets no answer
//! records why: a refused connection is evidence, and blindness must never look like health.

mod admin;
mod census;
mod context;
#[cfg(test)]
mod fakes;
mod files;
mod http;
mod inbound;
mod outbound;
mod receipt;
mod sample;
mod tls;
mod traffic;

pub use admin::{Door, STATS_PATH, certs, config_dump, listeners, mtls_door, server_info, stats, version_of};
pub use census::{beside, census, census_works};
pub use context::{ProbeContext, Roots};
pub use inbound::{TlsVersion, inbound, inbound_at};
pub use outbound::{OutboundError, OutboundServer, outbound};
pub use receipt::Baseline;
pub use sample::{Depth, ExpectedLeaf, ProxySample, sample, settle};
pub use traffic::{LongLived, fresh};
