//! Long recordings: work and memory grow with the recording, not with its square.

use std::time::Instant;

use super::*;

/// A recording of some 30 observations for each step.
fn long(steps: u32, looks: u32, twist: Twist) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    for k in 0..steps {
        s.step(1200, if k > 10 { twist } else { Twist::Healthy });
        for _ in 1..looks {
            s.look();
        }
    }
    s.finish()
}

/// Comparing every generation with every push and handshake would not come to an end here.
#[test]
fn five_thousand_generations_in_two_hundred_thousand_observations_are_judged() {
    let t = long(2500, 5, Twist::Healthy);
    assert!(t.observations.len() > 200_000, "{}", t.observations.len());
    let ledger = Ledger::of(&t);
    assert_eq!(ledger.generations.len(), 5002);
    let v = judge_ledger(&ledger);
    assert_eq!(v.judgement, Judgement::Pass, "{}", v.headline);
}

#[test]
fn a_long_failure_is_judged_too() {
    for twist in [Twist::ResendCached, Twist::Nack, Twist::NoPush, Twist::HalfLoaded] {
        let v = judge(&long(1500, 1, twist));
        assert_eq!(v.judgement, Judgement::Fail, "{}", v.headline);
    }
}

/// For a look at the speed: `cargo test --release --lib a_million -- --ignored --nocapture`.
#[test]
#[expect(clippy::print_stderr, reason = "a measurement is for reading")]
#[ignore = "a measurement, worth something in a release build only"]
fn a_million_observations_are_judged() {
    for twist in [Twist::Healthy, Twist::ResendCached, Twist::Nack, Twist::NoPush] {
        let t = long(12_500, 5, twist);
        let began = Instant::now();
        let v = judge(&t);
        eprintln!("{} observations, {twist:?}: {:?} in {:?}", t.observations.len(), v.judgement, began.elapsed());
    }
}
