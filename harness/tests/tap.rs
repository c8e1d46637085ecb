//! The tap: what passes it is what was sent, and whatever is sent, it passes and tells.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;
#[path = "sds/subscriber.rs"]
mod subscriber;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use cell::{Cell, deadline, proxy, spec};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rotacheck::timeline::{Fact, Observation, Payload, Source};
use rotacheck::xds::{Journal, Subscribers, Tap, Way};
use serde_json::json;
use subscriber::{Secret, Subscriber};
use tokio::net::UnixListener;
use tonic::Code;

/// A tap in front of `upstream`, which records with the cell's recorder.
fn tapped(cell: &Cell, upstream: &Utf8Path) -> (Tap, Utf8PathBuf) {
    tapped_by(Way::to(upstream), cell)
}

fn tapped_by(way: Way, cell: &Cell) -> (Tap, Utf8PathBuf) {
    let path = Utf8Path::from_path(cell.directory()).unwrap().join("tap.sock");
    let nodes = ["a", "b"].map(|name| (name.to_owned(), proxy(name))).into();
    let subscribers = Subscribers { nodes, ..Subscribers::default() };
    let journal = Arc::new(Journal::new(cell.recorder.clone(), Source::Tap, subscribers));
    let tap = Tap::start(&path, way, journal, Arc::new(1_000.into()), Vec::new()).unwrap();
    (tap, path)
}

fn by_tap(is_it: impl Fn(&Fact) -> bool) -> impl Fn(&Observation) -> bool {
    move |o| o.source == Source::Tap && is_it(&o.fact)
}

async fn remark(cell: &Cell, words: &str) {
    cell.seen(0, by_tap(|fact| matches!(fact, Fact::Log(log) if log.line.contains(words)))).await;
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < Duration::from_secs(60), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn answers_statuses_and_the_other_api_pass_unchanged_and_are_told_without_a_key() {
    let cell = Cell::start(spec(json!({ "profile": "tbot" }))).await;
    let (tap, path) = tapped(&cell, &cell.socket);
    let mut stream = Subscriber::open(&path, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    cell.seen(0, by_tap(|fact| matches!(fact, Fact::Acked(a) if a.nonce == first.nonce))).await;
    cell.fake.renew(1).await.unwrap();
    let second = stream.next().await;
    stream.nack(&second, &first.version_info, "I do not like it").await;
    let refused = cell.seen(0, by_tap(|fact| matches!(fact, Fact::Nacked(_)))).await;
    assert_eq!(refused.proxy, Some(proxy("a")));

    let mut bundle = Subscriber::open(&path, "a", &["ROOTCA"], "").await;
    let roots = bundle.next().await;
    assert!(matches!(&roots.secrets[..], [(_, Secret::Bundle { spiffe_validator: true, .. })]));
    assert_eq!(tap.roots(), cell.fake.bundle(), "also from the SPIFFE validator");

    let told = |source| -> Vec<Fact> {
        let all = cell.recorder.since(0);
        let of = all.iter().filter(|o| o.source == source && matches!(o.fact, Fact::Sent(_)));
        of.map(|o| match o.fact.clone() {
            Fact::Sent(sent) => rotacheck::timeline::Sent { stream: 0, ..sent }.into(),
            other => other,
        })
        .collect()
    };
    assert_eq!(told(Source::Tap), told(Source::Provider), "the tap tells what the provider itself tells");
    let keys: Vec<_> = [&first, &second].map(|answer| answer.certificate().key_pem).into();
    for key in keys {
        let line = key.lines().nth(1).unwrap();
        assert!(!cell.timeline().contains(line));
    }

    cell.fake.stop().await;
    let status = stream.end().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the provider stops"));
    let closed = by_tap(|fact| matches!(fact, Fact::StreamClosed(c) if c.by == "provider"));
    cell.recorder.await_until(0, deadline(), closed).await.then_some(()).unwrap();
}

#[tokio::test]
async fn who_has_a_socket_of_its_own_is_led_there_also_if_it_comes_to_be_later() {
    let (cell, other) = (Cell::start(spec(json!({}))).await, Cell::start(spec(json!({}))).await);
    let beside = |name: &str| Utf8Path::from_path(cell.directory()).unwrap().join(name);
    std::os::unix::fs::symlink(&cell.socket, beside("a.sock")).unwrap();
    let node = |name: &str| format!("sidecar~10.0.0.1~{name}.ns~ns.svc.cluster.local");
    let a = beside("a.sock");
    for (way, as_b) in [(Way::by_node(&a), &other), (Way::to(&a), &cell)] {
        let _ = std::fs::remove_file(beside("b.sock"));
        let (tap, path) = tapped_by(way, &cell);
        let chain = async |name: &str| {
            let mut stream = Subscriber::open(&path, &node(name), &["default"], "").await;
            let answer = stream.next().await;
            stream.ack(&answer).await;
            // What was read to know who asks is told all the same.
            cell.seen(0, by_tap(|fact| matches!(fact, Fact::Acked(a) if a.nonce == answer.nonce))).await;
            answer.certificate().chain_pem.clone()
        };
        let direct = async |cell: &Cell| {
            let mut stream = Subscriber::open(&cell.socket, &node("b"), &["default"], "").await;
            stream.next().await.certificate().chain_pem.clone()
        };
        assert_eq!(chain("b").await, direct(&cell).await);
        std::os::unix::fs::symlink(&other.socket, beside("b.sock")).unwrap();
        assert_eq!(chain("b").await, direct(as_b).await);
        // Nobody says so much of itself: it is led as somebody who says nothing, and passes.
        let mut endless = Subscriber::open(&path, &node("b"), &["default"], &"x".repeat(2 << 20)).await;
        assert_eq!(endless.next().await.certificate().chain_pem, direct(&cell).await);
        drop(tap);
        until("the tap's socket goes away", async || !path.exists()).await;
    }
    cell.fake.stop().await;
    other.fake.stop().await;
}

#[tokio::test]
async fn where_nobody_listens_the_tap_does_not_and_where_somebody_does_again_it_does() {
    let cell = Cell::start(spec(json!({}))).await;
    let (_tap, path) = tapped(&cell, &cell.socket);
    let upstream = cell.socket.clone();
    Subscriber::open(&path, "a", &["default"], "").await.next().await;
    cell.fake.stop().await;
    until("the tap's socket goes away", async || !path.exists()).await;
    let _again = UnixListener::bind(&upstream).unwrap();
    until("the tap's socket is back", async || tokio::net::UnixStream::connect(&path).await.is_ok()).await;
}

#[tokio::test]
async fn a_wrong_key_is_seen_and_a_key_is_not_kept() {
    let cell = Cell::start(spec(json!({ "faults": [{ "fault": "wrong-key" }] }))).await;
    let (_tap, path) = tapped(&cell, &cell.socket);
    let mut stream = Subscriber::open(&path, "b", &["default"], "").await;
    stream.next().await;
    cell.fake.renew(1).await.unwrap();
    stream.next().await;
    let matches = |o: &Observation| match &o.fact {
        Fact::Sent(sent) if o.source == Source::Tap => match &sent.secrets[0].payload {
            Payload::Certificate { key_matches, .. } => *key_matches,
            other => panic!("{other:?}"),
        },
        _ => None,
    };
    let seen: Vec<_> = cell.recorder.since(0).iter().filter_map(|o| matches(o)).collect();
    assert_eq!(seen, [true, false]);
}

/// A server that answers everything with these bytes, and then no more.
async fn rude(cell: &Cell, body: &'static [u8]) -> Utf8PathBuf {
    let path = Utf8Path::from_path(cell.directory()).unwrap().join("rude.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |_| async move {
                let answer = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(body))).unwrap())
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(client), service));
        }
    });
    path
}

#[tokio::test]
async fn half_a_message_nonsense_and_a_false_length_pass_and_are_told() {
    let gigabytes: &[u8] = b"\0\xff\xff\xff\xff1234";
    for (body, words) in [
        (&b"\0\0\0\0\x64abc"[..], "the middle of a response, 3 of 100 bytes had come"),
        (&b"\0\0\0\0\x03\xff\xff\xff"[..], "a response that is no DiscoveryResponse"),
        (&b"\x01\0\0\0\x03zip"[..], "a response of 3 bytes, compressed or too large, was not looked into"),
        (gigabytes, "the middle of a response, 4 of 4294967295 bytes had come"),
    ] {
        let cell = Cell::start(spec(json!({}))).await;
        let upstream = rude(&cell, body).await;
        let (_tap, path) = tapped(&cell, &upstream);
        let mut stream = Subscriber::open(&path, "a", &["default"], "").await;
        stream.end().await;
        remark(&cell, words).await;
        cell.seen(0, by_tap(|fact| matches!(fact, Fact::StreamClosed(_)))).await;
    }
}

#[tokio::test]
async fn a_flood_passes_and_the_recording_of_it_ends_and_says_so() {
    // A DiscoveryResponse with the nonce "n", thirty thousand times.
    let body: &'static [u8] = b"\0\0\0\0\x03\x2a\x01n".repeat(30_000).leak();
    let cell = Cell::start(spec(json!({}))).await;
    let upstream = rude(&cell, body).await;
    let (tap, path) = tapped(&cell, &upstream);
    let channel = subscriber::channel(&path).await;
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let request = tokio_stream::iter([DiscoveryRequest::default()]);
    let mut responses = client.stream_secrets(request).await.unwrap().into_inner();
    let mut came = 0;
    while let Ok(Some(_)) = responses.message().await {
        came += 1;
    }
    assert_eq!(came, 30_000);
    assert!(tap.flooded().await.contains("more than 20000 facts"));
    let recorded = cell.recorder.since(0).iter().filter(|o| o.source == Source::Tap).count();
    assert!((19_000..=20_000).contains(&recorded), "{recorded}");
}

/// Not a test but a measure: `cargo test --release --test tap -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints how much later a push comes through the tap"]
async fn what_the_tap_adds() {
    let cell = Cell::start(spec(json!({}))).await;
    let (_tap, path) = tapped(&cell, &cell.socket);
    let mut direct = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let mut through = Subscriber::open(&path, "b", &["default"], "").await;
    for stream in [&mut direct, &mut through] {
        let first = stream.next().await;
        stream.ack(&first).await;
    }
    // Both are sent in one renewal, now one and now the other first.
    let mut lags = [Vec::new(), Vec::new()];
    for renewal in 1..=500 {
        cell.fake.renew(renewal).await.unwrap();
        let began = Instant::now();
        let timed = async |stream: &mut Subscriber| {
            let answer = stream.next().await;
            let lag = began.elapsed();
            stream.ack(&answer).await;
            lag
        };
        let (a, b) = tokio::join!(timed(&mut direct), timed(&mut through));
        lags[0].push(a);
        lags[1].push(b);
        if renewal % 100 == 0 {
            let [direct, through] = [&lags[0], &lags[1]].map(|lags| {
                let mut lags = lags.clone();
                lags.sort();
                lags[lags.len() / 2]
            });
            let added = through.saturating_sub(direct);
            println!("median of {renewal} pushes: direct {direct:?}, through the tap {through:?}, added {added:?}");
        }
    }
    cell.fake.stop().await;
}
