//! Real SPIRE and real Istio, and the matrix of both. Their programs take a quarter of an hour to build, so these are run by
//! their name: `rotacheck fetch --matrix`, then `cargo test --test real -- --ignored`. They wait for certificates to expire, most
//! of the time.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use place::{Ended, Going, Place, envoy};
use rustix::process::Signal;
use serde_json::Value;

const SPIRE: [&str; 4] = ["--provider", "spire", "--spire", "1.13.3"];

fn on_spire(place: &Place, scenarios: &[&str]) -> Going {
    let envoy = format!("path={}", envoy());
    let on = ["--offline", "--jobs", "3", "--envoy", &envoy];
    Going::start(place.rotacheck(&[&["run"], scenarios, &SPIRE, &on].concat()))
}

#[test]
#[ignore = "needs SPIRE's programs: rotacheck fetch --spire 1.13.3"]
fn spire_rotates_and_what_befalls_it_is_found() {
    let place = Place::new();
    let ended = on_spire(&place, &["rotation", "incident", "spire-*"]).ended();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    place.nothing_is_left();
    let cells: Vec<Utf8PathBuf> = place
        .latest()
        .unwrap()
        .join("cells")
        .read_dir_utf8()
        .unwrap()
        .map(|cell| cell.unwrap().path().to_owned())
        .collect();
    assert_eq!(cells.len(), 11);
    for cell in cells {
        // Its keys were on disk while the cell lived.
        for log in ["spire-server.log", "spire-agent.log"] {
            let said = fs::read_to_string(cell.join(log)).unwrap();
            assert!(!said.is_empty() && !said.contains("PRIVATE KEY"), "{cell}/{log}");
            // An agent that joined by a token is named by it.
            let named = said.split("/join_token/").skip(1).all(|rest| rest.starts_with("(join token)"));
            assert!(named, "{cell}/{log}");
        }
        let timeline = fs::read_to_string(cell.join("timeline.ndjson")).unwrap();
        assert!(timeline.contains("\"kind\":\"signed\""), "{cell}");
        // Another client, by another API, was asked at the end; of an agent that was gone it got nothing.
        assert!(timeline.contains("\"rpc\":\"workload_svid\""), "{cell}");
    }
}

#[test]
#[ignore = "needs SPIRE's programs: rotacheck fetch --spire 1.13.3"]
fn a_harness_that_is_killed_leaves_no_spire_behind() {
    let place = Place::new();
    let going = on_spire(&place, &["rotation"]);
    place.observes();
    assert!(place.left().iter().any(|what| what.contains("spire-server")));
    going.kill(Signal::KILL);
    assert_eq!(going.ended().signal, Some(9));
    place.nothing_is_left();
}

/// Where a program of this version was built.
fn built(component: &str, version: &str, program: &str) -> Utf8PathBuf {
    let mut fetch = std::process::Command::new(env!("CARGO_BIN_EXE_rotacheck"));
    let fetched = fetch.args(["fetch", component, version]).output().unwrap();
    let lines = String::from_utf8(fetched.stdout).unwrap();
    let path = lines.lines().filter_map(|line| line.split('\t').next_back()).find(|path| path.ends_with(program));
    path.unwrap_or_else(|| panic!("{lines}{}", String::from_utf8_lossy(&fetched.stderr))).into()
}

/// The real program, which does something else first. What Go wrote into it about its making goes along, since a program
/// is known by that.
fn changed(real: &Utf8Path, into: &Utf8Path, first: &str) {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    let bytes = fs::read(real).unwrap();
    let mut script = format!("#!/bin/sh\n{first}\nexec {real} \"$@\"\n").into_bytes();
    let made = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    for (at, _) in made {
        script.extend(&bytes[at..bytes.len().min(at + (256 << 10))]);
    }
    fs::create_dir_all(into).unwrap();
    let path = into.join(real.file_name().unwrap());
    fs::write(&path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn linked(real: &Utf8Path, into: &Utf8Path) {
    fs::create_dir_all(into).unwrap();
    std::os::unix::fs::symlink(real, into.join(real.file_name().unwrap())).unwrap();
}

/// An error that is told, with evidence, and nothing left.
#[track_caller]
fn told(place: &Place, ended: &Ended, said: &[&str], log: (&str, &str)) {
    ended.with(5, said);
    let (log, words) = log;
    assert!(place.of_the_cell(log).contains(words), "{}", place.of_the_cell(log));
    place.nothing_is_left();
}

#[test]
#[ignore = "needs SPIRE's programs: rotacheck fetch --spire 1.13.3"]
fn a_spire_that_refuses_its_agent_is_told_with_the_agents_log() {
    let place = Place::new();
    let programs = place.root.join("spire");
    linked(&built("--spire", "1.13.3", "spire-server"), &programs);
    let wrong_token = r#"[ "$1" = run ] && sed -i 's/join_token = .*/join_token = "none"/' "$3""#;
    changed(&built("--spire", "1.13.3", "spire-agent"), &programs, wrong_token);
    let (envoy, path) = (format!("path={}", envoy()), format!("path={programs}"));
    let ended = place.run(&["spire-agent-joined-once", "--spire", &path, "--envoy", &envoy, "--offline"]);
    told(
        &place,
        &ended,
        &["SPIRE's agent exited with code 1 before ", "/spire-agent.log"],
        ("spire-agent.log", "join token does not exist"),
    );
}

/// Runs with Istio's programs, of which one does something else.
fn on_changed_istio(place: &Place, program: &str, first: &str) -> Ended {
    const ISTIO: &str = "1.31-dev.20260827";
    let programs = place.root.join("istio");
    for name in ["pilot-agent", "pilot-discovery"] {
        let real = built("--istio", ISTIO, name);
        match name == program {
            true => changed(&real, &programs, first),
            false => linked(&real, &programs),
        }
    }
    linked(&built("--istio", ISTIO, "pilot-agent").with_file_name("envoy_bootstrap.json"), &programs);
    let (envoy, path) = (format!("path={}", envoy()), format!("path={programs}"));
    place.run(&["rotation", "--topology", "agent", "--istio", &path, "--envoy", &envoy, "--offline"])
}

#[test]
#[ignore = "needs Istio's programs: rotacheck fetch --istio 1.31-dev.20260827"]
fn an_istiod_that_panics_is_told_with_its_last_words() {
    let place = Place::new();
    let panics = r#"[ "$1" = discovery ] && { echo 'panic: runtime error: index out of range' >&2; exit 2; }"#;
    let ended = on_changed_istio(&place, "pilot-discovery", panics);
    let said = ["istiod exited with code 2 before it served", "panic: runtime error: index out of range"];
    told(&place, &ended, &said, ("istiod.log", "panic: runtime error"));
}

#[test]
#[ignore = "needs Istio's programs: rotacheck fetch --istio 1.31-dev.20260827"]
fn an_istiod_whose_port_is_taken_is_told_with_what_has_it() {
    let place = Place::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    // As if somebody had been faster.
    let another = format!(
        r#"for word do shift; case "$word" in --grpcAddr=*) word=--grpcAddr={};; esac; set -- "$@" "$word"; done"#,
        held.local_addr().unwrap()
    );
    let ended = on_changed_istio(&place, "pilot-discovery", &another);
    drop(held);
    let said = ["istiod exited with code", "address already in use", "another process has the port"];
    told(&place, &ended, &said, ("istiod.log", "address already in use"));
}

#[test]
#[ignore = "needs Istio's programs: rotacheck fetch --istio 1.31-dev.20260827"]
fn an_istio_agent_that_exits_is_told_with_its_log() {
    let place = Place::new();
    let exits = r#"[ "$1" = proxy ] && { echo 'error: no such mesh' >&2; exit 1; }"#;
    let ended = on_changed_istio(&place, "pilot-agent", exits);
    told(&place, &ended, &["error: no such mesh"], ("proxies/proxy-a/agent.log", "no such mesh"));
}

#[test]
#[ignore = "needs the programs of Istio and SPIRE: rotacheck fetch --matrix"]
fn what_befalls_istiod_and_its_authority_is_found() {
    let place = Place::new();
    let run = ["istio-ca-*", "istiod-*", "--envoy", "1.38.3", "--offline"];
    place.run(&run).with(0, &[]);
    place.nothing_is_left();
}

/// Envoys with and without two Istios, every provider.
#[test]
#[ignore = "needs the programs of Istio and SPIRE: rotacheck fetch --matrix"]
fn the_matrix_of_agents_is_as_expected_and_tells_what_differs() {
    let place = Place::new();
    let report = place.root.join("report.json");
    let to = format!("json={report}");
    let on = ["--envoy", "1.36.4", "--envoy", "1.40.0", "--offline", "--report", &to];
    let run = place.rotacheck(&[&["run", "--topology", "agent"], &on[..]].concat()).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    place.nothing_is_left();
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let subject = |cell: &Value| {
        (text(&cell["scenario"]), text(&cell["subject"]["istio"]["name"]), text(&cell["subject"]["provider"]["kind"]))
    };
    let subjects: BTreeSet<_> = cells.iter().map(subject).collect();
    for istio in ["none", "1.31-dev.20260423", "1.31-dev.20260827"] {
        for provider in ["fake", "istio-ca", "spire"] {
            assert!(subjects.contains(&("rotation".into(), istio.into(), provider.into())), "{istio} {provider}");
        }
    }
    let unsupported: BTreeSet<_> = cells.iter().filter(|c| c["verdict"] == "unsupported").map(subject).collect();
    assert_eq!(unsupported, BTreeSet::from([("rotation".into(), "none".into(), "istio-ca".into())]));
    for incident in cells.iter().filter(|cell| cell["scenario"] == "agent-incident") {
        assert_eq!((&incident["layer"], &incident["diagnosis"]), (&"issued".into(), &"resend-cached".into()));
        let disclosed = incident["disclosed"].as_array().unwrap();
        assert!(disclosed.iter().any(|d| d["name"] == "off-pair"), "{incident}");
    }
    let differs = |d: &Value| {
        d["scenario"] == "agent-incident"
            && text(&d["claim"]).starts_with("config_dump: default was last updated")
            && d["claimed_on"] == serde_json::json!(["Envoy 1.36.4"])
    };
    assert!(report["differences"].as_array().unwrap().iter().any(differs), "{}", report["differences"]);
}
