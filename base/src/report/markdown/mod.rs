//! Markdown for a pull request's comment or a job's summary.

use std::fmt::Write as _;

use super::matrix::OFF_PAIR;
use super::text::{duration, headline, plain};
use super::{Counts, Difference, Mark, Matrix, ReportError};
use crate::archive::RunRecord;
use crate::plan::CellReport;
use crate::verdict::CheckResult;

/// The report as Markdown.
#[expect(clippy::unnecessary_wraps, reason = "the signature of every file format")]
pub(super) fn render(run: &RunRecord, cells: &[CellReport]) -> Result<String, ReportError> {
    let mut out = String::new();
    let attention: Vec<&CellReport> =
        cells.iter().filter(|c| Mark::of(c).needs_attention() && !c.as_expected).collect();
    let title = if attention.is_empty() { "all as expected" } else { "not as expected" };
    let _ = writeln!(out, "### Certificate rotation: {title}\n");
    let _ = writeln!(out, "{}.\n", Counts::of(cells));
    table(&mut out, cells);
    differences(&mut out, cells);
    for cell in &attention {
        section(&mut out, cell);
    }
    disclosed(&mut out, cells);
    let present: Vec<String> =
        Counts::of(cells).present().map(|(m, _)| format!("{} **{}**: {}", m.glyph(), m.word(), m.meaning())).collect();
    let _ = writeln!(out, "<details><summary>Legend</summary>\n\n- {}\n\n</details>\n", present.join("\n- "));
    let took = run.duration_ms.map_or_else(|| "without an end".to_owned(), |ms| format!("in {}", duration(ms)));
    let _ = writeln!(out, "rotacheck {}, run {} {took}.", inline(&run.rotacheck), code(&run.id));
    Ok(out)
}

fn table(out: &mut String, cells: &[CellReport]) {
    let matrix = Matrix::of(cells);
    if matrix.columns.is_empty() {
        return;
    }
    for group in matrix.groups() {
        let columns = &matrix.columns[group.clone()];
        if !columns[0].group.is_empty() {
            let _ = writeln!(out, "**{}**\n", inline(&columns[0].group));
        }
        let labels: Vec<String> = columns.iter().map(|c| inline(&c.marked())).collect();
        let _ = writeln!(out, "| {} | {} |", inline(matrix.corner()), labels.join(" | "));
        let _ = writeln!(out, "|{}", "---|".repeat(labels.len() + 1));
        for row in matrix.rows_of(group.clone()) {
            let places: Vec<String> = group.clone().map(|c| place(matrix.at(row, c))).collect();
            let _ = writeln!(out, "| {} | {} |", inline(matrix.rows[row].as_str()), places.join(" | "));
        }
        out.push('\n');
    }
}

fn differences(out: &mut String, cells: &[CellReport]) {
    let all = Difference::all(cells);
    for difference in &all {
        let _ = writeln!(out, "- {}: {}", inline(difference.scenario.as_str()), inline(&difference.sentence()));
    }
    if !all.is_empty() {
        out.push('\n');
    }
}

/// Each sentence once, with the cells that it is true of.
fn disclosed(out: &mut String, cells: &[CellReport]) {
    let mut all: Vec<(&str, usize)> = Vec::new();
    for disclosure in cells.iter().flat_map(|cell| &cell.disclosed) {
        match all.iter_mut().find(|(text, _)| *text == disclosure.text) {
            Some((_, count)) => *count += 1,
            None => all.push((&disclosure.text, 1)),
        }
    }
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "<details><summary>Not as shipped ({OFF_PAIR}: off-pair)</summary>\n");
    for (text, count) in all {
        let _ = writeln!(out, "- {}: {count} {}", inline(text), if count == 1 { "cell" } else { "cells" });
    }
    let _ = writeln!(out, "\n</details>\n");
}

fn place(cells: &[&CellReport]) -> String {
    let marks = cells.iter().map(|cell| {
        let mark = Mark::of(cell);
        let word = if mark.needs_attention() { format!("**{}**", mark.word()) } else { mark.word().to_owned() };
        match cell.verdict.as_ref().and_then(|v| v.layer).filter(|_| mark != Mark::Pass) {
            Some(layer) => format!("{} {word} {layer}", mark.glyph()),
            None => format!("{} {word}", mark.glyph()),
        }
    });
    marks.collect::<Vec<_>>().join(", ")
}

fn section(out: &mut String, cell: &CellReport) {
    let mark = Mark::of(cell);
    let layer = cell.verdict.as_ref().and_then(|v| v.layer).map(|l| format!(" {l}")).unwrap_or_default();
    let _ = writeln!(out, "#### {} {}{layer}: {}\n", mark.glyph(), mark.word(), code(cell.id.as_str()));
    let _ = writeln!(out, "{}\n", inline(&headline(cell)));
    if let Some(v) = &cell.verdict {
        let mut items: Vec<String> = Vec::new();
        items.extend(
            v.contradictions
                .iter()
                .map(|c| format!("**claimed:** {}. **against it:** {}", inline(&c.claim), inline(&c.against))),
        );
        items.extend(v.findings.iter().filter(|f| f.result != CheckResult::Holds).map(|f| {
            let proxy = f.proxy.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
            format!("{}{proxy}: {}", code(&f.check), inline(&f.message))
        }));
        items.extend(
            v.hypotheses
                .iter()
                .map(|h| format!("{}? **{}**: {}", h.suspicion.words(), h.answer.word(), inline(&h.observation))),
        );
        items.extend(v.missing.iter().map(|m| format!("missing: {}", inline(m))));
        if let Some(diagnosis) = &v.diagnosis {
            items.push(format!("diagnosis: {}", code(diagnosis)));
        } else if !v.candidates.is_empty() {
            let names: Vec<String> = v.candidates.iter().map(|c| code(&c.mode)).collect();
            items.push(format!("one of: {}", names.join(", ")));
        }
        if !items.is_empty() {
            let _ = writeln!(out, "- {}\n", items.join("\n- "));
        }
    }
    let _ = writeln!(out, "Repeat: {}\n", code(&cell.command));
}

/// Text in a line of Markdown: nothing in it is markup, HTML, a mention or a link.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '!' | '|' | '~' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    // A bare address would become a link.
    out.replace("://", "&#58;//").trim().to_owned()
}

/// A code span; a fence longer than any run of backticks inside cannot be closed from within.
fn code(text: &str) -> String {
    let text = plain(text).replace('|', "\u{2502}");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;

    #[test]
    fn every_outcome_has_its_place() {
        insta::assert_snapshot!(render(&sample::record(), &sample::every_outcome()).unwrap());
    }

    #[test]
    fn groups_of_columns_are_tables_and_what_is_not_as_shipped_is_said_once() {
        insta::assert_snapshot!(render(&sample::record(), &sample::agents()).unwrap());
    }

    #[test]
    fn hostile_texts_stay_text() {
        assert_eq!(
            inline("<script>`a`|@team *x* https://evil"),
            "&lt;script&gt;\\`a\\`\\|&#64;team \\*x\\* https&#58;//evil"
        );
        assert_eq!(code("a``b"), "``` a``b ```");
        assert_eq!(code("plain"), "`plain`");
    }
}
