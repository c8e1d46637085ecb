//! Short errands that need no guard: pip, an executable that is asked for its version, a build.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

/// What was killed needs a moment until it is gone: nothing that could be awaited tells of a whole group.
const TO_VANISH: Duration = Duration::from_secs(2);

/// Lets the process die when this one is killed, and not before: Ctrl-C is for us to hear. The kernel ties it to the
/// thread that spawns it, which has to live as long as the runtime does, as its workers and the one that blocks on it
/// do; what the process starts itself is not reached (see [`Errand`]). Whatever lives longer belongs under a
/// [`super::Guard`].
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    let own = rustix::process::getpid();
    // The terminal's signals go to a whole group.
    command.process_group(0);
    #[expect(unsafe_code, reason = "nothing else runs in the child before it becomes the program")]
    // SAFETY: two system calls, without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have died before it was set.
            if rustix::process::getppid() == Some(own) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        })
    }
}

/// A process with children that stay in its group, as a compiler driver's do. When this is dropped before the process
/// has ended, all of them are killed, and gone when the drop returns. If the harness is killed, the process dies with
/// it, and its children when they have done what they were at.
pub struct Errand {
    /// With its pipes, as the command asked for them.
    pub child: Child,
}

impl Errand {
    /// Starts it.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        dies_with_us(command);
        Ok(Self { child: command.spawn()? })
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        // Without an id it has been reaped, and the group may be somebody else's by now.
        let group = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let Some(group) = group else { return };
        // It can only fail because nobody is left.
        let _ = kill_process_group(group, Signal::KILL);
        let killed = Instant::now();
        while killed.elapsed() < TO_VANISH {
            // Reaps the leader, whose number then is the group's only as long as others are in it.
            let _ = self.child.try_wait();
            if test_kill_process_group(group) == Err(Errno::SRCH) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncBufReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_an_errand_started_is_gone_when_it_is_dropped() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        let mut errand = Errand::start(&mut command).unwrap();
        let stdout = tokio::io::BufReader::new(errand.child.stdout.take().unwrap());
        let grandchild = stdout.lines().next_line().await.unwrap().unwrap().parse().unwrap();
        let grandchild = Pid::from_raw(grandchild).unwrap();
        rustix::process::test_kill_process(grandchild).unwrap();
        drop(errand);
        let status = std::fs::read_to_string(format!("/proc/{}/stat", grandchild.as_raw_nonzero()));
        // Whoever reaps orphans here may not have come to it yet.
        assert!(status.as_ref().map_or(true, |stat| stat.contains(") Z ")), "{status:?}");
    }

    #[tokio::test]
    async fn one_that_has_ended_is_left_alone() {
        let mut errand = Errand::start(&mut Command::new("/bin/true")).unwrap();
        assert!(errand.wait().await.unwrap().success());
        assert_eq!(errand.child.id(), None);
    }
}
