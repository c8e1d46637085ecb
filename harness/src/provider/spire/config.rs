//! What SPIRE's server and agent are told, in the form of their configuration files (HCL; SPIRE's configuration
//! references).

use std::net::SocketAddr;

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use super::gate::Gate;
use crate::scenario::{FEDERATED_DOMAIN, Span};

/// The agent's place in the trust domain, by the certificate that it shows to the server; and where tokens have theirs.
const NODE: &str = "/x509pop/node";
const JOINED: &str = "/join_token";
/// The one registration entry.
pub(super) const ENTRY: &str = "proxies";

/// Where everything of one cell's SPIRE lies, and how it is reached.
pub(super) struct Layout {
    /// A private directory.
    pub(super) directory: Utf8PathBuf,
    pub(super) trust_domain: &'static str,
    /// Where the server is reached by its agent.
    pub(super) server: SocketAddr,
    /// How the agent proves to the server which node it is.
    pub(super) attestation: Attestation,
    /// What lets it sign no more, where that is to happen.
    pub(super) gate: Option<Gate>,
}

/// How the agent proves to the server which node it is.
pub(super) enum Attestation {
    /// By a certificate, with its keys on disk.
    X509pop,
    /// By this token, with its keys in memory.
    Token(String),
}

impl Layout {
    pub(super) fn path(&self, name: &str) -> Utf8PathBuf {
        self.directory.join(name)
    }

    /// The server's configuration. Its data outlives it, so that it can be stopped and started again. The agent's own
    /// certificate outlives the cell: an agent without one ends when its server is away.
    pub(super) fn server_conf(&self) -> String {
        let path = |name: &str| quoted(self.path(name).as_str());
        let [experimental, beside] = self.gate.as_ref().map_or_else(Default::default, |gate| gate.conf.clone());
        let experimental = if experimental.is_empty() { experimental } else { format!("\n    {experimental}") };
        let beside = if beside.is_empty() { beside } else { format!("\n{beside}") };
        format!(
            r#"server {{
  trust_domain = {trust_domain}
  bind_address = {address}
  bind_port = {port}
  socket_path = {socket}
  data_dir = {data}
  log_level = "DEBUG"
  log_format = "json"
  agent_ttl = "1h"
  experimental {{
    cache_reload_interval = "1s"{experimental}
  }}
}}{beside}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = {database}
    }}
  }}
  KeyManager "disk" {{
    plugin_data {{
      keys_path = {keys}
    }}
  }}
  NodeAttestor "x509pop" {{
    plugin_data {{
      ca_bundle_path = {nodes}
      agent_path_template = "{NODE}"
    }}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
}}
"#,
            trust_domain = quoted(self.trust_domain),
            address = quoted(&self.server.ip().to_string()),
            port = self.server.port(),
            socket = path("server.sock"),
            data = path("server"),
            database = path("server/datastore.sqlite3"),
            keys = path("server/keys.json"),
            nodes = path("nodes.pem"),
        )
    }

    /// The agent's configuration. One that keeps its keys has its own certificate over a restart.
    pub(super) fn agent_conf(&self) -> String {
        let path = |name: &str| quoted(self.path(name).as_str());
        let (join_token, keys, attestor) = match &self.attestation {
            Attestation::X509pop => (
                String::new(),
                format!("\"disk\" {{\n    plugin_data {{\n      directory = {}\n    }}\n  }}", path("agent")),
                format!(
                    "\"x509pop\" {{\n    plugin_data {{\n      certificate_path = {}\n      private_key_path = {}\n    }}\n  }}",
                    path("node.pem"),
                    path("node.key")
                ),
            ),
            Attestation::Token(token) => (
                format!("\n  join_token = {}", quoted(token)),
                "\"memory\" {\n    plugin_data {}\n  }".to_owned(),
                "\"join_token\" {\n    plugin_data {}\n  }".to_owned(),
            ),
        };
        format!(
            r#"agent {{
  trust_domain = {trust_domain}
  server_address = {address}
  server_port = {port}
  socket_path = {socket}
  data_dir = {data}
  insecure_bootstrap = true{join_token}
  log_level = "DEBUG"
  log_format = "json"
  sds {{
    default_svid_name = "default"
    default_bundle_name = "ROOTCA"
  }}
  experimental {{
    sync_interval = "1s"
  }}
}}
plugins {{
  KeyManager {keys}
  NodeAttestor {attestor}
  WorkloadAttestor "unix" {{
    plugin_data {{}}
  }}
}}
"#,
            trust_domain = quoted(self.trust_domain),
            address = quoted(&self.server.ip().to_string()),
            port = self.server.port(),
            socket = path("agent.sock"),
            data = path("agent"),
        )
    }

    /// The registration entry: whoever runs as this user is this workload. SPIRE sees the tap, for all proxies.
    pub(super) fn entries(&self, uid: u32, ttl: Span) -> Value {
        let trust_domain = self.trust_domain;
        let node = match &self.attestation {
            Attestation::X509pop => NODE.to_owned(),
            Attestation::Token(token) => format!("{JOINED}/{token}"),
        };
        let federates_with: &[&str] = if self.gate.is_some() { &[FEDERATED_DOMAIN] } else { &[] };
        json!({ "entries": [{
            "entry_id": ENTRY,
            "spiffe_id": format!("spiffe://{trust_domain}/ns/demo/sa/proxies"),
            "parent_id": format!("spiffe://{trust_domain}/spire/agent{node}"),
            "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
            "x509_svid_ttl": ttl.as_secs(),
            "federates_with": federates_with,
        }] })
    }
}

/// A string of HCL, whose escapes are those of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ProviderAction;

    fn layout(directory: &str, attestation: Attestation) -> Layout {
        Layout {
            directory: directory.into(),
            trust_domain: "cluster.local",
            server: ([127, 0, 0, 1], 8081).into(),
            attestation,
            gate: None,
        }
    }

    #[test]
    fn server_and_agent_are_told_the_same_place() {
        let layout = layout("/scratch/spire", Attestation::X509pop);
        insta::assert_snapshot!(format!("{}\n{}", layout.server_conf(), layout.agent_conf()));
    }

    #[test]
    fn a_server_that_is_to_stop_signing_is_told_when() {
        let mut layout = layout("/scratch/spire", Attestation::X509pop);
        let at = |action| crate::scenario::ProviderEvent { at: Span::seconds(3), action };
        let spec =
            |action| crate::scenario::ProviderSpec { events: vec![at(action)], ..serde_json::from_str("{}").unwrap() };
        let gate = |action| {
            Gate::of(&spec(action), &layout.directory, ([127, 0, 0, 1], 9988).into(), jiff::Timestamp::UNIX_EPOCH)
        };
        // For whoever has no need of it, nothing is changed.
        assert_eq!(gate(ProviderAction::UpdateEntry).unwrap(), None);
        layout.gate = gate(ProviderAction::ResendCached).unwrap();
        let files = &layout.gate.as_ref().unwrap().files;
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["gate.rego", "others-0.pem", "others-1.pem"]);
        assert!(files[0].1.contains("\"http://127.0.0.1:9988/metrics\""), "{}", files[0].1);
        assert!(files[1].1 != files[2].1 && !files[1].1.contains("PRIVATE"));
        insta::assert_snapshot!(layout.server_conf());
        let entries = layout.entries(1000, Span::seconds(30));
        assert_eq!(entries["entries"][0]["federates_with"], json!(["others.test"]));
    }

    #[test]
    fn the_entry_is_for_whoever_runs_as_this_user() {
        let entries = layout("/scratch/spire", Attestation::X509pop).entries(1000, Span::seconds(30));
        insta::assert_json_snapshot!(entries);
    }

    #[test]
    fn an_agent_with_a_token_keeps_nothing_on_disk() {
        let layout = layout("/scratch/spire", Attestation::Token("once".to_owned()));
        let conf = layout.agent_conf();
        assert!(conf.contains("join_token = \"once\"") && conf.contains("KeyManager \"memory\""), "{conf}");
        assert!(!conf.contains("node.key"), "{conf}");
        let entries = layout.entries(1000, Span::seconds(30));
        assert_eq!(entries["entries"][0]["parent_id"], "spiffe://cluster.local/spire/agent/join_token/once");
    }

    #[test]
    fn a_path_can_break_out_of_nothing() {
        let conf = layout("/a \"b\"\n}", Attestation::X509pop).server_conf();
        assert!(conf.contains(r#"socket_path = "/a \"b\"\n}/server.sock""#), "{conf}");
    }
}
