//! Arguments; one file per subcommand; the only exit point; the only place that renders errors.

mod completions;
mod container;
mod diagnose;
mod doctor;
mod error;
mod explain;
mod fetch;
#[cfg(test)]
mod generated;
mod guard;
mod judge;
#[cfg(feature = "kubernetes")]
mod kind;
mod list;
mod lock;
mod man;
mod merge;
mod mounted;
#[cfg(feature = "kubernetes")]
mod on;
mod page;
mod part;
mod plan;
mod provider;
mod relay;
mod report;
mod run;
mod schema;
mod selection;
mod selfcheck;
mod stderr;
mod stdout;
mod sweep;
mod tbot;
mod witness;

use std::pin::Pin;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use error::{CliError, Exit};

/// Certificate rotation in service meshes, reproduced and checked on real Envoys.
///
/// Brings up Envoys with a certificate provider, lets hours of rotation pass in seconds, and checks that every
/// Envoy's served certificates renew, past the first expiry. Where they do not, it names the layer at which the new
/// certificate stopped: issued, sent, acked, dumped, loaded or served.
#[derive(Debug, Parser)]
#[command(name = "rotacheck", version, max_term_width = 100, after_long_help = FIRST_STEPS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  rotacheck doctor                      what this machine can run
  rotacheck run                         everything; fetches the Envoys on first use
  rotacheck run incident                one scenario
  rotacheck report --report html=matrix.html
  rotacheck explain resend-cached       what a diagnosis means, and first aid";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios on real Envoys and print the matrix of verdicts.
    Run(run::Args),
    /// Run every control on every Envoy of the matrix: is each seeded fault caught, and blamed right?
    Selfcheck(selfcheck::Args),
    /// List the scenarios, and what each shows.
    List(list::Args),
    /// Show which cells a run would have.
    Plan(plan::Args),
    /// Judge the recordings of a run again, without Envoy.
    Judge(judge::Args),
    /// Write reports of a finished run.
    Report(report::Args),
    /// Join the runs of several machines into one.
    Merge(merge::Args),
    /// Look at the proxies of a Kubernetes cluster, changing nothing: what has expired, what is overdue, and why.
    Diagnose(diagnose::Args),
    /// Explain a failure mode: what it is, how it is recognised, first aid, the lasting fix.
    Explain(explain::Args),
    /// Check what this machine can run, and say what is missing.
    Doctor(doctor::Args),
    /// Fetch, build and verify executables ahead of a run.
    Fetch(fetch::Args),
    /// Add a version of Envoy, Istio or SPIRE to the lock file.
    Lock(lock::Args),
    /// Serve the fake provider on a Unix socket, for proxies of your own.
    Provider(provider::Args),
    /// Carry bytes in a pod, for a run in a Kubernetes cluster.
    Relay(relay::Args),
    /// Subscribe at a provider's socket, and tell what is given to whoever comes now.
    Witness(witness::Args),
    /// Find the kind clusters that a killed run left behind, and delete them.
    Sweep(sweep::Args),
    /// Print a JSON Schema.
    Schema(schema::Args),
    /// Print shell completions.
    Completions(completions::Args),
    /// Print the man page.
    Man(man::Args),
    #[command(hide = true, name = "__guard")]
    #[expect(missing_docs, reason = "internal: the process that outlives a killed harness")]
    Guard(guard::Args),
    #[command(hide = true, name = "__part")]
    #[expect(missing_docs, reason = "internal: a pod's part of a plan that runs in a cluster")]
    Part(part::Args),
    #[command(hide = true, name = "__mounted")]
    #[expect(missing_docs, reason = "internal: a proxy that sees the provider's socket through a mount of its own")]
    Mounted(mounted::Args),
}

/// Parses the command line and carries it out.
pub fn main() -> ExitCode {
    error::set_rendering();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // clap renders its own messages; --help and --version are no errors.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage } else { Exit::AsExpected }.into();
        }
    };
    // The guard must be small and may not depend on a runtime.
    if let Command::Guard(args) = cli.command {
        return guard::run(args).into();
    }
    // Before there are threads: mounts of its own belong to one.
    if let Command::Mounted(args) = &cli.command {
        return mounted::run(args).into();
    }
    // It mostly waits: with more workers they would mostly wake each other.
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build() {
        Ok(runtime) => runtime,
        Err(e) => return CliError::new(Exit::CouldNotTell, format!("cannot start the runtime: {e}")).render(),
    };
    // Boxed, since the runtime has several copies of the code that polls this one.
    let dispatch: Pin<Box<dyn Future<Output = _>>> = Box::pin(dispatch(cli.command));
    let result = runtime.block_on(dispatch);
    // What is still blocked (a reader of a pipe) must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(e) => e.render(),
    }
}

async fn dispatch(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::List(args) => list::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Selfcheck(args) => selfcheck::run(args).await,
        Command::Judge(args) => judge::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Merge(args) => merge::run(args).await,
        Command::Diagnose(args) => diagnose::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Fetch(args) => fetch::run(args).await,
        Command::Lock(args) => lock::run(args).await,
        Command::Provider(args) => provider::run(args).await,
        Command::Relay(args) => relay::run(args).await,
        Command::Witness(args) => witness::run(args).await,
        Command::Sweep(args) => sweep::run(args).await,
        Command::Schema(args) => schema::run(args).await,
        Command::Completions(args) => completions::run(args).await,
        Command::Man(args) => man::run(args).await,
        Command::Part(args) => part::run(args).await,
        Command::Guard(args) => Ok(guard::run(args)),
        Command::Mounted(args) => Ok(mounted::run(&args)),
    }
}

/// The whole command line, for completions and the man page.
pub fn command() -> clap::Command {
    Cli::command()
}
