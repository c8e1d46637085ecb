//! `rotacheck sweep`.

use super::stderr::say;
use super::stdout::print;
use super::{CliError, Exit};
use crate::fleet::{SweepError, left_behind, sweep};

/// Arguments of `rotacheck sweep`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A run deletes what it made outside of itself, also after Ctrl-C or an error: containers, the kind cluster, namespaces in a \
cluster that stays, Jobs. One that was killed may not, and `--keep` does not. What is left is known by its labels \
(rotacheck.dev/run, rotacheck.dev/machine), a kind cluster by its name, rotacheck-PID-...: the process of that number is \
gone. What runs on other machines made is not touched.

Every kind cluster of this machine is looked into; another one only with --context.

Examples:
  rotacheck sweep             what is left
  rotacheck sweep --yes       deletes it")]
pub struct Args {
    /// Delete what is found.
    #[arg(long)]
    yes: bool,
    /// A context of the kubeconfig, into whose cluster to look as well.
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    if args.context.is_some() && !cfg!(feature = "kubernetes") {
        return Err(CliError::with_hint(
            Exit::Usage,
            "cannot look into clusters: this rotacheck was built without the feature `kubernetes`",
            "build it with `--features kubernetes`",
        ));
    }
    let search = left_behind(args.context.as_deref()).await;
    let mut exit = Exit::AsExpected;
    let mut failed = |e: &SweepError| {
        refused(e).render();
        exit = Exit::CouldNotTell;
    };
    search.blind.iter().for_each(&mut failed);
    if search.left.is_empty() && search.blind.is_empty() {
        say(format_args!("nothing is left behind"));
    }
    for left in &search.left {
        if !args.yes {
            print(format_args!("{left}"))?;
            continue;
        }
        match sweep(left).await {
            Ok(()) => print(format_args!("deleted the {left}"))?,
            Err(e) => failed(&e),
        }
    }
    if !search.left.is_empty() && !args.yes {
        say(format_args!("`rotacheck sweep --yes` deletes that"));
    }
    Ok(exit)
}

fn refused(e: &SweepError) -> CliError {
    let told = format!("cannot {e}");
    match e.hint() {
        Some(hint) => CliError::with_hint(Exit::CouldNotTell, told, hint),
        None => CliError::new(Exit::CouldNotTell, told),
    }
}
