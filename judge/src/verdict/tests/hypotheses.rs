//! Each suspicion can be answered in each way, by what was seen.

use super::*;

fn answer(v: &Verdict, suspicion: Suspicion) -> &Hypothesis {
    v.hypotheses.iter().find(|h| h.suspicion == suspicion).unwrap()
}

/// The answer, and that it rests on something.
fn told(t: &Timeline, suspicion: Suspicion) -> YesNo {
    let v = judge(t);
    assert_eq!(v.judgement, Judgement::Fail, "{:#?}", v.findings);
    let h = answer(&v, suspicion);
    assert!(!h.observation.is_empty());
    assert!(h.evidence.iter().all(|seq| (*seq as usize) < t.observations.len()), "{h:?}");
    h.answer
}

fn incident() -> Timeline {
    night(Twist::ResendCached, 1, 12)
}

fn from_outside(hide: impl Fn(&Observation) -> bool) -> Timeline {
    without(&incident(), |o| o.source == Source::Provider || hide(o))
}

fn with_stats(mut t: Timeline, values: &[(&str, u64)]) -> Timeline {
    for o in &mut t.observations {
        if let Fact::Stats(s) = &mut o.fact {
            s.values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        }
    }
    t
}

fn is_dump(o: &Observation) -> bool {
    matches!(o.fact, Fact::ConfigDump(_))
}

fn is_stats(o: &Observation) -> bool {
    matches!(o.fact, Fact::Stats(_))
}

#[test]
fn the_four_guesses_of_the_night_are_refuted_one_by_one() {
    let v = judge(&incident());
    assert_eq!(v.hypotheses.iter().map(|h| h.suspicion).collect::<Vec<_>>(), Suspicion::ALL);
    for h in &v.hypotheses {
        assert_eq!(h.answer, YesNo::No, "{h:#?}");
    }
    assert!(judge(&night(Twist::Healthy, 1, 12)).hypotheses.is_empty());
}

#[test]
fn a_subscription_shows_on_the_stream_in_the_dump_or_in_statistics() {
    use Suspicion::NotSubscribed;
    assert_eq!(told(&incident(), NotSubscribed), YesNo::No);
    assert_eq!(told(&from_outside(is_stats), NotSubscribed), YesNo::No, "the dump lists it");
    assert_eq!(told(&from_outside(is_dump), NotSubscribed), YesNo::No, "it has statistics");
    assert_eq!(told(&from_outside(|o| is_dump(o) || is_stats(o)), NotSubscribed), YesNo::Unseen);
    let mut other = from_outside(is_stats);
    for o in &mut other.observations {
        if let Fact::ConfigDump(d) = &mut o.fact {
            d.secrets.retain(|s| s.name != SecretName::default_svid());
        }
    }
    assert_eq!(told(&other, NotSubscribed), YesNo::Yes);
}

#[test]
fn a_stream_is_lost_if_none_was_open_at_the_failure() {
    use Suspicion::StreamLost;
    assert_eq!(told(&night(Twist::StreamRefused, 2, 12), StreamLost), YesNo::Yes);
    assert_eq!(told(&incident(), StreamLost), YesNo::No);
    let connected = |n| {
        let values = [("sds.default.control_plane.connected_state", n), ("sds.default.update_failure", 0)];
        told(&with_stats(from_outside(|_| false), &values), StreamLost)
    };
    assert_eq!((connected(0), connected(1)), (YesNo::Yes, YesNo::No));
    assert_eq!(told(&with_stats(from_outside(|_| false), &[]), StreamLost), YesNo::Unseen);
    assert_eq!(told(&from_outside(is_stats), StreamLost), YesNo::Unseen);
}

#[test]
fn a_context_is_static_if_sds_never_built_one() {
    use Suspicion::StaticTlsContext;
    assert_eq!(told(&incident(), StaticTlsContext), YesNo::No, "what it serves came on the stream");
    let renewed = without(&night(Twist::NoRenewal, 5, 12), |o| o.source == Source::Provider || is_dump(o));
    assert_eq!(told(&renewed, StaticTlsContext), YesNo::No, "other certificates were served before");
    let counter = |n| with_stats(from_outside(is_dump), &[("listener.x.ssl_context_update_by_sds", n)]);
    assert_eq!(told(&counter(2), StaticTlsContext), YesNo::No);
    assert_eq!(told(&counter(0), StaticTlsContext), YesNo::Yes);
    assert_eq!(told(&from_outside(is_stats), StaticTlsContext), YesNo::No, "it serves the dynamic secret");
    assert_eq!(told(&from_outside(|o| is_dump(o) || is_stats(o)), StaticTlsContext), YesNo::Unseen);
}

/// What a dump shows of it is in the golden tests of the admin API's answers.
#[test]
fn a_context_whose_certificate_stands_in_the_configuration_is_static() {
    let context = |from: &str, leaf: &CertFacts| StaticContext {
        place: "listener inbound".to_owned(),
        from: from.to_owned(),
        chain: vec![leaf.clone()],
    };
    let with = |t: &Timeline, leaf: &CertFacts, from: &str| {
        let mut t = t.clone();
        for o in &mut t.observations {
            if let Fact::ConfigDump(d) = &mut o.fact {
                d.static_contexts = vec![context(from, leaf)];
            }
        }
        t
    };
    let t = from_outside(is_stats);
    let served = t.observations.iter().find_map(|o| match &o.fact {
        Fact::Handshake(h) => h.chain.first().cloned(),
        _ => None,
    });
    let served = served.unwrap();
    let other = CertFacts { fingerprint: Fingerprint::of_der(b"other"), ..served.clone() };
    for from in ["static secret own", "inline"] {
        let own = with(&t, &served, from);
        assert_eq!(told(&own, Suspicion::StaticTlsContext), YesNo::Yes, "{from}");
        let v = judge(&own);
        let said = &answer(&v, Suspicion::StaticTlsContext).observation;
        assert!(said.contains(from), "{said}");
        // Contexts of others are none of its own.
        assert_eq!(told(&with(&incident(), &other, from), Suspicion::StaticTlsContext), YesNo::No, "{from}");
    }
}

#[test]
fn files_only_mode_limits_whoever_has_no_stream_of_its_own() {
    use Suspicion::FilesOnlyMode;
    assert_eq!(told(&incident(), FilesOnlyMode), YesNo::No, "there is no agent");
    let behind_agent = |mut t: Timeline| {
        t.header.subject.istio = Some(IstioSubject { version: "1.28".into(), source: "pip".into(), name: None });
        t
    };
    assert_eq!(told(&behind_agent(incident()), FilesOnlyMode), YesNo::No, "it has its own stream");
    assert_eq!(told(&behind_agent(from_outside(|_| false)), FilesOnlyMode), YesNo::Unseen);
    // Only the streams of the bundle came, and the agent says why.
    let only_bundle = |o: &Observation| {
        o.secret.as_ref() == Some(&SecretName::default_svid()) && !matches!(o.fact, Fact::Issued(_)) || is_dump(o)
    };
    let mut t = behind_agent(without(&incident(), only_bundle));
    for (i, id) in ["proxy-a", "proxy-b"].into_iter().enumerate() {
        let mut o = t.observations[i].clone();
        o.source = Source::Process;
        o.proxy = Some(ProxyId::parse(id).unwrap());
        let line = "Existing workload SDS socket found. Default Istio SDS Server will only serve files".to_owned();
        o.fact = Log { line }.into();
        t.observations.insert(0, o);
    }
    let mut t = without(&t, |_| false);
    t.header.subject.envoy.source = "path".into();
    assert_eq!(told(&t, FilesOnlyMode), YesNo::Yes, "{:#?}", judge(&t).hypotheses);
}
