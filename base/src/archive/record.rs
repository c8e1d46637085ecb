//! What a run says of itself: `run.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `run.json`; `run` in the JSON report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
pub struct RunRecord {
    /// Unique: the start in UTC and a random part, such as `20261124T173555Z-3f9c`.
    pub id: String,
    /// Where it is kept.
    pub directory: String,
    /// When it began, real time.
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "String"))]
    pub started: jiff::Timestamp,
    /// How long it took, milliseconds; absent while it runs or if it was killed.
    pub duration_ms: Option<u64>,
    /// Version of the harness.
    pub rotacheck: String,
    /// The command line, secrets left out.
    pub command_line: Vec<String>,
    /// Cells at a time.
    pub jobs: u32,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Whether a pass counts only where the controls of its checks were caught.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_controls: bool,
    /// The machine.
    pub host: Host,
    /// SHA-256 of the executables, by name and version.
    pub digests: BTreeMap<String, String>,
    /// The runs that it was merged from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Processor time that the harness itself took, milliseconds.
    pub harness_cpu_ms: Option<u64>,
    /// Processor time of its children, milliseconds.
    pub children_cpu_ms: Option<u64>,
}

/// A run that was merged with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
pub struct Part {
    /// The run's name.
    pub id: String,
    /// Which part of a plan it was, such as `2/4`; absent where it was a plan of its own.
    pub shard: Option<String>,
    /// When it began, real time.
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "String"))]
    pub started: jiff::Timestamp,
    /// How long it took, milliseconds; absent if it was killed.
    pub duration_ms: Option<u64>,
    /// Its machine.
    pub host: Host,
}

/// The machine that a run was made on; of a merged run on different machines, all of them together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
pub struct Host {
    /// Operating system and kernel.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
}
