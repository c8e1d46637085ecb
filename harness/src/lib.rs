//! rotacheck: reproduction and conformance harness for certificate rotation in service meshes.
//!
//! `docs/decisions/0001-rooms.md` is the map: which room does what, and who may call whom.
#![warn(missing_docs)]
// `println!` and its like panic when nobody reads any more; cli writes, and may be cut off.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod fleet;
pub mod probe;
pub mod provider;
pub mod run;

pub use rotacheck_base::{archive, artifact, clock, pki, plan, proc, report, scenario, timeline, verdict, xds};
#[cfg(feature = "kubernetes")]
pub use rotacheck_base::{cluster, remote};
