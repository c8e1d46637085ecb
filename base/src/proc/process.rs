//! A process that a guard started.

use std::fmt;
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::guard::WeakLink;
use super::{ProcError, Signal, log_tail};

/// How a process ended. Neither code nor signal: the guard was lost before the end was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What it returned.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

impl Exit {
    pub(super) const UNSEEN: Exit = Exit { code: None, signal: None };
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => match signal_name(signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
            (None, None) => f.write_str("ended unseen, the guard process was lost"),
        }
    }
}

/// Those that end processes in practice.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match Signal::from_named_raw(signal)? {
        Signal::HUP => "SIGHUP",
        Signal::INT => "SIGINT",
        Signal::QUIT => "SIGQUIT",
        Signal::ILL => "SIGILL",
        Signal::TRAP => "SIGTRAP",
        Signal::ABORT => "SIGABRT",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::KILL => "SIGKILL",
        Signal::SEGV => "SIGSEGV",
        Signal::PIPE => "SIGPIPE",
        Signal::TERM => "SIGTERM",
        Signal::SYS => "SIGSYS",
        _ => return None,
    })
}

/// Whether a signal has stopped it. From proc_pid_stat(5): the state follows the command name.
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// A process that a guard started; cheap to clone.
#[derive(Clone)]
pub struct Process {
    /// Its process id. It may belong to somebody else once the process has ended.
    pub pid: i32,
    /// What it is, for people.
    pub what: Arc<str>,
    /// Where its output goes.
    pub log: Arc<Utf8Path>,
    exit: watch::Receiver<Option<Exit>>,
    link: WeakLink,
}

impl Process {
    pub(super) fn new(
        pid: i32,
        what: String,
        log: Utf8PathBuf,
        exit: watch::Receiver<Option<Exit>>,
        link: WeakLink,
    ) -> Self {
        Self { pid, what: what.into(), log: log.into(), exit, link }
    }

    /// Waits for its end. Any number may wait.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        // An error is the sender gone: nobody looks after the guard any more.
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::UNSEEN),
            Err(_) => Exit::UNSEEN,
        }
    }

    /// How it ended, if it has.
    pub fn exit_now(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Has the guard send it a signal: the guard alone reaps it, so the signal can't hit another process that got the
    /// same id. Returns when it is sent.
    pub async fn signal(&self, signal: Signal) -> Result<(), ProcError> {
        match self.link.signal(self.pid, signal).await? {
            Ok(()) => Ok(()),
            Err(source) if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                // The guard reports an end before it refuses a signal for it.
                let exit = self.exit_now().unwrap_or(Exit::UNSEEN);
                Err(ProcError::Ended { what: self.what.to_string(), exit })
            }
            Err(source) => Err(ProcError::Signal { what: self.what.to_string(), source }),
        }
    }

    /// The last lines of its output; see [`log_tail`].
    pub fn log_tail(&self, lines: usize) -> io::Result<Vec<String>> {
        log_tail(&self.log, lines)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).field("what", &self.what).finish_non_exhaustive()
    }
}
