//! One proxy's process, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::Utf8Path;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::config::{FleetError, ProxyExit};
use crate::clock::Deadline;
use crate::fleet::Proxy;
use crate::proc::{Guard, MOUNTED, Process, Signal, Spawn};
use crate::timeline::{Exited, ProxyId, Recorder, Source, Spawned};

/// Exits so far, of all proxies of the fleet.
pub(super) type Ended = watch::Sender<Vec<ProxyExit>>;

/// Lines of a log that are kept of an end: those of a crash, with its stack.
const LOG_LINES: usize = 120;

/// After SIGKILL the kernel needs a moment, whatever the deadline was.
const KILLED: Duration = Duration::from_secs(5);

pub(super) struct Running {
    id: ProxyId,
    pub(super) since: Instant,
    process: Process,
    stopping: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

/// What it takes to start a process.
pub(super) struct Launch<'a> {
    pub(super) envoy: &'a Utf8Path,
    pub(super) guard: &'a Guard,
    pub(super) recorder: &'a Recorder,
    pub(super) ended: &'a Arc<Ended>,
    /// The harness's executable, where the provider's socket is to be mounted for each proxy.
    pub(super) mounted_by: Option<&'a Utf8Path>,
}

impl Launch<'_> {
    /// Starts the proxy's process, and from then on watches for its end.
    pub(super) async fn start(&self, proxy: &mut Proxy) -> Result<Running, FleetError> {
        let since = Instant::now();
        let process = self.guard.spawn(self.spawn(proxy)).await;
        let process = process.map_err(|source| FleetError::Spawn { id: proxy.id.clone(), source })?;
        proxy.pid = process.pid;
        let spawned = Spawned { pid: proxy.pid, what: "envoy".to_owned() };
        self.recorder.record(Source::Process, Some(&proxy.id), None, spawned);

        let stopping = Arc::new(AtomicBool::new(false));
        let watcher = tokio::spawn(watch_end(
            proxy.clone(),
            process.clone(),
            stopping.clone(),
            self.recorder.clone(),
            self.ended.clone(),
        ));
        Ok(Running { id: proxy.id.clone(), since, process, stopping, watcher })
    }

    fn spawn(&self, proxy: &Proxy) -> Spawn {
        let args = [
            "--config-path",
            proxy.bootstrap.as_str(),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            // Refused secrets and broken streams are warnings. At debug the config logger would tell the version of each
            // response, but also print the secrets of watched files, keys included.
            "--log-level",
            "warning",
            "--component-log-level",
            "config:info",
            // Cell time, whatever the version's own default is.
            "--log-format",
            "[%Y-%m-%dT%T.%eZ][%l][%n] %v",
        ];
        let (program, args) = match (self.mounted_by, &proxy.socket) {
            (Some(harness), Some((inside, outside))) => {
                let mount = [MOUNTED, outside.as_str(), inside.as_str(), "--", self.envoy.as_str()];
                (harness, mount.iter().chain(&args).map(|arg| (*arg).to_owned()).collect())
            }
            _ => (self.envoy, args.map(str::to_owned).to_vec()),
        };
        Spawn {
            what: format!("envoy {}", proxy.id),
            program: program.to_owned(),
            args,
            // Nothing of the harness's own environment, so that a run does not depend on who started it.
            env: [self.recorder.clock().environment(), vec![("TZ".to_owned(), "UTC0".to_owned())]].concat(),
            cwd: proxy.bootstrap.parent().map(Utf8Path::to_owned),
            log: proxy.log.clone(),
        }
    }
}

async fn watch_end(proxy: Proxy, process: Process, stopping: Arc<AtomicBool>, recorder: Recorder, ended: Arc<Ended>) {
    let status = process.exited().await;
    let exit = ProxyExit {
        id: proxy.id,
        pid: proxy.pid,
        code: status.code,
        signal: status.signal,
        expected: stopping.load(Ordering::Acquire),
        log_tail: process.log_tail(LOG_LINES).unwrap_or_default(),
        log: proxy.log,
    };
    let ProxyExit { code, signal, expected, log_tail, .. } = exit.clone();
    recorder.record(Source::Process, Some(&exit.id), None, Exited { code, signal, expected, log_tail });
    ended.send_modify(|exits| exits.push(exit));
}

impl Running {
    /// Its end.
    pub(super) async fn exited(&self, ended: &Ended) -> ProxyExit {
        let mut ended = ended.subscribe();
        // By name: a restart forgets the exit before it, while the kernel gives process ids again.
        let exits = ended.wait_for(|exits| exits.iter().any(|exit| exit.id == self.id)).await;
        let exit = exits.ok().and_then(|exits| exits.iter().find(|exit| exit.id == self.id).cloned());
        exit.expect("the caller borrows the sender, and the wait ended on this exit")
    }

    /// Asks it to end; at the deadline, kills it.
    pub(super) async fn stop(&self, ended: &Ended, deadline: Deadline) -> Result<(), FleetError> {
        if self.process.exit_now().is_some() {
            self.exited(ended).await;
            return Ok(());
        }
        self.stopping.store(true, Ordering::Release);
        // An error: it has just ended, or the guard is lost and everything with it. Either is seen as its end.
        let _ = self.process.signal(Signal::TERM).await;
        if timeout_at(deadline.instant(), self.exited(ended)).await.is_ok() {
            return Ok(());
        }
        let _ = self.process.signal(Signal::KILL).await;
        match tokio::time::timeout(KILLED, self.exited(ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(FleetError::StillRunning { id: self.id.clone() }),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
