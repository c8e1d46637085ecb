//! A subscriber beside the proxies, through the binary: what it tells, and what it keeps to itself.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod cell;
mod place;
#[path = "sds/subscriber.rs"]
mod subscriber;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use place::{Ended, Going, Place};
use rotacheck::timeline::{Fact, Observation, read_observation};
use rustix::process::Signal;
use subscriber::{Secret, Subscriber};

/// A provider of ours, until it is dropped.
struct Provider {
    going: Going,
    socket: Utf8PathBuf,
}

impl Provider {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let socket = place.root.join("sds.sock");
        let mut going =
            Going::start(place.rotacheck(&[&["provider", "--socket", socket.as_str()], arguments].concat()));
        going.says("serving SDS");
        Self { going, socket }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.going.kill(Signal::TERM);
    }
}

fn witness(place: &Place, socket: &Utf8Path, arguments: &[&str]) -> Ended {
    let arguments = [&["witness", "--socket", socket.as_str()], arguments].concat();
    place.rotacheck(&arguments).output().unwrap().into()
}

fn told(ended: &Ended) -> Vec<Observation> {
    ended.stdout.lines().map(|line| read_observation(line).unwrap()).collect()
}

/// Stream, version and serial of each certificate that came.
fn came(told: &[Observation]) -> Vec<(u64, String, String)> {
    let sent = told.iter().filter_map(|o| match &o.fact {
        Fact::Sent(sent) => Some(sent),
        _ => None,
    });
    sent.map(|sent| {
        let serial = sent.secrets[0].payload.leaf().unwrap().serial.to_string();
        (sent.stream, sent.version_info.clone(), serial)
    })
    .collect()
}

#[test]
fn who_stays_is_sent_the_same_again_and_newcomers_are_given_one_of_their_own() {
    let place = Place::new();
    let faulty = ["--profile", "tbot", "--ttl", "60s", "--renew-every", "1s", "--fault", "resend-cached@1"];
    let provider = Provider::start(&place, &faulty);
    let ended = witness(&place, &provider.socket, &["--for", "4s", "--every", "1s"]);
    let came = came(&told(ended.with(0, &[])));
    let streams: BTreeSet<u64> = came.iter().map(|(stream, ..)| *stream).collect();
    let of = |stream: u64| came.iter().filter(move |(s, ..)| *s == stream);
    let distinct = |stream: u64| {
        let versions = of(stream).map(|(_, version, _)| version).collect::<BTreeSet<_>>().len();
        (versions, of(stream).map(|(.., serial)| serial).collect::<BTreeSet<_>>().len())
    };
    let stayed = streams.iter().copied().max_by_key(|stream| of(*stream).count()).unwrap();
    let (versions, serials) = distinct(stayed);
    assert!(versions > 1 && serials == 1, "{came:?}");
    let serials: BTreeSet<_> = came.iter().map(|(.., serial)| serial).collect();
    assert_eq!(serials.len(), streams.len(), "each stream has one of its own: {came:?}");
    assert!(streams.len() > 3, "{came:?}");
}

#[test]
fn one_that_only_asks_is_answered_once() {
    let place = Place::new();
    let provider = Provider::start(&place, &[]);
    let ended = witness(&place, &provider.socket, &["--workload", "web.shop"]);
    let told = told(ended.with(0, &[]));
    let kinds: Vec<&str> = told.iter().map(|o| o.fact.kind()).collect();
    assert_eq!(kinds, ["peers", "stream_opened", "subscribed", "sent", "acked", "stream_closed"]);
    assert!(told.iter().enumerate().all(|(n, o)| o.seq == n as u64));
}

#[test]
fn where_nobody_serves_a_line_says_so() {
    let place = Place::new();
    let ended = witness(&place, &place.root.join("none.sock"), &[]);
    let told = told(ended.with(5, &[]));
    let Some(Fact::Blind(blind)) = told.last().map(|o| &o.fact) else { panic!("{told:?}") };
    assert!(blind.why.starts_with("there is no "), "{blind:?}");
}

/// Whether a piece of this key is there, as it is, or in base64 or hex of either letters.
fn shows(text: &str, key: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let plain = key.windows(16).any(|piece| bytes.windows(16).any(|window| window == piece));
    let hex = key.windows(12).map(hex::encode).any(|piece| text.to_lowercase().contains(&piece));
    let base64 = (0..3).any(|shift| {
        let pieces = key[shift..].chunks_exact(12).map(|piece| BASE64_STANDARD.encode(piece));
        pieces.into_iter().any(|piece| text.contains(&piece))
    });
    plain || hex || base64
}

#[tokio::test]
async fn the_key_that_it_is_given_is_in_no_line() {
    let place = Place::new();
    // One certificate for all that come.
    let provider = Provider::start(&place, &["--ttl", "10m"]);
    let mut subscriber = Subscriber::open(&provider.socket, "somebody", &["default"], "").await;
    let given = subscriber.next().await.secrets.remove(0).1;
    let Secret::Certificate(given) = given else { panic!("{given:?}") };
    let ended = witness(&place, &provider.socket, &["--for", "2s", "--every", "1s"]);
    let said = format!("{}{}", ended.with(0, &[]).stdout, ended.stderr);
    assert!(said.contains(&given.facts.fingerprint.to_string()), "it was given the same: {said}");
    let key = pem::parse(&given.key_pem).unwrap();
    assert!(!said.contains("PRIVATE KEY") && !shows(&said, key.contents()), "{said}");
    // The control: in each of these forms it would be found.
    for leak in
        [given.key_pem.replace('\n', "\\n"), hex::encode_upper(key.contents()), BASE64_STANDARD.encode(key.contents())]
    {
        assert!(shows(&format!("{said} {leak}"), key.contents()), "{leak}");
    }
}
