//! What stands above a leaf, beside it, or in its name.

use super::*;

/// Seconds after the beginning of the recording.
fn at(t: &Timeline, seconds: i64) -> jiff::Timestamp {
    t.header.started + jiff::SignedDuration::from_secs(seconds)
}

fn root(t: &Timeline, key: &str, end: i64) -> CertFacts {
    CertFacts {
        fingerprint: Fingerprint::of_der(format!("{key}{end}").as_bytes()),
        serial: Serial::parse("1").unwrap(),
        uris: Vec::new(),
        not_before: at(t, -1000),
        not_after: at(t, end),
        subject: "CN=authority".to_owned(),
        issuer: "CN=authority".to_owned(),
        subject_key_id: Some(key.to_owned()),
        authority_key_id: None,
        key_type: "ecdsa-p256".to_owned(),
        is_ca: true,
    }
}

fn edited(t: &Timeline, edit: impl Fn(&mut Fact)) -> Timeline {
    let mut t = t.clone();
    t.observations.iter_mut().for_each(|o| edit(&mut o.fact));
    t
}

/// Every leaf hangs on an intermediate that ends so many seconds after the beginning.
fn below_an_intermediate(t: &Timeline, end: i64) -> Timeline {
    let above = CertFacts {
        subject: "CN=intermediate".to_owned(),
        authority_key_id: Some("01".to_owned()),
        ..root(t, "aa", end)
    };
    edited(t, |fact| {
        if let Fact::Handshake(h) = fact {
            h.chain[0].authority_key_id = Some("aa".to_owned());
            h.chain.push(above.clone());
        }
    })
}

/// Every bundle holds these.
fn with_roots(t: &Timeline, roots: &[CertFacts]) -> Timeline {
    edited(t, |fact| {
        if let Fact::Sent(sent) = fact {
            for secret in &mut sent.secrets {
                if let Payload::Bundle { roots: held, .. } = &mut secret.payload {
                    *held = roots.to_vec();
                }
            }
        }
    })
}

fn overdue(v: &Verdict) -> Option<&str> {
    let found = v.findings.iter().find(|f| f.check == "renewal_overdue" && f.result == CheckResult::Violated);
    found.map(|f| f.message.as_str())
}

/// Four hours, leaves of one hour, renewed every twenty minutes.
const END: i64 = 4 * 3600;

#[test]
fn an_intermediate_that_ends_before_its_leaves_is_reported_while_peers_still_accept_them() {
    let whole = night(Twist::Healthy, 1, 12);
    assert_eq!(judge(&below_an_intermediate(&whole, END + 7200)).judgement, Judgement::Pass);
    let v = judge(&below_an_intermediate(&whole, END + 600));
    assert_eq!((v.layer, v.diagnosis.as_deref()), (Some(Layer::Issued), Some("intermediate-expires-first")));
    let violated: Vec<_> = v.findings.iter().filter(|f| f.result == CheckResult::Violated).map(|f| &f.check).collect();
    assert!(violated.iter().all(|check| *check == "renewal_overdue"), "{violated:?}");
    let said = overdue(&v).unwrap();
    assert!(said.contains("overdue by 20 min, 9 min left, as the intermediate above it"), "{said}");
}

#[test]
fn what_is_left_of_a_certificate_is_what_is_left_of_its_chain() {
    let whole = night(Twist::Healthy, 1, 12);
    assert_eq!(judge(&below_an_intermediate(&whole, END + 7200)).margin_ms, judge(&whole).margin_ms);
    let v = judge(&below_an_intermediate(&whole, END + 601));
    assert_eq!(v.margin_ms, Some(600_000));
    let v = judge(&below_an_intermediate(&whole, END - 1800));
    let found = |check: &str| v.findings.iter().any(|f| f.check == check && f.result == CheckResult::Violated);
    assert!(found("renewal_margin") && found("both_roles_fresh"), "{:#?}", v.findings);
    assert_eq!(v.diagnosis.as_deref(), Some("intermediate-expires-first"));
}

#[test]
fn an_intermediate_on_which_no_leaf_hangs_spoils_nothing() {
    let whole = night(Twist::Healthy, 1, 12);
    let stray = CertFacts { subject: "CN=stray".to_owned(), ..root(&whole, "bb", 60) };
    // Its key is that of an authority in the bundle: an old link to an authority that is gone.
    let crossed = CertFacts { subject: "CN=crossed".to_owned(), ..root(&whole, "01", 60) };
    for above in [stray, crossed] {
        let t = edited(&whole, |fact| {
            if let Fact::Handshake(h) = fact {
                h.chain.push(above.clone());
            }
        });
        assert_eq!(judge(&t).judgement, Judgement::Pass, "{}", above.subject);
    }
}

#[test]
fn an_authority_that_ends_before_its_leaves_is_reported_before_and_when_it_has() {
    let whole = night(Twist::Healthy, 1, 12);
    for (end, early) in [(END + 600, true), (END - 1800, false)] {
        let v = judge(&with_roots(&whole, &[root(&whole, "01", end)]));
        assert_eq!((v.judgement, v.layer), (Judgement::Fail, Some(Layer::Issued)), "{}", v.headline);
        assert_eq!(v.diagnosis.as_deref(), Some("authority-expires-first"), "{}", v.headline);
        assert!(overdue(&v).is_some());
        let fresh = v.findings.iter().any(|f| f.check == "both_roles_fresh" && f.result == CheckResult::Violated);
        assert_ne!(fresh, early);
    }
}

#[test]
fn an_expired_authority_beside_the_one_that_signs_is_no_failure() {
    let whole = night(Twist::Healthy, 1, 12);
    let living = root(&whole, "01", 10 * END);
    for old in [root(&whole, "00", 60), root(&whole, "01", 60)] {
        let v = judge(&with_roots(&whole, &[old, living.clone()]));
        assert_eq!(v.judgement, Judgement::Pass, "{}", v.headline);
    }
}

#[test]
fn somebody_elses_leaf_in_a_context_of_the_proxy_is_not_counted_even_when_it_has_expired() {
    let whole = night(Twist::Healthy, 1, 12);
    let foreign = LoadedCert {
        serial: Serial::parse("f0").unwrap(),
        uris: vec!["spiffe://cluster.local/ns/demo/sa/gateway".to_owned()],
        not_before: at(&whole, 0),
        not_after: at(&whole, 60),
        contexts: 3,
    };
    let with = |uris: &[&str]| {
        let foreign = LoadedCert { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..foreign.clone() };
        edited(&whole, |fact| {
            if let Fact::Certs(certs) = fact {
                certs.leaves.push(foreign.clone());
                certs.contexts += foreign.contexts;
            }
        })
    };
    for uris in [&["spiffe://cluster.local/ns/demo/sa/gateway"][..], &[]] {
        let v = judge(&with(uris));
        assert_eq!(v.judgement, Judgement::Pass, "{}", v.headline);
        assert!(v.proxies.iter().all(|p| p.contexts == Some((4, 4))), "{:?}", v.proxies);
    }
    // Were it the proxy's own, it would be left behind.
    let own = with(&["spiffe://cluster.local/ns/demo/sa/proxy-a"]);
    assert_eq!(judge(&own).judgement, Judgement::Fail);
}
