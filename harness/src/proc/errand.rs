//! Short errands that need no guard: pip, an executable that is asked for its version.

use rustix::process::Signal;
use tokio::process::Command;

/// Lets the process die when this one is killed, and not before: Ctrl-C is for us to hear. The kernel ties it to the thread that spawns it, which has to live as
/// long as the runtime does, as its workers and the one that blocks on it do; what the process starts itself is not
/// reached. Whatever lives longer or has children belongs under a [`super::Guard`].
pub(crate) fn dies_with_us(command: &mut Command) -> &mut Command {
    let own = rustix::process::getpid();
    // The terminal's signals go to a whole group.
    command.process_group(0);
    #[expect(unsafe_code, reason = "nothing else runs in the child before it becomes the program")]
    // SAFETY: two system calls, without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have died before it was set.
            if rustix::process::getppid() == Some(own) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        })
    }
}
