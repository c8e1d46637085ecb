//! What selects cells and explains, through the binary: exit codes, streams, and places in the user's files.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

/// Runs in an empty directory, so that no scenarios/ of the checkout is found.
fn rotacheck(dir: &tempfile::TempDir) -> Command {
    let mut command = Command::cargo_bin("rotacheck").unwrap();
    command.current_dir(dir.path()).env_remove("ENVOY_PATH").env("NO_COLOR", "1");
    command
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_binary_alone_has_scenarios_and_matrix() {
    let out = rotacheck(&empty()).args(["plan", "--json"]).assert().success();
    let cells: Vec<serde_json::Value> = serde_json::from_slice(&out.get_output().stdout).unwrap();
    assert_eq!(cells.len(), 16 * 5);
    assert!(cells.iter().all(|cell| cell["command"].as_str().unwrap().starts_with("rotacheck run ")));
}

#[test]
fn the_command_of_a_cell_selects_just_that_cell() {
    let dir = empty();
    let args = ["plan", "--json", "--ttl", "1m", "--envoy", "1.38.3", "--contexts", "3"];
    let out = rotacheck(&dir).args(args).assert().success();
    let cells: Vec<serde_json::Value> = serde_json::from_slice(&out.get_output().stdout).unwrap();
    for cell in cells {
        let command = cell["command"].as_str().unwrap().replacen("rotacheck run", "plan --json", 1);
        let out = rotacheck(&dir).args(command.split(' ')).assert().success();
        let again: Vec<serde_json::Value> = serde_json::from_slice(&out.get_output().stdout).unwrap();
        assert_eq!(again, [cell]);
    }
}

#[test]
fn a_mistyped_scenario_exits_with_4_and_names_the_nearest() {
    let out = rotacheck(&empty()).args(["plan", "incidnet"]).assert().code(4);
    out.stdout("").stderr(contains("incident"));
}

#[test]
fn a_broken_file_exits_with_3_and_shows_the_place() {
    let dir = empty();
    std::fs::write(dir.path().join("mine.yaml"), "name: mine\nsummary: it\nprovider:\n  tll: 2m\n").unwrap();
    let out = rotacheck(&dir).args(["plan", "mine.yaml"]).assert().code(3);
    out.stdout("").stderr(contains("mine.yaml:4:3").and(contains("did you mean `ttl`?")));
    rotacheck(&dir).args(["list", "--scenarios", "."]).assert().code(3).stderr(contains("mine.yaml:4:3"));
    rotacheck(&dir).args(["plan", "gone.yaml"]).assert().code(3).stderr(contains("cannot read gone.yaml"));
    rotacheck(&dir).args(["plan", "rotation", "--envoy", "latest"]).assert().code(2);
}

#[test]
fn a_file_on_disk_wins_over_the_embedded_one() {
    let dir = empty();
    let scenarios = dir.path().join("scenarios");
    std::fs::create_dir(&scenarios).unwrap();
    let mine = "name: rotation\nsummary: Mine.\nprovider:\n  ttl: 1m\n";
    std::fs::write(scenarios.join("rotation.yaml"), mine).unwrap();
    // Without a matrix the directory may be anybody's.
    rotacheck(&dir).arg("list").assert().success().stdout(contains("Mine.").not());
    std::fs::write(scenarios.join("matrix.yaml"), "envoy: [1.38.3]\n").unwrap();
    rotacheck(&dir).arg("list").assert().success().stdout(contains("Mine.").and(contains("incident")));
    let plan = rotacheck(&dir).args(["plan", "rotation"]).assert().success();
    plan.stdout("rotation@envoy-1.38.3  2m virtual, 4 renewals, expected pass\n");
}

#[test]
fn explain_goes_to_stdout_without_colour() {
    let dir = empty();
    let out = rotacheck(&dir).args(["explain", "resend-cached"]).assert().success();
    out.stdout(contains("First aid").and(contains("teleport/issues/62813")).and(contains("\x1b").not())).stderr("");
    rotacheck(&dir).args(["explain", "incident"]).assert().code(2).stderr(contains("resend-cached"));
}
