//! The part of a command line that says in which kind clusters proxies are to be.

use camino::Utf8PathBuf;

use super::{CliError, Exit};
use crate::fleet::{KindConfig, SpireImages};
use crate::plan::InCluster;
use crate::timeline::{ImageReference, ProgramRequest};

const HEADING: &str = "With --topology kind";

/// In which kind clusters proxies are to be.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KindArgs {
    /// An existing kind cluster, into which Istio is installed [default: one is made for the run, and deleted].
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    cluster: Option<String>,
    /// Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones: a cluster
    /// is made for each combination, and every scenario meets each [default: kind's own].
    #[arg(long = "node-image", visible_alias = "k8s", value_name = "IMAGE", env = "ROTACHECK_NODE_IMAGE", hide_env_values = true, value_delimiter = ',', help_heading = HEADING)]
    node_images: Vec<String>,
    /// Nodes of a cluster that is made.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=32), value_delimiter = ',', help_heading = HEADING)]
    nodes: Vec<u32>,
    /// Where Istio's images proxyv2 and pilot are.
    #[arg(long, value_name = "HUB", env = "ROTACHECK_ISTIO_HUB", hide_env_values = true, default_value = "docker.io/istio", help_heading = HEADING)]
    istio_hub: String,
    /// Their tag, such as 1.29.0: the Istio that is tested, with the Envoy that it ships.
    #[arg(long = "istio-tag", value_name = "TAG", env = "ROTACHECK_ISTIO_TAG", hide_env_values = true, value_delimiter = ',', help_heading = HEADING)]
    istio_tags: Vec<String>,
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

/// One of the clusters that are wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    istio_tag: String,
    node_image: Option<String>,
    nodes: u32,
}

impl KindArgs {
    /// Every combination of what is named, each once.
    pub(super) fn wanted(&self) -> Result<Vec<Wanted>, CliError> {
        if self.istio_tags.is_empty() {
            let hint =
                "name the tag of Istio's images; `istioctl version --remote=false` says which one it would install";
            return Err(CliError::with_hint(
                Exit::Usage,
                "with --topology kind, --istio-tag says which Istio is tested",
                hint,
            ));
        }
        let node_images: Vec<Option<&String>> = match self.node_images.as_slice() {
            [] => vec![None],
            named => unique(named).into_iter().map(Some).collect(),
        };
        let mut all = Vec::new();
        for istio_tag in unique(&self.istio_tags) {
            for node_image in &node_images {
                all.extend(unique(&self.nodes).into_iter().map(|nodes| Wanted {
                    istio_tag: istio_tag.clone(),
                    node_image: node_image.cloned(),
                    nodes: *nodes,
                }));
            }
        }
        if let Some(name) = self.cluster.as_ref().filter(|_| all.len() > 1) {
            let hint = "run them one after the other, or leave out --cluster: a cluster is then made for each";
            let what = format!("the cluster {name} can't be {} combinations of Istio, Kubernetes and nodes", all.len());
            return Err(CliError::with_hint(Exit::Usage, what, hint));
        }
        Ok(all)
    }

    /// What is tested in such a cluster, and how a cell says that it is there.
    pub(super) fn place(&self, wanted: &Wanted) -> Result<InCluster, CliError> {
        let name = format!("{}/proxyv2:{}", self.istio_hub, wanted.istio_tag);
        let image: ImageReference =
            name.parse().map_err(|e| CliError::new(Exit::Usage, format!("{name} names no image: {e}")))?;
        let several = |named: usize| named > 1;
        let kubernetes = wanted.node_image.as_ref().filter(|_| several(unique(&self.node_images).len()));
        let kubernetes = kubernetes.map(|image| format!("k8s-{}", version_of(image)));
        let nodes = several(unique(&self.nodes).len()).then(|| format!("nodes-{}", wanted.nodes));
        let name: Vec<String> = kubernetes.into_iter().chain(nodes).collect();
        Ok(InCluster { options: self.options(wanted), name: name.join("+"), image })
    }

    /// The SPIRE that issues there, where one does.
    pub(super) fn spire(&self) -> ProgramRequest {
        ProgramRequest::Image(self.spire_image.clone())
    }

    /// How it is made; `keep`: it stays when the run is over.
    pub(super) fn config(&self, wanted: &Wanted, keep: bool) -> KindConfig {
        KindConfig {
            cluster: self.cluster.clone(),
            node_image: wanted.node_image.clone(),
            nodes: wanted.nodes,
            istio_hub: self.istio_hub.clone(),
            istio_tag: wanted.istio_tag.clone(),
            istio_manifests: self.istio_manifests.clone(),
            relay_image: self.relay_image.clone(),
            spire: SpireImages::of(&self.spire_image),
            keep,
        }
    }

    /// What a command that repeats a cell has to say of it.
    fn options(&self, wanted: &Wanted) -> Vec<(&'static str, String)> {
        let nodes = (wanted.nodes > 1).then(|| wanted.nodes.to_string());
        let given = [
            ("--cluster", self.cluster.clone()),
            ("--node-image", wanted.node_image.clone()),
            ("--nodes", nodes),
            ("--istio-hub", Some(self.istio_hub.clone())),
            ("--istio-tag", Some(wanted.istio_tag.clone())),
            ("--istio-manifests", self.istio_manifests.as_ref().map(ToString::to_string)),
        ];
        given.into_iter().filter_map(|(option, value)| Some((option, value?))).collect()
    }
}

fn unique<T: PartialEq>(named: &[T]) -> Vec<&T> {
    let mut all: Vec<&T> = Vec::new();
    for one in named {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// What a node image's name says of its version, of the signs that a cell's name may have.
fn version_of(image: &str) -> String {
    let version = image.parse::<ImageReference>().map(|image| image.short_version().to_owned());
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    version.unwrap_or_else(|_| image.to_owned()).chars().map(plain).take(20).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        kind: KindArgs,
    }

    fn wanted(words: &[&str]) -> Result<Vec<String>, CliError> {
        let line = ["x", "--istio-hub", "docker.io/istio"].iter().chain(words);
        let mut kind = Line::try_parse_from(line).unwrap().kind;
        // What is not said here may be said by whoever runs the tests, in the environment.
        if !words.contains(&"--istio-tag") {
            kind.istio_tags.clear();
        }
        if !words.contains(&"--k8s") {
            kind.node_images.clear();
        }
        let place = |wanted: &Wanted| {
            let InCluster { options, name, image } = kind.place(wanted)?;
            let options: Vec<String> = options.iter().map(|(option, value)| format!("{option} {value}")).collect();
            Ok(format!("{image} [{name}] {}", options.join(" ")))
        };
        kind.wanted()?.iter().map(place).collect()
    }

    #[test]
    fn each_combination_is_a_cluster_and_is_called_by_what_tells_it_apart() {
        let one = wanted(&["--istio-tag", "1.29.0", "--nodes", "2"]).unwrap();
        assert_eq!(one, ["docker.io/istio/proxyv2:1.29.0 [] --nodes 2 --istio-hub docker.io/istio --istio-tag 1.29.0"]);
        let k8s = ["--k8s", "kindest/node:v1.33.1", "--node-image", "kindest/node:v1.34.0"];
        let all = wanted(&[&["--istio-tag", "1.28.3,1.29.0,1.28.3", "--nodes", "1,2"], &k8s[..]].concat()).unwrap();
        assert_eq!(all.len(), 8, "{all:#?}");
        assert!(all[0].starts_with("docker.io/istio/proxyv2:1.28.3 [k8s-v1.33.1+nodes-1] --node-image"), "{all:#?}");
        assert!(all[7].starts_with("docker.io/istio/proxyv2:1.29.0 [k8s-v1.34.0+nodes-2] --node-image"), "{all:#?}");
    }

    #[test]
    fn no_istio_and_one_cluster_for_several_are_refused() {
        assert!(wanted(&[]).is_err());
        assert!(wanted(&["--istio-tag", "1.29.0", "--cluster", "mine"]).is_ok());
        assert!(wanted(&["--istio-tag", "1.29.0,1.28.3", "--cluster", "mine"]).is_err());
    }
}
