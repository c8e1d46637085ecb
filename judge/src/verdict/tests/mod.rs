mod attendance;
mod chains;
mod controls;
mod hypotheses;
mod named;
mod newcomers;
mod outlying;
mod recorded;
mod seeded;
mod signed;
mod size;
mod sketch;
mod standing;
mod succession;
mod suspects;
mod twists;
mod verifying;

use super::*;
use crate::timeline::*;
use sketch::{Sketch, Twist, without};

/// As somebody sees it who only looks at a cluster.
fn attached(t: &Timeline) -> Timeline {
    let mut t = without(t, |o| o.source != Source::Admin);
    t.header.criteria.renew_every_s = None;
    t.header.proxies.clear();
    t
}

/// A night of the incident's measures: renewals every 20 minutes, one hour to live, the twist from `from` on.
fn night(twist: Twist, from: u32, steps: u32) -> Timeline {
    let mut s = Sketch::new(3600, 1200);
    for k in 1..=steps {
        s.step(1200, if k >= from { twist } else { Twist::Healthy });
        if k == 3 {
            s.wait(1);
        }
    }
    s.finish()
}

const SEEDED: &[(Twist, Layer, &str)] = &[
    (Twist::NoRenewal, Layer::Issued, "never-renews"),
    (Twist::NoPush, Layer::Sent, "issues-never-pushes"),
    (Twist::ResendCached, Layer::Issued, "resend-cached"),
    (Twist::ResendStale, Layer::Sent, "resend-stale"),
    (Twist::Expired, Layer::Issued, "expired-on-arrival"),
    (Twist::NotYetValid, Layer::Issued, "not-yet-valid"),
    (Twist::WrongIdentity, Layer::Issued, "wrong-identity"),
    (Twist::SecondIdentity, Layer::Issued, "several-identities"),
    (Twist::Nack, Layer::Acked, "nack-key-mismatch"),
    (Twist::BadPem, Layer::Acked, "nack-bad-pem"),
    (Twist::SameBytesAgain, Layer::Acked, "nack-then-same-bytes"),
    (Twist::WrongName, Layer::Sent, "wrong-name"),
    (Twist::Empty, Layer::Sent, "empty-response"),
    (Twist::WrongTypeUrl, Layer::Sent, "wrong-type-url"),
    (Twist::WrongKind, Layer::Sent, "wrong-secret-kind"),
    (Twist::BundleOnly, Layer::Issued, "bundle-only"),
    (Twist::StreamRefused, Layer::Sent, "stream-refused"),
];

#[test]
fn a_healthy_night_passes() {
    let v = judge(&night(Twist::Healthy, 1, 33));
    assert_eq!(v.judgement, Judgement::Pass, "{v:#?}");
    assert!(v.candidates.is_empty() && v.contradictions.is_empty());
    assert_eq!(v.margin_ms, Some(2399 * 1000));
}

#[test]
fn every_seeded_failure_is_blamed_on_its_layer_and_named() {
    for (twist, layer, mode) in SEEDED {
        for from in [1, 2, 5] {
            let v = judge(&night(*twist, from, 12));
            assert_eq!(
                (v.judgement, v.layer, v.diagnosis.as_deref()),
                (Judgement::Fail, Some(*layer), Some(*mode)),
                "{twist:?} from {from}: {}\n{:#?}\n{:#?}",
                v.headline,
                v.candidates,
                v.findings
            );
        }
    }
}

#[test]
fn without_the_issuers_journal_no_name_is_wrong() {
    for (twist, layer, mode) in SEEDED {
        let whole = night(*twist, 2, 12);
        let v = judge(&without(&whole, |o| matches!(o.fact, Fact::Issued(_))));
        assert_eq!(v.judgement, Judgement::Fail, "{twist:?}");
        assert!(v.layer.is_none() || v.layer == Some(*layer), "{twist:?}: {:?} {}", v.layer, v.headline);
        assert!(v.candidates.iter().any(|c| c.mode == *mode), "{twist:?}: {:?}", v.candidates);
        assert!(v.diagnosis.is_none() || v.diagnosis.as_deref() == Some(*mode), "{twist:?}: {:?}", v.diagnosis);
    }
}

#[test]
fn seen_from_outside_only_no_name_is_wrong() {
    for (twist, layer, mode) in SEEDED {
        let whole = night(*twist, 2, 12);
        let v = judge(&without(&whole, |o| o.source == Source::Provider));
        assert_eq!(v.judgement, Judgement::Fail, "{twist:?}");
        assert!(v.layer.is_none() || v.layer == Some(*layer), "{twist:?}: {:?} {}", v.layer, v.headline);
        assert!(v.diagnosis.is_none() || v.diagnosis.as_deref() == Some(*mode), "{twist:?}: {:?}", v.diagnosis);
    }
}

#[test]
fn what_fits_no_mode_is_said_to_be_unknown() {
    for (twist, layer) in
        [(Twist::NoAnswer, Layer::Acked), (Twist::HalfLoaded, Layer::Loaded), (Twist::NotServed, Layer::Served)]
    {
        let v = judge(&night(twist, 2, 12));
        assert_eq!((v.judgement, v.layer), (Judgement::Fail, Some(layer)), "{twist:?}: {}", v.headline);
        assert_eq!(v.diagnosis, None, "{twist:?}");
        assert!(v.headline.contains("no known mode"), "{}", v.headline);
        assert!(v.findings.iter().any(|f| f.check == "ledger_row"), "{twist:?}");
    }
}

#[test]
fn the_incident_reads_like_the_night_it_was() {
    let v = judge(&night(Twist::ResendCached, 1, 33));
    insta::assert_snapshot!(v.headline);
    assert!(
        v.contradictions[0].claim.starts_with("config_dump: default was last updated at"),
        "{:#?}",
        v.contradictions
    );
    assert_eq!(v.candidates[0].confidence, Confidence::Certain);
}

#[test]
fn on_newer_envoys_the_dump_claims_nothing() {
    let mut s = Sketch::new(3600, 1200).new_envoy();
    for _ in 0..12 {
        s.step(1200, Twist::ResendCached);
    }
    let v = judge(&s.finish());
    assert_eq!(v.diagnosis.as_deref(), Some("resend-cached"));
    assert!(!v.headline.contains("config_dump"), "{}", v.headline);
    assert!(!v.contradictions.is_empty());
}

#[test]
fn a_renewal_left_out_is_reported_before_anything_expires() {
    let mut s = Sketch::new(3600, 1200);
    s.step(1200, Twist::NoRenewal).step(1200, Twist::NoRenewal);
    let v = judge(&s.finish());
    let overdue = v.findings.iter().find(|f| f.check == "renewal_overdue").unwrap();
    assert_eq!(overdue.result, CheckResult::Violated);
    assert!(overdue.message.contains("overdue by 20 min, 20 min left"), "{}", overdue.message);
}

#[test]
fn a_truncated_recording_is_not_judged_as_complete() {
    for twist in [Twist::Healthy, Twist::ResendCached] {
        let mut t = night(twist, 1, 12);
        t.observations.truncate(t.observations.len() - 1);
        assert_eq!(judge(&t).judgement, Judgement::Inconclusive);
        t.footer = None;
        assert_eq!(judge(&t).judgement, Judgement::Inconclusive);
    }
}

#[test]
fn one_changed_fingerprint_changes_the_verdict() {
    let mut t = night(Twist::Healthy, 1, 12);
    let last = t.observations.iter_mut().rev().find_map(|o| match &mut o.fact {
        Fact::Handshake(h) if o.source == Source::Inbound => Some(h),
        _ => None,
    });
    let last = last.unwrap();
    last.chain[0].fingerprint = Fingerprint::of_der(b"another");
    let v = judge(&t);
    assert_eq!(v.judgement, Judgement::Fail, "{:#?}", v.findings);
    assert_eq!(v.diagnosis, None);
}

#[test]
fn nothing_passes_without_rotation_handshake_or_expiry() {
    let mut short = Sketch::new(3600, 1200);
    short.step(1200, Twist::Healthy).step(1200, Twist::Healthy);
    assert_eq!(judge(&short.finish()).judgement, Judgement::Inconclusive);
    let whole = night(Twist::Healthy, 1, 12);
    for source in [Source::Inbound, Source::Outbound, Source::Admin, Source::Clock, Source::Traffic] {
        // A recording in which time was moved keeps its jumps; the receipts go.
        let blind = without(&whole, |o| o.source == source && !matches!(o.fact, Fact::Jump(_)));
        assert_eq!(judge(&blind).judgement, Judgement::Inconclusive, "without {source:?}");
    }
    let mut resumed = whole.clone();
    for o in &mut resumed.observations {
        if let Fact::Handshake(h) = &mut o.fact {
            h.resumed = true;
        }
    }
    assert_eq!(judge(&resumed).judgement, Judgement::Inconclusive);
}

#[test]
fn a_clock_that_did_not_follow_proves_nothing() {
    let mut t = night(Twist::ResendCached, 1, 12);
    for o in &mut t.observations {
        if let Fact::Receipt(r) = &mut o.fact {
            r.followed = false;
        }
    }
    assert_eq!(judge(&t).judgement, Judgement::Inconclusive);
}
