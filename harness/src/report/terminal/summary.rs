//! The last lines: what needs attention, the matrix, the counts, where the evidence is.

use std::fmt::Write as _;

use super::super::text::{duration, headline, plain};
use super::super::{Counts, Mark, Matrix};
use super::paint::Paint;
use crate::archive::RunRecord;
use crate::plan::CellReport;
use crate::timeline::Layer;

/// The final block.
pub fn summary(run: &RunRecord, cells: &[CellReport], width: usize, paint: Paint) -> String {
    let mut out = String::new();
    for cell in cells {
        attention(&mut out, cell, width, paint);
    }
    matrix(&mut out, cells, width, paint);
    counts(&mut out, &Counts::of(cells), width, paint);
    let took = match run.duration_ms {
        Some(ms) => format!("took {}{}", duration(ms), if run.interrupted { ", interrupted" } else { "" }),
        None => "the run has no end: it was killed, or is going on".to_owned(),
    };
    let _ = writeln!(out, "{took}");
    let _ = writeln!(out, "evidence in {}", plain(&run.directory));
    out
}

fn counts(out: &mut String, counts: &Counts, width: usize, paint: Paint) {
    let total = counts.total();
    let mut line = format!("{total} {}", if total == 1 { "cell:" } else { "cells:" });
    let mut used = line.len();
    for (mark, n) in counts.present() {
        let part = format!("{} {n} {}", mark.glyph(), mark.counted());
        let needed = GAP + part.chars().count();
        if used + needed > width {
            let _ = writeln!(out, "{line}");
            line = " ".repeat(GAP);
            used = GAP;
        }
        used += needed;
        line.push_str(gap());
        line.push_str(&paint.mark(mark, &part));
    }
    let _ = writeln!(out, "{line}");
}

/// A cell that somebody must look at: what happened in one line, then how to repeat it.
fn attention(out: &mut String, cell: &CellReport, width: usize, paint: Paint) {
    let mark = Mark::of(cell);
    if !mark.needs_attention() || cell.as_expected {
        return;
    }
    let _ = writeln!(out, "{}: {}", paint.bold(cell.id.as_str()), verdict_line(cell, paint));
    for line in hypotheses(cell, width) {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "    {}", paint.dim(&format!("repeat: {}", plain(&cell.command))));
}

/// What is suspected first, in a line or two: the observations are in the other reports.
fn hypotheses(cell: &CellReport, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for h in cell.verdict.iter().flat_map(|v| &v.hypotheses) {
        let answer = format!("{}? {}", h.suspicion.words(), h.answer.word());
        match lines.last_mut() {
            Some(line) if line.len() + GAP + answer.len() <= width => {
                line.push_str(gap());
                line.push_str(&answer);
            }
            _ => lines.push(format!("    {answer}")),
        }
    }
    lines
}

/// `FAIL issued: provider re-sent serial ...`.
pub(super) fn verdict_line(cell: &CellReport, paint: Paint) -> String {
    let mark = Mark::of(cell);
    let layer = cell.verdict.as_ref().and_then(|v| v.layer);
    let label = match layer {
        Some(layer) if mark != Mark::Pass => format!("{} {layer}", mark.word()),
        _ => mark.word().to_owned(),
    };
    let mut line = format!("{}: {}", paint.mark(mark, &label), headline(cell));
    if let Some(expected) = expected_instead(cell, mark) {
        let _ = write!(line, " ({expected})");
    }
    line
}

/// For a control that was not caught, what should have been found.
fn expected_instead(cell: &CellReport, mark: Mark) -> Option<String> {
    let name = |layer: Option<Layer>, diagnosis: Option<&str>| {
        let parts: Vec<String> = layer.map(|l| l.to_string()).into_iter().chain(diagnosis.map(plain)).collect();
        if parts.is_empty() { "no layer and no mode".to_owned() } else { parts.join(", ") }
    };
    let expected = match (cell.expect.layer, cell.expect.diagnosis.as_deref()) {
        (None, None) => "a failure".to_owned(),
        (layer, diagnosis) => name(layer, diagnosis),
    };
    match mark {
        Mark::Missed => Some(format!("expected {expected}")),
        Mark::Misblamed => {
            let v = cell.verdict.as_ref()?;
            Some(format!("blamed {}; expected {expected}", name(v.layer, v.diagnosis.as_deref())))
        }
        _ => None,
    }
}

/// How much is said in each place of the matrix.
#[derive(Clone, Copy)]
enum Detail {
    Layer,
    Word,
    Short,
}

fn place(cells: &[&CellReport], detail: Detail) -> Vec<(Mark, String)> {
    cells
        .iter()
        .map(|cell| {
            let mark = Mark::of(cell);
            let layer = cell.verdict.as_ref().and_then(|v| v.layer).filter(|_| mark != Mark::Pass);
            let text = match (detail, layer) {
                (Detail::Layer, Some(layer)) => format!("{} {} {layer}", mark.glyph(), mark.word()),
                (Detail::Short, _) => format!("{} {}", mark.glyph(), mark.short_word()),
                _ => format!("{} {}", mark.glyph(), mark.word()),
            };
            (mark, text)
        })
        .collect()
}

const GAP: usize = 2;

fn matrix(out: &mut String, cells: &[CellReport], width: usize, paint: Paint) {
    let matrix = Matrix::of(cells);
    if matrix.columns.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let rows: Vec<&str> = matrix.rows.iter().map(|r| r.as_str()).collect();
    let first = rows.iter().map(|r| r.len()).max().unwrap_or(0).max(matrix.corner().chars().count());
    let widths = |detail: Detail| -> Vec<usize> {
        (0..matrix.columns.len())
            .map(|c| {
                let places = (0..rows.len()).map(|r| text_width(&place(matrix.at(r, c), detail)));
                places.max().unwrap_or(0).max(matrix.columns[c].label.chars().count())
            })
            .collect()
    };
    let fits = |widths: &[usize]| first + widths.iter().map(|w| w + GAP).sum::<usize>() <= width;
    // As much as fits; if the words alone do not, the columns are wrapped in groups.
    let (detail, widths) = [Detail::Layer, Detail::Word]
        .into_iter()
        .map(|d| (d, widths(d)))
        .find(|(_, w)| fits(w))
        .unwrap_or_else(|| (Detail::Short, widths(Detail::Short)));

    let mut from = 0;
    while from < widths.len() {
        let mut to = from + 1;
        while to < widths.len() && fits(&widths[from..=to]) {
            to += 1;
        }
        let header = (from..to).map(|c| format!("{}{:w$}", gap(), matrix.columns[c].label, w = widths[c]));
        let line = format!("{:first$}{}", matrix.corner(), header.collect::<String>());
        let _ = writeln!(out, "{}", paint.dim(line.trim_end()));
        for (r, row) in rows.iter().enumerate() {
            let mut line = format!("{row:first$}");
            for (c, width) in widths.iter().enumerate().take(to).skip(from) {
                let parts = place(matrix.at(r, c), detail);
                let pad = width - text_width(&parts);
                let painted: Vec<String> = parts.iter().map(|(mark, text)| paint.mark(*mark, text)).collect();
                line.push_str(gap());
                line.push_str(&painted.join(", "));
                line.push_str(&" ".repeat(pad));
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out.push('\n');
        from = to;
    }
}

fn gap() -> &'static str {
    "  "
}

fn text_width(parts: &[(Mark, String)]) -> usize {
    let texts: usize = parts.iter().map(|(_, t)| t.chars().count()).sum();
    texts + 2 * parts.len().saturating_sub(1)
}
