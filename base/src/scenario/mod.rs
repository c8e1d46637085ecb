//! The scenario file: what is brought up, what is provoked and when, and what must be found.
//!
//! `file` holds the shape (and, derived from it, the JSON Schema), `read` turns a text into a checked [`Scenario`],
//! `schedule` says when what happens.

mod check;
mod document;
mod error;
mod file;
mod members;
mod nearest;
mod read;
mod real;
mod schedule;
mod span;

pub use crate::timeline::StatsInclusion;
pub use document::{Document, refusal};
pub use error::{Problem, ScenarioError};
pub use file::*;
pub use members::TRUST_DOMAIN;
pub use nearest::nearest;
pub use real::{NodeAttestation, ProviderAction, ProviderEvent, TbotSpec, TokenFrom};
pub use schedule::StepPlan;
pub use span::{Share, Span};
