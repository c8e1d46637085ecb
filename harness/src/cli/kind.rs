//! The part of a command line that says in which kind cluster proxies are to be.

use camino::Utf8PathBuf;

use super::{CliError, Exit};
use crate::fleet::{KindConfig, SpireImages};
use crate::timeline::{EnvoyRequest, ImageReference, IstioRequest, ProgramRequest};

const HEADING: &str = "With --topology kind";

/// In which kind cluster proxies are to be.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KindArgs {
    /// An existing kind cluster, into which Istio is installed [default: one is made for the run, and deleted].
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    cluster: Option<String>,
    /// Image of the nodes of a cluster that is made [default: kind's own].
    #[arg(long, value_name = "IMAGE", env = "ROTACHECK_NODE_IMAGE", hide_env_values = true, help_heading = HEADING)]
    node_image: Option<String>,
    /// Nodes of a cluster that is made.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32), help_heading = HEADING)]
    nodes: u32,
    /// Where Istio's images proxyv2 and pilot are.
    #[arg(long, value_name = "HUB", env = "ROTACHECK_ISTIO_HUB", hide_env_values = true, default_value = "docker.io/istio", help_heading = HEADING)]
    istio_hub: String,
    /// Their tag, such as 1.29.0: the Istio that is tested, with the Envoy that it ships.
    #[arg(long, value_name = "TAG", env = "ROTACHECK_ISTIO_TAG", hide_env_values = true, help_heading = HEADING)]
    istio_tag: Option<String>,
    /// A directory with Istio's charts [default: those in istioctl].
    #[arg(long, value_name = "DIR", env = "ROTACHECK_ISTIO_MANIFESTS", hide_env_values = true, help_heading = HEADING)]
    istio_manifests: Option<Utf8PathBuf>,
    /// The image of rotacheck itself, which carries bytes between the harness and the pods; it is loaded into the cluster.
    #[arg(long, value_name = "IMAGE", env = "ROTACHECK_RELAY_IMAGE", hide_env_values = true, default_value = concat!("rotacheck:", env!("CARGO_PKG_VERSION")), help_heading = HEADING)]
    relay_image: String,
    /// The image of SPIRE's server, where SPIRE issues; the agent's is the one beside it, named spire-agent, unless this one
    /// is named otherwise and has both.
    #[arg(long, value_name = "IMAGE", env = "ROTACHECK_SPIRE_IMAGE", hide_env_values = true, default_value = "ghcr.io/spiffe/spire-server:1.13.3", help_heading = HEADING)]
    spire_image: ImageReference,
}

impl KindArgs {
    fn tag(&self) -> Result<&str, CliError> {
        self.istio_tag.as_deref().ok_or_else(|| {
            let hint =
                "name the tag of Istio's images; `istioctl version --remote=false` says which one it would install";
            CliError::with_hint(Exit::Usage, "with --topology kind, --istio-tag says which Istio is tested", hint)
        })
    }

    /// What is tested there: Envoy and Istio out of one image.
    pub(super) fn subject(&self) -> Result<(EnvoyRequest, IstioRequest), CliError> {
        let name = format!("{}/proxyv2:{}", self.istio_hub, self.tag()?);
        let image: ImageReference =
            name.parse().map_err(|e| CliError::new(Exit::Usage, format!("{name} names no image: {e}")))?;
        Ok((EnvoyRequest::Image(image.clone()), IstioRequest::Of(ProgramRequest::Image(image))))
    }

    /// The SPIRE that issues there, where one does.
    pub(super) fn spire(&self) -> ProgramRequest {
        ProgramRequest::Image(self.spire_image.clone())
    }

    /// The cluster that is wanted; `keep`: it stays when the run is over.
    pub(super) fn config(&self, keep: bool) -> Result<KindConfig, CliError> {
        Ok(KindConfig {
            cluster: self.cluster.clone(),
            node_image: self.node_image.clone(),
            nodes: self.nodes,
            istio_hub: self.istio_hub.clone(),
            istio_tag: self.tag()?.to_owned(),
            istio_manifests: self.istio_manifests.clone(),
            relay_image: self.relay_image.clone(),
            spire: SpireImages::of(&self.spire_image),
            keep,
        })
    }

    /// What a command that repeats a cell has to say of it.
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let nodes = (self.nodes > 1).then(|| self.nodes.to_string());
        let given = [
            ("--cluster", self.cluster.clone()),
            ("--node-image", self.node_image.clone()),
            ("--nodes", nodes),
            ("--istio-hub", Some(self.istio_hub.clone())),
            ("--istio-tag", self.istio_tag.clone()),
            ("--istio-manifests", self.istio_manifests.as_ref().map(ToString::to_string)),
        ];
        given.into_iter().filter_map(|(option, value)| Some((option, value?))).collect()
    }
}
