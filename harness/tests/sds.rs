//! The fake as an SDS server, seen by a client that does what Envoy does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;
#[path = "sds/subscriber.rs"]
mod subscriber;

use std::time::Duration;

use cell::{Cell, deadline, identity, proxy, spec};
use rotacheck::clock::Deadline;
use rotacheck::timeline::{Fact, SecretName};
use serde_json::json;
use subscriber::{Secret, Subscriber, channel, fetch};
use tonic::Code;

#[tokio::test]
async fn an_ack_is_recorded_for_the_proxy_its_secret_and_its_nonce() {
    let cell = Cell::start(spec(json!({}))).await;
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    let acked = cell.seen(0, |o| matches!(o.fact, Fact::Acked(_))).await;
    assert_eq!((acked.proxy, acked.secret), (Some(proxy("a")), Some(SecretName::default_svid())));
    let Fact::Acked(ack) = acked.fact else { unreachable!() };
    assert_eq!((ack.nonce, ack.version_info), (first.nonce.clone(), first.version_info.clone()));
    assert_eq!(first.certificate().facts.uris, [identity("a").to_string()]);

    let order: Vec<_> = cell.recorder.since(0).iter().map(|o| o.fact.kind().to_owned()).collect();
    let at = |kind: &str| order.iter().position(|k| k == kind).unwrap();
    assert!(at("issued") < at("sent") && at("stream_opened") < at("subscribed"));
    assert!(at("subscribed") < at("sent") && at("sent") < at("acked"), "{order:?}");
    let opened = cell.seen(0, |o| matches!(o.fact, Fact::StreamOpened(_))).await;
    let Fact::StreamOpened(opened) = opened.fact else { unreachable!() };
    assert_eq!(opened.peer_pid, Some(std::process::id() as i32));
    cell.fake.stop().await;
}

#[tokio::test]
async fn a_refusal_is_recorded_with_its_words_and_the_next_renewal_goes_on() {
    let cell = Cell::start(spec(json!({}))).await;
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    let renewal = cell.fake.renew(1).await.unwrap();
    let second = stream.next().await;
    stream.nack(&second, &first.version_info, "key values mismatch").await;
    assert_eq!(cell.fake.answered(&renewal, deadline()).await, []);
    let nacked = cell.seen(renewal.from, |o| matches!(o.fact, Fact::Nacked(_))).await;
    let Fact::Nacked(nack) = nacked.fact else { unreachable!() };
    assert_eq!(nack.error, "key values mismatch");
    assert_eq!((nack.nonce, nack.version_info), (second.nonce.clone(), first.version_info.clone()));

    cell.fake.renew(2).await.unwrap();
    assert_ne!(stream.next().await.certificate(), second.certificate());
    cell.fake.stop().await;
}

#[tokio::test]
async fn an_answer_to_an_unknown_nonce_is_noted_and_answers_nothing() {
    let cell = Cell::start(spec(json!({}))).await;
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    let renewal = cell.fake.renew(1).await.unwrap();
    stream.next().await;
    stream.answer(&["ROOTCA"], "99", "stale", None).await;
    cell.seen(renewal.from, |o| matches!(&o.fact, Fact::Log(log) if log.line.contains("stale"))).await;
    let unanswered = cell.fake.answered(&renewal, Deadline::after(Duration::ZERO)).await;
    assert_eq!(unanswered, renewal.pushes);
    assert_eq!(unanswered[0].proxy, Some(proxy("a")));
    cell.fake.stop().await;
}

#[tokio::test]
async fn a_stream_that_comes_again_with_its_last_version_gets_the_same_certificate() {
    let cell = Cell::start(spec(json!({}))).await;
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    drop(stream);
    cell.seen(0, |o| matches!(o.fact, Fact::StreamClosed(_))).await;
    let mut again = Subscriber::open(&cell.socket, "a", &["default"], &first.version_info).await;
    let second = again.next().await;
    assert_eq!((second.certificate(), &second.version_info), (first.certificate(), &first.version_info));
    let subscribed = cell
        .seen(0, |o| matches!(&o.fact, Fact::Subscribed(s) if s.version_info == first.version_info && s.stream == 2))
        .await;
    assert_eq!(subscribed.proxy, Some(proxy("a")));
    cell.fake.stop().await;
}

#[tokio::test]
async fn other_names_on_a_stream_are_answered_at_once() {
    let cell = Cell::start(spec(json!({}))).await;
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.answer(&["default", "ROOTCA", "ALL"], &first.version_info, &first.nonce, None).await;
    let names: Vec<_> = stream.next().await.secrets.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["default", "ROOTCA", "ALL"]);
    cell.fake.stop().await;
}

#[tokio::test]
async fn identities_go_by_node_id_and_strangers_get_the_workload_identity() {
    let cell = Cell::start(spec(json!({}))).await;
    for (node, own) in [("b", identity("b").to_string()), ("x", "spiffe://demo.test/workload".to_owned())] {
        for name in ["default", own.as_str()] {
            let mut stream = Subscriber::open(&cell.socket, node, &[name], "").await;
            assert_eq!(stream.next().await.certificate().facts.uris, [own.as_str()]);
        }
        let mut stream = Subscriber::open(&cell.socket, node, &["spiffe://demo.test"], "").await;
        assert!(matches!(stream.next().await.secrets[0].1, Secret::Bundle { spiffe_validator: false, .. }));
    }
    let mut stream = Subscriber::open(&cell.socket, "a", &[identity("b").as_str()], "").await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    cell.fake.stop().await;
}

#[tokio::test]
async fn one_question_gets_one_answer() {
    let cell = Cell::start(spec(json!({}))).await;
    let answer = fetch(&cell.socket, "a", &["default", "ROOTCA"]).await;
    assert_eq!(answer.secrets.len(), 2);
    let closed = cell.seen(0, |o| matches!(o.fact, Fact::StreamClosed(_))).await;
    assert_eq!(closed.proxy, Some(proxy("a")));
    cell.fake.stop().await;
}

#[tokio::test]
async fn what_the_real_providers_do_not_implement_is_not_implemented() {
    let cell = Cell::start(spec(json!({}))).await;
    let mut grpc = tonic::client::Grpc::new(channel(&cell.socket).await);
    let mut call = async |path: &'static str, header: bool| {
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(tokio_stream::iter([()]));
        if header {
            request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
        }
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        grpc.streaming(request, http::uri::PathAndQuery::from_static(path), codec).await.unwrap_err().code()
    };
    assert_eq!(call("/SpiffeWorkloadAPI/FetchJWTSVID", true).await, Code::Unimplemented);
    assert_eq!(call("/SpiffeWorkloadAPI/FetchJWTBundles", true).await, Code::Unimplemented);
    assert_eq!(call("/SpiffeWorkloadAPI/ValidateJWTSVID", true).await, Code::Unimplemented);
    assert_eq!(call("/SpiffeWorkloadAPI/FetchX509SVID", false).await, Code::InvalidArgument);
    assert_eq!(call("/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets", false).await, Code::Unimplemented);
    cell.fake.stop().await;
}

#[tokio::test]
async fn each_profile_speaks_in_its_own_way() {
    struct Seen {
        versions: Vec<String>,
        shared: bool,
        bundle_again: bool,
        spiffe_validator: bool,
    }
    async fn look(profile: &str) -> Seen {
        let cell = Cell::start(spec(json!({ "profile": profile }))).await;
        let mut leaf = Subscriber::open(&cell.socket, "a", &["default"], "").await;
        let mut other = Subscriber::open(&cell.socket, "a", &["default"], "").await;
        let mut bundle = Subscriber::open(&cell.socket, "a", &["ROOTCA"], "").await;
        let (first, twin, roots) = (leaf.next().await, other.next().await, bundle.next().await);
        let renewal = cell.fake.renew(1).await.unwrap();
        let second = leaf.next().await;
        assert_ne!(first.certificate().facts.fingerprint, second.certificate().facts.fingerprint);
        let Secret::Bundle { spiffe_validator, .. } = roots.secrets[0].1 else { panic!("no bundle") };
        let seen = Seen {
            versions: vec![first.version_info.clone(), second.version_info.clone()],
            shared: first.certificate() == twin.certificate(),
            bundle_again: renewal.pushes.iter().any(|p| p.secrets == ["ROOTCA"]),
            spiffe_validator,
        };
        cell.fake.stop().await;
        seen
    }
    let generic = look("generic").await;
    assert_eq!(generic.versions, ["1", "2"]);
    assert!(generic.shared && !generic.bundle_again && !generic.spiffe_validator);

    let spire = look("spire").await;
    assert_eq!(spire.versions, ["1", "2"]);
    assert!(spire.shared && spire.bundle_again && spire.spiffe_validator);

    let istio = look("istio").await;
    for version in &istio.versions {
        let (time, count) = version.split_once('/').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok() && count.parse::<u64>().is_ok(), "{version}");
    }
    assert!(istio.shared && !istio.bundle_again && !istio.spiffe_validator);

    let tbot = look("tbot").await;
    assert!(tbot.versions.iter().all(|v| v.parse::<jiff::Timestamp>().is_ok()), "{:?}", tbot.versions);
    assert!(!tbot.shared && tbot.bundle_again && tbot.spiffe_validator);
}

#[tokio::test]
async fn a_certificate_minted_for_a_stream_says_for_which() {
    let cell = Cell::start(spec(json!({ "profile": "tbot" }))).await;
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    let issued = cell.seen(0, |o| matches!(o.fact, Fact::Issued(_))).await;
    assert_eq!((issued.proxy, issued.secret), (Some(proxy("a")), Some(SecretName::default_svid())));
    let Fact::Issued(issued) = issued.fact else { unreachable!() };
    assert_eq!((issued.stream, issued.renewal), (Some(1), Some(0)));
    assert_eq!(issued.cert, first.certificate().facts);
    cell.fake.stop().await;
}

#[tokio::test]
async fn a_new_bundle_is_on_its_way_before_the_leaves_of_its_new_authority() {
    let cell = Cell::start(spec(json!({ "authorities": [
        { "at_renewal": 1, "action": "prepare" },
        { "at_renewal": 1, "action": "activate" },
    ]})))
    .await;
    let mut leaf = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let mut bundle = Subscriber::open(&cell.socket, "a", &["ROOTCA"], "").await;
    let old = leaf.next().await.certificate().facts;
    bundle.next().await;
    let renewal = cell.fake.renew(1).await.unwrap();
    let pushed: Vec<_> = renewal.pushes.iter().flat_map(|p| &p.secrets).collect();
    assert_eq!(pushed, ["ROOTCA", "default"]);
    let Secret::Bundle { roots, .. } = &bundle.next().await.secrets[0].1 else { panic!("no bundle") };
    let new = leaf.next().await.certificate().facts;
    assert_ne!(old.authority_key_id, new.authority_key_id);
    assert_eq!(
        roots.iter().map(|r| r.subject_key_id.clone()).collect::<Vec<_>>(),
        [old.authority_key_id, new.authority_key_id]
    );
    cell.fake.stop().await;
}

#[tokio::test]
async fn no_key_is_in_the_timeline_in_any_form() {
    for key_type in ["ecdsa-p256", "rsa-2048"] {
        let fault = json!([{ "fault": "wrong-key", "from_renewal": 1 }]);
        let cell = Cell::start(spec(json!({ "key_type": key_type, "faults": fault }))).await;
        let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
        let mut keys = vec![stream.next().await.certificate().key_pem];
        cell.fake.renew(1).await.unwrap();
        keys.push(stream.next().await.certificate().key_pem);
        let text = cell.timeline();
        assert!(text.contains("\"sent\"") && !text.contains("PRIVATE KEY"));
        for key in keys {
            let der = pem::parse(&key).unwrap().into_contents();
            // Any 16 bytes of it, behind the part that only says what kind of key it is.
            for piece in der[40..].chunks_exact(16) {
                assert!(!text.contains(&hex::encode(piece)));
            }
            for line in key.lines().filter(|line| line.len() == 64) {
                assert!(!text.contains(&line[..32]) && !text.contains(&line[32..]));
            }
        }
        for entry in std::fs::read_dir(cell.directory()).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.is_dir() || path.ends_with("timeline.ndjson"), "{path:?}");
        }
        cell.fake.stop().await;
    }
}
