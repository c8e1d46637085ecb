//! Which scenario is run on which subject, and what a run reports of it.

mod outcome;

pub use outcome::*;
