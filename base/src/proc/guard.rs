//! The harness's side of the guard.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::wire::{self, Answer, Request, Step};
use super::{Exit, ProcError, Process, Signal};

/// The hidden subcommand that makes the harness's executable a guard.
const SUBCOMMAND: &str = "__guard";
/// Only a machine in distress needs seconds to start a process.
const TO_START: Duration = Duration::from_secs(20);
/// Longer than the guard itself tries.
const TO_STOP: Duration = Duration::from_secs(60);

/// A process to be started.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// What it is, for people: "proxy a".
    pub what: String,
    /// The executable: a path, no name to be searched.
    pub program: Utf8PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Its working directory; the harness's own, unless given.
    pub cwd: Option<Utf8PathBuf>,
    /// The file (0600) to which its output is appended. Its directory must exist.
    pub log: Utf8PathBuf,
}

/// The guard's last word. All processes have ended, and the scratch directories are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// User and system time of everything that ran under the guard.
    pub children_cpu: Duration,
    /// What was still alive and had to be killed: what was asked to be started, then what it left behind (by command name).
    pub killed: Vec<String>,
}

/// Owns a cell's processes: a process of its own that ends them all when it is told to, when this value is dropped, or
/// when the harness dies, however it dies; then it removes the scratch directories.
///
/// It holds what re-parents away too (daemons, the orphans of an agent), it ignores the terminal's signals, and its
/// processes have sessions of their own. If the guard is killed its own children die with it, and
/// [`Process::exited`] of each says that the end was not seen.
pub struct Guard {
    link: Link,
    child: Child,
    pid: i32,
}

impl Guard {
    /// Starts a guard: `exe` is the harness's executable, `scratch` are the directories that hold what may not stay.
    pub async fn start(exe: &Utf8Path, scratch: Vec<Utf8PathBuf>) -> Result<Guard, ProcError> {
        let failed = |source| ProcError::GuardStart { exe: exe.to_owned(), source };
        let scratch = scratch.iter().map(|dir| absolute(dir)).collect::<io::Result<_>>().map_err(failed)?;
        // Both ends are close-on-exec: no other child of the harness can hold the guard's line open.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let ours = UnixStream::from_std(ours).map_err(failed)?;
        let mut child = Command::new(exe)
            .arg(SUBCOMMAND)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C goes to the whole group of the harness, and the guard needs a moment until it is deaf to it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let (ready, is_ready) = oneshot::channel();
        let link = Link::open(ours, ready);
        link.send(&Request::Begin { scratch })?;
        match timeout(TO_START, is_ready).await {
            Ok(Ok(())) => Ok(Guard { link, child, pid }),
            Ok(Err(_)) => {
                let status = child.wait().await.map_err(failed)?;
                Err(failed(io::Error::other(format!("ended at once, {status}"))))
            }
            Err(_) => Err(ProcError::GuardSilent(TO_START.as_secs())),
        }
    }

    /// The guard's own process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Makes a private directory (0700) that must not be there yet, and that the guard removes at the end. There is no
    /// moment at which it exists and the guard does not know of it.
    pub async fn make_scratch(&self, path: &Utf8Path) -> Result<(), ProcError> {
        let failed = |source| ProcError::Scratch { path: path.to_owned(), source };
        let path = absolute(path).map_err(failed)?;
        let (answer, answered) = oneshot::channel();
        let id = self.link.expect(Pending::Scratch(answer))?;
        self.link.send(&Request::Scratch { id, path })?;
        answered.await.map_err(|_| ProcError::GuardLost)?.map_err(failed)
    }

    /// Has a program run when everything else has ended, however the harness ended: it takes away what is no process of
    /// the guard's, such as a container. It gets half a minute; where it fails, that is told as what is left. Returns when
    /// the guard knows of it.
    pub async fn at_end(&self, spec: Spawn) -> Result<(), ProcError> {
        let (answer, answered) = oneshot::channel();
        let id = self.link.expect(Pending::Noted(answer))?;
        let Spawn { what, program, args, env, cwd, log } = spec;
        let log = absolute(&log).map_err(|source| ProcError::Log { what: what.clone(), log, source })?;
        let command = wire::Command { what, program, args, env, cwd, log };
        self.link.send(&Request::AtEnd { id, command })?;
        answered.await.map_err(|_| ProcError::GuardLost)
    }

    /// Starts a process under the guard: its own session and process group, no stdin, output to the log. If the caller
    /// stops waiting, the process may be started nevertheless, and stays the guard's.
    pub async fn spawn(&self, spec: Spawn) -> Result<Process, ProcError> {
        let Spawn { what, program, args, env, cwd, log } = spec;
        let program = match absolute(&program) {
            Ok(program) => program,
            Err(source) => return Err(ProcError::Program { what, program, source }),
        };
        let log = match absolute(&log) {
            Ok(log) => log,
            Err(source) => return Err(ProcError::Log { what, log, source }),
        };
        let cwd = match cwd.as_deref().map(absolute).transpose() {
            Ok(cwd) => cwd,
            Err(source) => return Err(ProcError::Cwd { what, cwd: cwd.unwrap_or_default(), source }),
        };
        let (answer, answered) = oneshot::channel();
        let id = self.link.expect(Pending::Spawn(answer))?;
        let command = wire::Command {
            what: what.clone(),
            program: program.clone(),
            args,
            env,
            cwd: cwd.clone(),
            log: log.clone(),
        };
        self.link.send(&Request::Spawn { id, command })?;
        match answered.await.map_err(|_| ProcError::GuardLost)? {
            Ok((pid, exit)) => Ok(Process::new(pid, what, log, exit, self.link.downgrade())),
            Err((Step::Log, source)) => Err(ProcError::Log { what, log, source }),
            Err((Step::Cwd, source)) => Err(ProcError::Cwd { what, cwd: cwd.unwrap_or_default(), source }),
            Err((Step::Loader, _)) => Err(ProcError::NoLoader { what, program }),
            Err((Step::Program, source)) if source.kind() == io::ErrorKind::NotFound => {
                Err(ProcError::NoProgram { what, program })
            }
            Err((Step::Program, source)) => Err(ProcError::Program { what, program, source }),
        }
    }

    /// Kills everything and waits for the guard's word that nothing is left.
    pub async fn stop(mut self) -> Result<Stopped, ProcError> {
        let (answer, answered) = oneshot::channel();
        self.link.expect(Pending::Stop(answer))?;
        self.link.send(&Request::Stop)?;
        let silent = |_| ProcError::GuardSilent(TO_STOP.as_secs());
        let (stopped, left) = timeout(TO_STOP, answered).await.map_err(silent)?.map_err(|_| ProcError::GuardLost)?;
        // It has said its last word; what its exit status would add is of no interest.
        let _ = timeout(TO_STOP, self.child.wait()).await.map_err(silent)?;
        if left.is_empty() { Ok(stopped) } else { Err(ProcError::Left(left)) }
    }
}

fn absolute(path: &Utf8Path) -> io::Result<Utf8PathBuf> {
    camino::absolute_utf8(path)
}

/// The way to the guard. The guard ends when the last one is gone: processes hold weak ones only.
struct Link {
    requests: mpsc::UnboundedSender<Vec<u8>>,
    desk: Arc<Desk>,
}

/// For [`Process`].
#[derive(Clone)]
pub(super) struct WeakLink {
    requests: mpsc::WeakUnboundedSender<Vec<u8>>,
    desk: Arc<Desk>,
}

impl Link {
    fn open(socket: UnixStream, ready: oneshot::Sender<()>) -> Self {
        let (reader, writer) = socket.into_split();
        let (requests, queue) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk(Mutex::new(State { ready: Some(ready), ..State::default() })));
        tokio::spawn(write(writer, queue));
        tokio::spawn(read(reader, Arc::clone(&desk)));
        Self { requests, desk }
    }

    fn downgrade(&self) -> WeakLink {
        WeakLink { requests: self.requests.downgrade(), desk: Arc::clone(&self.desk) }
    }

    fn expect(&self, pending: Pending) -> Result<u64, ProcError> {
        let mut state = self.desk.lock();
        if state.lost {
            return Err(ProcError::GuardLost);
        }
        state.last_id += 1;
        let id = state.last_id;
        state.pending.insert(id, pending);
        Ok(id)
    }

    fn send(&self, request: &Request) -> Result<(), ProcError> {
        self.requests.send(wire::line(request)).map_err(|_| ProcError::GuardLost)
    }
}

impl WeakLink {
    pub(super) async fn signal(&self, pid: i32, signal: Signal) -> Result<io::Result<()>, ProcError> {
        let requests = self.requests.upgrade().ok_or(ProcError::GuardLost)?;
        let link = Link { requests, desk: Arc::clone(&self.desk) };
        let (answer, answered) = oneshot::channel();
        let id = link.expect(Pending::Signal(answer))?;
        link.send(&Request::Signal { id, pid, signal: signal.as_raw() })?;
        // The wait may not keep a dropped guard alive.
        drop(link);
        answered.await.map_err(|_| ProcError::GuardLost)
    }
}

/// Who waits for what.
struct Desk(Mutex<State>);

#[derive(Default)]
struct State {
    lost: bool,
    last_id: u64,
    ready: Option<oneshot::Sender<()>>,
    pending: HashMap<u64, Pending>,
    running: HashMap<i32, watch::Sender<Option<Exit>>>,
}

type Spawned = Result<(i32, watch::Receiver<Option<Exit>>), (Step, io::Error)>;

enum Pending {
    Scratch(oneshot::Sender<io::Result<()>>),
    Noted(oneshot::Sender<()>),
    Spawn(oneshot::Sender<Spawned>),
    Signal(oneshot::Sender<io::Result<()>>),
    Stop(oneshot::Sender<(Stopped, Vec<String>)>),
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant can be broken half-way: each change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes an answer to whom it is for. Who no longer waits has dropped the receiver: that is no error.
    fn deliver(&self, answer: Answer) {
        let mut state = self.lock();
        match answer {
            Answer::Ready => {
                if let Some(ready) = state.ready.take() {
                    let _ = ready.send(());
                }
            }
            Answer::Scratch { id, error } => {
                if let Some(Pending::Scratch(waiter)) = state.pending.remove(&id) {
                    let _ = waiter.send(error.map_or(Ok(()), |errno| Err(errno.into())));
                }
            }
            Answer::Noted { id } => {
                if let Some(Pending::Noted(waiter)) = state.pending.remove(&id) {
                    let _ = waiter.send(());
                }
            }
            Answer::Spawned { id, pid } => {
                let (exit, watched) = watch::channel(None);
                state.running.insert(pid, exit);
                if let Some(Pending::Spawn(waiter)) = state.pending.remove(&id) {
                    let _ = waiter.send(Ok((pid, watched)));
                }
            }
            Answer::NotSpawned { id, step, error } => {
                if let Some(Pending::Spawn(waiter)) = state.pending.remove(&id) {
                    let _ = waiter.send(Err((step, error.into())));
                }
            }
            Answer::Signalled { id } => {
                if let Some(Pending::Signal(waiter)) = state.pending.remove(&id) {
                    let _ = waiter.send(Ok(()));
                }
            }
            Answer::NotSignalled { id, error } => {
                if let Some(Pending::Signal(waiter)) = state.pending.remove(&id) {
                    let _ = waiter.send(Err(error.into()));
                }
            }
            Answer::Exited { pid, exit } => {
                if let Some(watched) = state.running.remove(&pid) {
                    watched.send_replace(Some(exit));
                }
            }
            Answer::Stopped { children_cpu_us, killed, left } => {
                let stopped = Stopped { children_cpu: Duration::from_micros(children_cpu_us), killed };
                let stop = state.pending.iter().find(|(_, pending)| matches!(pending, Pending::Stop(_)));
                let stop = stop.map(|(id, _)| *id);
                if let Some(Pending::Stop(waiter)) = stop.and_then(|id| state.pending.remove(&id)) {
                    let _ = waiter.send((stopped, left));
                }
            }
        }
    }

    /// The guard's end: nobody may wait for it any longer.
    fn close(&self) {
        let mut state = self.lock();
        state.lost = true;
        state.ready = None;
        state.pending.clear();
        for (_, exit) in state.running.drain() {
            exit.send_replace(Some(Exit::UNSEEN));
        }
    }
}

/// Writes whole lines, whoever stops waiting in between. Ends, and so closes the line, with the last [`Link`].
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = queue.recv().await {
        if writer.write_all(&line).await.is_err() {
            // The reader sees the end of the guard too, and tells everybody.
            break;
        }
    }
}

async fn read(reader: OwnedReadHalf, desk: Arc<Desk>) {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(answer) => desk.deliver(answer),
            Err(e) => tracing::error!("the guard said something else than an answer: {e}"),
        }
    }
    desk.close();
}
