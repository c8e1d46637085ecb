//! tbot: Teleport's agent for machines, started for one cell, in a private directory. The cluster that it joins is the
//! user's.
//!
//! The join token is read when it is needed, from where the scenario says, and lies in the scratch directory, which the
//! guard removes. It is in no argument and in no environment of tbot's: tbot repeats those in its log.

mod config;
mod log;

use camino::{Utf8Path, Utf8PathBuf};

use super::met::{until_served, which};
use super::signed::SignedLog;
use super::{Ground, ProviderError, errand, write_private};
use crate::proc::{Process, Spawn};
use crate::scenario::{ProviderSpec, TbotSpec, TokenFrom};
use crate::timeline::At;
use config::Layout;

/// Environment variables from which tbot takes a token by itself.
const TOKEN_VARIABLES: [&str; 2] = ["TELEPORT_BOT_TOKEN", "TBOT_REGISTRATION_SECRET"];
/// What it is started as where nothing else is said.
const PROGRAM: &str = "tbot";
/// A token is no longer.
const LONGEST_TOKEN: usize = 64 << 10;

/// A tbot of one cell. The guard that started it ends it.
pub(super) struct Tbot {
    /// Where it serves.
    pub(super) socket: Utf8PathBuf,
    pub(super) process: (At, Process),
    /// What it says that was issued.
    pub(super) signed: SignedLog,
    /// As the program says it: `18.6.4`.
    pub(super) version: Option<String>,
}

impl Tbot {
    /// Starts it. Returns when it listens.
    pub(super) async fn start(spec: &ProviderSpec, ground: &Ground<'_>) -> Result<Self, ProviderError> {
        let tbot = spec.tbot.clone().unwrap_or_default();
        let named = tbot.program.clone().unwrap_or_else(|| PROGRAM.into());
        let program = which(named.as_str()).ok_or_else(|| ProviderError::NoProgram(named.to_string()))?;
        let directory = ground.scratch.join("tbot");
        std::fs::create_dir(&directory).map_err(|source| ProviderError::Files { path: directory.clone(), source })?;
        let socket = directory.join("tbot.sock");
        let token = token(&tbot, &directory)?;
        let (ttl, interval) = (spec.ttl(), spec.interval());
        let layout = Layout { token: &token, socket: &socket, ttl, interval, in_pods: false };
        let file = directory.join("tbot.yaml");
        write_private(&file, &layout.configuration(&tbot).to_string())?;

        let run = |what: &str, args: &[&str], log: Utf8PathBuf| Spawn {
            what: what.to_owned(),
            program: program.clone(),
            args: args.iter().map(|&word| word.to_owned()).collect(),
            env: environment(&tbot),
            cwd: Some(directory.clone()),
            log,
        };
        let asked = run("tbot version", &["version"], directory.join("version.log"));
        let said = errand::run(ground.guard, asked).await?;
        let version = said.iter().find_map(|line| version(line));

        let at = ground.clock.at();
        let start = ["start", "-c", file.as_str(), "--log-format=json"];
        let process = ground.guard.spawn(run("tbot", &start, ground.directory.join("tbot.log"))).await?;
        until_served(&process, &socket).await?;
        let signed = issued_in(&process.log);
        Ok(Self { socket, process: (at, process), signed, version })
    }
}

/// What a tbot of pods reads, which is told where it finds its token and where it is to serve; and that token.
pub fn tbot_files(spec: &ProviderSpec, token: &Utf8Path, socket: &Utf8Path) -> Result<(String, String), ProviderError> {
    let tbot = spec.tbot.clone().unwrap_or_default();
    let layout = Layout { token, socket, ttl: spec.ttl(), interval: spec.interval(), in_pods: true };
    Ok((layout.configuration(&tbot).to_string(), read_token(&tbot)?))
}

/// What such a one says in this log that was issued.
pub(super) fn issued_in(log: &Utf8Path) -> SignedLog {
    SignedLog::new(log, log::issued)
}

/// The user's environment, in which tbot finds what it needs to get out, without tokens.
fn environment(spec: &TbotSpec) -> Vec<(String, String)> {
    let own = match &spec.token {
        Some(TokenFrom::Env(name)) => Some(name.as_str()),
        _ => None,
    };
    std::env::vars()
        .filter(|(name, _)| Some(name.as_str()) != own && !TOKEN_VARIABLES.contains(&name.as_str()))
        .collect()
}

/// A file with the join token.
fn token(spec: &TbotSpec, directory: &Utf8Path) -> Result<Utf8PathBuf, ProviderError> {
    let path = directory.join("token");
    write_private(&path, &read_token(spec)?)?;
    Ok(path)
}

/// The join token, from where the scenario says.
fn read_token(spec: &TbotSpec) -> Result<String, ProviderError> {
    let unfit = |from: String, why: String| ProviderError::Token { from, why };
    let (from, text) = match &spec.token {
        Some(TokenFrom::File(path)) => {
            let read = std::fs::read_to_string(path).map_err(|e| unfit(path.to_string(), e.to_string()));
            (path.to_string(), read?)
        }
        Some(TokenFrom::Env(name)) => {
            let read = std::env::var(name).map_err(|e| unfit(format!("${name}"), e.to_string()));
            (format!("${name}"), read?)
        }
        None => return Err(unfit("nowhere".to_owned(), "`provider.tbot.token` does not say where it is".to_owned())),
    };
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_TOKEN || text.chars().any(char::is_control) {
        return Err(unfit(from, "that is no token".to_owned()));
    }
    Ok(text.to_owned())
}

/// The version in what `tbot version` says: `Teleport v18.6.4 git:v18.6.4-0-g1a2b3c4 go1.24.12`.
pub fn version(line: &str) -> Option<String> {
    let word = line.strip_prefix("Teleport v")?.split_whitespace().next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.+".contains(c);
    (word.len() <= 40 && word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(plain))
        .then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_the_program_says() {
        assert_eq!(version("Teleport v18.6.4 git:v18.6.4-0-g1a2b3c4 go1.24.12").as_deref(), Some("18.6.4"));
        assert_eq!(version("Teleport v19.0.0-alpha.1 git: go1.25").as_deref(), Some("19.0.0-alpha.1"));
        for other in ["", "tbot 18", "Teleport vX", "Teleport v1\u{1b}[2J x"] {
            assert_eq!(version(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_tbot_of_pods_finds_its_token_in_a_file_and_not_in_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(dir.path()).unwrap().join("mine");
        std::fs::write(&file, "s3cret").unwrap();
        let yaml = format!(
            "name: x\nsummary: x\nprovider:\n  kind: tbot\n  ttl: 60s\n  renew_every: 20s\n  tbot:\n    proxy: t.example:443\n    \
             token: {{ file: {file} }}\n    workload_identity: proxies\nclock: real\n"
        );
        let scenario = crate::scenario::Scenario::read(&yaml, "x.yaml").unwrap();
        let (configuration, token) =
            tbot_files(&scenario.provider, "/run/conf/token".into(), "/run/sockets/tbot.sock".into()).unwrap();
        assert_eq!(token, "s3cret");
        assert!(configuration.contains("/run/conf/token") && !configuration.contains("s3cret"), "{configuration}");
        assert!(configuration.contains("unix:///run/sockets/tbot.sock") && configuration.contains("attestors"));
    }

    #[test]
    fn a_token_is_read_from_where_the_scenario_says_and_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(dir.path()).unwrap();
        let from = |token| TbotSpec { token: Some(token), ..TbotSpec::default() };
        let file = directory.join("mine");
        std::fs::write(&file, "  s3cret\n").unwrap();
        let path = token(&from(TokenFrom::File(file.clone())), directory).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "s3cret");
        std::fs::write(&file, "s3cret\nand more").unwrap();
        for spec in [
            from(TokenFrom::File(file.clone())),
            from(TokenFrom::File(directory.join("none"))),
            from(TokenFrom::Env("ROTACHECK_TEST_NO_SUCH_VARIABLE".into())),
            TbotSpec::default(),
        ] {
            let why = token(&spec, directory).unwrap_err().to_string();
            assert!(why.starts_with("tbot's join token can't be read from ") && !why.contains("s3cret"), "{why}");
        }
    }
}
