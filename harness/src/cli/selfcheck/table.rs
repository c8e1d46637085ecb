//! The table of `rotacheck selfcheck`: what became of each mode's seeded fault, on each Envoy.

use std::collections::BTreeMap;

use super::super::page::Page;
use crate::plan::{CellReport, Outcome};
use crate::timeline::ExpectedJudgement;
use crate::verdict::{MODES, Mode, Verdict};

/// What became of a seeded fault, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Found, with the right layer and the right name.
    Right,
    /// What recovers, or hides something, was seen and said.
    Noted,
    /// Found, on no wrong layer, but its name was left open.
    Caught,
    /// It makes no sense on this subject.
    Unsupported,
    /// There is no judgement.
    Untold,
    /// Found, and blamed on another layer or mode.
    Misblamed,
    /// Not found.
    Missed,
}

impl Fate {
    const ALL: [Fate; 7] =
        [Fate::Right, Fate::Noted, Fate::Caught, Fate::Unsupported, Fate::Untold, Fate::Misblamed, Fate::Missed];

    pub(super) fn glyph(self) -> char {
        match self {
            Fate::Right => '◆',
            Fate::Noted => '✓',
            Fate::Caught => '◇',
            Fate::Unsupported => '–',
            Fate::Untold => '▲',
            Fate::Misblamed => '≠',
            Fate::Missed => '○',
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Fate::Right => "right",
            Fate::Noted => "noted",
            Fate::Caught => "caught",
            Fate::Unsupported => "unsupp.",
            Fate::Untold => "ERROR",
            Fate::Misblamed => "MISBLAMED",
            Fate::Missed => "MISSED",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Fate::Right => "found, blamed on the right layer, and named",
            Fate::Noted => "no failure by itself: it was seen, and said",
            Fate::Caught => "found, and blamed on no wrong layer; the name was left open",
            Fate::Unsupported => "it makes no sense there",
            Fate::Untold => "there is no judgement",
            Fate::Misblamed => "found, but blamed on another layer or mode",
            Fate::Missed => "not found",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Fate::Right | Fate::Noted => "32",
            Fate::Caught | Fate::Unsupported => "33",
            Fate::Untold | Fate::Misblamed | Fate::Missed => "31",
        }
    }

    /// What a control's run says of a mode that it seeds: its diagnosis, or one that must be noted.
    pub(super) fn of(cell: &CellReport, mode: &str) -> Fate {
        let Some(verdict) = &cell.verdict else {
            return if cell.outcome == Outcome::Unsupported { Fate::Unsupported } else { Fate::Untold };
        };
        if cell.expect.diagnosis.as_deref() != Some(mode) {
            return match verdict.findings.iter().any(|f| f.check == mode) {
                true => Fate::Noted,
                false => Fate::Missed,
            };
        }
        seeded(cell, verdict)
    }
}

/// What became of the fault that the whole cell is about.
fn seeded(cell: &CellReport, verdict: &Verdict) -> Fate {
    let found = match cell.expect.judgement {
        ExpectedJudgement::Fail => cell.outcome == Outcome::Fail,
        ExpectedJudgement::Inconclusive => cell.outcome == Outcome::Inconclusive,
        ExpectedJudgement::Pass => cell.outcome == Outcome::Pass,
    };
    let other_layer = cell.expect.layer.is_some() && verdict.layer.is_some() && verdict.layer != cell.expect.layer;
    let right = cell.expect.diagnosis.as_deref();
    let other_name =
        right.is_some_and(|right| !verdict.candidates.is_empty() && verdict.candidates.iter().all(|c| c.mode != right));
    match found {
        false => Fate::Missed,
        true if cell.as_expected => Fate::Right,
        true if other_layer || other_name => Fate::Misblamed,
        true => Fate::Caught,
    }
}

/// Why there is no control for a mode.
fn uncontrolled(mode: &Mode) -> &'static str {
    match mode.name {
        "agent-owns-socket" | "files-socket-red-herring" => "it needs Istio's agent",
        _ => "no scenario provokes it yet",
    }
}

/// Modes by Envoys, then what the glyphs mean, then the modes without a control.
pub(super) fn show(page: &mut Page, cells: &[CellReport]) {
    let mut envoys: Vec<String> = Vec::new();
    for cell in cells {
        let envoy = column(cell);
        if !envoys.contains(&envoy) {
            envoys.push(envoy);
        }
    }
    let seeds = |cell: &CellReport, mode: &str| {
        cell.expect.diagnosis.as_deref() == Some(mode) || cell.expect.noted.iter().any(|noted| noted == mode)
    };
    let mut rows: Vec<(&str, BTreeMap<usize, Fate>)> = Vec::new();
    let mut without: Vec<&Mode> = Vec::new();
    for mode in MODES {
        let mut fates: BTreeMap<usize, Fate> = BTreeMap::new();
        for cell in cells.iter().filter(|cell| seeds(cell, mode.name)) {
            let place = envoys.iter().position(|envoy| *envoy == column(cell)).unwrap_or(0);
            let fate = Fate::of(cell, mode.name);
            fates.entry(place).and_modify(|worst| *worst = fate.max(*worst)).or_insert(fate);
        }
        match fates.is_empty() {
            true => without.push(mode),
            false => rows.push((mode.name, fates)),
        }
    }
    draw(page, &envoys, &rows);
    let present = |fate: &Fate| rows.iter().any(|(_, fates)| fates.values().any(|f| f == fate));
    for fate in Fate::ALL.into_iter().filter(present) {
        page.item("  ", &format!("{} {}: {}", fate.glyph(), fate.word(), fate.meaning()));
    }
    page.line("");
    if !without.is_empty() {
        page.heading("without a control");
        for mode in without {
            page.item("  ", &format!("{}: {}", mode.name, uncontrolled(mode)));
        }
        page.line("");
    }
}

fn draw(page: &mut Page, envoys: &[String], rows: &[(&str, BTreeMap<usize, Fate>)]) {
    const GAP: usize = 2;
    let first = rows.iter().map(|(name, _)| name.len()).chain(["mode".len()]).max().unwrap_or(0);
    let words = |place: usize| {
        let fates = rows.iter().filter_map(|(_, fates)| fates.get(&place));
        fates.map(|fate| 2 + fate.word().len()).max().unwrap_or(1)
    };
    let widths = |with_words: bool| -> Vec<usize> {
        let of = |(place, envoy): (usize, &String)| envoy.len().max(if with_words { words(place) } else { 1 });
        envoys.iter().enumerate().map(of).collect()
    };
    let total = |widths: &[usize]| first + widths.iter().map(|width| GAP + width).sum::<usize>();
    // Where there is no room for words, the legend has them.
    let with_words = total(&widths(true)) <= page.width();
    let widths = widths(with_words);
    let mut head = format!("{:first$}", "mode");
    for (envoy, width) in envoys.iter().zip(&widths) {
        head.push_str(&format!("{:GAP$}{envoy:width$}", ""));
    }
    page.heading(head.trim_end());
    for (name, fates) in rows {
        let mut line = format!("{name:first$}");
        for (place, width) in widths.iter().enumerate() {
            let (text, colour) = match fates.get(&place) {
                Some(fate) if with_words => (format!("{} {}", fate.glyph(), fate.word()), fate.colour()),
                Some(fate) => (fate.glyph().to_string(), fate.colour()),
                None => (String::new(), "0"),
            };
            let room = width.saturating_sub(text.chars().count());
            line.push_str(&" ".repeat(GAP));
            line.push_str(&if text.is_empty() { text } else { page.coloured(colour, &text) });
            line.push_str(&" ".repeat(room));
        }
        page.line(line.trim_end());
    }
    page.line("");
}

/// The Envoy's version; one that was given by its path may have the version of another.
fn column(cell: &CellReport) -> String {
    cell.id
        .as_str()
        .rsplit_once("@envoy-")
        .map_or_else(|| cell.subject.envoy.version.to_string(), |(_, v)| v.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;
    use crate::timeline::{Layer, Role::Control};

    fn cell(scenario: &str, envoy: &str, outcome: Outcome, right: bool, mode: &str) -> CellReport {
        let mut cell = sample::cell(scenario, envoy, Control, outcome, right);
        cell.expect.diagnosis = Some(mode.to_owned());
        if let Some(verdict) = cell.verdict.as_mut().filter(|_| right) {
            verdict.diagnosis = Some(mode.to_owned());
            verdict.candidates[0].mode = mode.to_owned();
        }
        cell
    }

    fn cells() -> Vec<CellReport> {
        let mut open = cell("incident", "1.39.3", Outcome::Fail, false, "resend-cached");
        open.verdict.as_mut().unwrap().diagnosis = None;
        let mut noted = cell("masked-by-pool", "1.36.4", Outcome::Fail, true, "never-renews");
        noted.expect.noted = vec!["masked-by-pool".into(), "masked-by-resumption".into()];
        let mut finding = noted.verdict.as_ref().unwrap().findings[0].clone();
        finding.check = "masked-by-pool".into();
        noted.verdict.as_mut().unwrap().findings.push(finding);
        let mut misblamed = cell("wrong-name", "1.36.4", Outcome::Fail, false, "wrong-name");
        misblamed.expect.layer = Some(Layer::Sent);
        vec![
            cell("incident", "1.36.4", Outcome::Fail, true, "resend-cached"),
            cell("incident", "1.37.0", Outcome::Pass, false, "resend-cached"),
            open,
            noted,
            misblamed,
            cell("wrong-name", "1.37.0", Outcome::Error, false, "wrong-name"),
            cell("wrong-name", "1.39.3", Outcome::Unsupported, true, "wrong-name"),
        ]
    }

    #[test]
    fn the_table_tells_what_became_of_each_seeded_fault() {
        let mut page = Page::plain(100);
        show(&mut page, &cells());
        let (table, without) = page.text().split_once("without a control").unwrap();
        insta::assert_snapshot!(table);
        assert!(without.contains("agent-owns-socket: it needs Istio's agent\n"), "{without}");
    }

    #[test]
    fn a_narrow_terminal_gets_glyphs_and_their_legend() {
        let mut page = Page::plain(48);
        show(&mut page, &cells());
        let table = page.text().lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        assert!(table.lines().all(|line| line.chars().count() <= 48), "{table}");
        insta::assert_snapshot!(table);
    }

    #[test]
    fn five_envoys_fit_into_eighty_columns() {
        let mut cells = Vec::new();
        for envoy in sample::VERSIONS {
            cells.push(cell("x", envoy, Outcome::Fail, false, "starved-by-bundle-churn"));
            cells.push(cell("y", envoy, Outcome::Pass, false, "files-socket-red-herring"));
        }
        let mut page = Page::plain(79);
        show(&mut page, &cells);
        for line in page.text().lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
    }
}
