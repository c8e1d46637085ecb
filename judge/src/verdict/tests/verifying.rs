//! Peers that refuse what is served: what the bundles and the chains say of it, and what the harness itself could not verify.

use super::*;

/// Requests fail in these seconds of the recording.
fn refused_between(t: &mut Timeline, from: i64, to: i64) {
    let (from, to) = [from, to].map(|s| t.header.started + jiff::SignedDuration::from_secs(s)).into();
    for o in t.observations.iter_mut().filter(|o| o.at.wall > from && o.at.wall < to) {
        if let Fact::Request(request) = &mut o.fact {
            request.status = Some(503);
        }
    }
}

fn night() -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    for k in 1..=9 {
        s.step(1200, Twist::Healthy);
        if k == 6 {
            s.another_bundle();
        }
    }
    s.finish()
}

fn named(v: &Verdict) -> (Judgement, Option<Layer>, Option<&str>) {
    (v.judgement, v.layer, v.diagnosis.as_deref())
}

#[test]
fn a_root_that_was_renewed_under_its_own_key_too_late_had_ended_meanwhile() {
    let mut t = night();
    let started = t.header.started;
    let mut bundles = 0;
    for o in &mut t.observations {
        let Fact::Sent(sent) = &mut o.fact else { continue };
        for secret in &mut sent.secrets {
            if let Payload::Bundle { roots, .. } = &mut secret.payload {
                bundles += 1;
                // The first of each proxy; a renewed one follows.
                let end = if bundles <= 2 { 5000 } else { 500_000 };
                roots[0].not_after = started + jiff::SignedDuration::from_secs(end);
                roots[0].fingerprint = Fingerprint::of_der(&[bundles.min(3)]);
            }
        }
    }
    refused_between(&mut t, 5000, 7200);
    let v = judge(&t);
    let expected = (Judgement::Fail, Some(Layer::Issued), Some("authority-expires-first"));
    assert_eq!(named(&v), expected, "{}\n{:#?}", v.headline, v.findings);
}

#[test]
fn why_a_certificate_can_not_be_verified_is_told_where_nothing_else_is_known() {
    let mut t = night();
    for o in &mut t.observations {
        if let (Fact::Handshake(h), Source::Outbound) = (&mut o.fact, o.source) {
            (h.verified, h.error) = (Some(false), Some("it is for no client".to_owned()));
        }
    }
    refused_between(&mut t, 3000, 20_000);
    let v = judge(&t);
    assert_eq!(named(&v), (Judgement::Fail, None, None), "{}", v.headline);
    assert!(v.headline.contains("it is for no client"), "{}", v.headline);
}

#[test]
fn an_intermediate_that_is_left_out_is_no_unknown_authority() {
    let mut t = night();
    let (started, mut looks) = (t.header.started, 0);
    for o in &mut t.observations {
        let late = o.at.wall > started + jiff::SignedDuration::from_secs(5000);
        if let Fact::Handshake(h) = &mut o.fact {
            looks += 1;
            h.chain[0].authority_key_id = Some("aa".to_owned());
            let above = CertFacts {
                fingerprint: Fingerprint::of_der(b"intermediate"),
                subject: "CN=intermediate".to_owned(),
                issuer: "CN=authority 1".to_owned(),
                subject_key_id: Some("aa".to_owned()),
                authority_key_id: Some("01".to_owned()),
                not_after: started + jiff::SignedDuration::from_secs(900_000),
                uris: Vec::new(),
                ..h.chain[0].clone()
            };
            h.chain.extend((!late).then_some(above));
        }
    }
    refused_between(&mut t, 5000, 20_000);
    let v = judge(&t);
    assert!(looks > 0 && v.judgement == Judgement::Fail && v.layer == Some(Layer::Issued), "{}", v.headline);
    assert!(v.headline.contains("without the intermediate (CN=intermediate)"), "{}", v.headline);
}

#[test]
fn certificates_that_are_refused_for_their_bundle_are_not_blamed() {
    let text = "Failed to load trusted CA certificates from <inline>";
    let mut s = Sketch::new(3600, 1200);
    for k in 1..=9 {
        if k == 3 {
            s.another_bundle();
        }
        if k >= 3 {
            s.refuse_with(1200, None, text)
        } else {
            s.step(1200, Twist::Healthy)
        };
    }
    let mut t = s.finish();
    let mut answers = 0;
    let third = t.observations.iter().filter_map(|o| match &o.fact {
        Fact::Sent(sent) if sent.secrets.iter().any(|secret| secret.name == "ROOTCA") => {
            Some((sent.stream, sent.nonce.clone()))
        }
        _ => None,
    });
    let refused: Vec<_> = third.skip(2).collect();
    for o in &mut t.observations {
        if let Fact::Acked(acked) = &o.fact
            && refused.contains(&(acked.stream, acked.nonce.clone()))
        {
            answers += 1;
            let (stream, nonce, version_info) = (acked.stream, acked.nonce.clone(), acked.version_info.clone());
            o.fact = Fact::Nacked(Nacked { stream, nonce, version_info, error: text.to_owned() });
        }
    }
    let v = judge(&t);
    assert_eq!((answers, v.judgement, v.layer), (2, Judgement::Fail, Some(Layer::Acked)), "{}", v.headline);
    assert!(v.headline.contains("refused the bundle ROOTCA") && v.diagnosis.is_none(), "{}", v.headline);
}
