//! The part of a command line that says in which kind clusters proxies are to be.

use camino::Utf8PathBuf;

use super::{CliError, Exit};
use crate::fleet::{Issuers, KindConfig, SpireImages};
use crate::plan::InCluster;
use crate::scenario::TRUST_DOMAIN;
use crate::timeline::{EnvoyRequest, ImageReference, IstioRequest, ProgramRequest};

const HEADING: &str = "With --topology kind";
const TBOT_IMAGE: &str = "public.ecr.aws/gravitational/tbot-distroless:18.6.4";

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
    /// The image of tbot, where it issues; what it runs by itself is tbot.
    #[arg(long, value_name = "IMAGE", env = "ROTACHECK_TBOT_IMAGE", hide_env_values = true, default_value = TBOT_IMAGE, help_heading = HEADING)]
    tbot_image: ImageReference,
    /// The trust domain of the mesh, where the provider, an external one or tbot, has another: peers are accepted from there.
    #[arg(long, value_name = "DOMAIN", default_value = TRUST_DOMAIN, value_parser = trust_domain, help_heading = HEADING)]
    trust_domain: String,
}

/// As the SPIFFE ID specification has it (2.1).
fn trust_domain(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    let is_one = !text.is_empty() && text.len() <= 255 && text.chars().all(fits);
    is_one.then(|| text.to_owned()).ok_or_else(|| "a trust domain is of a-z, 0-9, '-', '.' and '_'".to_owned())
}

/// One of the clusters that are wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    istio_tag: String,
    /// The image of the proxies, where it is not Istio's own; which it is of those that are named.
    proxy: Option<(ImageReference, usize)>,
    node_image: Option<String>,
    nodes: u32,
}

impl KindArgs {
    /// Every combination of what is named, each once. Istios are named by a tag; Envoys by an image that has Istio's agent too.
    pub(super) fn wanted(&self, envoys: &[EnvoyRequest], istios: &[IstioRequest]) -> Result<Vec<Wanted>, CliError> {
        let tags: Vec<String> = match istios {
            [] => self.istio_tags.clone(),
            named => named.iter().map(tag).collect::<Result<_, _>>()?,
        };
        let proxies: Vec<Option<(ImageReference, usize)>> = match envoys {
            [] => vec![None],
            named => (1..)
                .zip(unique(named))
                .map(|(nth, envoy)| Ok::<_, CliError>(Some((image(envoy)?, nth))))
                .collect::<Result<_, _>>()?,
        };
        if tags.is_empty() {
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
        for proxy in &proxies {
            for istio_tag in unique(&tags) {
                for node_image in &node_images {
                    all.extend(unique(&self.nodes).into_iter().map(|nodes| Wanted {
                        istio_tag: istio_tag.clone(),
                        proxy: proxy.clone(),
                        node_image: node_image.cloned(),
                        nodes: *nodes,
                    }));
                }
            }
        }
        if let Some(name) = self.cluster.as_ref().filter(|_| all.len() > 1) {
            let hint = "run them one after the other, or leave out --cluster: a cluster is then made for each";
            let what =
                format!("the cluster {name} can't be {} combinations of Envoy, Istio, Kubernetes and nodes", all.len());
            return Err(CliError::with_hint(Exit::Usage, what, hint));
        }
        Ok(all)
    }

    /// What is tested in such a cluster, and how a cell says that it is there.
    pub(super) fn place(&self, wanted: &Wanted) -> Result<InCluster, CliError> {
        let name = format!("{}/proxyv2:{}", self.istio_hub, wanted.istio_tag);
        let istio: ImageReference =
            name.parse().map_err(|e| CliError::new(Exit::Usage, format!("{name} names no image: {e}")))?;
        let (envoy, nth_envoy) = wanted.proxy.clone().unwrap_or_else(|| (istio.clone(), 1));
        let several = |named: usize| named > 1;
        let kubernetes = wanted.node_image.as_ref().filter(|_| several(unique(&self.node_images).len()));
        let kubernetes = kubernetes.map(|image| format!("k8s-{}", version_of(image)));
        let nodes = several(unique(&self.nodes).len()).then(|| format!("nodes-{}", wanted.nodes));
        let name: Vec<String> = kubernetes.into_iter().chain(nodes).collect();
        Ok(InCluster { options: self.options(wanted), name: name.join("+"), envoy, nth_envoy, istio })
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
            proxy_image: wanted.proxy.as_ref().map(|(image, _)| image.to_string()),
            istio_manifests: self.istio_manifests.clone(),
            relay_image: self.relay_image.clone(),
            spire: SpireImages::of(&self.spire_image),
            tbot: self.tbot_image.clone(),
            issuers: Issuers::default(),
            trust_domain: self.trust_domain.clone(),
            keep,
        }
    }

    /// The trust domain, where it is another than that of everybody else here.
    pub(super) fn own_trust_domain(&self) -> Option<&str> {
        (self.trust_domain != TRUST_DOMAIN).then_some(&*self.trust_domain)
    }

    /// What a command that repeats a cell has to say of it.
    fn options(&self, wanted: &Wanted) -> Vec<(&'static str, String)> {
        let nodes = (wanted.nodes > 1).then(|| wanted.nodes.to_string());
        let tbot = self.tbot_image.to_string();
        let given = [
            ("--cluster", self.cluster.clone()),
            ("--node-image", wanted.node_image.clone()),
            ("--nodes", nodes),
            ("--envoy", wanted.proxy.as_ref().map(|(image, _)| format!("image={image}"))),
            ("--istio-hub", Some(self.istio_hub.clone())),
            ("--istio-tag", Some(wanted.istio_tag.clone())),
            ("--trust-domain", self.own_trust_domain().map(str::to_owned)),
            ("--tbot-image", (tbot != TBOT_IMAGE).then_some(tbot)),
            ("--istio-manifests", self.istio_manifests.as_ref().map(ToString::to_string)),
        ];
        given.into_iter().filter_map(|(option, value)| Some((option, value?))).collect()
    }
}

/// The tag of Istio's images that a version is.
fn tag(istio: &IstioRequest) -> Result<String, CliError> {
    match istio {
        IstioRequest::Of(ProgramRequest::Version(version)) => Ok(version.to_string()),
        other => {
            let hint = "--istio VERSION names a tag there, as --istio-tag does; --istio-hub says whose images";
            let what = format!("in a cluster, Istio is that of images, which {other} does not name");
            Err(CliError::with_hint(Exit::Usage, what, hint))
        }
    }
}

/// The image that has an Envoy.
fn image(envoy: &EnvoyRequest) -> Result<ImageReference, CliError> {
    match envoy {
        EnvoyRequest::Image(image) => Ok(image.clone()),
        other => {
            let hint = "--envoy image=NAME:TAG names an image with Istio's agent and that Envoy; without it, it is Istio's own";
            let what = format!("in a cluster, Envoy is that of an image, which {other} does not name");
            Err(CliError::with_hint(Exit::Usage, what, hint))
        }
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
        wanted_of(words, &[], &[])
    }

    fn wanted_of(words: &[&str], envoys: &[&str], istios: &[&str]) -> Result<Vec<String>, CliError> {
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
            let InCluster { options, name, envoy, nth_envoy, istio } = kind.place(wanted)?;
            let options: Vec<String> = options.iter().map(|(option, value)| format!("{option} {value}")).collect();
            let own = if envoy == istio { String::new() } else { format!("{nth_envoy}: {envoy}, ") };
            Ok(format!("{own}{istio} [{name}] {}", options.join(" ")))
        };
        let envoys: Vec<_> = envoys.iter().map(|envoy| envoy.parse().unwrap()).collect();
        let istios: Vec<_> = istios.iter().map(|istio| istio.parse().unwrap()).collect();
        kind.wanted(&envoys, &istios)?.iter().map(place).collect()
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
    fn envoys_are_images_and_istios_are_tags() {
        let all = wanted_of(&[], &["image=me/proxyv2:a", "image=me/proxyv2:b"], &["1.29.0"]).unwrap();
        assert_eq!(
            all,
            [
                "1: docker.io/me/proxyv2:a, docker.io/istio/proxyv2:1.29.0 [] --envoy image=docker.io/me/proxyv2:a \
                 --istio-hub docker.io/istio --istio-tag 1.29.0",
                "2: docker.io/me/proxyv2:b, docker.io/istio/proxyv2:1.29.0 [] --envoy image=docker.io/me/proxyv2:b \
                 --istio-hub docker.io/istio --istio-tag 1.29.0",
            ]
        );
        assert!(wanted_of(&["--istio-tag", "1.29.0"], &["1.38.3"], &[]).is_err());
        assert!(wanted_of(&[], &[], &["none"]).is_err());
    }

    #[test]
    fn no_istio_and_one_cluster_for_several_are_refused() {
        assert!(wanted(&[]).is_err());
        assert!(wanted(&["--istio-tag", "1.29.0", "--cluster", "mine"]).is_ok());
        assert!(wanted(&["--istio-tag", "1.29.0,1.28.3", "--cluster", "mine"]).is_err());
    }

    #[test]
    fn a_trust_domain_is_nothing_that_istioctl_could_take_for_more() {
        assert_eq!(trust_domain("teleport.example.com").as_deref(), Ok("teleport.example.com"));
        for other in ["", "Example.com", "a,b=c", "a/b", "a b", &"x".repeat(256)] {
            assert!(trust_domain(other).is_err(), "{other:?}");
        }
    }
}
