//! Each check can fail, and none holds where nothing was looked at.

use std::collections::BTreeSet;

use super::*;

fn results(v: &Verdict, result: CheckResult) -> BTreeSet<&str> {
    v.findings.iter().filter(|f| f.result == result).map(|f| f.check.as_str()).collect()
}

fn hours(s: &mut Sketch, steps: u32, every: i64) {
    for _ in 0..steps {
        s.step(every, Twist::Healthy);
    }
}

fn edited(mut t: Timeline, edit: impl Fn(&mut Observation)) -> Timeline {
    t.observations.iter_mut().for_each(edit);
    t
}

#[test]
fn each_check_has_a_control_that_it_catches() {
    let healthy = || night(Twist::Healthy, 1, 12);
    let seeded = |twist| night(twist, 2, 12);
    let mut lost = Sketch::new(3600, 1200);
    hours(&mut lost, 8, 1200);
    let closed = StreamClosed { stream: 1, by: "provider".into(), status: "unavailable".into() };
    let id = ProxyId::parse("proxy-a").unwrap();
    lost.add(Source::Provider, Some(&id), "default", closed);
    lost.stall(100).look();
    let mut crashed = Sketch::new(3600, 1200);
    hours(&mut crashed, 8, 1200);
    let exited = Exited { code: Some(134), signal: None, expected: false, log_tail: vec!["assert failure".into()] };
    crashed.add(Source::Process, Some(&id), "", exited);
    let mut thin = Sketch::new(3600, 3500);
    hours(&mut thin, 6, 3500);

    let controls: &[(&str, CheckResult, Timeline)] = &[
        ("recording_complete", CheckResult::Undecided, {
            let mut t = healthy();
            t.footer = None;
            t
        }),
        ("clock_receipts", CheckResult::Undecided, without(&healthy(), |o| matches!(o.fact, Fact::Receipt(_)))),
        ("process_alive", CheckResult::Violated, crashed.finish()),
        (
            "secrets_arrived",
            CheckResult::Violated,
            without(&healthy(), |o| matches!(o.fact, Fact::Sent(_) | Fact::Handshake(_))),
        ),
        ("full_handshakes", CheckResult::Undecided, without(&healthy(), |o| o.source == Source::Outbound)),
        ("renewed_past_first_expiry", CheckResult::Violated, seeded(Twist::NoRenewal)),
        ("both_roles_fresh", CheckResult::Violated, seeded(Twist::Expired)),
        ("every_context_fresh", CheckResult::Violated, seeded(Twist::HalfLoaded)),
        ("newest_or_previous", CheckResult::Violated, seeded(Twist::NoPush)),
        ("accepted", CheckResult::Violated, seeded(Twist::Nack)),
        ("identity_unchanged", CheckResult::Violated, seeded(Twist::WrongIdentity)),
        (
            "peers_accept",
            CheckResult::Violated,
            edited(healthy(), |o| {
                if let Fact::Request(r) = &mut o.fact {
                    r.status = Some(503);
                }
            }),
        ),
        ("renewal_margin", CheckResult::Violated, thin.finish()),
        ("renewal_overdue", CheckResult::Violated, seeded(Twist::ResendCached)),
        (
            "lag_bound",
            CheckResult::Violated,
            edited(seeded(Twist::NotServed), |o| {
                o.at.mono = std::time::Duration::from_secs(20 * o.seq);
            }),
        ),
        ("listeners_accepted", CheckResult::Violated, {
            let mut s = Sketch::new(3600, 1200);
            hours(&mut s, 8, 1200);
            let late = ListenerSent { name: "late".into(), address: "127.0.0.1:1".into() };
            s.add(Source::Harness, Some(&id), "", late);
            let refused = ListenerAnswered { name: "late".into(), error: Some("no".into()) };
            s.add(Source::Harness, Some(&id), "", refused);
            s.finish()
        }),
        ("stream_alive", CheckResult::Violated, edited(lost.finish(), |_| {})),
    ];
    let checked: Vec<_> = controls.iter().map(|(name, ..)| *name).collect();
    assert_eq!(checked, CHECKS.iter().map(|c| c.name).collect::<Vec<_>>());
    let fine = judge(&healthy());
    for (name, result, t) in controls {
        assert!(results(&fine, CheckResult::Holds).contains(name), "{name} on a healthy night: {:#?}", fine.findings);
        let v = judge(t);
        assert!(results(&v, *result).contains(name), "{name}: {:#?}", v.findings);
        assert_ne!(v.judgement, Judgement::Pass, "{name}");
    }
}

#[test]
fn where_nothing_was_looked_at_nothing_holds() {
    let empty = without(&night(Twist::Healthy, 1, 12), |_| true);
    let v = judge(&empty);
    assert_eq!(v.judgement, Judgement::Inconclusive);
    // These are about the recording itself: it is whole, no time was moved, nothing was added or seen to end.
    let trivial = BTreeSet::from(["clock_receipts", "listeners_accepted", "process_alive", "recording_complete"]);
    assert_eq!(results(&v, CheckResult::Holds), trivial);
}
