//! A gate at which a script waits for the test, and commands that are watched until they say something.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses what it needs"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Two named pipes, which hold up whoever opens one until somebody else opens its other end.
pub struct Gate {
    arrived: Utf8PathBuf,
    open: Utf8PathBuf,
}

impl Gate {
    /// A closed one in this directory.
    pub fn new(dir: &Utf8Path) -> Self {
        let fifo = |name: &str| {
            let path = dir.join(name);
            rustix::fs::mknodat(CWD, path.as_std_path(), FileType::Fifo, Mode::RWXU, 0).unwrap();
            path
        };
        Self { arrived: fifo("arrived"), open: fifo("open") }
    }

    /// What a shell script does to wait here; it is named by its process id.
    pub fn wait(&self) -> String {
        format!("echo $$ > {}\nread go < {}", self.arrived, self.open)
    }

    /// Waits for somebody to come.
    pub fn arrival(&self) -> OwnedFd {
        let pid = fs::read_to_string(&self.arrived).unwrap().trim().parse().unwrap();
        pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
    }

    pub fn open(&self) {
        fs::write(&self.open, "go\n").unwrap();
    }
}

/// Waits for the end of a process.
pub fn has_ended(process: &OwnedFd) -> bool {
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience)).unwrap() == 1
}

/// Starts it, and waits until it says this on stderr.
pub fn until(mut command: Command, said: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(said) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended without saying {said:?}");
    }
    (child, stderr)
}
