//! The result of judging one timeline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::timeline::{CertFacts, Fingerprint, Layer, ProxyId, SecretName, Serial, TlsRole};

/// The judgement: pure, and the same wherever it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Every served certificate renewed, past the first expiry.
    Pass,
    /// One did not.
    Fail,
    /// The evidence does not suffice for either.
    Inconclusive,
}

/// A timeline's verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// The judgement.
    pub judgement: Judgement,
    /// The layer at which the new certificate stopped.
    pub layer: Option<Layer>,
    /// The one mode of `rotacheck explain` that fits.
    pub diagnosis: Option<String>,
    /// Every mode that fits, best first; more than one where the evidence does not decide.
    pub candidates: Vec<Candidate>,
    /// One sentence for the matrix.
    pub headline: String,
    /// What each check found.
    pub findings: Vec<Finding>,
    /// Observations that contradict each other, or a claim that the wire does not bear out.
    pub contradictions: Vec<Contradiction>,
    /// What is suspected first in such a night, and what the recording says to it; for a failure only.
    #[serde(default)]
    pub hypotheses: Vec<Hypothesis>,
    /// What is missing for a judgement.
    pub missing: Vec<String>,
    /// A summary for each proxy.
    pub proxies: Vec<ProxySummary>,
    /// Lags of all generations, from sent, real time.
    pub lag_ms: BTreeMap<Layer, LagSummary>,
    /// Smallest renewal margin: what was left of the old leaf when the new one was first served, cell time.
    pub margin_ms: Option<i64>,
}

/// A mode that fits the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Candidate {
    /// Its name.
    pub mode: String,
    /// `certain`, `likely` or `possible`.
    pub confidence: Confidence,
    /// Observations (`seq`) that speak for it.
    pub evidence: Vec<u64>,
    /// The observation that would decide between it and the others.
    pub would_decide: Option<String>,
}

/// How well a mode fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Nothing else that we know leaves this evidence.
    Certain,
    /// It fits best.
    Likely,
    /// It cannot be excluded.
    Possible,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The check's name.
    pub check: String,
    /// The result.
    pub result: CheckResult,
    /// The proxy concerned.
    pub proxy: Option<ProxyId>,
    /// The secret concerned.
    pub secret: Option<SecretName>,
    /// What was found, in a sentence.
    pub message: String,
    /// Observations (`seq`) that show it.
    pub evidence: Vec<u64>,
}

/// A check's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It holds.
    Holds,
    /// It does not: the cell fails.
    Violated,
    /// It could not be decided: the cell can't pass.
    Undecided,
    /// Worth knowing; decides nothing.
    Noted,
}

/// Two observations that cannot both mean what they say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Contradiction {
    /// The claim: "config_dump: updated at 14:10:56".
    pub claim: String,
    /// What speaks against it: "31 handshakes: expired since 04:10:05".
    pub against: String,
    /// Observations (`seq`) of both.
    pub evidence: Vec<u64>,
}

/// A suspicion, and what the recording says to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hypothesis {
    /// What is suspected.
    pub suspicion: Suspicion,
    /// Whether it is so. Of several proxies that failed: whether it is so of any.
    pub answer: YesNo,
    /// The observation that answers it, or what was not looked at.
    pub observation: String,
    /// Observations (`seq`) that show it.
    pub evidence: Vec<u64>,
}

/// What is suspected first when a certificate expired although its provider renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Suspicion {
    /// The proxy is not subscribed to its certificate.
    NotSubscribed,
    /// Its stream to the provider was lost.
    StreamLost,
    /// Its TLS contexts hold a static certificate, which no SDS update reaches.
    StaticTlsContext,
    /// It is a limitation of Istio's agent, which serves files only beside an external provider.
    FilesOnlyMode,
}

impl Suspicion {
    /// All of them, in the order in which they come to mind.
    pub const ALL: [Suspicion; 4] =
        [Suspicion::NotSubscribed, Suspicion::StreamLost, Suspicion::StaticTlsContext, Suspicion::FilesOnlyMode];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Suspicion::NotSubscribed => "not subscribed",
            Suspicion::StreamLost => "stream lost",
            Suspicion::StaticTlsContext => "static TLS context",
            Suspicion::FilesOnlyMode => "files-only mode",
        }
    }
}

/// An answer to a suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum YesNo {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// Nobody looked where it would show.
    Unseen,
}

impl YesNo {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            YesNo::Yes => "yes",
            YesNo::No => "no",
            YesNo::Unseen => "unseen",
        }
    }
}

/// Where one proxy stands at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProxySummary {
    /// The proxy.
    pub id: ProxyId,
    /// Its identity.
    pub spiffe_id: Option<String>,
    /// Distinct generations that it served, inbound.
    pub generations_served: u32,
    /// Distinct generations issued for it; absent where issuing was unseen.
    pub generations_issued: Option<u32>,
    /// The leaf served last, by role.
    pub last_served: BTreeMap<TlsRole, ServedLeaf>,
    /// TLS contexts that held the leaf served last, of those that hold this identity.
    pub contexts: Option<(u32, u32)>,
    /// Distinct processes that it had, beyond the first.
    pub restarts: u32,
}

/// A leaf seen in a handshake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServedLeaf {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its serial.
    pub serial: Serial,
    /// When it expires.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub not_after: jiff::Timestamp,
    /// Whether it had expired when it was seen.
    pub expired: bool,
}

impl ServedLeaf {
    /// From a leaf's facts, seen at `wall`.
    pub fn new(leaf: &CertFacts, wall: jiff::Timestamp) -> Self {
        Self {
            fingerprint: leaf.fingerprint,
            serial: leaf.serial.clone(),
            not_after: leaf.not_after,
            expired: leaf.not_after <= wall,
        }
    }
}

/// Distribution of a lag, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LagSummary {
    /// How many.
    pub count: u32,
    /// Half were at most this.
    pub median: f64,
    /// The longest.
    pub max: f64,
}
