//! Programs are taken out of images, locked, verified and refused, through the binary, from a registry on loopback.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod gate;
mod registry;

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use camino::Utf8PathBuf;
use gate::until;
use predicates::prelude::PredicateBooleanExt as _;
use predicates::str::contains;
use registry::Registry;

const SCRIPT: &str = "#!/bin/sh\necho \"$0  version: 0ebfcfe5/1.2.3/Clean/RELEASE/BoringSSL\"\n";
const ENVOY: &str = "usr/local/bin/envoy";

/// A machine with a registry, a cache and a lock file of its own.
struct Machine {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
    registry: Registry,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
        fs::write(root.join("a.lock"), "schema_version = 1\n").unwrap();
        Self { _dir: dir, root, registry: Registry::start() }
    }

    /// Its registry has an image with an Envoy, which is locked, but not in the cache.
    fn with_locked_envoy() -> Self {
        let machine = Self::new();
        machine.registry.publish("envoyproxy/envoy", "v1.2.3", &envoy_layers());
        machine.lock("envoy", "envoyproxy/envoy:v1.2.3").assert().success();
        fs::remove_dir_all(machine.cache()).unwrap();
        machine
    }

    fn rotacheck(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
        command.args(arguments).args(["--lock", self.root.join("a.lock").as_str()]).env_clear();
        command.current_dir(&self.root).env("ROTACHECK_CACHE", self.cache()).env("PATH", "/nowhere");
        command
    }

    fn image(&self, name: &str) -> String {
        format!("image={}/{name}", self.registry.address)
    }

    fn lock(&self, component: &str, image: &str) -> Command {
        self.rotacheck(&["lock", component, &self.image(image)])
    }

    fn fetch(&self, component: &str, image: &str) -> Command {
        self.rotacheck(&["fetch", &format!("--{component}"), &self.image(image)])
    }

    fn fetch_envoy(&self) -> Command {
        self.fetch("envoy", "envoyproxy/envoy:v1.2.3")
    }

    fn cache(&self) -> Utf8PathBuf {
        self.root.join("cache")
    }

    fn locked(&self) -> String {
        fs::read_to_string(self.root.join("a.lock")).unwrap()
    }

    /// What was taken from images, below the cache.
    fn taken(&self) -> Vec<Utf8PathBuf> {
        let Ok(images) = self.cache().join("image").read_dir_utf8() else { return Vec::new() };
        let files = images.flat_map(|image| image.unwrap().path().read_dir_utf8().unwrap());
        files.map(|file| file.unwrap().into_path()).collect()
    }

    /// Nothing was kept, nothing half done is left, and nothing lies where it should not.
    fn kept_nothing(&self) {
        assert_eq!(self.taken(), [""; 0]);
        assert_eq!(self.cache().join("staging").read_dir_utf8().map_or(0, Iterator::count), 0);
        let names: Vec<_> = self.root.read_dir_utf8().unwrap().map(|e| e.unwrap().file_name().to_owned()).collect();
        assert!(names.iter().all(|name| ["a.lock", "cache"].contains(&name.as_str())), "{names:?}");
    }
}

/// An image as its makers build it: a base, the program in a layer above, a whiteout on top.
fn envoy_layers() -> Vec<Vec<u8>> {
    vec![
        layer(&[("usr/local/bin/envoy", "an older one"), ("etc/passwd", "root")]),
        layer(&[(ENVOY, SCRIPT)]),
        layer(&[("etc/.wh.passwd", ""), ("docker-entrypoint.sh", "#!/bin/sh\n")]),
    ]
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, tar::EntryType::Regular, text.as_bytes())).collect();
    gzipped(&tarred(&files))
}

fn tarred(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/").unwrap();
        }
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn the_uppermost_of_a_locked_image_is_fetched_once_and_measured() {
    let machine = Machine::with_locked_envoy();
    let before = machine.registry.blobs();
    let fetched =
        machine.fetch_envoy().assert().success().stderr(contains("downloading").and(contains("ready, 1.2.3")));
    let [path] = &machine.taken()[..] else { panic!("{:?}", machine.taken()) };
    fetched.stdout(format!("1.2.3\t{path}\n"));
    assert_eq!(fs::read_to_string(path).unwrap(), SCRIPT);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o555);
    // The base is not needed, and not downloaded.
    assert_eq!(machine.registry.blobs() - before, 2);
    let asked = machine.registry.asked().len();
    machine.fetch_envoy().assert().success().stderr(contains("verifying"));
    machine.fetch_envoy().arg("--offline").assert().success();
    assert_eq!(machine.registry.asked().len(), asked);
}

#[test]
fn offline_takes_what_is_cached_and_asks_nobody() {
    let machine = Machine::with_locked_envoy();
    let asked = machine.registry.asked().len();
    let image = machine.image("envoyproxy/envoy:v1.2.3");
    let offline = machine.fetch_envoy().arg("--offline").assert().code(5);
    offline.stderr(contains("downloading is off").and(contains(format!("rotacheck fetch --envoy {image}"))));
    assert_eq!(machine.registry.asked().len(), asked);
}

#[test]
fn two_at_once_download_once() {
    let machine = Machine::with_locked_envoy();
    let before = machine.registry.blobs();
    machine.registry.hold_blobs(true);
    let (first, first_stderr) = until(machine.fetch_envoy(), "downloading");
    let (second, second_stderr) = until(machine.fetch_envoy(), "waiting for another rotacheck");
    machine.registry.hold_blobs(false);
    for (child, stderr) in [(first, first_stderr), (second, second_stderr)] {
        let said: Vec<_> = stderr.lines().map(Result::unwrap).collect();
        child.wait_with_output().unwrap().assert().success().stdout(contains("1.2.3\t"));
        assert!(said.iter().any(|line| line.contains("ready, 1.2.3")), "{said:?}");
    }
    assert_eq!(machine.registry.blobs() - before, 2);
}

#[test]
fn a_lock_names_the_manifest_and_each_program_on_each_platform() {
    let machine = Machine::with_locked_envoy();
    let locked = machine.locked();
    let name = format!("[image.\"{}/envoyproxy/envoy:v1.2.3\".linux-x86_64]", machine.registry.address);
    assert!(locked.contains(&name) && locked.contains("linux-aarch64.files.envoy]"), "{locked}");
    let again = machine.lock("envoy", "envoyproxy/envoy:v1.2.3").assert().success();
    again.stdout(contains("\tenvoy\tas in "));
    assert_eq!(machine.locked(), locked);
}

#[test]
fn a_tag_that_moved_is_not_followed_and_locked_anew_only_on_demand() {
    let machine = Machine::with_locked_envoy();
    let locked = machine.locked();
    machine.registry.publish("envoyproxy/envoy", "v1.2.3", &[layer(&[(ENVOY, &format!("{SCRIPT}# another\n"))])]);
    machine.fetch_envoy().assert().success();
    assert_eq!(fs::read_to_string(&machine.taken()[0]).unwrap(), SCRIPT);
    let mut again = machine.lock("envoy", "envoyproxy/envoy:v1.2.3");
    again.assert().code(3).stderr(contains("is locked already").and(contains("--replace")));
    assert_eq!(machine.locked(), locked);
    again.arg("--replace").assert().success().stdout(contains("replaced in"));
    machine.fetch_envoy().assert().success();
    machine.registry.remove("manifests");
    fs::remove_dir_all(machine.cache()).unwrap();
    machine.fetch_envoy().assert().code(5).stderr(contains("look at its name and tag"));
    machine.kept_nothing();
}

#[test]
fn other_bytes_than_the_locked_ones_are_neither_kept_nor_run() {
    let flip = |bytes: &mut Vec<u8>| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    };
    let append = |bytes: &mut Vec<u8>| bytes.push(b' ');
    for (part, change, said) in [
        ("/blobs/", &flip as &dyn Fn(&mut Vec<u8>), "wrong SHA-256"),
        ("/blobs/", &append, "more than the"),
        ("/manifests/sha256:", &append, "the registry did not give"),
    ] {
        let machine = Machine::with_locked_envoy();
        machine.registry.falsify(part, change);
        machine.fetch_envoy().assert().code(5).stderr(contains(said));
        machine.kept_nothing();
    }
    // The registry's own bytes are whole, and not those of the lock file.
    let machine = Machine::with_locked_envoy();
    let locked = machine.locked();
    let sha256 = locked.split("files.envoy]\nsha256 = \"").nth(1).unwrap()[..64].to_owned();
    fs::write(machine.root.join("a.lock"), locked.replace(&sha256, &"0".repeat(64))).unwrap();
    machine.fetch_envoy().assert().code(5).stderr(contains("wrong SHA-256").and(contains(sha256)));
    machine.kept_nothing();
    let smaller = locked.replace(&format!("size = {}", SCRIPT.len()), "size = 7");
    fs::write(machine.root.join("a.lock"), smaller).unwrap();
    machine.fetch_envoy().assert().code(5).stderr(contains("larger than the 7 bytes"));
    machine.kept_nothing();
}

#[test]
fn a_hostile_image_gives_an_error_and_no_file_outside() {
    use tar::EntryType::{Regular, Symlink};
    let evil = [("../../../../evil", Regular, &b"x"[..])];
    let up = [("usr/local/bin/../../../evil", Regular, &b"x"[..])];
    let link = [(ENVOY, Symlink, &b""[..])];
    let through = [("usr/local", Symlink, &b""[..]), (ENVOY, Regular, SCRIPT.as_bytes())];
    let with_envoy = |top: Vec<u8>| vec![layer(&[(ENVOY, SCRIPT)]), top];
    for (layers, said) in [
        (with_envoy(gzipped(&tarred(&evil))), "leads out of the image"),
        (with_envoy(gzipped(&tarred(&up))), "leads out of the image"),
        (with_envoy(gzipped(&tarred(&link))), "is a link"),
        (with_envoy(gzipped(&tarred(&through))), "is no directory"),
        (with_envoy(layer(&[("usr/local/bin/.wh.envoy", "")])), "holds no program"),
        (with_envoy(b"<html>no layer at all</html>".repeat(40)), "can't be unpacked"),
        (with_envoy(layer(&[(ENVOY, SCRIPT)])[..40].to_vec()), "can't be unpacked"),
        (with_envoy(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0]), "zstd"),
        (Vec::new(), "holds no program"),
        (vec![gzipped(b""); 201], "201 layers"),
    ] {
        let machine = Machine::new();
        machine.registry.publish("x/envoy", "1", &layers);
        machine.lock("envoy", "x/envoy:1").assert().code(5).stderr(contains(said).and(contains("x/envoy:1")));
        machine.kept_nothing();
        assert_eq!(machine.locked(), "schema_version = 1\n");
    }
}

#[test]
fn a_manifest_that_declares_what_cannot_be_is_an_error() {
    for (from, to, said) in [
        ("\"size\":28", "\"size\":9999999999999", "more than"),
        ("\"size\":28", "\"size\":-1", "more than"),
        ("sha256:", "sha512:", "can't be used"),
        ("{\"", "[\"", "can't be read"),
    ] {
        let machine = Machine::new();
        machine.registry.publish_alone("x/envoy", "1", &[b"<html>no layer at all</html>".to_vec()], "amd64");
        machine.registry.falsify("/manifests/1", |bytes| {
            *bytes = String::from_utf8(bytes.clone()).unwrap().replace(from, to).into_bytes();
        });
        let mut lock = machine.lock("envoy", "x/envoy:1");
        let refused = lock.args(["--platform", "linux-x86_64"]).assert().code(5);
        refused.stderr(contains(said).or(contains("did not give")));
        machine.kept_nothing();
    }
}

#[test]
fn an_image_for_another_processor_is_named_as_that() {
    let machine = Machine::new();
    machine.registry.publish_alone("x/envoy", "1", &envoy_layers(), "riscv64");
    let refused = machine.lock("envoy", "x/envoy:1").assert().code(5);
    refused.stderr(contains("not made for linux-x86_64, but for linux-riscv64"));
    machine.registry.publish_alone("x/envoy", "1", &envoy_layers(), "amd64");
    machine.lock("envoy", "x/envoy:1").args(["--platform", "linux-x86_64"]).assert().success();
}

#[test]
fn a_cached_program_that_was_changed_is_neither_run_nor_removed() {
    let machine = Machine::with_locked_envoy();
    machine.fetch_envoy().assert().success();
    let path = machine.taken().remove(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&path, format!("{SCRIPT}echo > {}\n", machine.root.join("ran"))).unwrap();
    machine.fetch_envoy().assert().code(5).stderr(contains("was changed").and(contains("rm -r /")));
    assert!(path.exists() && !machine.root.join("ran").exists());
}

#[test]
fn what_is_not_locked_or_not_there_is_said_with_what_to_do() {
    let machine = Machine::with_locked_envoy();
    let image = machine.image("envoyproxy/envoy:v9");
    let mut fetch = machine.fetch("envoy", "envoyproxy/envoy:v9");
    fetch.assert().code(3).stderr(contains(format!("`rotacheck lock envoy {image}` adds it")));
    machine.lock("envoy", "envoyproxy/envoy:v9").assert().code(5).stderr(contains("look at its name and tag"));
    let mut unnamed = machine.rotacheck(&["fetch", "--envoy", "image=envoyproxy/envoy"]);
    unnamed.assert().code(2).stderr(contains("image=envoyproxy/envoy:v1.38.3"));
    // Nobody listens there.
    let mut gone = machine.rotacheck(&["lock", "envoy", "image=127.0.0.1:1/x/envoy:1"]);
    gone.assert().code(5).stderr(contains("look at the network"));
    let doctor = machine.rotacheck(&["doctor"]).output().unwrap();
    let found = String::from_utf8(doctor.stdout).unwrap();
    assert!(found.contains("0 of 1 that are locked for this machine are cached"), "{found}");
}

/// A Go program that says it is Istio's, as releases do.
fn istio(machine: &Machine, program: &str) -> Vec<u8> {
    let dir = tempfile::tempdir_in(&machine.root).unwrap();
    let package = dir.path().join("pilot/cmd").join(program);
    fs::create_dir_all(&package).unwrap();
    fs::write(dir.path().join("go.mod"), "module istio.io/istio\n\ngo 1.21\n").unwrap();
    fs::write(package.join("main.go"), "package main\n\nfunc main() { println(\"client version: 1.31.2\") }\n")
        .unwrap();
    let mut go = Command::new("go");
    go.args(["build", "-buildvcs=false", "-o", "program", &format!("./pilot/cmd/{program}")]).current_dir(dir.path());
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", "off").assert().success();
    fs::read(dir.path().join("program")).unwrap()
}

#[test]
fn istio_comes_from_the_two_images_of_a_tag() {
    let machine = Machine::new();
    let (agent, discovery) = (istio(&machine, "pilot-agent"), istio(&machine, "pilot-discovery"));
    let template = "var/lib/istio/envoy/envoy_bootstrap_tmpl.json";
    use tar::EntryType::Regular;
    let proxy = tarred(&[
        ("usr/local/bin/pilot-agent", Regular, &agent),
        (ENVOY, Regular, SCRIPT.as_bytes()),
        (template, Regular, b"{}"),
    ]);
    machine.registry.publish("istio/proxyv2", "1.31.2", &[gzipped(&proxy)]);
    let pilot = tarred(&[("usr/local/bin/pilot-discovery", Regular, &discovery)]);
    machine.registry.publish("istio/pilot", "1.31.2", &[gzipped(&pilot)]);
    let locked = machine.lock("istio", "istio/pilot:1.31.2").assert().success();
    locked.stdout(contains("\tenvoy,pilot-agent,envoy_bootstrap.json\t").and(contains("\tpilot-discovery\t")));
    let fetched = machine.fetch("istio", "istio/proxyv2:1.31.2").assert().success();
    fetched.stdout(contains("1.31.2\t").and(contains("/pilot-agent\n")).and(contains("/pilot-discovery\n")));
    // The same image has Istio's own Envoy.
    machine.fetch("envoy", "istio/proxyv2:1.31.2").assert().success().stdout(contains("1.2.3\t"));
    // A program under another's name is refused.
    let swapped = tarred(&[("usr/local/bin/pilot-discovery", Regular, &agent)]);
    machine.registry.publish("istio/pilot", "1.31.3", &[gzipped(&swapped)]);
    machine.registry.publish("istio/proxyv2", "1.31.3", &[gzipped(&proxy)]);
    machine.lock("istio", "istio/pilot:1.31.3").assert().success();
    let refused = machine.fetch("istio", "istio/pilot:1.31.3").assert().code(5);
    refused.stderr(contains("should be pilot-discovery, but is another program"));
}
