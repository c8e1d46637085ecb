//! Certificates by files: what lies where after each renewal, healthy and spoiled.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use camino::Utf8PathBuf;
use cell::{Cell, proxy, spec};
use rotacheck::pki::{chain_facts, leaf_key_pem_matches};
use rotacheck::timeline::{Fact, Payload, SecretName, Written};
use serde_json::{Value, json};

/// Proxy `a`'s files.
struct Place {
    cell: Cell,
    live: Utf8PathBuf,
}

impl Place {
    /// Renewal 1 is spoiled, if a fault is given; renewal 2 is healthy again.
    async fn start(fault: Option<&str>) -> Place {
        let faults: Vec<Value> = fault.iter().map(|fault| json!({ "fault": fault, "until_renewal": 2 })).collect();
        let cell = Cell::start_with_files(spec(json!({ "kind": "files", "faults": faults }))).await;
        let live = cell.socket.join("a/default/live");
        Place { cell, live }
    }

    fn chain(&self) -> Option<String> {
        fs::read_to_string(self.live.join("tls.crt")).ok()
    }

    fn serial(&self) -> String {
        chain_facts(self.chain().unwrap().as_bytes()).unwrap()[0].serial.to_string()
    }

    /// Whether chain and key lie there whole and belong together.
    fn fits(&self) -> bool {
        let key = fs::read(self.live.join("tls.key")).unwrap();
        self.chain().is_some_and(|chain| leaf_key_pem_matches(chain.as_bytes(), &key) == Some(true))
    }

    /// What the timeline says of proxy `a`'s certificate.
    fn written(&self) -> Vec<Written> {
        let all = self.cell.recorder.since(0);
        let own = all.iter().filter(|o| o.proxy == Some(proxy("a")) && o.secret == Some(SecretName::default_svid()));
        own.filter_map(|o| if let Fact::Written(w) = &o.fact { Some(w.clone()) } else { None }).collect()
    }

    fn last(&self) -> (String, Payload) {
        let last = self.written().pop().unwrap();
        (last.how, last.secret.payload)
    }

    /// The next renewal puts whole files into place by a rename.
    async fn recovers(self) {
        let before = fs::read_link(&self.live).unwrap();
        self.cell.fake.renew(2).await.unwrap();
        assert!(self.fits());
        assert_ne!(fs::read_link(&self.live).unwrap(), before);
        let (how, payload) = self.last();
        assert_eq!(how, "moved");
        assert!(matches!(payload, Payload::Certificate { key_matches: Some(true), problem: None, .. }), "{payload:?}");
    }
}

#[tokio::test]
async fn each_renewal_is_a_directory_that_takes_the_place_of_the_one_before_at_once() {
    let place = Place::start(None).await;
    let mut seen = vec![(place.serial(), fs::read_link(&place.live).unwrap())];
    for number in 1..=4 {
        place.cell.fake.renew(number).await.unwrap();
        assert!(place.fits());
        seen.push((place.serial(), fs::read_link(&place.live).unwrap()));
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 5, "{seen:?}");
    let directory = place.live.parent().unwrap();
    // Keys don't pile up: the present ones, and those that somebody may just be reading.
    assert_eq!(directory.read_dir_utf8().unwrap().count(), 3);
    for (path, mode) in [(directory.to_owned(), 0o700), (place.live.join("tls.key"), 0o600)] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
    let how: Vec<_> = place.written().into_iter().map(|w| w.how).collect();
    assert_eq!(how, ["moved"; 5]);
    assert!(!place.cell.timeline().contains("PRIVATE KEY"));
    place.cell.fake.stop().await;
}

#[tokio::test]
async fn the_secret_names_its_files_and_what_to_watch_unless_that_is_spoiled() {
    for (fault, watched) in [(None, true), (Some("not-watched"), false)] {
        let place = Place::start(fault).await;
        let file = fs::read(place.cell.socket.join("a/default.json")).unwrap();
        let secret = serde_json::from_slice::<Value>(&file).unwrap()["resources"][0].clone();
        assert_eq!(secret["name"], "default");
        let certificate = &secret["tls_certificate"];
        assert_eq!(certificate["private_key"]["filename"], place.live.join("tls.key").as_str());
        let directory = certificate.get("watched_directory").map(|w| w["path"].as_str().unwrap().to_owned());
        assert_eq!(directory, watched.then(|| place.live.parent().unwrap().to_string()));
    }
}

#[tokio::test]
async fn what_is_written_over_leaves_the_directory_as_it_was() {
    let place = Place::start(Some("rewrite-in-place")).await;
    let (serial, link) = (place.serial(), fs::read_link(&place.live).unwrap());
    place.cell.fake.renew(1).await.unwrap();
    assert!(place.fits());
    assert_ne!(place.serial(), serial);
    assert_eq!(fs::read_link(&place.live).unwrap(), link);
    assert_eq!(place.last().0, "in_place");
    place.recovers().await;
}

#[tokio::test]
async fn a_half_written_chain_is_no_certificate_and_is_completed_before_the_next_renewal() {
    let place = Place::start(Some("half-written")).await;
    place.cell.fake.renew(1).await.unwrap();
    assert!(chain_facts(place.chain().unwrap().as_bytes()).is_err());
    assert!(matches!(place.last(), (how, Payload::Certificate { problem: Some(_), .. }) if how == "moved"));
    place.cell.fake.renew(2).await.unwrap();
    let how: Vec<_> = place.written().into_iter().map(|w| w.how).collect();
    assert_eq!(how, ["moved", "moved", "in_place", "moved"]);
    assert!(place.fits());
}

#[tokio::test]
async fn a_key_before_its_chain_fits_nothing_until_the_next_renewal() {
    let place = Place::start(Some("key-before-chain")).await;
    let serial = place.serial();
    place.cell.fake.renew(1).await.unwrap();
    assert_eq!(place.serial(), serial);
    assert!(!place.fits());
    assert!(matches!(place.last().1, Payload::Certificate { key_matches: Some(false), problem: None, .. }));
    place.recovers().await;
}

#[tokio::test]
async fn a_chain_that_is_missing_comes_back_with_the_next_renewal() {
    let place = Place::start(Some("file-missing")).await;
    place.cell.fake.renew(1).await.unwrap();
    assert_eq!(place.chain(), None);
    assert!(matches!(place.last().1, Payload::Other { .. }));
    place.recovers().await;
}
