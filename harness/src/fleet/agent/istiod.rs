//! istiod: Istio's control plane, one for a cell, with its configuration in files and the stub for a cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::authority::{self, Authorities, write};
use super::disclosed::FILTERS;
use super::kubernetes::{Kubernetes, ServiceAccount};
use super::mesh::NAMESPACE;
use crate::clock::Deadline;
use crate::fleet::{FleetError, admin};
use crate::proc::{Guard, Process, Signal, Spawn, free_ports};
use crate::scenario::ProviderAction;
use crate::timeline::{Exited, FaultNote, Recorder, Source, Spawned};

/// How long it may take to serve. It takes about a second.
const READY: Duration = Duration::from_secs(60);
/// Between two questions whether it does: nobody tells.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to end when it is asked to.
const TO_END: Duration = Duration::from_secs(10);
/// Lines of its log that are kept of an end.
const LOG_LINES: usize = 60;

/// The name in its certificate.
pub(super) const NAME: &str = "istiod.istio-system.svc";

/// A running istiod. The guard that started it ends it.
pub(in crate::fleet) struct Istiod {
    /// Where agents find it: xDS in plain text; or, where it issues certificates, by TLS.
    pub(super) discovery: SocketAddr,
    /// By whom it issues certificates, where it does.
    pub(super) authorities: Option<Authorities>,
    spawn: Spawn,
    http: SocketAddr,
    process: Process,
    /// Whether its end is asked for.
    ending: Arc<AtomicBool>,
    recorder: Recorder,
    _kubernetes: Kubernetes,
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
            write(&directory.join(name), text)?;
        }
        let authorities = if issues { Some(Authorities::make(directory, started)?) } else { None };

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
            ("ROOT_CA_DIR", authority::DIRECTORY),
            // Else its root can't change while it runs.
            ("ISTIO_MULTIROOT_MESH", "true"),
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
        let (discovery, ending) = (if issues { secure } else { grpc }, Arc::default());
        let process = launch(&spawn, http, &ending, guard, recorder).await?;
        let recorder = recorder.clone();
        Ok(Self { discovery, authorities, spawn, http, process, ending, recorder, _kubernetes: kubernetes })
    }

    /// Does it, where it issues certificates; else it is not what is tested.
    pub(in crate::fleet) async fn undergo(&mut self, action: ProviderAction, guard: &Guard) -> Result<(), FleetError> {
        let Some(authorities) = &mut self.authorities else { return Ok(()) };
        let note = FaultNote { fault: action.name().to_owned(), action: "done to istiod".to_owned() };
        self.recorder.record(Source::Provider, None, None, note);
        match action {
            ProviderAction::PrepareCa => authorities.prepare(self.recorder.clock().now())?,
            ProviderAction::ActivateCa => authorities.activate()?,
            ProviderAction::RevokeCa => authorities.revoke()?,
            ProviderAction::StopServer => {
                self.ending.store(true, Ordering::Relaxed);
                let stopped = self.process.signal(Signal::TERM).await;
                stopped.map_err(|source| FleetError::Istiod { source })?;
                if tokio::time::timeout(TO_END, self.process.exited()).await.is_err() {
                    let killed = self.process.signal(Signal::KILL).await;
                    killed.map_err(|source| FleetError::Istiod { source })?;
                    self.process.exited().await;
                }
            }
            ProviderAction::StartServer => {
                self.ending = Arc::default();
                self.process = launch(&self.spawn, self.http, &self.ending, guard, &self.recorder).await?;
            }
            // It has no such parts.
            _ => {}
        }
        Ok(())
    }
}

/// Starts it, and awaits that it serves.
async fn launch(
    spawn: &Spawn,
    http: SocketAddr,
    ending: &Arc<AtomicBool>,
    guard: &Guard,
    recorder: &Recorder,
) -> Result<Process, FleetError> {
    let process = guard.spawn(spawn.clone()).await.map_err(|source| FleetError::Istiod { source })?;
    recorder.record(Source::Process, None, None, Spawned { pid: process.pid, what: "istiod".to_owned() });
    watch_end(process.clone(), ending.clone(), recorder.clone());
    serves(&process, http).await?;
    Ok(process)
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

fn watch_end(process: Process, ending: Arc<AtomicBool>, recorder: Recorder) {
    // It ends with the process, which the guard ends at the latest.
    tokio::spawn(async move {
        let exit = process.exited().await;
        let expected = ending.load(Ordering::Relaxed);
        // Of an end that was asked for, its last words explain nothing.
        let log_tail = if expected { Vec::new() } else { process.log_tail(LOG_LINES).unwrap_or_default() };
        let exited = Exited { code: exit.code, signal: exit.signal, expected, log_tail };
        recorder.record(Source::Process, None, None, exited);
    });
}
