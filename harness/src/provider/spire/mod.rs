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
use crate::pki::{Authority, LeafRequest, San, Validity};
use crate::proc::{Exit, Process, Spawn, free_ports};
use crate::scenario::{KeyType, Span, TRUST_DOMAIN};
use crate::timeline::{At, Fact, Log};
use config::Layout;

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

/// A server and an agent that run. The guard that started them ends them.
pub(super) struct Spire {
    pub(super) server: (At, Process),
    pub(super) agent: (At, Process),
    /// Where the agent serves.
    pub(super) socket: Utf8PathBuf,
}

impl Spire {
    /// Starts both, with one entry for whoever runs as our user. Returns when the agent listens: it may need a second
    /// more until it has the entry.
    pub(super) async fn start(programs: &SpirePrograms, ttl: Span, ground: &Ground<'_>) -> Result<Self, ProviderError> {
        let directory = ground.scratch.join("spire");
        let [address] = free_ports().map_err(ProviderError::Port)?;
        let layout = Layout { directory: &directory, trust_domain: TRUST_DOMAIN, server: address, ttl };
        furnish(&layout, ground.clock.now())?;

        let server_log = ground.directory.join("spire-server.log");
        let server_at = ground.clock.at();
        let server = run(ground, "SPIRE's server", &programs.server, &layout.path("server.conf"), &server_log).await?;
        let api = layout.path("server.sock");
        until_served(&server, &api).await?;
        let register = ["entry", "create", "-socketPath", api.as_str(), "-data", layout.path("entries.json").as_str()]
            .map(str::to_owned);
        ask_server(ground, programs, &layout, register.to_vec()).await?;

        let agent_log = ground.directory.join("spire-agent.log");
        let agent_at = ground.clock.at();
        let agent = run(ground, "SPIRE's agent", &programs.agent, &layout.path("agent.conf"), &agent_log).await?;
        let socket = layout.path("agent.sock");
        until_served(&agent, &socket).await?;
        Ok(Self { server: (server_at, server), agent: (agent_at, agent), socket })
    }
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
fn furnish(layout: &Layout<'_>, now: jiff::Timestamp) -> Result<(), ProviderError> {
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

fn write(layout: &Layout<'_>, name: &str, text: &str) -> Result<(), ProviderError> {
    use std::io::Write as _;
    let path = layout.path(name);
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| ProviderError::Files { path, source })
}

async fn run(
    ground: &Ground<'_>,
    what: &str,
    program: &Utf8Path,
    config: &Utf8Path,
    log: &Utf8Path,
) -> Result<Process, ProviderError> {
    let args = ["run", "-config", config.as_str()].map(str::to_owned).to_vec();
    Ok(ground.guard.spawn(spawn(ground, what, program, args, log)).await?)
}

fn spawn(ground: &Ground<'_>, what: &str, program: &Utf8Path, args: Vec<String>, log: &Utf8Path) -> Spawn {
    Spawn {
        what: what.to_owned(),
        program: program.to_owned(),
        args,
        env: vec![("HOME".to_owned(), ground.scratch.to_string())],
        cwd: Some(ground.scratch.to_owned()),
        log: log.to_owned(),
    }
}

/// Has the server's own command line talk to the server. What it says stays in the scratch directory.
async fn ask_server(
    ground: &Ground<'_>,
    programs: &SpirePrograms,
    layout: &Layout<'_>,
    args: Vec<String>,
) -> Result<(), ProviderError> {
    let what = format!("spire-server {}", args.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" "));
    let spawn = spawn(ground, &what, &programs.server, args, &layout.path("errands.log"));
    let errand = ground.guard.spawn(spawn).await?;
    let exit = tokio::time::timeout(TO_ANSWER, errand.exited()).await;
    match exit {
        Ok(Exit { code: Some(0), .. }) => Ok(()),
        Ok(how) => {
            let said = errand.log_tail(1).ok().and_then(|lines| lines.into_iter().next()).unwrap_or_default();
            Err(ProviderError::Errand { what, how, said })
        }
        Err(_) => Err(ProviderError::ErrandHangs { what, seconds: TO_ANSWER.as_secs() }),
    }
}
