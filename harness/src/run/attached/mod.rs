//! Proxies that somebody else runs: the observation of a cell, with bring-up and tear-down left out.

mod logger;
mod probing;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::task::JoinSet;

use super::Stop;
use crate::clock::{Clock, Deadline};
use crate::cluster::{Cluster, ClusterError, Right, Sidecar};
use crate::fleet::{Admin as _, Attached, ReachError};
use crate::probe::{self, ProbeContext};
use crate::timeline::{
    AGENT_SAYS, Blind, CellId, ClockKind, Criteria, EnvoySubject, EnvoyVersion, Exited, Expectation, ExpectedJudgement,
    Header, IstioSubject, Layer, Log, Phase, ProviderSubject, ProxyId, RELOAD_FAILED, RecordError, Recorder, Role,
    SCHEMA_VERSION, ScenarioName, SdsMessage, Source, Spawned, Step, Subject, Timeline,
};

pub use logger::LeftRaised;
pub use probing::Probe;
pub use witness::Witness;

use logger::Loggers;
use probing::Probing;

/// The version in the header where no proxy gave one.
pub const UNKNOWN_VERSION: &str = "0.0.0";
/// Proxies that are asked at a time: each has a connection through the API server.
const AT_A_TIME: usize = 32;
/// Of one question: through the API server and a node.
const PATIENCE: Duration = Duration::from_secs(15);
/// What Envoy logs of a stream that does not come up is told of the last so many seconds: it tries again within thirty.
const LATELY_S: i64 = 50;
/// Of one look at one proxy, however many questions that are.
const ONE_LOOK: Duration = Duration::from_secs(40);

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The namespace; all of them without.
    pub namespace: Option<String>,
    /// One pod of it.
    pub pod: Option<String>,
    /// Port of the admin API on a proxy's own loopback.
    pub admin_port: u16,
    /// How long to go on looking; one look without.
    pub watch: Option<Duration>,
    /// Between two looks.
    pub every: Duration,
    /// Interval at which the provider is to renew, if that is known.
    pub renew_every: Option<Duration>,
    /// A subscriber that joins the one pod.
    pub witness: Option<Witness>,
    /// Whether, and from where, handshakes are made.
    pub prober: Option<Probe>,
    /// Whether Envoy's logger `config` is raised to debug meanwhile.
    pub raise_config_log: bool,
}

/// What was seen of a cluster.
#[derive(Debug)]
pub struct Attended {
    /// The recording.
    pub timeline: Timeline,
    /// The pods, by the names of their proxies; also those that are gone.
    pub pods: BTreeMap<ProxyId, Sidecar>,
    /// Those that were gone at the end.
    pub gone: BTreeSet<ProxyId>,
    /// Rights that were missing, with what the cluster said.
    pub forbidden: BTreeMap<Right, String>,
    /// Loggers that were raised, and could not be put back.
    pub left_raised: Vec<LeftRaised>,
}

/// Why nothing was seen.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The cluster did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// It has no proxies there.
    #[error("find a proxy in {place}")]
    NoProxy {
        /// In words.
        place: String,
    },
    /// The recording could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Looks at the proxies of a cluster once, or for a while, until `stop`. Nothing is changed there but what is wished for
/// (`witness`, `prober`, `raise_config_log`). `tell` hears of each look: how many there were, and how much of the time has passed.
pub async fn attend(
    cluster: &Cluster,
    attachment: &Attachment,
    out: Option<File>,
    stop: &Stop,
    tell: &(dyn Fn(u32, Duration) + Sync),
) -> Result<Attended, AttachError> {
    let sidecars = list(cluster, attachment).await?;
    let place = attachment.namespace.as_ref().map_or("any namespace".to_owned(), |name| format!("namespace {name}"));
    if sidecars.is_empty() {
        return Err(AttachError::NoProxy { place });
    }
    let mut fleet = BTreeMap::new();
    join(cluster, attachment, sidecars, &mut fleet);
    let version = version(&fleet).await;
    let clock = Clock::real();
    let header = header(&fleet, attachment, version, clock.now());
    let recorder = Recorder::new(header, clock, out);
    let ctx = ProbeContext::of_admin(recorder.clone()).with_patience(PATIENCE);
    let mut attending = Attending {
        cluster,
        attachment,
        ctx,
        recorder,
        fleet,
        processes: BTreeMap::new(),
        gone: BTreeSet::new(),
        forbidden: BTreeMap::new(),
        probing: None,
        witnessing: JoinSet::new(),
        loggers: Loggers::default(),
        read: (!attachment.raise_config_log).then(Read::default),
        left_raised: Vec::new(),
    };
    attending.recorder.record(Source::Harness, None, None, Phase { name: "observe".into() });
    if let Some(wish) = &attachment.prober {
        attending.probing = Probing::start(cluster, wish, stop, &attending.recorder).await;
    }
    attending.look_on(stop, tell).await;
    let loggers = std::mem::take(&mut attending.loggers);
    attending.left_raised = loggers.put_back(&attending.fleet, cluster, &attending.recorder).await;
    if let Some(probing) = attending.probing.take() {
        probing.clear(&attending.recorder).await;
    }
    attending.finish()
}

async fn list(cluster: &Cluster, attachment: &Attachment) -> Result<Vec<Sidecar>, ClusterError> {
    match (&attachment.pod, &attachment.namespace) {
        (Some(pod), Some(namespace)) => Ok(vec![cluster.sidecar(namespace, pod).await?]),
        (_, namespace) => cluster.sidecars(namespace.as_deref()).await,
    }
}

/// Takes in pods that are new, or another one of the same name.
fn join(cluster: &Cluster, attachment: &Attachment, sidecars: Vec<Sidecar>, fleet: &mut BTreeMap<ProxyId, Attached>) {
    for sidecar in sidecars {
        // Names of pods and namespaces are DNS labels and subdomains (RFC 1123), which is what proxies may be called.
        let Ok(attached) = Attached::new(cluster, &sidecar, attachment.admin_port) else { continue };
        let known = fleet.get(attached.id()).map(Attached::sidecar);
        if known != Some(&sidecar) {
            fleet.insert(attached.id().clone(), attached);
        }
    }
}

/// What the first proxy that answers says it is.
async fn version(fleet: &BTreeMap<ProxyId, Attached>) -> Option<EnvoyVersion> {
    for attached in fleet.values().filter(|a| a.sidecar().down.is_none()).take(3) {
        let answer = attached.ask("/server_info", Deadline::after(PATIENCE)).await;
        let version = answer.ok().and_then(|(_, body)| probe::version_of(&body));
        if version.is_some() {
            return version;
        }
    }
    None
}

fn header(
    fleet: &BTreeMap<ProxyId, Attached>,
    attachment: &Attachment,
    version: Option<EnvoyVersion>,
    started: jiff::Timestamp,
) -> Header {
    let istio = fleet.values().map(Attached::sidecar).find(|s| s.is_istio).map(|s| {
        let tag = s.image.rsplit('/').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
        IstioSubject { version: tag.unwrap_or("unknown").to_owned(), source: "cluster".to_owned(), name: None }
    });
    Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: env!("CARGO_PKG_VERSION").to_owned(),
        cell: CellId::parse("diagnose@cluster").expect("a fixed name"),
        scenario: ScenarioName::parse("diagnose").expect("a fixed name"),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject {
                version: version.unwrap_or_else(|| EnvoyVersion::parse(UNKNOWN_VERSION).expect("a fixed version")),
                source: "cluster".to_owned(),
            },
            istio,
            provider: ProviderSubject { kind: "unknown".into(), profile: None, version: "unknown".into() },
            cluster: None,
        },
        clock: ClockKind::Real,
        started,
        // They come and go: each is known from its first observation on.
        proxies: Vec::new(),
        criteria: Criteria {
            ttl_s: 0,
            renew_every_s: attachment.renew_every.map(|every| every.as_secs()),
            lag_bound_ms: 5000,
            margin_floor_s: 0,
            margin_floor_ms: None,
            newer_generations: 1,
            generations_past_first_expiry: 0,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    }
}

struct Attending<'a> {
    cluster: &'a Cluster,
    attachment: &'a Attachment,
    ctx: ProbeContext,
    recorder: Recorder,
    fleet: BTreeMap<ProxyId, Attached>,
    /// The process of each that was recorded last.
    processes: BTreeMap<ProxyId, i32>,
    gone: BTreeSet<ProxyId>,
    forbidden: BTreeMap<Right, String>,
    probing: Option<Probing>,
    /// What becomes of the subscriber beside the proxy: the right that is missing, if one is.
    witnessing: JoinSet<Option<(Right, String)>>,
    loggers: Loggers,
    /// Up to when the logs of proxies were read, where their loggers are left as they are.
    read: Option<Read>,
    left_raised: Vec<LeftRaised>,
}

type Read = Mutex<BTreeMap<ProxyId, jiff::Timestamp>>;

impl Attending<'_> {
    async fn look_on(&mut self, stop: &Stop, tell: &(dyn Fn(u32, Duration) + Sync)) {
        let began = tokio::time::Instant::now();
        let end = began + self.attachment.watch.unwrap_or_default();
        for index in 0.. {
            self.recorder.record(Source::Harness, None, None, Step { index, renewal: None, what: "a look".into() });
            tokio::select! {
                () = self.look(index == 0) => {}
                () = stop.requested() => return,
            }
            tell(index + 1, began.elapsed());
            self.recorder.flush();
            if self.attachment.raise_config_log {
                let there: Vec<_> = there_now(&self.fleet, &self.gone).collect();
                self.loggers.raise(&there, self.cluster, &self.recorder).await;
            }
            if index == 0 {
                self.let_join();
            }
            let next = tokio::time::Instant::now() + self.attachment.every;
            if tokio::time::Instant::now() >= end {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep_until(next.min(end)) => {}
                () = stop.requested() => return,
            }
            self.refresh().await;
        }
        tokio::select! {
            () = self.hear_out() => {}
            () = stop.requested() => {}
        }
    }

    /// The subscriber joins its pod when it is known where the proxy subscribes.
    fn let_join(&mut self) {
        let Some(wish) = &self.attachment.witness else { return };
        let times = (self.attachment.watch, self.attachment.every);
        for (id, attached) in &self.fleet {
            let (cluster, sidecar) = (self.cluster.clone(), attached.sidecar().clone());
            let witness = witness::witness(cluster, sidecar, id.clone(), wish.clone(), times, self.recorder.clone());
            self.witnessing.spawn(witness);
        }
    }

    /// What it tells last.
    async fn hear_out(&mut self) {
        let mut any = false;
        while let Some(ended) = self.witnessing.join_next().await {
            any = true;
            self.forbidden.extend(ended.ok().flatten());
        }
        // What it was given, the proxy may have been given since.
        if any && self.attachment.watch.is_some() {
            self.look(false).await;
        }
    }

    /// Who is there now: pods that came are looked at from now on, those that went are said to have gone.
    async fn refresh(&mut self) {
        let sidecars = match list(self.cluster, self.attachment).await {
            Ok(sidecars) => sidecars,
            Err(ClusterError::Missing { .. }) => Vec::new(),
            Err(e) => {
                let blind = Blind { layer: None, what: "pods".into(), why: e.to_string() };
                self.recorder.record(Source::Harness, None, None, blind);
                return;
            }
        };
        let here: BTreeSet<_> = sidecars.iter().map(|s| (&s.pod.namespace, &s.pod.name)).collect();
        for (id, attached) in &self.fleet {
            let pod = &attached.sidecar().pod;
            if !here.contains(&(&pod.namespace, &pod.name)) && self.gone.insert(id.clone()) {
                let log_tail = vec![format!("the pod {pod} is gone")];
                let exited = Exited { code: None, signal: None, expected: true, log_tail };
                self.recorder.record(Source::Process, Some(id), None, exited);
                // Whoever comes again under this name is said to have started, even if it is the same.
                self.processes.remove(id);
            }
        }
        // A StatefulSet gives its names again.
        let fleet = &self.fleet;
        self.gone.retain(|id| {
            let pod = fleet.get(id).map(|attached| &attached.sidecar().pod);
            pod.is_none_or(|pod| !here.contains(&(&pod.namespace, &pod.name)))
        });
        join(self.cluster, self.attachment, sidecars, &mut self.fleet);
    }

    async fn look(&mut self, first: bool) {
        let there: Vec<_> = self.fleet.iter().filter(|(id, _)| !self.gone.contains(*id)).collect();
        for (id, attached) in &there {
            let process = attached.process();
            if self.processes.insert((*id).clone(), process) != Some(process) {
                let s = attached.sidecar();
                let node = s.node.as_deref().unwrap_or("no node");
                let what = format!("{} of the pod {} on {node} ({})", s.container, s.pod, s.image);
                self.recorder.record(Source::Process, Some(id), None, Spawned { pid: process, what });
            }
        }
        let (ctx, recorder, read) = (&self.ctx, &self.recorder, self.read.as_ref());
        let forbidden: Vec<_> = futures::stream::iter(there)
            .map(async |(_, attached)| {
                match tokio::time::timeout(ONE_LOOK, one(attached, first, ctx, recorder, read)).await {
                    Ok(forbidden) => forbidden,
                    Err(_) => {
                        blind(recorder, attached, "a look", &format!("not over in {} s", ONE_LOOK.as_secs()));
                        Vec::new()
                    }
                }
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        for (right, said) in forbidden.into_iter().flatten() {
            self.forbidden.entry(right).or_insert(said);
        }
        if let Some(probing) = &self.probing {
            let there: Vec<_> = there_now(&self.fleet, &self.gone).collect();
            probing.shake_hands(&there, &self.ctx, &self.recorder).await;
        }
    }

    fn finish(self) -> Result<Attended, AttachError> {
        let mut forbidden = self.forbidden;
        if let Some(e) = self.fleet.values().find_map(Attached::forbidden) {
            forbidden.insert(Right::Forward, e.to_string());
        }
        let timeline = self.recorder.finish(None)?;
        let pods = self.fleet.iter().map(|(id, attached)| (id.clone(), attached.sidecar().clone())).collect();
        Ok(Attended { timeline, pods, gone: self.gone, forbidden, left_raised: self.left_raised })
    }
}

fn there_now<'a>(
    fleet: &'a BTreeMap<ProxyId, Attached>,
    gone: &'a BTreeSet<ProxyId>,
) -> impl Iterator<Item = &'a Attached> {
    fleet.iter().filter(|(id, _)| !gone.contains(*id)).map(|(_, attached)| attached)
}

/// One look at one proxy; gives the rights that it found missing.
async fn one(
    attached: &Attached,
    whole: bool,
    ctx: &ProbeContext,
    recorder: &Recorder,
    read: Option<&Read>,
) -> Vec<(Right, String)> {
    if let Some(why) = &attached.sidecar().down {
        blind(recorder, attached, "the admin API", why);
        return Vec::new();
    }
    // Whoever gives no answer to the smallest question is not asked the others.
    match attached.ask("/server_info", Deadline::after(PATIENCE)).await {
        Ok(_) => {}
        Err(e) => {
            blind(recorder, attached, "the admin API", &e.to_string());
            return forbidden(&e).into_iter().collect();
        }
    }
    probe::server_info(attached, ctx).await;
    // In this order: what the dump has, contexts hold a moment later.
    probe::config_dump(attached, whole, ctx).await;
    probe::stats(attached, whole, ctx).await;
    probe::certs(attached, ctx).await;
    if !whole && read.is_none() {
        return Vec::new();
    }
    match attached.log((!whole).then_some(LATELY_S), Deadline::after(PATIENCE)).await {
        Ok(log) => {
            let telling =
                |line: &str| line.contains(RELOAD_FAILED) || AGENT_SAYS.iter().any(|word| line.contains(word));
            for (_, line) in log.iter().filter(|(_, line)| whole && telling(line)) {
                let line = line.chars().filter(|c| !c.is_control()).take(500).collect();
                recorder.record(Source::Process, Some(attached.id()), None, Log { line });
            }
            if let Some(read) = read {
                warnings(attached.id(), &log, read, recorder);
            }
            Vec::new()
        }
        Err(_) if !whole => Vec::new(),
        Err(e) => {
            blind(recorder, attached, "log", &e.to_string());
            forbidden(&e).into_iter().collect()
        }
    }
}

/// Records what a log tells lately of SDS streams that ended or do not come up, and of refused updates: Envoy writes that as a warning.
fn warnings(id: &ProxyId, log: &[(jiff::Timestamp, String)], read: &Read, recorder: &Recorder) {
    let now = recorder.clock().now();
    let until = log.last().map(|(time, _)| *time);
    let before = {
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        until.and_then(|until| read.insert(id.clone(), until))
    };
    let lately =
        |time: jiff::Timestamp| now.duration_since(time).as_secs() <= LATELY_S && before.is_none_or(|b| time > b);
    for (time, line) in log.iter().filter(|(time, _)| lately(*time)) {
        if let Some(message @ (SdsMessage::Closed { .. } | SdsMessage::Refused { .. })) = SdsMessage::of_line(line) {
            let log = Log { line: message.to_string() };
            recorder.record_at(Some(witness::seen_at(recorder, *time)), Source::Process, Some(id), None, log.into());
        }
    }
}

fn blind(recorder: &Recorder, attached: &Attached, what: &str, why: &str) {
    let layer = (what != "log").then_some(Layer::Loaded);
    let blind = Blind { layer, what: what.to_owned(), why: why.to_owned() };
    recorder.record(Source::Admin, Some(attached.id()), None, blind);
}

fn forbidden(e: &ReachError) -> Option<(Right, String)> {
    match e {
        ReachError::Cluster(e) => Some((e.missing_right()?, e.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::canned::{answering, status};
    use crate::timeline::Fact;

    fn attachment() -> Attachment {
        Attachment {
            namespace: Some("ns1".into()),
            pod: None,
            admin_port: 15000,
            watch: None,
            every: Duration::from_secs(1),
            renew_every: None,
            witness: None,
            prober: None,
            raise_config_log: false,
        }
    }

    fn pods(state: &serde_json::Value) -> serde_json::Value {
        let status = json!({"name": "istio-proxy", "restartCount": 0, "ready": true, "image": "", "imageID": "", "state": state});
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [{
            "metadata": {"name": "a-1", "namespace": "ns1", "uid": "u"},
            "spec": {"containers": [{"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"}]},
            "status": {"phase": "Running", "containerStatuses": [status]}}]})
    }

    #[tokio::test]
    async fn without_rights_every_one_of_them_is_named_and_the_proxy_is_unseen() {
        let forbidden = || (403, status(403, "it is forbidden"));
        let (cluster, asked) =
            answering(vec![(200, pods(&json!({"running": {}}))), forbidden(), forbidden(), forbidden()]);
        let attended = attend(&cluster, &attachment(), None, &Stop::default(), &|_, _| ()).await.unwrap();
        assert_eq!(attended.forbidden.keys().collect::<Vec<_>>(), [&Right::Forward, &Right::Exec]);
        assert_eq!(attended.pods.keys().map(ProxyId::as_str).collect::<Vec<_>>(), ["a-1.ns1"]);
        assert_eq!(attended.timeline.header.subject.istio.as_ref().unwrap().version, "1.31.0");
        let blind = attended
            .timeline
            .observations
            .iter()
            .any(|o| matches!(&o.fact, Fact::Blind(b) if b.why.contains("forbids")));
        assert!(blind, "{:?}", attended.timeline.observations);
        let standing = crate::verdict::standings(&attended.timeline).remove(0);
        assert_eq!(standing.state, crate::verdict::State::Unseen);
        // Nothing was asked for but what these rights are about.
        assert_eq!(asked.await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_pod_that_does_not_run_is_not_asked() {
        let (cluster, _) = answering(vec![(200, pods(&json!({"waiting": {"reason": "CrashLoopBackOff"}})))]);
        let attended = attend(&cluster, &attachment(), None, &Stop::default(), &|_, _| ()).await.unwrap();
        let standing = crate::verdict::standings(&attended.timeline).remove(0);
        assert!(standing.unseen[0].contains("CrashLoopBackOff"), "{standing:?}");
    }

    #[tokio::test]
    async fn a_pod_that_comes_again_under_its_name_is_looked_at_again() {
        let here = || (200, pods(&json!({"waiting": {"reason": "CrashLoopBackOff"}})));
        let none = (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}));
        let (cluster, _) = answering(vec![here(), none, here()]);
        let (watch, every) = (Some(Duration::from_secs(60)), Duration::from_millis(200));
        let attachment = Attachment { watch, every, ..attachment() };
        let stop = Stop::default();
        let tell = |looks: u32, _: Duration| {
            if looks == 3 {
                stop.ask();
            }
        };
        let attended = attend(&cluster, &attachment, None, &stop, &tell).await.unwrap();
        assert!(attended.gone.is_empty(), "{:?}", attended.gone);
        let seen: Vec<&str> = attended
            .timeline
            .observations
            .iter()
            .filter_map(|o| match &o.fact {
                Fact::Spawned(_) => Some("there"),
                Fact::Exited(_) => Some("gone"),
                Fact::Blind(_) => Some("asked"),
                _ => None,
            })
            .collect();
        assert_eq!(seen, ["there", "asked", "gone", "there", "asked"]);
    }

    #[tokio::test]
    async fn a_namespace_without_proxies_is_an_error() {
        let none = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []});
        let (cluster, _) = answering(vec![(200, none)]);
        let e = attend(&cluster, &attachment(), None, &Stop::default(), &|_, _| ()).await.unwrap_err();
        assert_eq!(e.to_string(), "find a proxy in namespace ns1");
    }
}
