//! rotacheck: reproduction and conformance harness for certificate rotation in service meshes.
//!
//! `docs/decisions/0001-rooms.md` is the map: which room does what, and who may call whom.
#![warn(missing_docs)]
// `println!` and its like panic when nobody reads any more; cli writes, and may be cut off.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod archive;
pub mod artifact;
pub mod cli;
pub mod clock;
#[cfg(feature = "kubernetes")]
pub mod cluster;
pub mod fleet;
pub mod pki;
pub mod plan;
pub mod probe;
pub mod proc;
pub mod provider;
#[cfg(feature = "kubernetes")]
pub mod remote;
pub mod report;
pub mod run;
pub mod scenario;
pub mod timeline;
pub mod xds;

pub use rotacheck_judge::verdict;
