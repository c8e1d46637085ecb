//! A plan that runs in a cluster, a part of it in each pod of an Indexed Job. The pods run what one machine would, and hand
//! their run directories over; a part that does not come back is lost, and is not run again: nobody may choose between two
//! answers.
//!
//! What a pod and the harness say to each other is in `wire`: it goes over a port of the pod's loopback, which the API
//! server forwards.

mod collect;
mod job;
mod serve;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use serve::{Carried, serve};

use crate::archive::Archive;
use crate::cluster::{Cluster, ClusterError, PodName, PodSeen};
use collect::{Collected, Shut, collect};
use job::{CONTAINER, index_of};

/// Where a pod's part of the plan is handed over, on its loopback.
pub const PORT: u16 = 15_997;
/// How long nodes may take to start all pods: images are pulled meanwhile. Nobody is waited for longer who does not run.
const TO_START: Duration = Duration::from_secs(600);
/// A registry may be away for a moment. Whose image a node fails to get for so long, it will not get.
const TO_PULL_AGAIN: Duration = Duration::from_secs(90);
/// A pod that ended may still be handing over what it has.
const TO_HAND_OVER: Duration = Duration::from_secs(20);
/// Until a watch that broke is begun anew.
const AGAIN: Duration = Duration::from_secs(1);
const TAKEN_AWAY: &str = "its pod was taken away";
/// Of a log, where a run made nothing.
const LAST_LINES: usize = 6;

/// What the user has to be allowed in the namespace. To be forwarded a connection takes `create` too, where API servers ask for
/// it.
pub const RIGHTS: [&str; 7] = [
    "create jobs.batch",
    "delete jobs.batch",
    "list pods",
    "watch pods",
    "get pods/log",
    "get pods/portforward",
    "list events",
];

/// A Job that is wanted.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where it is made; the namespace has to be there.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The image of its pods: rotacheck on the PATH, and what it runs.
    pub image: String,
    /// How many parts the plan has.
    pub of: u32,
    /// What follows `rotacheck run` in each pod.
    pub words: Vec<String>,
}

/// What became of a part.
#[derive(Debug)]
pub enum Part {
    /// Its run directory is here, and its run ended with this code.
    Here {
        /// Where.
        directory: Utf8PathBuf,
        /// Exit code.
        code: u8,
    },
    /// It did not come back.
    Lost {
        /// Why.
        why: String,
    },
}

/// Runs all parts, and puts their run directories below `into`. `talk` hears what becomes of each, by its number from 1
/// on. The Job is left for [`delete_parts`].
pub async fn run_parts(
    cluster: &Cluster,
    parts: &Parts,
    into: &Utf8Path,
    talk: &(dyn Fn(u32, &str) + Sync),
) -> Result<Vec<Part>, ClusterError> {
    cluster.create(&parts.job()).await?;
    gather(cluster, parts, into, talk).await
}

/// Takes the Job away, with its pods.
pub async fn delete_parts(cluster: &Cluster, parts: &Parts) -> Result<(), ClusterError> {
    cluster.delete_job(&parts.namespace, &parts.name).await
}

async fn gather(
    cluster: &Cluster,
    parts: &Parts,
    into: &Utf8Path,
    talk: &(dyn Fn(u32, &str) + Sync),
) -> Result<Vec<Part>, ClusterError> {
    let mut watch = cluster.watch_pods(&parts.namespace, &format!("batch.kubernetes.io/job-name={}", parts.name));
    let began = Instant::now();
    // Since when a node has failed to make its container.
    let mut unmade: BTreeMap<u32, Instant> = BTreeMap::new();
    let (tell, mut told) = mpsc::unbounded_channel::<(u32, Part)>();
    let mut known: BTreeMap<String, PodSeen> = BTreeMap::new();
    // Whoever collects a part hears there when nobody is to be asked any more.
    let mut seats: BTreeMap<u32, watch::Sender<Option<String>>> = BTreeMap::new();
    let mut done: BTreeMap<u32, Part> = BTreeMap::new();
    let mut collecting = JoinSet::new();
    while done.len() < parts.of as usize {
        let given_up = |index: u32| {
            let start = began + TO_START;
            unmade.get(&index).map_or(start, |since| start.min(*since + TO_PULL_AGAIN))
        };
        let missing =
            (0..parts.of).filter(|index| !seats.contains_key(index)).map(|index| (given_up(index), index)).min();
        tokio::select! {
            Some((index, part)) = told.recv() => {
                match &part {
                    Part::Here { code, .. } => talk(index + 1, &format!("is here (exit code {code})")),
                    Part::Lost { why } => talk(index + 1, &format!("is lost: {why}")),
                }
                done.insert(index, part);
                continue;
            }
            pods = async { watch.next().await.cloned() } => match pods {
                Ok(pods) => known = pods,
                Err(e) if seats.is_empty() => return Err(e),
                Err(e) => {
                    // A watch that broke begins anew; what it missed shows then.
                    tracing::debug!("{e}");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            },
            Some(index) = async { Some(until(missing?).await) } => {
                let why = unstarted(cluster, parts, index, &known, began.elapsed()).await;
                let _ = tell.send((index, Part::Lost { why }));
                seats.insert(index, watch::Sender::new(None));
                continue;
            }
        }
        for (name, pod) in &known {
            let Some(index) = index_of(&parts.name, name).filter(|index| *index < parts.of) else { continue };
            let container = pod.containers.get(CONTAINER);
            let begun = container.is_some_and(|c| c.running || c.exit_code.is_some());
            if pod.cannot_be_made() {
                unmade.entry(index).or_insert_with(Instant::now);
            }
            if begun && !seats.contains_key(&index) {
                let ended = watch::Sender::new(None);
                let hears = ended.subscribe();
                seats.insert(index, ended);
                talk(index + 1, &format!("runs in the pod {name}"));
                let (cluster, tell, directory) =
                    (cluster.clone(), tell.clone(), into.join(format!("part-{}", index + 1)));
                let pod = PodName { namespace: parts.namespace.clone(), name: name.clone() };
                collecting.spawn(async move {
                    let part = part(cluster, pod, hears, directory).await;
                    let _ = tell.send((index, part));
                });
            }
            if let (Some(seat), Some(why)) = (seats.get(&index), over(pod)) {
                seat.send_if_modified(|ended| ended.is_none() && ended.replace(why).is_none());
            }
        }
        for (index, seat) in &seats {
            if !known.keys().any(|name| index_of(&parts.name, name) == Some(*index)) {
                seat.send_if_modified(|ended| ended.is_none() && ended.replace(TAKEN_AWAY.to_owned()).is_none());
            }
        }
    }
    Ok(done.into_values().collect())
}

/// Why nobody is to be asked in this pod any more.
fn over(pod: &PodSeen) -> Option<String> {
    let container = pod.containers.get(CONTAINER);
    let ended = container.and_then(|c| Some((c.exit_code?, c.reason.as_deref().unwrap_or("no reason is told"))));
    match ended {
        Some((code, reason)) => Some(format!("its container ended with code {code} ({reason})")),
        None if pod.ending => Some(TAKEN_AWAY.to_owned()),
        None => None,
    }
}

async fn part(cluster: Cluster, pod: PodName, ended: watch::Receiver<Option<String>>, directory: Utf8PathBuf) -> Part {
    let open = || -> BoxFuture<'static, Result<_, Shut>> {
        let (cluster, pod) = (cluster.clone(), pod.clone());
        Box::pin(async move {
            let forwarded = cluster.forwarded(&pod, PORT).await;
            forwarded.map(|forwarded| forwarded.stream).map_err(|e| match e.missing_right() {
                Some(_) => Shut::Ever(e.to_string()),
                None => Shut::Now(e.to_string()),
            })
        })
    };
    match collect(open, ended, &directory).await {
        Ok(Collected { code }) if Archive::open(&directory).is_ok() => Part::Here { directory, code },
        // A wrong command line, or nothing that could be run.
        Ok(Collected { code }) => {
            let said = last_words(&cluster, &pod).await;
            Part::Lost { why: format!("its run made nothing, and ended with exit code {code}{said}") }
        }
        Err(why) => Part::Lost { why: why + &last_words(&cluster, &pod).await },
    }
}

/// The end of a pod's log, as far as it is still there.
async fn last_words(cluster: &Cluster, pod: &PodName) -> String {
    let log = cluster.log_of(&pod.namespace, &pod.name, CONTAINER).await.unwrap_or_default();
    let plain = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<String> = log.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n    {line}")).collect()
}

async fn until((at, index): (Instant, u32)) -> u32 {
    tokio::time::sleep_until(at).await;
    index
}

/// What keeps a part from starting, in words.
async fn unstarted(
    cluster: &Cluster,
    parts: &Parts,
    index: u32,
    pods: &BTreeMap<String, PodSeen>,
    waited: Duration,
) -> String {
    let pod = pods.iter().find(|(name, _)| index_of(&parts.name, name) == Some(index));
    let state = pod.map_or_else(|| "no pod was made for it".to_owned(), |(_, pod)| pod.state());
    let begin = format!("{}-{index}-", parts.name);
    let warnings = cluster.warnings(&parts.namespace, &begin).await;
    format!("it did not start in {} s: {state}{warnings}", waited.as_secs())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures::StreamExt as _;
    use http::{Request, Response};
    use http_body_util::StreamBody;
    use http_body_util::combinators::UnsyncBoxBody;
    use hyper::body::Frame;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_image_that_no_node_gets_is_told_with_the_nodes_words_long_before_a_slow_start_is_given_up() {
        let waiting = |reason: &str| {
            json!({ "metadata": { "name": "x-0-abcde" }, "spec": { "nodeName": "n", "containers": [] }, "status": {
            "containerStatuses": [{ "name": CONTAINER, "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": { "waiting": { "reason": reason } } }] } })
        };
        let list =
            |kind: &str, items: Value| json!({ "apiVersion": "v1", "kind": kind, "metadata": {}, "items": items });
        let event = json!({ "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "x-0-abcde" },
            "type": "Warning", "reason": "Failed", "message": "no such image" });
        let (service, mut handle) =
            tower_test::mock::pair::<Request<Body>, Response<UnsyncBoxBody<Bytes, Infallible>>>();
        tokio::spawn(async move {
            while let Some((request, respond)) = handle.next_request().await {
                let asked = request.uri().to_string();
                let frame = |value: &Value| Ok(Frame::data(Bytes::from(format!("{value}\n"))));
                let body = if asked.contains("watch=") {
                    let change = json!({ "type": "MODIFIED", "object": waiting("ImagePullBackOff") });
                    // It goes on, and tells no more.
                    let lines = futures::stream::iter([frame(&change)]).chain(futures::stream::pending());
                    UnsyncBoxBody::new(StreamBody::new(lines))
                } else {
                    let list = match asked.contains("/events") {
                        true => list("EventList", json!([event])),
                        false => list("PodList", json!([waiting("ContainerCreating")])),
                    };
                    UnsyncBoxBody::new(StreamBody::new(futures::stream::iter([frame(&list)])))
                };
                respond.send_response(Response::new(body));
            }
        });
        let cluster = Cluster::of(kube::Client::new(service, "default"));
        let text = String::new;
        let parts = Parts {
            namespace: "ns".into(),
            name: "x".into(),
            labels: BTreeMap::new(),
            image: text(),
            of: 1,
            words: Vec::new(),
        };
        let gathered = gather(&cluster, &parts, Utf8Path::new("/nowhere"), &|_, _| ()).await.unwrap();
        let [Part::Lost { why }] = &gathered[..] else { panic!("{gathered:?}") };
        assert!(why.starts_with(&format!("it did not start in 90 s: {CONTAINER}: ImagePullBackOff")), "{why}");
        assert!(why.ends_with("Warning Failed: no such image"), "{why}");
    }
}
