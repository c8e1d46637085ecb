//! A kind cluster from its making to its end: the nodes, the images, Istio, and what is measured of them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::{Asked, KindError, Place, SpireImages, measure};
use crate::cluster::Cluster;
use crate::fleet::agent::{disclosure, in_pods};
use crate::fleet::call::{Call, CallError};
use crate::fleet::owner;
use crate::timeline::{ClusterSubject, Disclosure, EnvoyVersion, ImageReference};

/// What is installed of Istio, and what is laid over it for an Envoy without Istio's own filters.
const ISTIO: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/istio.yaml"));
const FILTERS_OFF: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/istio-filters-off.yaml"));

/// How long the programs may take: images are pulled meanwhile.
const TO_CREATE: Duration = Duration::from_secs(420);
const TO_INSTALL: Duration = Duration::from_secs(300);
const TO_ANSWER: Duration = Duration::from_secs(60);

/// A cluster that is wanted.
#[derive(Debug, Clone)]
pub struct KindConfig {
    /// An existing kind cluster; else one is made, and deleted at the end.
    pub cluster: Option<String>,
    /// The image of the nodes; by default kind's own.
    pub node_image: Option<String>,
    /// Nodes of a cluster that is made.
    pub nodes: u32,
    /// Where Istio's images are: `docker.io/istio`.
    pub istio_hub: String,
    /// Their tag: `1.29.0`.
    pub istio_tag: String,
    /// The image of the proxies, with Istio's agent, where it is not Istio's own.
    pub proxy_image: Option<String>,
    /// A directory with Istio's charts, for an istioctl that has none in it.
    pub istio_manifests: Option<Utf8PathBuf>,
    /// The image of rotacheck itself.
    pub relay_image: String,
    /// SPIRE's images, for cells in which it issues.
    pub spire: SpireImages,
    /// tbot's image, likewise.
    pub tbot: ImageReference,
    /// Which of these are needed: what Docker has here of them is loaded.
    pub issuers: Issuers,
    /// The trust domain of the mesh.
    pub trust_domain: String,
    /// Leave a cluster that was made.
    pub keep: bool,
}

/// Which images issue in some cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Issuers {
    /// SPIRE's.
    pub spire: bool,
    /// tbot's.
    pub tbot: bool,
}

impl KindConfig {
    /// What issues there.
    fn issuing(&self) -> BTreeSet<String> {
        let spire = self.spire.all().into_iter().filter(|_| self.issuers.spire);
        spire.chain(self.issuers.tbot.then_some(&self.tbot)).map(ToString::to_string).collect()
    }

    /// Istio's own image of a proxy.
    fn istios_own(&self) -> String {
        format!("{}/proxyv2:{}", self.istio_hub, self.istio_tag)
    }
}

/// A cluster with Istio. What was made ends when this is dropped.
pub struct Kind {
    config: KindConfig,
    nodes: Nodes,
    cluster: Cluster,
    /// The Envoy in Istio's image, as it says itself.
    pub envoy: EnvoyVersion,
    /// Istio's version, where its agent tells one; else the image's tag.
    pub istio: String,
    /// Whether that Envoy has the filters of Istio's own build.
    pub own_envoy: bool,
    /// Istio's bootstrap template, if its image told it.
    bootstrap: Option<Arc<str>>,
    /// Its Kubernetes, and its nodes.
    pub subject: ClusterSubject,
    /// The images that were run, with their digests.
    pub digests: BTreeMap<String, String>,
}

impl Kind {
    /// Makes the cluster, or finds it, and installs Istio in it. `talk` hears what is done.
    pub async fn up(config: KindConfig, talk: &dyn Fn(&str)) -> Result<Self, KindError> {
        relay_is_there(&config.relay_image).await?;
        let nodes = match config.cluster.clone() {
            Some(name) => Nodes::find(name).await?,
            None => {
                talk("making a kind cluster");
                Nodes::make(&config).await?
            }
        };
        load(&nodes, "the relay's image", &config.relay_image, talk).await?;
        let cluster = Cluster::of_file(&nodes.kubeconfig()).await?;
        let there = u32::try_from(cluster.nodes().await?.len()).unwrap_or(u32::MAX);
        let subject = ClusterSubject { kubernetes: cluster.version().await?, nodes: there };
        talk("looking which Envoy the image has");
        let image = config.proxy_image.clone().unwrap_or_else(|| config.istios_own());
        if config.proxy_image.is_some() && is_there(&image).await? {
            load(&nodes, "the proxies' image", &image, talk).await?;
        }
        for issuer in config.issuing() {
            if is_there(&issuer).await? {
                load(&nodes, "the provider's image", &issuer, talk).await?;
            }
        }
        let measured = measure::measure(&cluster, &image, &nodes.token).await?;
        talk("installing Istio");
        install(&config, &nodes, measured.own_envoy).await?;
        Ok(Self {
            envoy: measured.envoy,
            istio: measured.istio.unwrap_or_else(|| config.istio_tag.clone()),
            own_envoy: measured.own_envoy,
            bootstrap: measured.bootstrap.map(Arc::from),
            digests: measured.digests,
            subject,
            config,
            nodes,
            cluster,
        })
    }

    /// What a cell needs of it.
    pub fn place(&self) -> Place {
        Place {
            cluster: self.cluster.clone(),
            relay_image: self.config.relay_image.clone(),
            spire: self.config.spire.clone(),
            tbot: self.config.tbot.clone(),
            bootstrap: self.bootstrap.clone(),
            run: self.nodes.token.clone(),
        }
    }

    /// Its name in kind.
    pub fn name(&self) -> &str {
        &self.nodes.name
    }

    /// Whether it was made for the run, and is not deleted with this.
    pub fn is_left(&self) -> bool {
        self.nodes.made && self.config.keep
    }

    /// Where what is tested is not as its makers ship it, in cells in which these are asked for certificates.
    pub fn disclosures(&self, asked: Option<&Asked>) -> Vec<Disclosure> {
        let other = self.config.proxy_image.as_ref().map(|image| {
            let own = self.config.istios_own();
            disclosure("proxy-image", format!("proxies are of the image {image}, in place of {own}"))
        });
        in_pods(self.own_envoy).into_iter().chain(other).chain(asked.into_iter().flat_map(Asked::disclosures)).collect()
    }
}

/// The containers that are the cluster.
struct Nodes {
    name: String,
    /// What is made in the cluster is labelled with this.
    token: String,
    /// Made by us, and to be deleted by us.
    made: bool,
    keep: bool,
    directory: tempfile::TempDir,
}

impl Nodes {
    fn new(name: impl FnOnce(&str) -> String, made: bool, keep: bool) -> Result<Self, KindError> {
        let directory = tempfile::tempdir().map_err(|source| KindError::File {
            path: std::env::temp_dir().to_string_lossy().as_ref().into(),
            source,
        })?;
        let token = owner::run();
        Ok(Self { name: name(&token), token, made, keep, directory })
    }

    async fn make(config: &KindConfig) -> Result<Self, KindError> {
        // From here on, whatever happens, it is deleted when this is dropped.
        let nodes = Self::new(|token| format!("rotacheck-{token}"), true, config.keep)?;
        let topology =
            (0..config.nodes.max(1)).map(|n| json!({ "role": if n == 0 { "control-plane" } else { "worker" } }));
        let text = json!({
            "kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": topology.collect::<Vec<_>>(),
        });
        let file = nodes.write("cluster.json", &text.to_string())?;
        let mut args = vec!["create", "cluster", "--name", &nodes.name, "--config", file.as_str(), "--wait", "120s"];
        if let Some(image) = &config.node_image {
            args.extend(["--image", image]);
        }
        call(&nodes, "make a kind cluster", "kind", TO_CREATE, &args).await?;
        Ok(nodes)
    }

    async fn find(name: String) -> Result<Self, KindError> {
        let nodes = Self::new(|_| name, false, true)?;
        let there = call(&nodes, "list the kind clusters", "kind", TO_ANSWER, &["get", "clusters"]).await?;
        let there: Vec<String> = there.lines().map(str::to_owned).collect();
        if !there.contains(&nodes.name) {
            return Err(KindError::NoCluster { name: nodes.name.clone(), there });
        }
        let what = format!("read the kubeconfig of {}", nodes.name);
        let text = call(&nodes, &what, "kind", TO_ANSWER, &["get", "kubeconfig", "--name", &nodes.name]).await?;
        nodes.write("kubeconfig", &text)?;
        Ok(nodes)
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from(self.directory.path().to_string_lossy().as_ref()).join(name)
    }

    fn kubeconfig(&self) -> Utf8PathBuf {
        self.path("kubeconfig")
    }

    fn write(&self, name: &str, text: &str) -> Result<Utf8PathBuf, KindError> {
        let path = self.path(name);
        crate::fleet::keep::file(&path, text.as_bytes())
            .map_err(|source| KindError::File { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if !self.made || self.keep {
            return;
        }
        // Whoever interrupts the run again must not interrupt this.
        let mut command = std::process::Command::new("kind");
        command.args(["delete", "cluster", "--name", &self.name]).env("KUBECONFIG", self.kubeconfig()).process_group(0);
        let deleted = command.stdin(std::process::Stdio::null()).output();
        if !deleted.is_ok_and(|output| output.status.success()) {
            tracing::warn!("the kind cluster {0} is left: `kind delete cluster --name {0}` removes it", self.name);
        }
    }
}

async fn call(
    nodes: &Nodes,
    what: &str,
    program: &'static str,
    patience: Duration,
    args: &[&str],
) -> Result<String, KindError> {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let kubeconfig = nodes.kubeconfig();
    Ok(Call { what: what.to_owned(), program, args, kubeconfig: Some(&kubeconfig), patience }.run().await?)
}

/// Whoever has no image of ours shall hear it before a cluster is made.
async fn relay_is_there(image: &str) -> Result<(), KindError> {
    if is_there(image).await? { Ok(()) } else { Err(KindError::NoRelay { image: image.to_owned() }) }
}

/// Puts an image that Docker has here on the nodes.
async fn load(nodes: &Nodes, what: &str, image: &str, talk: &dyn Fn(&str)) -> Result<(), KindError> {
    talk(&format!("loading {what}"));
    let args = ["load", "docker-image", image, "--name", &nodes.name];
    call(nodes, &format!("load {what}"), "kind", TO_CREATE, &args).await?;
    Ok(())
}

/// Whether Docker has it here.
async fn is_there(image: &str) -> Result<bool, KindError> {
    let args = ["image", "inspect", "--format", "{{.Id}}", image].map(str::to_owned).to_vec();
    let asked = Call {
        what: format!("look for the image {image}"),
        program: "docker",
        args,
        kubeconfig: None,
        patience: TO_ANSWER,
    };
    match asked.run().await {
        Err(CallError::Failed { said, .. }) if said.contains("No such image") => Ok(false),
        asked => Ok(asked.map(|_| true)?),
    }
}

async fn install(config: &KindConfig, nodes: &Nodes, own_envoy: bool) -> Result<(), KindError> {
    let files = [Some(("istio.yaml", ISTIO)), (!own_envoy).then_some(("istio-filters-off.yaml", FILTERS_OFF))];
    let mut args = vec!["install".to_owned(), "-y".to_owned()];
    for (name, text) in files.into_iter().flatten() {
        args.extend(["-f".to_owned(), nodes.write(name, text)?.into_string()]);
    }
    let (hub, tag, domain) = (&config.istio_hub, &config.istio_tag, &config.trust_domain);
    for value in [format!("hub={hub}"), format!("tag={tag}"), format!("meshConfig.trustDomain={domain}")] {
        args.extend(["--set".to_owned(), value]);
    }
    if let Some(image) = &config.proxy_image {
        args.extend(["--set".to_owned(), format!("values.global.proxy.image={image}")]);
    }
    args.extend(["--readiness-timeout".to_owned(), "240s".to_owned()]);
    if let Some(manifests) = &config.istio_manifests {
        args.extend(["--manifests".to_owned(), absolute(manifests)?.into_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    call(nodes, "install Istio", "istioctl", TO_INSTALL, &args).await.map(|_| ())
}

fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, KindError> {
    camino::absolute_utf8(path).map_err(|source| KindError::File { path: path.to_owned(), source })
}
