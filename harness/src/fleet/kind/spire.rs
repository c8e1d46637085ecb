//! SPIRE in a cell's namespace: a server, and an agent on each node, which knows workloads by the pods that they are of. What
//! is said to it comes from the pods themselves, by their relays.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8Path;
use serde_json::Value;
use tokio::task::JoinSet;

use super::issuer::IssuerThere;
use super::log::log;
use super::yard::Yard;
use crate::clock::Deadline;
use crate::cluster::PodName;
use crate::fleet::FleetError;
use crate::scenario::{FEDERATED_DOMAIN, ProviderAction, Span, TRUST_DOMAIN};
use crate::timeline::{ImageReference, ProxyId, SpiffeId};

const SERVER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/spire-server.yaml"));
const AGENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/spire-agent.yaml"));
/// As in these files: the server's pod, what all pods of the agent are labelled with, the container in all of them.
const SERVER_POD: &str = "spire-server";
const AGENT_PODS: &str = "spire-agent";
const CONTAINER: &str = "spire";
/// Where its configuration lies.
const CONF: &str = "/run/spire-conf";
/// Where it can be asked for what it counts, from inside its pod only.
const COUNTS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9988);
/// The server's own socket.
const API: &str = "/run/spire/server.sock";
/// How long either may take until it is ready: its image may have to be pulled.
const TO_START: Duration = Duration::from_secs(120);

/// The images of SPIRE's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpireImages {
    server: ImageReference,
    agent: ImageReference,
}

impl SpireImages {
    /// Those of which `image` is the server's: the agent's is beside it, where its name tells of one program only.
    pub fn of(image: &ImageReference) -> Self {
        let beside = (image.name() == "spire-server").then(|| image.beside("spire-agent")).flatten();
        Self { server: image.clone(), agent: beside.unwrap_or_else(|| image.clone()) }
    }

    /// Both.
    pub(super) fn all(&self) -> [&ImageReference; 2] {
        [&self.server, &self.agent]
    }
}

/// What its server is given besides, where it is to sign nothing from some moment on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gated {
    /// What stands in its configuration: in the block `experimental`, and beside its blocks.
    pub conf: [String; 2],
    /// What lies beside its configuration: names and texts.
    pub files: Vec<(String, String)>,
}

/// Whom it knows, and for how long what they get is valid.
pub(super) struct Entries {
    /// By service account.
    accounts: Mutex<BTreeMap<String, SpiffeId>>,
    ttl_s: AtomicU64,
    /// What the bundle of the trust domain that they federate with is, one after the other; and how often it changed.
    bundles: Vec<String>,
    changed: AtomicUsize,
}

impl Entries {
    fn accounts(&self) -> MutexGuard<'_, BTreeMap<String, SpiffeId>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Vec<(String, SpiffeId)> {
        self.accounts().iter().map(|(account, identity)| (account.clone(), identity.clone())).collect()
    }
}

impl Yard {
    /// Where the configuration of its server will lie, and where that can be asked for what it counts.
    pub fn spire_server() -> (&'static Utf8Path, SocketAddr) {
        (Utf8Path::new(CONF), COUNTS)
    }

    /// Has SPIRE issue certificates of this lifetime to the pods of the proxies that will come. What its server says is kept
    /// in `log`, what its agents say beside it.
    pub async fn with_spire(
        self: &Arc<Self>,
        proxies: &[(ProxyId, SpiffeId)],
        ttl: Span,
        gated: Gated,
        server_log: &Utf8Path,
    ) -> Result<IssuerThere, FleetError> {
        let images = &self.place.spire;
        let sockets = self.ground.spire_sockets();
        let Gated { conf: [experimental, beside], files } = gated;
        let (experimental, beside) = (indented(&experimental, 8), indented(&beside, 4));
        let filled = |manifest, image, server| {
            let known = [
                ("{server}", server),
                ("{sockets}", &*sockets),
                ("{trust_domain}", TRUST_DOMAIN),
                ("{experimental}", &experimental),
                ("{beside}", &beside),
            ];
            self.filled(manifest, image, &known)
        };
        let mut logs = JoinSet::new();
        let mut server = filled(SERVER, &images.server, "")?;
        for (name, text) in &files {
            for map in server.iter_mut().filter(|object| object["kind"] == "ConfigMap") {
                map["data"][name] = Value::from(text.as_str());
            }
        }
        self.create_in_order(&server).await?;
        logs.spawn(log(self.clone(), SERVER_POD.to_owned(), CONTAINER, server_log.to_owned()));
        let selector = format!("app={SERVER_POD}");
        let server = self.wait_for("SPIRE's server", &selector, 1, Deadline::after(TO_START)).await?;
        let ip = server.into_iter().next().and_then(|(_, pod)| pod.ip).unwrap_or_default();
        let version = version(&self.ask_spire(&["--version"]).await?, &images.server);
        self.know_nodes().await?;
        let bundles = files.iter().filter(|(name, _)| name.ends_with(".pem")).map(|(name, _)| format!("{CONF}/{name}"));
        let entries = Entries {
            accounts: Mutex::new(proxies.iter().map(|(id, identity)| (id.to_string(), identity.clone())).collect()),
            ttl_s: ttl.as_secs().into(),
            bundles: bundles.collect(),
            changed: 0.into(),
        };
        let entries = self.entries.get_or_init(|| entries);
        self.federate(entries).await?;
        self.register("create", &entries.known(), entries).await?;
        self.create_in_order(&filled(AGENT, &images.agent, &ip)?).await?;
        let (selector, wanted) = (format!("app={AGENT_PODS}"), self.nodes.len());
        for (pod, _) in self.wait_for("SPIRE's agents", &selector, wanted, Deadline::after(TO_START)).await? {
            let path = server_log.with_file_name(format!("{pod}.log"));
            logs.spawn(log(self.clone(), pod, CONTAINER, path));
        }
        Ok(IssuerThere { version, logs: vec![server_log.to_owned()], _following: logs })
    }

    /// Every agent is one of the cluster's, whatever its node.
    async fn know_nodes(&self) -> Result<(), FleetError> {
        let (node, cluster) = (node(), "k8s_psat:cluster:rotacheck");
        self.tell_spire(&["entry", "create"], &["-node", "-spiffeID", &node, "-selector", cluster]).await
    }

    /// Whoever has this service account is to be served too.
    pub(super) async fn admit(&self, account: &str, identity: &SpiffeId) -> Result<(), FleetError> {
        let Some(entries) = self.entries.get() else { return Ok(()) };
        let known = entries.accounts().insert(account.to_owned(), identity.clone()).is_some();
        if known { Ok(()) } else { self.register("create", &[(account.to_owned(), identity.clone())], entries).await }
    }

    /// Who is served is known by namespace and service account.
    async fn register(&self, verb: &str, accounts: &[(String, SpiffeId)], entries: &Entries) -> Result<(), FleetError> {
        let (node, namespace) = (node(), format!("k8s:ns:{}", self.name()));
        let ttl = entries.ttl_s.load(Ordering::Relaxed).to_string();
        for (name, identity) in accounts {
            let account = format!("k8s:sa:{name}");
            let entry = ["-entryID", name.as_str(), "-parentID", &node, "-spiffeID", identity.as_str()];
            let whom = ["-selector", &namespace, "-selector", &account, "-x509SVIDTTL", &ttl];
            let others: &[&str] = if entries.bundles.is_empty() { &[] } else { &["-federatesWith", &others()] };
            self.tell_spire(&["entry", verb], &[&entry, &whom[..], others].concat()).await?;
        }
        Ok(())
    }

    /// The bundle of the trust domain that they federate with is another one now.
    async fn federate(&self, entries: &Entries) -> Result<(), FleetError> {
        let nth = entries.changed.fetch_add(1, Ordering::Relaxed);
        let Some(bundle) = entries.bundles.get(nth) else { return Ok(()) };
        self.tell_spire(&["bundle", "set"], &["-id", &others(), "-path", bundle]).await
    }

    /// Does something to SPIRE that its server is told.
    pub(super) async fn undergo(&self, action: ProviderAction, entries: &Entries) -> Result<(), FleetError> {
        match action {
            ProviderAction::PrepareCa => self.tell_spire(&["localauthority", "x509", "prepare"], &[]).await,
            ProviderAction::ActivateCa => self.authority("activate", "prepared").await,
            ProviderAction::TaintCa => self.authority("taint", "old").await,
            ProviderAction::RevokeCa => self.authority("revoke", "old").await,
            ProviderAction::UpdateEntry => {
                entries.ttl_s.fetch_add(1, Ordering::Relaxed);
                self.register("update", &entries.known(), entries).await
            }
            ProviderAction::DeleteEntry => {
                for (account, _) in entries.known() {
                    self.tell_spire(&["entry", "delete"], &["-entryID", &account]).await?;
                }
                Ok(())
            }
            ProviderAction::ResendCached => self.federate(entries).await,
            // Its programs are pods: the capability table refuses what would befall these.
            _ => Ok(()),
        }
    }

    /// Does something to the authority that stands in this place: `prepared`, `old`.
    async fn authority(&self, verb: &str, place: &str) -> Result<(), FleetError> {
        let said = self.ask_spire(&["localauthority", "x509", "show", "-socketPath", API, "-output", "json"]).await?;
        let answer: Value = serde_json::from_str(said.trim()).unwrap_or_default();
        let Some(id) = answer[place]["authority_id"].as_str() else {
            return Err(FleetError::NoAuthority { place: place.to_owned() });
        };
        self.tell_spire(&["localauthority", "x509", verb], &["-authorityID", id]).await
    }

    async fn tell_spire(&self, command: &[&str], options: &[&str]) -> Result<(), FleetError> {
        self.ask_spire(&[command, &["-socketPath", API], options].concat()).await.map(drop)
    }

    /// Has the server's own command line talk to the server.
    async fn ask_spire(&self, words: &[&str]) -> Result<String, FleetError> {
        let pod = PodName { namespace: self.name().to_owned(), name: SERVER_POD.to_owned() };
        Ok(self.place.cluster.run(&pod, CONTAINER, &[&["spire-server"], words].concat()).await?)
    }
}

/// What all agents' nodes are, to SPIRE.
fn node() -> String {
    format!("spiffe://{TRUST_DOMAIN}/rotacheck/node")
}

/// The trust domain that they federate with, where they do.
fn others() -> String {
    format!("spiffe://{FEDERATED_DOMAIN}")
}

/// Lines of a block in a manifest, of which the first stands in its place already.
fn indented(lines: &str, by: usize) -> String {
    lines.replace('\n', &format!("\n{}", " ".repeat(by)))
}

/// What the server's program says; one into which its makers built none is known by its image's tag.
fn version(said: &str, image: &ImageReference) -> String {
    let word = said.split_whitespace().last().unwrap_or_default();
    let known = word.starts_with(|c: char| c.is_ascii_digit()) && !word.ends_with("-unk");
    if known { word } else { image.short_version() }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> ImageReference {
        name.parse().unwrap()
    }

    #[test]
    fn the_agents_image_is_beside_the_servers_unless_one_has_both() {
        let both = |name: &str| {
            let images = SpireImages::of(&image(name));
            [images.server.to_string(), images.agent.to_string()]
        };
        let own = "ghcr.io/spiffe/spire-server:1.13.3";
        assert_eq!(both(own), [own, "ghcr.io/spiffe/spire-agent:1.13.3"]);
        let one = "docker.io/local/spire:1.13.3";
        assert_eq!(both(one), [one, one]);
    }

    #[test]
    fn a_server_that_tells_no_version_has_that_of_its_image() {
        let image = image("ghcr.io/spiffe/spire-server:1.13.3");
        assert_eq!(version("1.14.0\n", &image), "1.14.0");
        for said in ["1.13.3-dev-unk\n", "", "spire-server: no such command"] {
            assert_eq!(version(said, &image), "1.13.3", "{said}");
        }
    }
}
