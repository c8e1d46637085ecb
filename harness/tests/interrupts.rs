//! A run can be ended at any moment and in any way, and leaves its evidence and nothing else behind.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

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

/// Moments from the very start to the middle of the observation, each at random within its share of the time that this
/// takes on this machine at present.
fn moments() -> impl Iterator<Item = Duration> {
    let place = Place::new();
    let began = Instant::now();
    ended_after(&place, Duration::ZERO, |going| {
        place.observes();
        going.kill(Signal::KILL);
    });
    let share = began.elapsed() * 2 / MOMENTS;
    (0..MOMENTS).map(move |n| {
        let random = u32::try_from(RandomState::new().hash_one(n) % 1000).unwrap();
        share * n + share * random / 1000
    })
}

/// What was recorded can be read, and nothing of it counts as more than it is.
fn evidence_is_kept(place: &Place, run: &Utf8Path, moment: Duration) {
    let report = place.rotacheck(&["judge", run.as_str(), "--report", "json=-"]).output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout)
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
        until("everything to be gone", || place.left().is_empty());
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
        // The guards are gone; an Envoy that was being asked for its version has been killed, and dies about now.
        until("everything to be gone", || place.left().is_empty());
        if let Some(run) = place.latest() {
            evidence_is_kept(&place, &run, moment);
            begun += 1;
        }
    }
    assert!(begun > MOMENTS / 2, "only {begun} were killed within a run");
}

#[test]
fn a_killed_harness_takes_along_the_envoy_that_it_was_asking_for_its_version() {
    let place = Place::new();
    let hangs =
        format!("path={}", place.script("hangs", &format!("echo > {}\nexec sleep 1000", place.root.join("asked"))));
    let going = Going::start(place.rotacheck(&["run", "rotation", "--envoy", &hangs]));
    until("the question", || place.root.join("asked").exists());
    going.kill(Signal::KILL);
    going.ended();
    until("everything to be gone", || place.left().is_empty());
}

#[test]
fn a_second_ctrl_c_kills_what_the_first_one_waits_for() {
    let place = Place::new();
    let mut going = Going::start(place.rotacheck(&["run", place.long_scenario().as_str(), "--envoy", "1.38.3"]));
    place.observes();
    // Now they answer nothing, and collecting what they say takes all the time that it may.
    proxies(&place).values().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    going.kill_group(Signal::INT);
    // Two that come at the same time are one to the kernel.
    going.says("interrupted: collecting");
    going.kill_group(Signal::INT);
    going.ended().with(130, &["1 error"]);
    place.nothing_is_left();
    assert_eq!(place.record().unwrap()["interrupted"], true);
    assert!(place.of_the_cell("verdict.json").contains("it was cut short by a second interrupt"));
    assert!(place.of_the_cell("timeline.ndjson").contains("\"kind\":\"step\""));
}

#[test]
fn ctrl_c_twice_at_any_distance_ends_with_130() {
    for pause in [0, 2, 10, 50] {
        let place = Place::new();
        let going = Going::start(place.rotacheck(&["run", place.long_scenario().as_str(), "--envoy", "1.38.3"]));
        place.observes();
        going.kill_group(Signal::INT);
        std::thread::sleep(Duration::from_millis(pause));
        going.kill_group(Signal::INT);
        going.ended().with(130, &[]);
        place.nothing_is_left();
        assert_eq!(place.record().unwrap()["interrupted"], true);
    }
}

#[test]
fn a_closed_terminal_is_an_interrupt() {
    let place = Place::new();
    let run = format!("{} run {} --envoy 1.38.3", env!("CARGO_BIN_EXE_rotacheck"), place.long_scenario());
    // script(1) gives it a terminal, which is gone when script is.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--command", &run, "/dev/null"]).current_dir(&place.root).env("TMPDIR", place.tmp());
    terminal.stdin(Stdio::null()).stdout(Stdio::null());
    let mut terminal = terminal.spawn().expect("script(1) is there");
    place.observes();
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    until("the end of the run", || place.record().is_some_and(|record| record["duration_ms"].is_u64()));
    assert_eq!(place.record().unwrap()["interrupted"], true);
    assert!(place.of_the_cell("proxies/proxy-a/certs.json").contains("certificates"));
    until("everything to be gone", || place.left().is_empty());
}

#[test]
fn a_guard_that_is_killed_takes_the_cell_along_and_leaves_nothing() {
    let place = Place::new();
    let going = Going::start(place.rotacheck(&["run", place.long_scenario().as_str(), "--envoy", "1.38.3"]));
    place.observes();
    let guard = place.left().into_iter().find(|left| left.contains("__guard")).unwrap();
    let pid = guard.trim_start_matches("/proc/").split(':').next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    going.ended().with(5, &["cannot go on without the guard process"]);
    // The kernel kills them, and nobody is left to wait for it.
    until("everything to be gone", || place.left().is_empty());
    assert!(place.of_the_cell("timeline.ndjson").lines().last().unwrap().contains("\"complete\":false"));
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
        place.observes();
        kill_process(proxies(&place)["proxy-b"], signal).unwrap();
        let ended = going.ended();
        ended.with(5, &[&format!("proxy-b was killed by {name}"), "INCONCLUSIVE"]);
        place.nothing_is_left();
        let timeline = place.of_the_cell("timeline.ndjson");
        assert!(timeline.contains("\"kind\":\"exited\""));
        assert_eq!(ended.stdout.contains("Caught Segmentation fault"), signal == Signal::SEGV, "{}", ended.stdout);
        assert!(timeline.lines().last().unwrap().contains("\"complete\":false"));
        // Whoever lives still was asked.
        assert!(place.of_the_cell("proxies/proxy-a/certs.json").contains("certificates"));
    }
}

fn proxies(place: &Place) -> BTreeMap<String, Pid> {
    let timeline = place.of_the_cell("timeline.ndjson");
    let lines = timeline.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let spawned = lines.filter(|line| line["kind"] == "spawned" && line["data"]["what"] == "envoy");
    spawned
        .map(|line| {
            let pid = i32::try_from(line["data"]["pid"].as_i64().unwrap()).unwrap();
            (line["proxy"].as_str().unwrap().to_owned(), Pid::from_raw(pid).unwrap())
        })
        .collect()
}

#[test]
fn a_provider_takes_its_socket_with_it_whichever_signal_ends_it() {
    let place = Place::new();
    let socket = place.root.join("sds.sock");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut going = Going::start(place.rotacheck(&["provider", "--socket", socket.as_str()]));
        going.says("serving SDS");
        going.kill(signal);
        let ended = going.ended();
        assert_eq!((ended.code, socket.exists()), (Some(0), false), "{signal:?}: {}", ended.stderr);
    }
}
