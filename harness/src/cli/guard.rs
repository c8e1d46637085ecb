//! The hidden subcommand that a cell's guard process runs.

use super::{CliError, Exit};
use crate::proc::run_guard;

/// Arguments of the guard.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: Args) -> Exit {
    if let Err(e) = run_guard() {
        let message = format!("cannot guard: {e}");
        CliError::with_hint(Exit::Usage, message, "rotacheck starts its guard processes itself").render();
        return Exit::Usage;
    }
    Exit::AsExpected
}
