use camino::{Utf8Path, Utf8PathBuf};

use super::sample::{cell, record, subject};
use super::*;
use crate::clock::Clock;
use crate::plan::{CellReport, Outcome};
use crate::timeline::*;

struct Runs {
    _scratch: tempfile::TempDir,
    base: Utf8PathBuf,
}

fn runs() -> Runs {
    let scratch = tempfile::tempdir().unwrap();
    let base = Utf8PathBuf::from_path_buf(scratch.path().join("runs")).unwrap();
    Runs { _scratch: scratch, base }
}

fn passing() -> CellReport {
    cell("rotation", "1.38.3", Role::Conformance, Outcome::Pass, true)
}

fn not_begun() -> CellReport {
    let mut planned = cell("incident", "1.38.3", Role::Control, Outcome::NotRun, false);
    planned.reason = None;
    planned
}

fn header(cell: &CellReport) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: "0.1.0".into(),
        cell: cell.id.clone(),
        scenario: cell.scenario.clone(),
        role: cell.role,
        subject: subject("1.38.3"),
        clock: ClockKind::Virtual,
        started: "2026-11-24T17:35:55Z".parse().unwrap(),
        proxies: Vec::new(),
        criteria: Criteria {
            ttl_s: 120,
            renew_every_s: Some(60),
            lag_bound_ms: 5000,
            margin_floor_s: 12,
            margin_floor_ms: None,
            newer_generations: 2,
            generations_past_first_expiry: 2,
        },
        expect: cell.expect.clone(),
    }
}

/// A run of two cells: the first was judged, the second only planned.
fn write_run(runs: &Runs) -> RunDirectory {
    let run = RunDirectory::create(&runs.base).unwrap();
    run.write_record(&record()).unwrap();
    run.write_plan(&[CellReport { outcome: Outcome::NotRun, ..passing() }, not_begun()]).unwrap();
    run.announce().unwrap();
    let directory = run.cell_directory(&passing().id).unwrap();
    directory.write_scenario("name: rotation\n").unwrap();
    let recorder = Recorder::new(header(&passing()), Clock::real(), Some(directory.create_timeline().unwrap()));
    recorder.record(Source::Harness, None, None, Phase { name: "prepare".into() });
    recorder.finish(None).unwrap();
    directory.write_verdict(&passing()).unwrap();
    run
}

fn cell_file(run: &RunDirectory, name: &str) -> Utf8PathBuf {
    run.path().join("cells").join(passing().id.as_str()).join(name)
}

fn problems(archive: &Archive) -> String {
    archive
        .problems()
        .iter()
        .map(|p| format!("cannot {p}\n"))
        .collect::<String>()
        .replace(archive.path().as_str(), "RUN")
}

#[test]
fn what_was_written_is_read_back() {
    let runs = runs();
    let run = write_run(&runs);
    let archive = Archive::open(run.path()).unwrap();
    assert_eq!(problems(&archive), "");
    assert_eq!(archive.record(), &RunRecord { directory: run.path().to_string(), ..record() });
    assert_eq!(archive.cells()[0], passing());
    assert_eq!(archive.cells()[1].outcome, Outcome::NotRun);
    assert!(archive.cells()[1].reason.is_some());
    assert_eq!(archive.timeline(&passing().id).unwrap().incomplete(), None);
}

#[test]
fn a_run_is_private_and_latest_points_to_the_newest() {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = runs();
    let first = write_run(&runs);
    let second = write_run(&runs);
    assert_ne!(first.id(), second.id());
    let mode = std::fs::metadata(second.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // The directory of runs, the link and the run itself all name the newest.
    for path in [runs.base.clone(), runs.base.join("latest"), second.path().to_owned()] {
        assert_eq!(Archive::open(&path).unwrap().path(), second.path());
    }
}

#[test]
fn a_copied_run_is_where_it_is_now() {
    let runs = runs();
    let run = write_run(&runs);
    let moved = runs.base.join("elsewhere");
    std::fs::rename(run.path(), &moved).unwrap();
    let archive = Archive::open(&moved).unwrap();
    assert_eq!(archive.record().directory, archive.path().as_str());
    assert!(archive.path().ends_with("elsewhere"));
}

#[test]
fn a_killed_run_opens_and_says_what_it_left_out() {
    let runs = runs();
    let run = write_run(&runs);
    run.write_record(&RunRecord { duration_ms: None, ..record() }).unwrap();
    std::fs::remove_file(cell_file(&run, "verdict.json")).unwrap();
    let cells = Archive::open(run.path()).unwrap().cells();
    assert_eq!(cells[0].outcome, Outcome::Error);
    assert_eq!(cells[0].reason.as_deref(), Some("the run ended without a word before it was judged"));
    assert_eq!(cells[1].outcome, Outcome::NotRun);
    assert_eq!(cells[1].reason.as_deref(), Some("the run ended without a word before it was begun"));
}

#[test]
fn missing_pieces_are_reported_one_by_one() {
    let runs = runs();
    let run = write_run(&runs);
    std::fs::remove_file(run.path().join("plan.json")).unwrap();
    std::fs::remove_file(cell_file(&run, "verdict.json")).unwrap();
    let archive = Archive::open(run.path()).unwrap();
    insta::assert_snapshot!(problems(&archive), @r"
    cannot find RUN/plan.json: cells that were not begun do not show
    cannot find RUN/cells/rotation@envoy-1.38.3/verdict.json: the cell was not judged
    ");
    // The timeline alone still says which cell it was.
    assert_eq!(archive.cells()[0].id, passing().id);
    assert_eq!(archive.cells()[0].outcome, Outcome::Error);
}

#[test]
fn hostile_pieces_are_refused_and_the_rest_is_read() {
    let runs = runs();
    let secret = runs.base.join("secret");
    type Spoil = fn(&Utf8Path, &Utf8Path);
    let spoilt: [(&str, Spoil, &str); 6] = [
        ("verdict.json", |at, secret| std::os::unix::fs::symlink(secret, at).unwrap(), "symbolic link"),
        ("timeline.ndjson", |at, secret| std::os::unix::fs::symlink(secret, at).unwrap(), "symbolic link"),
        (
            "timeline.ndjson",
            |at, _| rustix::fs::mkfifoat(rustix::fs::CWD, at.as_str(), 0o600.into()).unwrap(),
            "not a regular file",
        ),
        ("verdict.json", |at, _| std::fs::create_dir(at).unwrap(), "not a regular file"),
        ("verdict.json", |at, _| std::fs::File::create(at).unwrap().set_len(1 << 40).unwrap(), "larger than"),
        ("verdict.json", |at, _| std::fs::write(at, "{\"id\": \"../../etc@x\"}").unwrap(), "verdict.json"),
    ];
    for (name, spoil, expected) in spoilt {
        let run = write_run(&runs);
        std::fs::write(&secret, serde_json::to_vec(&passing()).unwrap()).unwrap();
        let path = cell_file(&run, name);
        std::fs::remove_file(&path).unwrap();
        spoil(&path, &secret);
        let archive = Archive::open(run.path()).unwrap();
        assert!(problems(&archive).contains(expected), "{name}: {}", problems(&archive));
        assert_eq!(archive.cells().len(), 2);
        if name == "timeline.ndjson" {
            assert!(archive.timeline(&passing().id).is_err());
        } else {
            assert_eq!(archive.cells()[0].outcome, Outcome::Error, "{name}");
        }
    }
}

#[test]
fn a_linked_cells_directory_is_not_entered() {
    let runs = runs();
    let run = write_run(&runs);
    let aside = runs.base.join("aside");
    std::fs::rename(run.path().join("cells"), &aside).unwrap();
    std::os::unix::fs::symlink(&aside, run.path().join("cells")).unwrap();
    let archive = Archive::open(run.path()).unwrap();
    assert!(problems(&archive).contains("symbolic link"), "{}", problems(&archive));
    assert!(archive.cells().iter().all(|c| c.outcome == Outcome::NotRun));
}

#[test]
fn a_verdict_of_another_cell_is_not_taken() {
    let runs = runs();
    let run = write_run(&runs);
    let other = run.cell_directory(&passing().id).unwrap();
    other.write_verdict(&not_begun()).unwrap();
    let archive = Archive::open(run.path()).unwrap();
    assert!(problems(&archive).contains("it is the verdict of incident@envoy-1.38.3"));
    assert_eq!(archive.cells()[0].outcome, Outcome::Error);
}

#[test]
fn what_is_no_run_is_said_to_be_none() {
    let runs = runs();
    std::fs::create_dir_all(&runs.base).unwrap();
    assert!(matches!(Archive::open(&runs.base), Err(ArchiveError::NotARun { .. })));
    assert!(matches!(Archive::open(&runs.base.join("absent")), Err(ArchiveError::Io { .. })));
}

#[test]
fn a_cell_has_one_recording() {
    let runs = runs();
    let run = write_run(&runs);
    let error = run.cell_directory(&passing().id).unwrap().create_timeline().unwrap_err();
    assert!(error.to_string().contains("timeline.ndjson"), "{error}");
}

#[test]
fn a_failed_write_names_the_file_and_keeps_the_old_one() {
    let runs = runs();
    let run = write_run(&runs);
    // A directory in the place of the file cannot be replaced by a rename, whoever tries.
    std::fs::remove_file(run.path().join("run.json")).unwrap();
    std::fs::create_dir_all(run.path().join("run.json").join("x")).unwrap();
    let error = run.write_record(&record()).unwrap_err();
    assert!(error.to_string().starts_with("write ") && error.to_string().contains("run.json"), "{error}");
    let left = std::fs::read_dir(run.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".writing-"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_cell_that_makes_no_sense_is_unsupported_and_not_only_not_run() {
    let runs = runs();
    let run = RunDirectory::create(&runs.base).unwrap();
    run.write_record(&record()).unwrap();
    let unsupported = cell("rotation-files", "1.38.3", Role::Conformance, Outcome::Unsupported, true);
    run.write_plan(&[unsupported.clone(), not_begun()]).unwrap();
    let cells = Archive::open(run.path()).unwrap().cells();
    assert_eq!((&cells[0], cells[1].outcome), (&unsupported, Outcome::NotRun));
}

#[test]
fn merged_runs_hold_the_cells_of_each_and_what_neither_began() {
    let runs = runs();
    let first = write_run(&runs);
    let second = RunDirectory::create(&runs.base).unwrap();
    second.write_record(&RunRecord { id: "other".into(), duration_ms: Some(20_000), ..record() }).unwrap();
    let third = cell("never-renews", "1.38.3", Role::Control, Outcome::NotRun, false);
    second.write_plan(std::slice::from_ref(&third)).unwrap();
    let opened = [first.path(), second.path()].map(|path| Archive::open(path).unwrap());
    let (merged, missing) = merge(&opened, &runs.base).unwrap();
    assert_eq!(missing, []);
    let archive = Archive::open(merged.path()).unwrap();
    let outcomes: Vec<_> = archive.cells().into_iter().map(|c| (c.id, c.outcome)).collect();
    let expected = [(passing().id, Outcome::Pass), (not_begun().id, Outcome::NotRun), (third.id, Outcome::NotRun)];
    assert_eq!(outcomes, expected);
    let record = archive.record();
    assert_eq!((record.duration_ms, record.jobs, record.host.cpus), (Some(20_000), 4, 4));
    assert_eq!(record.host.os, "Linux 6.1");
    assert_eq!(
        record.parts.iter().map(|part| part.id.as_str()).collect::<Vec<_>>(),
        [self::record().id, "other".into()]
    );
}

#[test]
fn a_link_in_a_run_that_is_merged_leads_nowhere() {
    let runs = runs();
    let run = write_run(&runs);
    let aside = runs.base.join("aside");
    std::fs::write(&aside, "precious").unwrap();
    std::os::unix::fs::symlink(&aside, cell_file(&run, "link")).unwrap();
    let base = runs.base.join("merged");
    let error = merge(&[Archive::open(run.path()).unwrap()], &base).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0, "nothing half-merged is left");
}

#[test]
fn a_run_that_would_have_ended_after_all_time_is_not_merged() {
    let runs = runs();
    let run = write_run(&runs);
    run.write_record(&RunRecord { duration_ms: Some(1 << 62), ..record() }).unwrap();
    let base = runs.base.join("merged");
    let error = merge(&[Archive::open(run.path()).unwrap()], &base).unwrap_err();
    assert!(error.to_string().contains("after the year 9999"), "{error}");
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0, "nothing half-merged is left");
}

#[test]
fn the_same_program_by_name_must_be_the_same_by_digest() {
    let runs = runs();
    let (first, second) = (write_run(&runs), RunDirectory::create(&runs.base).unwrap());
    let digests = std::collections::BTreeMap::from([("envoy 1.38.3".to_owned(), "cd".repeat(32))]);
    second.write_record(&RunRecord { digests, ..record() }).unwrap();
    second.write_plan(&[]).unwrap();
    let opened = [first.path(), second.path()].map(|path| Archive::open(path).unwrap());
    let error = merge(&opened, &runs.base).unwrap_err();
    assert!(matches!(error, MergeError::DifferentPrograms { .. }), "{error}");
}
