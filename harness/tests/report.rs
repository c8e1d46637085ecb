//! `rotacheck report` on runs that are over, through the binary.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::collections::BTreeMap;

use assert_cmd::Command;
use camino::Utf8Path;
use predicates::prelude::*;
use rotacheck::archive::{Host, RunDirectory, RunRecord};
use rotacheck::plan::{CellReport, Outcome};
use rotacheck::timeline::{
    CellId, ClockKind, EnvoySubject, EnvoyVersion, Expectation, ExpectedJudgement, ProviderSubject, Role, ScenarioName,
    Subject,
};

fn rotacheck() -> Command {
    let mut command = Command::cargo_bin("rotacheck").unwrap();
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

/// A run that was killed in its first cell, before its second.
fn killed_run(base: &Utf8Path) -> RunDirectory {
    let directory = RunDirectory::create(base).unwrap();
    let record = RunRecord {
        id: directory.id().to_owned(),
        directory: directory.path().to_string(),
        started: jiff::Timestamp::now(),
        duration_ms: None,
        rotacheck: "0.1.0".into(),
        command_line: Vec::new(),
        jobs: 1,
        interrupted: false,
        require_controls: false,
        host: Host { os: "Linux".into(), arch: "x86_64".into(), cpus: 2, memory_bytes: 1 << 30 },
        digests: BTreeMap::new(),
        parts: Vec::new(),
        harness_cpu_ms: None,
        children_cpu_ms: None,
    };
    directory.write_record(&record).unwrap();
    let cells = ["rotation", "incident"].map(|scenario| CellReport {
        id: CellId::parse(&format!("{scenario}@envoy-1.38.3")).unwrap(),
        scenario: ScenarioName::parse(scenario).unwrap(),
        summary: String::new(),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject { version: EnvoyVersion::parse("1.38.3").unwrap(), source: "pip".into() },
            istio: None,
            provider: ProviderSubject { kind: "fake".into(), profile: None, version: "0.1.0".into() },
            cluster: None,
        },
        disclosed: Vec::new(),
        clock: ClockKind::Virtual,
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
        outcome: Outcome::NotRun,
        as_expected: false,
        reason: None,
        verdict: None,
        duration_ms: 0,
        cell_time_s: 0,
        command: format!("rotacheck run {scenario} --envoy 1.38.3"),
    });
    directory.write_plan(&cells).unwrap();
    directory.announce().unwrap();
    directory.cell_directory(&cells[0].id).unwrap();
    directory
}

#[test]
fn a_killed_run_is_reported_with_what_it_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    let base = Utf8Path::from_path(scratch.path()).unwrap();
    let run = killed_run(base);
    rotacheck()
        .arg("report")
        .arg(run.path())
        .assert()
        .success()
        .stdout(predicate::str::contains("2 cells:  ▲ 1 error  · 1 not run"))
        .stdout(predicate::str::contains("the run has no end"))
        .stdout(predicate::str::contains("\u{1b}").not())
        .stderr(predicate::str::contains("verdict.json: the cell was not judged"));
}

#[test]
fn a_report_on_standard_output_has_it_for_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let base = Utf8Path::from_path(scratch.path()).unwrap();
    killed_run(base);
    // The directory of runs stands for its newest.
    let output = rotacheck().args(["report", base.as_str(), "--report", "json=-"]).output().unwrap();
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["cells"][1]["verdict"], "not_run");
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 cells:"));
}

#[test]
fn what_is_no_run_is_a_wrong_argument() {
    let scratch = tempfile::tempdir().unwrap();
    rotacheck()
        .arg("report")
        .arg(scratch.path())
        .assert()
        .code(2)
        .stderr(predicate::str::contains("it holds no run.json"))
        .stderr(predicate::str::contains("help: `rotacheck run` makes one; name its directory"));
    rotacheck().args(["report", "x", "--report", "pdf=x"]).assert().code(2);
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let base = Utf8Path::from_path(scratch.path()).unwrap();
    let run = killed_run(base);
    rotacheck()
        .arg("report")
        .arg(run.path())
        .args(["--report", "html=/proc/nowhere/x.html"])
        .assert()
        .code(5)
        .stderr(predicate::str::contains("/proc/nowhere/x.html"));
}
