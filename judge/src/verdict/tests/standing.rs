//! Where proxies stand, by their admin APIs alone.

use super::*;

/// As somebody sees it who only looks at a cluster.
fn attached(t: &Timeline) -> Timeline {
    let mut t = without(t, |o| o.source != Source::Admin);
    t.header.criteria.renew_every_s = None;
    t.header.proxies.clear();
    t
}

/// The last look alone.
fn one_look(t: &Timeline) -> Timeline {
    let last = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Jump(_))).unwrap().seq;
    attached(&without(t, |o| o.seq < last))
}

fn states(t: &Timeline) -> Vec<State> {
    let standings = standings(t);
    assert!(!standings.is_empty());
    standings.iter().map(|s| s.state).collect()
}

#[test]
fn a_mesh_that_renews_is_fresh_and_nothing_is_said_of_it() {
    let healthy = night(Twist::Healthy, 1, 12);
    for t in [attached(&healthy), one_look(&healthy)] {
        for s in standings(&t) {
            assert_eq!((s.state, s.overdue_s), (State::Fresh, None), "{s:?}");
            assert!(s.remarks.is_empty() && s.suspected.is_empty(), "{s:?}");
            assert!(s.identity.is_some() && s.left_s.is_some_and(|left| left > 0), "{s:?}");
        }
    }
}

#[test]
fn an_expired_certificate_is_told_from_one_look() {
    for s in standings(&one_look(&night(Twist::NoRenewal, 1, 12))) {
        assert_eq!(s.state, State::Expired);
        assert!(s.left_s.unwrap() < -3600, "{s:?}");
        assert!(s.remarks[0].contains("TLS contexts hold serial") && s.remarks[0].contains("expired since"), "{s:?}");
    }
}

#[test]
fn a_renewal_that_is_left_out_is_told_before_anything_expires() {
    let mut sketch = Sketch::new(3600, 1200);
    sketch.step(1200, Twist::NoRenewal).step(1200, Twist::NoRenewal);
    let t = one_look(&sketch.finish());
    for s in standings(&t) {
        assert_eq!(s.state, State::Overdue, "{s:?}");
        assert!(s.overdue_s.unwrap() >= 600 && s.left_s.unwrap() > 0, "{s:?}");
        assert!(s.remarks.iter().any(|r| r.contains("half of its lifetime")), "{s:?}");
    }
    let mut named = t;
    named.header.criteria.renew_every_s = Some(1200);
    assert!(standings(&named).iter().all(|s| s.overdue_s.unwrap() >= 1200));
    named.header.criteria.renew_every_s = Some(3000);
    assert_eq!(standings(&named)[0].state, State::Fresh);
}

#[test]
fn versions_that_move_over_one_certificate_are_told_before_it_expires() {
    let mut sketch = Sketch::new(36_000, 600);
    for _ in 0..4 {
        sketch.step(600, Twist::ResendCached);
    }
    let t = attached(&sketch.finish());
    for s in standings(&t) {
        assert!(s.suspected.contains(&"resend-cached"), "{s:?}");
        let told = |r: &String| r.contains("the version of default moved") && r.contains("stayed serial");
        assert!(s.remarks.iter().any(told), "{s:?}");
    }
}

#[test]
fn on_newer_envoys_the_counters_tell_it() {
    let mut sketch = Sketch::new(36_000, 600).new_envoy();
    for _ in 0..4 {
        sketch.step(600, Twist::ResendCached);
    }
    for s in standings(&attached(&sketch.finish())) {
        assert!(s.remarks.iter().any(|r| r.contains("update_success")), "{s:?}");
    }
}

#[test]
fn up_to_envoy_1_36_one_look_shows_that_the_same_certificate_came_again() {
    let mut t = one_look(&night(Twist::ResendCached, 1, 12));
    let (at, proxy) = t.observations.first().map(|o| (o.at, o.proxy.clone())).unwrap();
    let told = |t: &Timeline| standings(t)[0].remarks.iter().any(|r| r.contains("it was sent again, and not renewed"));
    assert!(!told(&t), "without the process's start nobody knows what came first");
    let info = |uptime_s| Fact::ServerInfo(ServerInfo { version: "x".into(), state: "LIVE".into(), uptime_s });
    let seq = t.observations.last().unwrap().seq + 1;
    t.observations.push(Observation { seq, at, source: Source::Admin, proxy, secret: None, fact: info(12 * 1200) });
    assert!(told(&t), "{:?}", standings(&t));
    t.observations.last_mut().unwrap().fact = info(5);
    assert!(!told(&t), "a proxy that just started was sent what its provider had");
}

#[test]
fn contexts_that_were_left_behind_are_mixed() {
    assert!(states(&attached(&night(Twist::HalfLoaded, 5, 6))).contains(&State::Mixed));
}

#[test]
fn what_could_not_be_read_is_unseen_with_its_reason() {
    let mut t = attached(&night(Twist::Healthy, 1, 3));
    for o in &mut t.observations {
        o.fact = Blind { layer: None, what: "the admin API".into(), why: "forbidden".into() }.into();
    }
    for s in standings(&t) {
        assert_eq!((s.state, s.unseen.as_slice()), (State::Unseen, &["the admin API: forbidden".to_owned()][..]));
    }
}

#[test]
fn a_look_at_an_incident_is_judged_and_names_what_it_can() {
    let v = judge(&attached(&night(Twist::ResendCached, 1, 12)));
    assert_eq!(v.judgement, Judgement::Fail, "{:#?}", v.findings);
    assert!(v.candidates.iter().any(|c| c.mode == "resend-cached"), "{:?}", v.candidates);
    assert!(!v.candidates.iter().any(|c| c.mode == "never-renews"), "versions moved: {:?}", v.candidates);
}
