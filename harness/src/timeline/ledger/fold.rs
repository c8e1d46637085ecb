//! From observations to the ledger, in one pass; then the rows.

use std::collections::{BTreeMap, HashMap};

use super::super::{CertFacts, Fact, Observation, ProxyId, SecretName, Source, Timeline, TlsRole};
use super::proxy::*;
use super::{Generation, Issue, Ledger, Mark, rows};

pub(super) fn fold(timeline: &Timeline) -> Ledger {
    let mut fold = Fold::new(timeline);
    for o in &timeline.observations {
        fold.take(o);
    }
    fold.finish()
}

struct Fold {
    ledger: Ledger,
    by_id: HashMap<ProxyId, usize>,
    /// Which proxy a stream belongs to, once known, and what was seen of streams before that.
    owner: HashMap<u64, usize>,
    orphans: HashMap<u64, Stream>,
    /// Position of a stream in its proxy's list.
    place: HashMap<u64, usize>,
    /// Responses that wait for their answer, by stream and nonce.
    waiting: HashMap<(u64, String), (usize, usize)>,
    by_pid: HashMap<i32, usize>,
}

impl Fold {
    fn new(timeline: &Timeline) -> Self {
        let ledger = Ledger {
            header: timeline.header.clone(),
            incomplete: timeline.incomplete(),
            generations: BTreeMap::new(),
            proxies: Vec::new(),
            authorities: Vec::new(),
            issuer_seen: false,
            streams_seen: false,
            jumps: Vec::new(),
            stalls: Vec::new(),
            missed: Vec::new(),
            end: None,
        };
        let mut fold = Self {
            ledger,
            by_id: HashMap::new(),
            owner: HashMap::new(),
            orphans: HashMap::new(),
            place: HashMap::new(),
            waiting: HashMap::new(),
            by_pid: HashMap::new(),
        };
        for p in &timeline.header.proxies {
            let i = fold.proxy(&p.id);
            let row = &mut fold.ledger.proxies[i];
            row.spiffe_id = p.spiffe_id.as_ref().map(|s| s.as_str().to_owned());
            row.contexts = p.contexts;
        }
        fold
    }

    fn proxy(&mut self, id: &ProxyId) -> usize {
        if let Some(i) = self.by_id.get(id) {
            return *i;
        }
        let i = self.ledger.proxies.len();
        self.ledger.proxies.push(ProxyLedger {
            id: id.clone(),
            spiffe_id: None,
            contexts: None,
            svid: SecretName::default_svid(),
            streams: Vec::new(),
            pushes: Vec::new(),
            served: Vec::new(),
            loads: Vec::new(),
            dumps: Vec::new(),
            stats: Vec::new(),
            traffic: Vec::new(),
            receipts: Vec::new(),
            exits: Vec::new(),
            starts: Vec::new(),
            blind: Vec::new(),
            connections: Vec::new(),
            rows: Vec::new(),
        });
        self.by_id.insert(id.clone(), i);
        i
    }

    fn see(&mut self, cert: &CertFacts, mark: Mark) -> &mut Generation {
        self.ledger.generations.entry(cert.fingerprint.clone()).or_insert_with(|| Generation {
            cert: cert.clone(),
            first: mark,
            issued: Vec::new(),
        })
    }

    /// The stream's record, wherever it is kept now; moves it to its proxy once that is known.
    fn stream(&mut self, number: u64, proxy: Option<usize>, mark: Mark) -> &mut Stream {
        let new = || Stream { number, opened: mark, subscriptions: Vec::new(), end: None };
        if let Some(p) = proxy.or_else(|| self.owner.get(&number).copied()) {
            if !self.place.contains_key(&number) {
                let stream = self.orphans.remove(&number).unwrap_or_else(new);
                self.place.insert(number, self.ledger.proxies[p].streams.len());
                self.owner.insert(number, p);
                self.ledger.proxies[p].streams.push(stream);
            }
            let p = self.owner[&number];
            return &mut self.ledger.proxies[p].streams[self.place[&number]];
        }
        self.orphans.entry(number).or_insert_with(new)
    }

    fn take(&mut self, o: &Observation) {
        let mark = Mark { seq: o.seq, at: o.at };
        self.ledger.end = Some(mark);
        let named = o.proxy.as_ref().map(|id| self.proxy(id));
        match &o.fact {
            Fact::Jump(_) => self.ledger.jumps.push(mark),
            Fact::Stall(s) => self.ledger.stalls.push((mark, s.gap_ms)),
            Fact::DeadlineMissed(d) => self.ledger.missed.push((mark, o.proxy.clone(), d.what.clone())),
            Fact::Authority(a) => self.ledger.authorities.push((mark, a.clone())),
            Fact::Issued(issued) => {
                self.ledger.issuer_seen = true;
                let issue = Issue { mark, proxy: o.proxy.clone(), stream: issued.stream };
                self.see(&issued.cert, mark).issued.push(issue);
            }
            // The witness's streams are the harness's own: they belong to no proxy.
            _ if o.source == Source::Witness => {}
            Fact::StreamOpened(s) => {
                self.ledger.streams_seen = true;
                let owner = named.or_else(|| s.peer_pid.and_then(|pid| self.by_pid.get(&pid).copied()));
                self.stream(s.stream, owner, mark);
            }
            Fact::Subscribed(s) => {
                self.ledger.streams_seen = true;
                let subscription = Subscription { mark, names: s.names.clone(), version_info: s.version_info.clone() };
                self.stream(s.stream, named, mark).subscriptions.push(subscription);
            }
            Fact::Sent(s) => {
                self.ledger.streams_seen = true;
                let subscribed = self.stream(s.stream, named, mark).names().to_vec();
                for secret in &s.secrets {
                    if let super::super::Payload::Certificate { chain, .. } = &secret.payload
                        && let Some(leaf) = chain.first()
                    {
                        self.see(leaf, mark);
                    }
                }
                let Some(p) = named.or_else(|| self.owner.get(&s.stream).copied()) else { return };
                let pushes = &mut self.ledger.proxies[p].pushes;
                self.waiting.insert((s.stream, s.nonce.clone()), (p, pushes.len()));
                pushes.push(Push {
                    mark,
                    stream: s.stream,
                    type_url: s.type_url.clone(),
                    version_info: s.version_info.clone(),
                    nonce: s.nonce.clone(),
                    subscribed,
                    secrets: s.secrets.clone(),
                    answer: None,
                });
            }
            Fact::Acked(a) => self.answer(a.stream, &a.nonce, Answer::Acked(mark)),
            Fact::Nacked(n) => self.answer(n.stream, &n.nonce, Answer::Nacked(mark, n.error.clone())),
            Fact::StreamClosed(c) => {
                let end = StreamEnd { mark, by: c.by.clone(), status: c.status.clone() };
                self.stream(c.stream, named, mark).end.get_or_insert(end);
            }
            Fact::Peers(peers) => {
                let mut counts = vec![0; self.ledger.proxies.len()];
                for p in peers.pids.iter().filter_map(|pid| self.by_pid.get(pid)) {
                    counts[*p] += 1;
                }
                for (p, n) in counts.into_iter().enumerate() {
                    self.ledger.proxies[p].connections.push((mark, n));
                }
            }
            _ => {
                if let Some(p) = named {
                    self.take_proxy(p, o, mark);
                }
            }
        }
    }

    fn answer(&mut self, stream: u64, nonce: &str, answer: Answer) {
        // Only the first answer to a nonce counts; later ones are repetitions of the subscription.
        if let Some((p, i)) = self.waiting.remove(&(stream, nonce.to_owned())) {
            self.ledger.proxies[p].pushes[i].answer = Some(answer);
        }
    }

    fn take_proxy(&mut self, p: usize, o: &Observation, mark: Mark) {
        if let Fact::Handshake(h) = &o.fact
            && !h.resumed
            && let Some(leaf) = h.chain.first()
        {
            self.see(leaf, mark);
        }
        if let Fact::Spawned(s) = &o.fact {
            self.by_pid.insert(s.pid, p);
        }
        let proxy = &mut self.ledger.proxies[p];
        match &o.fact {
            Fact::Handshake(h) => proxy.served.push(Served {
                mark,
                role: if o.source == Source::Outbound { TlsRole::Outbound } else { TlsRole::Inbound },
                tls: h.tls.clone(),
                resumed: h.resumed,
                chain: h.chain.clone(),
                verified: h.verified,
                error: h.error.clone(),
            }),
            Fact::Certs(c) => {
                let own = |l: &&super::super::LoadedCert| {
                    proxy.spiffe_id.as_ref().is_none_or(|id| l.uris.iter().any(|u| u == id))
                };
                let (own, others) = c.leaves.iter().partition::<Vec<_>, _>(own);
                let load = Load {
                    mark,
                    own: own.into_iter().cloned().collect(),
                    others: others.into_iter().cloned().collect(),
                };
                proxy.loads.push(load);
            }
            Fact::ConfigDump(d) => proxy.dumps.push(Dump { mark, secrets: d.secrets.clone() }),
            Fact::Stats(s) => proxy.stats.push(StatSample { mark, values: s.values.clone() }),
            Fact::Request(r) => proxy.traffic.push(Traffic {
                mark,
                to: r.to.clone(),
                fresh: r.fresh,
                status: r.status,
                resumed: r.resumed,
                error: r.error.clone(),
            }),
            Fact::Receipt(r) => proxy.receipts.push((mark, r.followed)),
            Fact::Spawned(_) => proxy.starts.push(mark),
            Fact::Exited(e) => proxy.exits.push(Exit {
                mark,
                code: e.code,
                signal: e.signal,
                expected: e.expected,
                log_tail: e.log_tail.clone(),
            }),
            Fact::Blind(b) => proxy.blind.push((mark, format!("{}: {}", b.what, b.why))),
            _ => {}
        }
    }

    fn finish(mut self) -> Ledger {
        for p in &mut self.ledger.proxies {
            // A proxy whose certificate travels under another name than `default`: a SPIFFE ID, usually.
            let carries = |name: &SecretName| p.pushes.iter().any(|push| push.leaf(name).is_some());
            if !carries(&p.svid)
                && !p.streams.iter().any(|s| s.asked_for(p.svid.as_str()))
                && let Some(name) = p
                    .pushes
                    .iter()
                    .flat_map(|push| &push.subscribed)
                    .filter_map(|n| SecretName::parse(n).ok())
                    .find(carries)
            {
                p.svid = name;
            }
            if p.spiffe_id.is_none() {
                let sent = p.pushes.iter().find_map(|push| push.leaf(&p.svid));
                let served = p.served.iter().find_map(Served::leaf);
                p.spiffe_id = sent.or(served).and_then(|leaf| leaf.uris.first().cloned());
            }
        }
        rows::build(&mut self.ledger);
        self.ledger
    }
}
