//! The scenario file: what is brought up, what is provoked and when, and what must be found.
//!
//! `file` holds the shape (and, derived from it, the JSON Schema), `read` turns a text into a checked [`Scenario`].

mod file;

pub use file::*;
