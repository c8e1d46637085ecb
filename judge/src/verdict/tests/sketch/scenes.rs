//! What takes more than one renewal's twist.

use super::*;

impl Sketch {
    /// A new authority: in the bundle, signing, or both; pushed where the bundle changed.
    pub(in super::super) fn authorities(&mut self, signing: u8, bundle: &[u8], push: bool) -> &mut Self {
        self.authority = signing;
        self.bundle = bundle.to_vec();
        let state = "active".to_owned();
        self.add(Source::Provider, None, "ROOTCA", Authority { cert: authority(signing), state });
        if push {
            for n in 0..self.streams.len() {
                self.push_bundle(n);
            }
        }
        self
    }

    /// A bundle that differs from the one before, to everybody.
    pub(in super::super) fn another_bundle(&mut self) -> &mut Self {
        for n in 0..self.streams.len() {
            self.push_bundle(n);
        }
        self
    }

    /// The provider ends every proxy's stream; a new one begins with the last version and an empty nonce.
    pub(in super::super) fn reconnect(&mut self) -> &mut Self {
        for n in 0..self.streams.len() {
            let (id, stream) = (self.streams[n].id.clone(), self.streams[n].svid);
            let status = "unavailable".to_owned();
            self.add(Source::Provider, Some(&id), "default", StreamClosed { stream, by: "provider".into(), status });
            self.streams[n].svid += 1000;
            self.subscribe(n, "3");
        }
        self
    }

    fn subscribe(&mut self, n: usize, version: &str) {
        let (id, stream) = (self.streams[n].id.clone(), self.streams[n].svid);
        let opened = StreamOpened { stream, rpc: "sds_stream".into(), peer_pid: None };
        self.add(Source::Provider, Some(&id), "default", opened);
        let subscribed = Subscribed {
            stream,
            type_url: SECRET_TYPE_URL.into(),
            names: vec!["default".into()],
            version_info: version.into(),
            node: id.to_string(),
        };
        self.add(Source::Provider, Some(&id), "default", subscribed);
    }

    /// What each proxy holds.
    pub(in super::super) fn held(&self) -> Vec<CertFacts> {
        self.streams.iter().map(|side| side.held.clone()).collect()
    }

    /// To each proxy a certificate of its own.
    pub(in super::super) fn deliver(&mut self, leaves: &[CertFacts]) -> &mut Self {
        for (n, leaf) in leaves.iter().enumerate() {
            self.push_leaf(n, leaf, true);
        }
        self
    }

    /// A new certificate to each proxy, that expires when the old one does.
    pub(in super::super) fn replace_without_extending(&mut self) -> &mut Self {
        for n in 0..self.streams.len() {
            let (id, uri, held) =
                (self.streams[n].id.clone(), self.streams[n].uri.clone(), self.streams[n].held.clone());
            let cert = CertFacts { not_after: held.not_after, ..self.mint(&uri, self.now, self.now + self.ttl) };
            self.renewal += 1;
            let issued = Issued { cert: cert.clone(), renewal: Some(self.renewal), stream: None };
            self.add(Source::Provider, Some(&id), "default", issued);
            self.push_leaf(n, &cert, true);
        }
        self
    }

    /// To every proxy what it holds already.
    pub(in super::super) fn send_again(&mut self) -> &mut Self {
        for n in 0..self.streams.len() {
            let held = self.streams[n].held.clone();
            self.push_leaf(n, &held, true);
        }
        self
    }

    /// A fresh subscription of the harness's own, answered or not, and time for an answer.
    pub(in super::super) fn witness(&mut self, answered: bool) -> &mut Self {
        let (stream, leaf) = (9000 + self.nonce, self.streams[0].held.clone());
        let names = vec!["default".to_owned()];
        let type_url = SECRET_TYPE_URL.to_owned();
        let asked =
            Subscribed { stream, type_url: type_url.clone(), names, version_info: String::new(), node: String::new() };
        self.add(Source::Witness, None, "default", asked);
        if answered {
            let secrets = vec![SentSecret { name: "default".into(), payload: Self::certificate(&leaf, true, None) }];
            let sent = Sent { stream, type_url, version_info: "1".into(), nonce: "w".into(), secrets };
            self.add(Source::Witness, None, "default", sent);
        }
        self.mono_ms += 60_000;
        self
    }

    /// Two newcomers at each proxy's socket, one after the other; then time enough for the proxy to take what they were given.
    pub(in super::super) fn newcomers(
        &mut self,
        step: u64,
        given: impl Fn(&CertFacts, u64) -> Option<CertFacts>,
    ) -> &mut Self {
        for n in 0..self.streams.len() {
            for nth in 2 * step..2 * step + 2 {
                let stream = 7000 + 100 * n as u64 + nth;
                self.subscribe_beside(n, stream);
                let held = self.streams[n].held.clone();
                if let Some(leaf) = given(&held, nth) {
                    self.give(n, stream, &leaf);
                }
            }
        }
        self.mono_ms += 60_000;
        self
    }

    /// One newcomer that stays is sent what the proxy held when it came.
    pub(in super::super) fn stayed(&mut self, step: u64) -> &mut Self {
        for n in 0..self.streams.len() {
            let stream = 6000 + n as u64;
            if step == 0 {
                self.subscribe_beside(n, stream);
            }
            let held = self.streams[n].held.clone();
            self.give(n, stream, &held);
        }
        self
    }

    fn subscribe_beside(&mut self, n: usize, stream: u64) {
        let (id, names, type_url) =
            (self.streams[n].id.clone(), vec!["default".to_owned()], SECRET_TYPE_URL.to_owned());
        let node = WITNESS_NODE.to_owned();
        let asked = Subscribed { stream, type_url, names, version_info: String::new(), node };
        self.add(Source::Witness, Some(&id), "default", asked);
    }

    fn give(&mut self, n: usize, stream: u64, leaf: &CertFacts) {
        self.version += 1;
        let (id, type_url, version_info) =
            (self.streams[n].id.clone(), SECRET_TYPE_URL.to_owned(), self.version.to_string());
        let secrets = vec![SentSecret { name: "default".into(), payload: Self::certificate(leaf, true, None) }];
        self.add(
            Source::Witness,
            Some(&id),
            "default",
            Sent { stream, type_url, version_info, nonce: "w".into(), secrets },
        );
    }

    /// Other leaves in `/certs`, and the bundle's streams getting certificates that are never sent, as tbot does it.
    pub(in super::super) fn mint_for_bundle_streams(&mut self, tells_stream: bool) -> &mut Self {
        for n in 0..self.streams.len() {
            let (id, uri, root) = (self.streams[n].id.clone(), self.streams[n].uri.clone(), self.streams[n].root);
            let cert = self.mint(&uri, self.now, self.now + self.ttl);
            let (proxy, stream) = if tells_stream { (Some(&id), Some(root)) } else { (None, None) };
            self.add(Source::Provider, proxy, "", Issued { cert, renewal: None, stream });
        }
        self
    }

    /// The process goes and comes again; its new streams are sent what there is.
    pub(in super::super) fn restart(&mut self, n: usize) -> &mut Self {
        let id = self.streams[n].id.clone();
        let (code, signal, log_tail) = (Some(0), None, Vec::new());
        self.add(Source::Process, Some(&id), "", Exited { code, signal, expected: true, log_tail });
        let stream = self.streams[n].svid;
        let (by, status) = ("connection".to_owned(), "cancelled".to_owned());
        self.add(Source::Provider, Some(&id), "default", StreamClosed { stream, by, status });
        self.add(Source::Process, Some(&id), "", Spawned { pid: 99, what: "envoy".into() });
        self.streams[n].svid += 2000;
        self.streams[n].updates = 0;
        self.subscribe(n, "");
        let held = self.streams[n].held.clone();
        self.push_leaf(n, &held, true);
        self
    }

    /// Some contexts take what the proxy refuses.
    pub(in super::super) fn refuse_partially(&mut self, by: i64) -> &mut Self {
        self.pass(by);
        self.renewal += 1;
        for n in 0..self.streams.len() {
            let (id, uri) = (self.streams[n].id.clone(), self.streams[n].uri.clone());
            let fresh = self.mint(&uri, self.now, self.now + self.ttl);
            let issued = Issued { cert: fresh.clone(), renewal: Some(self.renewal), stream: None };
            self.add(Source::Provider, Some(&id), "default", issued);
            let error = "Failed to load certificate chain from <inline>, at least one OCSP response is required";
            self.refused_with(n, &fresh, true, None, error);
            self.streams[n].loaded = fresh;
            self.streams[n].loaded_all = false;
        }
        self.look();
        self
    }

    /// One renewal that every proxy refuses with these words.
    pub(in super::super) fn refuse_with(&mut self, by: i64, problem: Option<&str>, error: &str) -> &mut Self {
        self.pass(by);
        self.renewal += 1;
        for n in 0..self.streams.len() {
            let (id, uri) = (self.streams[n].id.clone(), self.streams[n].uri.clone());
            let fresh = self.mint(&uri, self.now, self.now + self.ttl);
            let issued = Issued { cert: fresh.clone(), renewal: Some(self.renewal), stream: None };
            self.add(Source::Provider, Some(&id), "default", issued);
            self.refused_with(n, &fresh, true, problem, error);
        }
        self.look();
        self
    }

    fn refused_with(&mut self, n: usize, fresh: &CertFacts, key: bool, problem: Option<&str>, error: &str) {
        let (id, stream) = (self.streams[n].id.clone(), self.streams[n].svid);
        let payload = Self::certificate(fresh, key, problem);
        let nonce = self.send(n, stream, SECRET_TYPE_URL, vec![SentSecret { name: "default".into(), payload }]);
        let (version_info, error) = ("1".to_owned(), error.to_owned());
        self.add(Source::Provider, Some(&id), "default", Nacked { stream, nonce, version_info, error });
        self.streams[n].dumped = fresh.clone();
    }

    /// This proxy is served by somebody else.
    pub(in super::super) fn another_issuer(&mut self, n: usize) -> &mut Self {
        let uri = self.streams[n].uri.clone();
        let cert = self.mint(&uri, self.now, self.now + self.ttl);
        let side = &mut self.streams[n];
        (side.held, side.dumped) = (cert.clone(), cert.clone());
        (side.loaded, side.served) = (cert.clone(), cert);
        self
    }

    /// The harness did not run for so long; the time of day went on.
    pub(in super::super) fn stall(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds;
        self.mono_ms += u64::try_from(seconds).unwrap() * 1000;
        self.add(Source::Harness, None, "", Stall { gap_ms: u64::try_from(seconds).unwrap() * 1000 });
        self
    }

    /// Real time passes, as much on both clocks.
    pub(in super::super) fn live(&mut self, seconds: i64, twist: Twist) -> &mut Self {
        self.now += seconds;
        self.mono_ms += u64::try_from(seconds).unwrap() * 1000;
        self.renewal += 1;
        let step = Step { index: self.renewal, renewal: Some(self.renewal), what: "renewal".into() };
        self.add(Source::Harness, None, "", step);
        for n in 0..self.streams.len() {
            self.renew(n, twist);
        }
        self.look();
        self
    }

    /// One request from proxy to proxy that did not succeed.
    pub(in super::super) fn one_request_fails(&mut self) -> &mut Self {
        let (id, to) = (self.streams[0].id.clone(), self.streams[1].id.to_string());
        let failed = Request { to, fresh: true, status: Some(503), resumed: None, error: None };
        self.add(Source::Traffic, Some(&id), "", failed);
        self
    }

    /// One handshake that came to nothing.
    pub(in super::super) fn one_handshake_fails(&mut self) -> &mut Self {
        let id = self.streams[0].id.clone();
        let failed = Handshake {
            tls: "TLSv1_3".into(),
            resumed: false,
            chain: Vec::new(),
            verified: None,
            error: Some("connection reset by peer".into()),
        };
        self.add(Source::Inbound, Some(&id), "", failed);
        self
    }
}

/// A night on which every proxy has two streams for its certificate, each with its own succession.
pub(in super::super) fn duplicate_subscription(steps: u32) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    let mut second = Vec::new();
    for n in 0..s.streams.len() {
        let other = s.streams[n].svid + 500;
        let own = std::mem::replace(&mut s.streams[n].svid, other);
        s.subscribe(n, "");
        second.push((own, other));
    }
    for k in 1..=steps {
        s.pass(1200);
        for (n, (own, other)) in second.clone().into_iter().enumerate() {
            let (id, uri) = (s.streams[n].id.clone(), s.streams[n].uri.clone());
            for stream in [own, other] {
                s.streams[n].svid = stream;
                let cert = s.mint(&uri, s.now, s.now + s.ttl);
                let issued = Issued { cert: cert.clone(), renewal: Some(k), stream: Some(stream) };
                s.add(Source::Provider, Some(&id), "default", issued);
                // The one feeds the inbound listener, the other the remaining contexts.
                s.push_leaf(n, &cert, stream == own);
                s.streams[n].loaded = cert;
                s.streams[n].loaded_all = false;
            }
        }
        s.mono_ms += 30_000;
        s.look();
    }
    s.finish()
}
