//! Istio's and SPIRE's programs are locked, built, verified and refused, through the binary.
//!
//! The user's own Go builds them, from a module proxy that is a directory: an `istio.io/istio` of a few lines, which
//! depends on one other module. No network is needed.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod gate;

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use base64::Engine as _;
use camino::Utf8PathBuf;
use gate::{Gate, has_ended, until};
use predicates::prelude::PredicateBooleanExt as _;
use predicates::str::contains;
use rustix::process::{Pid, Signal, kill_process};
use sha2::Digest as _;

const MODULE: &str = "v0.0.0-20260827124520-eed52ebb66ad";
const NAME: &str = "1.31-dev.20260827";
const TEMPLATE: &str = "tools/packaging/common/envoy_bootstrap.json";
const MAIN: &str = "package main\n\nimport \"example.com/words\"\n\nfunc main() { println(words.Unknown) }\n";
const WORDS: &str = "package words\n\nconst Unknown = \"client version: unknown\"\n";

/// A machine with a Go, a module proxy, a cache and a lock file of its own.
struct Machine {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
    /// The user's.
    go: String,
    build_cache: String,
}

impl Machine {
    /// Its proxy has the two modules, and nothing is locked.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        let env = Command::new("go").args(["env", "GOROOT", "GOCACHE"]).output().expect("Go is needed for this test");
        let env = String::from_utf8(env.stdout).unwrap();
        let (go_root, build_cache) = env.trim().split_once('\n').unwrap();
        let machine = Self { _dir: dir, root, go: format!("{go_root}/bin/go"), build_cache: build_cache.into() };
        fs::create_dir(machine.root.join("bin")).unwrap();
        fs::write(machine.lock(), "schema_version = 1\n").unwrap();
        machine.go_does("");
        machine.publish("example.com/words", "v1.0.0", &[("go.mod", WORDS_MOD), ("words.go", WORDS)]);
        machine.publish_istio(MAIN, "1.26.0");
        machine
    }

    /// As above, and the Istio is locked, but not in any cache.
    fn with_locked_istio() -> Self {
        let machine = Self::new();
        machine.lock_istio(&[]).assert().success();
        machine.forget_modules();
        fs::remove_dir_all(machine.cache()).unwrap();
        machine
    }

    fn publish_istio(&self, main: &str, go: &str) {
        let words = self.root.join("proxy/example.com/words/@v/v1.0.0.zip");
        let sums = format!(
            "example.com/words v1.0.0 {}\nexample.com/words v1.0.0/go.mod {}\n",
            sum(&[("example.com/words@v1.0.0/go.mod", WORDS_MOD), ("example.com/words@v1.0.0/words.go", WORDS)]),
            sum(&[("go.mod", WORDS_MOD)]),
        );
        assert!(words.exists());
        let go_mod = format!("module istio.io/istio\n\ngo {go}\n\nrequire example.com/words v1.0.0\n");
        let files = [
            ("go.mod", go_mod.as_str()),
            ("go.sum", &sums),
            ("VERSION", "1.31\n"),
            (TEMPLATE, "{}\n"),
            ("pilot/cmd/pilot-agent/main.go", main),
            ("pilot/cmd/pilot-discovery/main.go", main),
        ];
        self.publish("istio.io/istio", MODULE, &files);
    }

    /// Puts a module into the proxy (Go modules reference, "GOPROXY protocol").
    fn publish(&self, module: &str, version: &str, files: &[(&str, &str)]) {
        let dir = self.root.join("proxy").join(module).join("@v");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{version}.info")), format!("{{\"Version\": \"{version}\"}}")).unwrap();
        fs::write(dir.join(format!("{version}.mod")), files.iter().find(|(name, _)| *name == "go.mod").unwrap().1)
            .unwrap();
        let zip = fs::File::create(dir.join(format!("{version}.zip"))).unwrap();
        let mut zip = zip::ZipWriter::new(zip);
        for (name, text) in files {
            let name = format!("{module}@{version}/{name}");
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
    }

    /// The Go of this machine counts its builds, and does this before it does what Go does.
    fn go_does(&self, body: &str) {
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = build ] && echo \"$*\" >> {}\n{body}\nexec {} \"$@\"\n",
            self.root.join("builds"),
            self.go
        );
        let new = self.root.join("go.new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, self.root.join("bin/go")).unwrap();
    }

    fn rotacheck(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
        command.args(arguments).args(["--lock", self.lock().as_str()]).env_clear().current_dir(&self.root);
        command.env("PATH", self.root.join("bin")).env("ROTACHECK_CACHE", self.cache()).env("HOME", &self.root);
        command.env("GOPROXY", format!("file://{}", self.root.join("proxy"))).env("GOSUMDB", "off");
        command.env("GOCACHE", &self.build_cache).env("GOMODCACHE", self.modules()).env("GOTOOLCHAIN", "local");
        // What must not matter.
        command.env("GOFLAGS", "-mod=vendor").env("GOOS", "plan9").env("GOWORK", "/no/such/go.work");
        command
    }

    fn lock_istio(&self, more: &[&str]) -> Command {
        self.rotacheck(&[&["lock", "istio", MODULE], more].concat())
    }

    fn fetch(&self) -> Command {
        self.rotacheck(&["fetch", "--istio", NAME])
    }

    fn lock(&self) -> Utf8PathBuf {
        self.root.join("a.lock")
    }

    fn cache(&self) -> Utf8PathBuf {
        self.root.join("cache")
    }

    /// Go's own cache of modules.
    fn modules(&self) -> Utf8PathBuf {
        self.root.join("modules")
    }

    fn forget_modules(&self) {
        // Go makes them read-only.
        let clean = Command::new(&self.go).args(["clean", "-modcache"]).env("GOMODCACHE", self.modules()).status();
        assert!(clean.unwrap().success());
    }

    fn cached(&self) -> Vec<Utf8PathBuf> {
        let Ok(entries) = self.cache().join("go").read_dir_utf8() else { return Vec::new() };
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().into_path()).collect();
        entries.sort();
        entries
    }

    fn agent(&self) -> Utf8PathBuf {
        self.cached()[0].join("pilot-agent")
    }

    fn nothing_is_kept(&self) -> bool {
        let staged = self.cache().join("staging").read_dir_utf8().map_or(0, Iterator::count);
        self.cached().is_empty() && staged == 0
    }

    fn builds(&self) -> usize {
        fs::read_to_string(self.root.join("builds")).map_or(0, |text| text.lines().count())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.forget_modules();
    }
}

const WORDS_MOD: &str = "module example.com/words\n\ngo 1.21\n";

/// The checksum of files (Go's package `dirhash`, `Hash1`).
fn sum(files: &[(&str, &str)]) -> String {
    let mut lines: Vec<_> =
        files.iter().map(|(name, text)| (name, hex::encode(sha2::Sha256::digest(text.as_bytes())))).collect();
    lines.sort();
    let lines: String = lines.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    format!("h1:{}", base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(lines.as_bytes())))
}

#[test]
fn a_version_is_built_once_and_printed_with_its_paths() {
    let machine = Machine::with_locked_istio();
    machine.fetch().assert().success().stderr(contains("compiling").and(contains(format!("ready, {MODULE}"))));
    let [agent, control_plane] = &machine.cached()[..] else { panic!("{:?}", machine.cached()) };
    let (agent, control_plane) = (agent.join("pilot-agent"), control_plane.join("pilot-discovery"));
    assert_eq!(fs::metadata(&agent).unwrap().permissions().mode() & 0o777, 0o555);
    assert_eq!(fs::read_to_string(agent.with_file_name("envoy_bootstrap.json")).unwrap(), "{}\n");
    Command::new(&agent).assert().success().stderr(contains("unknown"));
    // From now on it needs neither Go nor a proxy.
    fs::remove_file(machine.root.join("bin/go")).unwrap();
    let again = machine.fetch().arg("--offline").assert().success().stderr(contains("verifying"));
    again.stdout(format!("{NAME}\t{agent}\n{NAME}\t{control_plane}\n"));
    assert_eq!(machine.builds(), 2);
    assert_eq!(machine.cache().join("staging").read_dir_utf8().unwrap().count(), 0);
}

#[test]
fn the_same_module_gives_the_same_bytes_wherever_it_is_built() {
    let bytes = |machine: &Machine| {
        machine.fetch().assert().success();
        fs::read(machine.agent()).unwrap()
    };
    assert!(bytes(&Machine::with_locked_istio()) == bytes(&Machine::with_locked_istio()));
}

#[test]
fn a_version_is_locked_with_its_sums_its_line_and_a_name_that_can_be_typed() {
    let machine = Machine::new();
    machine.lock_istio(&[]).assert().success().stdout(contains(format!("{NAME}\t{MODULE}\th1:")));
    let locked = fs::read_to_string(machine.lock()).unwrap();
    for line in [format!("[istio.\"{NAME}\"]"), "go = \"1.26.0\"".into(), "line = \"1.31\"".into()] {
        assert!(locked.contains(&line), "{locked}");
    }
    machine.lock_istio(&[]).assert().success().stdout(contains("as in"));
    machine.forget_modules();
    machine.publish_istio(&MAIN.replace("Unknown)", "Unknown + words.Unknown)"), "1.26.0");
    machine.lock_istio(&[]).assert().code(3).stderr(contains("is locked already").and(contains("--replace")));
    assert_eq!(fs::read_to_string(machine.lock()).unwrap(), locked);
    machine.lock_istio(&["--replace"]).assert().success().stdout(contains("replaced in"));
    assert_eq!(machine.builds(), 0);
}

#[test]
fn another_module_than_the_locked_one_is_neither_built_nor_kept() {
    let machine = Machine::with_locked_istio();
    machine.publish_istio(&MAIN.replace("Unknown)", "Unknown + words.Unknown)"), "1.26.0");
    machine.fetch().assert().code(5).stderr(contains("checksum mismatch").and(contains("nothing of it was built")));
    assert!(machine.nothing_is_kept());
    assert_eq!(machine.builds(), 0);
}

/// Also without a checksum database: the locked module's own `go.sum` has the sums of what it depends on.
#[test]
fn a_dependency_that_was_changed_is_refused() {
    let machine = Machine::with_locked_istio();
    let files = [("go.mod", WORDS_MOD), ("words.go", &WORDS.replace("unknown", "1.31.0"))];
    machine.publish("example.com/words", "v1.0.0", &files);
    machine.fetch().assert().code(5).stderr(contains("example.com/words@v1.0.0: checksum mismatch"));
    assert!(machine.nothing_is_kept());
}

#[test]
fn the_last_words_of_a_build_that_fails_are_shown() {
    let machine = Machine::new();
    machine.publish_istio(&MAIN.replace("words.Unknown", "words.Missing"), "1.26.0");
    machine.lock_istio(&[]).assert().success();
    let failed = machine.fetch().assert().code(5);
    failed.stderr(contains("go could not build pilot-agent").and(contains("undefined: words.Missing")));
    assert!(machine.nothing_is_kept());
}

#[test]
fn without_go_it_says_how_to_get_one() {
    let machine = Machine::with_locked_istio();
    fs::remove_file(machine.root.join("bin/go")).unwrap();
    machine.fetch().assert().code(5).stderr(contains("go was not found").and(contains("--istio path=")));
}

#[test]
fn a_go_that_is_too_old_is_named_as_that() {
    let machine = Machine::with_locked_istio();
    let locked = fs::read_to_string(machine.lock()).unwrap();
    fs::write(machine.lock(), locked.replace("go = \"1.26.0\"", "go = \"1.999.0\"")).unwrap();
    machine.rotacheck(&["doctor"]).assert().stdout(contains("not built yet, and it needs Go 1.999.0"));
    machine.publish_istio(MAIN, "1.999.0");
    let refused = machine.lock_istio(&["--replace"]).assert().code(5);
    refused.stderr(contains("requires go >= 1.999.0").and(contains("GOTOOLCHAIN=auto")));
}

#[test]
fn what_is_not_there_and_may_not_be_fetched_is_told_apart() {
    let machine = Machine::with_locked_istio();
    let mut fetch = machine.rotacheck(&["fetch", "--istio", "1.2.3"]);
    fetch.assert().code(3).stderr(contains("has no Istio 1.2.3 (it has 1.31-dev.20260827)"));
    let offline = machine.fetch().arg("--offline").assert().code(5);
    offline.stderr(contains("rotacheck fetch --istio 1.31-dev.20260827"));
    machine.fetch().env("GOPROXY", "off").assert().code(5).stderr(contains("`go env GOPROXY` is off"));
    machine.fetch().env("GOPROXY", "file:///no/such").assert().code(5).stderr(contains("has no such version"));
    machine.go_does("echo 'go: write /x: no space left on device' >&2; exit 1");
    machine.fetch().assert().code(5).stderr(contains("no space left on device").and(contains("make room")));
    assert!(machine.nothing_is_kept());
}

#[test]
fn an_interrupt_ends_the_build_with_all_its_children() {
    let machine = Machine::with_locked_istio();
    let gate = Gate::new(&machine.root);
    // A child of Go's comes to the gate.
    machine.go_does(&format!("[ \"$1\" = build ] && /bin/sh -c '{}'", gate.wait()));
    let (child, _stderr) = until(machine.fetch(), "compiling");
    let compiler = gate.arrival();
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    child.wait_with_output().unwrap().assert().code(130);
    assert!(has_ended(&compiler));
    assert!(machine.nothing_is_kept());
}

#[test]
fn two_at_once_build_once() {
    let machine = Machine::with_locked_istio();
    let gate = Gate::new(&machine.root);
    machine.go_does(&format!("case \"$*\" in build*pilot-agent) {};; esac", gate.wait().replace('\n', "; ")));
    let (first, first_stderr) = until(machine.fetch(), "compiling");
    let _go = gate.arrival();
    let (second, second_stderr) = until(machine.fetch(), "waiting for another rotacheck");
    gate.open();
    for (child, stderr) in [(first, first_stderr), (second, second_stderr)] {
        let said: Vec<_> = stderr.lines().map(Result::unwrap).collect();
        child.wait_with_output().unwrap().assert().success().stdout(contains("pilot-agent\n"));
        assert!(said.last().unwrap().contains("ready"), "{said:?}");
    }
    assert_eq!(machine.builds(), 2);
}

#[test]
fn what_was_changed_in_the_cache_is_neither_handed_out_nor_removed() {
    let machine = Machine::with_locked_istio();
    machine.fetch().assert().success();
    let agent = machine.agent();
    for file in [agent.clone(), agent.with_file_name("envoy_bootstrap.json")] {
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
        let refused = machine.fetch().assert().code(5);
        refused.stderr(contains(format!("{file} was changed")).and(contains("to fetch it anew: rm -r /")));
        fs::write(&file, whole).unwrap();
    }
    let record = agent.with_file_name("record.json");
    fs::remove_file(&record).unwrap();
    fs::write(&record, "{}").unwrap();
    machine.fetch().assert().code(5).stderr(contains("is no record of this program"));
    assert!(agent.exists());
}

#[test]
fn programs_of_ones_own_are_known_by_what_they_were_built_from() {
    let machine = Machine::with_locked_istio();
    machine.fetch().assert().success();
    let own = machine.root.join("own");
    fs::create_dir(&own).unwrap();
    let fetch = || machine.rotacheck(&["fetch", "--istio", "path=own"]);
    fetch().assert().code(5).stderr(contains("own/pilot-agent could not be found"));
    let agent = machine.agent();
    fs::copy(&agent, own.join("pilot-agent")).unwrap();
    fetch().assert().code(5).stderr(contains("own/envoy_bootstrap.json could not be found"));
    fs::copy(agent.with_file_name("envoy_bootstrap.json"), own.join("envoy_bootstrap.json")).unwrap();
    fs::copy(&agent, own.join("pilot-discovery")).unwrap();
    let other = fetch().assert().code(5).stdout(format!("{MODULE}\t{}\n", own.join("pilot-agent")));
    other.stderr(contains("own/pilot-discovery should be pilot-discovery, but is another program"));
    fs::copy(machine.cached()[1].join("pilot-discovery"), own.join("pilot-discovery")).unwrap();
    fetch().assert().success();
}

#[test]
fn doctor_tells_what_is_built_and_what_can_be() {
    let machine = Machine::with_locked_istio();
    let istio = || {
        let doctor = machine.rotacheck(&["doctor", "--json"]).output().unwrap();
        let checks: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let check = checks.as_array().unwrap().iter().find(|c| c["name"] == format!("Istio {NAME}")).unwrap();
        (check["status"].as_str().unwrap().to_owned(), check["found"].as_str().unwrap().to_owned())
    };
    assert_eq!(istio(), ("ok".into(), "not built yet, built on first use, in minutes".into()));
    machine.fetch().assert().success();
    fs::remove_file(machine.root.join("bin/go")).unwrap();
    assert_eq!(istio(), ("ok".into(), "cached, verified".into()));
    fs::remove_dir_all(machine.cache()).unwrap();
    assert_eq!(istio(), ("warn".into(), "not built yet, and there is no Go".into()));
}
