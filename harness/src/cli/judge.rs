//! `rotacheck judge`.

use camino::{Utf8Path, Utf8PathBuf};

use super::stderr::say;
use super::{CliError, Exit};
use crate::archive::{Archive, ArchiveError, RunEvent};
use crate::plan::{CellReport, Outcome};
use crate::report::ReportSpec;
use crate::run::proofs;
use crate::timeline::Role;
use crate::verdict::judge;

/// Arguments of `rotacheck judge`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The verdict is a function of the recording alone: no Envoy, no clock and no network is asked. Nothing is written to \
the run; a verdict that differs from the one that was kept there is told on stderr. Where the run was made with \
--require-controls, a pass counts only where the controls of its checks are caught again.

Examples:
  rotacheck judge                                       the newest run in rotacheck-runs
  rotacheck judge rotacheck-runs/latest/cells/incident@envoy-1.36.4
  rotacheck judge timeline.ndjson --report json=-       a recording that somebody sent

Exit codes: those of `rotacheck run`.")]
pub struct Args {
    /// A run's directory, `latest`, a cell's directory, or a timeline (NDJSON).
    #[arg(value_name = "RUN", default_value = "latest")]
    run: Utf8PathBuf,
    /// A report to write: json=FILE, html=FILE, junit=FILE, markdown=FILE (`-` is standard output), or terminal.
    /// Repeatable.
    #[arg(long = "report", value_name = "FORMAT=FILE", default_value = "terminal")]
    reports: Vec<ReportSpec>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let (archive, cells) = judged(&args.run).map_err(|e| CliError::archive(&e))?;
    for problem in archive.problems() {
        say(format_args!("warning: cannot {problem}"));
    }
    let exit = Exit::of(&cells);
    let event = RunEvent::RunFinished { run: archive.record().clone(), cells };
    for mut reporter in ReportSpec::reporters(&args.reports) {
        reporter.event(&event).map_err(|e| CliError::new(Exit::CouldNotTell, format!("cannot {e}")))?;
    }
    Ok(exit)
}

/// The run with every recording in it judged anew.
fn judged(path: &Utf8Path) -> Result<(Archive, Vec<CellReport>), ArchiveError> {
    if path.is_file() || (path.join("timeline.ndjson").is_file() && !path.join("run.json").exists()) {
        let (archive, timeline) = Archive::recording(path)?;
        let mut cells = archive.cells();
        for cell in &mut cells {
            cell.command = format!("rotacheck judge {path}");
            cell.judged(judge(&timeline));
        }
        if let Some(controls) = controls_beside(&archive)? {
            refuse(&mut cells, &controls);
        }
        return Ok((archive, cells));
    }
    let archive = Archive::open(path)?;
    let kept = archive.cells();
    let mut cells = kept.clone();
    again(&archive, &mut cells);
    if archive.record().require_controls {
        let all = cells.clone();
        refuse(&mut cells, &all);
    }
    for (before, cell) in kept.iter().zip(&cells) {
        if let (Some(before), Some(now)) = (&before.verdict, &cell.verdict)
            && (before.judgement, before.layer, &before.diagnosis) != (now.judgement, now.layer, &now.diagnosis)
        {
            say(format_args!("{}: the verdict that was kept was another one: {}", cell.id, before.headline));
        }
    }
    Ok((archive, cells))
}

/// Judges those that were begun.
fn again(archive: &Archive, cells: &mut [CellReport]) {
    for cell in cells {
        if matches!(cell.outcome, Outcome::NotRun | Outcome::Unsupported) {
            continue;
        }
        match archive.timeline(&cell.id) {
            Ok(timeline) => cell.judged(judge(&timeline)),
            Err(e) => {
                cell.outcome = Outcome::Error;
                cell.as_expected = false;
                cell.verdict = None;
                cell.reason = Some(format!("cannot {e}"));
            }
        }
    }
}

/// The cells of the run in which a recording lies, with its controls judged, if that run requires them.
fn controls_beside(recording: &Archive) -> Result<Option<Vec<CellReport>>, ArchiveError> {
    let run = Utf8Path::new(&recording.record().directory);
    if !run.join("run.json").exists() {
        return Ok(None);
    }
    let run = Archive::open(run)?;
    if !run.record().require_controls {
        return Ok(None);
    }
    let mut cells = run.cells();
    cells.retain(|cell| cell.role == Role::Control);
    again(&run, &mut cells);
    Ok(Some(cells))
}

/// What the run was told by `--require-controls` holds for whoever judges it again: a pass counts only where its checks are
/// proven by these.
fn refuse(cells: &mut [CellReport], controls: &[CellReport]) {
    let subjects = cells.iter().map(|cell| cell.subject.envoy.clone());
    let proofs = proofs(subjects, controls);
    for cell in cells.iter_mut().filter(|cell| cell.role == Role::Conformance) {
        if let (Some(unproven), Some(mut verdict)) = (proofs.get(&cell.subject.envoy), cell.verdict.clone()) {
            verdict.refuse(unproven);
            cell.judged(verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::archive::{RunDirectory, RunRecord, sample};
    use crate::timeline::CellId;

    /// A run of one healthy cell and no control.
    fn outcomes(require_controls: bool) -> [Outcome; 2] {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(Utf8Path::from_path(dir.path()).unwrap()).unwrap();
        run.write_record(&RunRecord { require_controls, ..sample::record() }).unwrap();
        let cell = run.cell_directory(&CellId::parse("rotation@envoy-1.38.3").unwrap()).unwrap();
        let recording = include_bytes!("../../../fixtures/timelines/rotation.ndjson");
        cell.create_timeline().unwrap().write_all(recording).unwrap();
        [run.path(), cell.path()].map(|path| judged(path).unwrap().1[0].outcome)
    }

    #[test]
    fn a_run_that_required_controls_requires_them_of_whoever_judges_it_again() {
        assert_eq!(outcomes(false), [Outcome::Pass; 2]);
        assert_eq!(outcomes(true), [Outcome::Inconclusive; 2]);
    }
}
