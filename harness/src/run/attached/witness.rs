//! A subscriber beside one proxy: a container that joins its pod, and what its log tells.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Deadline;
use crate::cluster::{Cluster, ClusterError, Joined, Mount, Right, Sidecar};
use crate::timeline::{
    AGENT_SERVES, At, Blind, Fact, Layer, Observation, ProxyId, Recorder, Source, SourceKind, Spawned,
};
use crate::xds::{Listener, Told};

/// Where Istio's proxies expect the socket of a provider that is not Istio's.
const ISTIO_SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";
/// How long its image may take to come.
const TO_START: Duration = Duration::from_secs(60);
/// How long it may go on after its time is over.
const TO_END: Duration = Duration::from_secs(20);
/// What it saw longer ago than this, by its node's clock, was seen by a clock that is not ours.
const LATE: Duration = Duration::from_secs(60);

/// A subscriber that is wished for.
#[derive(Debug, Clone)]
pub struct Witness {
    /// An image of rotacheck, from where the cluster pulls.
    pub image: String,
}

/// What it does in the pod.
struct Place<'a> {
    sidecar: &'a Sidecar,
    socket: String,
    mount: &'a Mount,
}

/// Joins the pod, and records what is told until it ends. The right that is missing, if that is what was in the way; what
/// else was is recorded.
pub(super) async fn witness(
    cluster: Cluster,
    sidecar: Sidecar,
    id: ProxyId,
    wish: Witness,
    (time, every): (Option<Duration>, Duration),
    recorder: Recorder,
) -> Option<(Right, String)> {
    let blind = |why: String| {
        let blind = Blind { layer: Some(Layer::Sent), what: "a fresh subscription".into(), why };
        recorder.record(Source::Witness, Some(&id), None, blind);
    };
    let place = match place(&sidecar, &id, &recorder) {
        Ok(place) => place,
        Err(why) => {
            blind(why);
            return None;
        }
    };
    let failed = |e: ClusterError| {
        blind(e.to_string());
        Some((e.missing_right()?, e.to_string()))
    };
    let name = format!("rotacheck-witness-{:06x}", RandomState::new().hash_one(0u8) & 0xff_ffff);
    if let Err(e) = cluster.join(&sidecar.pod, &container(&name, &wish.image, &place, time, every)).await {
        return failed(e);
    }
    let what = format!("the ephemeral container {name} ({}) of the pod {}", wish.image, sidecar.pod);
    let pid = crate::cluster::process_number(&format!("{} {name}", sidecar.uid), 0);
    recorder.record(Source::Process, None, None, Spawned { pid, what });
    match cluster.joined(&sidecar.pod, &name, Deadline::after(TO_START)).await {
        Ok(Joined::Waits { reason }) => {
            blind(format!("the container {name} does not start: {reason}"));
            return None;
        }
        Ok(_) => {}
        // Its log tells as well whether it runs.
        Err(e) => tracing::debug!("{e}"),
    }
    let mut listener = Listener::default();
    let process = crate::cluster::process_number(&sidecar.uid, sidecar.restarts);
    let mut facts = 0;
    let mut hear = |told: Told| {
        facts += 1;
        let (at, secret) = (seen_at(&recorder, told.at), told.secret);
        let (source, fact) = match told.fact {
            // Numbers of processes are the pod's own.
            Fact::Peers(mut peers) => {
                peers.pids.fill(process);
                (Source::Census, peers.into())
            }
            fact => (Source::Witness, fact),
        };
        recorder.record_at(Some(at), source, Some(&id), secret.as_ref(), fact);
    };
    let follow = cluster.follow_log(&sidecar.pod.namespace, &sidecar.pod.name, &name, |piece| {
        listener.hear(piece, &mut hear);
        if listener.is_full() { Err(std::io::Error::other("it has no end")) } else { Ok(()) }
    });
    let ended = tokio::time::timeout(time.unwrap_or_default() + TO_END, follow).await;
    listener.end(&mut hear);
    let complaint = listener.complaint();
    if let Some(complaint) = &complaint {
        blind(format!("the log of the container {name}: {complaint}"));
    }
    match ended {
        Ok(Err(e)) if complaint.is_none() => return failed(e),
        Err(_) => blind(format!("the container {name} did not end in time, and was not heard further")),
        _ => {}
    }
    if facts == 0 {
        let how = cluster.joined(&sidecar.pod, &name, Deadline::after(Duration::ZERO)).await;
        let how = match how {
            Ok(Joined::Ended { code, reason }) => format!("ended with code {code} ({reason})"),
            _ => "runs".to_owned(),
        };
        blind(format!("the container {name} {how}, and told nothing: is its image one of this rotacheck?"));
    }
    None
}

/// When something was seen, by its own clock unless that can't be.
pub(super) fn seen_at(recorder: &Recorder, told: jiff::Timestamp) -> At {
    let now = recorder.clock().at();
    let ago = Duration::try_from(now.wall.duration_since(told)).ok().filter(|ago| *ago <= LATE).unwrap_or_default();
    let wall = jiff::SignedDuration::try_from(ago).ok().and_then(|ago| now.wall.checked_sub(ago).ok());
    At { mono: now.mono.saturating_sub(ago), wall: wall.unwrap_or(now.wall), ..now }
}

/// Which socket its proxy subscribes at, by what was seen of it, and the volume that it is in.
fn place<'a>(sidecar: &'a Sidecar, id: &ProxyId, recorder: &Recorder) -> Result<Place<'a>, String> {
    let seen = recorder.since(0);
    let own = || seen.iter().rev().filter(|o| o.proxy.as_ref() == Some(id)).map(AsRef::<Observation>::as_ref);
    if own().any(|o| matches!(&o.fact, Fact::Log(log) if log.line.contains(AGENT_SERVES))) {
        return Err("Istio's own agent serves its proxy, and nobody else: it is not asked".into());
    }
    let sources = own().find_map(|o| match &o.fact {
        Fact::ConfigDump(dump) if !dump.subscriptions.is_empty() => Some(dump.subscriptions.as_slice()),
        _ => None,
    });
    let source = sources.unwrap_or_default().iter().find(|source| source.name == "default");
    let socket = match source {
        Some(source) if source.by == SourceKind::File => {
            return Err(format!("its certificate comes from the file {}: there is no socket to ask at", source.from));
        }
        Some(source) => source.socket().unwrap_or(ISTIO_SOCKET),
        None => ISTIO_SOCKET,
    };
    // Istio's agent starts its Envoy in /.
    let socket = format!("/{}", socket.trim_start_matches("./").trim_start_matches('/'));
    match sidecar.mount_of(&socket) {
        Some(mount) if !mount.part => Ok(Place { sidecar, socket, mount }),
        Some(_) => Err(format!("{socket} is in a part of a volume (subPath), which no ephemeral container may see")),
        None => Err(format!("{socket} is in no volume of the container {}", sidecar.container)),
    }
}

/// As little as it takes: the proxy's user, who may open the socket, its volume, and its processes, so as to know whose a
/// connection is. Resources can't be limited: Kubernetes
/// refuses that for ephemeral containers, which live on what the pod has.
fn container(name: &str, image: &str, place: &Place<'_>, time: Option<Duration>, every: Duration) -> Value {
    let Place { sidecar, socket, mount } = place;
    let workload = format!("{}.{}", sidecar.pod.name, sidecar.pod.namespace);
    let every = format!("{}s", every.as_secs().max(1));
    let mut args = vec!["witness", "--socket", socket, "--every", &every, "--workload", &workload];
    let time = time.map(|time| format!("{}s", time.as_secs().max(1)));
    if let Some(time) = &time {
        args.extend(["--for", time]);
    }
    let mut security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if let (Some(user), group) = sidecar.user {
        security["runAsUser"] = json!(user);
        security["runAsNonRoot"] = json!(user != 0);
        if let Some(group) = group {
            security["runAsGroup"] = json!(group);
        }
    }
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "args": args,
        "targetContainerName": sidecar.container,
        "volumeMounts": [{ "name": mount.volume, "mountPath": mount.path, "readOnly": true }],
        "securityContext": security,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PodName;

    #[test]
    fn it_has_the_proxys_user_and_socket_and_nothing_else() {
        let mount = |volume: &str, path: &str| Mount { volume: volume.into(), path: path.into(), part: false };
        let sidecar = Sidecar {
            account: "default".into(),
            pod: PodName { namespace: "shop".into(), name: "web-1".into() },
            uid: "u".into(),
            container: "istio-proxy".into(),
            is_istio: true,
            image: String::new(),
            ip: None,
            user: (Some(1337), Some(1337)),
            mounts: vec![
                mount("token", "/var/run/secrets/tokens"),
                mount("uds", "/var/run/secrets/workload-spiffe-uds"),
            ],
            node: None,
            restarts: 0,
            down: None,
        };
        let place =
            Place { socket: ISTIO_SOCKET.into(), mount: sidecar.mount_of(ISTIO_SOCKET).unwrap(), sidecar: &sidecar };
        let minute = Duration::from_secs(60);
        let made = container("w", "rotacheck:1", &place, Some(5 * minute), minute);
        insta::assert_snapshot!(serde_json::to_string_pretty(&made).unwrap());
    }
}
