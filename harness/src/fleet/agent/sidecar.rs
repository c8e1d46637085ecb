//! Istio's agent with its Envoy: how one is started, and where it works.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::mesh::NAMESPACE;
use super::{authority, istiod};
use crate::fleet::member::Start;
use crate::fleet::{FleetError, keep};
use crate::proc::Spawn;
use crate::scenario::{Span, StatsInclusion};
use crate::timeline::{ProxyId, Recorder};

/// Where the agent looks for a workload's socket, from its working directory.
const WORKLOAD_SOCKETS: &str = "var/run/secrets/workload-spiffe-uds";
/// Where it opens its own socket for certificates from files.
const FILE_SOCKETS: &str = "var/run/secrets/credential-uds";
/// The name that the socket must have there.
pub(super) const SOCKET_NAME: &str = "socket";

/// One agent.
pub(super) struct Agent<'a> {
    pub(super) id: &'a ProxyId,
    /// The executable, `pilot-agent`.
    pub(super) program: &'a Utf8Path,
    pub(super) envoy: &'a Utf8Path,
    /// Istio's bootstrap template.
    pub(super) template: &'a Utf8Path,
    /// Its working directory.
    pub(super) directory: &'a Utf8Path,
    /// The directory in which the provider serves [`SOCKET_NAME`]; none where the agent itself does.
    pub(super) sockets: Option<&'a Utf8Path>,
    pub(super) log: Utf8PathBuf,
    pub(super) address: Ipv4Addr,
    /// Where istiod serves.
    pub(super) discovery: SocketAddr,
    /// What it shows istiod where it wants certificates from there.
    pub(super) token: &'a str,
    /// Lifetime of the certificates that it asks istiod for.
    pub(super) secret_ttl: Span,
    /// Something else lies where its socket for certificates from files is to be.
    pub(super) files_socket_blocked: bool,
    pub(super) trust_domain: &'a str,
    pub(super) admin: SocketAddr,
    pub(super) status: SocketAddr,
    /// A port that the harness holds.
    pub(super) taken: SocketAddr,
    pub(super) prometheus: SocketAddr,
    pub(super) stats: StatsInclusion,
}

/// The bootstrap that it will write for its Envoy, below its working directory.
pub(super) fn bootstrap(directory: &Utf8Path) -> Utf8PathBuf {
    directory.join("etc/istio/proxy/envoy-rev.json")
}

/// Where an agent reads by whom istiod is known, below its working directory.
pub(super) fn root_file(directory: &Utf8Path) -> Utf8PathBuf {
    directory.join("var/run/secrets/istio/root-cert.pem")
}

/// Where the agent of this proxy serves SDS, if nobody else does there.
pub fn workload_socket(scratch: &Utf8Path, id: &ProxyId) -> Utf8PathBuf {
    scratch.join(id.as_str()).join(WORKLOAD_SOCKETS).join(SOCKET_NAME)
}

/// Istio's template, with the listeners for metrics and health checks on loopback instead of on all addresses; and, if
/// given, the tap's socket in place of the agent's. `None`: it does not name the latter.
pub(super) fn adapted(template: &str, tap: Option<&Utf8Path>) -> Option<String> {
    let text = template.replace("{{ .wildcard }}", "127.0.0.1");
    match tap {
        None => Some(text),
        Some(tap) => led_to(&text, tap),
    }
}

/// Istio's template with the tap's socket in place of the agent's, whatever name that has. `None`: it does not name any.
pub(in crate::fleet) fn led_to(template: &str, tap: &Utf8Path) -> Option<String> {
    let (before, path) = template.split_once(&format!("\"./{WORKLOAD_SOCKETS}/"))?;
    let (_, after) = path.split_once('"')?;
    Some(format!("{before}\"{tap}\"{after}"))
}

impl Agent<'_> {
    /// Makes its working directory, in which the provider's sockets lie where it looks for them.
    pub(super) fn prepare(&self) -> Result<Start, FleetError> {
        let made = |path: &Utf8Path| {
            let path = self.directory.join(path);
            keep::directory(&path).map_err(|source| FleetError::Write { path, source })
        };
        made("etc/istio/proxy".into())?;
        let secrets = Utf8Path::new("var/run/secrets");
        made(secrets)?;
        if self.files_socket_blocked {
            let path = self.directory.join(FILE_SOCKETS);
            keep::file(&path, b"").map_err(|source| FleetError::Write { path, source })?;
        }
        match self.sockets {
            Some(sockets) => {
                let path = self.directory.join(WORKLOAD_SOCKETS);
                symlink(sockets, &path).map_err(|source| FleetError::Write { path, source })?;
            }
            None => {
                authority::write(&self.directory.join(secrets).join("tokens/istio-token"), self.token)?;
            }
        }
        let child = Some(bootstrap(self.directory).into_string());
        Ok(Start { spawn: self.spawn(), what: "istio agent", child, container: None })
    }

    fn spawn(&self) -> Spawn {
        let mut config = json!({
            "binaryPath": self.envoy.as_str(),
            "configPath": self.directory.join("etc/istio/proxy").as_str(),
            "discoveryAddress": self.discovery.to_string(),
            "controlPlaneAuthPolicy": if self.sockets.is_some() { "NONE" } else { "MUTUAL_TLS" },
            "concurrency": 1,
            "proxyAdminPort": self.admin.port(),
            // Its own server for health checks would listen on all addresses, and can't be switched off. It goes without
            // one where the port is taken.
            "statusPort": self.taken.port(),
            "terminationDrainDuration": "0s",
        });
        if self.stats == StatsInclusion::All {
            config["proxyStatsMatcher"] = json!({ "inclusionRegexps": [".*"] });
        }
        let env = [
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("HOME", self.directory.to_string()),
            ("TZ", "UTC0".to_owned()),
            ("INSTANCE_IP", self.address.to_string()),
            ("POD_NAME", self.id.to_string()),
            ("POD_NAMESPACE", NAMESPACE.to_owned()),
            ("SERVICE_ACCOUNT", self.id.to_string()),
            ("TRUST_DOMAIN", self.trust_domain.to_owned()),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
            ("ISTIO_META_INTERCEPTION_MODE", "NONE".to_owned()),
            ("ISTIO_METAJSON_LABELS", json!({ "app": self.id.as_str() }).to_string()),
            ("ENVOY_STATUS_PORT", self.status.port().to_string()),
            ("ENVOY_PROMETHEUS_PORT", self.prometheus.port().to_string()),
            ("PROXY_CONFIG", config.to_string()),
            // These count where it asks istiod for certificates.
            ("ISTIOD_SAN", istiod::NAME.to_owned()),
            ("SECRET_TTL", self.secret_ttl.to_string()),
            ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0".to_owned()),
        ];
        let args = [
            "proxy",
            "sidecar",
            "--templateFile",
            self.template.as_str(),
            "--profiling=false",
            "--proxyLogLevel",
            "warning,config:info",
        ];
        Spawn {
            what: format!("istio agent {}", self.id),
            program: self.program.to_owned(),
            args: args.map(str::to_owned).to_vec(),
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            cwd: Some(self.directory.to_owned()),
            log: self.log.clone(),
        }
    }

    /// What moves its Envoy's clock. The agent is a Go program: it asks the kernel itself, and stays in real time.
    pub(super) fn in_cell_time(mut start: Start, recorder: &Recorder) -> Start {
        start.spawn.env.extend(recorder.clock().environment());
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"address": "{{ .wildcard }}",
        "pipe": {"path": "./var/run/secrets/workload-spiffe-uds/{{ .workload_identity_socket_file }}"}}"#;

    #[test]
    fn the_template_listens_on_loopback_and_leads_to_the_tap() {
        let own = adapted(TEMPLATE, None).unwrap();
        assert!(own.contains("127.0.0.1") && own.contains("{{ .workload_identity_socket_file }}"), "{own}");
        let tapped = adapted(TEMPLATE, Some("/run/x.sock".into())).unwrap();
        assert!(tapped.contains(r#""path": "/run/x.sock""#) && !tapped.contains("workload-spiffe-uds"), "{tapped}");
        assert_eq!(adapted("{}", Some("/run/x.sock".into())), None);
    }

    #[test]
    fn the_workload_socket_lies_where_the_agent_looks() {
        let id = ProxyId::parse("proxy-a").unwrap();
        let path = workload_socket("/tmp/cell/istio".into(), &id);
        assert_eq!(path, "/tmp/cell/istio/proxy-a/var/run/secrets/workload-spiffe-uds/socket");
    }
}
