//! The proxies in a scenario file.

use serde::{Deserialize, Serialize};

use super::StatsInclusion;

/// The proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FleetSpec {
    /// How they are run.
    #[serde(default)]
    pub kind: FleetKind,
    /// How many; they form a ring in which each calls the next.
    #[serde(default = "two")]
    pub proxies: u32,
    /// Further TLS contexts per proxy that hold its certificate, beside those of the sidecar itself.
    #[serde(default)]
    pub contexts: u32,
    /// One cluster of each proxy asks for its secrets by another ConfigSource than the rest: a second subscription.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate_subscription: bool,
    /// Each proxy has a further cluster that resumes TLS sessions, as Envoy's clients do by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumption: bool,
    /// Each proxy has a further inbound listener that must staple an OCSP response, and the provider staples one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub must_staple: bool,
    /// Each proxy has a further inbound listener with somebody else's certificate: from files, and never renewed, as a
    /// gateway's may be. It expires with the first generation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign_certificate: bool,
    /// The renewal after which a further inbound listener is added to each proxy, by LDS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_listener: Option<u32>,
    /// Each proxy sees the provider's socket through a bind mount of the socket file itself, not of its directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub socket_file_mounted: bool,
    /// Istio's agents start before the provider's socket is where they look: they serve the proxies themselves, with
    /// certificates of Istio's own CA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agents_first: bool,
    /// Istio's agents can't open their socket for certificates from files, which nobody needs here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_socket_blocked: bool,
    /// Which statistics each proxy keeps. Default: all.
    #[serde(default, skip_serializing_if = "StatsInclusion::is_all")]
    pub stats: StatsInclusion,
}

fn two() -> u32 {
    2
}

impl Default for FleetSpec {
    fn default() -> Self {
        Self {
            kind: FleetKind::Process,
            proxies: 2,
            contexts: 0,
            duplicate_subscription: false,
            resumption: false,
            must_staple: false,
            foreign_certificate: false,
            late_listener: None,
            socket_file_mounted: false,
            agents_first: false,
            files_socket_blocked: false,
            stats: StatsInclusion::All,
        }
    }
}

/// How proxies are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FleetKind {
    /// One Envoy process each.
    #[default]
    Process,
    /// An Envoy of an image each, in a container in this machine's network.
    Container,
    /// Istio's agent each, which starts its Envoy as in a pod, and a real istiod that configures them.
    Agent,
    /// Pods of a kind cluster, with the sidecars that Istio injects there. Which cluster, the command line says.
    Kind,
}

impl FleetKind {
    /// Whether Istio takes part.
    pub fn has_istio(self) -> bool {
        matches!(self, FleetKind::Agent | FleetKind::Kind)
    }

    /// Whether the proxies are in containers of this machine.
    pub fn is_container(self) -> bool {
        self == FleetKind::Container
    }

    /// Whether the proxies are in a cluster.
    pub fn is_cluster(self) -> bool {
        self == FleetKind::Kind
    }

    /// That of proxies with an Istio, or without.
    pub fn of_istio(has_istio: bool) -> Self {
        if has_istio { FleetKind::Agent } else { FleetKind::Process }
    }
}
