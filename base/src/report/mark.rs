//! How a cell shows: one glyph, one word, one count for each way in which it can end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::{CellReport, Outcome};
use crate::timeline::Role;

/// How a cell shows in a matrix: its outcome, seen in the light of its role. No two share a glyph, a word or a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Everything renewed, as it should.
    Pass,
    /// A control ended as it should: its fault was found and blamed, or what it hides was said to be unseen.
    Caught,
    /// Something did not renew.
    Fail,
    /// A control's fault was not found.
    Missed,
    /// A control's fault was found, but blamed on another layer or mode.
    Misblamed,
    /// A known failure is gone.
    UnexpectedPass,
    /// The evidence does not suffice.
    Inconclusive,
    /// The harness could not carry it out.
    Error,
    /// It failed as the list of known failures says.
    Known,
    /// The scenario makes no sense on this subject.
    Unsupported,
    /// It was not begun.
    NotRun,
}

impl Mark {
    /// All, in the order of counts and legends.
    pub const ALL: [Mark; 11] = [
        Mark::Pass,
        Mark::Caught,
        Mark::Fail,
        Mark::Missed,
        Mark::Misblamed,
        Mark::UnexpectedPass,
        Mark::Inconclusive,
        Mark::Error,
        Mark::Known,
        Mark::Unsupported,
        Mark::NotRun,
    ];

    /// How this cell shows.
    pub fn of(cell: &CellReport) -> Mark {
        let control = cell.role == Role::Control;
        match cell.outcome {
            Outcome::Pass if cell.as_expected => Mark::Pass,
            Outcome::Pass if control => Mark::Missed,
            // A conformance scenario that is not expected to pass: a known failure kept in the scenario itself.
            Outcome::Pass | Outcome::UnexpectedPass => Mark::UnexpectedPass,
            Outcome::Fail if cell.caught() => Mark::Caught,
            Outcome::Fail if control && expects_failure(cell) => Mark::Misblamed,
            Outcome::Fail => Mark::Fail,
            Outcome::Inconclusive if cell.caught() => Mark::Caught,
            Outcome::Inconclusive => Mark::Inconclusive,
            Outcome::Known => Mark::Known,
            Outcome::Unsupported => Mark::Unsupported,
            Outcome::Error => Mark::Error,
            Outcome::NotRun => Mark::NotRun,
        }
    }

    /// One column wide.
    pub fn glyph(self) -> char {
        match self {
            Mark::Pass => '✓',
            Mark::Caught => '◆',
            Mark::Fail => '✗',
            Mark::Missed => '○',
            Mark::Misblamed => '≠',
            Mark::UnexpectedPass => '!',
            Mark::Inconclusive => '?',
            Mark::Error => '▲',
            Mark::Known => '~',
            Mark::Unsupported => '–',
            Mark::NotRun => '·',
        }
    }

    /// In words; what a person must act on is in capitals.
    pub fn word(self) -> &'static str {
        match self {
            Mark::Pass => "pass",
            Mark::Caught => "caught",
            Mark::Fail => "FAIL",
            Mark::Missed => "MISSED",
            Mark::Misblamed => "MISBLAMED",
            Mark::UnexpectedPass => "UNEXPECTED PASS",
            Mark::Inconclusive => "INCONCLUSIVE",
            Mark::Error => "ERROR",
            Mark::Known => "known",
            Mark::Unsupported => "unsupported",
            Mark::NotRun => "not run",
        }
    }

    /// At most nine columns wide, where space is short.
    pub(super) fn short_word(self) -> &'static str {
        match self {
            Mark::UnexpectedPass => "UNEXP.",
            Mark::Inconclusive => "INCONCL.",
            Mark::Unsupported => "unsupp.",
            other => other.word(),
        }
    }

    /// In counts.
    pub fn counted(self) -> &'static str {
        match self {
            Mark::Fail => "fail",
            Mark::Missed => "missed control",
            Mark::Misblamed => "misblamed control",
            Mark::UnexpectedPass => "unexpected pass",
            Mark::Inconclusive => "inconclusive",
            Mark::Error => "error",
            other => other.word(),
        }
    }

    /// The definition, for legends.
    pub fn meaning(self) -> &'static str {
        match self {
            Mark::Pass => "Every proxy served newer certificates, in both roles, past the first expiry.",
            Mark::Caught => {
                "A control: its seeded fault was found, and blamed as it should be (or what it hides was said to be unseen)."
            }
            Mark::Fail => "A new certificate did not arrive; the layer named is where it stopped travelling.",
            Mark::Missed => "A control: its seeded fault was not found. Passes of this check mean nothing until it is.",
            Mark::Misblamed => "A control: its seeded fault was found, but blamed on another layer or mode.",
            Mark::UnexpectedPass => "Listed as a known failure, but it passed: the list is stale.",
            Mark::Inconclusive => {
                "The evidence suffices neither for a pass nor for a failure; what is missing is named."
            }
            Mark::Error => "The harness could not carry the scenario out; this says nothing about the subject.",
            Mark::Known => "It failed as the list of known failures says.",
            Mark::Unsupported => "The scenario makes no sense on this subject.",
            Mark::NotRun => "It was planned, and not begun.",
        }
    }

    /// Whether somebody has to look at it.
    pub fn needs_attention(self) -> bool {
        self.is_failure() || matches!(self, Mark::Inconclusive | Mark::Error)
    }

    /// Whether it is a failure of conformance, or of the harness's own controls.
    pub fn is_failure(self) -> bool {
        matches!(self, Mark::Fail | Mark::Missed | Mark::Misblamed | Mark::UnexpectedPass)
    }
}

fn expects_failure(cell: &CellReport) -> bool {
    cell.expect.judgement == crate::timeline::ExpectedJudgement::Fail
}

/// Cells by mark; those without a cell are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Counts(BTreeMap<Mark, u32>);

impl Counts {
    /// Counts these cells.
    pub fn of(cells: &[CellReport]) -> Self {
        let mut counts = BTreeMap::new();
        for cell in cells {
            *counts.entry(Mark::of(cell)).or_default() += 1;
        }
        Self(counts)
    }

    /// Those of one mark.
    pub fn get(&self, mark: Mark) -> u32 {
        self.0.get(&mark).copied().unwrap_or(0)
    }

    /// Marks that occur, in their order.
    pub fn present(&self) -> impl Iterator<Item = (Mark, u32)> + '_ {
        Mark::ALL.into_iter().filter_map(|m| self.0.get(&m).map(|n| (m, *n)))
    }

    /// All cells.
    pub fn total(&self) -> u32 {
        self.0.values().sum()
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.total();
        write!(f, "{total} {}", if total == 1 { "cell" } else { "cells" })?;
        for (i, (mark, n)) in self.present().enumerate() {
            write!(f, "{}{n} {}", if i == 0 { ": " } else { ", " }, mark.counted())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::archive::sample;

    #[test]
    fn no_two_marks_share_a_glyph_a_word_or_a_count() {
        let n = Mark::ALL.len();
        assert_eq!(Mark::ALL.iter().map(|m| m.glyph()).collect::<BTreeSet<_>>().len(), n);
        assert_eq!(Mark::ALL.iter().map(|m| m.word()).collect::<BTreeSet<_>>().len(), n);
        assert_eq!(Mark::ALL.iter().map(|m| m.short_word()).collect::<BTreeSet<_>>().len(), n);
        assert_eq!(Mark::ALL.iter().map(|m| m.counted()).collect::<BTreeSet<_>>().len(), n);
        assert!(Mark::ALL.iter().all(|m| m.short_word().len() <= 9));
    }

    #[test]
    fn controls_are_caught_missed_or_misblamed() {
        let control =
            |outcome, as_expected| Mark::of(&sample::cell("x", "1.38.3", Role::Control, outcome, as_expected));
        assert_eq!(control(Outcome::Fail, true), Mark::Caught);
        assert_eq!(control(Outcome::Fail, false), Mark::Misblamed);
        assert_eq!(control(Outcome::Pass, false), Mark::Missed);
        assert_eq!(control(Outcome::Inconclusive, true), Mark::Caught);
        assert_eq!(control(Outcome::Inconclusive, false), Mark::Inconclusive);
        let conformance =
            |outcome, as_expected| Mark::of(&sample::cell("x", "1.38.3", Role::Conformance, outcome, as_expected));
        assert_eq!(conformance(Outcome::Fail, false), Mark::Fail);
        assert_eq!(conformance(Outcome::Pass, true), Mark::Pass);
    }
}
