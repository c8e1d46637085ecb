//! Timelines, and the recorder that writes them: everything that is seen, asked for or pushed goes through it.

mod recorder;

pub use recorder::{RecordError, Recorder};
pub use rotacheck_judge::timeline::*;

#[cfg(test)]
mod keys;
