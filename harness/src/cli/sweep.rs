//! `rotacheck sweep`.

use super::{CliError, Exit};

/// Arguments of `rotacheck sweep`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A run with `--topology kind` deletes the cluster that it made, also after Ctrl-C or an error. One that was killed can't, and \
`--keep` does not. A cluster is known by its name, rotacheck-PID-..., and by the process of that number, which is gone.

Examples:
  rotacheck sweep             what is left
  rotacheck sweep --yes       deletes it")]
pub struct Args {
    /// Delete what is found.
    #[arg(long)]
    yes: bool,
}

#[cfg(feature = "kubernetes")]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    use super::stderr::say;
    use super::stdout::print;
    use crate::fleet::{left_behind, sweep};

    let left = left_behind().await.map_err(|e| CliError::kind(&e))?;
    if left.is_empty() {
        say(format_args!("nothing is left behind"));
    }
    for name in &left {
        if args.yes {
            sweep(name).await.map_err(|e| CliError::kind(&e))?;
            print(format_args!("deleted the kind cluster {name}"))?;
        } else {
            print(format_args!("kind cluster {name}"))?;
        }
    }
    if !left.is_empty() && !args.yes {
        say(format_args!("`rotacheck sweep --yes` deletes that"));
    }
    Ok(Exit::AsExpected)
}

#[cfg(not(feature = "kubernetes"))]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let _ = args.yes;
    Err(CliError::with_hint(
        Exit::Usage,
        "cannot look for clusters: this rotacheck was built without the feature `kubernetes`",
        "build it with `--features kubernetes`",
    ))
}
