//! What each fault lets out, as a subscriber and the timeline see it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;
#[path = "sds/subscriber.rs"]
mod subscriber;

use cell::{Cell, deadline, proxy, spec};
use rotacheck::provider::Renewal;
use rotacheck::timeline::{Fact, Fingerprint, Payload};
use serde_json::json;
use subscriber::{Certificate, Secret, Subscriber};
use tonic::Code;

struct Trial {
    cell: Cell,
    leaf: Subscriber,
    first: Certificate,
}

impl Trial {
    /// Generation 0 is healthy and accepted, renewal 1 is spoiled, renewal 2 is healthy again.
    async fn start(profile: &str, fault: &str) -> Trial {
        let faults = json!([{ "fault": fault, "from_renewal": 1, "until_renewal": 2 }]);
        let cell = Cell::start(spec(json!({ "profile": profile, "faults": faults }))).await;
        let mut leaf = Subscriber::open(&cell.socket, "a", &["default"], "").await;
        let answer = leaf.next().await;
        leaf.ack(&answer).await;
        Trial { first: answer.certificate(), cell, leaf }
    }

    async fn renew(&self, number: u32) -> Renewal {
        self.cell.fake.renew(number).await.unwrap()
    }

    /// Leaves minted for proxy `a`.
    fn minted(&self, renewal: &Renewal) -> Vec<Fingerprint> {
        let own = renewal.minted.iter().filter(|(whose, _)| *whose == Some(proxy("a")));
        own.map(|(_, minted)| *minted).collect()
    }

    /// The next renewal is whole.
    async fn recovers(mut self) {
        let renewal = self.renew(2).await;
        let minted = self.minted(&renewal);
        assert_eq!(minted, [self.leaf.next().await.certificate().facts.fingerprint]);
        let noted = self.cell.recorder.since(0);
        let noted: Vec<_> = noted.iter().filter(|o| matches!(o.fact, Fact::FaultNote(_))).collect();
        assert!(noted.iter().any(|o| o.proxy == Some(proxy("a"))));
        self.cell.fake.stop().await;
    }
}

#[tokio::test]
async fn no_renewal_mints_nothing_and_pushes_nothing() {
    for profile in ["generic", "tbot", "spire", "istio"] {
        let trial = Trial::start(profile, "no-renewal").await;
        let renewal = trial.renew(1).await;
        assert_eq!((trial.minted(&renewal), renewal.pushes.len()), (vec![], 0));
        trial.recovers().await;
    }
}

#[tokio::test]
async fn no_push_mints_and_keeps_it() {
    for profile in ["generic", "tbot", "spire", "istio"] {
        let trial = Trial::start(profile, "no-push").await;
        let renewal = trial.renew(1).await;
        assert_eq!((trial.minted(&renewal).len(), renewal.pushes.len()), (1, 0));
        trial.recovers().await;
    }
}

#[tokio::test]
async fn resend_cached_sends_the_same_certificate_under_a_new_version() {
    for profile in ["generic", "tbot", "spire", "istio"] {
        let mut trial = Trial::start(profile, "resend-cached").await;
        let renewal = trial.renew(1).await;
        let second = trial.leaf.next().await;
        assert_eq!(trial.minted(&renewal), []);
        assert_eq!(second.certificate(), trial.first);
        let versions: Vec<_> = trial
            .cell
            .recorder
            .since(0)
            .iter()
            .filter_map(|o| match &o.fact {
                Fact::Sent(sent) => Some(sent.version_info.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(versions.len(), 2);
        assert_ne!(versions[0], versions[1]);
        trial.recovers().await;
    }
}

#[tokio::test]
async fn resend_stale_mints_but_sends_the_one_before() {
    for profile in ["generic", "tbot", "spire", "istio"] {
        let mut trial = Trial::start(profile, "resend-stale").await;
        let renewal = trial.renew(1).await;
        assert_eq!(trial.leaf.next().await.certificate(), trial.first);
        assert_eq!(trial.minted(&renewal).len(), 1);
        assert_ne!(trial.minted(&renewal)[0], trial.first.facts.fingerprint);
        trial.recovers().await;
    }
}

/// What the last push to the leaf's stream was, as the timeline has it.
fn last_sent(trial: &Trial) -> rotacheck::timeline::Sent {
    let sent = |o: &std::sync::Arc<rotacheck::timeline::Observation>| match &o.fact {
        Fact::Sent(sent) => Some(sent.clone()),
        _ => None,
    };
    trial.cell.recorder.since(0).iter().rev().find_map(sent).unwrap()
}

#[tokio::test]
async fn what_is_sent_under_the_wrong_name_type_or_kind_is_recorded_as_that() {
    for profile in ["generic", "tbot"] {
        for (fault, names, types) in [
            ("wrong-name", vec!["renewed"], "Secret"),
            ("empty-response", vec![], "Secret"),
            ("wrong-kind", vec!["default"], "Secret"),
            ("wrong-type-url", vec!["default"], "Cluster"),
        ] {
            let mut trial = Trial::start(profile, fault).await;
            let renewal = trial.renew(1).await;
            assert_eq!((trial.minted(&renewal).len(), renewal.pushes.len()), (1, 1), "{fault}");
            trial.cell.seen(renewal.from, |o| matches!(o.fact, Fact::Sent(_))).await;
            let sent = last_sent(&trial);
            assert_eq!(sent.secrets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), names, "{fault}");
            assert!(sent.type_url.ends_with(types), "{fault}: {}", sent.type_url);
            let bundle = matches!(sent.secrets.first().map(|s| &s.payload), Some(Payload::Bundle { .. }));
            assert_eq!(bundle, fault == "wrong-kind");
            // The subscriber of these tests takes secrets only.
            if types == "Secret" {
                trial.leaf.next().await;
                trial.recovers().await;
            }
        }
    }
}

#[tokio::test]
async fn a_chain_in_one_block_names_its_problem() {
    let mut trial = Trial::start("generic", "chain-in-one-block").await;
    trial.renew(1).await;
    trial.leaf.next().await;
    let Payload::Certificate { problem, .. } = &last_sent(&trial).secrets[0].payload else { panic!("no certificate") };
    assert!(problem.as_deref().unwrap().contains("one PEM block"));
    trial.recovers().await;
}

#[tokio::test]
async fn unfit_certificates_are_minted_unfit() {
    let mut trial = Trial::start("generic", "not-yet-valid").await;
    trial.renew(1).await;
    let facts = trial.leaf.next().await.certificate().facts;
    assert!(facts.not_before > trial.cell.recorder.clock().now());
    trial.recovers().await;
    let mut trial = Trial::start("generic", "wrong-identity").await;
    trial.renew(1).await;
    let facts = trial.leaf.next().await.certificate().facts;
    assert_ne!(facts.uris, trial.first.facts.uris);
    trial.recovers().await;
}

#[tokio::test]
async fn refused_streams_end_as_soon_as_they_subscribe_until_the_fault_ends() {
    let mut trial = Trial::start("generic", "refuse-streams").await;
    let renewal = trial.renew(1).await;
    assert_eq!(renewal.closed, [], "nobody is expected back");
    assert_eq!(trial.leaf.end().await.code(), Code::Unavailable);
    let mut again = Subscriber::open(&trial.cell.socket, "a", &["default"], "").await;
    assert_eq!(again.end().await.code(), Code::Unavailable);
    trial.renew(2).await;
    let mut healed = Subscriber::open(&trial.cell.socket, "a", &["default"], "").await;
    assert_ne!(healed.next().await.certificate().facts, trial.first.facts);
    trial.cell.fake.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_had_a_life_before() {
    let mut trial = Trial::start("generic", "expired-certificate").await;
    let renewal = trial.renew(1).await;
    let facts = trial.leaf.next().await.certificate().facts;
    assert_eq!(trial.minted(&renewal), [facts.fingerprint]);
    assert!(facts.not_before < facts.not_after && facts.not_after < trial.cell.recorder.clock().now());
    trial.recovers().await;
}

#[tokio::test]
async fn a_wrong_key_comes_with_the_new_chain_and_is_seen_in_the_timeline() {
    let mut trial = Trial::start("generic", "wrong-key").await;
    let renewal = trial.renew(1).await;
    assert_eq!(trial.minted(&renewal), [trial.leaf.next().await.certificate().facts.fingerprint]);
    let sent = trial.cell.seen(renewal.from, |o| matches!(o.fact, Fact::Sent(_))).await;
    let Fact::Sent(sent) = sent.fact else { unreachable!() };
    assert!(matches!(&sent.secrets[0].payload, Payload::Certificate { key_matches: Some(false), problem: None, .. }));
    trial.recovers().await;
}

#[tokio::test]
async fn bad_pem_is_said_to_be_unreadable() {
    let mut trial = Trial::start("generic", "bad-pem").await;
    let renewal = trial.renew(1).await;
    let answer = trial.leaf.next().await;
    assert!(matches!(&answer.secrets[0].1, Secret::Spoiled { chain } if chain.contains("BEGIN CERTIFICATE")));
    let sent = trial.cell.seen(renewal.from, |o| matches!(o.fact, Fact::Sent(_))).await;
    let Fact::Sent(sent) = sent.fact else { unreachable!() };
    assert!(
        matches!(&sent.secrets[0].payload, Payload::Certificate { chain, problem: Some(_), .. } if chain.is_empty())
    );
    trial.recovers().await;
}

#[tokio::test]
async fn closed_streams_get_what_was_minted_when_they_come_again() {
    for profile in ["generic", "tbot", "spire", "istio"] {
        let mut trial = Trial::start(profile, "close-stream").await;
        let mut bundle = Subscriber::open(&trial.cell.socket, "a", &["ROOTCA"], "").await;
        let roots = bundle.next().await;
        let renewal = trial.renew(1).await;
        assert_eq!(renewal.pushes, []);
        assert_eq!(renewal.closed.len(), 2);
        assert_eq!(trial.leaf.end().await.code(), Code::Unavailable);
        assert_eq!(bundle.end().await.code(), Code::Unavailable);

        let cell = &trial.cell;
        let come_again = async {
            let mut bundle = Subscriber::open(&cell.socket, "a", &["ROOTCA"], &roots.version_info).await;
            let again = bundle.next().await;
            bundle.ack(&again).await;
            let mut leaf = Subscriber::open(&cell.socket, "a", &["default"], "1").await;
            let again = leaf.next().await;
            leaf.ack(&again).await;
            // They stay open until all is seen.
            (leaf, bundle, again.certificate())
        };
        let ((leaf, _bundle, fresh), missing) = tokio::join!(come_again, cell.fake.reconnected(&renewal, deadline()));
        assert_eq!(missing, []);
        assert_ne!(fresh, trial.first);
        let issued = cell.recorder.since(renewal.from);
        let issued = issued.iter().find_map(|o| match &o.fact {
            Fact::Issued(i) if o.proxy == Some(proxy("a")) => Some(i.clone()),
            _ => None,
        });
        let issued = issued.unwrap();
        assert_eq!((issued.cert, issued.renewal), (fresh.facts, Some(1)));
        trial.leaf = leaf;
        trial.recovers().await;
    }
}

#[tokio::test]
async fn a_fault_of_one_proxy_spares_the_other() {
    let faults = json!([{ "fault": "resend-cached", "proxy": "a" }]);
    let cell = Cell::start(spec(json!({ "faults": faults }))).await;
    let mut a = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let mut b = Subscriber::open(&cell.socket, "b", &["default"], "").await;
    let (a0, b0) = (a.next().await, b.next().await);
    cell.fake.renew(1).await.unwrap();
    assert_eq!(a.next().await.certificate(), a0.certificate());
    assert_ne!(b.next().await.certificate(), b0.certificate());
    cell.fake.stop().await;
}

#[tokio::test]
async fn a_bundle_can_be_withheld_from_one_proxy() {
    let cell = Cell::start(spec(json!({
        "faults": [{ "fault": "no-push", "proxy": "a", "secret": "ROOTCA" }],
        "authorities": [{ "at_renewal": 1, "action": "prepare" }],
    })))
    .await;
    let mut streams = Vec::new();
    for name in ["a", "b"] {
        let mut stream = Subscriber::open(&cell.socket, name, &["ROOTCA"], "").await;
        stream.next().await;
        streams.push(stream);
    }
    let renewal = cell.fake.renew(1).await.unwrap();
    let pushed: Vec<_> = renewal.pushes.iter().map(|p| (p.proxy.clone(), p.secrets.clone())).collect();
    assert_eq!(pushed, [(Some(proxy("b")), vec!["ROOTCA".to_owned()])]);
    cell.fake.stop().await;
}
