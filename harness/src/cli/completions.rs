//! `rotacheck completions`.

use super::{CliError, Exit};

/// Arguments of `rotacheck completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rotacheck completions bash > ~/.local/share/bash-completion/completions/rotacheck
  rotacheck completions zsh > ~/.zfunc/_rotacheck          with ~/.zfunc in $fpath
  rotacheck completions fish > ~/.config/fish/completions/rotacheck.fish")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    clap_complete::generate(args.shell, &mut super::command(), "rotacheck", &mut std::io::stdout());
    Ok(Exit::AsExpected)
}
