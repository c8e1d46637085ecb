//! `rotacheck judge`.

use camino::{Utf8Path, Utf8PathBuf};

use super::stderr::say;
use super::{CliError, Exit};
use crate::archive::{Archive, ArchiveError, RunEvent};
use crate::plan::{CellReport, Outcome};
use crate::report::ReportSpec;
use crate::verdict::judge;

/// Arguments of `rotacheck judge`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The verdict is a function of the recording alone: no Envoy, no clock and no network is asked. Nothing is written to \
the run; a verdict that differs from the one that was kept there is told on stderr.

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
        return Ok((archive, cells));
    }
    let archive = Archive::open(path)?;
    let mut cells = archive.cells();
    for cell in &mut cells {
        if matches!(cell.outcome, Outcome::NotRun | Outcome::Unsupported) {
            continue;
        }
        let before = cell.verdict.clone();
        match archive.timeline(&cell.id) {
            Ok(timeline) => cell.judged(judge(&timeline)),
            Err(e) => {
                cell.outcome = Outcome::Error;
                cell.as_expected = false;
                cell.verdict = None;
                cell.reason = Some(format!("cannot {e}"));
            }
        }
        if let (Some(before), Some(now)) = (&before, &cell.verdict)
            && (before.judgement, before.layer, &before.diagnosis) != (now.judgement, now.layer, &now.diagnosis)
        {
            say(format_args!("{}: the verdict that was kept was another one: {}", cell.id, before.headline));
        }
    }
    Ok((archive, cells))
}
