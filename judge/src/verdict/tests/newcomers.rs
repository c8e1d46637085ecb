//! Seen from outside, and a subscription of the harness's own beside one proxy: what newcomers are given decides.

use super::*;

/// What newcomers at each proxy's socket are given in a night, in which they ask after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// What the proxy has.
    Same,
    /// One that is newer, and the same for all.
    Newer,
    /// Each another one, minted for it.
    Own,
    /// Nothing.
    Silence,
}

/// As somebody sees it who looks at a cluster, with a witness in each pod. `stays`: one subscriber stays, and is sent what it has.
fn witnessed(twist: Twist, given: Given, stays: bool) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    s.step(1200, Twist::Healthy);
    for step in 0..10 {
        s.step(1200, twist);
        s.newcomers(step, |held, nth| match given {
            Given::Same => Some(held.clone()),
            Given::Newer => Some(newer(held, 1)),
            Given::Own => Some(newer(held, nth)),
            Given::Silence => None,
        });
        if stays {
            s.stayed(step);
        }
        s.look();
    }
    let mut t = without(&s.finish(), |o| !matches!(o.source, Source::Admin | Source::Inbound | Source::Witness));
    t.header.criteria.renew_every_s = None;
    t.header.proxies.clear();
    t
}

fn newer(held: &CertFacts, nth: u64) -> CertFacts {
    let later = |t: jiff::Timestamp| t + jiff::SignedDuration::from_secs(1200);
    let fingerprint = Fingerprint::of_der(format!("{} {nth}", held.fingerprint).as_bytes());
    let serial = Serial::from_be_bytes(&(0x5eed_0000 + nth).to_be_bytes());
    CertFacts {
        fingerprint,
        serial,
        not_before: later(held.not_before),
        not_after: later(held.not_after),
        ..held.clone()
    }
}

fn named(v: &Verdict) -> (Judgement, Option<Layer>, Option<&str>) {
    (v.judgement, v.layer, v.diagnosis.as_deref())
}

#[test]
fn the_same_for_whoever_asks_under_versions_that_move_is_the_providers_cache() {
    let modes = |v: &Verdict| v.candidates.iter().map(|c| (c.mode.clone(), c.confidence)).collect::<Vec<_>>();
    let without_witness = without(&witnessed(Twist::ResendCached, Given::Same, false), |o| o.source == Source::Witness);
    let unseen = modes(&judge(&without_witness));
    assert!(unseen.len() > 2 && unseen.iter().all(|(_, confidence)| *confidence == Confidence::Possible), "{unseen:?}");
    for (given, stays) in [(Given::Same, false), (Given::Same, true), (Given::Own, true)] {
        let v = judge(&witnessed(Twist::ResendCached, given, stays));
        // That none was minted all the same, only the issuer knows.
        assert_eq!(named(&v), (Judgement::Fail, None, None), "{given:?} {stays}: {}", v.headline);
        let both = [("resend-cached".into(), Confidence::Likely), ("resend-stale".into(), Confidence::Possible)];
        assert_eq!(modes(&v), both, "{given:?} {stays}: {}", v.headline);
        assert!(v.candidates.iter().all(|c| c.would_decide.is_some()));
    }
}

#[test]
fn what_everybody_else_is_given_was_kept_from_the_proxy() {
    let stale = judge(&witnessed(Twist::ResendCached, Given::Newer, false));
    assert_eq!(named(&stale), (Judgement::Fail, Some(Layer::Sent), Some("resend-stale")), "{}", stale.headline);
    let silent = judge(&witnessed(Twist::NoRenewal, Given::Newer, false));
    assert_eq!((silent.layer, silent.diagnosis), (Some(Layer::Sent), None), "{}", silent.headline);
    let modes: Vec<_> = silent.candidates.iter().map(|c| c.mode.as_str()).collect();
    assert_eq!(modes, ["issues-never-pushes", "stale-bind-mount"]);
}

#[test]
fn what_several_were_given_counts_also_where_the_last_one_got_another() {
    let mut t = witnessed(Twist::NoRenewal, Given::Newer, false);
    for proxy in standings(&t).into_iter().map(|s| s.proxy) {
        let last = t.observations.iter_mut().rfind(|o| {
            o.source == Source::Witness && o.proxy.as_ref() == Some(&proxy) && matches!(o.fact, Fact::Sent(_))
        });
        if let Some(Fact::Sent(Sent { secrets, .. })) = last.map(|o| &mut o.fact)
            && let Payload::Certificate { chain, .. } = &mut secrets[0].payload
        {
            chain[0] = newer(&chain[0], 99);
        }
    }
    let v = judge(&t);
    let modes: Vec<_> = v.candidates.iter().map(|c| c.mode.as_str()).collect();
    assert_eq!(
        (v.layer, modes),
        (Some(Layer::Sent), vec!["issues-never-pushes", "stale-bind-mount"]),
        "{}",
        v.headline
    );
    assert!(standings(&t).iter().all(|s| s.remarks.iter().any(|r| r.contains("which is newer: it did not come"))));
}

#[test]
fn a_certificate_that_was_minted_for_the_asking_decides_nothing() {
    for twist in [Twist::ResendCached, Twist::NoRenewal] {
        let v = judge(&witnessed(twist, Given::Own, false));
        assert_eq!(named(&v), (Judgement::Fail, None, None), "{twist:?}: {}", v.headline);
        assert!(v.candidates.len() > 1, "{twist:?}");
        // Who answers anybody is not frozen.
        let frozen = |v: &Verdict| v.candidates.iter().any(|c| c.mode == "provider-frozen");
        assert!(!frozen(&v), "{twist:?}: {:?}", v.candidates);
    }
}

#[test]
fn a_provider_that_answered_before_a_renewal_was_due_may_be_frozen_since() {
    let t = witnessed(Twist::NoRenewal, Given::Own, false);
    let held = Ledger::of(&t).proxies[0].loads.last().unwrap().own[0].not_before;
    let due = held + jiff::SignedDuration::from_secs(1800);
    let early = without(&t, |o| o.source == Source::Witness && o.at.wall >= due);
    assert!(early.observations.iter().any(|o| o.source == Source::Witness));
    let frozen = |t: &Timeline| judge(t).candidates.iter().any(|c| c.mode == "provider-frozen");
    assert_eq!((frozen(&t), frozen(&early)), (false, true));
}

#[test]
fn a_provider_that_gives_everybody_the_old_one_and_sends_nothing_does_not_renew() {
    let v = judge(&witnessed(Twist::NoRenewal, Given::Same, false));
    assert_eq!(named(&v), (Judgement::Fail, Some(Layer::Issued), Some("never-renews")), "{}", v.headline);
}

#[test]
fn a_provider_that_answers_nobody_is_frozen() {
    let v = judge(&witnessed(Twist::NoRenewal, Given::Silence, false));
    assert_eq!(named(&v), (Judgement::Fail, Some(Layer::Sent), Some("provider-frozen")), "{}", v.headline);
    // Also by itself, beside what a verdict comes to.
    let t = witnessed(Twist::NoRenewal, Given::Silence, false);
    for s in standings(&t) {
        assert!(s.suspected.contains(&"provider-frozen"), "{s:?}");
    }
}

#[test]
fn another_proxys_witness_says_nothing_of_this_one() {
    let mut t = witnessed(Twist::ResendCached, Given::Same, false);
    for o in t.observations.iter_mut().filter(|o| o.source == Source::Witness) {
        o.proxy = Some(ProxyId::parse("somebody-else").unwrap());
    }
    assert_eq!(named(&judge(&t)), (Judgement::Fail, None, None));
}

#[test]
fn of_a_mesh_that_renews_nothing_is_found() {
    for given in [Given::Same, Given::Own] {
        let t = witnessed(Twist::Healthy, given, false);
        assert_ne!(judge(&t).judgement, Judgement::Fail);
        for s in standings(&t) {
            assert_eq!((s.state, &s.remarks, &s.suspected), (State::Fresh, &Vec::new(), &Vec::new()), "{given:?}");
            assert!(s.served.is_some() && s.comes.iter().any(|said| said.contains("a fresh subscriber")), "{s:?}");
        }
    }
}

#[test]
fn where_a_proxy_stands_tells_what_was_given_beside_it() {
    let told = |t: &Timeline, words: &str| standings(t)[0].remarks.iter().any(|remark| remark.contains(words));
    assert!(told(&witnessed(Twist::ResendCached, Given::Same, true), "again under new versions"));
    assert!(told(&witnessed(Twist::NoRenewal, Given::Newer, false), "it did not come to this proxy"));
    assert!(told(&witnessed(Twist::NoRenewal, Given::Silence, false), "was not answered"));
    assert!(told(&witnessed(Twist::NoRenewal, Given::Same, false), "a full handshake shows serial"));
}

#[test]
fn the_harness_own_streams_are_no_proxys_also_where_a_provider_took_them_for_one() {
    let node = format!("{WITNESS_NODE}~0.0.0.0~proxy-a.demo~demo.svc.cluster.local");
    assert!(is_witness(&node) && is_witness(WITNESS_NODE) && !is_witness("rotacheck-witnesses"));
    let t = night(Twist::Healthy, 1, 12);
    let mut joined = t.clone();
    let (at, proxy) = (t.observations[40].at, Some(ProxyId::parse("proxy-a").unwrap()));
    let names = vec!["default".to_owned()];
    let type_url = ledger::SECRET_TYPE_URL.to_owned();
    let facts: [Fact; 3] = [
        StreamOpened { stream: 777, rpc: "sds_stream".into(), peer_pid: None }.into(),
        Subscribed { stream: 777, type_url, names, version_info: String::new(), node }.into(),
        StreamClosed { stream: 777, by: "proxy".into(), status: "Ok".into() }.into(),
    ];
    let seen = facts.map(|fact| Observation {
        seq: 0,
        at,
        source: Source::Provider,
        proxy: proxy.clone(),
        secret: None,
        fact,
    });
    joined.observations.splice(40..40, seen);
    let joined = without(&joined, |_| false);
    let (with, plain) = (Ledger::of(&joined), Ledger::of(&t));
    assert_eq!(with.proxies[0].streams.len(), plain.proxies[0].streams.len());
    assert_eq!(with.unattributed_streams, plain.unattributed_streams);
    assert_eq!(judge(&joined).judgement, judge(&t).judgement);
}

#[test]
fn who_is_sent_away_is_not_unheard_and_where_nobody_listens_the_socket_is_gone() {
    let silent = witnessed(Twist::NoRenewal, Given::Silence, false);
    let ending = |by: &str, unreached: bool| {
        let mut t = silent.clone();
        let mut ends = Vec::new();
        for o in t.observations.iter().filter(|o| o.source == Source::Witness) {
            let Fact::Subscribed(s) = &o.fact else { continue };
            let (by, status) = (by.to_owned(), "PermissionDenied: no identity".to_owned());
            ends.push(Observation { fact: StreamClosed { stream: s.stream, by, status }.into(), ..o.clone() });
            if unreached {
                let blind = Blind { layer: Some(Layer::Sent), what: UNREACHED.into(), why: "there is no /x".into() };
                ends.push(Observation { fact: blind.into(), ..o.clone() });
            }
        }
        t.observations.extend(ends);
        without(&t, |_| false)
    };
    let denied = ending("provider", false);
    assert_eq!(named(&judge(&denied)).2, None);
    assert!(standings(&denied)[0].remarks.iter().any(|remark| remark.contains("sent away: PermissionDenied")));
    let gone = judge(&ending("connection", true));
    assert_eq!((gone.layer, gone.candidates[0].mode.as_str()), (Some(Layer::Sent), "socket-gone"), "{}", gone.headline);
}

#[test]
fn a_socket_that_others_find_before_and_after_the_proxy_tried_is_there() {
    let hidden = without(&witnessed(Twist::NoRenewal, Given::Own, false), |o| matches!(o.fact, Fact::Stats(_)));
    let asked = |o: &&Observation| o.source == Source::Witness && matches!(o.fact, Fact::Sent(_));
    let last = hidden.observations.iter().rfind(asked).unwrap().at;
    let failing = |seconds: i64| {
        let mut t = hidden.clone();
        let certs = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Certs(_))).unwrap();
        let (mut at, proxy) = (certs.at, certs.proxy.clone());
        at.wall = last.wall + jiff::SignedDuration::from_secs(seconds);
        let failed = SdsMessage::Closed { status: 14, unconnected: true, failing_s: Some(90) };
        let fact = Log { line: failed.to_string() }.into();
        let seq = t.observations.len() as u64;
        t.observations.push(Observation { seq, at, source: Source::Process, proxy: proxy.clone(), secret: None, fact });
        let found = suspects(&t, &judge(&t), &standings(&t));
        let of_it = found.iter().find(|s| proxy.as_ref().is_some_and(|proxy| s.proxies.contains(proxy))).unwrap();
        of_it.modes.iter().map(|(mode, _)| mode.name).collect::<Vec<_>>()
    };
    assert_eq!(failing(-1), ["stale-bind-mount"]);
    // It may have gone since, or be tried again in a moment.
    assert_eq!(failing(1), ["socket-gone", "stale-bind-mount"]);
}
