//! The main job, as a user runs it: every scenario on every Envoy of the matrix, judged as expected; the same verdicts
//! from a copy of the recordings on a machine without Envoy; another verdict when a recorded fact is changed.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt as _;
use serde_json::Value;

fn rotacheck(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("rotacheck").unwrap();
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// The JSON report that the command prints, and its exit code.
fn report(command: &mut Command) -> (Value, Option<i32>) {
    let output = command.args(["--report", "json=-"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}; stderr:\n{said}"));
    (report, output.status.code())
}

/// Cell to verdict, layer, diagnosis, and whether that is as expected.
fn verdicts(report: &Value) -> BTreeMap<String, String> {
    let cells = report["cells"].as_array().unwrap();
    let one = |c: &Value| {
        let verdict = format!("{} {} {} {}", c["verdict"], c["layer"], c["diagnosis"], c["as_expected"]);
        (c["id"].as_str().unwrap().to_owned(), verdict)
    };
    cells.iter().map(one).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_default_plan_is_as_expected_and_its_recordings_say_so_anywhere() {
    let scratch = tempfile::tempdir().unwrap();
    let runs = scratch.path().join("runs");
    let (live, code) = report(&mut rotacheck(&["run", "--runs", runs.to_str().unwrap()]));
    let unexpected: Vec<&Value> =
        live["cells"].as_array().unwrap().iter().filter(|c| c["as_expected"] != true).collect();
    assert!(unexpected.is_empty(), "{}", serde_json::to_string_pretty(&unexpected).unwrap());
    assert_eq!(code, Some(0));

    let verdicts_live = verdicts(&live);
    assert_eq!(verdicts_live.len(), 80, "sixteen scenarios on five Envoys");
    let caught = verdicts_live.values().filter(|v| v.starts_with("\"fail\"")).count();
    assert_eq!(caught, 25, "five controls on five Envoys");
    for cell in live["cells"].as_array().unwrap() {
        // The version in the cell's name was asked for; the subject's was measured.
        let measured = cell["subject"]["envoy"]["version"].as_str().unwrap();
        assert!(cell["id"].as_str().unwrap().ends_with(&format!("@envoy-{measured}")), "{cell}");
        assert!(cell["command"].as_str().unwrap().starts_with("rotacheck run "), "{cell}");
    }

    // A machine without Envoy, pip or network: an empty PATH, an empty cache, and the run somewhere else.
    let copied = scratch.path().join("copied");
    copy(&std::fs::canonicalize(runs.join("latest")).unwrap(), &copied);
    let mut bare = rotacheck(&["judge", copied.to_str().unwrap()]);
    bare.env("PATH", "").env("ROTACHECK_CACHE", scratch.path().join("nothing"));
    let (again, code) = report(&mut bare);
    assert_eq!((verdicts(&again), code), (verdicts_live, Some(0)));

    let timeline = copied.join("cells/rotation@envoy-1.38.3/timeline.ndjson");
    another_leaf_served(&timeline);
    let (edited, code) = report(&mut rotacheck(&["judge", copied.to_str().unwrap()]));
    assert_eq!(code, Some(1));
    let changed = &verdicts(&edited)["rotation@envoy-1.38.3"];
    assert!(changed.starts_with("\"fail\" ") && changed.ends_with(" null false"), "{changed}");

    cut_short(&timeline);
    let (cut, code) = report(&mut rotacheck(&["judge", copied.to_str().unwrap()]));
    assert_eq!(code, Some(5));
    assert_eq!(verdicts(&cut)["rotation@envoy-1.38.3"], "\"inconclusive\" null null false");
}

/// In the last handshake of the recording, the proxy shows a leaf that nobody issued.
fn another_leaf_served(timeline: &PathBuf) {
    let text = std::fs::read_to_string(timeline).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines.iter_mut().rev().find(|l| l.contains(r#""kind":"handshake""#)).unwrap();
    let mut handshake: Value = serde_json::from_str(last).unwrap();
    handshake["data"]["chain"][0]["fingerprint"] = Value::String("ab".repeat(32));
    *last = handshake.to_string();
    std::fs::write(timeline, lines.join("\n") + "\n").unwrap();
}

fn cut_short(timeline: &PathBuf) {
    let text = std::fs::read_to_string(timeline).unwrap();
    std::fs::write(timeline, &text[..text.len() - 400]).unwrap();
}
