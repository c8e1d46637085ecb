//! What tbot is told, in the form of its configuration file (version 2; Teleport's Machine & Workload Identity
//! configuration reference). JSON is YAML.

use camino::Utf8Path;
use serde_json::{Value, json};

use crate::scenario::{Span, TbotSpec};

/// Where one cell's tbot reads its token, and serves; and how long its certificates live.
pub(super) struct Layout<'a> {
    pub(super) token: &'a Utf8Path,
    pub(super) socket: &'a Utf8Path,
    pub(super) ttl: Span,
    pub(super) interval: Span,
    /// It is to ask the node's kubelet which pod asks it.
    pub(super) in_pods: bool,
}

impl Layout<'_> {
    /// Its own identity stays in memory: it joins once, for as long as the cell lives.
    pub(super) fn configuration(&self, spec: &TbotSpec) -> Value {
        let (ttl, interval) = (go_duration(self.ttl), go_duration(self.interval));
        let mut service = json!({ "listen": format!("unix://{}", self.socket) });
        match (&spec.workload_identity, &spec.svid_path) {
            (None, Some(path)) => {
                service["type"] = "spiffe-workload-api".into();
                service["svids"] = json!([{ "path": path }]);
            }
            (name, _) => {
                service["type"] = "workload-identity-api".into();
                service["selector"] = json!({ "name": name });
            }
        }
        service["credential_ttl"] = ttl.into();
        service["renewal_interval"] = interval.into();
        if self.in_pods {
            service["attestors"] = json!({ "kubernetes": { "enabled": true, "kubelet": { "skip_verify": true } } });
        }
        json!({
            "version": "v2",
            "proxy_server": spec.proxy,
            "onboarding": { "join_method": "token", "token": self.token },
            "storage": { "type": "memory" },
            "services": [service],
        })
    }
}

/// As Go's `time.ParseDuration` takes it.
fn go_duration(span: Span) -> String {
    format!("{}s", span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(spec: &TbotSpec, in_pods: bool) -> Value {
        let layout = Layout {
            token: "/scratch/tbot/token".into(),
            socket: "/scratch/tbot/tbot.sock".into(),
            ttl: Span::seconds(60),
            interval: Span::seconds(20),
            in_pods,
        };
        layout.configuration(spec)
    }

    #[test]
    fn tbot_is_told_where_to_serve_and_where_its_token_is() {
        let proxy = Some("teleport.example.com:443".to_owned());
        let newer = TbotSpec { proxy: proxy.clone(), workload_identity: Some("proxies".into()), ..TbotSpec::default() };
        let older = TbotSpec { proxy, svid_path: Some("/svc/proxies".into()), ..TbotSpec::default() };
        insta::assert_json_snapshot!([configuration(&newer, false), configuration(&older, true)]);
    }
}
