//! SPIRE: a real server and a real agent, started for one cell, on loopback and in a private directory.
//!
//! The agent proves itself by a certificate of an authority made for it (x509pop), or by a join token, which is in the
//! agent's name and so in both logs: then these lie with everything else that is kept on disk in the scratch directory,
//! which the guard removes, and are copied without it.

mod config;
mod gate;
mod log;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::met::until_served;
use super::signed::SignedLog;
use super::{Ground, ProviderError, errand, write_private};
use crate::clock::Deadline;
use crate::pki::{Authority, LeafRequest, Validity};
use crate::proc::{Guard, Process, Signal, Spawn, free_ports, is_stopped};
use crate::scenario::{FEDERATED_DOMAIN, NodeAttestation, ProviderAction, ProviderSpec, Span, TRUST_DOMAIN};
use crate::timeline::At;
use config::{Attestation, ENTRY, Layout};
pub use gate::Gate;

/// The server's own socket, and the agent's.
const API: &str = "server.sock";
const SOCKET: &str = "agent.sock";
/// How long it may take to end, or to stand still.
const TO_END: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// What the agent shows to the server begins before the clocks of both.
const BEFORE: Duration = Duration::from_secs(3600);
/// It outlives every cell.
const LIFETIME: Duration = Duration::from_secs(2 * 86_400);

/// SPIRE's programs, as they are found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpirePrograms {
    /// `spire-server`.
    pub server: Utf8PathBuf,
    /// `spire-agent`.
    pub agent: Utf8PathBuf,
}

/// Where the SPIRE of a cell comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpireFrom {
    /// It is started here.
    Programs(SpirePrograms),
    /// It is pods of the cell's namespace.
    Pods,
}

/// Where what its server says is kept, in a cell's directory.
pub fn server_log(directory: &Utf8Path) -> Utf8PathBuf {
    directory.join(SERVER_LOG)
}

/// What the server says in its log that it signed.
pub(super) fn signed_in(path: &Utf8Path) -> SignedLog {
    SignedLog::new(path, log::signed)
}

/// A server and an agent of one cell. The guard that started them ends them.
pub(super) struct Spire {
    programs: SpirePrograms,
    layout: Layout,
    /// Where both say what they do.
    logs: Utf8PathBuf,
    /// Where that is kept, if it is elsewhere.
    kept: Option<Utf8PathBuf>,
    server: Process,
    agent: Process,
    /// Lifetime of a leaf, as the entry has it.
    ttl: Span,
    /// How often it was brought to send what it has.
    resent: usize,
}

impl Spire {
    /// Starts both, with one entry for whoever runs as our user. Returns when the agent listens: it may need a second
    /// more until it has the entry.
    pub(super) async fn start(
        programs: &SpirePrograms,
        spec: &ProviderSpec,
        ground: &Ground<'_>,
    ) -> Result<(Self, [(At, Process); 2]), ProviderError> {
        let [server, counts] = free_ports().map_err(ProviderError::Port)?;
        let (directory, attestation) = (ground.scratch.join("spire"), Attestation::X509pop);
        let gate = Gate::of(spec, &directory, counts, ground.clock.now())?;
        let mut layout = Layout { directory, trust_domain: TRUST_DOMAIN, server, attestation, gate };
        furnish(&layout, ground.clock.now())?;
        let by_token = spec.attestation == NodeAttestation::JoinToken;
        // Both name the agent by its token.
        let logs = if by_token { layout.directory.clone() } else { ground.directory.to_owned() };
        let kept = by_token.then(|| ground.directory.to_owned());

        let server_at = ground.clock.at();
        let server = ground.guard.spawn(server_run(programs, &layout, &logs)).await?;
        until_served(&server, &layout.path(API)).await.map_err(|e| keep(&layout, &logs, kept.as_deref(), e))?;
        if by_token {
            let words = ["token", "generate", "-output", "json"];
            let said = ask_server(programs, &layout, &words, ground.guard).await?;
            layout.attestation = Attestation::Token(field(&said, &["value"])?);
        }
        if layout.gate.is_some() {
            federate(programs, &layout, 0, ground.guard).await?;
        }
        register(programs, &layout, "create", spec.ttl(), ground.guard).await?;
        write(&layout, "agent.conf", &layout.agent_conf())?;
        let agent_at = ground.clock.at();
        let agent = ground.guard.spawn(agent_run(programs, &layout, &logs)).await?;
        until_served(&agent, &layout.path(SOCKET)).await.map_err(|e| keep(&layout, &logs, kept.as_deref(), e))?;
        let started = [(server_at, server.clone()), (agent_at, agent.clone())];
        let ttl = spec.ttl();
        Ok((Self { programs: programs.clone(), layout, logs, kept, server, agent, ttl, resent: 0 }, started))
    }

    /// Does something to the authority that stands in this place: `prepared`, `old`.
    async fn authority(&self, verb: &str, place: &str, guard: &Guard) -> Result<(), ProviderError> {
        let show = ["localauthority", "x509", "show", "-output", "json"];
        let said = ask_server(&self.programs, &self.layout, &show, guard).await?;
        let id = field(&said, &[place, "authority_id"])?;
        let words = ["localauthority", "x509", verb, "-authorityID", &id];
        ask_server(&self.programs, &self.layout, &words, guard).await.map(drop)
    }

    /// Leaves in the run directory what both said, if that lies elsewhere.
    pub(super) fn keep_logs(&self) {
        keep_logs(&self.layout, &self.logs, self.kept.as_deref());
    }

    /// Where the agent serves.
    pub(super) fn socket(&self) -> Utf8PathBuf {
        self.layout.path(SOCKET)
    }

    /// What the server says that it signed.
    pub(super) fn signed(&self) -> SignedLog {
        signed_in(&self.server.log)
    }

    /// The process that ends by this, if one does.
    pub(super) fn ended_by(&self, action: ProviderAction) -> Option<&Process> {
        match action {
            ProviderAction::KillAgent => Some(&self.agent),
            ProviderAction::StopServer => Some(&self.server),
            _ => None,
        }
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
            ProviderAction::UpdateEntry => {
                self.ttl = Span::seconds(self.ttl.as_secs() + 1);
                register(&self.programs, &self.layout, "update", self.ttl, guard).await?;
            }
            ProviderAction::PrepareCa => {
                ask_server(&self.programs, &self.layout, &["localauthority", "x509", "prepare"], guard).await?;
            }
            ProviderAction::ActivateCa => self.authority("activate", "prepared", guard).await?,
            ProviderAction::TaintCa => self.authority("taint", "old", guard).await?,
            ProviderAction::RevokeCa => self.authority("revoke", "old", guard).await?,
            ProviderAction::DeleteEntry => {
                ask_server(&self.programs, &self.layout, &["entry", "delete", "-entryID", ENTRY], guard).await?;
            }
            ProviderAction::ResendCached => {
                self.resent += 1;
                federate(&self.programs, &self.layout, self.resent, guard).await?;
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

/// Puts into place what both read.
fn furnish(layout: &Layout, now: jiff::Timestamp) -> Result<(), ProviderError> {
    for directory in ["", "server", "agent"] {
        let path = layout.path(directory);
        std::fs::create_dir(&path).map_err(|source| ProviderError::Files { path, source })?;
    }
    let began = now.checked_sub(BEFORE).unwrap_or(now);
    let validity = Validity::starting(began, LIFETIME);
    let nodes = Authority::new("SPIRE's agents", validity)?;
    let node = nodes.mint(&LeafRequest::of_host("node", validity))?;
    write(layout, "nodes.pem", &nodes.pem())?;
    write(layout, "node.pem", &node.chain_pem())?;
    write(layout, "node.key", &node.key.to_pem())?;
    for (name, text) in layout.gate.iter().flat_map(|gate| &gate.files) {
        write(layout, name, text)?;
    }
    write(layout, "server.conf", &layout.server_conf())
}

fn write(layout: &Layout, name: &str, text: &str) -> Result<(), ProviderError> {
    write_private(&layout.path(name), text)
}

const SERVER_LOG: &str = "spire-server.log";
const AGENT_LOG: &str = "spire-agent.log";

/// An error that names a log names the one that is kept.
fn keep(layout: &Layout, logs: &Utf8Path, kept: Option<&Utf8Path>, error: ProviderError) -> ProviderError {
    keep_logs(layout, logs, kept);
    match (error, kept) {
        (ProviderError::CommandEnded { what, how, socket, log }, Some(kept)) => {
            let log = kept.join(log.file_name().unwrap_or_default());
            ProviderError::CommandEnded { what, how, socket, log }
        }
        (error, _) => error,
    }
}

/// Copies the logs, without the token. What can't be copied is lost: then the disk is full, or gone.
fn keep_logs(layout: &Layout, logs: &Utf8Path, kept: Option<&Utf8Path>) {
    let Some(kept) = kept else { return };
    for name in [SERVER_LOG, AGENT_LOG] {
        let Ok(said) = std::fs::read(logs.join(name)) else { continue };
        let mut said = String::from_utf8_lossy(&said).into_owned();
        if let Attestation::Token(token) = &layout.attestation {
            said = said.replace(token, "(join token)");
        }
        let _ = write_private(&kept.join(name), &said);
    }
}

/// A text in the JSON that SPIRE's command line answers with.
fn field(said: &[String], path: &[&str]) -> Result<String, ProviderError> {
    let answer = said.iter().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = answer.as_ref().and_then(|answer| path.iter().try_fold(answer, |value, key| value.get(key)));
    let found = found.and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| ProviderError::NoAnswer { what: path.join(".") })
}

fn server_run(programs: &SpirePrograms, layout: &Layout, logs: &Utf8Path) -> Spawn {
    run(layout, "SPIRE's server", &programs.server, "server.conf", logs.join(SERVER_LOG))
}

fn agent_run(programs: &SpirePrograms, layout: &Layout, logs: &Utf8Path) -> Spawn {
    run(layout, "SPIRE's agent", &programs.agent, "agent.conf", logs.join(AGENT_LOG))
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

/// Has the server take the entry, with this lifetime.
async fn register(
    programs: &SpirePrograms,
    layout: &Layout,
    verb: &str,
    ttl: Span,
    guard: &Guard,
) -> Result<(), ProviderError> {
    let uid = rustix::process::getuid().as_raw();
    let name = format!("entries-{verb}-{}.json", ttl.as_secs());
    write(layout, &name, &layout.entries(uid, ttl).to_string())?;
    let file = layout.path(&name);
    ask_server(programs, layout, &["entry", verb, "-data", file.as_str()], guard).await.map(drop)
}

/// Has the server know what the bundle of the other trust domain is, after so many changes.
async fn federate(programs: &SpirePrograms, layout: &Layout, nth: usize, guard: &Guard) -> Result<(), ProviderError> {
    let (id, path) = (format!("spiffe://{FEDERATED_DOMAIN}"), layout.path(&gate::bundle(nth)));
    ask_server(programs, layout, &["bundle", "set", "-id", &id, "-path", path.as_str()], guard).await.map(drop)
}

/// Has the server's own command line talk to the server. What it says stays in the scratch directory.
async fn ask_server(
    programs: &SpirePrograms,
    layout: &Layout,
    words: &[&str],
    guard: &Guard,
) -> Result<Vec<String>, ProviderError> {
    static NTH: AtomicU64 = AtomicU64::new(0);
    let socket = layout.path(API);
    let command = words.iter().take_while(|word| !word.starts_with('-')).count();
    let (command, options) = words.split_at(command);
    let what = format!("spire-server {}", command.join(" "));
    let args = [command, &["-socketPath", socket.as_str()], options].concat();
    let log = layout.path(&format!("errand-{}.log", NTH.fetch_add(1, Ordering::Relaxed)));
    errand::run(guard, spawn(layout, &what, &programs.server, &args, log)).await
}
