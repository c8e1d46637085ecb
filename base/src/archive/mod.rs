//! The run directory, and what is done with it.
//!
//! `directory` writes it while a run goes on, `open` reads one that may come from anybody, `confined` keeps such
//! reading inside the directory; `merge` joins several that are parts of one plan.

mod confined;
mod directory;
mod error;
mod event;
mod merge;
mod open;
#[cfg(feature = "kubernetes")]
mod parcel;
mod record;

#[cfg(any(test, feature = "testing"))]
pub mod sample;

pub use directory::{CellDirectory, DEFAULT_BASE, RunDirectory};
pub use error::ArchiveError;
pub use event::{PlannedCell, RunEvent};
pub use merge::{MergeError, merge};
pub use open::{Archive, read_timeline};
#[cfg(feature = "kubernetes")]
pub use parcel::{pack, unpack};
pub use record::*;

#[cfg(test)]
mod tests;
