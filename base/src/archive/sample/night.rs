//! Recordings of a night: eleven hours of cell time, certificates of an hour, a renewal every twenty minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::subject;
use crate::timeline::*;

/// What went on in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Night {
    /// Every renewal arrives.
    Healthy,
    /// The provider sends its first certificate again and again; `config_dump` says that all is well.
    Resent,
    /// From the third renewal on, the proxies refuse what they get.
    Refused,
    /// Nothing was seen but the proxies themselves, and that only for the first two hours.
    CutShort,
}

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

fn dusk() -> jiff::Timestamp {
    "2026-11-25T03:10:05Z".parse().unwrap()
}

fn leaf(proxy: &str, n: u32) -> CertFacts {
    let from = dusk() + jiff::SignedDuration::from_secs(i64::from(n) * 20 * MINUTE);
    let fingerprint = Fingerprint::of_der(format!("{proxy} {n}").as_bytes());
    CertFacts {
        serial: Serial::parse(&format!("4a{}", &fingerprint.to_string()[..30])).unwrap(),
        fingerprint,
        uris: vec![format!("spiffe://lab.example/ns/demo/sa/{proxy}")],
        not_before: from,
        not_after: from + jiff::SignedDuration::from_secs(HOUR),
        subject: String::new(),
        issuer: "CN=lab".into(),
        subject_key_id: None,
        authority_key_id: None,
        key_type: "ecdsa-p256".into(),
        is_ca: false,
    }
}

struct Pen {
    out: Vec<Observation>,
    mono_ms: u64,
    offset_s: i64,
}

impl Pen {
    fn note(&mut self, source: Source, proxy: Option<&str>, fact: impl Into<Fact>) {
        self.mono_ms += 1;
        let mono = Duration::from_millis(self.mono_ms);
        let wall = dusk() + jiff::SignedDuration::from_secs(self.offset_s) + mono;
        self.out.push(Observation {
            seq: self.out.len() as u64,
            at: At { mono, wall, offset_s: self.offset_s },
            source,
            proxy: proxy.map(|p| ProxyId::parse(p).unwrap()),
            secret: proxy.map(|_| SecretName::default_svid()),
            fact: fact.into(),
        });
    }

    fn wall(&self) -> jiff::Timestamp {
        self.out.last().unwrap().at.wall
    }
}

/// The recording; `hostile` is put wherever a proxy or a provider can put a text of its own.
pub fn recording(night: Night, cell: &CellId, hostile: &str) -> Timeline {
    let scenario = ScenarioName::parse(cell.as_str().split('@').next().unwrap()).unwrap();
    let proxies = ["a", "b"];
    let header = Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: "0.1.0".into(),
        cell: cell.clone(),
        scenario,
        role: if matches!(night, Night::Healthy | Night::CutShort) { Role::Conformance } else { Role::Control },
        subject: subject("1.36.4"),
        clock: ClockKind::Virtual,
        started: dusk(),
        proxies: proxies
            .map(|p| ProxyExpectation {
                id: ProxyId::parse(p).unwrap(),
                spiffe_id: Some(SpiffeId::parse(&leaf(p, 0).uris[0]).unwrap()),
                contexts: Some(48),
            })
            .to_vec(),
        criteria: Criteria {
            ttl_s: 3600,
            renew_every_s: Some(1200),
            lag_bound_ms: 5000,
            margin_floor_s: 360,
            margin_floor_ms: None,
            newer_generations: 2,
            generations_past_first_expiry: 2,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    };
    let mut pen = Pen { out: Vec::new(), mono_ms: 0, offset_s: 0 };
    pen.note(Source::Harness, None, Phase { name: "observe".into() });
    for (i, p) in proxies.iter().enumerate() {
        pen.note(Source::Process, Some(p), Spawned { pid: 100 + i as i32, what: "envoy".into() });
        let stream = i as u64;
        pen.note(
            Source::Provider,
            Some(p),
            StreamOpened { stream, rpc: "sds_stream".into(), peer_pid: Some(100 + i as i32) },
        );
        let names = vec!["default".into()];
        pen.note(
            Source::Provider,
            Some(p),
            Subscribed { stream, type_url: SECRET_TYPE.into(), names, version_info: String::new(), node: (*p).into() },
        );
    }
    let last = if night == Night::CutShort { 6 } else { 33 };
    for n in 0..=last {
        if n > 0 {
            let from_s = pen.offset_s;
            pen.offset_s += 20 * MINUTE;
            let to_s = pen.offset_s;
            pen.note(Source::Clock, None, Jump { from_s, to_s });
            pen.note(Source::Harness, None, Step { index: n, renewal: Some(n), what: format!("renewal {n}") });
        }
        for (i, p) in proxies.iter().enumerate() {
            renewal(&mut pen, night, n, p, i as u64, hostile);
        }
        for p in &proxies {
            samples(&mut pen, night, n, p);
        }
    }
    let footer = (night != Night::CutShort).then_some(Footer {
        observations: pen.out.len() as u64,
        complete: true,
        reason: None,
    });
    Timeline { header, observations: pen.out, footer }
}

/// The generation that is minted, that is sent and that the proxy uses, at a renewal.
fn generations(night: Night, n: u32) -> (Option<u32>, u32, u32) {
    match night {
        Night::Healthy | Night::CutShort => (Some(n), n, n),
        Night::Resent => ((n == 0).then_some(0), 0, 0),
        Night::Refused => (Some(n), n, n.min(2)),
    }
}

fn renewal(pen: &mut Pen, night: Night, n: u32, proxy: &str, stream: u64, hostile: &str) {
    let (minted, sent, used) = generations(night, n);
    if night == Night::CutShort {
        return;
    }
    if let Some(minted) = minted {
        pen.note(Source::Provider, Some(proxy), Issued { cert: leaf(proxy, minted), renewal: Some(n), stream: None });
    }
    let (nonce, version_info) = (format!("{n:08x}"), format!("v{n}{hostile}"));
    let chain = vec![leaf(proxy, sent)];
    let digest = chain[0].fingerprint;
    let payload = Payload::Certificate { chain, digest, key_matches: None, problem: None };
    let secrets = vec![SentSecret { name: "default".into(), payload }];
    let sent_fact = Sent {
        stream,
        type_url: SECRET_TYPE.into(),
        version_info: version_info.clone(),
        nonce: nonce.clone(),
        secrets,
    };
    pen.note(Source::Provider, Some(proxy), sent_fact);
    if used == sent {
        pen.note(Source::Provider, Some(proxy), Acked { stream, nonce, version_info });
    } else {
        let error = format!("Failed to load private key from <inline>: KEY_VALUES_MISMATCH{hostile}");
        pen.note(Source::Provider, Some(proxy), Nacked { stream, nonce, version_info: "v2".into(), error });
    }
}

fn samples(pen: &mut Pen, night: Night, n: u32, proxy: &str) {
    let (_, sent, used) = generations(night, n);
    let cert = leaf(proxy, used);
    let wall = pen.wall();
    pen.note(
        Source::Clock,
        Some(proxy),
        Receipt { expected_offset_s: pen.offset_s, measured_offset_s: pen.offset_s, followed: true },
    );
    let dumped = DumpedSecret {
        name: SecretName::default_svid(),
        state: "active".into(),
        version_info: format!("v{n}"),
        last_updated: Some(wall),
        chain: vec![leaf(proxy, sent)],
        roots: Vec::new(),
    };
    pen.note(
        Source::Admin,
        Some(proxy),
        ConfigDump { secrets: vec![dumped], static_contexts: Vec::new(), subscriptions: Vec::new() },
    );
    let loaded = LoadedCert {
        serial: cert.serial.clone(),
        uris: cert.uris.clone(),
        not_before: cert.not_before,
        not_after: cert.not_after,
        contexts: 48,
    };
    pen.note(Source::Admin, Some(proxy), Certs { leaves: vec![loaded], authorities: Vec::new(), contexts: 48 });
    let counters = BTreeMap::from([("sds.default.update_success".to_owned(), u64::from(n) + 1)]);
    pen.note(Source::Admin, Some(proxy), Stats { values: counters });
    let expired = cert.not_after <= wall;
    for source in [Source::Inbound, Source::Outbound] {
        let handshake = Handshake {
            tls: "TLSv1_3".into(),
            resumed: false,
            chain: vec![cert.clone()],
            verified: Some(!expired),
            error: expired.then(|| "certificate expired".to_owned()),
        };
        pen.note(source, Some(proxy), handshake);
    }
    let to = if proxy == "a" { "b" } else { "a" };
    let status = Some(if expired { 503 } else { 200 });
    pen.note(
        Source::Traffic,
        Some(proxy),
        Request { to: to.into(), fresh: true, status, resumed: Some(false), error: None },
    );
}
