//! The matrix of agents: Envoys with and without two Istios, every provider. Their programs take a quarter of an hour to
//! build, so this is run by its name: `rotacheck fetch --matrix`, then `cargo test --test agents -- --ignored`.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::collections::BTreeSet;

use place::Place;
use serde_json::Value;

#[test]
#[ignore = "needs the programs of Istio and SPIRE: rotacheck fetch --matrix"]
fn the_matrix_of_agents_is_as_expected_and_tells_what_differs() {
    let place = Place::new();
    let report = place.root.join("report.json");
    let to = format!("json={report}");
    let on = ["--envoy", "1.36.4", "--envoy", "1.40.0", "--offline", "--report", &to];
    let run = place.rotacheck(&[&["run", "--topology", "agent"], &on[..]].concat()).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    place.nothing_is_left();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let subject = |cell: &Value| {
        (text(&cell["scenario"]), text(&cell["subject"]["istio"]["name"]), text(&cell["subject"]["provider"]["kind"]))
    };
    let subjects: BTreeSet<_> = cells.iter().map(subject).collect();
    for istio in ["none", "1.31-dev.20260423", "1.31-dev.20260827"] {
        for provider in ["fake", "istio-ca", "spire"] {
            assert!(subjects.contains(&("rotation".into(), istio.into(), provider.into())), "{istio} {provider}");
        }
    }
    let unsupported: BTreeSet<_> = cells.iter().filter(|c| c["verdict"] == "unsupported").map(subject).collect();
    assert_eq!(unsupported, BTreeSet::from([("rotation".into(), "none".into(), "istio-ca".into())]));
    for incident in cells.iter().filter(|cell| cell["scenario"] == "agent-incident") {
        assert_eq!((&incident["layer"], &incident["diagnosis"]), (&"issued".into(), &"resend-cached".into()));
        let disclosed = incident["disclosed"].as_array().unwrap();
        assert!(disclosed.iter().any(|d| d["name"] == "off-pair"), "{incident}");
    }
    let differs = |d: &Value| {
        d["scenario"] == "agent-incident"
            && text(&d["claim"]).starts_with("config_dump: default was last updated")
            && d["claimed_on"] == serde_json::json!(["Envoy 1.36.4"])
    };
    assert!(report["differences"].as_array().unwrap().iter().any(differs), "{}", report["differences"]);
}
