//! Providers that name and group their secrets in other ways than the harness's own: by SPIFFE IDs, all on one stream, or
//! with one certificate for each role.

use std::collections::{BTreeMap, BTreeSet};

use super::recorded::renumber;
use super::seeded::recordings;
use super::*;

const SVID: &str = "spiffe://cluster.local/workload";
const BUNDLE: &str = "spiffe://cluster.local";

/// The same recording, of a mesh with these names.
fn by_spiffe_ids(t: &Timeline) -> Timeline {
    let other = |name: &str| match name {
        "default" => SVID.to_owned(),
        "ROOTCA" => BUNDLE.to_owned(),
        name => name.to_owned(),
    };
    let parsed = |name: &SecretName| SecretName::parse(&other(name.as_str())).unwrap();
    let mut t = t.clone();
    for o in &mut t.observations {
        o.secret = o.secret.as_ref().map(parsed);
        match &mut o.fact {
            Fact::Subscribed(s) => s.names = s.names.iter().map(|name| other(name)).collect(),
            Fact::Sent(s) => s.secrets.iter_mut().for_each(|secret| secret.name = other(&secret.name)),
            Fact::Written(w) => w.secret.name = other(&w.secret.name),
            Fact::ConfigDump(dump) => {
                dump.secrets.iter_mut().for_each(|secret| secret.name = parsed(&secret.name));
                dump.subscriptions.iter_mut().for_each(|source| source.name = other(&source.name));
            }
            Fact::Stats(stats) => {
                // As Envoy 1.38 names them.
                let named = |stat: &String| {
                    stat.replace("sds.default.", "sds.spiffe_cluster.local/workload.")
                        .replace("sds.ROOTCA.", "sds.spiffe_cluster.local.")
                };
                stats.values = stats.values.iter().map(|(stat, value)| (named(stat), *value)).collect();
            }
            Fact::Log(l) => l.line = l.line.replace("sds.default", &format!("sds.{SVID}")),
            _ => {}
        }
    }
    t
}

/// What is on a proxy's streams comes on its first one, which is subscribed to all.
fn on_one_stream(t: &Timeline) -> Timeline {
    let (mut first, mut one, mut names) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for o in t.observations.iter().filter(|o| o.source != Source::Witness) {
        if let (Fact::Subscribed(s), Some(id)) = (&o.fact, &o.proxy) {
            let to: u64 = *first.entry(id.clone()).or_insert(s.stream);
            one.insert(s.stream, to);
            let all: &mut BTreeSet<String> = names.entry(to).or_default();
            all.extend(s.names.iter().cloned());
        }
    }
    let mut t = t.clone();
    let mut subscribed = BTreeSet::new();
    t.observations.retain_mut(|o| {
        let (stream, nonce) = match &mut o.fact {
            _ if o.source == Source::Witness => return true,
            Fact::StreamOpened(s) => return one.get(&s.stream).is_none_or(|to| *to == s.stream),
            Fact::StreamClosed(s) => return one.get(&s.stream).is_none_or(|to| *to == s.stream),
            Fact::Subscribed(s) => {
                let Some(to) = one.get(&s.stream) else { return true };
                (s.stream, s.names) = (*to, names[to].iter().cloned().collect());
                return subscribed.insert(*to);
            }
            Fact::Sent(s) => (&mut s.stream, &mut s.nonce),
            Fact::Acked(s) => (&mut s.stream, &mut s.nonce),
            Fact::Nacked(s) => (&mut s.stream, &mut s.nonce),
            Fact::Issued(issued) => {
                issued.stream = issued.stream.map(|stream| one.get(&stream).copied().unwrap_or(stream));
                return true;
            }
            _ => return true,
        };
        *nonce = format!("{stream}-{nonce}");
        *stream = one.get(stream).copied().unwrap_or(*stream);
        true
    });
    renumber(&mut t);
    t
}

fn told(v: &Verdict) -> String {
    let modes: Vec<_> = v.candidates.iter().map(|c| (&c.mode, &c.confidence)).collect();
    format!("{:?} {:?} {:?} {modes:?}", v.judgement, v.layer, v.diagnosis)
}

type Blinded = fn(&Observation) -> bool;
const BLINDED: [(&str, Blinded); 3] = [
    ("all", |_| false),
    ("no issuer", |o| matches!(o.fact, Fact::Issued(_) | Fact::Authority(_) | Fact::FaultNote(_))),
    ("nobody at the provider", |o| matches!(o.source, Source::Provider | Source::Tap)),
];

#[test]
fn what_secrets_are_called_changes_no_verdict() {
    for (name, t) in recordings() {
        for (what, blinded) in BLINDED {
            let usual = without(t, blinded);
            let (a, b) = (judge(&usual), judge(&by_spiffe_ids(&usual)));
            assert_eq!(told(&a), told(&b), "{name}, {what}:\n{}\n{}", a.headline, b.headline);
        }
    }
}

#[test]
fn secrets_that_share_a_stream_are_judged_as_if_each_had_its_own() {
    for (name, t) in recordings() {
        // What befalls a stream befalls all that is on it.
        let several = |o: &Observation| matches!(&o.fact, Fact::StreamClosed(_)) && o.source != Source::Witness;
        if t.observations.iter().any(several) || name.contains("duplicate") {
            continue;
        }
        for (what, blinded) in &BLINDED[..2] {
            let usual = without(t, blinded);
            let (a, b) = (judge(&usual), judge(&on_one_stream(&usual)));
            assert_eq!(told(&a), told(&b), "{name}, {what}:\n{}\n{}", a.headline, b.headline);
        }
    }
}

#[test]
fn a_bundle_that_is_refused_on_a_shared_stream_is_not_the_certificate() {
    let mut s = Sketch::new(3600, 1200);
    for k in 1..=6 {
        s.step(1200, Twist::Healthy);
        if k == 3 {
            s.another_bundle();
        }
    }
    let mut t = s.finish();
    let is_bundle = |secret: &SentSecret| matches!(secret.payload, Payload::Bundle { .. });
    let sent = t.observations.iter().rev().find_map(|o| match &o.fact {
        Fact::Sent(sent) if sent.secrets.iter().any(is_bundle) => Some((sent.stream, sent.nonce.clone())),
        _ => None,
    });
    for o in &mut t.observations {
        if let Fact::Acked(acked) = &o.fact
            && sent == Some((acked.stream, acked.nonce.clone()))
        {
            let (stream, nonce, version_info) = (acked.stream, acked.nonce.clone(), acked.version_info.clone());
            let error = "Failed to load trusted CA certificates from <inline>".to_owned();
            o.fact = Fact::Nacked(Nacked { stream, nonce, version_info, error });
        }
    }
    for t in [on_one_stream(&t), t] {
        let v = judge(&t);
        assert_eq!((v.judgement, v.layer), (Judgement::Fail, Some(Layer::Acked)), "{}", v.headline);
        assert!(v.headline.contains("refused 1 of 2 responses for ROOTCA"), "{}", v.headline);
    }
}

/// The leaf of the second certificate that a proxy gets beside this one.
fn twin(leaf: &CertFacts) -> CertFacts {
    let serial = Serial::from_be_bytes(&leaf.fingerprint.to_string().as_bytes()[..8]);
    CertFacts { fingerprint: Fingerprint::of_der(leaf.fingerprint.to_string().as_bytes()), serial, ..leaf.clone() }
}

/// Each proxy has a second certificate of its identity, `client`, for the handshakes that it begins. What `keeps` says of a
/// response to it is whether that certificate comes.
fn with_one_for_each_role(t: &Timeline, comes: impl Fn(usize) -> bool) -> Timeline {
    let mut of_svid = BTreeSet::new();
    let (mut all, mut sent) = (Vec::new(), BTreeMap::new());
    let mut held: BTreeMap<ProxyId, CertFacts> = BTreeMap::new();
    for o in &t.observations {
        let mut o = o.clone();
        if let (Fact::Handshake(h), Source::Outbound, Some(id)) = (&mut o.fact, o.source, &o.proxy)
            && let (Some(leaf), Some(own)) = (h.chain.first_mut(), held.get(id))
        {
            *leaf = own.clone();
        }
        if let Fact::Certs(certs) = &mut o.fact {
            let own = held.get(o.proxy.as_ref().unwrap()).unwrap();
            certs.leaves.iter_mut().for_each(|leaf| leaf.contexts = leaf.contexts.saturating_sub(1));
            let like = LoadedCert {
                serial: own.serial.clone(),
                uris: own.uris.clone(),
                not_before: own.not_before,
                not_after: own.not_after,
                contexts: 1,
            };
            certs.leaves.push(like);
        }
        all.push(o.clone());
        let stream = match &mut o.fact {
            _ if o.source != Source::Provider => continue,
            Fact::Subscribed(s) if s.names == ["default"] => {
                of_svid.insert(s.stream);
                s.names = vec!["client".to_owned()];
                &mut s.stream
            }
            Fact::Sent(s) if of_svid.contains(&s.stream) => {
                let id = o.proxy.clone().unwrap();
                let n = sent.entry(id.clone()).or_insert(0);
                *n += 1;
                for secret in &mut s.secrets {
                    secret.name = "client".to_owned();
                    if let Payload::Certificate { chain, digest, .. } = &mut secret.payload {
                        let own = if *n == 1 || comes(*n) { twin(&chain[0]) } else { held[&id].clone() };
                        (*digest, chain[0]) = (own.fingerprint, own.clone());
                        held.insert(id.clone(), own);
                    }
                }
                &mut s.stream
            }
            Fact::Acked(s) if of_svid.contains(&s.stream) => &mut s.stream,
            _ => continue,
        };
        *stream += 10_000;
        o.secret = SecretName::parse("client").ok();
        all.push(o);
    }
    let mut t = Timeline { observations: all, ..t.clone() };
    renumber(&mut t);
    t
}

fn night_behind_a_tap(twist: Twist) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    for _ in 1..=9 {
        s.step(1200, twist);
    }
    without(&s.finish(), BLINDED[1].1)
}

#[test]
fn a_certificate_for_each_role_is_no_mix_up() {
    let v = judge(&with_one_for_each_role(&night_behind_a_tap(Twist::Healthy), |_| true));
    assert_eq!(v.judgement, Judgement::Pass, "{}\n{:#?}", v.headline, v.findings);
}

#[test]
fn of_two_certificates_the_one_that_is_not_renewed_is_named() {
    let v = judge(&with_one_for_each_role(&night_behind_a_tap(Twist::Healthy), |n| n < 3));
    let modes: Vec<&str> = v.candidates.iter().map(|c| c.mode.as_str()).collect();
    assert_eq!(
        (v.judgement, v.layer, modes),
        (Judgement::Fail, None, vec!["resend-cached", "resend-stale"]),
        "{}",
        v.headline
    );
    // The control: with the other one it is as ever.
    let v = judge(&with_one_for_each_role(&night_behind_a_tap(Twist::Nack), |n| n < 99));
    assert_eq!((v.judgement, v.layer), (Judgement::Fail, Some(Layer::Acked)), "{}", v.headline);
}
