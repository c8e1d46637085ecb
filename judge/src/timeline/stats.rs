//! Which statistics the proxies keep.

use serde::{Deserialize, Serialize};

/// Which statistics the proxies keep. What they leave out is absent, which is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StatsInclusion {
    /// All, as Envoy does by itself.
    #[default]
    All,
    /// Those that Istio's sidecars keep unless `proxyStatsMatcher` adds others: neither `sds.*`, nor any about TLS, nor
    /// those of the provider's cluster.
    IstioDefault,
}

impl StatsInclusion {
    /// Beginnings of the names that Istio's sidecars keep (`pkg/bootstrap/config.go` and the template, 1.26 to 1.31).
    pub const ISTIO_PREFIXES: &[&str] =
        &["reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"];
    /// Ends of the names that they keep.
    pub const ISTIO_SUFFIXES: &[&str] =
        &["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "component", "istio"];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StatsInclusion::All => "all",
            StatsInclusion::IstioDefault => "istio-default",
        }
    }

    /// Whether a statistic of this name is kept.
    pub fn keeps(self, name: &str) -> bool {
        match self {
            StatsInclusion::All => true,
            StatsInclusion::IstioDefault => {
                Self::ISTIO_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                    || Self::ISTIO_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            }
        }
    }

    /// Whether it is left unsaid in a file.
    pub fn is_all(&self) -> bool {
        *self == StatsInclusion::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_hides_what_would_tell_about_certificates() {
        let hidden = [
            "sds.default.update_success",
            "listener.0.0.0.0_15006.server_ssl_socket_factory.ssl_context_update_by_sds",
            "cluster.outbound.ssl.session_reused",
            "cluster.sds-grpc.upstream_cx_connect_fail",
        ];
        for name in hidden {
            assert!(StatsInclusion::All.keeps(name) && !StatsInclusion::IstioDefault.keeps(name), "{name}");
        }
        assert!(StatsInclusion::IstioDefault.keeps("listener_manager.lds.update_rejected"));
    }
}
