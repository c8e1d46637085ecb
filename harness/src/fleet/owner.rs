//! Whose something is that outlives processes: what a run makes outside of itself (containers, clusters, namespaces) is
//! labelled with the run and its machine, so that whoever comes later knows when nobody needs it any more.

use std::hash::{BuildHasher as _, RandomState};

use sha2::{Digest as _, Sha256};

/// Labels: the run, the machine that it runs on, the cell.
pub const RUN: &str = "rotacheck.dev/run";
pub(super) const MACHINE: &str = "rotacheck.dev/machine";
pub(super) const CELL: &str = "rotacheck.dev/cell";

/// A name for this run: `PID-HEX`. The process that has to clean up stands in it.
pub(super) fn run() -> String {
    // The standard library seeds it from the system.
    format!("{}-{:04x}", std::process::id(), RandomState::new().hash_one(0u8) & 0xffff)
}

/// This machine, as far as the numbers of processes go: whoever lives in another container has others.
pub(super) fn machine() -> String {
    let pids = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let name = rustix::system::uname();
    let digest = Sha256::digest([name.nodename().to_bytes(), pids.as_os_str().as_encoded_bytes()].concat());
    hex::encode(&digest[..6])
}

/// The labels of what a run makes, by which it is found when the run is over.
#[cfg(feature = "kubernetes")]
pub fn run_labels() -> std::collections::BTreeMap<String, String> {
    [(RUN, run()), (MACHINE, machine())].map(|(name, value)| (name.to_owned(), value)).into()
}

/// The process of a run, by its name.
fn maker(run: &str) -> Option<u32> {
    let (pid, random) = run.split_once('-')?;
    let is_ours = random.len() == 4 && random.bytes().all(|b| b.is_ascii_hexdigit());
    pid.parse().ok().filter(|_| is_ours)
}

/// Whether it was a run on this machine, which is over.
pub(super) fn is_over(run: &str) -> bool {
    maker(run).is_some_and(|pid| !runs(pid))
}

/// Whether this process runs, and is a rotacheck: numbers are given again.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "rotacheck")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_of_a_rotacheck_is_known_by_its_name() {
        assert_eq!(maker("4711-00af"), Some(4711));
        assert_eq!(maker(&run()), Some(std::process::id()));
        for name in ["", "kind", "dev", "4711", "x-00af", "4711-00afb", "4711-00ag"] {
            assert_eq!(maker(name), None, "{name}");
            assert!(!is_over(name), "{name}");
        }
        assert!(!runs(std::process::id()), "this is a test, which has another name");
        assert!(is_over(&run()));
    }

    #[test]
    fn the_machine_has_one_name_that_is_fit_for_a_label() {
        assert_eq!(machine(), machine());
        assert!(machine().len() == 12 && machine().bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
