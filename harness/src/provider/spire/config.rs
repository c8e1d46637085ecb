//! What SPIRE's server and agent are told, in the form of their configuration files (HCL; SPIRE's configuration
//! references).

use std::net::SocketAddr;

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use crate::scenario::Span;

/// The agent's place in the trust domain, by the certificate that it shows to the server.
const NODE: &str = "/x509pop/node";
/// The one registration entry.
pub(super) const ENTRY: &str = "proxies";

/// Where everything of one cell's SPIRE lies, and how it is reached.
pub(super) struct Layout {
    /// A private directory.
    pub(super) directory: Utf8PathBuf,
    pub(super) trust_domain: &'static str,
    /// Where the server is reached by its agent.
    pub(super) server: SocketAddr,
    /// Lifetime of a leaf.
    pub(super) ttl: Span,
}

impl Layout {
    pub(super) fn path(&self, name: &str) -> Utf8PathBuf {
        self.directory.join(name)
    }

    /// The server's configuration. Its data outlives it, so that it can be stopped and started again. The agent's own
    /// certificate outlives the cell: an agent without one ends when its server is away.
    pub(super) fn server_conf(&self) -> String {
        let path = |name: &str| quoted(self.path(name).as_str());
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
    cache_reload_interval = "1s"
  }}
}}
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

    /// The agent's configuration. It keeps its keys, and so its own certificate, over a restart.
    pub(super) fn agent_conf(&self) -> String {
        let path = |name: &str| quoted(self.path(name).as_str());
        format!(
            r#"agent {{
  trust_domain = {trust_domain}
  server_address = {address}
  server_port = {port}
  socket_path = {socket}
  data_dir = {data}
  insecure_bootstrap = true
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
  KeyManager "disk" {{
    plugin_data {{
      directory = {data}
    }}
  }}
  NodeAttestor "x509pop" {{
    plugin_data {{
      certificate_path = {certificate}
      private_key_path = {key}
    }}
  }}
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
            certificate = path("node.pem"),
            key = path("node.key"),
        )
    }

    /// The registration entry: whoever runs as this user is this workload. SPIRE sees the tap, for all proxies.
    pub(super) fn entries(&self, uid: u32, workload: &str) -> Value {
        let trust_domain = self.trust_domain;
        json!({ "entries": [{
            "entry_id": ENTRY,
            "spiffe_id": workload,
            "parent_id": format!("spiffe://{trust_domain}/spire/agent{NODE}"),
            "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
            "x509_svid_ttl": self.ttl.as_secs(),
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

    fn layout(directory: &str) -> Layout {
        Layout {
            directory: directory.into(),
            trust_domain: "cluster.local",
            server: ([127, 0, 0, 1], 8081).into(),
            ttl: Span::seconds(30),
        }
    }

    #[test]
    fn server_and_agent_are_told_the_same_place() {
        let layout = layout("/scratch/spire");
        insta::assert_snapshot!(format!("{}\n{}", layout.server_conf(), layout.agent_conf()));
    }

    #[test]
    fn the_entry_is_for_whoever_runs_as_this_user() {
        let entries = layout("/scratch/spire").entries(1000, "spiffe://cluster.local/ns/demo/sa/proxies");
        insta::assert_json_snapshot!(entries);
    }

    #[test]
    fn a_path_can_break_out_of_nothing() {
        let conf = layout("/a \"b\"\n}").server_conf();
        assert!(conf.contains(r#"socket_path = "/a \"b\"\n}/server.sock""#), "{conf}");
    }
}
