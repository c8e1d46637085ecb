//! Which scenario is run on which subject, and what a run reports of it.
//!
//! A [`Library`] holds the scenarios, a [`Selection`] says which of them and on what, a [`Plan`] is the cells.

mod capability;
mod cell;
mod error;
mod library;
mod matrix;
mod outcome;
mod overrides;
mod select;
mod shard;
mod subjects;

pub use capability::{KnownDefect, known_defects, unsupported};
pub use cell::Cell;
pub use error::PlanError;
pub use library::Library;
pub use matrix::{Matrix, Product};
pub use outcome::*;
pub use overrides::Overrides;
use select::matrix_order;
pub use select::{InCluster, Plan, Selection};
pub use shard::Shard;
