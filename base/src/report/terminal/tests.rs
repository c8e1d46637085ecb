use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::archive::{PlannedCell, sample};
use crate::plan::{CellReport, Outcome};
use crate::timeline::Role;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn terminal() -> (Terminal, Paper, Paper) {
    let (talk, data) = (Paper::default(), Paper::default());
    let style = Style { bars: false, talk: Paint::Plain, data: Paint::Plain, width: 80, fold: false };
    (Terminal::new(style, Box::new(talk.clone()), Box::new(data.clone())), talk, data)
}

fn planned(cells: &[CellReport]) -> Vec<PlannedCell> {
    let one =
        |c: &CellReport| PlannedCell { id: c.id.clone(), scenario: c.scenario.clone(), subject: c.subject.clone() };
    cells.iter().map(one).collect()
}

/// The default plan, all as expected.
fn default_plan() -> Vec<CellReport> {
    let scenarios = [
        ("rotation", Role::Conformance),
        ("rotation-one-hour", Role::Conformance),
        ("incident", Role::Control),
        ("never-renews", Role::Control),
        ("issues-never-pushes", Role::Control),
        ("nack-key-mismatch", Role::Control),
        ("expired-on-arrival", Role::Control),
        ("stream-closed-once", Role::Conformance),
        ("bundle-rotation", Role::Conformance),
    ];
    let outcome = |role| if role == Role::Control { Outcome::Fail } else { Outcome::Pass };
    let row = |(name, role)| sample::VERSIONS.map(|v| sample::cell(name, v, role, outcome(role), true));
    scenarios.into_iter().flat_map(row).collect()
}

#[test]
fn the_default_plan_fits_into_80_columns() {
    let text = summary(&sample::record(), &default_plan(), 80, Paint::Plain);
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn istios_and_providers_are_groups_of_columns_that_fit_into_80() {
    let text = summary(&sample::record(), &sample::agents(), 80, Paint::Plain);
    let longest = text.lines().filter(|l| !l.contains("claimed on")).map(|l| l.chars().count()).max();
    assert!(longest <= Some(80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn wide_terminals_see_groups_beside_each_other() {
    insta::assert_snapshot!(summary(&sample::record(), &sample::agents(), 200, Paint::Plain));
}

#[test]
fn wide_terminals_see_the_layers() {
    insta::assert_snapshot!(summary(&sample::record(), &default_plan()[..15], 120, Paint::Plain));
}

#[test]
fn every_outcome_reads_without_colour() {
    let text = summary(&sample::record(), &sample::every_outcome(), 80, Paint::Plain);
    insta::assert_snapshot!(text);
}

#[test]
fn narrow_terminals_get_the_columns_in_groups() {
    let text = summary(&sample::record(), &default_plan()[..15], 40, Paint::Plain);
    insta::assert_snapshot!(text);
}

#[test]
fn colour_adds_nothing_but_colour() {
    let coloured = summary(&sample::record(), &sample::every_outcome(), 80, Paint::Colour);
    let mut bare = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        bare.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    bare.push_str(rest);
    assert_ne!(bare, coloured);
    assert_eq!(bare, summary(&sample::record(), &sample::every_outcome(), 80, Paint::Plain));
}

#[test]
fn talk_and_data_go_separate_ways() {
    let (mut terminal, talk, data) = terminal();
    let cells = sample::every_outcome();
    let run = sample::record();
    terminal.event(&RunEvent::RunStarted { run: run.clone(), cells: planned(&cells) }).unwrap();
    for cell in &cells[..6] {
        terminal.event(&RunEvent::CellStarted { cell: cell.id.clone() }).unwrap();
        terminal.event(&RunEvent::CellFinished { report: Box::new(cell.clone()) }).unwrap();
    }
    terminal.event(&RunEvent::Notice { text: "the preload was refused\u{1b}[2J".into() }).unwrap();
    terminal.event(&RunEvent::Interrupted).unwrap();
    assert_eq!(data.text(), "");
    terminal.event(&RunEvent::RunFinished { run: run.clone(), cells: cells.clone() }).unwrap();
    assert_eq!(data.text(), summary(&run, &cells, 80, Paint::Plain));
    insta::assert_snapshot!(talk.text());
}

#[test]
fn silence_is_broken_by_a_sign_of_life() {
    let (mut terminal, talk, _) = terminal();
    let cells = sample::every_outcome();
    terminal.event(&RunEvent::RunStarted { run: sample::record(), cells: planned(&cells) }).unwrap();
    let cell = cells[0].id.clone();
    terminal.event(&RunEvent::CellStarted { cell: cell.clone() }).unwrap();
    let progress = RunEvent::CellProgress { cell, phase: "observe".into(), step: 12, steps: 33, cell_time_s: 15_120 };
    terminal.event(&progress).unwrap();
    let before = talk.text();
    let now = Instant::now();
    terminal.tick_at(now + Duration::from_secs(20)).unwrap();
    assert_eq!(talk.text(), before);
    for later in [31, 40, 62] {
        terminal.tick_at(now + Duration::from_secs(later)).unwrap();
    }
    let said = "0/13 cells done; rotation@envoy-1.36.4 (observe 12/33, 4 h 12 min of cell time)\n";
    assert_eq!(talk.text(), before + &said.repeat(2));
}

#[test]
fn on_a_terminal_sentences_are_wrapped_and_commands_stay_whole() {
    let paper = Paper::default();
    let style = Style { bars: false, talk: Paint::Plain, data: Paint::Plain, width: 60, fold: true };
    let mut terminal = Terminal::new(style, Box::new(Paper::default()), Box::new(paper.clone()));
    let cells = sample::every_outcome();
    terminal.event(&RunEvent::RunFinished { run: sample::record(), cells: cells.clone() }).unwrap();
    let text = paper.text();
    for line in text.lines().filter(|l| l.chars().count() > 60) {
        assert!(line.contains("repeat: ") || line.starts_with("evidence in"), "{line}");
    }
    assert!(cells.iter().filter(|c| !c.as_expected).any(|c| text.contains(&c.command)));
}
