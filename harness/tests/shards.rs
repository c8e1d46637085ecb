//! One plan on several machines: each runs its part, and the runs are joined. What is joined says what one run says.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use assert_cmd::cargo::CommandCargoExt as _;
use serde_json::Value;

const SELECTED: [&str; 5] = ["rotation", "incident", "never-renews", "--envoy", "1.38.3"];

fn rotacheck(arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("rotacheck").unwrap();
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.output().unwrap()
}

fn run(runs: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["run"];
    arguments.extend(SELECTED);
    arguments.extend(more);
    arguments.extend(["--runs", runs.to_str().unwrap(), "--report", "json=-"]);
    rotacheck(&arguments)
}

fn merge(runs: &[&Path], into: &Path) -> Output {
    let mut arguments = vec!["merge"];
    arguments.extend(runs.iter().map(|run| run.to_str().unwrap()));
    arguments.extend(["--runs", into.to_str().unwrap(), "--report", "json=-"]);
    rotacheck(&arguments)
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}; stderr:\n{said}"))
}

/// Cell to verdict, layer and diagnosis.
fn verdicts(output: &Output) -> BTreeMap<String, String> {
    let report = report(output);
    let cells = report["cells"].as_array().unwrap().iter();
    let verdict = |c: &Value| format!("{} {} {}", c["verdict"], c["layer"], c["diagnosis"]);
    cells.map(|c| (c["id"].as_str().unwrap().to_owned(), verdict(c))).collect()
}

#[test]
fn parts_of_a_plan_joined_are_what_one_run_is_and_a_lost_part_is_missed() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let whole = run(&at("whole"), &[]);
    assert_eq!(whole.status.code(), Some(0));
    let (first, second) = (run(&at("first"), &["--shard", "1/2"]), run(&at("second"), &["--shard", "2/2"]));
    assert_eq!((first.status.code(), second.status.code()), (Some(0), Some(0)));
    assert_eq!((verdicts(&first).len(), verdicts(&second).len()), (2, 1));

    let joined = merge(&[&at("first"), &at("second")], &at("joined"));
    assert_eq!((joined.status.code(), verdicts(&joined)), (Some(0), verdicts(&whole)));
    assert_eq!(report(&joined)["run"]["parts"].as_array().unwrap().len(), 2);
    // The evidence came along: what is joined can be judged again.
    let again = rotacheck(&["judge", at("joined").to_str().unwrap(), "--report", "json=-"]);
    assert_eq!((again.status.code(), verdicts(&again)), (Some(0), verdicts(&whole)));

    let without = merge(&[&at("first")], &at("without"));
    assert_eq!(without.status.code(), Some(5), "it could not be told");
    let lost: Vec<String> = verdicts(&without)
        .into_iter()
        .filter(|(_, verdict)| verdict.starts_with("\"not_run\""))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(lost, verdicts(&second).into_keys().collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(said.contains("the part 2/2"), "{said}");

    // Two answers to one question, and parts of different plans.
    for (runs, why) in [([at("first"), at("whole")], "both ran"), ([at("first"), at("first")], "both ran")] {
        let refused = merge(&[&runs[0], &runs[1]], &at("refused"));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(why), "{said}");
    }
    let other =
        rotacheck(&["run", "rotation", "--envoy", "1.38.3", "--shard", "1/1", "--runs", at("other").to_str().unwrap()]);
    assert_eq!(other.status.code(), Some(0));
    let refused = merge(&[&at("second"), &at("other")], &at("refused"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("different plans"), "{said}");
    let kept = std::fs::read_dir(at("refused")).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(kept, 0, "nothing half-joined is left");
}
