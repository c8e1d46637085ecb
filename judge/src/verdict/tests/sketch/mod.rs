//! Timelines drawn by hand: what each failure leaves, as FAILURES describes it, without any of our own components.

pub(super) mod scenes;

use std::time::Duration;

use crate::timeline::ledger::SECRET_TYPE_URL;
use crate::timeline::*;

/// What goes wrong in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twist {
    Healthy,
    NoRenewal,
    NoPush,
    ResendCached,
    ResendStale,
    Expired,
    NotYetValid,
    WrongIdentity,
    SecondIdentity,
    Nack,
    BadPem,
    SameBytesAgain,
    WrongName,
    Empty,
    WrongTypeUrl,
    WrongKind,
    BundleOnly,
    NoAnswer,
    HalfLoaded,
    NotServed,
    StreamRefused,
}

pub(super) struct Sketch {
    pub(super) timeline: Timeline,
    ttl: i64,
    now: i64,
    mono_ms: u64,
    serial: u64,
    nonce: u64,
    version: u64,
    streams: Vec<Side>,
    /// How many have ever been there.
    entered: u64,
    renewal: u32,
    /// Whether version and last_updated of the dump move with equal bytes (Envoy up to 1.36).
    old_envoy: bool,
    contexts: u32,
    /// Which authority signs, and which are in the bundle.
    authority: u8,
    bundle: Vec<u8>,
}

struct Side {
    id: ProxyId,
    uri: String,
    svid: u64,
    root: u64,
    held: CertFacts,
    dumped: CertFacts,
    loaded: CertFacts,
    loaded_all: bool,
    served: CertFacts,
    refused: Option<CertFacts>,
    updates: u64,
    updated: i64,
    bundle: u64,
    /// Authorities in the bundle that it holds.
    roots: Vec<u8>,
    open: bool,
}

fn authority(n: u8) -> CertFacts {
    CertFacts {
        fingerprint: Fingerprint::of_der(&[n]),
        serial: Serial::from_be_bytes(&[n]),
        uris: Vec::new(),
        not_before: ts(-1000),
        not_after: ts(100_000_000),
        subject: format!("CN=authority {n}"),
        issuer: format!("CN=authority {n}"),
        subject_key_id: Some(format!("{n:02x}")),
        authority_key_id: None,
        key_type: "ecdsa-p256".into(),
        is_ca: true,
    }
}

const START: i64 = 1_790_000_000;

fn ts(s: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(START + s).unwrap()
}

impl Sketch {
    pub(super) fn new(ttl: i64, every: i64) -> Self {
        Self::fleet(2, 4, ttl, every)
    }

    pub(super) fn fleet(size: u8, contexts: u32, ttl: i64, every: i64) -> Self {
        let ids = (0..size).map(|n| ProxyId::parse(&format!("proxy-{}", char::from(b'a' + n))).unwrap());
        let ids: Vec<_> = ids.collect();
        let uri = |id: &ProxyId| format!("spiffe://cluster.local/ns/demo/sa/{id}");
        let header = Header {
            schema_version: SCHEMA_VERSION,
            rotacheck: "0".into(),
            cell: CellId::parse("sketch@x").unwrap(),
            scenario: ScenarioName::parse("sketch").unwrap(),
            role: Role::Control,
            subject: Subject {
                envoy: EnvoySubject { version: EnvoyVersion::parse("1.38.3").unwrap(), source: "pip".into() },
                istio: None,
                provider: ProviderSubject { kind: "fake".into(), profile: None, version: "0".into() },
                cluster: None,
            },
            clock: ClockKind::Virtual,
            started: ts(0),
            proxies: ids
                .iter()
                .map(|id| ProxyExpectation {
                    id: id.clone(),
                    spiffe_id: Some(SpiffeId::parse(&uri(id)).unwrap()),
                    contexts: Some(contexts),
                })
                .collect(),
            criteria: Criteria {
                ttl_s: ttl as u64,
                renew_every_s: Some(every as u64),
                lag_bound_ms: 5000,
                margin_floor_s: ttl as u64 / 10,
                margin_floor_ms: None,
                newer_generations: 2,
                generations_past_first_expiry: 2,
            },
            expect: Expectation { judgement: ExpectedJudgement::Fail, layer: None, diagnosis: None, noted: Vec::new() },
        };
        let mut s = Self {
            timeline: Timeline { header, observations: Vec::new(), footer: None },
            ttl,
            now: 0,
            mono_ms: 0,
            serial: 0x4a00,
            nonce: 0,
            version: 0,
            streams: Vec::new(),
            entered: 0,
            renewal: 0,
            old_envoy: true,
            contexts,
            authority: 1,
            bundle: vec![1],
        };
        for id in &ids {
            s.enter(id);
        }
        s.look();
        s
    }

    /// A proxy opens its streams and gets its first certificate.
    fn enter(&mut self, id: &ProxyId) {
        let uri = format!("spiffe://cluster.local/ns/demo/sa/{id}");
        let cert = self.mint(&uri, self.now, self.now + self.ttl);
        let issued = Issued { cert: cert.clone(), renewal: Some(self.renewal), stream: None };
        self.add(Source::Provider, Some(id), "default", issued);
        let (svid, root) = (10 * self.entered + 1, 10 * self.entered + 2);
        let peer_pid = Some(self.entered as i32 + 7);
        self.entered += 1;
        let side = Side {
            id: id.clone(),
            uri,
            svid,
            root,
            held: cert.clone(),
            dumped: cert.clone(),
            loaded: cert.clone(),
            loaded_all: true,
            served: cert.clone(),
            refused: None,
            updates: 0,
            updated: self.now,
            bundle: 0,
            roots: Vec::new(),
            open: true,
        };
        self.streams.push(side);
        for (stream, name) in [(svid, "default"), (root, "ROOTCA")] {
            self.add(Source::Provider, None, "", StreamOpened { stream, rpc: "sds_stream".into(), peer_pid });
            let subscribed = Subscribed {
                stream,
                type_url: SECRET_TYPE_URL.into(),
                names: vec![name.into()],
                version_info: String::new(),
                node: id.to_string(),
            };
            self.add(Source::Provider, Some(id), name, subscribed);
        }
        let n = self.streams.len() - 1;
        self.push_bundle(n);
        self.push_leaf(n, &cert, true);
    }

    /// A proxy comes that was not there at the beginning.
    pub(super) fn join(&mut self, id: &str, after: Option<&str>, roles: &[TlsRole]) -> &mut Self {
        let [id, after] = [Some(id), after].map(|id| id.map(|id| ProxyId::parse(id).unwrap()));
        let id = id.unwrap();
        self.add(Source::Process, Some(&id), "", Joined { after, roles: roles.to_vec() });
        self.add(Source::Process, Some(&id), "", Spawned { pid: 77, what: "pod".into() });
        self.enter(&id);
        self
    }

    /// The proxy of this name is taken away by somebody, or ends by itself with this code.
    pub(super) fn leave(&mut self, id: &str, code: Option<i32>) -> &mut Self {
        let n = self.streams.iter().position(|side| side.id.as_str() == id).unwrap();
        let side = self.streams.remove(n);
        for stream in [side.svid, side.root] {
            let closed = StreamClosed { stream, by: "connection".into(), status: String::new() };
            self.add(Source::Provider, Some(&side.id), "", closed);
        }
        let log_tail = vec![format!("pod {id} is gone")];
        let exited = Exited { code, signal: None, expected: code.is_none(), log_tail };
        self.add(Source::Process, Some(&side.id), "", exited);
        self
    }

    pub(super) fn new_envoy(mut self) -> Self {
        self.old_envoy = false;
        self
    }

    fn mint(&mut self, uri: &str, from: i64, to: i64) -> CertFacts {
        self.serial += 0x97;
        CertFacts {
            fingerprint: Fingerprint::of_der(&self.serial.to_be_bytes()),
            serial: Serial::from_be_bytes(&(self.serial << 40).to_be_bytes()),
            uris: vec![uri.to_owned()],
            not_before: ts(from),
            not_after: ts(to),
            subject: String::new(),
            issuer: "CN=one".into(),
            subject_key_id: None,
            authority_key_id: Some(format!("{:02x}", self.authority)),
            key_type: "ecdsa-p256".into(),
            is_ca: false,
        }
    }

    pub(super) fn add(&mut self, source: Source, proxy: Option<&ProxyId>, secret: &str, fact: impl Into<Fact>) -> u64 {
        self.mono_ms += 1;
        let seq = self.timeline.observations.len() as u64;
        self.timeline.observations.push(Observation {
            seq,
            at: At { mono: Duration::from_millis(self.mono_ms), wall: ts(self.now), offset_s: self.now },
            source,
            proxy: proxy.cloned(),
            secret: SecretName::parse(secret).ok(),
            fact: fact.into(),
        });
        seq
    }

    fn send(&mut self, n: usize, stream: u64, type_url: &str, secrets: Vec<SentSecret>) -> String {
        self.nonce += 1;
        self.version += 1;
        let nonce = format!("{:08x}", self.nonce);
        let id = self.streams[n].id.clone();
        let sent = Sent {
            stream,
            type_url: type_url.into(),
            version_info: self.version.to_string(),
            nonce: nonce.clone(),
            secrets,
        };
        let name = if stream == self.streams[n].svid { "default" } else { "ROOTCA" };
        self.add(Source::Provider, Some(&id), name, sent);
        nonce
    }

    fn ack(&mut self, n: usize, stream: u64, nonce: String) {
        let id = self.streams[n].id.clone();
        let version_info = self.version.to_string();
        self.add(Source::Provider, Some(&id), "default", Acked { stream, nonce, version_info });
    }

    fn certificate(leaf: &CertFacts, key_matches: bool, problem: Option<&str>) -> Payload {
        Payload::Certificate {
            chain: if problem.is_some() { Vec::new() } else { vec![leaf.clone()] },
            digest: leaf.fingerprint,
            key_matches: Some(key_matches),
            problem: problem.map(str::to_owned),
        }
    }

    fn push_leaf(&mut self, n: usize, leaf: &CertFacts, load: bool) {
        let stream = self.streams[n].svid;
        let payload = Self::certificate(leaf, true, None);
        let nonce = self.send(n, stream, SECRET_TYPE_URL, vec![SentSecret { name: "default".into(), payload }]);
        self.ack(n, stream, nonce);
        let (now, old) = (self.now, self.old_envoy);
        let side = &mut self.streams[n];
        side.updates += 1;
        if side.held != *leaf || old {
            side.updated = now;
        }
        side.held = leaf.clone();
        if load {
            side.dumped = leaf.clone();
            side.loaded = leaf.clone();
            side.served = leaf.clone();
        }
    }

    fn push_bundle(&mut self, n: usize) {
        self.streams[n].bundle += 1;
        self.streams[n].roots.clone_from(&self.bundle);
        let digest = Fingerprint::of_der(&self.streams[n].bundle.to_be_bytes());
        let stream = self.streams[n].root;
        let roots = self.bundle.iter().map(|n| authority(*n)).collect();
        let payload = Payload::Bundle { roots, digest, problem: None };
        let nonce = self.send(n, stream, SECRET_TYPE_URL, vec![SentSecret { name: "ROOTCA".into(), payload }]);
        self.ack(n, stream, nonce);
    }

    /// Time passes, the renewal comes with its twist, everything is looked at.
    pub(super) fn step(&mut self, by: i64, twist: Twist) -> &mut Self {
        self.each(by, |_| twist)
    }

    /// As `step`, with a twist for each proxy.
    pub(super) fn each(&mut self, by: i64, twist: impl Fn(usize) -> Twist) -> &mut Self {
        self.pass(by);
        self.renewal += 1;
        for n in 0..self.streams.len() {
            self.renew(n, twist(n));
        }
        self.look();
        self
    }

    /// Time passes, everything is looked at.
    pub(super) fn wait(&mut self, by: i64) -> &mut Self {
        self.pass(by);
        self.look();
        self
    }

    pub(super) fn pass(&mut self, by: i64) {
        let (from_s, to_s) = (self.now, self.now + by);
        self.now = to_s;
        self.add(Source::Clock, None, "", Jump { from_s, to_s });
    }

    fn renew(&mut self, n: usize, twist: Twist) {
        let (id, uri, stream) = (self.streams[n].id.clone(), self.streams[n].uri.clone(), self.streams[n].svid);
        let (now, ttl) = (self.now, self.ttl);
        let mints = !matches!(twist, Twist::NoRenewal | Twist::ResendCached | Twist::BundleOnly | Twist::StreamRefused);
        let fresh = match twist {
            _ if !mints => self.streams[n].held.clone(),
            Twist::Expired => self.mint(&uri, now - 2 * ttl, now - ttl),
            Twist::NotYetValid => self.mint(&uri, now + 600, now + 600 + ttl),
            Twist::WrongIdentity => self.mint("spiffe://cluster.local/ns/demo/sa/other", now, now + ttl),
            Twist::SecondIdentity => {
                let mut fresh = self.mint(&uri, now, now + ttl);
                fresh.uris.push("spiffe://cluster.local/ns/demo/sa/other".to_owned());
                fresh
            }
            Twist::SameBytesAgain if self.streams[n].refused.is_some() => self.streams[n].refused.clone().unwrap(),
            _ => self.mint(&uri, now, now + ttl),
        };
        if mints && self.streams[n].refused.as_ref() != Some(&fresh) {
            let issued = Issued { cert: fresh.clone(), renewal: Some(self.renewal), stream: None };
            self.add(Source::Provider, Some(&id), "default", issued);
        }
        let named = |name: &str, payload| vec![SentSecret { name: name.into(), payload }];
        match twist {
            Twist::NoRenewal => {}
            Twist::NoPush => self.answer_witness(),
            Twist::StreamRefused => {
                for _ in 0..3 {
                    let status = "unavailable".to_owned();
                    let closed = self.streams[n].svid;
                    self.add(
                        Source::Provider,
                        Some(&id),
                        "default",
                        StreamClosed { stream: closed, by: "provider".into(), status },
                    );
                    self.streams[n].svid += 100;
                    let stream = self.streams[n].svid;
                    self.add(
                        Source::Provider,
                        Some(&id),
                        "default",
                        StreamOpened { stream, rpc: "sds_stream".into(), peer_pid: None },
                    );
                    self.add(
                        Source::Provider,
                        Some(&id),
                        "default",
                        Subscribed {
                            stream,
                            type_url: SECRET_TYPE_URL.into(),
                            names: vec!["default".into()],
                            version_info: "1".into(),
                            node: id.to_string(),
                        },
                    );
                }
                let (stream, status) = (self.streams[n].svid, "unavailable".to_owned());
                self.add(
                    Source::Provider,
                    Some(&id),
                    "default",
                    StreamClosed { stream, by: "provider".into(), status },
                );
                self.streams[n].open = false;
            }
            Twist::BundleOnly => self.push_bundle(n),
            Twist::ResendCached | Twist::ResendStale => {
                let held = self.streams[n].held.clone();
                self.push_leaf(n, &held, true);
            }
            Twist::Nack | Twist::BadPem => self.refuse(n, &fresh, twist),
            Twist::SameBytesAgain if self.streams[n].refused.is_none() => self.refuse(n, &fresh, Twist::Nack),
            Twist::SameBytesAgain => {
                let payload = Self::certificate(&fresh, false, None);
                let nonce = self.send(n, stream, SECRET_TYPE_URL, named("default", payload));
                self.ack(n, stream, nonce);
                self.streams[n].updates += 1;
            }
            Twist::WrongName => {
                let nonce =
                    self.send(n, stream, SECRET_TYPE_URL, named("other", Self::certificate(&fresh, true, None)));
                self.ack(n, stream, nonce);
            }
            Twist::Empty => {
                let nonce = self.send(n, stream, SECRET_TYPE_URL, Vec::new());
                self.ack(n, stream, nonce);
            }
            Twist::WrongTypeUrl => {
                self.send(
                    n,
                    stream,
                    "type.googleapis.com/x.Y",
                    named("default", Self::certificate(&fresh, true, None)),
                );
            }
            Twist::NoAnswer => {
                self.send(n, stream, SECRET_TYPE_URL, named("default", Self::certificate(&fresh, true, None)));
            }
            Twist::WrongKind => {
                let payload = Payload::Bundle { roots: Vec::new(), digest: fresh.fingerprint, problem: None };
                let nonce = self.send(n, stream, SECRET_TYPE_URL, named("default", payload));
                let error = "Unexpected SDS secret type".to_owned();
                self.add(
                    Source::Provider,
                    Some(&id),
                    "default",
                    Nacked { stream, nonce, version_info: "1".into(), error },
                );
            }
            Twist::HalfLoaded => {
                self.push_leaf(n, &fresh, false);
                self.streams[n].dumped = fresh.clone();
                self.streams[n].loaded = fresh;
                self.streams[n].loaded_all = false;
            }
            Twist::NotServed => {
                self.push_leaf(n, &fresh, false);
                self.streams[n].dumped = fresh.clone();
                self.streams[n].loaded = fresh;
            }
            Twist::Healthy | Twist::Expired | Twist::NotYetValid | Twist::WrongIdentity | Twist::SecondIdentity => {
                self.push_leaf(n, &fresh, true)
            }
        }
    }

    /// The harness's own subscription is answered, with a certificate minted for it.
    pub(super) fn answer_witness(&mut self) {
        let stream = 8000 + self.nonce;
        self.nonce += 1;
        let names = vec!["default".to_owned()];
        let type_url = SECRET_TYPE_URL.to_owned();
        let asked =
            Subscribed { stream, type_url: type_url.clone(), names, version_info: String::new(), node: String::new() };
        self.add(Source::Witness, None, "default", asked);
        let cert = self.mint("spiffe://cluster.local/workload", self.now, self.now + self.ttl);
        let secrets = vec![SentSecret { name: "default".into(), payload: Self::certificate(&cert, true, None) }];
        let sent = Sent { stream, type_url, version_info: "1".into(), nonce: "w".into(), secrets };
        self.add(Source::Witness, None, "default", sent);
    }

    fn refuse(&mut self, n: usize, fresh: &CertFacts, twist: Twist) {
        let (id, stream) = (self.streams[n].id.clone(), self.streams[n].svid);
        let (payload, error) = match twist {
            Twist::BadPem => {
                (Self::certificate(fresh, true, Some("no PEM")), "Failed to load certificate chain from <inline>")
            }
            _ => (
                Self::certificate(fresh, false, None),
                "Failed to load private key from <inline>, Cause: error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH",
            ),
        };
        let nonce = self.send(n, stream, SECRET_TYPE_URL, vec![SentSecret { name: "default".into(), payload }]);
        self.add(
            Source::Provider,
            Some(&id),
            "default",
            Nacked { stream, nonce, version_info: "1".into(), error: error.into() },
        );
        self.streams[n].refused = Some(fresh.clone());
        self.streams[n].dumped = fresh.clone();
    }

    /// One complete sample.
    pub(super) fn look(&mut self) {
        for n in 0..self.streams.len() {
            let side = &self.streams[n];
            let id = side.id.clone();
            let valid = |c: &CertFacts, s: &Self| c.not_after > ts(s.now) && c.not_before <= ts(s.now);
            let other = &self.streams[(n + 1) % self.streams.len()];
            let trusted = |c: &CertFacts, by: &Side| {
                by.roots.iter().any(|n| c.authority_key_id.as_deref() == Some(&format!("{n:02x}")))
            };
            let fine = valid(&side.served, self)
                && trusted(&side.served, other)
                && trusted(&other.served, side)
                && valid(&other.served, self)
                && side.served.uris[0] == side.uri
                && other.served.uris[0] == other.uri;
            let served = side.served.clone();
            let (first, rest) = (side.loaded.clone(), side.loaded_all);
            let leaf = |c: &CertFacts, contexts| LoadedCert {
                serial: c.serial.clone(),
                uris: c.uris.clone(),
                not_before: c.not_before,
                not_after: c.not_after,
                contexts,
            };
            let all = self.contexts;
            let leaves = if rest { vec![leaf(&first, all)] } else { vec![leaf(&first, all - 1), leaf(&served, 1)] };
            let dumped = DumpedSecret {
                name: SecretName::default_svid(),
                state: "active".into(),
                version_info: if self.old_envoy { side.updates.to_string() } else { "1".into() },
                last_updated: Some(ts(side.updated)),
                chain: vec![side.dumped.clone()],
                roots: Vec::new(),
            };
            let values = [("sds.default.update_success".to_owned(), side.updates)].into();
            let to = other.id.to_string();
            for tls in ["TLSv1_2", "TLSv1_3"] {
                let h = Handshake {
                    tls: tls.into(),
                    resumed: false,
                    chain: vec![served.clone()],
                    verified: Some(true),
                    error: None,
                };
                self.add(Source::Inbound, Some(&id), "", h.clone());
            }
            let h = Handshake {
                tls: "TLSv1_3".into(),
                resumed: false,
                chain: vec![served],
                verified: Some(true),
                error: None,
            };
            self.add(Source::Outbound, Some(&id), "", h);
            self.add(Source::Admin, Some(&id), "", Certs { leaves, authorities: Vec::new(), contexts: all });
            self.add(
                Source::Admin,
                Some(&id),
                "",
                ConfigDump { secrets: vec![dumped], static_contexts: Vec::new(), subscriptions: Vec::new() },
            );
            self.add(Source::Admin, Some(&id), "", Stats { values });
            let offset = self.now;
            self.add(
                Source::Clock,
                Some(&id),
                "",
                Receipt { expected_offset_s: offset, measured_offset_s: offset, followed: true },
            );
            let status = Some(if fine { 200 } else { 503 });
            self.add(
                Source::Traffic,
                Some(&id),
                "",
                Request { to, fresh: true, status, resumed: Some(false), error: None },
            );
        }
    }

    pub(super) fn finish(mut self) -> Timeline {
        let observations = self.timeline.observations.len() as u64;
        self.timeline.footer = Some(Footer { observations, complete: true, reason: None });
        self.timeline
    }
}

/// The same recording without some observations.
pub(super) fn without(timeline: &Timeline, drop: impl Fn(&Observation) -> bool) -> Timeline {
    let mut t = timeline.clone();
    t.observations.retain(|o| !drop(o));
    for (seq, o) in t.observations.iter_mut().enumerate() {
        o.seq = seq as u64;
    }
    if let Some(f) = &mut t.footer {
        f.observations = t.observations.len() as u64;
    }
    t
}
