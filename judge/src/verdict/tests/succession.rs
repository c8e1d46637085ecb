//! Renewals that are none: the provider goes back, extends nothing, or a look comes just in time.

use jiff::SignedDuration;

use super::sketch::{Sketch, Twist, without};
use super::*;

fn named(v: &Verdict) -> (Judgement, Option<Layer>, Option<&str>) {
    (v.judgement, v.layer, v.diagnosis.as_deref())
}

#[test]
fn a_provider_that_goes_back_to_an_older_certificate_is_blamed_and_no_proxy() {
    for steps in [1, 2] {
        let mut s = Sketch::new(3600, 1200);
        let first = s.held();
        for _ in 0..steps {
            s.step(1200, Twist::Healthy);
        }
        s.deliver(&first).wait(3601 - 1200 * steps);
        s.step(1200, Twist::Healthy).step(1200, Twist::Healthy);
        let t = s.finish();
        let v = judge(&t);
        assert_eq!(named(&v), (Judgement::Fail, Some(Layer::Sent), Some("resend-stale")), "{}", v.headline);
        assert!(v.headline.contains("went back to serial"), "{}", v.headline);
        let v = judge(&without(&t, |o| matches!(o.fact, Fact::Issued(_))));
        assert_eq!(named(&v), (Judgement::Fail, Some(Layer::Sent), Some("resend-stale")), "{}", v.headline);
    }
}

#[test]
fn a_new_serial_that_lives_no_longer_is_defective_as_issued() {
    let mut s = Sketch::new(3600, 1200);
    for _ in 0..2 {
        s.pass(1200);
        s.replace_without_extending().look();
    }
    s.wait(1201).wait(1200);
    let t = s.finish();
    for t in [without(&t, |o| matches!(o.fact, Fact::Issued(_))), t] {
        let v = judge(&t);
        assert_eq!(named(&v), (Judgement::Fail, Some(Layer::Issued), None), "{}", v.headline);
        assert!(v.headline.contains("which expires no later"), "{}", v.headline);
    }
}

#[test]
fn a_context_has_not_expired_before_its_certificate_has() {
    let looked = |before_ms: i64| {
        let mut t = night(Twist::Healthy, 1, 6);
        let look = t.observations.iter_mut().rfind(|o| matches!(o.fact, Fact::Certs(_))).unwrap();
        let Fact::Certs(certs) = &look.fact else { unreachable!() };
        look.at.wall = certs.leaves[0].not_after - SignedDuration::from_millis(before_ms);
        judge(&t).findings.into_iter().find(|f| f.check == "every_context_fresh").unwrap()
    };
    assert_eq!(looked(400).result, CheckResult::Holds);
    assert_eq!(looked(0).result, CheckResult::Violated);
    assert_eq!(looked(-400).result, CheckResult::Violated);
}

#[test]
fn an_authority_that_nobody_names_is_told_of_and_gets_no_name() {
    let mut s = Sketch::new(3600, 1200);
    s.step(1200, Twist::Healthy);
    s.authorities(2, &[1], false).step(1200, Twist::Healthy).step(1200, Twist::Healthy).step(1200, Twist::Healthy);
    let v = judge(&without(&s.finish(), |o| matches!(o.fact, Fact::Authority(_))));
    assert_eq!(named(&v), (Judgement::Fail, None, None), "{}", v.headline);
    assert!(v.headline.contains("of an authority that no bundle ever held"), "{}", v.headline);
}
