//! A provider's own log instead of a journal: it tells what was signed by its serial number, and shows no certificate.

use super::*;

/// The same recording where only the log tells what was minted.
fn by_its_log(mut timeline: Timeline) -> Timeline {
    for o in &mut timeline.observations {
        if let Fact::Issued(Issued { cert, .. }) = &o.fact {
            let (serial, spiffe_id) = (cert.serial.clone(), cert.uris.first().cloned().unwrap_or_default());
            o.fact = Signed { serial, spiffe_id, not_after: Some(cert.not_after) }.into();
            o.proxy = None;
        }
    }
    timeline
}

#[test]
fn a_healthy_night_passes_and_all_that_was_signed_is_counted() {
    let v = judge(&by_its_log(night(Twist::Healthy, 1, 33)));
    assert_eq!(v.judgement, Judgement::Pass, "{v:#?}");
    assert!(v.proxies.iter().all(|p| p.generations_issued == Some(p.generations_served)), "{:#?}", v.proxies);
}

#[test]
fn a_provider_that_signs_nothing_is_to_blame_for_that() {
    for (twist, mode) in [(Twist::NoRenewal, "never-renews"), (Twist::ResendCached, "resend-cached")] {
        let v = judge(&by_its_log(night(twist, 2, 12)));
        assert_eq!((v.layer, v.diagnosis.as_deref()), (Some(Layer::Issued), Some(mode)), "{}", v.headline);
        // Without the log it is open.
        let v = judge(&without(&by_its_log(night(twist, 2, 12)), |o| matches!(o.fact, Fact::Signed(_))));
        assert_eq!(v.layer, None, "{}", v.headline);
    }
}

#[test]
fn what_was_signed_and_not_sent_may_have_been_for_others() {
    for (twist, mode) in [(Twist::NoPush, "issues-never-pushes"), (Twist::ResendStale, "resend-stale")] {
        let v = judge(&by_its_log(night(twist, 2, 12)));
        let modes: Vec<&str> = v.candidates.iter().map(|c| c.mode.as_str()).collect();
        assert!(v.judgement == Judgement::Fail && modes.first() == Some(&mode), "{modes:?} {}", v.headline);
        assert_ne!(v.layer, Some(Layer::Issued), "{}", v.headline);
    }
}

#[test]
fn no_failure_is_called_by_a_wrong_name() {
    for (twist, layer, mode) in SEEDED {
        let v = judge(&by_its_log(night(*twist, 2, 12)));
        assert_eq!(v.judgement, Judgement::Fail, "{twist:?}");
        assert!(v.layer.is_none() || v.layer == Some(*layer), "{twist:?}: {:?} {}", v.layer, v.headline);
        assert!(v.diagnosis.is_none() || v.diagnosis.as_deref() == Some(*mode), "{twist:?}: {:?}", v.diagnosis);
    }
}
