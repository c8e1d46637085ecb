//! The hidden subcommand that a cell's guard process runs.

use super::Exit;

/// Arguments of the guard.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_args: Args) -> Exit {
    Exit::Bug
}
