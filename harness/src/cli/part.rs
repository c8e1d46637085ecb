//! The hidden subcommand that a pod of `rotacheck run --on kubernetes` runs: one part of the plan, which it hands over.

use super::{CliError, Exit};

/// Arguments of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many parts there are; which one it is says JOB_COMPLETION_INDEX, from 0 on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::plan::Shard::MOST)))]
    of: u32,
    /// The port on loopback on which it is handed over.
    #[arg(long)]
    port: u16,
    /// What follows `rotacheck run`.
    #[arg(last = true)]
    words: Vec<String>,
}

#[cfg(not(feature = "kubernetes"))]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let Args { of: _, port: _, words: _ } = args;
    Err(CliError::new(Exit::Usage, "this rotacheck was built without the feature `kubernetes`"))
}

#[cfg(feature = "kubernetes")]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    use std::time::Duration;

    use camino::Utf8PathBuf;
    use tokio::net::TcpListener;
    use tokio::signal::unix::{SignalKind, signal};

    use super::stderr::say;
    use crate::proc::Errand;
    use crate::run::{Carried, serve};

    /// A harness that lost the way finds it again, or is gone.
    const PATIENCE: Duration = Duration::from_secs(900);

    let unable = |e: &dyn std::fmt::Display| CliError::new(Exit::CouldNotTell, format!("cannot run a part: {e}"));
    let index = std::env::var("JOB_COMPLETION_INDEX").ok().and_then(|index| index.parse::<u32>().ok());
    let index = index.filter(|index| *index < args.of).ok_or_else(|| {
        unable(&"JOB_COMPLETION_INDEX does not say which one it is; the pods of an Indexed Job have it")
    })?;
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await.map_err(|e| unable(&e))?;
    let base = Utf8PathBuf::from(std::env::temp_dir().to_string_lossy().as_ref()).join("rotacheck-runs");
    let mut command = tokio::process::Command::new(std::env::current_exe().map_err(|e| unable(&e))?);
    command.args(["run", "--shard", &format!("{}/{}", index + 1, args.of), "--runs", base.as_str()]).args(&args.words);
    let mut errand = Errand::start(command.stdin(std::process::Stdio::null())).map_err(|e| unable(&e))?;
    let work = async {
        let status = errand.wait().await;
        // One that was killed has told what it has recorded until then.
        let code = status.ok().and_then(|status| u8::try_from(status.code()?).ok());
        Carried { code: code.unwrap_or(Exit::Bug as u8), directory: base.join("latest").canonicalize_utf8().ok() }
    };
    // The first process of a container is ended by no signal that it does not ask for.
    let mut asked = signal(SignalKind::terminate()).map_err(|e| unable(&e))?;
    tokio::select! {
        taken = serve(listener, work, PATIENCE) => match taken {
            true => Ok(Exit::AsExpected),
            false => Err(unable(&format!("nobody came for it within {} s", PATIENCE.as_secs()))),
        },
        _ = asked.recv() => {
            say("asked to end");
            Ok(Exit::Interrupted)
        }
    }
}
