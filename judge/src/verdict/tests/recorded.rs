//! Recordings of real Envoys, made by the scenarios of the same names (shortened, without further contexts).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;

use super::*;

const RECORDED: [&str; 9] = [
    "bundle-rotation",
    "expired-on-arrival",
    "incident",
    "issues-never-pushes",
    "nack-key-mismatch",
    "never-renews",
    "rotation",
    "rotation-one-hour",
    "stream-closed-once",
];

fn path(name: &str) -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/timelines").join(format!("{name}.ndjson"))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn recorded(name: &str) -> Timeline {
    static ALL: LazyLock<BTreeMap<&str, Timeline>> =
        LazyLock::new(|| RECORDED.map(|name| (name, Timeline::read(bytes(name).as_slice()).unwrap())).into());
    ALL[name].clone()
}

/// What a person reads of a verdict.
fn prose(v: &Verdict) -> String {
    let mut text = format!(
        "{:?}, layer {}, diagnosis {}\n{}\n",
        v.judgement,
        v.layer.map_or("none", Layer::name),
        v.diagnosis.as_deref().unwrap_or("none"),
        v.headline
    );
    for c in &v.contradictions {
        text += &format!("claim: {}\n  but: {}\n", c.claim, c.against);
    }
    for f in &v.findings {
        if matches!(f.result, CheckResult::Violated | CheckResult::Undecided) {
            text += &format!("{:?} {}: {}\n", f.result, f.check, f.message);
        }
    }
    text
}

#[test]
fn recorded_runs_are_judged_as_they_were() {
    for name in RECORDED {
        insta::assert_snapshot!(name, prose(&judge(&recorded(name))));
    }
}

#[test]
fn recorded_runs_give_what_their_scenarios_expect() {
    for name in RECORDED {
        let t = recorded(name);
        let v = judge(&t);
        let expected = match t.header.expect.judgement {
            ExpectedJudgement::Pass => Judgement::Pass,
            ExpectedJudgement::Fail => Judgement::Fail,
            ExpectedJudgement::Inconclusive => Judgement::Inconclusive,
        };
        assert_eq!(v.judgement, expected, "{name}: {}", v.headline);
        assert_eq!((v.layer, &v.diagnosis), (t.header.expect.layer, &t.header.expect.diagnosis), "{name}");
    }
}

#[test]
fn one_served_fingerprint_changed_anywhere_fails_a_healthy_recording() {
    for name in ["rotation", "rotation-one-hour", "bundle-rotation", "stream-closed-once"] {
        let whole = recorded(name);
        let handshakes = whole.observations.iter().enumerate().filter(|(_, o)| matches!(o.fact, Fact::Handshake(_)));
        for i in handshakes.map(|(i, _)| i).step_by(17).collect::<Vec<_>>() {
            let mut t = whole.clone();
            let Fact::Handshake(h) = &mut t.observations[i].fact else { unreachable!() };
            let Some(leaf) = h.chain.first_mut() else { continue };
            leaf.fingerprint = Fingerprint::of_der(b"another");
            let v = judge(&t);
            assert_eq!(v.judgement, Judgement::Fail, "{name}, observation {i}: {}", v.headline);
            assert_eq!(
                (v.layer, &v.diagnosis),
                (Some(Layer::Served), &None),
                "{name}, observation {i}: {}",
                v.headline
            );
        }
    }
}

#[test]
fn an_acknowledgement_turned_into_a_refusal_is_blamed_on_acked() {
    let whole = recorded("rotation");
    let of_certificates = |o: &Observation| o.secret.as_ref() == Some(&SecretName::default_svid());
    let acks = whole.observations.iter().enumerate().filter(|(_, o)| matches!(o.fact, Fact::Acked(_)));
    for i in acks.filter(|(_, o)| of_certificates(o)).map(|(i, _)| i).collect::<Vec<_>>() {
        let mut t = whole.clone();
        let Fact::Acked(a) = t.observations[i].fact.clone() else { unreachable!() };
        let error = "Failed to load private key: KEY_VALUES_MISMATCH".to_owned();
        t.observations[i].fact =
            Nacked { stream: a.stream, nonce: a.nonce, version_info: a.version_info, error }.into();
        let v = judge(&t);
        assert_eq!((v.judgement, v.layer), (Judgement::Fail, Some(Layer::Acked)), "observation {i}: {}", v.headline);
    }
}

#[test]
fn a_recording_cut_anywhere_is_not_judged_as_complete() {
    for name in RECORDED {
        let whole = bytes(name);
        let header = whole.iter().position(|b| *b == b'\n').unwrap();
        for cut in (header + 1..whole.len() - 1).step_by(whole.len() / 9) {
            let Ok(t) = Timeline::read(&whole[..cut]) else { continue };
            assert_eq!(judge(&t).judgement, Judgement::Inconclusive, "{name} at {cut}");
        }
    }
}

#[test]
fn a_shorter_recording_that_calls_itself_complete_does_not_pass() {
    for name in ["rotation", "rotation-one-hour", "bundle-rotation"] {
        let whole = recorded(name);
        for keep in [whole.observations.len() / 4, whole.observations.len() / 2] {
            let mut t = whole.clone();
            t.observations.truncate(keep);
            t.footer = Some(Footer { observations: keep as u64, complete: true, reason: None });
            assert_eq!(judge(&t).judgement, Judgement::Inconclusive, "{name}, {keep}");
        }
    }
}

#[test]
fn with_any_one_source_less_no_recording_gets_a_wrong_name() {
    let kinds = KINDS.iter().filter(|k| !matches!(**k, "jump" | "receipt" | "phase" | "step"));
    for kind in kinds {
        for name in RECORDED {
            let whole = recorded(name);
            let v = judge(&without(&whole, |o| o.fact.kind() == *kind));
            let expect = &whole.header.expect;
            let context = format!("{name} without {kind}: {:?} {}", v.candidates, v.headline);
            if expect.judgement == ExpectedJudgement::Pass {
                assert_ne!(v.judgement, Judgement::Fail, "{context}");
            } else {
                assert_ne!(v.judgement, Judgement::Pass, "{context}");
                assert!(v.layer.is_none() || v.layer == expect.layer, "{:?} {context}", v.layer);
                assert!(v.diagnosis.is_none() || v.diagnosis == expect.diagnosis, "{context}");
            }
        }
    }
}

/// What a verdict says, without the numbers of the observations.
pub(super) fn essence(v: &Verdict) -> (Judgement, Option<Layer>, Option<String>, String, usize) {
    (v.judgement, v.layer, v.diagnosis.clone(), v.headline.clone(), v.findings.len())
}

pub(super) fn renumber(t: &mut Timeline) {
    for (seq, o) in t.observations.iter_mut().enumerate() {
        o.seq = seq as u64;
    }
    t.footer = Some(Footer { observations: t.observations.len() as u64, complete: true, reason: None });
}

/// Neighbours in one sample may be recorded in any order: what one proxy's probes saw, between two other events.
pub(super) fn shuffle_samples(t: &mut Timeline, seed: u64) {
    let probed = |o: &Observation| {
        matches!(o.source, Source::Admin | Source::Inbound | Source::Outbound) && !matches!(o.fact, Fact::Blind(_))
    };
    let mut state = seed | 1;
    let mut i = 0;
    while i < t.observations.len() {
        let run = t.observations[i..].iter().take_while(|o| probed(o)).count();
        for k in (1..run).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let j = usize::try_from(state >> 33).unwrap() % (k + 1);
            let (a, b) = (t.observations[i + k].at, t.observations[i + j].at);
            t.observations.swap(i + k, i + j);
            (t.observations[i + k].at, t.observations[i + j].at) = (a, b);
        }
        i += run + 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn what_is_irrelevant_leaves_the_verdict(
        which in 0..RECORDED.len(),
        seed: u64,
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        suffix in "[a-z0-9]{0,6}",
    ) {
        let whole = recorded(RECORDED[which]);
        let mut t = whole.clone();
        shuffle_samples(&mut t, seed);
        for o in &mut t.observations {
            match &mut o.fact {
                Fact::Sent(s) => s.version_info += &suffix,
                Fact::Acked(a) => a.version_info += &suffix,
                Fact::Peers(p) => p.socket += &suffix,
                _ => {}
            }
        }
        for place in places {
            let i = place.index(t.observations.len());
            let mut o = t.observations[i].clone();
            (o.source, o.proxy) = (Source::Harness, None);
            o.fact = Fact::Unknown { kind: format!("later-{suffix}"), data: serde_json::json!({ "n": seed }) };
            t.observations.insert(i, o.clone());
            o.source = Source::Witness;
            o.fact = StreamOpened { stream: 1_000_000 + seed % 1000, rpc: "sds_stream".into(), peer_pid: None }.into();
            t.observations.insert(i, o);
        }
        renumber(&mut t);
        prop_assert_eq!(essence(&judge(&t)), essence(&judge(&whole)));
    }

    #[test]
    fn no_bytes_make_it_panic(
        which in 0..RECORDED.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = bytes(RECORDED[which]);
        for (place, byte) in edits {
            let i = place.index(bytes.len());
            bytes[i] = byte;
        }
        if let Ok(t) = Timeline::read(bytes.as_slice()) {
            judge(&t);
        }
    }

    #[test]
    fn no_values_make_it_panic(
        which in 0..RECORDED.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..14_u8, any::<u64>()), 1..40),
    ) {
        let mut t = recorded(RECORDED[which]);
        for (place, what, value) in edits {
            spoil(&mut t, place.index(usize::MAX), what, value);
        }
        judge(&t);
    }
}

fn spoil(t: &mut Timeline, place: usize, what: u8, value: u64) {
    let i = place % t.observations.len();
    let moment = match value % 3 {
        0 => jiff::Timestamp::MAX,
        1 => jiff::Timestamp::MIN,
        _ => jiff::Timestamp::UNIX_EPOCH,
    };
    let small = i64::try_from(value / 2).unwrap_or(i64::MAX);
    match what {
        0 => t.observations[i].seq = value,
        1 => t.observations[i].at.mono = std::time::Duration::MAX,
        2 => t.observations[i].at.wall = moment,
        3 => t.observations[i].at.offset_s = -small,
        4 => t.header.criteria.renew_every_s = Some(value),
        5 => t.header.criteria.margin_floor_s = value,
        6 => t.header.criteria.ttl_s = value,
        7 => t.header.criteria.lag_bound_ms = value,
        8 => t.observations[i].fact = Stall { gap_ms: value }.into(),
        9 => t.observations[i].proxy = ProxyId::parse("another").ok(),
        10 => {
            (t.header.criteria.newer_generations, t.header.criteria.generations_past_first_expiry) =
                (u32::MAX, u32::MAX)
        }
        11 => {
            t.observations.remove(i);
        }
        12 => {
            let j = usize::try_from(value).unwrap_or(0) % t.observations.len();
            t.observations.swap(i, j);
        }
        _ => match &mut t.observations[i].fact {
            Fact::Handshake(h) => h.chain.iter_mut().for_each(|c| c.not_after = moment),
            Fact::Certs(c) => c.leaves.iter_mut().for_each(|l| l.contexts = u32::MAX),
            Fact::Stats(s) => s.values.values_mut().for_each(|v| *v = value),
            Fact::Sent(s) => (s.stream, s.nonce) = (value, String::new()),
            Fact::Issued(i) => i.cert.not_before = moment,
            _ => {}
        },
    }
}

#[test]
fn the_order_within_a_sample_changes_no_word() {
    for name in RECORDED {
        let whole = recorded(name);
        for seed in 0..6 {
            let mut t = whole.clone();
            shuffle_samples(&mut t, seed * 7919);
            renumber(&mut t);
            assert_eq!(essence(&judge(&t)), essence(&judge(&whole)), "{name}, {seed}");
        }
    }
}
