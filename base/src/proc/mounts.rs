//! Mounts of a process's own: a namespace that nobody else sees, and that ends with its last process.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use camino::Utf8Path;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// The hidden subcommand that makes the harness's executable mount a file and then become another program.
pub const MOUNTED: &str = "__mounted";

/// Why a process can't have mounts of its own here; tried out, in a thread that ends with the trial.
pub fn private_mounts() -> Result<(), String> {
    let trial = std::thread::Builder::new().name("mounts".into()).spawn(|| {
        unshare()?;
        mount_bind("/", "/").map_err(io::Error::from)
    });
    match trial.map(std::thread::JoinHandle::join) {
        Ok(Ok(done)) => done.map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("the trial panicked".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// Shows what is at `from` also at `to`, to this process and its children only, and then becomes the program. Returns
/// only if that fails.
pub fn become_with_mount(from: &Utf8Path, to: &Utf8Path, program: &[String]) -> io::Error {
    let [program, args @ ..] = program else { return io::ErrorKind::InvalidInput.into() };
    if let Err(e) = unshare().and_then(|()| mount_bind(from.as_str(), to.as_str()).map_err(io::Error::from)) {
        return io::Error::new(e.kind(), format!("{from} can't be mounted at {to}: {e}"));
    }
    Command::new(program).args(args).exec()
}

/// From here on the calling thread's mounts are its own, and none of them spreads.
fn unshare() -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix warns of namespaces that threads of one process don't share")]
    // SAFETY: only NEWNS, which changes which files a path leads this one thread to; no memory and no file descriptors.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_nothing_mounted() {
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        // Whether it works depends on the privileges of who runs the tests.
        let _ = private_mounts();
        assert_eq!(mounts(), before);
    }
}
