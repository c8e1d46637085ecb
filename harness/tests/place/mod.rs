//! A place of its own for each run: its temporary directory, its run directory, and a look at what was left behind.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses what it needs"
)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// Generous: it ends tests that would hang, and times none.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the version line of an Envoy looks like.
pub const VERSION: &str =
    "[ \"$1\" = --version ] && { echo \"$0  version: 0ebfcfe5/1.38.3/Clean/RELEASE/BoringSSL\"; exit 0; }";

pub struct Place {
    _dir: tempfile::TempDir,
    pub root: Utf8PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        fs::create_dir(root.join("tmp")).unwrap();
        Self { _dir: dir, root }
    }

    /// Where its processes make their temporary files.
    pub fn tmp(&self) -> Utf8PathBuf {
        self.root.join("tmp")
    }

    /// `rotacheck ARGUMENTS`, in this place, as the leader of a process group.
    pub fn rotacheck(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
        command.args(arguments).current_dir(&self.root).env("TMPDIR", self.tmp()).env_remove("ENVOY_PATH");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    /// `rotacheck run ARGUMENTS`, until it and its guards have ended.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Going::start(self.rotacheck(&[&["run"], arguments].concat())).ended()
    }

    /// An executable script.
    pub fn script(&self, name: &str, body: &str) -> Utf8PathBuf {
        let path = self.root.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn file(&self, name: &str, text: &str) -> Utf8PathBuf {
        let path = self.root.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A scenario that goes on for a minute and more, whatever the machine.
    pub fn long_scenario(&self) -> Utf8PathBuf {
        let text = "name: long\nsummary: It renews, and renews.\nprovider:\n  ttl: 2m\n  renew_every: 1m\n\
                    observe:\n  generations_past_first_expiry: 3000\n";
        self.file("long.yaml", text)
    }

    /// The directory of the latest run.
    pub fn latest(&self) -> Option<Utf8PathBuf> {
        self.root.join("rotacheck-runs/latest").canonicalize_utf8().ok()
    }

    /// Awaits that the proxies' secrets have come and time is being moved.
    pub fn observes(&self) {
        until("a step of the observation", || self.cells().iter().any(|cell| observed(cell).is_some()));
    }

    /// The directories of the latest run's cells.
    pub fn cells(&self) -> Vec<Utf8PathBuf> {
        let cells = self.latest().and_then(|run| run.join("cells").read_dir_utf8().ok());
        cells.into_iter().flatten().map(|cell| cell.unwrap().into_path()).collect()
    }

    /// Of the latest run.
    pub fn record(&self) -> Option<Value> {
        Some(serde_json::from_slice(&fs::read(self.latest()?.join("run.json")).unwrap()).unwrap())
    }

    /// What the latest run's only cell has in this file.
    pub fn of_the_cell(&self, file: &str) -> String {
        fs::read_to_string(self.cells()[0].join(file)).unwrap()
    }

    /// Processes that have to do with this place, and what lies in its temporary directory.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let own = std::process::id().to_string();
        for entry in Utf8Path::new("/proc").read_dir_utf8().unwrap().flatten() {
            if entry.file_name().bytes().all(|b| b.is_ascii_digit()) && entry.file_name() != own {
                left.extend(self.has_to_do_with(entry.path()));
            }
        }
        left.extend(self.tmp().read_dir_utf8().unwrap().map(|e| e.unwrap().path().to_string()));
        left
    }

    fn has_to_do_with(&self, process: &Utf8Path) -> Option<String> {
        let needle = self.root.as_str().as_bytes();
        let has = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        // Processes come and go while they are looked at; of a dead one nothing can be read.
        let said = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        let link =
            |path: &Utf8Path| fs::read_link(path).map(|l| l.into_os_string().into_encoded_bytes()).unwrap_or_default();
        let fds = process.join("fd").read_dir_utf8().into_iter().flatten().flatten();
        let found = ["cmdline", "environ", "maps"].iter().any(|file| has(&said(file)))
            || has(&link(&process.join("cwd")))
            || fds.into_iter().any(|fd| has(&link(fd.path())));
        let command = || String::from_utf8_lossy(&said("cmdline")).replace('\0', " ");
        found.then(|| format!("{process}: {}", command()))
    }

    #[track_caller]
    pub fn nothing_is_left(&self) {
        self.nothing_is_left_but(0);
    }

    /// As `nothing_is_left`, where a process goes on for a reason.
    #[track_caller]
    pub fn nothing_is_left_but(&self, pid: u32) {
        let mut left = self.left();
        left.retain(|what| !what.starts_with(&format!("/proc/{pid}:")));
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

/// A real Envoy's path; fetched if need be.
pub fn envoy() -> Utf8PathBuf {
    let fetched = Command::new(env!("CARGO_BIN_EXE_rotacheck")).args(["fetch", "--envoy", "1.38.3"]).output().unwrap();
    let stdout = String::from_utf8(fetched.stdout).unwrap();
    let path =
        stdout.strip_prefix("1.38.3\t").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&fetched.stderr)));
    path.trim_end().into()
}

/// What was written down of this cell, if its proxies' secrets have come and time is being moved.
pub fn observed(cell: &Utf8Path) -> Option<String> {
    let timeline = fs::read_to_string(cell.join("timeline.ndjson")).ok()?;
    timeline.contains("\"kind\":\"step\"").then_some(timeline)
}

/// Waits until it is so. For what only the kernel and files tell.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A harness that runs. Its guards hold its stderr open, so that the end of that is the end of all.
pub struct Going {
    child: Child,
    said: mpsc::Receiver<String>,
    heard: String,
    stdout: std::thread::JoinHandle<String>,
}

pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Going {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (say, said) = mpsc::channel();
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut bytes) {
                let _ = say.send(String::from_utf8_lossy(&bytes[..n]).into_owned());
            }
        });
        let stdout = child.stdout.take();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.map(|mut out| out.read_to_string(&mut text));
            text
        });
        Self { child, said, heard: String::new(), stdout }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    /// The most memory that the harness itself ever held, MiB, once it has ended.
    pub fn peak_memory(&self) -> std::thread::JoinHandle<u64> {
        let status = format!("/proc/{}/status", self.child.id());
        std::thread::spawn(move || {
            let held = || {
                let status = fs::read_to_string(&status).ok()?;
                // One that has ended, and was not waited for, has none.
                let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
                line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
            };
            let mut peak = 0;
            while let Some(kilobytes) = held() {
                peak = kilobytes / 1024;
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        })
    }

    /// To the harness alone. It may have ended by itself, but was not waited for: its id is still its own.
    pub fn kill(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// To its process group, as a terminal does.
    pub fn kill_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// Waits until it says this on stderr, once more.
    pub fn says(&mut self, what: &str) {
        loop {
            if let Some(at) = self.heard.find(what) {
                self.heard.drain(..at + what.len());
                return;
            }
            match self.said.recv_timeout(PATIENCE) {
                Ok(said) => self.heard.push_str(&said),
                Err(_) => panic!("it does not say {what:?}, but {:?}", self.heard),
            }
        }
    }

    /// Until it and its guards have ended.
    pub fn ended(mut self) -> Ended {
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(said) => self.heard.push_str(&said),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.kill_group(Signal::KILL);
                    panic!("it does not end; so far it said {}", self.heard);
                }
            }
        }
        let status = self.child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Ended { code: status.code(), signal, stdout: self.stdout.join().unwrap(), stderr: self.heard }
    }
}

impl Ended {
    /// The exit code, and what was said about it.
    #[track_caller]
    pub fn with(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let all = format!("{}\n{}", self.stdout, self.stderr);
        for text in said {
            assert!(all.contains(text), "{text:?} is not in:\n{all}");
        }
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), signal, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}
