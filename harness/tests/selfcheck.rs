//! Every seeded fault is caught on a real Envoy, whatever evidence is taken away; and a pass is worth as much as the
//! controls of its checks.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use assert_cmd::cargo::CommandCargoExt as _;
use serde_json::Value;

const ENVOY: &str = "1.38.3";

fn rotacheck(directory: &Path, arguments: &[&str]) -> Output {
    Command::cargo_bin("rotacheck").unwrap().args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_control_is_caught_and_nothing_untrue_is_said() {
    let place = tempfile::tempdir().unwrap();
    let output = rotacheck(place.path(), &["selfcheck", "--envoy", ENVOY]);
    let (said, talk) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{talk}");
    // The table, then the scores.
    let table: Vec<&str> =
        said.lines().skip_while(|line| !line.starts_with("mode ")).take_while(|line| !line.is_empty()).collect();
    assert!(table[0].ends_with(ENVOY), "{said}");
    assert!(table.len() > 25, "{said}");
    let told = |line: &&str| line.ends_with("right") || line.ends_with("noted") || line.ends_with("unsupp.");
    assert_eq!(table[1..].iter().filter(|line| !told(line)).collect::<Vec<_>>(), Vec::<&&str>::new());
    for line in ["mutation score", "right layer", "right name"] {
        assert!(said.lines().any(|l| l.starts_with(line) && l.ends_with("(100.0 %)")), "{line}: {said}");
    }
    assert!(said.contains("nothing untrue"), "{said}");
    assert!(said.contains("agent-owns-socket: it needs Istio's agent"), "{said}");
}

/// A library of one scenario and these controls.
fn library(directory: &Path, controls: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let target = directory.join("library");
    fs::create_dir_all(target.join("controls")).unwrap();
    fs::copy(source.join("matrix.yaml"), target.join("matrix.yaml")).unwrap();
    fs::copy(source.join("rotation.yaml"), target.join("rotation.yaml")).unwrap();
    for name in controls {
        let file = format!("{name}.yaml");
        let place = [source.join("controls").join(&file), source.join(&file)].into_iter().find(|p| p.is_file());
        fs::copy(place.unwrap(), target.join("controls").join(&file)).unwrap();
    }
}

fn required(directory: &Path) -> (Value, Option<i32>) {
    let arguments = ["run", "rotation", "--scenarios", "library", "--envoy", ENVOY, "--require-controls"];
    let output = rotacheck(directory, &[&arguments[..], &["--report", "json=-"]].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
    (report, output.status.code())
}

fn cell(report: &Value, scenario: &str) -> Value {
    report["cells"].as_array().unwrap().iter().find(|c| c["scenario"] == scenario).unwrap().clone()
}

#[test]
fn a_pass_whose_controls_are_missing_is_refused() {
    let place = tempfile::tempdir().unwrap();
    library(place.path(), &["wrong-identity"]);
    let (report, code) = required(place.path());
    let rotation = cell(&report, "rotation");
    assert_eq!((code, &rotation["verdict"]), (Some(5), &Value::from("inconclusive")), "{rotation:#}");
    let missing = rotation["missing"].to_string();
    assert!(missing.contains("its control nack-key-mismatch did not run on this Envoy"), "{missing}");
    // The one that ran, and was caught, is not in want.
    assert!(!missing.contains("identity_unchanged"), "{missing}");
    assert_eq!(cell(&report, "wrong-identity")["as_expected"], true);
    // Whoever judges the run again, or one cell of it, gets no other answer.
    let again = rotacheck(place.path(), &["judge", "--report", "json=-"]);
    let judged: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((again.status.code(), &cell(&judged, "rotation")["missing"]), (Some(5), &rotation["missing"]));
    let directory = format!("rotacheck-runs/latest/cells/{}", rotation["id"].as_str().unwrap());
    let alone = rotacheck(place.path(), &["judge", &directory]);
    assert_eq!(alone.status.code(), Some(5), "{}", text(&alone.stdout));
}

#[test]
fn a_pass_whose_controls_were_caught_stands() {
    let place = tempfile::tempdir().unwrap();
    let controls = [
        "never-arrives",
        "never-renews",
        "expired-on-arrival",
        "issues-never-pushes",
        "nack-key-mismatch",
        "wrong-identity",
        "leaf-before-bundle",
        "bundle-drops-old-ca",
        "thin-margin",
        "incident",
        "late-listener-poisoned",
    ];
    library(place.path(), &controls);
    let (report, code) = required(place.path());
    let rotation = cell(&report, "rotation");
    assert_eq!((code, &rotation["verdict"]), (Some(0), &Value::from("pass")), "{rotation:#}");
}
