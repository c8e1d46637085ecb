//! The run directory, and what is done with it.

mod event;
mod record;

pub use event::{PlannedCell, RunEvent};
pub use record::*;
