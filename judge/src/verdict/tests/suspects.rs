//! What it may be, of each proxy by itself, as somebody sees it who only looks at a cluster.

use super::*;

/// What was recorded from this look at the cluster on.
fn from_look(t: &Timeline, nth: usize) -> Timeline {
    let looks: Vec<_> = t.observations.iter().filter(|o| matches!(o.fact, Fact::Jump(_))).map(|o| o.seq).collect();
    attached(&without(t, |o| o.seq < looks[nth]))
}

fn of(t: &Timeline) -> Vec<(Vec<String>, Vec<&'static str>)> {
    let found = suspects(t, &judge(t), &standings(t));
    let names = |s: &Suspects| s.proxies.iter().map(ToString::to_string).collect();
    found.iter().map(|s| (names(s), s.modes.iter().map(|(mode, _)| mode.name).collect())).collect()
}

#[test]
fn what_one_proxy_shows_is_no_evidence_of_anothers_failure() {
    let mut s = Sketch::fleet(2, 4, 3600, 1200);
    for _ in 0..6 {
        s.each(1200, |n| if n == 0 { Twist::ResendCached } else { Twist::Nack });
    }
    let found = of(&attached(&s.finish()));
    let [(first, cached), (second, refused)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.as_slice(), second.as_slice()), (&["proxy-a".to_owned()][..], &["proxy-b".to_owned()][..]));
    assert!(cached.contains(&"resend-cached") && !cached.iter().any(|mode| mode.starts_with("nack")), "{cached:?}");
    assert!(refused.contains(&"nack-key-mismatch") && !refused.contains(&"resend-cached"), "{refused:?}");
}

#[test]
fn proxies_of_which_it_is_the_same_are_named_together_and_sound_ones_not_at_all() {
    let mut s = Sketch::fleet(3, 4, 3600, 1200);
    for _ in 0..6 {
        s.each(1200, |n| if n == 2 { Twist::Healthy } else { Twist::ResendCached });
    }
    let found = of(&attached(&s.finish()));
    let names: Vec<_> = found.iter().map(|(names, _)| names.join(" ")).collect();
    assert_eq!(names, ["proxy-a proxy-b"], "{found:?}");
}

#[test]
fn refusals_that_are_over_are_told_and_suspected_no_more() {
    let mut s = Sketch::fleet(2, 4, 3600, 1200);
    for k in 0..7 {
        // Both were refused once, and took the next one; then one is no longer renewed.
        s.each(1200, |n| match (k, n) {
            (0, _) => Twist::Nack,
            (2.., 1) => Twist::NoRenewal,
            _ => Twist::Healthy,
        });
    }
    let mut t = from_look(&s.finish(), 6);
    for o in &mut t.observations {
        if let Fact::Stats(stats) = &mut o.fact {
            stats.values.insert("sds.default.update_rejected".to_owned(), 1);
        }
    }
    let counted = "Envoy counts 1 refused updates of default since its process started";
    for standing in standings(&t) {
        assert!(standing.comes.iter().any(|said| said.starts_with(counted)), "{standing:?}");
        assert!(!standing.suspected.iter().any(|mode| mode.starts_with("nack")), "{standing:?}");
    }
    let found = of(&t);
    assert!(found.len() == 1 && found[0].0 == ["proxy-b"] && !found[0].1.contains(&"nack-bad-pem"), "{found:?}");
}

/// A night that had gone wrong before anybody looked.
fn late(twist: Twist) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    for _ in 0..6 {
        s.step(1200, twist);
    }
    from_look(&s.finish(), 3)
}

#[test]
fn certificates_that_come_when_they_have_expired_are_told_also_where_it_had_begun_before() {
    let found = of(&late(Twist::Expired));
    assert!(found.iter().all(|(_, modes)| modes == &["expired-on-arrival"]) && !found.is_empty(), "{found:?}");
}

#[test]
fn one_that_comes_again_after_another_is_the_provider_going_back() {
    let going_back = |times: u32| {
        let mut s = Sketch::new(3600, 1200);
        let old = s.held();
        s.step(4000, Twist::NoRenewal);
        for _ in 0..times {
            s.step(600, Twist::Healthy);
            s.deliver(&old).step(600, Twist::NoPush);
        }
        s.finish()
    };
    let modes = |t: &Timeline| of(t).into_iter().next().map(|(_, modes)| modes);
    assert_eq!(modes(&from_look(&going_back(1), 0)), Some(vec!["resend-stale"]));
    // Whoever has not seen it before can't tell it from one that was minted so.
    assert_eq!(modes(&from_look(&going_back(1), 1)), Some(vec!["expired-on-arrival", "resend-stale"]));
    assert_eq!(modes(&from_look(&going_back(2), 1)), Some(vec!["resend-stale"]));
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_told_from_one_look() {
    let t = late(Twist::NotYetValid);
    let last = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Jump(_))).map_or(0, |o| o.seq);
    for t in [&without(&t, |o| o.seq < last), &t] {
        let found = of(t);
        assert!(found.iter().all(|(_, modes)| modes == &["not-yet-valid"]) && !found.is_empty(), "{found:?}");
    }
}

#[test]
fn of_one_that_was_renewed_too_late_it_is_told_and_nothing_guessed() {
    let mut s = Sketch::new(3600, 1200);
    s.step(4000, Twist::NoRenewal).step(600, Twist::Healthy);
    let t = attached(&s.finish());
    let standings = standings(&t);
    for standing in &standings {
        assert!(standing.remarks.iter().any(|said| said.ends_with("the next one came too late")), "{standing:?}");
    }
    assert_eq!(of(&t), []);
}

#[test]
fn a_look_that_a_push_comes_into_is_no_refusal() {
    let t = night(Twist::Healthy, 1, 2);
    // The last dump is of before the push, the contexts are of after it.
    let look = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Jump(_))).unwrap().seq;
    let t = attached(&without(&t, |o| o.seq > look && matches!(o.fact, Fact::ConfigDump(_))));
    for s in standings(&t) {
        assert_eq!((s.state, s.remarks.as_slice(), s.suspected.as_slice()), (State::Fresh, &[][..], &[][..]), "{s:?}");
    }
}

#[test]
fn a_bundle_that_comes_while_the_certificate_does_not_is_told_by_counters() {
    let counted = |bundle: u64, own: u64| {
        let mut t = late(Twist::NoRenewal);
        let stats = t.observations.iter_mut().filter_map(|o| match &mut o.fact {
            Fact::Stats(stats) => Some(&mut stats.values),
            _ => None,
        });
        for (n, values) in (0..).zip(stats) {
            values.insert("sds.ROOTCA.update_success".to_owned(), 7 + n * bundle);
            values.insert("sds.default.update_success".to_owned(), 1 + n * own);
        }
        of(&t).remove(0).1
    };
    assert_eq!(counted(1, 0), ["bundle-only", "starved-by-bundle-churn"]);
    assert!(counted(0, 0).contains(&"never-renews") && !counted(0, 0).starts_with(&["bundle-only"]));
    assert!(counted(1, 1).contains(&"resend-cached"));
}
