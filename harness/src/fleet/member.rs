//! One proxy's process, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::container::Container;
use super::{FleetError, Proxy, ProxyExit};
use crate::clock::Deadline;
use crate::proc::{Guard, Process, Signal, Spawn};
use crate::timeline::{Exited, ProxyId, Recorder, Source, Spawned};

/// Exits so far, of all proxies of the fleet.
pub(super) type Ended = watch::Sender<Vec<ProxyExit>>;

/// Lines of a log that are kept of an end: those of a crash, with its stack.
const LOG_LINES: usize = 120;

/// How long a parent may take until it starts its proxy, and between two looks whether it did: nobody tells.
const CHILD: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// After SIGKILL the kernel needs a moment, whatever the deadline was.
const KILLED: Duration = Duration::from_secs(5);

pub(super) struct Running {
    id: ProxyId,
    pub(super) since: Instant,
    process: Process,
    stopping: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
    container: Option<Container>,
}

/// How one proxy is started, and started again.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) spawn: Spawn,
    /// What it is in the recording.
    pub(super) what: &'static str,
    /// Where the process that is started is the proxy's parent and not the proxy itself: an argument of the proxy's, by
    /// which it is told from whatever else the parent runs.
    pub(super) child: Option<String>,
    /// The container that the process attaches to, and whose own process is the proxy.
    pub(super) container: Option<Container>,
}

/// Who starts them, and who is told.
pub(super) struct Launch<'a> {
    pub(super) guard: &'a Guard,
    pub(super) recorder: &'a Recorder,
    pub(super) ended: &'a Arc<Ended>,
}

impl Launch<'_> {
    /// Starts the proxy's process, and from then on watches for its end.
    pub(super) async fn start(&self, proxy: &mut Proxy, start: &Start) -> Result<Running, FleetError> {
        let since = Instant::now();
        let process = self.guard.spawn(start.spawn.clone()).await;
        let process = process.map_err(|source| FleetError::Spawn { id: proxy.id.clone(), source })?;
        proxy.pid = process.pid;
        let spawned = Spawned { pid: process.pid, what: start.what.to_owned() };
        self.recorder.record(Source::Process, Some(&proxy.id), None, spawned);

        let stopping = Arc::new(AtomicBool::new(false));
        let watcher = tokio::spawn(watch_end(
            proxy.clone(),
            process.clone(),
            stopping.clone(),
            self.recorder.clone(),
            self.ended.clone(),
        ));
        let container = start.container.clone();
        let running = Running { id: proxy.id.clone(), since, process, stopping, watcher, container };
        if let Some(child) = running.child(start.child.as_deref(), self.ended).await? {
            proxy.pid = child;
            let spawned = Spawned { pid: proxy.pid, what: "envoy".to_owned() };
            self.recorder.record(Source::Process, Some(&proxy.id), None, spawned);
        }
        Ok(running)
    }
}

/// The processes that this one has started, as far as they run: proc_pid_task_children(5), for each of its threads.
fn children(pid: i32) -> impl Iterator<Item = i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
}

/// Between fork and exec a process still has its parent's arguments: those hold none of its own.
fn has_argument(pid: i32, argument: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|given| given == argument.as_bytes())
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
    /// The proxy, where the process is not the proxy itself: what it starts with this argument, or the container's.
    async fn child(&self, argument: Option<&str>, ended: &Ended) -> Result<Option<i32>, FleetError> {
        let deadline = Deadline::after(CHILD);
        loop {
            let child = match (argument, &self.container) {
                (Some(argument), _) => children(self.process.pid).find(|child| has_argument(*child, argument)),
                (None, Some(container)) => container.pid().await?,
                (None, None) => return Ok(None),
            };
            if child.is_some() {
                return Ok(child);
            }
            if self.process.exit_now().is_some() {
                return Err(FleetError::Exited(self.exited(ended).await));
            }
            if deadline.passed() {
                return Err(FleetError::NoEnvoy { id: self.id.clone(), log: self.process.log.to_path_buf() });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

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
        if let Some(container) = &self.container {
            // Who is only attached to it could be killed, and it would go on.
            container.kill().await?;
        } else {
            let _ = self.process.signal(Signal::KILL).await;
        }
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
