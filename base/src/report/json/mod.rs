//! The versioned report for machines; its schema is `scenarios/schema/report.schema.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Counts, Difference, Mark, ReportError};
use crate::archive::RunRecord;
use crate::plan::{CellReport, Outcome};
use crate::timeline::{CellId, ClockKind, Disclosure, Expectation, Layer, Role, ScenarioName, Subject};
use crate::verdict::{Candidate, Contradiction, Finding, Hypothesis, LagSummary, ProxySummary, Verdict};

/// Raised when a reader of the old form would misunderstand the new one; new fields alone do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[cfg_attr(any(test, feature = "testing"), schemars(title = "rotacheck report"))]
pub struct Report {
    /// Version of this form: 1.
    pub schema_version: u32,
    /// The run.
    pub run: RunRecord,
    /// Cells by mark: those with a count.
    pub counts: Counts,
    /// Every planned cell, in the order of the matrix.
    pub cells: Vec<Cell>,
    /// What some subjects of a scenario claim and others do not, though they end alike.
    #[serde(default)]
    pub differences: Vec<Difference>,
}

/// One scenario on one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
pub struct Cell {
    /// `scenario@subject`.
    pub id: CellId,
    /// The scenario.
    pub scenario: ScenarioName,
    /// What the scenario shows, in a line.
    pub summary: String,
    /// Whether it is a control.
    pub role: Role,
    /// What was tested.
    pub subject: Subject,
    /// Where the subject is not as its makers ship it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disclosed: Vec<Disclosure>,
    /// Whose time the proxies lived in.
    pub clock: ClockKind,
    /// What the scenario expects.
    pub expect: Expectation,
    /// What came of it. A caught control is `fail` with `as_expected: true`.
    pub verdict: Outcome,
    /// The verdict in the light of the role: what the matrix shows.
    pub mark: Mark,
    /// Whether it is what the scenario expects: judgement, layer and diagnosis.
    pub as_expected: bool,
    /// The layer at which the new certificate stopped.
    pub layer: Option<Layer>,
    /// The one mode that fits (`rotacheck explain MODE`).
    pub diagnosis: Option<String>,
    /// Every mode that fits, best first.
    pub candidates: Vec<Candidate>,
    /// One sentence.
    pub headline: Option<String>,
    /// Why there is no judgement (`error`, `unsupported`, `not_run`).
    pub reason: Option<String>,
    /// What each check found.
    pub findings: Vec<Finding>,
    /// Claims, and what speaks against them.
    pub contradictions: Vec<Contradiction>,
    /// What is suspected first in such a night, and what the recording says to it; empty unless the cell failed.
    pub hypotheses: Vec<Hypothesis>,
    /// What is missing for a judgement.
    pub missing: Vec<String>,
    /// Where each proxy stood at the end.
    pub proxies: Vec<ProxySummary>,
    /// Lags from sent to each layer, real time.
    pub lag_ms: BTreeMap<Layer, LagSummary>,
    /// Smallest renewal margin: what was left of the old leaf when the new one was first served, cell time.
    pub margin_ms: Option<i64>,
    /// Real time that the cell took.
    pub duration_ms: u64,
    /// Cell time that passed in it.
    pub cell_time_s: u64,
    /// The command that repeats just this cell.
    pub command: String,
}

impl Report {
    /// The report of these cells.
    pub fn new(run: &RunRecord, cells: &[CellReport]) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            run: run.clone(),
            counts: Counts::of(cells),
            cells: cells.iter().map(Cell::from).collect(),
            differences: Difference::all(cells),
        }
    }
}

impl From<&CellReport> for Cell {
    fn from(cell: &CellReport) -> Self {
        Self {
            id: cell.id.clone(),
            scenario: cell.scenario.clone(),
            summary: cell.summary.clone(),
            role: cell.role,
            subject: cell.subject.clone(),
            disclosed: cell.disclosed.clone(),
            clock: cell.clock,
            expect: cell.expect.clone(),
            verdict: cell.outcome,
            mark: Mark::of(cell),
            as_expected: cell.as_expected,
            layer: of(cell, |v| v.layer),
            diagnosis: of(cell, |v| v.diagnosis.clone()),
            candidates: of(cell, |v| v.candidates.clone()),
            headline: of(cell, |v| Some(v.headline.clone())),
            reason: cell.reason.clone(),
            findings: of(cell, |v| v.findings.clone()),
            contradictions: of(cell, |v| v.contradictions.clone()),
            hypotheses: of(cell, |v| v.hypotheses.clone()),
            missing: of(cell, |v| v.missing.clone()),
            proxies: of(cell, |v| v.proxies.clone()),
            lag_ms: of(cell, |v| v.lag_ms.clone()),
            margin_ms: of(cell, |v| v.margin_ms),
            duration_ms: cell.duration_ms,
            cell_time_s: cell.cell_time_s,
            command: cell.command.clone(),
        }
    }
}

/// A part of the verdict; empty where there is none.
fn of<T: Default>(cell: &CellReport, part: impl Fn(&Verdict) -> T) -> T {
    cell.verdict.as_ref().map(part).unwrap_or_default()
}

/// The report as JSON text.
pub(super) fn render(run: &RunRecord, cells: &[CellReport]) -> Result<String, ReportError> {
    let failed = |e: serde_json::Error| ReportError::Format { format: "json", why: e.to_string() };
    let mut text = serde_json::to_string_pretty(&Report::new(run, cells)).map_err(failed)?;
    text.push('\n');
    Ok(text)
}

/// Its JSON Schema, draft-07.
#[cfg(any(test, feature = "testing"))]
pub fn schema() -> serde_json::Value {
    let mut settings = schemars::generate::SchemaSettings::draft07().for_serialize();
    settings.inline_subschemas = false;
    settings.into_generator().into_root_schema_for::<Report>().to_value()
}

#[cfg(test)]
mod tests;
