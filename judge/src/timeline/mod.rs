//! Observations, and the ledger: one indexed fold over them.
//!
//! A timeline is append-only and self-contained: its header holds what was expected, its footer says that it
//! is complete. Everything that is ever said about a cell is derived from it.

mod envoy_log;
mod fact;
mod file;
mod header;
mod ids;
mod image;
mod keys;
pub mod ledger;
mod observation;
#[cfg(test)]
mod reference;
mod request;
#[cfg(feature = "schema")]
mod schema;
mod stats;

pub use envoy_log::SdsMessage;
pub use fact::*;
pub use file::{LineTooLong, ReadError, Timeline, read_observation, write_footer, write_header, write_observation};
pub use header::*;
pub use ids::*;
pub use image::{ImageReference, InvalidImage};
pub use keys::{LogFilter, holds_private_key, log_without_private_keys, said, without_private_keys};
pub use ledger::Ledger;
pub use observation::{At, Observation, Source};
pub use request::{EnvoyRequest, InvalidProgramRequest, InvalidRequest, IstioRequest, ProgramRequest};
#[cfg(feature = "schema")]
pub use schema::schema;
pub use stats::StatsInclusion;

/// Version of the timeline's format on disk; raised when a reader of the old form would misunderstand the new one.
pub const SCHEMA_VERSION: u32 = 1;
