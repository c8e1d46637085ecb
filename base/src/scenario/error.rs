//! What is wrong with a file, shown in the user's own text.

use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// Why a scenario file, or the matrix beside it, cannot be used. Renders with a caret into the file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub struct ScenarioError(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    message: String,
    help: Option<String>,
    /// What the caret says.
    label: String,
    span: Option<Range<usize>>,
    /// Whether the place can be shown: a line of a megabyte can't.
    in_view: bool,
    source_text: NamedSource<String>,
    /// Further problems of the same file.
    others: Vec<ScenarioError>,
}

/// One thing that a check found wrong, by the path of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `provider.faults[1].proxy`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// More problems than this are only counted: the first ones are worked on first.
const SHOWN: usize = 8;

/// Longer lines are not shown.
const LONGEST_VIEW: usize = 1_000;

impl ScenarioError {
    pub(super) fn new(file: &str, text: &str, span: Option<Range<usize>>, message: String) -> Self {
        let span = span.map(|span| within(text, span));
        let mut error = Self(Box::new(Details {
            message,
            help: None,
            label: "here".to_owned(),
            in_view: span.as_ref().is_some_and(|span| lines_around(text, span.start).len() <= LONGEST_VIEW),
            span,
            source_text: NamedSource::new(file, text.to_owned()),
            others: Vec::new(),
        }));
        if let (false, Some((line, column))) = (error.0.in_view, error.line_column()) {
            error.0.message = format!("{file}:{line}:{column}: {}", error.0.message);
        }
        error
    }

    /// An error about the file as a whole, which is not shown.
    pub(super) fn unreadable(file: &str, message: String) -> Self {
        Self::new(file, "", None, message)
    }

    pub(super) fn with_help(mut self, help: Option<String>) -> Self {
        self.0.help = help;
        self
    }

    pub(super) fn with_label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    /// Several problems as one error; `None` if there are none.
    pub(super) fn of_many(mut errors: Vec<Self>) -> Option<Self> {
        if errors.is_empty() {
            return None;
        }
        let mut first = errors.remove(0);
        let unshown = errors.len().saturating_sub(SHOWN - 1);
        errors.truncate(SHOWN - 1);
        if unshown > 0 {
            let rest = format!("and {unshown} more problems in this file");
            first.0.help = Some(first.0.help.map_or_else(|| rest.clone(), |help| format!("{help}\n{rest}")));
        }
        first.0.others = errors;
        Some(first)
    }

    /// The file's name, as the user gave it.
    pub fn file(&self) -> &str {
        self.0.source_text.name()
    }

    /// Line and column, from 1; `None` where the file as a whole is meant.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        let before = self.0.source_text.inner().get(..self.0.span.as_ref()?.start)?;
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
        Some((line, column))
    }

    /// This problem and the further ones of the same file that are shown.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.0.message.as_str()).chain(self.0.others.iter().map(|e| e.0.message.as_str()))
    }
}

impl Diagnostic for ScenarioError {
    fn help(&self) -> Option<Box<dyn std::fmt::Display + '_>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.in_view.then_some(&self.0.source_text as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.0.span.clone().filter(|_| self.0.in_view)?;
        let label = LabeledSpan::new(Some(self.0.label.clone()), span.start, span.len());
        Some(Box::new(std::iter::once(label)))
    }
    fn related(&self) -> Option<Box<dyn Iterator<Item = &dyn Diagnostic> + '_>> {
        if self.0.others.is_empty() {
            return None;
        }
        Some(Box::new(self.0.others.iter().map(|e| e as &dyn Diagnostic)))
    }
}

/// The span cut to the text, to its first line, and to character boundaries: what a parser says about hostile
/// input is not relied upon.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let end = end.max(start);
    let line = text[start..end].find('\n').unwrap_or(end - start);
    start..start + line
}

/// The line at that place, with the one before and the one after.
fn lines_around(text: &str, at: usize) -> &str {
    let before = text[..at].rmatch_indices('\n').nth(1).map_or(0, |(n, _)| n);
    let after = text[at..].match_indices('\n').nth(1).map_or(text.len(), |(n, _)| at + n);
    &text[before..after]
}
