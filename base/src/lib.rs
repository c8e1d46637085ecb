//! What rotacheck stands on: scenarios and plans, programs and processes, certificates and the protocols that carry them,
//! run directories and reports. Nothing here brings up a mesh; package `rotacheck` does.
//!
//! `docs/decisions/0001-rooms.md` is the map of the whole house.
#![warn(missing_docs)]
// `println!` and its like panic when nobody reads any more.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod archive;
pub mod artifact;
pub mod clock;
#[cfg(feature = "kubernetes")]
pub mod cluster;
pub mod pki;
pub mod plan;
pub mod proc;
#[cfg(feature = "kubernetes")]
pub mod remote;
pub mod report;
pub mod scenario;
pub mod timeline;
pub mod xds;

pub use rotacheck_judge::verdict;
