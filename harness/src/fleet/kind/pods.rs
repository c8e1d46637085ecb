//! A cell's pods: how they are brought up, watched, and what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::mesh::{ADMIN, APP, APPLICATION, DIAL_OUT, DIALLED, INBOUND, SERVICE, SIDECAR};
use super::yard::{Node, Yard};
use crate::clock::Deadline;
use crate::cluster::PodSeen;
use crate::fleet::error::POD;
use crate::fleet::member::Ended;
use crate::fleet::process::{FleetConfig, dial_out};
use crate::fleet::ready::{self, Live};
use crate::fleet::{Dialled, Fleet, FleetError, Proxy, ProxyExit, keep};
use crate::remote::{Forward, Link, Local, Serving, Target};
use crate::scenario::ProviderAction;
use crate::timeline::{AGENT_SAYS, Blind, Exited, FaultNote, Layer, ProxyId, Recorder, Source, Spawned, Stall};
use crate::xds::Delivery;

/// How long pods may take until they are ready: images may have to be pulled.
const TO_START: Duration = Duration::from_secs(90);
/// Between two looks whether the nodes answer, and how long an answer may take.
const BEAT: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
/// After an API server did not answer, until it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Until the log of a container that did not run is asked for again: nothing else tells that it does.
const SOON: Duration = Duration::from_millis(300);
/// What the API server may take to tell what happened.
const TO_TELL: Duration = Duration::from_secs(10);
/// What a pod's agent and its Envoy log.
const LOG: &str = "agent.log";
/// Where Istio's agent expects the provider's socket, in a pod.
const SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";
/// Lines of a log that are kept of an end.
const LOG_LINES: usize = 120;

/// The pods of a cell.
pub(in crate::fleet) struct Pods {
    yard: Arc<Yard>,
    since: Instant,
    pulse: Arc<Pulse>,
    /// They end with this.
    _tasks: JoinSet<()>,
    /// Ways that last as long as the pods are asked.
    _ways: (Vec<Serving>, Vec<Ways>),
}

/// The ways to one pod.
struct Ways {
    _link: Link,
    _forwards: [Forward; 4],
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
    let by_own_relay = yard.doors.get().is_some();
    let [first, ..] = yard.nodes.as_slice() else { return Err(FleetError::Empty) };
    let server: SocketAddr = format!("{}:{DIALLED}", first.ip).parse().map_err(|_| FleetError::Empty)?;
    let dialled = Dialled { server, ..config.dialled.clone() };
    let seen = Delivery::Socket(SOCKET.into());
    let ids: Vec<&ProxyId> = config.members.iter().map(|(id, _)| id).collect();
    let at = SocketAddr::from(([127, 0, 0, 1], DIAL_OUT));
    let ring: Vec<_> = ids.iter().map(|id| (*id, dial_out(id, at, &seen, &dialled))).collect();
    let cluster = &yard.place.cluster;
    let services = cluster.create_all(&yard.ground.services(&ring, config.further_contexts)).await?;
    let pods: Vec<_> = ids.iter().map(|id| yard.ground.pod(id, config.stats, by_own_relay)).collect();
    cluster.create_all(&pods).await?;
    // What they say is wanted most where they do not come up.
    let mut tasks = JoinSet::new();
    for id in &ids {
        let kept = kept(&config, id);
        keep::directory(&kept).map_err(|source| FleetError::Write { path: kept.clone(), source })?;
        tasks.spawn(log(yard.clone(), id.to_string(), SIDECAR, kept.join(LOG)));
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
    let (mut proxies, mut ways) = (Vec::new(), Vec::new());
    let reached = config.members.iter().enumerate().map(async |(n, (id, spiffe_id))| {
        let next = ids[(n + 1) % ids.len()];
        let pod = &up[id.as_str()];
        let link = links[id].clone();
        let forwards = reach(yard, &link, pod, &address(&services, next)).await?;
        let [admin, inbound, outbound, dial_out] = forwards.each_ref().map(Forward::addr);
        let kept = kept(&config, id);
        let proxy = Proxy {
            id: id.clone(),
            spiffe_id: spiffe_id.clone(),
            pid: pod.process(SIDECAR),
            admin,
            inbound,
            outbound,
            dial_out,
            listens: Some([
                ("inbound", SocketAddr::from(([0, 0, 0, 0], INBOUND))),
                ("outbound", SocketAddr::from(([0, 0, 0, 0], SERVICE))),
                ("dial_out", at),
            ]),
            resumes: false,
            keeps_no_sessions: true,
            next: next.clone(),
            contexts: crate::fleet::process::contexts(config.further_contexts),
            stapled: None,
            socket: None,
            watches: None,
            bootstrap: kept.join("bootstrap.json"),
            log: kept.join(LOG),
            telling: AGENT_SAYS,
        };
        Ok::<_, FleetError>((proxy, Ways { _link: link, _forwards: forwards }))
    });
    for (proxy, way) in try_join_all(reached).await? {
        let spawned = Spawned { pid: proxy.pid, what: format!("pod {}/{}", yard.ground.namespace, proxy.id) };
        recorder.record(Source::Process, Some(&proxy.id), None, spawned);
        ways.push(way);
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
    tasks.spawn(watch_ends(yard.clone(), proxies.clone(), recorder.clone(), ended.clone()));
    let pods = Pods { yard: yard.clone(), since, pulse, _tasks: tasks, _ways: (servings, ways) };
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

    /// Records for how long none has come, if that is too long.
    fn note(&self) {
        let gap = self.answered.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
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
        if let Some(door) = doors.get(*id) {
            door.lead_by(&link);
        }
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

async fn reach(yard: &Yard, link: &Link, pod: &PodSeen, service: &str) -> Result<[Forward; 4], FleetError> {
    let ip = pod.ip.clone().unwrap_or_default();
    // From its own node, as its neighbours there would.
    let node = yard.nodes.iter().find(|node| Some(&node.name) == pod.node.as_ref());
    let outside: &Node = node.or(yard.nodes.first()).ok_or(FleetError::Empty)?;
    let forwards = [
        link.forward(Target::tcp("127.0.0.1", ADMIN)).await?,
        outside.link.forward(Target::tcp(ip, APP)).await?,
        link.forward(Target::tcp(service, SERVICE)).await?,
        link.forward(Target::tcp("127.0.0.1", DIAL_OUT)).await?,
    ];
    Ok(forwards)
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

/// Keeps what a container logs, as it logs it, from one start to the next.
pub(super) async fn log(yard: Arc<Yard>, pod: String, container: &'static str, path: Utf8PathBuf) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // Where the disk takes nothing, the recording fails as well, and says so.
    let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path) else { return };
    loop {
        let mut lines = 0;
        let follow = yard.place.cluster.follow_log(&yard.ground.namespace, &pod, container, |bytes| {
            lines += bytes.len();
            file.write_all(bytes)
        });
        // It does not run yet, or the API server does not answer: the pods' watch tells.
        let _ = follow.await;
        tokio::time::sleep(if lines == 0 { SOON } else { AGAIN }).await;
    }
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
                keep::file(&path, text.as_bytes()).map_err(|source| FleetError::Write { path, source })?;
                continue;
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        recorder.record(Source::Process, None, None, Blind { layer: None, what: name.to_owned(), why });
    }
    Ok(())
}

/// Tells of pods that are started again, or gone; and of those with a sidecar that were not there at the beginning.
async fn watch_ends(yard: Arc<Yard>, proxies: Vec<Proxy>, recorder: Recorder, ended: Arc<Ended>) {
    let mut watch = yard.place.cluster.watch_pods(&yard.ground.namespace, "");
    let own: BTreeSet<ProxyId> = proxies.iter().map(|proxy| proxy.id.clone()).collect();
    let mut waiting = proxies;
    let mut silent = false;
    let mut latecomers = BTreeSet::new();
    loop {
        let seen = watch.next().await.cloned();
        let pods = match seen {
            Ok(pods) => pods,
            Err(e) => {
                if !std::mem::replace(&mut silent, true) {
                    let blind = Blind { layer: None, what: "pods that end".to_owned(), why: e.to_string() };
                    recorder.record(Source::Process, None, None, blind);
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        silent = false;
        for (id, pod) in pods.iter().filter_map(|(name, pod)| Some((ProxyId::parse(name).ok()?, pod))) {
            let joined = pod.containers.get(SIDECAR).is_some_and(|c| c.running) && !own.contains(&id);
            if joined && latecomers.insert(pod.uid.clone()) {
                tell_latecomer(&yard, &id, pod, &recorder);
            }
        }
        let gone: Vec<Proxy> = waiting.extract_if(.., |proxy| has_ended(proxy, pods.get(proxy.id.as_str()))).collect();
        for proxy in gone {
            let exit = exit(&yard, &proxy, pods.get(proxy.id.as_str()));
            let ProxyExit { code, signal, expected, log_tail, .. } = exit.clone();
            recorder.record(Source::Process, Some(&exit.id), None, Exited { code, signal, expected, log_tail });
            ended.send_modify(|exits| exits.push(exit));
        }
    }
}

/// A proxy that somebody else brought into the namespace. Whoever claims something of all that are there has to know of it:
/// nothing of it is seen, and it is not said to be well.
fn tell_latecomer(yard: &Yard, id: &ProxyId, pod: &PodSeen, recorder: &Recorder) {
    let what = format!("pod {}/{id}, which came while the cell was observed", yard.ground.namespace);
    recorder.record(Source::Process, Some(id), None, Spawned { pid: pod.process(SIDECAR), what });
    let blind = Blind {
        layer: Some(Layer::Served),
        what: "the proxy of a pod that came later".to_owned(),
        why: "the cell's ways lead only to the pods that it has made".to_owned(),
    };
    recorder.record(Source::Process, Some(id), None, blind);
}

/// Whether this is another pod, or another start of the proxy's container, or none.
fn has_ended(proxy: &Proxy, pod: Option<&PodSeen>) -> bool {
    pod.is_none_or(|pod| {
        pod.ending
            || pod.process(SIDECAR) != proxy.pid
            || pod.containers.get(SIDECAR).is_some_and(|c| !c.running && c.exit_code.is_some())
    })
}

fn exit(yard: &Yard, proxy: &Proxy, pod: Option<&PodSeen>) -> ProxyExit {
    let code = pod.and_then(|pod| pod.containers.get(SIDECAR)).and_then(|c| c.exit_code);
    // As shells and container runtimes tell of signals.
    let signal = code.filter(|code| (129..=192).contains(code)).map(|code| code - 128);
    let mut log_tail = crate::proc::log_tail(&proxy.log, LOG_LINES).unwrap_or_default();
    log_tail.extend(what_became(pod).map(|words| format!("{POD}{}/{} {words}", yard.ground.namespace, proxy.id)));
    ProxyExit {
        id: proxy.id.clone(),
        pid: proxy.pid,
        code: code.filter(|_| signal.is_none()),
        signal,
        expected: false,
        log_tail,
        log: proxy.log.clone(),
    }
}

/// Where it is more than the end of a process: a pod that is no more, or another one.
fn what_became(pod: Option<&PodSeen>) -> Option<&'static str> {
    match pod {
        None => Some("is gone"),
        Some(pod) if pod.ending => Some("is being deleted"),
        // The number of a process is that of its pod and its start: nothing ended here, and it is another one.
        Some(pod) if pod.containers.get(SIDECAR).is_none_or(|c| c.restarts == 0 && c.exit_code.is_none()) => {
            Some("is another one of that name")
        }
        Some(_) => None,
    }
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
            live = try_join_all(proxies.iter().map(|proxy| ready::ready(proxy, self.since, deadline))) => live,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ContainerSeen;

    #[test]
    fn a_pod_that_is_no_more_is_told_from_a_container_that_ended() {
        let pod = |ending: bool, exit_code: Option<i32>, restarts: i32| {
            let sidecar =
                ContainerSeen { running: exit_code.is_none(), exit_code, restarts, ..ContainerSeen::default() };
            PodSeen { ending, containers: [(SIDECAR.to_owned(), sidecar)].into(), ..PodSeen::default() }
        };
        assert_eq!(what_became(None), Some("is gone"));
        assert_eq!(what_became(Some(&pod(true, None, 0))), Some("is being deleted"));
        assert_eq!(what_became(Some(&pod(false, None, 0))), Some("is another one of that name"));
        assert_eq!(what_became(Some(&pod(false, Some(137), 1))), None);
        assert_eq!(what_became(Some(&pod(false, Some(1), 0))), None);
    }
}
