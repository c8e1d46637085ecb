//! Timelines of certificate rotation, and what they prove: `verdict` judges a `timeline`, and knows neither clock, network
//! nor process. So an old recording is judged again wherever it is, and whoever has one gets the same verdict.
//!
//! `docs/decisions/0001-rooms.md` is the map of the whole house.
#![warn(missing_docs)]
// `println!` and its like panic when nobody reads any more.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod spread;
pub mod timeline;
pub mod verdict;
