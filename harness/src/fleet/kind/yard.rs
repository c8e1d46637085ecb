//! A cell's namespace, with a relay on each node: what stands there before the provider does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::{join_all, try_join_all};

use super::asked::Asked;
use super::measure::TEMPLATE_AT;
use super::mesh::{self, Ground, TAP, WITNESS};
use super::spire::Entries;
use super::{Place, mesh::NODE, mesh::RELAY};
use crate::clock::{Clock, Deadline, OffsetFile};
use crate::cluster::{Forwarded, PodName, PodSeen};
use crate::fleet::agent::led_to;
use crate::fleet::{FleetError, owner};
use crate::remote::{Connector, Credentials, Door, Event, Keys, Link, Opened, RemoteError, Target, Tell};
use crate::timeline::{Blind, CellId, ProxyId, Recorder, Source};
use crate::xds::socket_of;

/// How long a node may take to start its relay; that of a change to a file there.
const TO_START: Duration = Duration::from_secs(90);
const TO_PUT: Duration = Duration::from_secs(10);
/// A file that is written over and over, to see whether the node answers.
const BEAT: &str = "clock/beat";
/// Between two looks whether somebody listens, which nothing tells.
const LOOK: Duration = Duration::from_millis(200);
/// How long a relay may take to answer that runs.
const TO_ANSWER: Duration = Duration::from_secs(30);

/// A cell's namespace, with a relay on each node. [`Yard::clear`] takes it away.
pub struct Yard {
    pub(super) place: Place,
    pub(super) ground: Ground,
    pub(super) nodes: Vec<Node>,
    /// The namespace's own.
    pub(super) uid: String,
    /// Where the provider's socket of each proxy is in the harness, where each has one of its own.
    pub(super) doors: OnceLock<Doors>,
    /// Where the provider is asked from a pod that is no proxy's.
    witness: OnceLock<Door>,
    /// Whom SPIRE knows, where it issues.
    pub(super) entries: OnceLock<Entries>,
    harness: Credentials,
    told: Arc<Told>,
    cleared: AtomicBool,
}

/// Sockets in the harness, one for each proxy, that lead to who is asked in its pod.
pub(super) struct Doors {
    pub(super) asked: Asked,
    /// They lie here, each by its proxy's name: so the tap finds them.
    directory: Utf8PathBuf,
    of: Mutex<BTreeMap<ProxyId, Door>>,
}

impl Doors {
    fn new(asked: Asked, directory: &Utf8Path) -> Self {
        Self { asked, directory: directory.to_owned(), of: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ProxyId, Door>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One for this proxy, unless it has one. Whoever connects waits until there is a way.
    pub(super) fn open(&self, proxy: &ProxyId) -> Result<Utf8PathBuf, RemoteError> {
        let path = self.directory.join(socket_of(proxy));
        if let Entry::Vacant(vacant) = self.all().entry(proxy.clone()) {
            vacant.insert(Door::open(&path, Target::Unix(self.asked.socket()))?);
        }
        Ok(path)
    }

    /// From now on, this relay leads to who is asked for this proxy.
    pub(super) fn lead(&self, proxy: &str, by: &Link) {
        if let Some((_, door)) = self.all().iter().find(|(id, _)| id.as_str() == proxy) {
            door.lead_by(by);
        }
    }
}

/// What befalls the ways to the relays: it is evidence, or explains what is missing of it.
#[derive(Default)]
struct Told(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    recorder: Option<Recorder>,
    before: Vec<Blind>,
}

impl Told {
    fn note(&self, pod: &str, event: &Event) {
        let (what, why) = match event {
            Event::Cut { why } => ("the way through a pod's relay", format!("it was cut: {why}")),
            Event::Restored { after } => ("the way through a pod's relay", format!("there was none for {after:?}")),
            Event::Gone { why } => ("the way through a pod's relay", format!("it was given up: {why}")),
            // Whoever dialled sees a connection that broke.
            Event::Failed { asked, why } => {
                tracing::debug!("{pod}: {asked}: {why}");
                return;
            }
        };
        let blind = Blind { layer: None, what: what.to_owned(), why: format!("{pod}: {why}") };
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &heard.recorder {
            Some(recorder) => {
                recorder.record(Source::Harness, None, None, blind);
            }
            None => heard.before.push(blind),
        }
    }

    fn record_into(&self, recorder: &Recorder) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for blind in heard.before.drain(..) {
            recorder.record(Source::Harness, None, None, blind);
        }
        heard.recorder = Some(recorder.clone());
    }
}

/// A node's relay.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) ip: String,
    pub(super) link: Link,
}

impl Yard {
    /// A name for a cell's namespace, unlike any other's.
    pub fn namespace(scenario: &str) -> String {
        // The standard library seeds it from the system.
        let random = RandomState::new().hash_one(0u8) & 0xff_ffff;
        mesh::namespace(scenario, u32::try_from(random).unwrap_or_default())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.ground.namespace
    }

    /// Makes the namespace, and waits until the relays on the nodes answer. Where it fails, nothing is left.
    pub async fn prepare(
        place: &Place,
        namespace: &str,
        cell: &CellId,
        clock: &Clock,
        proxies: &[ProxyId],
    ) -> Result<Arc<Self>, FleetError> {
        let moved = clock.is_moved();
        let ground = Ground {
            namespace: namespace.to_owned(),
            run: place.run.clone(),
            machine: owner::machine(),
            image: place.relay_image.clone(),
            moved,
        };
        let made = place.cluster.create(&ground.namespace(cell.as_str())).await?;
        let keys = Keys::new()?;
        // From here on it is taken away, whatever happens.
        let mut yard = Self {
            place: place.clone(),
            ground,
            nodes: Vec::new(),
            uid: made["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            doors: OnceLock::new(),
            witness: OnceLock::new(),
            entries: OnceLock::new(),
            harness: keys.harness()?,
            told: Arc::default(),
            cleared: AtomicBool::new(false),
        };
        place.cluster.create_all(&yard.ground.accounts(proxies)).await?;
        place.cluster.create_all(&yard.ground.relays(&keys.relay()?.files())).await?;
        yard.nodes = yard.wait_for_nodes().await?;
        if moved {
            yard.lay_out_clock(clock).await?;
        }
        Ok(Arc::new(yard))
    }

    async fn wait_for_nodes(&self) -> Result<Vec<Node>, FleetError> {
        let wanted = self.place.cluster.nodes().await?.len();
        let selector = format!("app={NODE}");
        let pods = self.wait_for("a relay on each node", &selector, wanted, Deadline::after(TO_START)).await?;
        let nodes = pods.into_iter().map(async |(pod, seen)| {
            let link = self.link(&pod).await?;
            Ok::<_, FleetError>(Node { name: seen.node.unwrap_or_default(), ip: seen.ip.unwrap_or_default(), link })
        });
        try_join_all(nodes).await
    }

    /// Awaits that so many pods of these labels are ready, and all that there are.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        selector: &str,
        wanted: usize,
        deadline: Deadline,
    ) -> Result<BTreeMap<String, PodSeen>, FleetError> {
        let mut watch = self.place.cluster.watch_pods(&self.ground.namespace, selector);
        let up = |pods: &BTreeMap<String, PodSeen>| {
            pods.len() >= wanted && pods.values().all(|pod| pod.ready && pod.ip.is_some())
        };
        if let Some(pods) = watch.until(deadline, up).await? {
            return Ok(pods);
        }
        let known = watch.known().clone();
        let states: Vec<String> = known.iter().map(|(name, pod)| format!("{name}: {}", pod.state())).collect();
        Err(self.not_up(what, states.join("; ")).await)
    }

    /// Gives each proxy a socket of the provider's in `directory`, which leads to who is asked by the relay in its own pod, as
    /// soon as there is one.
    pub fn open_doors(
        &self,
        asked: Asked,
        proxies: &[ProxyId],
        directory: &Utf8Path,
    ) -> Result<BTreeMap<ProxyId, Utf8PathBuf>, FleetError> {
        // They are opened once in a cell's life.
        let doors = self.doors.get_or_init(|| Doors::new(asked, directory));
        proxies.iter().map(|proxy| Ok((proxy.clone(), doors.open(proxy)?))).collect()
    }

    /// A socket in `directory` that leads to who is asked, from a pod that is to them like this proxy's.
    /// It may take so long until somebody serves there.
    pub async fn witness(
        &self,
        asked: &Asked,
        like: &ProxyId,
        patience: Duration,
        directory: &Utf8Path,
    ) -> Result<Utf8PathBuf, FleetError> {
        let deadline = Deadline::after(patience);
        self.place.cluster.create(&self.ground.witness(like, asked)).await?;
        let selector = format!("app={WITNESS}");
        self.wait_for("a pod that asks the provider", &selector, 1, Deadline::after(TO_START)).await?;
        let link = self.link(WITNESS).await?;
        let target = Target::Unix(asked.socket());
        // Said here, for a door says nothing.
        while let Err(e) = link.reaches(&target).await {
            if deadline.passed() {
                return Err(self.unreachable(asked, &e));
            }
            tokio::time::sleep(LOOK).await;
        }
        let door = Door::open(&directory.join("witness.sock"), target)?;
        door.lead_by(&link);
        let path = door.path().to_owned();
        // It asks as long as there is a cell.
        let _ = self.witness.set(door);
        Ok(path)
    }

    fn unreachable(&self, asked: &Asked, why: &RemoteError) -> FleetError {
        FleetError::NoProvider { socket: asked.on_node(&self.ground), why: why.to_string() }
    }

    /// Istio's bootstrap template, with the tap's socket in it.
    pub(super) fn bootstrap(&self) -> Result<serde_json::Value, FleetError> {
        let own = self.place.bootstrap.as_deref().ok_or(FleetError::NoTemplate { path: TEMPLATE_AT.into() })?;
        let led = led_to(own, TAP.into()).ok_or(FleetError::Template { path: TEMPLATE_AT.into() })?;
        Ok(self.ground.bootstrap(&led))
    }

    /// A way to the relay in a pod.
    pub(super) async fn link(&self, pod: &str) -> Result<Link, FleetError> {
        let cluster = self.place.cluster.clone();
        let name = PodName { namespace: self.ground.namespace.clone(), name: pod.to_owned() };
        let connector: Connector = Arc::new(move || {
            let (cluster, name) = (cluster.clone(), name.clone());
            Box::pin(async move {
                let Forwarded { stream, said } = cluster.forwarded(&name, RELAY).await.map_err(|e| e.to_string())?;
                Ok(Opened { io: Box::new(stream), said })
            })
        });
        let (told, pod) = (self.told.clone(), pod.to_owned());
        let whose = pod.clone();
        let tell: Tell = Arc::new(move |event| told.note(&pod, &event));
        Ok(Link::connect(whose, connector, &self.harness, tell, Deadline::after(TO_ANSWER)).await?)
    }

    /// From now on, what befalls the ways is recorded; what did before as well.
    pub(super) fn record_into(&self, recorder: &Recorder) {
        self.told.record_into(recorder);
    }

    async fn lay_out_clock(&self, clock: &Clock) -> Result<(), FleetError> {
        let library = |node: &Node| {
            let link = node.link.clone();
            async move { link.put(&format!("clock/{}", OffsetFile::LIBRARY_NAME), OffsetFile::LIBRARY, 0o755).await }
        };
        try_join_all(self.nodes.iter().map(library)).await?;
        self.move_to(clock.offset()).await
    }

    /// Moves the time of all who live in the cell's, on every node.
    pub(super) async fn move_to(&self, offset_s: i64) -> Result<(), FleetError> {
        let content = OffsetFile::content(offset_s);
        let put = self.nodes.iter().map(async |node: &Node| {
            let path = format!("clock/{}", OffsetFile::NAME);
            tokio::time::timeout(TO_PUT, node.link.put(&path, content.to_vec(), 0o644)).await
        });
        for done in join_all(put).await {
            done.map_err(|_| FleetError::NodeSilent { seconds: TO_PUT.as_secs() })??;
        }
        Ok(())
    }

    /// Every node's relay answers: by the whole way that evidence takes.
    pub(super) async fn beat(&self) -> Result<(), FleetError> {
        try_join_all(self.nodes.iter().map(|node| node.link.put(BEAT, Vec::new(), 0o644))).await?;
        Ok(())
    }

    pub(super) async fn not_up(&self, what: &str, state: String) -> FleetError {
        FleetError::NotUp {
            what: what.to_owned(),
            namespace: self.ground.namespace.clone(),
            state,
            events: self.place.cluster.warnings(&self.ground.namespace, "").await,
        }
    }

    /// Takes the namespace away; the API server does the rest.
    pub async fn clear(&self) -> Result<(), FleetError> {
        self.cleared.store(true, Ordering::Release);
        Ok(self.place.cluster.delete_namespace(&self.ground.namespace).await?)
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if self.cleared.swap(true, Ordering::AcqRel) {
            return;
        }
        // It was cut short.
        let (cluster, namespace) = (self.place.cluster.clone(), self.ground.namespace.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Whoever could not make it may not be able to take it away either; its label tells whose it is.
                let _ = cluster.delete_namespace(&namespace).await;
            });
        }
    }
}
