//! An outlet in a process of its own, which can be frozen and killed while the issuer goes on: events come out of it,
//! commands go into it, one JSON object a line, over pipes that nobody else can read. When its input ends, so does it.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::message::{Command, Event};
use super::serve::{Outlet, Sink};
use super::socket::{Socket, remove_dead};

/// The first line of the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Greeting {
    Ready,
    Failed(String),
}

/// Why an outlet can't be had in a process of its own.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    /// The process could not be started or talked to.
    #[error("the outlet's process {program} can't be used: {source}")]
    Process {
        /// Its program.
        program: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It said why not.
    #[error("{0}")]
    Failed(String),
}

/// The child's side: serves `socket` until standard input ends.
///
/// When the harness is killed, so is it, and be it frozen: a pipe that ends wakes nobody up. The kernel ties that to the
/// thread which started it, one of the runtime's workers, and these live as long as the harness.
pub async fn serve_apart(socket: &Utf8Path) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // An event is on the pipe before the peer can react to what it is about.
    let sink: Sink = Arc::new(move |event: Event| {
        // Fails when the harness is gone; then the input ends as well.
        let _ = say(&event);
    });
    let outlet = match Socket::bind(socket).and_then(|socket| Outlet::serve(socket, 1, sink)) {
        Ok(outlet) => outlet,
        Err(e) => return say(&Greeting::Failed(e.to_string())),
    };
    say(&Greeting::Ready)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let line = Zeroizing::new(line);
        match serde_json::from_str::<Command>(line.as_str()) {
            Ok(command) => outlet.hub().deliver(command),
            // Its words could quote a key.
            Err(e) => tracing::error!("a command is malformed at column {}", e.column()),
        }
    }
    outlet.stop().await;
    Ok(())
}

fn say(what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// The harness's side.
pub struct OutletApart {
    path: Utf8PathBuf,
    pid: Option<u32>,
    child: Child,
    commands: Option<mpsc::UnboundedSender<Command>>,
    reader: tokio::task::JoinHandle<()>,
}

impl OutletApart {
    /// Starts `program provider --socket PATH --control` and awaits that it serves.
    pub async fn spawn(program: &Utf8Path, socket: &Utf8Path, sink: Sink) -> Result<Self, ApartError> {
        let io = |source: std::io::Error| ApartError::Process { program: program.to_owned(), source };
        let missing = || io(std::io::Error::other("it has no pipes"));
        let mut child = tokio::process::Command::new(program)
            .args(["provider", "--control", "--socket", socket.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The terminal's signals are for the harness to hear.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut line = String::new();
        stdout.read_line(&mut line).await.map_err(io)?;
        match serde_json::from_str(&line) {
            Ok(Greeting::Ready) => {}
            Ok(Greeting::Failed(why)) => return Err(ApartError::Failed(why)),
            Err(_) => return Err(io(std::io::Error::other("it did not greet"))),
        }
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(write(stdin, queue));
        let reader = tokio::spawn(read(stdout, sink));
        Ok(Self { path: socket.to_owned(), pid: child.id(), child, commands: Some(commands), reader })
    }

    /// Where it serves.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// What carries out commands; what is said to a process that has ended is lost.
    pub fn commands(&self) -> Option<mpsc::UnboundedSender<Command>> {
        self.commands.clone()
    }

    /// Ends its input and awaits its end. All other senders must be gone.
    pub async fn stop(mut self) {
        self.commands = None;
        let patience = std::time::Duration::from_secs(3);
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        let _ = tokio::time::timeout(patience, &mut self.reader).await;
        // A killed one leaves its socket behind; a living one of somebody else stays.
        remove_dead(&self.path);
    }
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = queue.recv().await {
        let Ok(line) = serde_json::to_vec(&command) else { continue };
        let mut line = Zeroizing::new(line);
        line.push(b'\n');
        if stdin.write_all(&line).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn read(stdout: BufReader<ChildStdout>, sink: Sink) {
    let mut open = HashSet::new();
    let mut lines = stdout.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
        match &event {
            Event::Opened { stream, .. } => {
                open.insert(*stream);
            }
            Event::Closed { stream, .. } => {
                open.remove(stream);
            }
            _ => {}
        }
        sink(event);
    }
    for stream in open {
        sink(Event::Closed { stream, by: "connection".to_owned(), status: "the outlet's process ended".to_owned() });
    }
}
