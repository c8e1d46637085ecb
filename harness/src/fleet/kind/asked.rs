//! Whom the application's container of a proxy's pod asks for certificates, where the provider has to see from which pod it is
//! asked.

use std::time::Duration;

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use super::mesh::{Ground, OTHER_BOOTSTRAP};
use super::ways::{has_relay, is_gateway};
use crate::cluster::PodSeen;
use crate::fleet::agent::disclosure;
use crate::scenario::{ProviderSpec, Span};
use crate::timeline::Disclosure;

/// Where the application's container sees the directory of the provider's socket.
const AT: &str = "/run/rotacheck-provider";
/// The volume with it. Istio's injector gives each pod one for the socket that its agent serves.
const VOLUME: &str = "provider";
const OF_THE_AGENT: &str = "workload-socket";
/// What tbot serves there.
pub(super) const TBOT_SOCKET: &str = "tbot.sock";
/// How long it may take to join its cluster.
const TO_JOIN: Duration = Duration::from_secs(60);

/// Whom it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// SPIRE's agent on the pod's node, made for the cell.
    Spire,
    /// Istio's agent, in the sidecar beside it.
    Istio {
        /// Lifetime of the certificates that the agent is to ask istiod for.
        ttl: Span,
    },
    /// Teleport's tbot on the pod's node, put there for the cell.
    Tbot,
    /// Whoever serves this socket on the pod's node; the user's affair.
    OnNode {
        /// Its path there, which is absolute.
        socket: Utf8PathBuf,
    },
}

impl Asked {
    /// Who is to be asked for what this provider issues; nobody, where the harness itself does.
    pub fn of(provider: &ProviderSpec) -> Option<Self> {
        match provider.kind {
            kind if kind.has_spire() => Some(Self::Spire),
            kind if kind.has_tbot() => Some(Self::Tbot),
            kind if kind.is_of_istio() => Some(Self::Istio { ttl: provider.ttl() }),
            _ => provider.socket.clone().map(|socket| Self::OnNode { socket }),
        }
    }

    /// Its socket, as the application's container sees it.
    pub(super) fn socket(&self) -> Utf8PathBuf {
        let name = match self {
            Self::Spire => "agent.sock",
            Self::Istio { .. } => "socket",
            Self::Tbot => TBOT_SOCKET,
            Self::OnNode { socket } => socket.file_name().unwrap_or_default(),
        };
        Utf8PathBuf::from(AT).join(name)
    }

    /// How the application's container mounts the directory.
    pub(super) fn mount(&self) -> Value {
        let name = match self {
            Self::Istio { .. } => OF_THE_AGENT,
            Self::Spire | Self::Tbot | Self::OnNode { .. } => VOLUME,
        };
        json!({ "name": name, "mountPath": AT, "readOnly": true })
    }

    /// Its directory on the pod's node, if that is where it is.
    fn directory(&self, ground: &Ground) -> Option<Utf8PathBuf> {
        match self {
            Self::Istio { .. } => None,
            Self::Spire => Some(ground.spire_sockets().into()),
            Self::Tbot => Some(ground.tbot_sockets().into()),
            Self::OnNode { socket } => socket.parent().map(Utf8PathBuf::from),
        }
    }

    /// Its socket there, for words.
    pub(super) fn on_node(&self, ground: &Ground) -> Utf8PathBuf {
        self.directory(ground).unwrap_or_default().join(self.socket().file_name().unwrap_or_default())
    }

    /// The volume, where Istio's injector does not give it.
    pub(super) fn volume(&self, ground: &Ground) -> Option<Value> {
        let path = self.directory(ground)?;
        Some(json!({ "name": VOLUME, "hostPath": { "path": path, "type": "Directory" } }))
    }

    /// Whether its lifetimes or identities are known only once somebody has asked it; and how long it may take until it serves.
    pub fn is_to_be_met(&self) -> Option<Duration> {
        match self {
            Self::Spire | Self::Istio { .. } => None,
            Self::Tbot => Some(TO_JOIN),
            Self::OnNode { .. } => Some(Duration::ZERO),
        }
    }

    /// Why it is not asked from this pod, which was not there at the beginning; that it is, is nothing.
    pub(super) fn not_from(&self, pod: &PodSeen) -> Option<&'static str> {
        match self {
            _ if !has_relay(pod) => Some("who issues is asked, for it, from another pod, for it runs no relay"),
            // What it mounts would lead back to the tap.
            Self::Istio { .. } if is_gateway(pod) || !pod.annotations.contains_key(OTHER_BOOTSTRAP) => {
                Some("its agent is not led to the tap: its Envoy asks the agent of another pod")
            }
            _ => None,
        }
    }

    /// How the subject differs from a pod of others.
    pub(super) fn disclosures(&self) -> Vec<Disclosure> {
        let whom = match self {
            Self::Spire => "SPIRE's agent is asked, for the sidecar,",
            Self::Istio { .. } => "Istio's agent is asked, for its own Envoy,",
            Self::Tbot => "tbot is asked, for the sidecar,",
            Self::OnNode { .. } => "the provider is asked, for the sidecar,",
        };
        let text = format!(
            "{whom} from the application's container of the same pod, which is started without waiting for the sidecar: \
             that has no startup probe"
        );
        let mut all = vec![disclosure("asked-by-application", text)];
        if matches!(self, Self::Istio { .. }) {
            let text = "in Istio's bootstrap template, the workload's socket is the tap's";
            all.push(disclosure("template-changed", text.to_owned()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::mesh::{KEYS, TEMPLATES};
    use super::*;

    #[test]
    fn what_would_lead_back_to_the_tap_is_not_asked() {
        let pod = |secrets: &[&str], annotations: &[(&str, &str)]| PodSeen {
            secrets: secrets.iter().map(|&name| name.to_owned()).collect(),
            annotations: annotations.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect(),
            ..PodSeen::default()
        };
        let (copy, gateway) = ((OTHER_BOOTSTRAP, "b"), (TEMPLATES, "gateway,rotacheck-gateway"));
        let istio = Asked::Istio { ttl: Span::seconds(20) };
        for (asked, annotations, led) in [
            (&Asked::Spire, &[][..], true),
            (&Asked::Spire, &[gateway], true),
            (&istio, &[copy], true),
            (&istio, &[], false),
            (&istio, &[copy, gateway], false),
        ] {
            assert_eq!(asked.not_from(&pod(&[KEYS], annotations)).is_none(), led, "{asked:?} {annotations:?}");
            assert!(asked.not_from(&pod(&["other-keys"], annotations)).is_some_and(|why| why.contains("no relay")));
        }
    }
}
