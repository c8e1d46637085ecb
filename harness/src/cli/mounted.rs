//! The hidden subcommand by which a proxy sees the provider's socket through a mount of its own.

use camino::Utf8PathBuf;

use super::{CliError, Exit};
use crate::proc::become_with_mount;

/// Arguments of the mount.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is mounted.
    from: Utf8PathBuf,
    /// Where.
    to: Utf8PathBuf,
    /// The program that sees it there, and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

pub(super) fn run(args: &Args) -> Exit {
    let e = become_with_mount(&args.from, &args.to, &args.program);
    let message = format!("cannot start {} with a mount of its own: {e}", args.program[0]);
    CliError::new(Exit::CouldNotTell, message).render();
    Exit::CouldNotTell
}
