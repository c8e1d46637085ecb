//! `rotacheck schema`.

use super::page::print;
use super::{CliError, Exit};

/// Arguments of `rotacheck schema`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
JSON Schema draft-07. An editor takes it from a scenario file's first line:

  # yaml-language-server: $schema=scenario.schema.json")]
pub struct Args {
    /// Of what.
    #[arg(value_enum, default_value = "scenario")]
    of: Of,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Of {
    /// A scenario file.
    Scenario,
    /// `matrix.yaml`.
    Matrix,
    /// The JSON report of a run.
    Report,
    /// A cell's `verdict.json`.
    Cell,
    /// A line of a cell's `timeline.ndjson`.
    Timeline,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    print(text(args.of));
    Ok(Exit::AsExpected)
}

/// As the tests generate them from the types: the program itself makes none.
fn text(of: Of) -> &'static str {
    match of {
        Of::Scenario => include_str!("../../../scenarios/schema/scenario.schema.json"),
        Of::Matrix => include_str!("../../../scenarios/schema/matrix.schema.json"),
        Of::Report => include_str!("../../../scenarios/schema/report.schema.json"),
        Of::Cell => include_str!("../../../scenarios/schema/cell.schema.json"),
        Of::Timeline => include_str!("../../../scenarios/schema/timeline.schema.json"),
    }
}

#[cfg(test)]
pub(super) mod generate;
