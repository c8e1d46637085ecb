//! A run can be ended at any moment and in any way, and leaves its evidence and nothing else behind.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::fs;
use std::time::Duration;

use camino::Utf8Path;
use rustix::process::Signal;

use place::{Ended, Going, Place, until};

/// Moments at which each kind of end is tried.
const MOMENTS: u32 = 8;

/// A run of two cells at a time, of which the second is in the middle of its renewals when it is ended `after` so long.
fn ended_after(place: &Place, after: Duration, end: impl FnOnce(&Going)) -> Ended {
    let long = place.long_scenario();
    let command = place.rotacheck(&["run", "rotation", long.as_str(), "--envoy", "1.38.3", "--jobs", "2"]);
    let going = Going::start(command);
    std::thread::sleep(after);
    end(&going);
    going.ended()
}

/// Moments from the very start to the middle of the observation, each at random within its share.
fn moments() -> impl Iterator<Item = Duration> {
    use std::hash::{BuildHasher as _, RandomState};
    (0..MOMENTS).map(|n| {
        let random = RandomState::new().hash_one(n) % 1000;
        Duration::from_micros(u64::from(n) * 200_000 + random * 200)
    })
}

/// What was recorded can be read, and nothing of it counts as more than it is.
fn evidence_is_kept(place: &Place, run: &Utf8Path, moment: Duration) {
    let report = place.rotacheck(&["judge", run.as_str(), "--report", "json=-"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout)
        .unwrap_or_else(|e| panic!("{moment:?}: {e}: {}", String::from_utf8_lossy(&report.stderr)));
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 2);
    let long = cells.iter().find(|cell| cell["scenario"] == "long").unwrap();
    let verdict = long["verdict"].as_str().unwrap();
    assert!(["inconclusive", "error", "not_run"].contains(&verdict), "{moment:?}: {long:#}");
}

#[test]
fn ctrl_c_at_any_moment_ends_with_130_and_a_run_that_says_so() {
    let mut interrupted = 0;
    for moment in moments() {
        let place = Place::new();
        let ended = ended_after(&place, moment, |going| going.kill_group(Signal::INT));
        place.nothing_is_left();
        // Before it can listen to signals, the signal itself ends it: to the shell that is 130 as well.
        assert!(ended.code == Some(130) || ended.signal == Some(2), "{moment:?}: {:?} {}", ended.code, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{moment:?}: {}", ended.stderr);
        if let Some(run) = place.latest() {
            let record = place.record().unwrap();
            assert_eq!(record["interrupted"], true, "{moment:?}");
            assert!(record["duration_ms"].is_u64(), "{moment:?}");
            evidence_is_kept(&place, &run, moment);
            interrupted += 1;
        }
    }
    assert!(interrupted > MOMENTS / 2, "only {interrupted} were interrupted within a run");
}

#[test]
fn a_killed_harness_leaves_neither_process_nor_scratch_at_any_moment() {
    let mut begun = 0;
    for moment in moments() {
        let place = Place::new();
        let ended = ended_after(&place, moment, |going| going.kill(Signal::KILL));
        assert_eq!(ended.signal, Some(9));
        place.nothing_is_left();
        if let Some(run) = place.latest() {
            evidence_is_kept(&place, &run, moment);
            begun += 1;
        }
    }
    assert!(begun > MOMENTS / 2, "only {begun} were killed within a run");
}

#[test]
fn a_second_ctrl_c_kills_at_once_and_still_keeps_the_run() {
    for pause in [0, 1, 5, 20] {
        let place = Place::new();
        let mut going = Going::start(place.rotacheck(&["run", place.long_scenario().as_str(), "--envoy", "1.38.3"]));
        observing(&place);
        going.kill_group(Signal::INT);
        // Two that come at the same time are one to the kernel.
        going.says("interrupted");
        std::thread::sleep(Duration::from_millis(pause));
        going.kill_group(Signal::INT);
        going.ended().with(130, &[]);
        place.nothing_is_left();
        let record = place.record().unwrap();
        assert_eq!(record["interrupted"], true);
        assert!(place.of_the_cell("timeline.ndjson").contains("\"kind\":\"step\""));
    }
}

#[test]
fn a_closed_terminal_is_an_interrupt() {
    let place = Place::new();
    let mut command = place.rotacheck(&["run", place.long_scenario().as_str(), "--envoy", "1.38.3"]);
    // Nobody reads any more, as with a terminal that is gone.
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer);
    let going = Going::start(command);
    observing(&place);
    drop(reader);
    going.kill_group(Signal::HUP);
    going.ended().with(130, &[]);
    place.nothing_is_left();
    assert_eq!(place.record().unwrap()["interrupted"], true);
}

/// The proxies' secrets have come and time is being moved.
fn observing(place: &Place) {
    until("a step of the observation", || {
        let Some(run) = place.latest() else { return false };
        let Ok(mut cells) = run.join("cells").read_dir_utf8() else { return false };
        cells.any(|cell| {
            let timeline = fs::read_to_string(cell.unwrap().path().join("timeline.ndjson"));
            timeline.is_ok_and(|text| text.contains("\"kind\":\"step\""))
        })
    });
}

#[test]
fn ctrl_c_lets_go_of_a_kept_cell_and_the_run_goes_on() {
    let place = Place::new();
    let command = place.rotacheck(&["run", "rotation", "never-renews", "--envoy", "1.38.3", "--keep"]);
    let mut going = Going::start(command);
    for _ in 0..2 {
        going.says("proxy-a is kept: admin http://");
        going.says("Ctrl-C goes on");
        assert!(!place.left().is_empty(), "the processes live on");
        going.kill_group(Signal::INT);
    }
    going.ended().with(0, &["1 pass", "1 caught"]);
    place.nothing_is_left();
    assert_eq!(place.record().unwrap()["interrupted"], false);
}

#[test]
fn a_kept_cell_ends_with_the_run_that_is_terminated() {
    let place = Place::new();
    let mut going = Going::start(place.rotacheck(&["run", "rotation", "never-renews", "--envoy", "1.38.3", "--keep"]));
    going.says("Ctrl-C goes on");
    going.kill(Signal::TERM);
    going.ended().with(130, &["1 pass", "1 not run"]);
    place.nothing_is_left();
}

#[test]
fn proxies_that_are_killed_from_outside_are_reported_at_once() {
    for (signal, name) in [(Signal::SEGV, "SIGSEGV"), (Signal::KILL, "SIGKILL")] {
        let place = Place::new();
        let going = Going::start(place.rotacheck(&["run", place.long_scenario().as_str(), "--envoy", "1.38.3"]));
        observing(&place);
        let proxy = proxy_b(&place);
        rustix::process::kill_process(rustix::process::Pid::from_raw(proxy).unwrap(), signal).unwrap();
        let ended = going.ended();
        ended.with(5, &[&format!("proxy-b was killed by {name}"), "INCONCLUSIVE"]);
        place.nothing_is_left();
        let timeline = place.of_the_cell("timeline.ndjson");
        assert!(timeline.contains("\"kind\":\"exited\""));
        assert!(timeline.lines().last().unwrap().contains("\"complete\":false"));
        // Whoever lives still was asked.
        assert!(place.of_the_cell("proxies/proxy-a/certs.json").contains("certificates"));
    }
}

fn proxy_b(place: &Place) -> i32 {
    let timeline = place.of_the_cell("timeline.ndjson");
    let spawned = timeline.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let spawned = spawned.filter(|line| line["kind"] == "spawned" && line["proxy"] == "proxy-b");
    let pid = spawned.map(|line| line["data"]["pid"].as_i64().unwrap()).next().unwrap();
    i32::try_from(pid).unwrap()
}
