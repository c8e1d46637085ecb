//! The outlet in a process of its own: the same on the wire and in the timeline, and mortal by itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;
#[path = "sds/subscriber.rs"]
mod subscriber;

use camino::Utf8Path;
use cell::{Cell, deadline, proxy, spec};
use rotacheck::provider::ProviderError;
use rotacheck::timeline::Fact;
use serde_json::json;
use subscriber::Subscriber;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rotacheck");

#[tokio::test]
async fn it_renews_and_is_answered_like_the_one_in_this_process() {
    let cell = Cell::start_apart(Utf8Path::new(PROGRAM), spec(json!({}))).await.unwrap();
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    let renewal = cell.fake.renew(1).await.unwrap();
    let second = stream.next().await;
    stream.ack(&second).await;
    assert_eq!(cell.fake.answered(&renewal, deadline()).await, []);
    assert!(renewal.minted.iter().any(|(_, minted)| *minted == second.certificate().facts.fingerprint));
    let kinds: Vec<_> = cell.recorder.since(renewal.from).iter().map(|o| o.fact.kind().to_owned()).collect();
    let at = |kind: &str| kinds.iter().position(|k| k == kind).unwrap();
    assert!(at("issued") < at("sent"));
    assert!(!cell.timeline().contains("PRIVATE KEY"));
    let socket = cell.socket.clone();
    cell.fake.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn frozen_it_sends_nothing_although_the_issuer_goes_on() {
    let cell = Cell::start_apart(Utf8Path::new(PROGRAM), spec(json!({}))).await.unwrap();
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    let first = stream.next().await;
    stream.ack(&first).await;
    cell.seen(0, |o| matches!(o.fact, Fact::Acked(_))).await;
    let deadline = deadline();
    let pid = rustix::process::Pid::from_raw(cell.fake.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // The kernel tells nobody but the parent's wait; the runtime owns that.
    let frozen = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap().contains(") T ");
    while !frozen() {
        assert!(!deadline.passed(), "it should have been frozen within a minute");
        tokio::task::yield_now().await;
    }
    let renewal = cell.fake.renew(1).await.unwrap();
    assert_eq!((renewal.minted.len(), renewal.pushes.len()), (2, 1));
    assert!(!cell.recorder.since(renewal.from).iter().any(|o| matches!(o.fact, Fact::Sent(_))));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let second = stream.next().await;
    stream.ack(&second).await;
    assert_eq!(cell.fake.answered(&renewal, deadline).await, []);
    cell.fake.stop().await;
}

#[tokio::test]
async fn its_death_ends_its_streams_in_the_timeline() {
    let cell = Cell::start_apart(Utf8Path::new(PROGRAM), spec(json!({}))).await.unwrap();
    let mut stream = Subscriber::open(&cell.socket, "a", &["default"], "").await;
    stream.next().await;
    let pid = rustix::process::Pid::from_raw(cell.fake.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let closed = cell.seen(0, |o| matches!(o.fact, Fact::StreamClosed(_))).await;
    assert_eq!(closed.proxy, Some(proxy("a")));
    let socket = cell.socket.clone();
    cell.fake.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn its_reason_for_not_starting_comes_through() {
    let missing = Cell::start_apart(Utf8Path::new("/no/such/program"), spec(json!({}))).await;
    assert!(matches!(missing.err(), Some(ProviderError::Apart(_))));
    let mute = Cell::start_apart(Utf8Path::new("/bin/true"), spec(json!({}))).await;
    assert!(mute.err().unwrap().to_string().contains("it did not greet"));
}
