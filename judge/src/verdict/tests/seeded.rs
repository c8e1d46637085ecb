//! The recordings of every control, as `rotacheck selfcheck` made them on Envoys 1.38.3 and 1.40.0: with less evidence, and with one
//! thing in them changed. `fixtures/controls.zip` holds their timelines, each named after its scenario.

use std::io::Read as _;
use std::sync::LazyLock;

use camino::Utf8Path;

use super::recorded::{essence, renumber, shuffle_samples};
use super::*;

/// By name of the scenario.
pub(super) fn recordings() -> &'static [(String, Timeline)] {
    static ALL: LazyLock<Vec<(String, Timeline)>> = LazyLock::new(|| {
        let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/controls.zip");
        let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
        (0..archive.len())
            .map(|i| {
                let mut file = archive.by_index(i).unwrap();
                let name = file.name().unwrap().strip_suffix(".ndjson").unwrap().to_owned();
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                (name, Timeline::read(bytes.as_slice()).unwrap())
            })
            .collect()
    });
    &ALL
}

fn healthy() -> impl Iterator<Item = &'static (String, Timeline)> {
    recordings().iter().filter(|(_, t)| t.header.expect.judgement == ExpectedJudgement::Pass)
}

fn failing() -> impl Iterator<Item = &'static (String, Timeline)> {
    recordings().iter().filter(|(_, t)| t.header.expect.judgement == ExpectedJudgement::Fail)
}

#[test]
fn every_recorded_control_is_judged_as_it_should_be() {
    assert!(recordings().len() >= 30 && healthy().count() >= 3);
    for (name, t) in recordings() {
        let (v, expect) = (judge(t), &t.header.expect);
        let expected = match expect.judgement {
            ExpectedJudgement::Pass => Judgement::Pass,
            ExpectedJudgement::Fail => Judgement::Fail,
            ExpectedJudgement::Inconclusive => Judgement::Inconclusive,
        };
        assert_eq!((v.judgement, v.layer), (expected, expect.layer), "{name}: {}", v.headline);
        assert_eq!(v.diagnosis, expect.diagnosis, "{name}: {}", v.headline);
        for mode in &expect.noted {
            assert!(v.findings.iter().any(|f| f.check == *mode), "{name} does not note {mode}");
        }
    }
}

#[test]
fn whatever_evidence_is_missing_nothing_untrue_is_said() {
    let mut wrong = Vec::new();
    for (name, t) in recordings() {
        for blindfold in Blindfold::ALL {
            let v = judge_without(t, blindfold);
            if let Some(what) = untrue(&t.header.expect, &v) {
                wrong.push(format!("{name}, without {}: {what}", blindfold.name()));
            }
            // Several names need something that decides between them.
            if v.candidates.len() > 1 && v.candidates.iter().any(|c| c.would_decide.is_none()) {
                wrong.push(format!("{name}, without {}: nothing is said to decide", blindfold.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_mode_is_noted_that_was_not_seen_with_all_evidence() {
    let noted = |v: &Verdict| -> Vec<String> {
        let modes = v.findings.iter().filter(|f| f.result == CheckResult::Noted && mode(&f.check).is_some());
        modes.map(|f| f.check.clone()).collect()
    };
    for (name, t) in recordings() {
        let whole = noted(&judge(t));
        for blindfold in Blindfold::ALL {
            let less = noted(&judge_without(t, blindfold));
            assert!(less.iter().all(|m| whole.contains(m)), "{name}, without {}: {less:?}", blindfold.name());
        }
    }
}

#[test]
fn every_failure_answers_what_is_suspected_first_also_with_less_evidence() {
    for (name, t) in failing() {
        let whole = judge(t);
        assert_eq!(whole.hypotheses.len(), Suspicion::ALL.len(), "{name}");
        for blindfold in Blindfold::ALL {
            let less = judge_without(t, blindfold);
            for (full, part) in whole.hypotheses.iter().zip(&less.hypotheses) {
                // Less may be known, or something else be taken for it; never the opposite of what was seen.
                let agree = part.answer == YesNo::Unseen || full.answer == YesNo::Unseen || part.answer == full.answer;
                assert!(agree, "{name}, without {}: {full:?} {part:?}", blindfold.name());
            }
        }
    }
}

#[test]
fn the_faults_own_notes_and_later_kinds_of_observation_change_no_word() {
    for (name, t) in recordings() {
        let mut less = without(t, |o| matches!(o.fact, Fact::FaultNote(_) | Fact::ServerInfo(_)));
        let mut later = less.observations[less.observations.len() / 2].clone();
        (later.source, later.proxy) = (Source::Harness, None);
        later.fact = Fact::Unknown { kind: "later".to_owned(), data: serde_json::json!({}) };
        less.observations.insert(less.observations.len() / 2, later);
        shuffle_samples(&mut less, 7919);
        renumber(&mut less);
        assert_eq!(essence(&judge(&less)), essence(&judge(t)), "{name}");
    }
}

#[test]
fn a_clock_that_did_not_follow_makes_every_control_inconclusive() {
    let moved = |t: &Timeline| t.observations.iter().any(|o| matches!(o.fact, Fact::Jump(_)));
    for (name, t) in recordings().iter().filter(|(_, t)| moved(t) && t.observations.iter().any(is_receipt)) {
        let mut t = t.clone();
        let last = t.observations.iter_mut().rev().find(|o| is_receipt(o)).unwrap();
        if let Fact::Receipt(r) = &mut last.fact {
            r.followed = false;
        }
        assert_eq!(judge(&t).judgement, Judgement::Inconclusive, "{name}");
    }
}

fn is_receipt(o: &Observation) -> bool {
    matches!(o.fact, Fact::Receipt(_))
}

#[test]
fn one_thing_broken_in_what_recovered_is_found() {
    for (name, whole) in healthy() {
        let handshakes: Vec<usize> = whole
            .observations
            .iter()
            .enumerate()
            .filter(|(_, o)| matches!(&o.fact, Fact::Handshake(h) if !h.resumed && !h.chain.is_empty()))
            .map(|(i, _)| i)
            .collect();

        // A fingerprint.
        for i in handshakes.iter().copied().step_by(11) {
            let mut t = whole.clone();
            if let Fact::Handshake(h) = &mut t.observations[i].fact {
                h.chain[0].fingerprint = Fingerprint::of_der(b"another");
            }
            let v = judge(&t);
            assert_eq!((v.judgement, v.diagnosis), (Judgement::Fail, None), "{name}, {i}: {}", v.headline);
        }

        // An order: at the end, the first leaf is served again.
        let (first, last) = (handshakes[0], handshakes[handshakes.len() - 1]);
        let mut t = whole.clone();
        let old = t.observations[first].fact.clone();
        t.observations[last].fact = old;
        let v = judge(&t);
        assert_eq!(v.judgement, Judgement::Fail, "{name}: {}", v.headline);
        assert_ne!(v.layer, Some(Layer::Acked), "{name}: {}", v.headline);

        // Missing samples: nothing after the first expiry.
        let expiry = match &whole.observations[first].fact {
            Fact::Handshake(h) => h.chain[0].not_after,
            _ => unreachable!(),
        };
        for source in [Source::Inbound, Source::Outbound] {
            let v = judge(&without(whole, |o| o.source == source && o.at.wall > expiry));
            assert_eq!(v.judgement, Judgement::Inconclusive, "{name}, {source:?}: {}", v.headline);
        }

        // A refusal of a certificate that came.
        let answer = whole.observations.iter().rposition(|o| {
            matches!(o.fact, Fact::Acked(_)) && o.secret == Some(SecretName::default_svid()) && o.proxy.is_some()
        });
        let mut t = whole.clone();
        let answer = answer.unwrap();
        if let Fact::Acked(a) = t.observations[answer].fact.clone() {
            let error = "Failed to load private key: KEY_VALUES_MISMATCH".to_owned();
            let Acked { stream, nonce, version_info } = a;
            t.observations[answer].fact = Nacked { stream, nonce, version_info, error }.into();
        }
        let v = judge(&t);
        assert_eq!((v.judgement, v.layer), (Judgement::Fail, Some(Layer::Acked)), "{name}: {}", v.headline);
    }
}

#[test]
fn a_floor_below_a_second_is_one_too() {
    let margin = |floor_ms: Option<u64>| {
        let mut s = Sketch::new(8, 4);
        s.step(7, Twist::Healthy).step(4, Twist::Healthy).step(4, Twist::Healthy);
        let mut t = s.finish();
        (t.header.criteria.margin_floor_s, t.header.criteria.margin_floor_ms) = (0, floor_ms);
        let v = judge(&t);
        v.findings.iter().find(|f| f.check == "renewal_margin").map(|f| (f.result, f.message.clone())).unwrap()
    };
    // A second was left. Without milliseconds, as older recordings have it, the floor is none.
    assert_eq!(margin(None).0, CheckResult::Holds);
    assert_eq!(margin(Some(800)).0, CheckResult::Holds);
    let (result, message) = margin(Some(1500));
    assert_eq!(result, CheckResult::Violated);
    assert!(message.contains("with 1 s left of the old one") && message.contains("the floor is 1.5 s"), "{message}");
}
