//! `rotacheck completions`.

use super::{CliError, Exit};

/// Arguments of `rotacheck completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    clap_complete::generate(args.shell, &mut super::command(), "rotacheck", &mut std::io::stdout());
    Ok(Exit::AsExpected)
}
