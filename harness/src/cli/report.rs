//! `rotacheck report`.

use camino::Utf8PathBuf;

use super::stderr::say;
use super::{CliError, Exit};
use crate::archive::Archive;
use crate::report::{self, ReportSpec};

/// Arguments of `rotacheck report`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Shows the verdicts that were kept; `rotacheck judge` makes them anew. The exit code says whether the reports could be \
written, not what they say.

Examples:
  rotacheck report                                      the newest run in rotacheck-runs, on the terminal
  rotacheck report --report html=matrix.html
  rotacheck report rotacheck-runs/20261124T173555Z-3f9c --report markdown=-")]
pub struct Args {
    /// A run's directory, a directory of runs (its newest is taken), or `latest`.
    #[arg(value_name = "RUN", default_value = "latest")]
    run: Utf8PathBuf,
    /// A report to write: json=FILE, html=FILE, junit=FILE, markdown=FILE (`-` is standard output), or terminal.
    /// Repeatable.
    #[arg(long = "report", value_name = "FORMAT=FILE", default_value = "terminal")]
    reports: Vec<ReportSpec>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let archive = Archive::open(&args.run).map_err(|e| CliError::archive(&e))?;
    for problem in archive.problems() {
        say(format_args!("warning: cannot {problem}"));
    }
    for mut reporter in ReportSpec::reporters(&args.reports) {
        report::replay(&archive, reporter.as_mut())
            .map_err(|e| CliError::new(Exit::CouldNotTell, format!("cannot {e}")))?;
    }
    Ok(Exit::AsExpected)
}
