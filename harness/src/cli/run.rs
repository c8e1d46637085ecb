//! `rotacheck run`.

use super::{CliError, Exit};

/// Arguments of `rotacheck run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) async fn run(_args: Args) -> Result<Exit, CliError> {
    Err(CliError::new(Exit::Bug, "not written yet"))
}
