//! istiod: Istio's control plane, one for a cell, with its configuration in files and the stub for a cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::disclosed::FILTERS;
use super::kubernetes::{Kubernetes, ServiceAccount};
use super::mesh::NAMESPACE;
use crate::clock::Deadline;
use crate::fleet::{FleetError, admin, keep};
use crate::pki::{Authority, Validity};
use crate::proc::{Guard, Process, Spawn, free_ports};
use crate::timeline::{Exited, Recorder, Source, Spawned};

/// How long it may take to serve. It takes about a second.
const READY: Duration = Duration::from_secs(60);
/// Between two questions whether it does: nobody tells.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its log that are kept of an end.
const LOG_LINES: usize = 60;

/// The name in its certificate.
pub(super) const NAME: &str = "istiod.istio-system.svc";
/// Lifetime of its authority, which begins a little before its own start.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 86_400);
const BEFORE: Duration = Duration::from_secs(3600);

/// A running istiod. The guard that started it ends it.
pub(super) struct Istiod {
    discovery: Discovery,
    _process: Process,
    _kubernetes: Kubernetes,
}

/// Where agents find it, on loopback: xDS in plain text; or, where it issues certificates, by TLS.
pub(super) struct Discovery {
    address: SocketAddr,
    /// The authority by which it is known, PEM; empty in plain text.
    root: String,
}

impl Discovery {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }
}

/// What it is made of.
pub(super) struct IstiodConfig<'a> {
    /// The executable, `pilot-discovery`.
    pub(super) program: &'a Utf8Path,
    /// A private directory for what it reads.
    pub(super) directory: &'a Utf8Path,
    /// Where it logs.
    pub(super) log: Utf8PathBuf,
    /// The trust domain of the mesh.
    pub(super) trust_domain: &'a str,
    /// Istio's own configuration: see [`super::mesh`].
    pub(super) mesh: &'a [Value],
    /// Tokens of workloads.
    pub(super) tokens: HashMap<String, ServiceAccount>,
    /// Whether it issues certificates.
    pub(super) issues: bool,
    /// Whether the proxies have the filters of Istio's own build of Envoy.
    pub(super) own_envoy: bool,
    /// Now, in the machine's time.
    pub(super) started: jiff::Timestamp,
}

impl Istiod {
    /// Starts it, and awaits that it serves.
    pub(super) async fn start(
        config: IstiodConfig<'_>,
        guard: &Guard,
        recorder: &Recorder,
    ) -> Result<Self, FleetError> {
        let IstiodConfig { program, directory, log, trust_domain, mesh, tokens, issues, own_envoy, started } = config;
        let unserved = |source| FleetError::Kubernetes { source };
        let kubernetes = Kubernetes::serve(&["default", "istio-system", NAMESPACE], tokens).await.map_err(unserved)?;
        let [grpc, secure, http, monitoring] = free_ports().map_err(unserved)?;

        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stub",
            "clusters": [{ "name": "stub", "cluster": { "server": format!("http://{}", kubernetes.addr()) } }],
            "contexts": [{ "name": "stub", "context": { "cluster": "stub", "user": "stub" } }],
            "users": [{ "name": "stub", "user": {} }],
        });
        let defaults = json!({
            "trustDomain": trust_domain,
            "enableAutoMtls": true,
            "ingressControllerMode": "OFF",
            "defaultConfig": { "discoveryAddress": if issues { secure } else { grpc }.to_string() },
        });
        // JSON is YAML.
        let documents: Vec<String> = mesh.iter().map(ToString::to_string).collect();
        let files = [
            ("kubeconfig", kubeconfig.to_string()),
            ("mesh.yaml", defaults.to_string()),
            ("config/mesh.yaml", documents.join("\n---\n")),
        ];
        for (name, text) in &files {
            write(directory, name, text)?;
        }
        let root = if issues { authority(directory, started)? } else { String::new() };

        let path = |name: &str| directory.join(name).into_string();
        let args = [
            "discovery".to_owned(),
            "--registries=Kubernetes".to_owned(),
            format!("--kubeconfig={}", path("kubeconfig")),
            format!("--configDir={}", path("config")),
            format!("--meshConfig={}", path("mesh.yaml")),
            format!("--grpcAddr={grpc}"),
            format!("--secureGRPCAddr={}", if issues { secure.to_string() } else { String::new() }),
            "--httpsAddr=".to_owned(),
            format!("--httpAddr={http}"),
            format!("--monitoringAddr={monitoring}"),
            "--log_output_level=default:warn".to_owned(),
        ];
        let env = [
            ("POD_NAME", "istiod"),
            ("POD_NAMESPACE", "istio-system"),
            ("HOME", directory.as_str()),
            // Otherwise certificates come from elsewhere.
            ("ENABLE_CA_SERVER", if issues { "true" } else { "false" }),
            ("ROOT_CA_DIR", AUTHORITY_DIRECTORY),
        ];
        // Other builds of Envoy than Istio's own refuse the whole configuration for its filters.
        let off = FILTERS.iter().filter(|_| !own_envoy).map(|(setting, _)| (*setting, "false"));
        let spawn = Spawn {
            what: "istiod".to_owned(),
            program: program.to_owned(),
            args: args.to_vec(),
            env: env.into_iter().chain(off).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: Some(directory.to_owned()),
            log,
        };
        let process = guard.spawn(spawn).await.map_err(|source| FleetError::Istiod { source })?;
        recorder.record(Source::Process, None, None, Spawned { pid: process.pid, what: "istiod".to_owned() });
        watch_end(process.clone(), recorder.clone());
        serves(&process, http).await?;
        let discovery = Discovery { address: if issues { secure } else { grpc }, root };
        Ok(Self { discovery, _process: process, _kubernetes: kubernetes })
    }

    pub(super) fn discovery(&self) -> &Discovery {
        &self.discovery
    }
}

/// Where it reads its authority, from its working directory.
const AUTHORITY_DIRECTORY: &str = "cacerts";

/// Gives it an authority under the file names that it knows; returns its certificate, PEM.
fn authority(directory: &Utf8Path, now: jiff::Timestamp) -> Result<String, FleetError> {
    let start = now.checked_sub(BEFORE).unwrap_or(now);
    let (authority, key) = Authority::with_key("rotacheck Istio authority", Validity::starting(start, AUTHORITY))?;
    let certificate = authority.pem();
    let key = key.to_pem();
    let files = [
        ("ca-cert.pem", certificate.as_str()),
        ("cert-chain.pem", &certificate),
        ("root-cert.pem", &certificate),
        ("ca-key.pem", &key),
    ];
    for (name, text) in files {
        write(directory, &format!("{AUTHORITY_DIRECTORY}/{name}"), text)?;
    }
    Ok(certificate)
}

fn write(directory: &Utf8Path, name: &str, text: &str) -> Result<(), FleetError> {
    let path = directory.join(name);
    let made = keep::directory(path.parent().unwrap_or(directory));
    made.and_then(|()| keep::file(&path, text.as_bytes())).map_err(|source| FleetError::Write { path, source })
}

async fn serves(process: &Process, http: SocketAddr) -> Result<(), FleetError> {
    let deadline = Deadline::after(READY);
    loop {
        if let Ok((status, _)) = admin::ask(http, "/ready", deadline).await
            && status.is_success()
        {
            return Ok(());
        }
        if let Some(how) = process.exit_now() {
            let words = process.log_tail(LOG_LINES).unwrap_or_default();
            return Err(FleetError::IstiodEnded { how, words: last_words(&words), log: process.log.to_path_buf() });
        }
        if deadline.passed() {
            return Err(FleetError::IstiodSilent { log: process.log.to_path_buf() });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The lines that tell of its end.
fn last_words(tail: &[String]) -> String {
    let telling = |line: &&String| line.contains("error") || line.contains("fatal") || line.contains("panic");
    let mut lines: Vec<&str> = tail.iter().filter(telling).map(|line| line.trim()).rev().take(3).collect();
    lines.reverse();
    lines.join("\n    ")
}

fn watch_end(process: Process, recorder: Recorder) {
    // It ends with the process, which the guard ends at the latest.
    tokio::spawn(async move {
        let exit = process.exited().await;
        let log_tail = process.log_tail(LOG_LINES).unwrap_or_default();
        let exited = Exited { code: exit.code, signal: exit.signal, expected: false, log_tail };
        recorder.record(Source::Process, None, None, exited);
    });
}
