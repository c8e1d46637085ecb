//! The scenario file: what is brought up, what is provoked and when, and what must be found.
//!
//! `file` holds the shape (and, derived from it, the JSON Schema), with `provider` and `fleet`; `read` turns a text into a checked [`Scenario`],
//! `schedule` says when what happens.

mod check;
mod document;
mod error;
mod file;
mod fleet;
mod members;
mod nearest;
mod provider;
mod read;
mod real;
mod schedule;
mod span;

pub use crate::timeline::StatsInclusion;
pub use document::{Document, refusal};
pub use error::{Problem, ScenarioError};
pub use file::*;
pub use fleet::*;
pub use members::TRUST_DOMAIN;
pub use nearest::nearest;
pub use provider::*;
pub use real::{FEDERATED_DOMAIN, NodeAttestation, ProviderAction, ProviderEvent, TbotSpec, TokenFrom};
pub use schedule::StepPlan;
pub use span::{Share, Span};
