//! The shape of a scenario file.

use serde::{Deserialize, Serialize};

pub use crate::timeline::{ClockKind, Expectation, ExpectedJudgement, Role, ScenarioName};

use super::{FleetSpec, ProviderSpec, Share, Span};
use crate::timeline::Layer;

/// One scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The scenario's name: the file's name without `.yaml`.
    pub name: ScenarioName,
    /// One line: what it shows.
    pub summary: String,
    /// `conformance` is expected to pass; `control` seeds a fault that must be caught and blamed on the right layer.
    #[serde(default = "conformance")]
    pub role: Role,
    /// Who issues the certificates.
    pub provider: ProviderSpec,
    /// The proxies that consume them.
    #[serde(default)]
    pub fleet: FleetSpec,
    /// `virtual`: time is moved, hours pass in milliseconds. `real`: the machine's time, with short TTLs.
    #[serde(default)]
    pub clock: ClockKind,
    /// How long to observe.
    #[serde(default)]
    pub observe: ObserveSpec,
    /// The bounds that decide.
    #[serde(default)]
    pub criteria: CriteriaSpec,
    /// What must be found.
    #[serde(default = "pass", deserialize_with = "strict_expectation")]
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "ExpectSpec"))]
    pub expect: Expectation,
}

/// What must be found. The same as an [`Expectation`], which in a timeline must bear keys of later versions.
#[derive(Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct ExpectSpec {
    /// `pass`, `fail` or `inconclusive`.
    judgement: ExpectedJudgement,
    /// The layer to blame.
    layer: Option<Layer>,
    /// The name of the mode; `rotacheck explain` lists them.
    diagnosis: Option<String>,
    /// Modes without a layer that must be noted: what recovered, or hides the failure.
    #[serde(default)]
    noted: Vec<String>,
}

fn strict_expectation<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Expectation, D::Error> {
    let ExpectSpec { judgement, layer, diagnosis, noted } = ExpectSpec::deserialize(deserializer)?;
    Ok(Expectation { judgement, layer, diagnosis, noted })
}

fn conformance() -> Role {
    Role::Conformance
}

fn pass() -> Expectation {
    Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() }
}

/// How long to observe: a number of generations or a duration; default: two generations past the first expiry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ObserveSpec {
    /// Until the first generation has expired and this many renewals were due after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generations_past_first_expiry: Option<u32>,
    /// For this long, in cell time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
    /// How long proxies may take to become ready, in real time. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_within: Option<Span>,
}

/// The bounds that decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CriteriaSpec {
    /// Longest time from sent to served, in real time. Default 5s.
    #[serde(default = "five_seconds")]
    pub lag_bound: Span,
    /// What must be left of the old certificate when the new one is first served: a share of the TTL or a time.
    /// Default 10%.
    #[serde(default)]
    pub margin_floor: Share,
}

fn five_seconds() -> Span {
    Span::seconds(5)
}

impl Default for CriteriaSpec {
    fn default() -> Self {
        Self { lag_bound: five_seconds(), margin_floor: Share::default() }
    }
}
