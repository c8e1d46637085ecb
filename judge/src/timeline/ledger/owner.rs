//! Which proxy a stream belongs to. Some observations of a stream may say it, others not: the best claim counts.

use foldhash::HashMap;

use super::super::{Fact, Payload, ProxyId, Source, Timeline, is_witness, istio_workload};

/// How a stream is known to be a proxy's; a later one counts more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// It was sent a leaf with the proxy's identity.
    Identity,
    /// It says so itself.
    Node,
    /// The process that opened it is the proxy's.
    Process,
    /// The recorder knew, when it ended.
    AtItsEnd,
    /// The recorder knew.
    Recorded,
}

pub(super) fn owners(timeline: &Timeline) -> HashMap<u64, &ProxyId> {
    let mut best: HashMap<u64, (Claim, &ProxyId)> = HashMap::default();
    let mut claim = |stream: u64, claim: Claim, id| {
        let have = best.entry(stream).or_insert((claim, id));
        // A proxy that is started again has a new name as soon as that is known: what goes on from there is its own.
        if claim > have.0 || claim == Claim::Recorded {
            *have = (claim, id);
        }
    };
    let known = &timeline.header.proxies;
    let mut by_identity: HashMap<&str, Option<&ProxyId>> = HashMap::default();
    for p in known {
        if let Some(id) = &p.spiffe_id {
            // Replicas share an identity: then it tells nothing.
            by_identity.entry(id.as_str()).and_modify(|owner| *owner = None).or_insert(Some(&p.id));
        }
    }
    let came = timeline.observations.iter().filter(|o| matches!(o.fact, Fact::Joined(_)));
    let ids = known.iter().map(|p| &p.id).chain(came.filter_map(|o| o.proxy.as_ref()));
    let by_name: HashMap<&str, &ProxyId> = ids.map(|id| (id.as_str(), id)).collect();
    let mut by_pid: HashMap<i32, &ProxyId> = HashMap::default();
    let mut ours = Vec::new();
    for o in timeline.observations.iter().filter(|o| o.source != Source::Witness) {
        let stream = match &o.fact {
            Fact::Spawned(s) => {
                if let Some(id) = &o.proxy {
                    by_pid.insert(s.pid, id);
                }
                continue;
            }
            Fact::StreamOpened(s) => {
                if let Some(id) = s.peer_pid.and_then(|pid| by_pid.get(&pid)) {
                    claim(s.stream, Claim::Process, id);
                }
                s.stream
            }
            // Whoever served it may have taken it for the proxy through whose socket it came.
            Fact::Subscribed(s) if is_witness(&s.node) => {
                ours.push(s.stream);
                continue;
            }
            Fact::Subscribed(s) => {
                let name = istio_workload(&s.node).unwrap_or(&s.node);
                if let Some(id) = by_name.get(&*s.node).or_else(|| by_name.get(name)) {
                    claim(s.stream, Claim::Node, id);
                }
                s.stream
            }
            Fact::Sent(s) => {
                for secret in &s.secrets {
                    if let Payload::Certificate { chain, .. } = &secret.payload
                        && let Some([uri]) = chain.first().map(|leaf| leaf.uris.as_slice())
                        && let Some(Some(id)) = by_identity.get(uri.as_str())
                    {
                        claim(s.stream, Claim::Identity, id);
                    }
                }
                s.stream
            }
            Fact::Acked(a) => a.stream,
            Fact::Nacked(n) => n.stream,
            Fact::StreamClosed(c) => c.stream,
            _ => continue,
        };
        if let Some(id) = &o.proxy {
            // One that ends may end with its process, after another one has its name.
            let ends = matches!(o.fact, Fact::StreamClosed(_));
            claim(stream, if ends { Claim::AtItsEnd } else { Claim::Recorded }, id);
        }
    }
    for stream in ours {
        best.remove(&stream);
    }
    best.into_iter().map(|(stream, (_, id))| (stream, id)).collect()
}
