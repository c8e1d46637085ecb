//! How a SPIRE is brought to re-send what it has: an authorization policy of its server lets nothing be signed from some moment
//! on, and bundles of a trust domain that the workloads federate with change. The agent then pushes, under a new version, the
//! certificate that it could not renew. The cache is its own.

use std::net::SocketAddr;

use camino::Utf8Path;
use serde_json::Value;

use crate::pki::{Authority, Validity};
use crate::provider::ProviderError;
use crate::scenario::{ProviderAction, ProviderSpec};

const POLICY: &str = include_str!("gate.rego");
const POLICY_FILE: &str = "gate.rego";

/// The file with what the bundle of the other trust domain is, after so many changes. None comes again: an agent that could not
/// renew asks its server ever more seldom, and has to find another one than it knew.
pub(super) fn bundle(nth: usize) -> String {
    format!("others-{nth}.pem")
}

/// What a server is given besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// What stands in its configuration: in the block `experimental`, and beside its blocks.
    pub conf: [String; 2],
    /// What lies in the directory of its configuration: names and texts.
    pub files: Vec<(String, String)>,
}

impl Gate {
    /// What is needed for what will be done to it, if that is. Its configuration lies in `directory`; what it counts is to
    /// be asked for at `counts`, from the same host.
    pub fn of(
        spec: &ProviderSpec,
        directory: &Utf8Path,
        counts: SocketAddr,
        now: jiff::Timestamp,
    ) -> Result<Option<Self>, ProviderError> {
        let changes = spec.events.iter().filter(|event| event.action == ProviderAction::ResendCached).count();
        if changes == 0 {
            return Ok(None);
        }
        let mut files = vec![(POLICY_FILE.to_owned(), POLICY.replace("{counts}", &counts.to_string()))];
        for name in (0..=changes).map(bundle) {
            let authority = Authority::new(&name, Validity::starting(now, super::LIFETIME))?;
            files.push((name, authority.pem()));
        }
        let policy = Value::from(directory.join(POLICY_FILE).as_str());
        let (host, port) = (Value::from(counts.ip().to_string()), counts.port());
        let conf = [
            format!("auth_opa_policy_engine {{ local {{ rego_path = {policy} }} }}"),
            format!("telemetry {{\n  Prometheus {{\n    host = {host}\n    port = {port}\n  }}\n}}"),
        ];
        Ok(Some(Self { conf, files }))
    }
}
