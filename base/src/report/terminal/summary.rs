//! The last lines: what needs attention, the matrix, the counts, where the evidence is.

use std::fmt::Write as _;

use super::super::matrix::OFF_PAIR;
use super::super::text::{duration, headline, plain};
use super::super::{Counts, Difference, Mark, Matrix};
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
    for difference in Difference::all(cells) {
        let _ = writeln!(out, "{}: {}", difference.scenario, difference.sentence());
    }
    counts(&mut out, &Counts::of(cells), width, paint);
    disclosed(&mut out, cells);
    let took = match run.duration_ms {
        Some(ms) => format!("took {}{}", duration(ms), if run.interrupted { ", interrupted" } else { "" }),
        None => "the run has no end: it was killed, or is going on".to_owned(),
    };
    let _ = writeln!(out, "{took}");
    let _ = writeln!(out, "evidence in {}", plain(&run.directory));
    out
}

/// That something is not as it is shipped, in a line: the sentences are in the other reports.
fn disclosed(out: &mut String, cells: &[CellReport]) {
    let mut all: Vec<(&str, usize)> = Vec::new();
    for disclosure in cells.iter().flat_map(|cell| &cell.disclosed) {
        match all.iter_mut().find(|(name, _)| *name == disclosure.name) {
            Some((_, count)) => *count += 1,
            None => all.push((&disclosure.name, 1)),
        }
    }
    if !all.is_empty() {
        let mark = |name: &str| if name == "off-pair" { format!(" ({OFF_PAIR})") } else { String::new() };
        let told = |(name, count): (&str, usize)| format!("{count} {}{}", plain(name), mark(name));
        let all: Vec<String> = all.into_iter().map(told).collect();
        let _ = writeln!(out, "disclosed: {}", all.join(", "));
    }
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
    let first = matrix.rows.iter().map(|r| r.as_str().len()).max().unwrap_or(0).max(matrix.corner().chars().count());
    let groups = matrix.groups();
    let fits = |widths: &[usize]| first + widths.iter().map(|w| w + GAP).sum::<usize>() <= width;
    // As much as fits; if the words alone do not, groups are wrapped too.
    let (detail, widths) = [Detail::Layer, Detail::Word]
        .into_iter()
        .map(|detail| (detail, widths(&matrix, detail)))
        .find(|(_, widths)| groups.iter().all(|group| fits(&widths[group.clone()])))
        .unwrap_or_else(|| (Detail::Short, widths(&matrix, Detail::Short)));

    let mut from = 0;
    while from < widths.len() {
        // Whole groups, as many as fit; of one that does not fit, as many columns.
        let whole = groups.iter().map(|group| group.end).filter(|end| *end > from && fits(&widths[from..*end])).max();
        let mut to = from + 1;
        while to < widths.len() && to < whole.unwrap_or(widths.len()) && fits(&widths[from..=to]) {
            to += 1;
        }
        block(out, &matrix, from..to, (first, &widths, detail), paint);
        from = to;
    }
}

/// Widths of the columns; the last one of a group bears what its title needs more.
fn widths(matrix: &Matrix<'_>, detail: Detail) -> Vec<usize> {
    let width = |c: usize| {
        let places = (0..matrix.rows.len()).map(|r| text_width(&place(matrix.at(r, c), detail)));
        places.max().unwrap_or(0).max(matrix.columns[c].marked().chars().count())
    };
    let mut widths: Vec<usize> = (0..matrix.columns.len()).map(width).collect();
    for group in matrix.groups() {
        let have = widths[group.clone()].iter().sum::<usize>() + GAP * (group.len() - 1);
        let needs = matrix.columns[group.start].group.chars().count();
        widths[group.end - 1] += needs.saturating_sub(have);
    }
    widths
}

/// Some columns beside each other, with the rows that have something in them.
fn block(
    out: &mut String,
    matrix: &Matrix<'_>,
    columns: std::ops::Range<usize>,
    (first, widths, detail): (usize, &[usize], Detail),
    paint: Paint,
) {
    let mut groups = " ".repeat(first);
    for group in matrix.groups() {
        let shown = group.start.max(columns.start)..group.end.min(columns.end);
        if !shown.is_empty() {
            let wide = widths[shown.clone()].iter().map(|w| w + GAP).sum::<usize>() - GAP;
            groups.push_str(&format!("{}{:wide$}", gap(), matrix.columns[shown.start].group));
        }
    }
    let label = |c: usize| format!("{}{:w$}", gap(), matrix.columns[c].marked(), w = widths[c]);
    let header = format!("{:first$}{}", matrix.corner(), columns.clone().map(label).collect::<String>());
    for line in [groups, header] {
        if !line.trim().is_empty() {
            let _ = writeln!(out, "{}", paint.dim(line.trim_end()));
        }
    }
    for row in matrix.rows_of(columns.clone()) {
        let mut line = format!("{:first$}", matrix.rows[row].as_str());
        for c in columns.clone() {
            let parts = place(matrix.at(row, c), detail);
            let pad = widths[c] - text_width(&parts);
            let painted: Vec<String> = parts.iter().map(|(mark, text)| paint.mark(*mark, text)).collect();
            line.push_str(gap());
            line.push_str(&painted.join(", "));
            line.push_str(&" ".repeat(pad));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push('\n');
}

fn gap() -> &'static str {
    "  "
}

fn text_width(parts: &[(Mark, String)]) -> usize {
    let texts: usize = parts.iter().map(|(_, t)| t.chars().count()).sum();
    texts + 2 * parts.len().saturating_sub(1)
}
