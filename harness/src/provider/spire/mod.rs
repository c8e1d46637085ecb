//! SPIRE: a real server and a real agent, started for one cell, on loopback and in a private directory.
//!
//! The agent proves itself by a certificate of an authority made for it (x509pop), so that there is no join token that
//! could get into a log. What either of them keeps on disk lies in the scratch directory, which the guard removes.

mod config;
mod log;

use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::external::until_served;
use super::{Ground, ProviderError};
use crate::clock::Deadline;
use crate::pki::{Authority, LeafRequest, San, Validity};
use crate::proc::{Exit, Guard, Process, Signal, Spawn, free_ports, is_stopped};
use crate::scenario::{KeyType, ProviderAction, Span, TRUST_DOMAIN};
use crate::timeline::{At, Fact, Log};
use config::{ENTRY, Layout};

/// The server's own socket, and the agent's.
const API: &str = "server.sock";
const SOCKET: &str = "agent.sock";
/// How long it may take to end, or to stand still.
const TO_END: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// How long one question to the server may take.
const TO_ANSWER: Duration = Duration::from_secs(30);
/// What the agent shows to the server begins before the clocks of both, and outlives every cell.
const BEFORE: Duration = Duration::from_secs(3600);
const NODE_LIFETIME: Duration = Duration::from_secs(2 * 86_400);
/// More of the server's log is not looked through.
const LOG_AT_MOST: u64 = 64 << 20;

/// SPIRE's programs, as they are found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpirePrograms {
    /// `spire-server`.
    pub server: Utf8PathBuf,
    /// `spire-agent`.
    pub agent: Utf8PathBuf,
}

/// A server and an agent of one cell. The guard that started them ends them.
pub(super) struct Spire {
    programs: SpirePrograms,
    layout: Layout,
    /// Where both say what they do.
    logs: Utf8PathBuf,
    server: Process,
    agent: Process,
}

impl Spire {
    /// Starts both, with one entry for whoever runs as our user. Returns when the agent listens: it may need a second
    /// more until it has the entry.
    pub(super) async fn start(
        programs: &SpirePrograms,
        ttl: Span,
        ground: &Ground<'_>,
    ) -> Result<(Self, [(At, Process); 2]), ProviderError> {
        let [server] = free_ports().map_err(ProviderError::Port)?;
        let layout = Layout { directory: ground.scratch.join("spire"), trust_domain: TRUST_DOMAIN, server, ttl };
        furnish(&layout, ground.clock.now())?;
        let logs = ground.directory;

        let server_at = ground.clock.at();
        let server = ground.guard.spawn(server_run(programs, &layout, logs)).await?;
        until_served(&server, &layout.path(API)).await?;
        let entries = layout.path("entries.json");
        ask_server(programs, &layout, ["entry", "create", "-data", entries.as_str()], ground.guard).await?;

        let agent_at = ground.clock.at();
        let agent = ground.guard.spawn(agent_run(programs, &layout, logs)).await?;
        until_served(&agent, &layout.path(SOCKET)).await?;
        let started = [(server_at, server.clone()), (agent_at, agent.clone())];
        Ok((Self { programs: programs.clone(), layout, logs: logs.to_owned(), server, agent }, started))
    }

    /// Where the agent serves.
    pub(super) fn socket(&self) -> Utf8PathBuf {
        self.layout.path(SOCKET)
    }

    /// The log of the server.
    pub(super) fn server_log(&self) -> &Utf8Path {
        &self.server.log
    }

    /// What runs, or ran last.
    pub(super) fn processes(&self) -> [&Process; 2] {
        [&self.agent, &self.server]
    }

    /// Does it. Returns what it started.
    pub(super) async fn undergo(
        &mut self,
        action: ProviderAction,
        guard: &Guard,
    ) -> Result<Option<Process>, ProviderError> {
        match action {
            ProviderAction::KillAgent => end(&self.agent, Signal::KILL).await?,
            ProviderAction::StopServer => end(&self.server, Signal::TERM).await?,
            ProviderAction::FreezeAgent => freeze(&self.agent).await?,
            ProviderAction::WakeAgent => self.agent.signal(Signal::CONT).await?,
            ProviderAction::StartAgent => {
                self.agent = guard.spawn(agent_run(&self.programs, &self.layout, &self.logs)).await?;
                return Ok(Some(self.agent.clone()));
            }
            ProviderAction::StartServer => {
                self.server = guard.spawn(server_run(&self.programs, &self.layout, &self.logs)).await?;
                return Ok(Some(self.server.clone()));
            }
            ProviderAction::DeleteEntry => {
                ask_server(&self.programs, &self.layout, ["entry", "delete", "-entryID", ENTRY], guard).await?;
            }
        }
        Ok(None)
    }
}

/// Ends it, and awaits that; one that does not listen is killed.
async fn end(process: &Process, signal: Signal) -> Result<(), ProviderError> {
    process.signal(signal).await?;
    if tokio::time::timeout(TO_END, process.exited()).await.is_err() {
        process.signal(Signal::KILL).await?;
        process.exited().await;
    }
    Ok(())
}

/// Stops it, and awaits that it stands.
async fn freeze(process: &Process) -> Result<(), ProviderError> {
    process.signal(Signal::STOP).await?;
    let pid = process.pid.unsigned_abs();
    let deadline = Deadline::after(TO_END);
    while !is_stopped(pid) {
        if deadline.passed() {
            let source = std::io::ErrorKind::TimedOut.into();
            return Err(ProviderError::Freeze { pid, what: "frozen", source });
        }
        // The kernel tells only the parent, which is the guard.
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What the server says in its log that it signed until now, for people.
pub(super) fn signed_until_now(log: &Utf8Path) -> Vec<Fact> {
    use std::io::{BufRead as _, BufReader, Read as _};
    let Ok(file) = std::fs::File::open(log) else { return Vec::new() };
    let lines = BufReader::new(file.take(LOG_AT_MOST)).split(b'\n').map_while(Result::ok);
    let signed = lines.filter_map(|line| log::signed(&String::from_utf8_lossy(&line)));
    signed.map(|signed| Log { line: signed.sentence() }.into()).collect()
}

/// Puts into place what both read.
fn furnish(layout: &Layout, now: jiff::Timestamp) -> Result<(), ProviderError> {
    for directory in ["", "server", "agent"] {
        let path = layout.path(directory);
        std::fs::create_dir(&path).map_err(|source| ProviderError::Files { path, source })?;
    }
    let began = now.checked_sub(BEFORE).unwrap_or(now);
    let validity = Validity::starting(began, NODE_LIFETIME);
    let nodes = Authority::new("SPIRE's agents", validity)?;
    let names = vec![San::Dns("node".to_owned())];
    let node = nodes.mint(&LeafRequest { names, validity, key_type: KeyType::EcdsaP256, serial: None })?;
    let uid = rustix::process::getuid().as_raw();
    let workload = format!("spiffe://{}/ns/demo/sa/proxies", layout.trust_domain);
    write(layout, "nodes.pem", &nodes.pem())?;
    write(layout, "node.pem", &node.chain_pem())?;
    write(layout, "node.key", &node.key.to_pem())?;
    write(layout, "entries.json", &layout.entries(uid, &workload).to_string())?;
    write(layout, "server.conf", &layout.server_conf())?;
    write(layout, "agent.conf", &layout.agent_conf())
}

fn write(layout: &Layout, name: &str, text: &str) -> Result<(), ProviderError> {
    use std::io::Write as _;
    let path = layout.path(name);
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| ProviderError::Files { path, source })
}

fn server_run(programs: &SpirePrograms, layout: &Layout, logs: &Utf8Path) -> Spawn {
    run(layout, "SPIRE's server", &programs.server, "server.conf", logs.join("spire-server.log"))
}

fn agent_run(programs: &SpirePrograms, layout: &Layout, logs: &Utf8Path) -> Spawn {
    run(layout, "SPIRE's agent", &programs.agent, "agent.conf", logs.join("spire-agent.log"))
}

fn run(layout: &Layout, what: &str, program: &Utf8Path, config: &str, log: Utf8PathBuf) -> Spawn {
    spawn(layout, what, program, &["run", "-config", layout.path(config).as_str()], log)
}

fn spawn(layout: &Layout, what: &str, program: &Utf8Path, args: &[&str], log: Utf8PathBuf) -> Spawn {
    Spawn {
        what: what.to_owned(),
        program: program.to_owned(),
        args: args.iter().map(|&word| word.to_owned()).collect(),
        env: vec![("HOME".to_owned(), layout.directory.to_string())],
        cwd: Some(layout.directory.clone()),
        log,
    }
}

/// Has the server's own command line talk to the server. What it says stays in the scratch directory.
async fn ask_server(
    programs: &SpirePrograms,
    layout: &Layout,
    [object, verb, option, value]: [&str; 4],
    guard: &Guard,
) -> Result<(), ProviderError> {
    let what = format!("spire-server {object} {verb}");
    let args = [object, verb, "-socketPath", layout.path(API).as_str(), option, value].map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let errand = guard.spawn(spawn(layout, &what, &programs.server, &args, layout.path("errands.log"))).await?;
    match tokio::time::timeout(TO_ANSWER, errand.exited()).await {
        Ok(Exit { code: Some(0), .. }) => Ok(()),
        Ok(how) => {
            let said = errand.log_tail(1).ok().and_then(|lines| lines.into_iter().next()).unwrap_or_default();
            Err(ProviderError::Errand { what, how, said })
        }
        Err(_) => Err(ProviderError::ErrandHangs { what, seconds: TO_ANSWER.as_secs() }),
    }
}
