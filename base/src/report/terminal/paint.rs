//! Colour, where it is wanted; nothing is said by colour alone.

use super::super::Mark;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// ANSI colours.
    Colour,
    /// Text only.
    Plain,
}

impl Paint {
    pub(super) fn mark(self, mark: Mark, text: &str) -> String {
        let code = match mark {
            Mark::Pass => "32",
            Mark::Caught => "36",
            Mark::Fail | Mark::Missed | Mark::Misblamed | Mark::UnexpectedPass => "1;31",
            Mark::Inconclusive | Mark::Error => "33",
            Mark::Known => "35",
            Mark::Unsupported | Mark::NotRun => "2",
        };
        self.with(code, text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Paint::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Paint::Plain => text.to_owned(),
        }
    }
}
