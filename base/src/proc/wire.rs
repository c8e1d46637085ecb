//! What harness and guard say to each other: one JSON value a line.

use std::io;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::Exit;

/// The harness to the guard. The first is `Begin`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Begin { scratch: Vec<Utf8PathBuf> },
    Scratch { id: u64, path: Utf8PathBuf },
    Spawn { id: u64, command: Command },
    AtEnd { id: u64, command: Command },
    Signal { id: u64, pid: i32, signal: i32 },
    Stop,
}

/// A process to be started. Paths are absolute; the environment is all that it gets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) what: String,
    pub(super) program: Utf8PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: Option<Utf8PathBuf>,
    pub(super) log: Utf8PathBuf,
}

/// The guard to the harness. The first is `Ready`, the last `Stopped`; a `Spawned` comes before its `Exited`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Ready,
    Scratch { id: u64, error: Option<Errno> },
    Noted { id: u64 },
    Spawned { id: u64, pid: i32 },
    NotSpawned { id: u64, step: Step, error: Errno },
    Signalled { id: u64 },
    NotSignalled { id: u64, error: Errno },
    Exited { pid: i32, exit: Exit },
    Stopped { children_cpu_us: u64, killed: Vec<String>, left: Vec<String> },
}

/// What failed at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Log,
    Cwd,
    Loader,
    Program,
}

/// An I/O error that survives the way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Errno {
    number: Option<i32>,
    text: String,
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        Self { number: error.raw_os_error(), text: error.to_string() }
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        match errno.number {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(errno.text),
        }
    }
}

/// A message as it goes over the socket.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("strings and numbers always serialise");
    line.push(b'\n');
    line
}
