//! Who comes and goes while a cell is observed: each sidecar in its namespace is a proxy from its first moment on, until its
//! container or its pod ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::lives::{Lives, Turn};
use super::log::log;
use super::mesh::{APPLICATION, SIDECAR, SOCKETS};
use super::pods::{AGAIN, LOG, LOG_LINES, Pattern};
use super::present::Present;
use super::ways::{Ways, has_relay, reach, sides};
use super::yard::Yard;
use crate::clock::Deadline;
use crate::cluster::PodSeen;
use crate::fleet::error::POD;
use crate::fleet::member::Ended;
use crate::fleet::{FleetError, Newcomer, Proxy, ProxyExit, keep, ready};
use crate::remote::Link;
use crate::scenario::TRUST_DOMAIN;
use crate::timeline::{Blind, Exited, Joined, Layer, ProxyId, Recorder, Source, Spawned, SpiffeId, TlsRole};

/// How long one whose container is ready may take until all its listeners are there.
const TO_LISTEN: Duration = Duration::from_secs(60);

/// What is known at the beginning, and who is told of the rest.
pub(super) struct Attendance {
    pub(super) yard: Arc<Yard>,
    pub(super) recorder: Recorder,
    pub(super) directory: Utf8PathBuf,
    pub(super) pattern: Pattern,
    pub(super) present: Arc<Present>,
    pub(super) newcomers: UnboundedSender<Newcomer>,
    /// Ends before all were ready once.
    pub(super) ended: Arc<Ended>,
    pub(super) settled: Arc<AtomicBool>,
    /// Relays in pods, with the uid of the pod.
    pub(super) links: BTreeMap<String, (String, Link)>,
    /// Who writes down what a pod's proxy says.
    pub(super) logs: BTreeMap<ProxyId, AbortHandle>,
}

/// One that runs, and to which there are no ways yet.
struct Coming {
    id: ProxyId,
    reaching: bool,
}

/// What was done at leisure.
enum Done {
    Admitted { id: ProxyId, admitted: Result<(), FleetError> },
    Linked { pod: String, uid: String, link: Result<Link, FleetError> },
    Reached { pod: String, id: ProxyId, reached: Result<Box<(Proxy, Ways)>, FleetError> },
}

impl Attendance {
    /// Goes on as long as somebody waits for it.
    pub(super) async fn keep(mut self, deployed: Vec<Proxy>) {
        let mut watch = self.yard.place.cluster.watch_pods(&self.yard.ground.namespace, "");
        let mut lives = Lives::of(deployed.iter().map(|proxy| (proxy.id.as_str(), proxy.pid)));
        let mut pids: BTreeMap<ProxyId, i32> = deployed.iter().map(|proxy| (proxy.id.clone(), proxy.pid)).collect();
        let mut pods = BTreeMap::new();
        let mut coming: BTreeMap<String, Coming> = BTreeMap::new();
        let (mut work, mut logs) = (JoinSet::new(), JoinSet::new());
        let mut silent = false;
        loop {
            tokio::select! {
                seen = async { watch.next().await.cloned() } => match seen {
                    Ok(seen) => {
                        silent = false;
                        pods = seen;
                    }
                    Err(e) => {
                        if !std::mem::replace(&mut silent, true) {
                            let blind = Blind { layer: None, what: "pods that come and go".to_owned(), why: e.to_string() };
                            self.recorder.record(Source::Process, None, None, blind);
                        }
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                },
                Some(done) = work.join_next() => match done {
                    Ok(Done::Admitted { id, admitted }) => {
                        if let Err(e) = admitted {
                            self.blind(&id, e.to_string());
                        }
                    }
                    Ok(Done::Linked { pod, uid, link }) => self.linked(pod, uid, link),
                    Ok(Done::Reached { pod, id, reached }) => {
                        if coming.get(&pod).is_some_and(|c| c.id == id) {
                            coming.remove(&pod);
                            self.reached(&id, reached);
                        }
                    }
                    Err(_) => continue,
                },
            }
            for turn in lives.take(&pods) {
                match turn {
                    Turn::Announced { id, account } => {
                        let pod = pods.get(id.as_str());
                        self.announce(id, account, pod, &mut work);
                    }
                    Turn::Began { id, after, pod } => {
                        let Some(seen) = pods.get(&pod) else { continue };
                        pids.insert(id.clone(), seen.process(SIDECAR));
                        if self.began(&id, after, &pod, seen, &mut logs) {
                            coming.insert(pod, Coming { id, reaching: false });
                        }
                    }
                    Turn::Ended { id, pod } => {
                        coming.remove(&pod);
                        self.ended(&id, pids.get(&id).copied().unwrap_or_default(), pods.get(&pod));
                    }
                }
            }
            for (name, one) in &mut coming {
                let Some(pod) = pods.get(name).filter(|_| !one.reaching) else { continue };
                one.reaching = self.approach(name, &one.id, pod, &mut work);
            }
        }
    }

    /// Whoever issues is to know it before it asks.
    fn announce(&self, id: ProxyId, account: String, pod: Option<&PodSeen>, work: &mut JoinSet<Done>) {
        if let (Some(doors), Some(pod)) = (self.yard.doors.get(), pod)
            && doors.asked.not_from(pod).is_none()
            && let Err(e) = doors.open(&id)
        {
            self.blind(&id, e.to_string());
        }
        let path = format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{account}", self.yard.ground.namespace);
        let Ok(spiffe_id) = SpiffeId::parse(&path) else { return };
        // Whoever would hear it is gone only with us.
        let _ = self.newcomers.send(Newcomer { id: id.clone(), spiffe_id: spiffe_id.clone() });
        let yard = self.yard.clone();
        work.spawn(async move { Done::Admitted { id, admitted: yard.admit(&account, &spiffe_id).await } });
    }

    /// Records that it is there; whether there is more to be seen of it.
    fn began(
        &mut self,
        id: &ProxyId,
        after: Option<ProxyId>,
        pod: &str,
        seen: &PodSeen,
        logs: &mut JoinSet<()>,
    ) -> bool {
        if after.is_some() {
            // What the streams and the handshakes call by the pod's name is from now on this one.
            if let Ok(name) = ProxyId::parse(pod) {
                self.recorder.rename(&name, id.clone());
            }
        }
        let sides = sides(seen);
        let roles = [(TlsRole::Inbound, sides.inbound), (TlsRole::Outbound, sides.dial_out)];
        let roles = roles.into_iter().filter_map(|(role, seen)| seen.then_some(role)).collect();
        self.recorder.record(Source::Process, Some(id), None, Joined { after, roles });
        let namespace = &self.yard.ground.namespace;
        let spawned = Spawned { pid: seen.process(SIDECAR), what: format!("pod {namespace}/{pod}") };
        self.recorder.record(Source::Process, Some(id), None, spawned);
        let kept = self.directory.join("proxies").join(id.as_str());
        if let Err(e) = keep::directory(&kept) {
            tracing::warn!("cannot keep what {id} says in {kept}: {e}");
        }
        let following = logs.spawn(log(self.yard.clone(), pod.to_owned(), SIDECAR, kept.join(LOG)));
        self.logs.insert(id.clone(), following);
        let unserved = if seen.annotations.contains_key(SOCKETS) {
            self.yard.doors.get().and_then(|doors| doors.asked.not_from(seen))
        } else {
            Some("its sidecar was not injected with the template rotacheck: its certificates come from elsewhere")
        };
        if let Some(why) = unserved {
            self.blind(id, why.to_owned());
        }
        unserved.is_none()
    }

    /// One step nearer to it, if there is one to take: a link to the relay in its pod, then all ways. Whether the last step is
    /// on its way.
    fn approach(&mut self, name: &str, id: &ProxyId, pod: &PodSeen, work: &mut JoinSet<Done>) -> bool {
        let runs = |container: &str| pod.containers.get(container).is_some_and(|c| c.running);
        let link = match self.links.get(name).filter(|(uid, _)| *uid == pod.uid) {
            Some((_, link)) => Some(link.clone()),
            None if has_relay(pod) => {
                if runs(APPLICATION) && self.pattern.linking.insert(pod.uid.clone()) {
                    let (yard, pod, uid) = (self.yard.clone(), name.to_owned(), pod.uid.clone());
                    work.spawn(async move {
                        let link = yard.link(&pod).await;
                        Done::Linked { pod, uid, link }
                    });
                }
                return false;
            }
            None => None,
        };
        let ready = pod.ip.is_some() && pod.containers.get(SIDECAR).is_some_and(|c| c.ready);
        if ready {
            let (yard, name, id, pod) = (self.yard.clone(), name.to_owned(), id.clone(), pod.clone());
            let (pattern, kept) = (self.pattern.clone(), self.directory.join("proxies").join(id.as_str()));
            work.spawn(async move {
                let reached = arrive(&yard, &name, &id, &pod, link.as_ref(), &pattern, kept).await;
                Done::Reached { pod: name, id, reached }
            });
        }
        ready
    }

    fn linked(&mut self, pod: String, uid: String, link: Result<Link, FleetError>) {
        match link {
            Ok(link) => {
                if let Some(doors) = self.yard.doors.get() {
                    doors.lead(&pod, &link);
                }
                self.links.insert(pod, (uid, link));
            }
            Err(e) => {
                let why = format!("{pod}: {e}");
                let blind = Blind { layer: None, what: "the relay in a pod that came later".to_owned(), why };
                self.recorder.record(Source::Harness, None, None, blind);
            }
        }
    }

    fn reached(&self, id: &ProxyId, reached: Result<Box<(Proxy, Ways)>, FleetError>) {
        match reached {
            Ok(arrived) => self.present.enter(arrived.0, arrived.1),
            Err(e) => self.blind(id, e.to_string()),
        }
    }

    fn blind(&self, id: &ProxyId, why: String) {
        let blind = Blind { layer: Some(Layer::Served), what: "a proxy that came later".to_owned(), why };
        self.recorder.record(Source::Process, Some(id), None, blind);
    }

    fn ended(&mut self, id: &ProxyId, pid: i32, pod: Option<&PodSeen>) {
        self.present.leave(id);
        if let Some(following) = self.logs.remove(id) {
            following.abort();
        }
        let log = self.directory.join("proxies").join(id.as_str()).join(LOG);
        let exit = exit(&self.yard.ground.namespace, id, pid, pod, log);
        let ProxyExit { code, signal, expected, log_tail, .. } = exit.clone();
        self.recorder.record(Source::Process, Some(id), None, Exited { code, signal, expected, log_tail });
        // Later on, whatever follows is judged; and that nothing does is told.
        if !self.settled.load(Ordering::Acquire) {
            self.ended.send_modify(|exits| exits.push(exit));
        }
    }
}

/// Ways to it, and all its listeners.
async fn arrive(
    yard: &Yard,
    name: &str,
    id: &ProxyId,
    pod: &PodSeen,
    link: Option<&Link>,
    pattern: &Pattern,
    kept: Utf8PathBuf,
) -> Result<Box<(Proxy, Ways)>, FleetError> {
    let (next, service) = pattern.next_of(name);
    let ways = reach(yard, name, pod, link, service).await?;
    // Of a provider that gives the identities it likes, they are learnt from what it sends.
    let learnt = yard.doors.get().is_some_and(|doors| doors.asked.is_to_be_met().is_some());
    let path = format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}", yard.ground.namespace, pod.account);
    let proxy = pattern.proxy(id, SpiffeId::parse(&path).ok().filter(|_| !learnt), pod, &ways, next, &kept);
    // The one that it calls may have gone, and it is judged by what it serves all the same.
    ready::ready(&proxy, &[], Instant::now(), Deadline::after(TO_LISTEN)).await?;
    Ok(Box::new((proxy, ways)))
}

fn exit(namespace: &str, id: &ProxyId, pid: i32, pod: Option<&PodSeen>, log: Utf8PathBuf) -> ProxyExit {
    let sidecar = pod.and_then(|pod| pod.containers.get(SIDECAR));
    let of_pod = what_became(pod);
    let code = sidecar.and_then(|c| c.exit_code).filter(|_| of_pod.is_none());
    // As shells and container runtimes tell of signals.
    let signal = code.filter(|code| (129..=192).contains(code)).map(|code| code - 128);
    let mut log_tail = crate::proc::log_tail(&log, LOG_LINES).unwrap_or_default();
    // That it ended, its code says: this is for who was killed for its memory.
    let telling = |reason: &&String| of_pod.is_none() && !matches!(reason.as_str(), "Completed" | "Error");
    let reason = sidecar.and_then(|c| c.reason.as_ref()).filter(telling);
    log_tail.extend(reason.map(|reason| format!("its container: {reason}")));
    log_tail.extend(of_pod.map(|words| format!("{POD}{namespace}/{id} {words}")));
    ProxyExit {
        id: id.clone(),
        pid,
        code: code.filter(|_| signal.is_none()),
        signal,
        // Nothing went wrong with the proxy where somebody takes its pod away.
        expected: of_pod.is_some(),
        log_tail,
        log,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ContainerSeen;

    fn pod(ending: bool, exit_code: Option<i32>, restarts: i32) -> PodSeen {
        let sidecar = ContainerSeen { running: exit_code.is_none(), exit_code, restarts, ..ContainerSeen::default() };
        PodSeen { ending, containers: [(SIDECAR.to_owned(), sidecar)].into(), ..PodSeen::default() }
    }

    #[test]
    fn a_pod_that_is_no_more_is_told_from_a_container_that_ended() {
        assert_eq!(what_became(None), Some("is gone"));
        assert_eq!(what_became(Some(&pod(true, None, 0))), Some("is being deleted"));
        assert_eq!(what_became(Some(&pod(false, None, 0))), Some("is another one of that name"));
        assert_eq!(what_became(Some(&pod(false, Some(137), 1))), None);
        assert_eq!(what_became(Some(&pod(false, Some(1), 0))), None);
    }

    #[test]
    fn who_was_taken_away_did_not_crash() {
        let id = ProxyId::parse("a").unwrap();
        let of = |pod: Option<&PodSeen>| {
            let exit = exit("ns", &id, 1, pod, "/nowhere".into());
            (exit.expected, exit.code, exit.signal)
        };
        assert_eq!(of(Some(&pod(true, Some(0), 0))), (true, None, None));
        assert_eq!(of(Some(&pod(false, Some(3), 1))), (false, Some(3), None));
        assert_eq!(of(Some(&pod(false, Some(137), 1))), (false, None, Some(9)));
    }
}
