//! From observations to the ledger: whose stream is whose, then one pass; then the rows.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::super::{
    CertFacts, Fact, Fingerprint, Observation, Payload, ProxyId, RELOAD_FAILED, SecretName, Serial, Source, Timeline,
    TlsRole, UNREACHED, is_witness,
};
use super::chain::Anchors;
use super::owner::owners;
use super::proxy::*;
use super::rows::with_room;
use super::{Asked, Generation, Issue, Ledger, Mark, rows};

pub(super) fn fold(timeline: &Timeline) -> Ledger<'_> {
    let mut fold = Fold::new(timeline);
    for o in &timeline.observations {
        fold.take(o);
    }
    fold.finish()
}

struct Fold<'t> {
    ledger: Ledger<'t>,
    by_id: HashMap<&'t ProxyId, usize>,
    /// Which proxy a stream belongs to.
    owner: HashMap<u64, &'t ProxyId>,
    /// Streams of which nothing tells the proxy, and the fresh subscriber's.
    unowned: HashSet<u64>,
    /// Streams of the harness's own, in the provider's journal.
    ours: HashSet<u64>,
    witness: HashMap<u64, usize>,
    /// Position of a stream in its proxy's list.
    place: HashMap<u64, usize>,
    /// Responses that wait for their answer, by stream and nonce.
    waiting: HashMap<(u64, &'t str), Waiting>,
}

/// Pushes under one nonce that wait for their answers: more than one only where a provider repeats itself.
struct Waiting {
    next: Option<(usize, usize)>,
    later: VecDeque<(usize, usize)>,
}

impl<'t> Fold<'t> {
    fn new(timeline: &'t Timeline) -> Self {
        let ledger = Ledger {
            header: &timeline.header,
            incomplete: timeline.incomplete(),
            generations: BTreeMap::new(),
            proxies: Vec::new(),
            authorities: Vec::new(),
            anchors: Anchors::default(),
            issuer_seen: false,
            signed: Vec::new(),
            streams_seen: false,
            unattributed_streams: 0,
            witness: Vec::new(),
            unreachable: Vec::new(),
            steps: Vec::new(),
            collecting: None,
            jumps: Vec::new(),
            stalls: Vec::new(),
            missed: Vec::new(),
            end: None,
        };
        let mut fold = Self {
            ledger,
            by_id: HashMap::default(),
            owner: owners(timeline),
            unowned: HashSet::default(),
            ours: HashSet::default(),
            witness: HashMap::default(),
            place: HashMap::default(),
            waiting: with_room(timeline.observations.iter().filter(|o| matches!(o.fact, Fact::Sent(_))).count()),
        };
        for p in &timeline.header.proxies {
            let i = fold.proxy(&p.id);
            let row = &mut fold.ledger.proxies[i];
            row.spiffe_id = p.spiffe_id.as_ref().map(|s| s.as_str().to_owned());
            row.contexts = p.contexts;
        }
        fold
    }

    fn proxy(&mut self, id: &'t ProxyId) -> usize {
        if let Some(i) = self.by_id.get(id) {
            return *i;
        }
        let i = self.ledger.proxies.len();
        self.ledger.proxies.push(ProxyLedger::new(id.clone()));
        self.by_id.insert(id, i);
        i
    }

    fn see(&mut self, cert: &'t CertFacts, mark: Mark) -> &mut Generation<'t> {
        self.ledger.generations.entry(cert.fingerprint).or_insert_with(|| Generation {
            cert,
            first: mark,
            issued: Vec::new(),
        })
    }

    /// The stream's proxy and its record there; none where nothing tells whose it is.
    fn stream(&mut self, number: u64, mark: Mark) -> Option<(usize, &mut Stream)> {
        let Some(id) = self.owner.get(&number).copied() else {
            if !self.ours.contains(&number) {
                self.unowned.insert(number);
            }
            return None;
        };
        let p = self.proxy(id);
        let streams = &mut self.ledger.proxies[p].streams;
        let place = *self.place.entry(number).or_insert_with(|| {
            let rpc = String::new();
            streams.push(Stream { number, rpc, opened: mark, subscriptions: Vec::new(), end: None });
            streams.len() - 1
        });
        Some((p, &mut streams[place]))
    }

    fn take(&mut self, o: &'t Observation) {
        let mark = Mark { seq: o.seq, at: o.at };
        self.ledger.end = Some(mark);
        let named = o.proxy.as_ref().map(|id| self.proxy(id));
        match &o.fact {
            Fact::Phase(phase) if matches!(phase.name.as_str(), "collect" | "tear_down") => {
                self.ledger.collecting.get_or_insert(mark);
            }
            Fact::Step(step) => self.ledger.steps.push((mark, step.renewal)),
            Fact::Jump(_) => self.ledger.jumps.push(mark),
            Fact::Stall(s) => self.ledger.stalls.push((mark, s.gap_ms)),
            Fact::DeadlineMissed(d) => self.ledger.missed.push((mark, o.proxy.clone(), d.what.clone())),
            Fact::Authority(a) => self.ledger.authorities.push((mark, a)),
            Fact::Issued(issued) => {
                self.ledger.issuer_seen = true;
                let issue = Issue { mark, proxy: o.proxy.as_ref(), secret: o.secret.as_ref(), stream: issued.stream };
                self.see(&issued.cert, mark).issued.push(issue);
            }
            Fact::Signed(signed) => {
                self.ledger.issuer_seen = true;
                self.ledger.signed.push((mark, signed));
            }
            // The witness's streams are the harness's own: they belong to no proxy.
            _ if o.source == Source::Witness => self.take_witness(o, mark),
            Fact::StreamOpened(s) => {
                self.ledger.streams_seen = true;
                if let Some((_, stream)) = self.stream(s.stream, mark) {
                    stream.rpc.clone_from(&s.rpc);
                }
            }
            // As the provider's journal has it.
            Fact::Subscribed(s) if is_witness(&s.node) => {
                self.unowned.remove(&s.stream);
                self.ours.insert(s.stream);
            }
            Fact::Subscribed(s) => {
                self.ledger.streams_seen = true;
                let subscription =
                    Subscription { mark, names: s.names.as_slice().into(), version_info: s.version_info.clone() };
                if let Some((_, stream)) = self.stream(s.stream, mark) {
                    stream.subscriptions.push(subscription);
                }
            }
            Fact::Sent(s) => {
                self.ledger.streams_seen = true;
                for secret in &s.secrets {
                    if let Payload::Certificate { chain, .. } = &secret.payload
                        && let Some(leaf) = chain.first()
                    {
                        self.see(leaf, mark);
                    }
                }
                let Some((p, stream)) = self.stream(s.stream, mark) else { return };
                if stream.subscriptions.is_empty() {
                    // Its request was missed (the recording began later): then it was sent what it had asked for.
                    let named = o.secret.iter().map(|n| n.as_str().to_owned());
                    let names = if o.secret.is_some() {
                        named.collect()
                    } else {
                        s.secrets.iter().map(|x| x.name.clone()).collect()
                    };
                    stream.subscriptions.push(Subscription { mark, names, version_info: String::new() });
                }
                let subscribed = stream.subscriptions.last().map_or_else(|| [].into(), |s| Arc::clone(&s.names));
                let pushes = &mut self.ledger.proxies[p].pushes;
                let push = (p, pushes.len());
                match self.waiting.entry((s.stream, &s.nonce)) {
                    Entry::Vacant(new) => _ = new.insert(Waiting { next: Some(push), later: VecDeque::new() }),
                    Entry::Occupied(had) => had.into_mut().later.push_back(push),
                }
                pushes.push(Push {
                    mark,
                    stream: s.stream,
                    type_url: &s.type_url,
                    version_info: &s.version_info,
                    nonce: &s.nonce,
                    subscribed,
                    secrets: &s.secrets,
                    answer: None,
                    by_file: None,
                });
            }
            Fact::Written(w) => {
                self.ledger.streams_seen = true;
                if let Payload::Certificate { chain, .. } = &w.secret.payload
                    && let Some(leaf) = chain.first()
                {
                    self.see(leaf, mark);
                }
                let Some(p) = named else { return };
                self.ledger.proxies[p].pushes.push(Push {
                    mark,
                    stream: 0,
                    type_url: SECRET_TYPE_URL,
                    version_info: "",
                    nonce: "",
                    subscribed: [w.secret.name.clone()].into(),
                    secrets: std::slice::from_ref(&w.secret),
                    answer: None,
                    by_file: Some(&w.how),
                });
            }
            Fact::Acked(a) => self.answer(a.stream, &a.nonce, Answer::Acked(mark)),
            Fact::Nacked(n) => self.answer(n.stream, &n.nonce, Answer::Nacked(mark, n.error.clone())),
            // At the end the provider is taken down, and its streams with it: that says nothing.
            Fact::StreamClosed(_) if self.ledger.collecting.is_some() => {}
            Fact::StreamClosed(c) => {
                let end = StreamEnd { mark, by: c.by.clone(), status: c.status.clone() };
                if let Some((_, stream)) = self.stream(c.stream, mark) {
                    stream.end.get_or_insert(end);
                }
            }
            // Seen from the pod of one proxy. A census of all is for whoever reads the recording: nothing is concluded from it.
            Fact::Peers(peers) => {
                if let Some(p) = named {
                    self.ledger.proxies[p].held.push((mark, !peers.pids.is_empty(), &peers.sockets));
                }
            }
            _ => {
                if let Some(p) = named {
                    self.take_proxy(p, o, mark);
                }
            }
        }
    }

    fn take_witness(&mut self, o: &'t Observation, mark: Mark) {
        match &o.fact {
            Fact::Subscribed(s) => {
                self.witness.insert(s.stream, self.ledger.witness.len());
                let proxy = o.proxy.as_ref();
                self.ledger.witness.push(Asked {
                    mark,
                    answered: None,
                    leaf: None,
                    came: Vec::new(),
                    ended: None,
                    proxy,
                });
            }
            Fact::Sent(s) => {
                if let Some(i) = self.witness.get(&s.stream) {
                    let asked = &mut self.ledger.witness[*i];
                    asked.answered.get_or_insert(mark);
                    let leaf = s.secrets.iter().find_map(|secret| match &secret.payload {
                        Payload::Certificate { chain, .. } => chain.first(),
                        _ => None,
                    });
                    asked.leaf = asked.leaf.or(leaf);
                    asked.came.extend(leaf.map(|leaf| (mark, s.version_info.as_str(), leaf)));
                }
            }
            Fact::StreamClosed(closed) if closed.by != "proxy" => {
                if let Some(i) = self.witness.get(&closed.stream) {
                    self.ledger.witness[*i].ended = Some((mark, &closed.status));
                }
            }
            Fact::Blind(b) if b.what == UNREACHED => self.ledger.unreachable.push((mark, b.why.clone())),
            _ => {}
        }
    }

    fn answer(&mut self, stream: u64, nonce: &'t str, answer: Answer) {
        let mark = match &answer {
            Answer::Acked(mark) | Answer::Nacked(mark, _) => *mark,
        };
        match self.waiting.get_mut(&(stream, nonce)) {
            // Only the first answer to a nonce counts; later ones are repetitions of the subscription.
            Some(pushes) => {
                if let Some((p, i)) = pushes.next.take().or_else(|| pushes.later.pop_front()) {
                    self.ledger.proxies[p].pushes[i].answer = Some(answer);
                }
            }
            None => {
                if let Some((p, _)) = self.stream(stream, mark) {
                    self.ledger.proxies[p].answers_to_nothing.push(mark);
                }
            }
        }
    }

    fn take_proxy(&mut self, p: usize, o: &'t Observation, mark: Mark) {
        if let Fact::Handshake(h) = &o.fact
            && !h.resumed
            && let Some(leaf) = h.chain.first()
        {
            self.see(leaf, mark);
        }
        let proxy = &mut self.ledger.proxies[p];
        match &o.fact {
            Fact::Handshake(h) => proxy.served.push(Served {
                mark,
                role: if o.source == Source::Outbound { TlsRole::Outbound } else { TlsRole::Inbound },
                tls: &h.tls,
                resumed: h.resumed,
                chain: &h.chain,
                verified: h.verified,
                error: h.error.as_deref(),
            }),
            Fact::Certs(c) => proxy.loads.push(Load { mark, own: Cow::Borrowed(&c.leaves), others: Vec::new() }),
            Fact::ConfigDump(d) => {
                let (static_contexts, subscriptions) = (&d.static_contexts, &d.subscriptions);
                proxy.dumps.push(Dump { mark, secrets: &d.secrets, static_contexts, subscriptions });
            }
            Fact::Stats(s) => proxy.stats.push(StatSample { mark, values: &s.values }),
            Fact::Request(r) => proxy.traffic.push(Traffic {
                mark,
                to: &r.to,
                fresh: r.fresh,
                status: r.status,
                resumed: r.resumed,
                error: r.error.as_deref(),
            }),
            Fact::ServerInfo(info) => proxy.uptimes.push((mark, info.uptime_s)),
            Fact::Watch(w) => proxy.watches.push((mark, w.watched)),
            Fact::SocketInode(s) => {
                proxy.sockets.push(SocketSeen { mark, inside: s.inside.clone(), outside: s.outside.clone() });
            }
            Fact::Log(l) if o.source == Source::Tap => proxy.remarks.push((mark, l.line.clone())),
            Fact::Log(l) => {
                proxy.logs.push((mark, l.line.clone()));
                if let Some(why) = l.line.split_once(RELOAD_FAILED).map(|(_, why)| why.trim().to_owned()) {
                    proxy.reload_failures.push((mark, why));
                }
            }
            Fact::ListenerSent(l) => {
                let name = l.name.clone();
                proxy.late_listeners.push(LateListener { mark, name, answer: None, listens: None });
            }
            Fact::ListenerAnswered(l) => {
                let sent = proxy.late_listeners.iter_mut().rev().find(|sent| sent.name == l.name);
                if let Some(sent) = sent.filter(|sent| sent.answer.is_none()) {
                    sent.answer = Some((mark, l.error.clone()));
                }
            }
            Fact::Listeners(all) => {
                for sent in &mut proxy.late_listeners {
                    sent.listens = Some((mark, all.listeners.iter().any(|(name, _)| *name == sent.name)));
                }
            }
            Fact::Receipt(r) => proxy.receipts.push((mark, r.followed)),
            Fact::Joined(j) => proxy.joined = Some(Join { mark, after: j.after.as_ref(), roles: &j.roles }),
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

    fn finish(mut self) -> Ledger<'t> {
        self.ledger.unattributed_streams = self.unowned.len();
        for p in &mut self.ledger.proxies {
            name_of_certificate(p);
            if p.spiffe_id.is_none() {
                let sent = p.pushes.iter().find_map(|push| push.leaf(&p.svid));
                let served = p.served.iter().find_map(Served::leaf);
                // Where nobody saw more: what is to be served under that name.
                let dumped = p.dumps.iter().find_map(|dump| dump.active(&p.svid)?.chain.first());
                p.spiffe_id = sent.or(served).or(dumped).and_then(|leaf| leaf.uris.first().cloned());
            }
            p.further = further_certificates(p);
            // Gateways' and file certificates stand in /certs as well.
            if let Some(id) = p.spiffe_id.clone() {
                for load in &mut p.loads {
                    if load.own.iter().all(|l| l.uris.contains(&id)) {
                        continue;
                    }
                    let all = std::mem::take(&mut load.own).into_owned().into_iter();
                    let (own, others) = all.partition(|l| l.uris.contains(&id));
                    (load.own, load.others) = (Cow::Owned(own), others);
                }
            }
        }
        self.join_signed();
        self.ledger.anchors = Anchors::of(&self.ledger.authorities, &self.ledger.proxies);
        rows::build(&mut self.ledger);
        self.ledger
    }
}

impl<'t> Fold<'t> {
    /// What a log says was signed is a generation where one with that serial number, identity and expiry was sent. It
    /// was minted for the stream on which it came first: others may get it too, but nobody owes it to them.
    fn join_signed(&mut self) {
        let mut first_sent: HashMap<Fingerprint, (u64, u64)> = HashMap::default();
        for push in self.ledger.proxies.iter().flat_map(|p| &p.pushes) {
            for leaf in push.secrets.iter().filter_map(|secret| secret.payload.leaf()) {
                let sent = first_sent.entry(leaf.fingerprint).or_insert((push.mark.seq, push.stream));
                *sent = (*sent).min((push.mark.seq, push.stream));
            }
        }
        let mut by_serial: HashMap<&Serial, Vec<&mut Generation<'t>>> = HashMap::default();
        for g in self.ledger.generations.values_mut() {
            by_serial.entry(&g.cert.serial).or_default().push(g);
        }
        for (mark, signed) in &self.ledger.signed {
            for g in by_serial.get_mut(&signed.serial).into_iter().flatten().filter(|g| signed.is(g.cert)) {
                let stream = first_sent.get(&g.cert.fingerprint).map(|(_, stream)| *stream);
                g.issued.push(Issue { mark: *mark, proxy: None, secret: None, stream });
            }
        }
    }
}

/// A proxy whose certificate travels under another name than `default`: a SPIFFE ID, usually.
fn name_of_certificate(p: &mut ProxyLedger<'_>) {
    if p.streams.iter().any(|s| s.asked_for(p.svid.as_str())) {
        return;
    }
    let mut asked = BTreeSet::new();
    for push in &p.pushes {
        asked.extend(push.subscribed.iter().map(String::as_str));
        let names = asked.iter().filter_map(|n| SecretName::parse(n).ok());
        if let Some(name) = names.into_iter().find(|name| push.leaf(name).is_some()) {
            p.svid = name;
            return;
        }
    }
    if let Some(name) = name_in_dumps(p) {
        p.svid = name;
    }
}

/// Other names under which it was sent certificates of its identity.
fn further_certificates(p: &ProxyLedger<'_>) -> Vec<SecretName> {
    let own = |leaf: &CertFacts| p.spiffe_id.as_ref().is_some_and(|id| leaf.uris.contains(id));
    let mut names: Vec<&str> = Vec::new();
    for push in p.pushes.iter().filter(|push| push.type_url == SECRET_TYPE_URL) {
        for secret in push.secrets.iter().filter(|s| s.name != p.svid.as_str() && push.asked_for(&s.name)) {
            if secret.payload.leaf().is_some_and(own) && !names.contains(&secret.name.as_str()) {
                names.push(&secret.name);
            }
        }
    }
    names.into_iter().filter_map(|name| SecretName::parse(name).ok()).collect()
}

/// Where nobody saw its streams: under which name config_dump lists what it shows, or all that could be it.
fn name_in_dumps(p: &ProxyLedger<'_>) -> Option<SecretName> {
    let own = |leaf: &CertFacts| match &p.spiffe_id {
        Some(id) => leaf.uris.contains(id),
        None => leaf.uris.iter().any(|uri| uri.starts_with("spiffe://")),
    };
    let listed = p.dumps.iter().flat_map(|dump| dump.secrets).filter(|s| s.state == "active");
    let listed = listed.filter_map(|s| Some((&s.name, s.chain.first().filter(|leaf| own(leaf))?)));
    let all: Vec<(&SecretName, &CertFacts)> = listed.collect();
    if all.iter().any(|(name, _)| **name == p.svid) {
        return None;
    }
    let shown =
        |leaf: &CertFacts| p.served.iter().filter_map(Served::leaf).any(|shown| shown.fingerprint == leaf.fingerprint);
    let loaded = |leaf: &CertFacts| p.loads.iter().flat_map(|load| load.own.iter()).any(|held| is_same(held, leaf));
    let found = all.iter().find(|(_, leaf)| shown(leaf)).or_else(|| all.iter().find(|(_, leaf)| loaded(leaf)));
    let only = || all.first().filter(|(first, _)| all.iter().all(|(name, _)| name == first));
    found.or_else(only).map(|(name, _)| (*name).clone())
}
