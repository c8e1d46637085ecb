//! `rotacheck relay`: what runs in the pods.

use std::net::SocketAddr;

use camino::Utf8PathBuf;

use super::{CliError, Exit};

/// Arguments of `rotacheck relay`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A run in a Kubernetes cluster starts relays by itself, in the pods of its workloads and on the nodes. A relay carries bytes \
and understands none of them: no key of a provider or of a probe comes into a pod. It serves only who shows a certificate of \
the authority in ca.pem, and listens on the loopback of its pod, where a forwarded connection reaches it.

Example:
  rotacheck relay --listen 127.0.0.1:15999 --credentials /var/run/rotacheck --echo 0.0.0.0:8080")]
pub struct Args {
    /// Where the harness reaches it: an address of the loopback.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15999")]
    listen: SocketAddr,
    /// A directory with ca.pem, cert.pem and key.pem.
    #[arg(long, value_name = "DIR")]
    credentials: Utf8PathBuf,
    /// Be the workload's application as well: answer HTTP requests here with the pod's name.
    #[arg(long, value_name = "ADDRESS")]
    echo: Option<SocketAddr>,
    /// The harness may write files below this directory, and nowhere else.
    #[arg(long, value_name = "DIR")]
    files: Option<Utf8PathBuf>,
}

#[cfg(not(feature = "kubernetes"))]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let _ = (args.listen, args.credentials, args.echo, args.files);
    Err(CliError::with_hint(
        Exit::Usage,
        "cannot be a relay: this rotacheck was built without the feature `kubernetes`",
        "build it with `--features kubernetes`",
    ))
}

#[cfg(feature = "kubernetes")]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    use tokio::signal::unix::{SignalKind, signal};

    use super::stderr::say;
    use crate::remote::{Credentials, Echo, Relay, RemoteError};

    if !args.listen.ip().is_loopback() {
        return Err(CliError::with_hint(
            Exit::Usage,
            format!("cannot listen at {}: a relay is for its own pod's loopback only", args.listen),
            "the API server forwards connections to 127.0.0.1 and [::1] of a pod",
        ));
    }
    let failed = |e: RemoteError| CliError::with_hint(Exit::Invalid, format!("cannot {e}"), e.hint());
    // The first process of a container has no default for them.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::cannot_listen)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::cannot_listen)?;
    let credentials = Credentials::read(&args.credentials).map_err(failed)?;
    let relay = Relay::start(args.listen, &credentials, args.files).await.map_err(failed)?;
    say(format_args!("relaying for whoever reaches {} with a certificate of this run", relay.addr()));
    let echo = match args.echo {
        Some(addr) => Some(
            Echo::start(addr)
                .await
                .map_err(|e| failed(RemoteError::Listen { place: addr.to_string(), why: e.to_string() }))?,
        ),
        None => None,
    };
    if let Some(echo) = &echo {
        say(format_args!("answering requests at {}", echo.addr()));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(Exit::AsExpected)
}
