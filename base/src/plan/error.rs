//! Why there is no plan.

use camino::Utf8PathBuf;

use crate::scenario::{Problem, ScenarioError};

/// Why there is no plan. `Unreadable` reads well after "cannot"; the others are sentences.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A scenario or the matrix is invalid.
    #[error(transparent)]
    Invalid(#[from] ScenarioError),
    /// A file or directory cannot be read.
    #[error("read {path}: {source}")]
    Unreadable {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A scenario and the command line contradict each other.
    #[error("{scenario} cannot be run with {options}: {}", problems.first().map_or("", |problem| problem.message.as_str()))]
    Overridden {
        /// The scenario's name.
        scenario: String,
        /// The options that change it.
        options: String,
        /// What is wrong then.
        problems: Vec<Problem>,
    },
    /// A pattern matches no scenario.
    #[error("no scenario is called {pattern:?}")]
    NothingMatches {
        /// As given.
        pattern: String,
        /// What was probably meant.
        near: Option<String>,
        /// What there is.
        names: Vec<String>,
    },
    /// No Istio is to take part, and one is named.
    #[error("without Istio's agent there is no Istio, and --istio names one")]
    IstioWithoutAgent,
    /// Istio's agent is to start the proxies, and no Istio is named.
    #[error("{scenario} needs an Istio, and neither matrix.yaml nor the command line names one")]
    NoIstio {
        /// The scenario's name.
        scenario: String,
    },
    /// SPIRE is to issue, and none is named.
    #[error("{scenario} needs a SPIRE, and neither matrix.yaml nor the command line names one")]
    NoSpire {
        /// The scenario's name.
        scenario: String,
    },
    /// There is no scenario at all.
    #[error("there is no scenario in {place}")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
}
