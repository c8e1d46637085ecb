//! Providers that are not ours: a small SDS server in Python, whose faults are its own, judged from tap and probes alone.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use place::{Ended, Going, Place, envoy, until};
use serde_json::Value;

/// Ordinary packages, beside which the server needs nothing.
const PACKAGES: [&str; 2] = ["grpcio", "cryptography"];

/// What must be found: exit code, verdict, layer, and the modes that fit.
type Expected = (i32, &'static str, Option<&'static str>, &'static [&'static str]);

const PASS: Expected = (0, "pass", None, &[]);

/// The server's faults.
const FAULTS: [(&str, Expected); 21] = [
    ("none", PASS),
    ("never-renews", (1, "fail", None, &["never-renews", "issues-never-pushes"])),
    ("resends", (1, "fail", None, &["resend-cached", "resend-stale"])),
    ("wrong-key", (1, "fail", Some("acked"), &["nack-key-mismatch"])),
    ("garbage-der", (1, "fail", Some("acked"), &["nack-bad-pem"])),
    ("wrong-name", (1, "fail", Some("sent"), &["wrong-name"])),
    ("empty", (1, "fail", Some("sent"), &["empty-response"])),
    ("wrong-type-url", (1, "fail", Some("sent"), &["wrong-type-url"])),
    ("wrong-identity", (1, "fail", Some("issued"), &["wrong-identity"])),
    ("expired", (1, "fail", Some("issued"), &["expired-on-arrival"])),
    ("closes-once", PASS),
    ("refuses", (1, "fail", Some("sent"), &["stream-refused"])),
    ("no-bundle", (1, "fail", Some("sent"), &["never-arrives"])),
    ("freezes", (1, "fail", Some("sent"), &["provider-frozen"])),
    ("dies", (1, "fail", Some("sent"), &["socket-gone"])),
    ("ten-megabytes", PASS),
    // No mode is known by it, and none is named.
    ("wrong-protobuf", (1, "fail", Some("sent"), &[])),
    // Envoy's refusal quotes the whole secret, with its key. No mode is known by either.
    ("other-resource", (1, "fail", Some("acked"), &[])),
    ("stray-byte", (1, "fail", Some("acked"), &[])),
    ("replaced", PASS),
    ("unlinked", PASS),
];

/// What is done with the frames themselves.
const RAW_FAULTS: [(&str, Expected); 7] = [
    ("none", PASS),
    ("hangs", (1, "fail", Some("sent"), &["never-arrives"])),
    ("silent", (1, "fail", Some("sent"), &["never-arrives"])),
    ("half", PASS),
    ("half-hangs", (1, "fail", Some("sent"), &[])),
    ("half-dies", (1, "fail", Some("sent"), &["socket-gone"])),
    // Nobody can tell what was in the responses that were not kept.
    ("floods", (5, "inconclusive", None, &[])),
];

/// A machine too slow for a flood keeps all of it: then it can be told.
const FLOOD_KEPT: Expected = (1, "fail", None, &["resend-cached", "resend-stale"]);

/// What the report must say beside the verdict.
const NOTED: [(&str, &str); 9] = [
    ("closes-once", "stream-closed-once"),
    ("replaced", "socket-replaced"),
    ("unlinked", "socket-unlinked-alive"),
    ("other-resource", "a private key was left out"),
    ("stray-byte", "a private key was left out"),
    ("half", "in the middle of a response"),
    ("half-hangs", "did not end it"),
    ("floods", "more than 20000 facts"),
    ("wrong-protobuf", "no DiscoveryResponse"),
];

/// Of the harness itself, whatever a provider does, MiB.
const MOST_MEMORY: u64 = 160;

/// The server, until it is dropped.
struct Server {
    child: Child,
    _stdin: ChildStdin,
    socket: Utf8PathBuf,
}

impl Server {
    fn start(place: &Place, script: &str, fault: &str) -> Self {
        let socket = place.root.join("provider.sock");
        let mut child = Command::new("python3")
            .arg(Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/external").join(script))
            .args([socket.as_str(), "--ttl", "8", "--every", "4", "--fault", fault])
            .env("PYTHONPATH", packages())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "serving\n");
        let stdin = child.stdin.take().unwrap();
        Self { child, _stdin: stdin, socket }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also where it has frozen itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the packages are; installed there once.
fn packages() -> &'static Utf8Path {
    static DIRECTORY: OnceLock<Utf8PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).join("sds-python");
        let complete = directory.join("complete");
        if !complete.exists() {
            let pip = Command::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target", directory.as_str()])
                .args(PACKAGES)
                .output()
                .unwrap();
            assert!(pip.status.success(), "pip: {}", String::from_utf8_lossy(&pip.stderr));
            fs::write(&complete, "").unwrap();
        }
        directory
    })
}

/// `rotacheck run rotation` against the socket, and the cell as its JSON report shows it.
fn judged(place: &Place, socket: &Utf8Path, more: &[&str]) -> (Ended, Value) {
    let envoy = format!("path={}", envoy());
    let report = format!("json={}/report.json", place.root);
    let fixed = [
        "rotation",
        "--provider",
        "external",
        "--proxies",
        "1",
        "--socket",
        socket.as_str(),
        "--envoy",
        &envoy,
        "--report",
        &report,
    ];
    let going = Going::start(place.rotacheck(&[&["run"], &fixed[..], more].concat()));
    let peak = going.peak_memory();
    let ended = going.ended();
    let peak = peak.join().unwrap();
    assert!(peak < MOST_MEMORY, "{peak} MiB at its peak\n{}", ended.stdout);
    let report: Value = serde_json::from_slice(&fs::read(place.root.join("report.json")).unwrap()).unwrap();
    (ended, report["cells"][0].clone())
}

/// Files below, and whether what was said too, that have a key of the server's, however its lines are broken.
fn with_keys(root: &Utf8Path, said: &[u8]) -> Vec<String> {
    let has_key = |bytes: &[u8]| bytes.windows(11).any(|window| window == b"PRIVATE KEY");
    let mut found = Vec::from_iter(has_key(said).then(|| "the terminal".to_owned()));
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path()) {
            if entry.is_dir() && !entry.is_symlink() {
                directories.push(entry);
            } else if entry.is_file() && has_key(&fs::read(&entry).unwrap()) {
                found.push(entry.to_string());
            }
        }
    }
    found
}

fn found(ended: &Ended, cell: &Value) -> (i32, String, Option<String>, Vec<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let candidates = cell["candidates"].as_array().unwrap().iter().map(|c| text(&c["mode"]).unwrap());
    (ended.code.unwrap(), text(&cell["verdict"]).unwrap(), text(&cell["layer"]), candidates.collect())
}

/// Cells at a time: a machine on which twenty Envoys, harnesses and providers start at once is not what is tested.
const AT_A_TIME: usize = 10;

/// One server's faults after the other's: a flood is only one where it has a processor.
static GATE: Mutex<()> = Mutex::new(());

/// Judges all faults of a server; what was judged wrong.
fn wrong(script: &'static str, faults: &'static [(&str, Expected)]) -> String {
    packages();
    envoy();
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let judge = |(fault, expected): &(&str, Expected)| {
        let place = Place::new();
        let server = Server::start(&place, script, fault);
        let (ended, cell) = judged(&place, &server.socket, &[]);
        let (code, verdict, layer, modes) = found(&ended, &cell);
        let modes: Vec<&str> = modes.iter().map(String::as_str).collect();
        place.nothing_is_left_but(server.child.id());
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        let said = [ended.stdout.as_bytes(), ended.stderr.as_bytes()].concat();
        let keys = with_keys(&place.root, &said);
        assert!(keys.is_empty(), "{fault}: private keys in {keys:?}");
        let told = cell.to_string();
        let noted = NOTED.iter().filter(|(of, _)| of == fault).all(|(_, note)| told.contains(note));
        let got = (code, verdict.as_str(), layer.as_deref(), modes.as_slice());
        let right = (got == *expected && noted) || (*fault == "floods" && got == FLOOD_KEPT);
        (!right).then(|| format!("{fault}: {code} {verdict} {layer:?} {modes:?}, noted: {noted}\n{}", ended.stdout))
    };
    let next = AtomicUsize::new(0);
    let take = || std::iter::from_fn(|| faults.get(next.fetch_add(1, Ordering::Relaxed)));
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..AT_A_TIME).map(|_| scope.spawn(|| take().filter_map(judge).collect::<Vec<_>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    wrong.join("\n")
}

#[test]
fn a_provider_in_another_language_is_judged_right_healthy_and_with_each_of_its_faults() {
    assert_eq!(wrong("sds.py", &FAULTS), "");
}

#[test]
fn one_that_hangs_floods_or_breaks_off_gets_a_finding_and_little_memory() {
    assert_eq!(wrong("raw.py", &RAW_FAULTS), "");
}

#[test]
fn two_harnesses_at_one_provider_do_not_disturb_each_other() {
    let place = Place::new();
    let server = Server::start(&place, "sds.py", "none");
    let verdicts = std::thread::scope(|scope| {
        let harness = || {
            let own = Place::new();
            let (ended, cell) = judged(&own, &server.socket, &[]);
            found(&ended, &cell).1
        };
        [scope.spawn(harness), scope.spawn(harness)].map(|harness| harness.join().unwrap())
    });
    assert_eq!(verdicts, ["pass", "pass"]);
}

#[test]
fn a_provider_that_denies_us_or_is_none_is_an_error_that_says_what_to_do() {
    let place = Place::new();
    let socket = |name: &str| place.root.join(name);
    let error = |socket: &Utf8Path, said: &[&str]| {
        let (ended, cell) = judged(&place, socket, &[]);
        assert_eq!(cell["verdict"], "error");
        ended.with(5, said);
    };
    error(&socket("gone"), &["there is no", "is the provider running"]);
    place.file("file", "");
    error(&socket("file"), &["is no socket", "--socket"]);
    fs::create_dir(socket("directory")).unwrap();
    error(&socket("directory"), &["is no socket", "--socket"]);
    drop(UnixListener::bind(socket("left")).unwrap());
    error(&socket("left"), &["can't be connected to: Connection refused", "start the provider again"]);
    let listener = UnixListener::bind(socket("rude")).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let _ = std::io::Write::write_all(&mut client.unwrap(), b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    error(&socket("rude"), &["does not speak gRPC"]);
    let server = Server::start(&place, "sds.py", "denies");
    error(&server.socket, &["denies us default: PermissionDenied: no identity issued", "register its user"]);
    let elsewhere = Place::new();
    let server = Server::start(&elsewhere, "sds.py", "denies-like-spire");
    error(&server.socket, &["denies us default: InvalidArgument: workload is not authorized", "register its user"]);
}

#[test]
fn an_external_provider_needs_a_socket_and_takes_no_faults_of_ours() {
    let place = Place::new();
    place.run(&["rotation", "--provider", "external"]).with(3, &["needs a `socket`", "--socket PATH"]);
    place
        .run(&["never-renews", "--provider", "external", "--socket", "s"])
        .with(4, &["can't be provoked in a provider of kind `external`"]);
    place.run(&["rotation", "--socket", "s"]).with(3, &["--provider external"]);
    let moved = place
        .rotacheck(&["plan", "rotation", "--provider", "external", "--socket", "s", "--clock", "virtual"])
        .output();
    Ended::from(moved.unwrap()).with(0, &["an external provider lives in the machine's time"]);
}

#[test]
fn our_own_fake_is_an_external_provider_like_any_other() {
    let place = Place::new();
    let socket = place.root.join("fake.sock");
    let serve = ["provider", "--socket", socket.as_str(), "--profile", "tbot", "--ttl", "8s", "--renew-every", "3s"];
    let resends = ["--fault", "resend-cached@1"];
    for (more, expected) in [(&[][..], "pass"), (&resends[..], "fail")] {
        let mut provider = place.rotacheck(&[&serve[..], more].concat()).spawn().unwrap();
        until("the fake serves", || socket.exists());
        let (ended, cell) = judged(&place, &socket, &["--renew-every", "3s"]);
        provider.kill().unwrap();
        provider.wait().unwrap();
        assert_eq!(cell["verdict"], expected, "{}", ended.stdout);
        if expected == "fail" {
            assert_eq!(found(&ended, &cell).3, ["resend-cached", "resend-stale"]);
        }
    }
}

#[test]
fn a_provider_that_a_scenario_starts_ends_with_its_cell() {
    let place = Place::new();
    let socket = place.root.join("started.sock");
    let text = format!(
        "name: started\nsummary: It is started for this cell.\nprovider:\n  kind: external\n  socket: {socket}\n  \
         command: [{}, provider, --socket, {socket}, --ttl, 8s, --renew-every, 3s]\nclock: real\n",
        env!("CARGO_BIN_EXE_rotacheck")
    );
    let scenario = place.file("started.yaml", &text);
    let envoy = format!("path={}", envoy());
    place.run(&[scenario.as_str(), "--envoy", &envoy]).with(0, &["1 pass"]);
    assert!(place.of_the_cell("provider.log").contains("serving SDS"));
    place.nothing_is_left();
}
