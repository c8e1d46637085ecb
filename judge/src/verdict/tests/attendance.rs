//! Proxies that come later than the others, are replaced, or go.

use super::*;

const BOTH: [TlsRole; 2] = [TlsRole::Inbound, TlsRole::Outbound];

fn healthy(s: &mut Sketch, steps: u32) {
    for _ in 0..steps {
        s.step(1200, Twist::Healthy);
    }
}

/// Six renewals, then somebody comes, and as many more with this twist for it alone.
fn with_latecomer(twist: Twist, steps: u32) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 6);
    s.join("late", None, &BOTH).wait(1);
    for _ in 0..steps {
        s.each(1200, |n| if n == 2 { twist } else { Twist::Healthy });
    }
    s.finish()
}

fn told<'a>(v: &'a Verdict, words: &str) -> Option<&'a Finding> {
    v.findings.iter().find(|f| f.message.contains(words))
}

#[test]
fn a_late_proxy_that_renews_passes_and_one_that_does_not_fails_by_name() {
    let v = judge(&with_latecomer(Twist::Healthy, 7));
    assert_eq!(v.judgement, Judgement::Pass, "{}\n{:#?}", v.headline, v.findings);
    assert!(told(&v, "late came at").is_some(), "{:#?}", v.findings);
    for (twist, layer, mode) in SEEDED {
        let v = judge(&with_latecomer(*twist, 7));
        let context = format!("{twist:?}: {}\n{:#?}", v.headline, v.findings);
        assert_eq!(
            (v.judgement, v.layer, v.diagnosis.as_deref()),
            (Judgement::Fail, Some(*layer), Some(*mode)),
            "{context}"
        );
        let blamed = v.findings.iter().filter(|f| f.result == CheckResult::Violated && f.secret.is_some());
        assert!(blamed.into_iter().all(|f| f.proxy.as_ref().unwrap().as_str() == "late"), "{context}");
    }
}

#[test]
fn a_late_proxy_whose_time_was_too_short_is_neither_passed_nor_failed() {
    for steps in [0, 1, 2] {
        let t = with_latecomer(Twist::Healthy, steps);
        let v = judge(&t);
        assert_eq!(v.judgement, Judgement::Inconclusive, "{steps}: {}\n{:#?}", v.headline, v.findings);
        assert!(v.missing.iter().any(|m| m.contains("late: no full inbound handshake") && m.contains("it came at")));
        assert_eq!(undecided_latecomers(&t).iter().map(ProxyId::as_str).collect::<Vec<_>>(), ["late"]);
    }
    assert!(undecided_latecomers(&with_latecomer(Twist::Healthy, 7)).is_empty());
}

#[test]
fn a_late_proxy_that_nothing_was_seen_of_is_not_passed() {
    let whole = with_latecomer(Twist::Healthy, 7);
    let of_late = |o: &Observation| o.proxy.as_ref().is_some_and(|id| id.as_str() == "late");
    let t = without(&whole, |o| of_late(o) && !matches!(o.fact, Fact::Joined(_) | Fact::Spawned(_)));
    assert_eq!(judge(&t).judgement, Judgement::Inconclusive);
}

#[test]
fn what_nothing_leads_into_is_judged_by_what_it_serves() {
    let not_outbound = |t: &Timeline| {
        let of_late = |o: &Observation| o.proxy.as_ref().is_some_and(|id| id.as_str() == "late");
        let mut t = without(t, |o| of_late(o) && matches!(o.source, Source::Outbound | Source::Traffic));
        for o in &mut t.observations {
            if let Fact::Joined(joined) = &mut o.fact {
                joined.roles = vec![TlsRole::Inbound];
            }
        }
        t
    };
    let v = judge(&not_outbound(&with_latecomer(Twist::Healthy, 7)));
    assert_eq!(v.judgement, Judgement::Pass, "{}\n{:#?}", v.headline, v.findings);
    assert!(told(&v, "late: no way leads to its outbound handshakes").is_some(), "{:#?}", v.findings);
    let v = judge(&not_outbound(&with_latecomer(Twist::ResendCached, 7)));
    assert_eq!((v.judgement, v.diagnosis.as_deref()), (Judgement::Fail, Some("resend-cached")), "{}", v.headline);
}

#[test]
fn one_that_takes_the_place_of_another_has_to_prove_itself_anew() {
    let replaced = |twist: Twist, steps: u32| {
        let mut s = Sketch::new(3600, 1200);
        healthy(&mut s, 2);
        s.leave("proxy-b", None).wait(1);
        s.join("proxy-b.2", Some("proxy-b"), &BOTH).wait(1);
        for _ in 0..steps {
            s.each(1200, |n| if n == 1 { twist } else { Twist::Healthy });
        }
        judge(&s.finish())
    };
    let v = replaced(Twist::Healthy, 7);
    assert_eq!(v.judgement, Judgement::Pass, "{}\n{:#?}", v.headline, v.findings);
    assert!(told(&v, "proxy-b.2 took its place").is_some() && told(&v, "(it was gone before)").is_some());
    // A restart heals what was stuck, for a while.
    let v = replaced(Twist::NoRenewal, 7);
    assert_eq!((v.judgement, v.diagnosis.as_deref()), (Judgement::Fail, Some("never-renews")), "{}", v.headline);
    assert_eq!(replaced(Twist::Healthy, 1).judgement, Judgement::Inconclusive);
}

#[test]
fn what_one_did_wrong_before_it_went_stays_done() {
    let mut s = Sketch::new(3600, 1200);
    for _ in 0..5 {
        s.each(1200, |n| if n == 1 { Twist::ResendCached } else { Twist::Healthy });
    }
    s.leave("proxy-b", None);
    s.join("proxy-b.2", Some("proxy-b"), &BOTH).wait(1);
    healthy(&mut s, 7);
    let v = judge(&s.finish());
    assert_eq!((v.judgement, v.diagnosis.as_deref()), (Judgement::Fail, Some("resend-cached")), "{}", v.headline);
}

#[test]
fn a_crash_is_a_failure_also_where_it_is_started_again() {
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 2);
    s.leave("proxy-b", Some(139));
    s.join("proxy-b.2", Some("proxy-b"), &BOTH).wait(1);
    healthy(&mut s, 7);
    let v = judge(&s.finish());
    assert_eq!(v.judgement, Judgement::Fail, "{}", v.headline);
    assert!(v.findings.iter().any(|f| f.check == "process_alive" && f.result == CheckResult::Violated));
}

#[test]
fn one_that_vanished_is_said_to_have_vanished() {
    // Somebody's replica, taken away again: the others are what the cell is about.
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 3);
    s.join("late", None, &BOTH).wait(1);
    healthy(&mut s, 1);
    s.leave("late", None);
    healthy(&mut s, 6);
    let v = judge(&s.finish());
    assert_eq!(v.judgement, Judgement::Pass, "{}\n{:#?}", v.headline, v.findings);
    assert!(told(&v, "late: at").is_some_and(|f| f.message.contains("it vanished")), "{:#?}", v.findings);
    assert!(v.headline.starts_with("2 proxies served 11 generations"), "{}", v.headline);
    // One that the cell is about, before it had shown anything.
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 2);
    s.leave("proxy-b", None);
    healthy(&mut s, 7);
    let v = judge(&s.finish());
    assert_eq!(v.judgement, Judgement::Inconclusive, "{}\n{:#?}", v.headline, v.findings);
    assert!(told(&v, "it vanished").is_some());
    // Nor does it help that another one came in its place, and vanished too.
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 2);
    s.leave("proxy-b", None);
    s.join("proxy-b.2", Some("proxy-b"), &BOTH).wait(1);
    s.leave("proxy-b.2", None);
    healthy(&mut s, 7);
    assert_eq!(judge(&s.finish()).judgement, Judgement::Inconclusive);
}

#[test]
fn what_could_not_reach_one_that_was_away_is_no_refusal() {
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 2);
    s.leave("proxy-b", None);
    let (from, to) = (ProxyId::parse("proxy-a").unwrap(), "proxy-b".to_owned());
    let failed = Request { to, fresh: true, status: Some(503), resumed: Some(false), error: None };
    s.add(Source::Traffic, Some(&from), "", failed.clone());
    s.join("proxy-b.2", Some("proxy-b"), &BOTH).wait(1);
    healthy(&mut s, 7);
    let v = judge(&s.finish());
    assert_eq!(v.judgement, Judgement::Pass, "{}\n{:#?}", v.headline, v.findings);
    assert!(!v.findings.iter().any(|f| f.check == "masked-by-pool"), "{:#?}", v.findings);
    // The control: the same where nobody was away.
    let mut s = Sketch::new(3600, 1200);
    healthy(&mut s, 2);
    s.add(Source::Traffic, Some(&from), "", failed);
    healthy(&mut s, 7);
    assert_ne!(judge(&s.finish()).judgement, Judgement::Pass);
}
