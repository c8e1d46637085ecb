//! Texts for the page: safe to show, with what stands between backticks as code.

use crate::report::text::plain;

/// A piece of a sentence.
pub(super) struct Span {
    pub(super) text: String,
    pub(super) code: bool,
}

/// Splits a text of ours at its backticks.
pub(super) fn spans(text: &str) -> Vec<Span> {
    text.split('`')
        .enumerate()
        .filter(|(_, part)| !part.is_empty())
        .map(|(i, part)| Span { text: plain(part), code: i % 2 == 1 })
        .collect()
}

/// `04:10:05`.
pub(super) fn clock(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// `2026-11-25 04:10:05 UTC`.
pub(super) fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `1 generation`, `34 generations`.
pub(super) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
