//! `rotacheck merge`.

use camino::{Utf8Path, Utf8PathBuf};

use super::stderr::say;
use super::{CliError, Exit};
use crate::archive::{Archive, DEFAULT_BASE, MergeError, merge};
use crate::report::{self, ReportSpec};

/// Arguments of `rotacheck merge`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Each machine runs its part of one plan (`rotacheck run --shard 2/4`) and hands over its run directory. A cell of a part \
that got lost is there as not run. A cell that ran twice is refused: nobody may choose between two answers.

Examples:
  rotacheck merge shards/*                              into a new run in rotacheck-runs
  rotacheck merge a/latest b/latest --report html=matrix.html

Exit codes: those of `rotacheck run`.")]
pub struct Args {
    /// The runs: directories of runs, each of which stands for its newest, or of one run.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<Utf8PathBuf>,
    /// Where the new run is kept; `latest` in it then points to it.
    #[arg(long = "runs", value_name = "DIR", default_value = DEFAULT_BASE)]
    base: Utf8PathBuf,
    /// A report to write: json=FILE, html=FILE, junit=FILE, markdown=FILE (`-` is standard output), or terminal.
    /// Repeatable.
    #[arg(long = "report", value_name = "FORMAT=FILE", default_value = "terminal")]
    reports: Vec<ReportSpec>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let opened: Result<Vec<Archive>, _> = args.runs.iter().map(|run| Archive::open(run)).collect();
    let runs = opened.map_err(|e| CliError::archive(&e))?;
    for problem in runs.iter().flat_map(Archive::problems) {
        say(format_args!("warning: cannot {problem}"));
    }
    join(&runs, &args.base, &args.reports)
}

/// Joins runs into a new one under `base`, and reports that.
pub(super) fn join(runs: &[Archive], base: &Utf8Path, reports: &[ReportSpec]) -> Result<Exit, CliError> {
    let (directory, missing) = merge(runs, base).map_err(|e| match e {
        MergeError::Archive(e) => CliError::archive(&e),
        e => CliError::new(Exit::Usage, format!("cannot {e}")),
    })?;
    for shard in missing {
        say(format_args!("warning: no run of the part {shard} was given: its cells count as not run"));
    }
    let merged = Archive::open(directory.path()).map_err(|e| CliError::archive(&e))?;
    for mut reporter in ReportSpec::reporters(reports) {
        report::replay(&merged, reporter.as_mut())
            .map_err(|e| CliError::new(Exit::CouldNotTell, format!("cannot {e}")))?;
    }
    Ok(Exit::of(&merged.cells()))
}
