//! `rotacheck selfcheck`.

mod table;

use super::page::Page;
use super::run::{HowArgs, carry_out};
use super::selection::LibraryArgs;
use super::{CliError, Exit};
use crate::archive::Archive;
use crate::plan::{CellReport, Outcome, Plan, Selection};
use crate::run::{Ran, Stop};
use crate::timeline::{EnvoyRequest, ExpectedJudgement};
use crate::verdict::{Blindfold, judge_without, untrue};

/// Arguments of `rotacheck selfcheck`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = NOTES)]
pub struct Args {
    /// An Envoy: a version, or `path=FILE` for an executable; repeatable [default: those of matrix.yaml]
    #[arg(long = "envoy", value_name = "VERSION|path=FILE")]
    envoys: Vec<EnvoyRequest>,
    #[command(flatten)]
    library: LibraryArgs,
    #[command(flatten)]
    how: HowArgs,
}

const NOTES: &str = "\
Every control seeds the fault of one failure mode. In the table `right` means that it was found and blamed on the right
layer, by its right name; `caught` that its name was left open; `noted` that what recovers by itself, or only hides
something, was seen. The mutation score is the share of the
seeded faults that were found. Each recording is then judged again with less evidence, without each source in turn and
without what is missing together in practice: less may be said then, but nothing that is not so.

Exit codes: 0 nothing missed or misblamed; 1 otherwise; 5 a cell could not be carried out; 130 interrupted.";

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let library = args.library.open()?;
    let controls = library.every_control()?;
    let scenarios = controls.iter().map(|control| control.name.to_string()).collect();
    let plan = Plan::select(&library, &Selection { scenarios, envoys: args.envoys, ..Selection::default() })?;
    let stop = Stop::default();
    let (ran, exit) = carry_out(plan, args.how, None, false, Vec::new(), &stop).await?;
    let Some(ran) = ran else { return Ok(exit) };
    let score = Score::of(&ran.reports);
    let untrue = blindfolded(&ran)?;
    let mut page = Page::new();
    page.line("");
    table::show(&mut page, &ran.reports);
    score.show(&mut page, &untrue);
    page.print();
    Ok(match exit {
        Exit::AsExpected if !untrue.is_empty() => Exit::Failed,
        exit => exit,
    })
}

/// What became of the seeded faults.
#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    /// Cells that were judged.
    judged: usize,
    /// The fault was found, or what recovers did.
    found: usize,
    /// And the layer is right.
    layer: usize,
    /// And the name.
    name: usize,
    /// Cells without a judgement.
    untold: usize,
}

impl Score {
    fn of(cells: &[CellReport]) -> Self {
        let mut score = Self::default();
        for cell in cells.iter().filter(|cell| cell.outcome != Outcome::Unsupported) {
            let Some(verdict) = &cell.verdict else {
                score.untold += 1;
                continue;
            };
            let expected = match cell.expect.judgement {
                ExpectedJudgement::Pass => Outcome::Pass,
                ExpectedJudgement::Fail => Outcome::Fail,
                ExpectedJudgement::Inconclusive => Outcome::Inconclusive,
            };
            let found = cell.outcome == expected;
            let layer = found && (cell.expect.layer.is_none() || verdict.layer == cell.expect.layer);
            score.judged += 1;
            score.found += usize::from(found);
            score.layer += usize::from(layer);
            score.name += usize::from(layer && cell.as_expected);
        }
        score
    }

    fn show(&self, page: &mut Page, untrue: &[String]) {
        let share = |n: usize| {
            let percent = if self.judged == 0 { 0.0 } else { n as f64 * 100.0 / self.judged as f64 };
            format!("{n} of {} ({percent:.1} %)", self.judged)
        };
        page.line(&format!("mutation score  {}", share(self.found)));
        page.line(&format!("right layer     {}", share(self.layer)));
        page.line(&format!("right name      {}", share(self.name)));
        if self.untold > 0 {
            page.line(&format!("not judged      {}", self.untold));
        }
        match untrue {
            [] => page.line(&format!(
                "less evidence   nothing untrue, whatever of {} sources or sets of them is taken away",
                Blindfold::ALL.len()
            )),
            untrue => {
                page.line(&format!("less evidence   {} untrue", untrue.len()));
                untrue.iter().for_each(|what| page.item("    ", what));
            }
        }
    }
}

/// What is said that is not so, when a source is taken away.
fn blindfolded(ran: &Ran) -> Result<Vec<String>, CliError> {
    let archive = Archive::open(&ran.directory).map_err(|e| CliError::archive(&e))?;
    let mut found = Vec::new();
    for cell in ran.reports.iter().filter(|cell| cell.verdict.is_some()) {
        let timeline = archive.timeline(&cell.id).map_err(|e| CliError::archive(&e))?;
        for blindfold in Blindfold::ALL {
            if let Some(what) = untrue(&cell.expect, &judge_without(&timeline, blindfold)) {
                found.push(format!("{}, without {}: {what}", cell.id, blindfold.name()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;
    use crate::scenario::Role::Control;

    #[test]
    fn a_missed_fault_counts_in_no_line_and_a_misblamed_one_in_the_first() {
        let cell = |outcome, right| sample::cell("incident", "1.38.3", Control, outcome, right);
        let mut misblamed = cell(Outcome::Fail, false);
        misblamed.verdict.as_mut().unwrap().layer = Some(crate::timeline::Layer::Sent);
        let cells = [cell(Outcome::Fail, true), cell(Outcome::Pass, false), misblamed, cell(Outcome::Error, false)];
        let score = Score::of(&cells);
        assert_eq!(score, Score { judged: 3, found: 2, layer: 1, name: 1, untold: 1 });
        let mut page = Page::plain(100);
        score.show(&mut page, &["incident@envoy-1.38.3, without the issuer's journal: it was blamed on sent".into()]);
        insta::assert_snapshot!(page.text());
    }
}
