//! A cell's pods: how they are brought up, watched, and what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::try_join_all;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::asked::Asked;
use super::attend::Attendance;
use super::log::log;
use super::mesh::{APPLICATION, DIAL_OUT, DIALLED, GATEWAY, SERVICE, SIDECAR};
use super::present::Present;
use super::ways::{Ways, reach};
use super::yard::Yard;
use crate::clock::Deadline;
use crate::cluster::PodSeen;
use crate::fleet::member::Ended;
use crate::fleet::process::{FleetConfig, contexts, dial_out};
use crate::fleet::ready::{self, Live};
use crate::fleet::{Dialled, Fleet, FleetError, Newcomer, Proxy, keep};
use crate::remote::{Link, Local, Serving, Target};
use crate::scenario::ProviderAction;
use crate::timeline::{
    AGENT_SAYS, Blind, FaultNote, ProxyId, Recorder, Source, Spawned, SpiffeId, Stall, log_without_private_keys,
};
use crate::xds::Delivery;

/// How long pods may take until they are ready: images may have to be pulled.
const TO_START: Duration = Duration::from_secs(90);
/// Between two looks whether the nodes answer, and how long an answer may take.
const BEAT: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
/// For how long they may be silent at the end of an observation, and before it is given up.
const SILENT_AT_THE_END: Duration = Duration::from_secs(8);
const LOST: Duration = Duration::from_secs(45);
/// After an API server did not answer, until it is asked again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// What the API server may take to tell what happened.
const TO_TELL: Duration = Duration::from_secs(10);
/// What a pod's agent and its Envoy log.
pub(super) const LOG: &str = "agent.log";
/// Where Istio's agent expects the provider's socket, in a pod.
const SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";
/// Lines of a log that are kept of an end.
pub(super) const LOG_LINES: usize = 120;

/// The pods of a cell.
pub(in crate::fleet) struct Pods {
    yard: Arc<Yard>,
    since: Instant,
    pulse: Arc<Pulse>,
    present: Arc<Present>,
    newcomers: tokio::sync::Mutex<UnboundedReceiver<Newcomer>>,
    /// From when on it is no failure of the start that one ends.
    settled: Arc<AtomicBool>,
    /// They end with this.
    _tasks: JoinSet<()>,
    /// As long as the pods are asked, the provider is there.
    _servings: Vec<Serving>,
}

/// What all proxies of a cell have in common.
#[derive(Clone)]
pub(super) struct Pattern {
    /// Those of the beginning, each of which calls the next one, with the addresses of their services.
    ring: Vec<(ProxyId, String)>,
    contexts: u32,
    /// Pods to whose relays ways were sought.
    pub(super) linking: BTreeSet<String>,
}

impl Pattern {
    /// Whom the proxy of this pod calls, and where. One that came later calls the first.
    pub(super) fn next_of(&self, pod: &str) -> (&ProxyId, &str) {
        let own = self.ring.iter().position(|(id, _)| id.as_str() == pod);
        let (id, address) = &self.ring[own.map_or(0, |n| (n + 1) % self.ring.len())];
        (id, address)
    }

    pub(super) fn proxy(
        &self,
        id: &ProxyId,
        spiffe_id: Option<SpiffeId>,
        pod: &PodSeen,
        ways: &Ways,
        next: &ProxyId,
        kept: &Utf8Path,
    ) -> Proxy {
        let [outbound, dial_out] = ways.outward.unwrap_or([ways.inbound; 2]);
        let everywhere = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
        let listens = [
            ("dial_out", SocketAddr::from(([127, 0, 0, 1], DIAL_OUT))),
            ("inbound", everywhere(ways.listens)),
            ("outbound", everywhere(SERVICE)),
        ];
        // A gateway calls nobody by itself.
        let listens = if ways.listens == GATEWAY { &listens[..2] } else { &listens[..] };
        Proxy {
            id: id.clone(),
            spiffe_id,
            pid: pod.process(SIDECAR),
            admin: ways.admin,
            inbound: ways.inbound,
            outbound,
            dial_out,
            sides: ways.sides,
            listens: Some(listens.to_vec()),
            resumes: false,
            keeps_no_sessions: true,
            next: next.clone(),
            contexts: self.contexts,
            stapled: None,
            socket: None,
            watches: None,
            bootstrap: kept.join("bootstrap.json"),
            log: kept.join(LOG),
            telling: AGENT_SAYS,
        }
    }
}

/// Serves the provider on every node, makes the pods, and waits until they run.
pub(in crate::fleet) async fn start(
    config: FleetConfig,
    yard: &Arc<Yard>,
    recorder: &Recorder,
) -> Result<Fleet, FleetError> {
    let since = Instant::now();
    yard.record_into(recorder);
    let servings = serve(yard, &config.delivery, &config.dialled).await?;
    let asked = yard.doors.get().map(|doors| &doors.asked);
    let [first, ..] = yard.nodes.as_slice() else { return Err(FleetError::Empty) };
    let server: SocketAddr = format!("{}:{DIALLED}", first.ip).parse().map_err(|_| FleetError::Empty)?;
    let dialled = Dialled { server, ..config.dialled.clone() };
    let seen = Delivery::Socket(SOCKET.into());
    let ids: Vec<&ProxyId> = config.members.iter().map(|(id, _)| id).collect();
    let at = SocketAddr::from(([127, 0, 0, 1], DIAL_OUT));
    // One for all, whoever they are.
    let dial_out = dial_out(ids.first().ok_or(FleetError::Empty)?, at, &seen, &dialled);
    let cluster = &yard.place.cluster;
    let services = cluster.create_all(&yard.ground.services(&ids, dial_out, config.further_contexts)).await?;
    if let Some(Asked::Istio { .. }) = asked {
        cluster.create(&yard.bootstrap()?).await?;
    }
    let pods: Vec<_> = ids.iter().map(|id| yard.ground.pod(id, config.stats, asked)).collect();
    cluster.create_all(&pods).await?;
    // What they say is wanted most where they do not come up.
    let (mut tasks, mut logs) = (JoinSet::new(), BTreeMap::new());
    for id in &ids {
        let kept = kept(&config, id);
        keep::directory(&kept).map_err(|source| FleetError::Write { path: kept.clone(), source })?;
        let following = tasks.spawn(log(yard.clone(), id.to_string(), SIDECAR, kept.join(LOG)));
        logs.insert((*id).clone(), following);
    }
    let come_up = async {
        let mut links = lead(yard, &ids).await?;
        let up = wait(yard, &ids).await?;
        for id in &ids {
            if !links.contains_key(*id) {
                links.insert((*id).clone(), yard.link(id.as_str()).await?);
            }
        }
        Ok((up, links))
    };
    let (up, links) = match come_up.await {
        Ok(up) => up,
        Err(e) => {
            keep_words(yard, &config.directory, recorder, Deadline::after(TO_TELL)).await?;
            return Err(e);
        }
    };

    let ended = Arc::new(watch::Sender::new(Vec::new()));
    let addresses = ids.iter().map(|id| ((*id).clone(), address(&services, id))).collect();
    let pattern = Pattern { ring: addresses, contexts: contexts(config.further_contexts), linking: BTreeSet::new() };
    let (mut proxies, present) = (Vec::new(), Arc::new(Present::default()));
    let reached = config.members.iter().map(async |(id, spiffe_id)| {
        let (next, service) = pattern.next_of(id.as_str());
        let (pod, link) = (&up[id.as_str()], &links[id]);
        let ways = reach(yard, id.as_str(), pod, Some(link), service).await?;
        let proxy = pattern.proxy(id, spiffe_id.clone(), pod, &ways, next, &kept(&config, id));
        Ok::<_, FleetError>((proxy, ways))
    });
    for (proxy, ways) in try_join_all(reached).await? {
        let spawned = Spawned { pid: proxy.pid, what: format!("pod {}/{}", yard.ground.namespace, proxy.id) };
        recorder.record(Source::Process, Some(&proxy.id), None, spawned);
        present.enter(proxy.clone(), ways);
        proxies.push(proxy);
    }
    let blind = Blind {
        layer: None,
        what: "peers of the provider's socket".to_owned(),
        why: "the proxies connect to a relay on their node".to_owned(),
    };
    recorder.record(Source::Census, None, None, blind);
    let pulse = Arc::new(Pulse::new(recorder));
    tasks.spawn(pulse.clone().keep(yard.clone()));
    let (newcomers, coming) = mpsc::unbounded_channel();
    let settled = Arc::new(AtomicBool::new(false));
    let with_uid = links.into_iter().map(|(id, link)| (id.to_string(), (up[id.as_str()].uid.clone(), link)));
    let attendance = Attendance {
        yard: yard.clone(),
        recorder: recorder.clone(),
        directory: config.directory.clone(),
        pattern,
        present: present.clone(),
        newcomers,
        ended: ended.clone(),
        settled: settled.clone(),
        links: with_uid.collect(),
        logs,
    };
    tasks.spawn(attendance.keep(proxies.clone()));
    let newcomers = tokio::sync::Mutex::new(coming);
    let pods =
        Pods { yard: yard.clone(), since, pulse, present, newcomers, settled, _tasks: tasks, _servings: servings };
    Ok(Fleet::of_pods(proxies, pods, ended, recorder))
}

/// Whether the nodes answer. While one does not, what its pods do proves nothing, as if the harness itself stood still: it is
/// recorded as that.
struct Pulse {
    answered: Mutex<Instant>,
    recorder: Recorder,
}

impl Pulse {
    fn new(recorder: &Recorder) -> Self {
        Self { answered: Mutex::new(Instant::now()), recorder: recorder.clone() }
    }

    async fn keep(self: Arc<Self>, yard: Arc<Yard>) {
        loop {
            let beat = yard.beat().await;
            self.note();
            if beat.is_ok() {
                *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    fn gap(&self) -> Duration {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// That for so long none has come, in words.
    fn silent(&self, long: Duration) -> Option<String> {
        let gap = self.gap();
        (gap > long)
            .then(|| format!("the cluster's nodes have not answered for {} s: is its API server there?", gap.as_secs()))
    }

    /// Records for how long none has come, if that is too long.
    fn note(&self) {
        let gap = self.gap();
        if gap > BEAT + SLOW {
            let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
            self.recorder.record(Source::Harness, None, None, Stall { gap_ms });
        }
    }
}

/// The provider on every node, and on one the server that the proxies dial.
async fn serve(yard: &Yard, delivery: &Delivery, dialled: &Dialled) -> Result<Vec<Serving>, FleetError> {
    let sockets: Vec<(String, &Utf8Path)> = match delivery {
        Delivery::Socket(socket) => vec![(yard.ground.socket(None), socket)],
        Delivery::Mesh(own) => own.iter().map(|(id, socket)| (yard.ground.socket(Some(id)), &**socket)).collect(),
        Delivery::Files(_) => return Err(FleetError::AgentWithoutSocket),
    };
    // A pod may come to be on any of them.
    let everywhere = yard.nodes.iter().flat_map(|node| sockets.iter().map(move |socket| (node, socket)));
    let on_node = everywhere.map(|(node, (there, here))| {
        node.link.serve(Target::Unix(there.into()), 0o777, Local::Unix((*here).to_owned()))
    });
    let mut servings = try_join_all(on_node).await?;
    if let Some(first) = yard.nodes.first() {
        let target = Target::tcp("0.0.0.0", DIALLED);
        servings.push(first.link.serve(target, 0, Local::Tcp(dialled.server)).await?);
    }
    Ok(servings)
}

/// Where the proxies reach their provider through the relays in their own pods, these are led there as soon as they run: before
/// that, no proxy is ready.
async fn lead(yard: &Yard, ids: &[&ProxyId]) -> Result<BTreeMap<ProxyId, Link>, FleetError> {
    let Some(doors) = yard.doors.get() else { return Ok(BTreeMap::new()) };
    let mut watch = yard.place.cluster.watch_pods(&yard.ground.namespace, "");
    let runs = |pod: &PodSeen| pod.containers.get(APPLICATION).is_some_and(|c| c.running);
    let all_run = |pods: &BTreeMap<String, PodSeen>| ids.iter().all(|id| pods.get(id.as_str()).is_some_and(runs));
    if watch.until(Deadline::after(TO_START), all_run).await?.is_none() {
        return Err(yard.not_up("the pods", states(ids, watch.known(), runs)).await);
    }
    let links = ids.iter().map(async |id| {
        let link = yard.link(id.as_str()).await?;
        doors.lead(id.as_str(), &link);
        Ok::<_, FleetError>(((*id).clone(), link))
    });
    Ok(try_join_all(links).await?.into_iter().collect())
}

/// What keeps those pods that are not as they should be.
fn states(ids: &[&ProxyId], known: &BTreeMap<String, PodSeen>, well: impl Fn(&PodSeen) -> bool) -> String {
    let state = |id: &&ProxyId| {
        let pod = known.get(id.as_str())?;
        (!well(pod)).then(|| format!("{id}: {}", pod.state()))
    };
    let states: Vec<String> = ids.iter().filter_map(state).collect();
    states.join("; ")
}

async fn wait(yard: &Yard, ids: &[&ProxyId]) -> Result<BTreeMap<String, PodSeen>, FleetError> {
    let mut watch = yard.place.cluster.watch_pods(&yard.ground.namespace, "");
    let up = |pods: &BTreeMap<String, PodSeen>| {
        ids.iter().all(|id| pods.get(id.as_str()).is_some_and(|pod| pod.ready && pod.ip.is_some()))
    };
    if let Some(pods) = watch.until(Deadline::after(TO_START), up).await? {
        return Ok(pods);
    }
    Err(yard.not_up("the pods", states(ids, watch.known(), |pod| pod.ready)).await)
}

/// The address of a service, as the API server gave it out.
fn address(made: &[serde_json::Value], id: &ProxyId) -> String {
    let of = |object: &&serde_json::Value| {
        object["kind"] == "Service" && object["metadata"]["name"].as_str() == Some(id.as_str())
    };
    let service = made.iter().find(of);
    service.and_then(|service| service["spec"]["clusterIP"].as_str()).unwrap_or_default().to_owned()
}

/// What is kept of a proxy.
fn kept(config: &FleetConfig, id: &ProxyId) -> Utf8PathBuf {
    config.directory.join("proxies").join(id.as_str())
}

/// What the API server says of the namespace: `events.txt`, `pods.txt`.
async fn keep_words(
    yard: &Yard,
    directory: &Utf8Path,
    recorder: &Recorder,
    deadline: Deadline,
) -> Result<(), FleetError> {
    let namespace = &yard.ground.namespace;
    let mut watch = yard.place.cluster.watch_pods(namespace, "");
    let pods = async {
        let pods = watch.next().await?;
        Ok(pods.iter().map(|(name, pod)| format!("{name} {pod:?}")).collect::<Vec<_>>())
    };
    let events = yard.place.cluster.events(namespace);
    let (events, pods) = tokio::join!(
        tokio::time::timeout_at(deadline.instant(), events),
        tokio::time::timeout_at(deadline.instant(), pods),
    );
    for (name, told) in [("events.txt", events), ("pods.txt", pods)] {
        let why = match told {
            Ok(Ok(lines)) => {
                let path = directory.join(name);
                let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
                keep::file(&path, &log_without_private_keys(text.as_bytes()))
                    .map_err(|source| FleetError::Write { path, source })?;
                continue;
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        recorder.record(Source::Process, None, None, Blind { layer: None, what: name.to_owned(), why });
    }
    Ok(())
}

impl Pods {
    /// As [`Fleet::ready`].
    pub(in crate::fleet) async fn ready(
        &self,
        proxies: &[Proxy],
        ended: &Ended,
        deadline: Deadline,
    ) -> Result<Vec<Live>, FleetError> {
        let mut ended = ended.subscribe();
        let first = async move {
            let exit = ended.wait_for(|exits| !exits.is_empty()).await.ok().and_then(|exits| exits.first().cloned());
            match exit {
                Some(exit) => exit,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            exit = first => Err(FleetError::Exited(exit)),
            live = try_join_all(proxies.iter().map(async |proxy| {
                let calls = if proxy.sides.outbound { self.yard.ground.calls(&proxy.next) } else { Vec::new() };
                ready::ready(proxy, &calls, self.since, deadline).await
            })) => {
                self.settled.store(live.is_ok(), Ordering::Release);
                live
            }
        }
    }

    /// As [`Fleet::silent`].
    pub(in crate::fleet) fn silent(&self) -> Option<String> {
        self.pulse.silent(SILENT_AT_THE_END)
    }

    /// As [`Fleet::lost`].
    pub(in crate::fleet) async fn lost(&self) -> String {
        loop {
            tokio::time::sleep(BEAT).await;
            if let Some(why) = self.pulse.silent(LOST) {
                return why;
            }
        }
    }

    /// As [`Fleet::present`].
    pub(in crate::fleet) fn present(&self) -> Vec<Proxy> {
        self.present.proxies()
    }

    /// As [`Fleet::newcomer`].
    pub(in crate::fleet) async fn newcomer(&self) -> Newcomer {
        match self.newcomers.lock().await.recv().await {
            Some(newcomer) => newcomer,
            // Nobody watches any more.
            None => std::future::pending().await,
        }
    }

    /// Cell time, for all who live in it there.
    pub(in crate::fleet) async fn move_to(&self, offset_s: i64) -> Result<(), FleetError> {
        self.yard.move_to(offset_s).await
    }

    /// Does something to what issues there, and records that; to one that is elsewhere, nothing.
    pub(in crate::fleet) async fn undergo(
        &self,
        action: ProviderAction,
        recorder: &Recorder,
    ) -> Result<(), FleetError> {
        let Some(entries) = self.yard.entries.get() else { return Ok(()) };
        let note = FaultNote { fault: action.name().to_owned(), action: "done to SPIRE".to_owned() };
        recorder.record(Source::Provider, None, None, note);
        self.yard.undergo(action, entries).await
    }

    /// What the API server says at the end.
    pub(in crate::fleet) async fn collect(
        &self,
        directory: &Utf8Path,
        recorder: &Recorder,
        deadline: Deadline,
    ) -> Result<(), FleetError> {
        self.pulse.note();
        keep_words(&self.yard, directory, recorder, deadline).await
    }
}
