//! What a run reports of a cell.

use serde::{Deserialize, Serialize};

use crate::scenario::Role;
use crate::timeline::{CellId, ClockKind, Disclosure, Expectation, ExpectedJudgement, ScenarioName, Subject};
use crate::verdict::{Judgement, Verdict};

/// What a run reports of a cell: a judgement, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything renewed.
    Pass,
    /// Something did not.
    Fail,
    /// The evidence does not suffice.
    Inconclusive,
    /// It failed as the list of known failures says.
    Known,
    /// It passed although the list of known failures says that it would not.
    UnexpectedPass,
    /// This scenario makes no sense on this subject.
    Unsupported,
    /// The harness could not carry it out.
    Error,
    /// It was not begun.
    NotRun,
}

impl From<Judgement> for Outcome {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Pass => Outcome::Pass,
            Judgement::Fail => Outcome::Fail,
            Judgement::Inconclusive => Outcome::Inconclusive,
        }
    }
}

/// All that is reported of one cell: `verdict.json` in its directory, an element of `cells` in the JSON report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
pub struct CellReport {
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
    /// What came of it.
    pub outcome: Outcome,
    /// Whether that is what the scenario expects: judgement, layer and diagnosis.
    pub as_expected: bool,
    /// Why there is no judgement (`error`, `unsupported`, `not_run`).
    pub reason: Option<String>,
    /// The verdict, where there is one.
    pub verdict: Option<Verdict>,
    /// Real time that the cell took, milliseconds.
    pub duration_ms: u64,
    /// Cell time that passed in it, seconds.
    pub cell_time_s: u64,
    /// The command that repeats just this cell.
    pub command: String,
}

impl CellReport {
    /// A control that ended as it should: its fault was found and blamed, or what it hides was said to be unseen.
    pub fn caught(&self) -> bool {
        let judged = matches!(self.outcome, Outcome::Fail | Outcome::Inconclusive);
        self.role == Role::Control && judged && self.as_expected
    }
}

impl CellReport {
    /// Takes the verdict in: outcome, and whether it is what the scenario expects (the judgement, and the layer and
    /// the mode where it names them).
    pub fn judged(&mut self, verdict: Verdict) {
        let judgement = match self.expect.judgement {
            ExpectedJudgement::Pass => Judgement::Pass,
            ExpectedJudgement::Fail => Judgement::Fail,
            ExpectedJudgement::Inconclusive => Judgement::Inconclusive,
        };
        self.as_expected = verdict.judgement == judgement
            && (self.expect.layer.is_none() || verdict.layer == self.expect.layer)
            && (self.expect.diagnosis.is_none() || verdict.diagnosis == self.expect.diagnosis)
            && self.expect.noted.iter().all(|mode| verdict.findings.iter().any(|f| f.check == *mode));
        self.outcome = verdict.judgement.into();
        self.reason = None;
        self.verdict = Some(verdict);
    }
}
