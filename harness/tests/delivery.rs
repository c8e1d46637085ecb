//! What a cell needs outside of its run directory (keys in files, mounts) goes with it, however it ends.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use camino::Utf8PathBuf;
use rustix::process::Signal;
use serde_json::Value;

use place::{Going, Place, until};

/// The long scenario, by other means.
fn long(place: &Place, provider: &str, fleet: &str) -> Utf8PathBuf {
    let text = format!(
        "name: longer\nsummary: It renews, and renews.\nprovider:\n  kind: {provider}\n  ttl: 2m\n  renew_every: 1m\n\
         fleet:\n  contexts: 0\n{fleet}observe:\n  generations_past_first_expiry: 3000\n"
    );
    place.file("longer.yaml", &text)
}

/// Files below the place's temporary directory, as far as they stay while it is looked.
fn below(directory: Utf8PathBuf) -> Vec<Utf8PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory];
    while let Some(directory) = left.pop() {
        for entry in directory.read_dir_utf8().into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path().to_owned()),
                _ => found.push(entry.path().to_owned()),
            }
        }
    }
    found
}

#[test]
fn keys_in_files_are_private_and_gone_however_the_run_ends() {
    for signal in [Signal::KILL, Signal::INT] {
        let place = Place::new();
        let scenario = long(&place, "files", "");
        let going = Going::start(place.rotacheck(&["run", scenario.as_str(), "--envoy", "1.38.3"]));
        place.observes();
        let mode = |path: &Utf8PathBuf| Some(fs::metadata(path).ok()?.permissions().mode() & 0o777);
        let keys = || {
            let files = below(place.tmp());
            let keys = files.iter().filter(|path| path.file_name() == Some("tls.key"));
            keys.filter_map(mode).collect::<Vec<_>>()
        };
        let modes = keys();
        assert!(!modes.is_empty() && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
        going.kill(signal);
        going.ended();
        until("everything to be gone", || place.left().is_empty());
    }
}

/// Whether mounts are allowed here: then a cell runs, else it says why not.
fn mounts_work(place: &Place, scenario: &Utf8PathBuf) -> bool {
    let plan = place.rotacheck(&["plan", scenario.as_str(), "--envoy", "1.38.3"]).output().unwrap();
    assert!(plan.status.success(), "{plan:?}");
    !String::from_utf8_lossy(&plan.stdout).contains("CAP_SYS_ADMIN")
}

#[test]
fn a_mounted_socket_is_seen_by_its_proxy_alone_and_nothing_stays_mounted() {
    let place = Place::new();
    let scenario = long(&place, "fake", "  socket_file_mounted: true\n");
    if !mounts_work(&place, &scenario) {
        place.run(&[scenario.as_str(), "--envoy", "1.38.3"]).with(0, &["unsupported"]);
        return;
    }
    let going = Going::start(place.rotacheck(&["run", scenario.as_str(), "--envoy", "1.38.3"]));
    place.observes();
    let timeline = place.of_the_cell("timeline.ndjson");
    let spawned = timeline.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let envoys = spawned.filter(|line| line["kind"] == "spawned" && line["data"]["what"] == "envoy");
    let mut seen = 0;
    for envoy in envoys {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", envoy["data"]["pid"])).unwrap();
        let socket = format!("/{}.sock ", envoy["proxy"].as_str().unwrap());
        assert_eq!(mounts.matches(&socket).count(), 1, "{mounts}");
        seen += 1;
    }
    assert_eq!(seen, 2);
    let ours = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!ours().contains("/proxy-a.sock "));
    going.kill(Signal::KILL);
    going.ended();
    until("everything to be gone", || place.left().is_empty());
    assert!(!ours().contains("/proxy-a.sock "));
}

#[test]
fn without_the_privilege_to_mount_the_cell_is_unsupported_and_says_why() {
    let place = Place::new();
    let own = place.rotacheck(&["run", "stale-bind-mount", "--envoy", "1.38.3"]);
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"])
        .arg(own.get_program())
        .args(own.get_args());
    own.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(command.env(name, value)),
        None => drop(command.env_remove(name)),
    });
    if let Some(directory) = own.get_current_dir() {
        command.current_dir(directory);
    }
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert_eq!(ended.status.code(), Some(4), "{said}");
    assert!(said.contains("unsupported") && said.contains("CAP_SYS_ADMIN"), "{said}");
    place.nothing_is_left();
}
