//! An independent Workload API client accepts the fake.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;

use std::collections::BTreeSet;
use std::time::Duration;

use cell::{Cell, TRUST_DOMAIN, spec};
use rotacheck::timeline::{Fact, Fingerprint, Payload, SentSecret};
use serde_json::json;
use spiffe::{TrustDomain, X509Source, X509SourceUpdates};

async fn source(cell: &Cell) -> X509Source {
    X509Source::builder().endpoint(format!("unix:{}", cell.socket)).build().await.unwrap()
}

fn leaf(source: &X509Source) -> Fingerprint {
    Fingerprint::of_der(source.svid().unwrap().leaf().as_bytes())
}

/// The client fetches once before it subscribes, so that it may report its first state twice: what counts is the state.
async fn until<T>(updates: &mut X509SourceUpdates, mut state: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(state) = state() {
                return state;
            }
            updates.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
}

fn sent_leaves(fact: &Fact) -> Vec<Fingerprint> {
    let Fact::Sent(sent) = fact else { return Vec::new() };
    let leaf = |secret: &SentSecret| match &secret.payload {
        Payload::Certificate { chain, .. } => chain.first().map(|leaf| leaf.fingerprint),
        _ => None,
    };
    sent.secrets.iter().filter_map(leaf).collect()
}

#[tokio::test]
async fn an_independent_client_follows_three_rotations() {
    for key_type in ["ecdsa-p256", "rsa-2048"] {
        let cell = Cell::start(spec(json!({ "key_type": key_type }))).await;
        let source = source(&cell).await;
        let mut updates = source.updated();
        let mut seen = vec![leaf(&source)];
        for number in 1..=3 {
            let renewal = cell.fake.renew(number).await.unwrap();
            let now = until(&mut updates, || Some(leaf(&source)).filter(|leaf| !seen.contains(leaf))).await;
            assert!(renewal.minted.iter().any(|(_, minted)| *minted == now));
            seen.push(now);
        }
        assert_eq!(source.svid().unwrap().spiffe_id().to_string(), format!("spiffe://{TRUST_DOMAIN}/workload"));
        let recorded: BTreeSet<_> = cell.recorder.since(0).iter().flat_map(|o| sent_leaves(&o.fact)).collect();
        assert_eq!(recorded, seen.into_iter().collect());
        source.shutdown().await;
        cell.fake.stop().await;
    }
}

#[tokio::test]
async fn an_independent_client_sees_authorities_come_and_go() {
    let cell = Cell::start(spec(json!({ "authorities": [
        { "at_renewal": 1, "action": "prepare" },
        { "at_renewal": 2, "action": "activate" },
        { "at_renewal": 3, "action": "revoke" },
    ]})))
    .await;
    let source = source(&cell).await;
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let mut updates = source.updated();
    let mut sizes = vec![source.try_bundle_for_trust_domain(&domain).unwrap().authorities().len()];
    for number in 1..=3 {
        cell.fake.renew(number).await.unwrap();
        let theirs = until(&mut updates, || {
            let bundle = source.try_bundle_for_trust_domain(&domain)?;
            let roots: Vec<_> = bundle.authorities().iter().map(|a| a.as_bytes().to_vec()).collect();
            (roots == cell.fake.bundle()).then_some(roots)
        })
        .await;
        sizes.push(theirs.len());
    }
    assert_eq!(sizes, [1, 2, 2, 1]);
    source.shutdown().await;
    cell.fake.stop().await;
}

#[tokio::test]
async fn the_socket_goes_away_with_the_fake() {
    let cell = Cell::start(spec(json!({}))).await;
    assert!(cell.socket.exists());
    let source = source(&cell).await;
    cell.fake.stop().await;
    assert!(!cell.socket.exists());
    source.shutdown().await;
}
