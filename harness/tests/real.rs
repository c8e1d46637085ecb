//! Real SPIRE behind the tap. Its programs take minutes to build, so these are run by their names:
//! `rotacheck fetch --spire 1.13.3`, then `cargo test --test real -- --ignored`.

mod place;

use std::fs;

use camino::Utf8PathBuf;
use place::{Going, Place, envoy};
use rustix::process::Signal;

const SPIRE: [&str; 4] = ["--provider", "spire", "--spire", "1.13.3"];

fn on_spire(place: &Place, scenarios: &[&str]) -> Going {
    let envoy = format!("path={}", envoy());
    let on = ["--offline", "--jobs", "3", "--envoy", &envoy];
    Going::start(place.rotacheck(&[&["run"], scenarios, &SPIRE, &on].concat()))
}

#[test]
#[ignore = "needs SPIRE's programs: rotacheck fetch --spire 1.13.3"]
fn spire_rotates_and_what_befalls_it_is_found() {
    let place = Place::new();
    let ended = on_spire(&place, &["rotation", "spire-*"]).ended();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    place.nothing_is_left();
    let cells: Vec<Utf8PathBuf> = place
        .latest()
        .unwrap()
        .join("cells")
        .read_dir_utf8()
        .unwrap()
        .map(|cell| cell.unwrap().path().to_owned())
        .collect();
    assert_eq!(cells.len(), 9);
    for cell in cells {
        // Its keys were on disk while the cell lived.
        for log in ["spire-server.log", "spire-agent.log"] {
            let said = fs::read_to_string(cell.join(log)).unwrap();
            assert!(!said.is_empty() && !said.contains("PRIVATE KEY"), "{cell}/{log}");
            // An agent that joined by a token is named by it.
            let named = said.split("/join_token/").skip(1).all(|rest| rest.starts_with("(join token)"));
            assert!(named, "{cell}/{log}");
        }
        let timeline = fs::read_to_string(cell.join("timeline.ndjson")).unwrap();
        assert!(timeline.contains("\"kind\":\"signed\""), "{cell}");
        // Another client, by another API, was asked at the end; of an agent that was gone it got nothing.
        assert!(timeline.contains("\"rpc\":\"workload_svid\""), "{cell}");
    }
}

#[test]
#[ignore = "needs SPIRE's programs: rotacheck fetch --spire 1.13.3"]
fn a_harness_that_is_killed_leaves_no_spire_behind() {
    let place = Place::new();
    let going = on_spire(&place, &["rotation"]);
    place.observes();
    assert!(place.left().iter().any(|what| what.contains("spire-server")));
    going.kill(Signal::KILL);
    assert_eq!(going.ended().signal, Some(9));
    place.nothing_is_left();
}
