//! What a timeline says of itself: the subject, what was expected, and by which bounds it is to be judged.

use serde::{Deserialize, Serialize};

use super::{CellId, EnvoyVersion, ProxyId, ScenarioName, SpiffeId};

/// A place on the way of a generation from the provider to a peer's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The provider minted it.
    Issued,
    /// It was on the SDS stream to the proxy, under the subscribed name and the right type.
    Sent,
    /// The proxy accepted it.
    Acked,
    /// It is inside the secret in `/config_dump`.
    Dumped,
    /// It is in every live TLS context of its identity.
    Loaded,
    /// A full handshake shows it.
    Served,
}

impl Layer {
    /// All, from the provider to the peer.
    pub const ALL: [Layer; 6] = [Layer::Issued, Layer::Sent, Layer::Acked, Layer::Dumped, Layer::Loaded, Layer::Served];

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Issued => "issued",
            Layer::Sent => "sent",
            Layer::Acked => "acked",
            Layer::Dumped => "dumped",
            Layer::Loaded => "loaded",
            Layer::Served => "served",
        }
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Which side of TLS the proxy takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TlsRole {
    /// The proxy is the server.
    Inbound,
    /// The proxy is the client.
    Outbound,
}

/// Whether a scenario is expected to pass, or seeds a fault that must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Expected to pass.
    Conformance,
    /// A seeded fault: expected to be caught and blamed on the right layer.
    Control,
}

/// A component's version and where it was had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnvoySubject {
    /// Measured from the binary.
    pub version: EnvoyVersion,
    /// `pip`, `path`, ...
    pub source: String,
}

/// Istio's agent and control plane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IstioSubject {
    /// Version or module version.
    pub version: String,
    /// Where it was had.
    pub source: String,
    /// What people call that version, where it is another name: `1.31-dev.20260827`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl IstioSubject {
    /// What people call its version.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.version)
    }
}

/// The certificate provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProviderSubject {
    /// `fake`, `external`, `spire`, ...
    pub kind: String,
    /// The fake's profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Its version.
    pub version: String,
}

/// The Kubernetes cluster that proxies are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterSubject {
    /// The version of its API server, as it says itself: `v1.34.0`.
    pub kubernetes: String,
    /// How many nodes it has.
    pub nodes: u32,
}

/// What is tested.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subject {
    /// The proxy.
    pub envoy: EnvoySubject,
    /// `null` where no Istio takes part.
    pub istio: Option<IstioSubject>,
    /// Who issues.
    pub provider: ProviderSubject,
    /// The cluster that the proxies are in; absent where they are in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSubject>,
}

/// Something about a cell's subject that is not as its makers ship it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Disclosure {
    /// `off-pair`, `filters-off`, ...
    pub name: String,
    /// In a sentence.
    pub text: String,
}

/// The bounds by which a timeline is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Criteria {
    /// Lifetime of a leaf, seconds.
    pub ttl_s: u64,
    /// Interval at which the provider is to renew, seconds; absent where it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_every_s: Option<u64>,
    /// From sent to served, milliseconds of real time.
    pub lag_bound_ms: u64,
    /// What must be left of the old leaf when the new one is first served, seconds of cell time, rounded down.
    pub margin_floor_s: u64,
    /// The same in milliseconds, where it is no whole number of seconds; it counts, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_floor_ms: Option<u64>,
    /// Generations newer than the first that every proxy must serve.
    pub newer_generations: u32,
    /// Renewals that must be seen after the first generation's expiry.
    pub generations_past_first_expiry: u32,
}

impl Criteria {
    /// What must be left of the old leaf when the new one is first served, milliseconds of cell time.
    pub fn margin_floor(&self) -> u64 {
        self.margin_floor_ms.unwrap_or(self.margin_floor_s.saturating_mul(1000))
    }

    /// The interval of the renewals, seconds; none where it is unknown, or beyond what time can be.
    pub fn interval(&self) -> Option<i64> {
        self.renew_every_s.and_then(|s| i64::try_from(s).ok())
    }
}

/// What the scenario expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Expectation {
    /// `pass`, `fail` or `inconclusive`.
    pub judgement: ExpectedJudgement,
    /// The layer to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// The mode's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    /// Modes without a layer that must be noted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noted: Vec<String>,
}

/// The judgement that a scenario expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExpectedJudgement {
    /// Everything renewed.
    Pass,
    /// Something did not.
    Fail,
    /// Not enough evidence.
    Inconclusive,
}

/// Whose time a cell's proxies live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// Moved by the harness; hours pass in milliseconds.
    #[default]
    Virtual,
    /// The machine's.
    Real,
}

/// A proxy of the cell, and what is expected of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProxyExpectation {
    /// Its name.
    pub id: ProxyId,
    /// The identity that its certificates must carry; absent where it is learnt from the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// TLS contexts that hold its certificate; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts: Option<u32>,
}

/// First line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Header {
    /// Version of the format.
    pub schema_version: u32,
    /// Version of the harness that recorded it.
    pub rotacheck: String,
    /// The cell.
    pub cell: CellId,
    /// The scenario.
    pub scenario: ScenarioName,
    /// Whether it is a control.
    pub role: Role,
    /// What is tested.
    pub subject: Subject,
    /// Whose time the proxies live in.
    pub clock: ClockKind,
    /// Cell time at the beginning.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub started: jiff::Timestamp,
    /// The proxies.
    pub proxies: Vec<ProxyExpectation>,
    /// The bounds.
    pub criteria: Criteria,
    /// What the scenario expects.
    pub expect: Expectation,
}

/// Last line of a timeline: without it, or with another count, the recording is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Footer {
    /// Observations before this line.
    pub observations: u64,
    /// Whether the cell came to its planned end.
    pub complete: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
