//! tbot behind the tap: a stand-in with its command line, configuration and log, which issues as a tbot does. The real
//! one needs a Teleport cluster, and is not run here.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use place::{Ended, Going, Place, envoy};
use serde_json::Value;

const TOKEN: &str = "a-join-token-nobody-shall-see";

/// Runs a scenario with the stand-in as this version of tbot, with this fault.
fn run(place: &Place, scenario: &str, version: &str, fault: &str, more: &[&str]) -> Ended {
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tbot/tbot.py");
    let stand_in = place.script("tbot", &format!("exec python3 {stand_in} \"$@\""));
    let envoy = format!("path={}", envoy());
    let tbot = ["--provider", "tbot", "--tbot", stand_in.as_str(), "--envoy", &envoy, "--offline"];
    let mut command = place.rotacheck(&[&["run", scenario], &tbot[..], more].concat());
    command.env("STANDIN_ROTACHECK", env!("CARGO_BIN_EXE_rotacheck"));
    command.env("STANDIN_VERSION", version).env("STANDIN_FAULT", fault);
    // The stand-in finds the token in no variable; rotacheck does in this one.
    if more.contains(&"env=MY_TOKEN") || scenario.ends_with("older.yaml") {
        command.env("MY_TOKEN", TOKEN);
    }
    Going::start(command).ended()
}

const CLUSTER: [&str; 6] =
    ["--tbot-proxy", "teleport.example.com:443", "--tbot-token", "env=MY_TOKEN", "--tbot-identity", "proxies"];

const SHORT: [&str; 4] = ["--ttl", "20s", "--renew-every", "5s"];

fn verdict(place: &Place) -> Value {
    serde_json::from_str(&place.of_the_cell("verdict.json")).unwrap()
}

/// The token is nowhere in the evidence.
fn the_token_is_kept(place: &Place, ended: &Ended) {
    let has = |bytes: &[u8]| bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
    assert!(!has(ended.stdout.as_bytes()) && !has(ended.stderr.as_bytes()));
    let mut directories = vec![place.root.join("rotacheck-runs")];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir_utf8().unwrap() {
            let path: Utf8PathBuf = entry.unwrap().path().to_owned();
            let link = fs::symlink_metadata(&path).unwrap().is_symlink();
            match path.is_dir() {
                _ if link => {}
                true => directories.push(path),
                false => assert!(!has(&fs::read(&path).unwrap()), "{path}"),
            }
        }
    }
}

#[test]
fn a_healthy_tbot_passes_and_what_its_cluster_issued_is_seen() {
    let place = Place::new();
    let ended = run(&place, "rotation", "18.6.4", "", &[&CLUSTER[..], &SHORT].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stderr.contains("is known for"), "{}", ended.stderr);
    let report = verdict(&place);
    assert_eq!(report["subject"]["provider"]["kind"], "tbot");
    assert_eq!(report["subject"]["provider"]["version"], "18.6.4");
    for proxy in report["verdict"]["proxies"].as_array().unwrap() {
        // There is a certificate for each stream, also for those of the bundle: only its own are its generations.
        let count = |key: &str| proxy[key].as_u64().unwrap();
        assert_eq!(count("generations_issued"), count("generations_served"), "{proxy:#}");
    }
    let timeline = place.of_the_cell("timeline.ndjson");
    let second_look = timeline.lines().find(|line| line.contains("\"rpc\":\"workload_svid\"")).unwrap();
    let second_look: Value = serde_json::from_str(second_look).unwrap();
    let stream = format!("\"stream\":{},", second_look["data"]["stream"]);
    let answered = |line: &&str| line.contains("\"kind\":\"sent\"") && line.contains(&stream);
    assert!(timeline.lines().find(answered).unwrap().contains("spiffe://example.teleport.sh/workload"));
    assert!(place.of_the_cell("tbot.log").contains("Issued Workload Identity Credential"));
    the_token_is_kept(&place, &ended);
    place.nothing_is_left();
}

#[test]
fn a_tbot_with_the_known_bug_is_told_before_and_found() {
    let place = Place::new();
    let ended = run(&place, "rotation", "18.6.3", "resend-cached@1", &[&CLUSTER[..], &SHORT].concat());
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("tbot 18.6.3 is known for resend-cached"), "{}", ended.stderr);
    let report = verdict(&place);
    assert_eq!(
        (&report["verdict"]["layer"], &report["verdict"]["diagnosis"]),
        (&"issued".into(), &"resend-cached".into())
    );
    place.nothing_is_left();
}

#[test]
fn an_older_service_is_a_scenario_of_its_own() {
    let place = Place::new();
    let text = "name: older\nsummary: An older tbot renews.\nprovider:\n  kind: tbot\n  ttl: 20s\n  renew_every: 5s\n  \
                tbot:\n    proxy: teleport.example.com:443\n    token: { env: MY_TOKEN }\n    svid_path: /workload\n\
                clock: real\n";
    let scenario = place.file("older.yaml", text);
    let ended = run(&place, scenario.as_str(), "17.7.14", "", &[]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(place.of_the_cell("timeline.ndjson").contains("\"kind\":\"signed\""));
    place.nothing_is_left();
}

#[test]
fn a_tbot_that_cannot_join_is_told_with_its_log() {
    let place = Place::new();
    let wrong: Utf8PathBuf = place.file("token", "another-token\n");
    let token = format!("file={wrong}");
    let cluster = [&CLUSTER[..2], &["--tbot-token", &token], &CLUSTER[4..]].concat();
    let ended = run(&place, "rotation", "18.6.4", "", &cluster);
    assert_eq!(ended.code, Some(5), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("tbot exited with code 1 before "), "{}", ended.stdout);
    assert!(place.of_the_cell("tbot.log").contains("the token is not valid"));
    place.nothing_is_left();

    let unset = [&CLUSTER[..2], &["--tbot-token", "env=NO_SUCH_TOKEN"], &CLUSTER[4..]].concat();
    let ended = run(&place, "rotation", "18.6.4", "", &unset);
    assert_eq!(ended.code, Some(5), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("join token can't be read from $NO_SUCH_TOKEN"), "{}", ended.stdout);
    place.nothing_is_left();
}

#[test]
fn what_a_tbot_needs_and_is_not_given_is_said() {
    let place = Place::new();
    let ended = run(&place, "rotation", "18.6.4", "", &[]);
    assert_eq!(ended.code, Some(3), "{}{}", ended.stdout, ended.stderr);
    for needed in ["--tbot-proxy", "--tbot-token", "--tbot-identity"] {
        assert!(ended.stderr.contains(needed), "{}", ended.stderr);
    }
    // One who gives the token itself is not answered with it twice.
    let given = run(&place, "rotation", "18.6.4", "", &["--tbot-token", "file="]);
    assert_eq!(given.code, Some(2), "{}", given.stderr);
    assert!(Utf8Path::new(&place.root).join("rotacheck-runs").read_dir_utf8().is_err(), "nothing was begun");
}
