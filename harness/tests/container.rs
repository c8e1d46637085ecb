//! Proxies in real containers. Docker is needed: this is run by its name, `cargo test --test container -- --ignored`.
//! ROTACHECK_TEST_ENVOY_IMAGE names another image than that of Envoy's makers.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::process::Command;

use place::{Going, Place, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn image() -> String {
    std::env::var("ROTACHECK_TEST_ENVOY_IMAGE").unwrap_or_else(|_| "envoyproxy/envoy:v1.38.3".to_owned())
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn run(place: &Place, args: &[&str]) -> Going {
    let envoy = format!("image={}", image());
    Going::start(place.rotacheck(&[&["run", "--topology", "container", "--envoy", &envoy], args].concat()))
}

/// The containers of a harness, by its process.
fn containers(of: Pid) -> Vec<String> {
    let of = format!("rotacheck-{}-", of.as_raw_nonzero());
    let format = "{{.Names}} {{.Label \"rotacheck.dev/run\"}}";
    let listed = docker(&["ps", "--all", "--filter", "label=rotacheck.dev/run", "--format", format]);
    let ours = listed.lines().filter(|line| line.starts_with(&of));
    ours.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs Docker and an image"]
fn a_rotation_passes_the_incident_is_caught_at_issued_and_nothing_is_left() {
    let place = Place::new();
    let going = run(&place, &["rotation", "incident", "stale-bind-mount", "--report", "json=report.json"]);
    let pid = going.pid();
    going.ended().with(0, &["rotation", "incident"]);
    assert_eq!(containers(pid), [""; 0]);
    place.nothing_is_left();

    let report: Value = serde_json::from_slice(&std::fs::read(place.root.join("report.json")).unwrap()).unwrap();
    let cell = |name: &str| {
        let cells = report["cells"].as_array().unwrap();
        cells.iter().find(|cell| cell["scenario"] == name).unwrap().clone()
    };
    assert_eq!(cell("rotation")["verdict"], "pass");
    assert_eq!(
        (&cell("incident")["layer"], &cell("incident")["diagnosis"]),
        (&"issued".into(), &"resend-cached".into())
    );
    // The socket file alone was mounted.
    assert_eq!(cell("stale-bind-mount")["diagnosis"], "stale-bind-mount");
    assert_eq!(cell("rotation")["clock"], "virtual");
    // What was run is what its image says.
    let said =
        docker(&["run", "--rm", "--network", "none", "--entrypoint", "/usr/local/bin/envoy", &image(), "--version"]);
    let version = cell("rotation")["subject"]["envoy"]["version"].as_str().unwrap().to_owned();
    assert!(said.contains(&format!("/{version}/")), "{said}: {version}");
    let digests = place.record().unwrap()["digests"].clone();
    let (name, digest) = digests.as_object().unwrap().iter().next().unwrap();
    assert!(name.starts_with("image ") && name.ends_with(&image()), "{digests}");
    let known = docker(&["image", "inspect", "--format", "{{.Id}} {{.RepoDigests}}", &image()]);
    assert!(known.contains(digest.as_str().unwrap()), "{digests}: {known}");
}

#[test]
#[ignore = "needs Docker and an image"]
fn ctrl_c_and_a_killed_harness_leave_no_container() {
    for (end, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let place = Place::new();
        let going = run(&place, &[place.long_scenario().as_str()]);
        place.observes();
        let pid = going.pid();
        assert_eq!(containers(pid).len(), 2);
        going.kill_group(end);
        // The guard has ended when this has.
        assert_eq!(going.ended().code, code);
        assert_eq!(containers(pid), [""; 0]);
        until("everything to be gone", || place.left().is_empty());
    }
}

#[test]
#[ignore = "needs Docker and an image"]
fn what_a_harness_leaves_that_was_killed_with_its_guard_is_swept() {
    let place = Place::new();
    let going = run(&place, &[place.long_scenario().as_str()]);
    place.observes();
    let pid = going.pid();
    let sweep = |args: &[&str]| place.rotacheck(&[&["sweep"], args].concat()).output().unwrap();
    let told = |args: &[&str]| String::from_utf8(sweep(args).stdout).unwrap();
    // As long as it runs, its containers are nobody else's affair.
    assert!(!told(&["--yes"]).contains(&format!("rotacheck-{}-", pid.as_raw_nonzero())));
    assert_eq!(containers(pid).len(), 2);
    // The harness can't act on the end of its guard.
    going.kill(Signal::STOP);
    let is_guard = |process: &procfs::process::Process| {
        process.stat().is_ok_and(|stat| stat.ppid == pid.as_raw_nonzero().get())
            && process.cmdline().is_ok_and(|words| words.iter().any(|word| word == "__guard"))
    };
    for guard in procfs::process::all_processes().unwrap().flatten().filter(is_guard) {
        kill_process(Pid::from_raw(guard.pid).unwrap(), Signal::KILL).unwrap();
    }
    going.kill(Signal::KILL);
    assert_eq!(going.ended().signal, Some(9));
    let left = containers(pid);
    assert_eq!(left.len(), 2);
    let listed = told(&[]);
    for name in &left {
        assert!(listed.contains(&format!("container {name}\n")), "{name}: {listed}");
    }
    assert_eq!(containers(pid), left);
    let swept = told(&["--yes"]);
    assert!(left.iter().all(|name| swept.contains(&format!("deleted the container {name}\n"))), "{swept}");
    assert_eq!(containers(pid), [""; 0]);
}

#[test]
#[ignore = "needs Docker and an image"]
fn a_container_that_ends_at_once_is_told_with_its_last_words() {
    let place = Place::new();
    // An Envoy that says its version, and then only that it has no luck.
    let binary = place.root.join("image/envoy");
    std::fs::create_dir(place.root.join("image")).unwrap();
    let script = place.script("envoy", &format!("{}\necho out of luck\nexit 7", place::VERSION));
    std::fs::copy(script, &binary).unwrap();
    place.file("image/Dockerfile", &format!("FROM {}\nCOPY envoy /usr/local/bin/envoy\n", image()));
    let tag = format!("rotacheck-test:{}", std::process::id());
    docker(&["build", "--quiet", "--tag", &tag, place.root.join("image").as_str()]);
    let envoy = format!("image={tag}");
    let going = Going::start(place.rotacheck(&["run", "rotation", "--topology", "container", "--envoy", &envoy]));
    let pid = going.pid();
    let ended = going.ended();
    docker(&["image", "rm", &tag]);
    ended.with(5, &["exited with code 7", "out of luck"]);
    assert_eq!(containers(pid), [""; 0]);
    place.nothing_is_left();
}

#[test]
#[ignore = "needs Docker"]
fn what_is_missing_is_said_before_anything_is_made() {
    let place = Place::new();
    let run = |args: &[&str], name: &str, value: &str| {
        let mut command = place.rotacheck(&[&["run", "rotation", "--topology", "container"], args].concat());
        Going::start(match name {
            "" => command,
            name => {
                command.env(name, value);
                command
            }
        })
        .ended()
    };
    run(&["--envoy", "1.38.3"], "PATH", "").with(5, &["docker can't be started", "has to be on the PATH"]);
    run(&["--envoy", "1.38.3"], "DOCKER_HOST", "unix:///nowhere.sock").with(5, &["is Docker running"]);
    let nowhere = "image=registry.invalid/envoy:v1";
    run(&["--envoy", nowhere, "--offline"], "", "").with(5, &["cannot find the image registry.invalid/envoy:v1"]);
    run(&["--envoy", nowhere], "", "").with(5, &["cannot pull registry.invalid/envoy:v1", "has to work here"]);
    run(&["--envoy", "path=/bin/sh"], "", "").with(2, &["in a container, an Envoy comes in an image"]);
    assert!(place.latest().is_none());
}
