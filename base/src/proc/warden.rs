//! What the guard process does. One thread, no runtime: it has to work when everything else is broken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};
use signal_hook::consts::signal as sig;

use super::wire::{self, Answer, Errno, Request, Step};
use super::{Exit, cpu_times};
use crate::timeline::LogFilter;

/// What can't be killed for so long hangs in the kernel, or belongs to another user.
const TO_KILL: Duration = Duration::from_secs(10);
/// What is run at the end may ask a busy daemon; the harness waits longer than both.
const AT_END: Duration = Duration::from_secs(30);

/// Guards until the harness closes its end of standard input or asks for the end. `Err` before it began.
pub fn run_guard() -> io::Result<()> {
    let stdin = io::stdin();
    let link = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
    // Also how a person who tries the hidden subcommand is told: a terminal has no peer.
    link.peer_addr()?;
    let mut warden = Warden::begin(link)?;
    warden.serve();
    warden.finish();
    Ok(())
}

struct Warden {
    link: UnixStream,
    /// A byte for every SIGCHLD, or for several.
    deaths: UnixStream,
    scratch: Vec<Utf8PathBuf>,
    /// What was started and is not reaped.
    running: BTreeMap<i32, String>,
    /// What they say, and what their children do, who may live longer.
    talking: BTreeMap<i32, Talk>,
    /// What is to be run when all that has ended.
    at_end: Vec<wire::Command>,
    /// What was run at the end, and how that ended.
    cleared: BTreeMap<i32, Exit>,
}

impl Warden {
    fn begin(link: UnixStream) -> io::Result<Self> {
        // Out of the reach of the terminal and of whoever kills the harness's process group. The leader of a group,
        // which the harness makes us, is refused, and out of it already.
        let _ = rustix::process::setsid();
        // Handlers rather than SIG_IGN, which the started processes would inherit.
        let noted = Arc::new(AtomicBool::new(false));
        for signal in [sig::SIGHUP, sig::SIGINT, sig::SIGQUIT, sig::SIGTERM, sig::SIGUSR1, sig::SIGUSR2, sig::SIGALRM] {
            signal_hook::flag::register(signal, Arc::clone(&noted))?;
        }
        let (deaths, note) = UnixStream::pair()?;
        deaths.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(sig::SIGCHLD, note)?;
        // The descendants whose parents die become our children.
        rustix::process::set_child_subreaper(Some(Pid::INIT))?;
        Ok(Self {
            link,
            deaths,
            scratch: Vec::new(),
            running: BTreeMap::new(),
            talking: BTreeMap::new(),
            at_end: Vec::new(),
            cleared: BTreeMap::new(),
        })
    }

    fn serve(&mut self) {
        let mut received = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let mut watched = vec![readable(&self.link), readable(&self.deaths)];
            watched.extend(self.talking.values().map(|talk| readable(&talk.pipe)));
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
            let [link, deaths, talks @ ..] = &ready[..] else { return };
            let (link, deaths) = (*link, *deaths);
            let mut talks = talks.iter();
            self.talking.retain(|_, talk| talks.next() != Some(&true) || talk.hear(AT_ONCE));
            if deaths {
                self.reap();
            }
            if !link {
                continue;
            }
            match self.link.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // The harness is gone.
                Ok(0) | Err(_) => return,
                Ok(got) => received.extend(chunk.iter().take(got)),
            }
            while let Some(end) = received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = received.drain(..=end).collect();
                match serde_json::from_str(&String::from_utf8_lossy(&line)) {
                    Ok(Request::Stop) => return,
                    Ok(request) => self.carry_out(request),
                    // Not our harness; what it has started until now still has to end.
                    Err(_) => return,
                }
            }
        }
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Begin { scratch } => {
                self.scratch = scratch;
                self.tell(&Answer::Ready);
            }
            Request::Scratch { id, path } => {
                // Only what was made here is removed: somebody else's directory of that name is not ours.
                let error = match fs::DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => {
                        self.scratch.push(path);
                        None
                    }
                    Err(e) => Some(Errno::from(&e)),
                };
                self.tell(&Answer::Scratch { id, error });
            }
            Request::AtEnd { id, command } => {
                self.at_end.push(command);
                self.tell(&Answer::Noted { id });
            }
            Request::Spawn { id, command } => match spawn(&command) {
                Ok((pid, talk)) => {
                    self.talking.insert(pid, talk);
                    self.running.insert(pid, command.what);
                    self.tell(&Answer::Spawned { id, pid });
                }
                Err((step, error)) => self.tell(&Answer::NotSpawned { id, step, error: Errno::from(&error) }),
            },
            Request::Signal { id, pid, signal } => {
                // What has died is told first, so that who gets "no such process" knows the end.
                self.reap();
                let sent = match (self.running.contains_key(&pid), Pid::from_raw(pid), Signal::from_named_raw(signal)) {
                    (true, Some(pid), Some(signal)) => rustix::process::kill_process(pid, signal),
                    (true, _, _) => Err(rustix::io::Errno::INVAL),
                    (false, _, _) => Err(rustix::io::Errno::SRCH),
                };
                match sent {
                    Ok(()) => self.tell(&Answer::Signalled { id }),
                    Err(errno) => {
                        let error = Errno::from(&io::Error::from(errno));
                        self.tell(&Answer::NotSignalled { id, error });
                    }
                }
            }
            Request::Stop => {}
        }
    }

    /// Takes notice of all that have died, started ones and adopted ones. Returns whether any child is left.
    fn reap(&mut self) -> bool {
        let mut bytes = [0; 256];
        while matches!(self.deaths.read(&mut bytes), Ok(got) if got > 0) {}
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_pid();
                    let exit = Exit { code: status.exit_status(), signal: status.terminating_signal() };
                    self.cleared.entry(pid).and_modify(|cleared| *cleared = exit);
                    if self.running.remove(&pid).is_some() {
                        // Who hears of its end reads its last words next.
                        if self.talking.get_mut(&pid).is_some_and(|talk| !talk.hear(AT_MOST)) {
                            self.talking.remove(&pid);
                        }
                        self.tell(&Answer::Exited { pid, exit });
                    }
                }
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Ends everything. A process is only ever killed while it is our own child and not reaped, so its id can't have
    /// passed to a stranger; the children of a killed one become ours, and have their turn. When no child is left,
    /// there can be no descendant.
    fn finish(&mut self) {
        let until = Instant::now() + TO_KILL;
        self.reap();
        let mut killed: Vec<String> = Vec::new();
        for (&pid, what) in &self.running {
            kill(pid);
            killed.push(what.clone());
        }
        let mut adopted: BTreeMap<i32, String> = BTreeMap::new();
        let mut quiet = false;
        let mut left = Vec::new();
        while self.reap() {
            self.hear_all();
            // Reading all of /proc is worth while only where something is left to be found.
            if self.running.is_empty() || quiet {
                for (pid, name) in children() {
                    kill(pid);
                    if !self.running.contains_key(&pid) {
                        adopted.insert(pid, name);
                    }
                }
            }
            if Instant::now() >= until {
                left.extend(children().into_iter().map(|(pid, name)| format!("process {pid} ({name})")));
                break;
            }
            quiet = matches!(poll(&mut [readable(&self.deaths)], Some(&TICK)), Ok(0));
        }
        killed.extend(adopted.into_values());
        left.extend(self.clear());
        self.hear_all();
        self.talking.clear();
        for dir in &self.scratch {
            if let Err(e) = remove(dir) {
                left.push(format!("directory {dir} ({e})"));
            }
        }
        let children_cpu_us = u64::try_from(cpu_times().children.as_micros()).unwrap_or(u64::MAX);
        self.tell(&Answer::Stopped { children_cpu_us, killed, left });
    }

    /// Runs what is to be run at the end, all at the same time; gives what failed.
    fn clear(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        let mut begun = Vec::new();
        for command in std::mem::take(&mut self.at_end) {
            match spawn(&command) {
                Ok((pid, talk)) => {
                    self.talking.insert(pid, talk);
                    self.cleared.insert(pid, Exit::UNSEEN);
                    begun.push((pid, command));
                }
                Err((_, e)) => left.push(format!("{} ({}: {e})", command.what, command.program)),
            }
        }
        let until = Instant::now() + AT_END;
        while self.reap() && Instant::now() < until {
            self.hear_all();
            let _ = poll(&mut [readable(&self.deaths)], Some(&TICK));
        }
        for (pid, command) in begun {
            match self.cleared[&pid] {
                Exit { code: Some(0), .. } => {}
                Exit::UNSEEN => {
                    kill(pid);
                    left.push(format!("{} ({} did not end)", command.what, command.program));
                }
                exit => left.push(format!("{} ({} {exit}; see {})", command.what, command.program, command.log)),
            }
        }
        left
    }

    fn hear_all(&mut self) {
        self.talking.retain(|_, talk| talk.hear(AT_MOST));
    }

    /// A harness that no longer listens is noticed where it is read from.
    fn tell(&mut self, answer: &Answer) {
        let _ = self.link.write_all(&wire::line(answer));
    }
}

/// Between two looks at the harness's requests, and at the end of a process whose children may talk for ever.
const AT_ONCE: usize = 64 << 10;
const AT_MOST: usize = 4 << 20;

/// What a process says on its way into its log. It is no file of the process's own: what it quotes of private keys must
/// never be on disk, however all of this ends.
struct Talk {
    pipe: PipeReader,
    log: File,
    filter: LogFilter,
}

impl Talk {
    /// Keeps what has come, of at most so many bytes. `false`: nothing will come any more.
    fn hear(&mut self, at_most: usize) -> bool {
        let mut chunk = [0; 16 << 10];
        let mut heard = 0;
        while heard < at_most {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return false,
                Ok(got) => {
                    heard += got;
                    let mut kept = Vec::new();
                    self.filter.hear(&chunk[..got], &mut kept);
                    // A process whose log can't be written is not to stand still for that.
                    let _ = self.log.write_all(&kept);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl Drop for Talk {
    /// A last line without an end is one too.
    fn drop(&mut self) {
        let mut kept = Vec::new();
        self.filter.finish(&mut kept);
        let _ = self.log.write_all(&kept);
    }
}

const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

fn readable(end: &impl AsFd) -> PollFd<'_> {
    PollFd::new(end, PollFlags::IN)
}

fn spawn(spec: &wire::Command) -> Result<(i32, Talk), (Step, io::Error)> {
    let log_failed = |e| (Step::Log, e);
    let log = File::options().append(true).create(true).mode(0o600).open(&spec.log).map_err(log_failed)?;
    let (pipe, said) = io::pipe().map_err(log_failed)?;
    rustix::io::ioctl_fionbio(&pipe, true).map_err(|e| log_failed(e.into()))?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(said.try_clone().map_err(log_failed)?)
        .stdout(said);
    if let Some(cwd) = &spec.cwd {
        // Otherwise it could not be told from a fault of the program. The dot asks for the right to enter it.
        fs::metadata(cwd.join(".")).map_err(|e| (Step::Cwd, e))?;
        command.current_dir(cwd);
    }
    let guard = rustix::process::getpid();
    #[expect(unsafe_code, reason = "nothing else runs in the child before it becomes the program")]
    // SAFETY: system calls only, without allocation or locks; and this process has one thread.
    unsafe {
        command.pre_exec(move || {
            // A session of its own makes it a process group of its own, one that the kernel never takes for orphaned
            // by our death: that would wake a stopped process.
            rustix::process::setsid()?;
            // The second line, should the guard itself be killed. Its only thread is the parent.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() == Some(guard) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
    let mut patience = 40;
    loop {
        match command.spawn() {
            Ok(child) => {
                let talk = Talk { pipe, log, filter: LogFilter::default() };
                return Ok((child.id().cast_signed(), talk));
            }
            // Somebody forked while the executable was being written, and still holds it open for a moment.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && spec.program.exists() => return Err((Step::Loader, e)),
            Err(e) => return Err((Step::Program, e)),
        }
    }
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // What fails is seen: the child stays.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The living children of this process, with their command names. (`/proc/PID/task/TID/children` is not in every kernel.)
fn children() -> Vec<(i32, String)> {
    let own = std::process::id().cast_signed();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let (name, parent) = name_and_parent_of_living(&String::from_utf8_lossy(&stat))?;
            (parent == own).then_some((pid, name))
        })
        .collect()
}

/// From proc_pid_stat(5): `pid (comm) state ppid ...`, where comm may hold anything.
fn name_and_parent_of_living(stat: &str) -> Option<(String, i32)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then(|| (name.to_owned(), parent))
}

fn remove(dir: &Utf8Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_parentheses_does_not_confuse() {
        let stat = "17 (a) R 1 (b c) S 42 17 17 0 -1";
        assert_eq!(name_and_parent_of_living(stat), Some(("a) R 1 (b c".to_owned(), 42)));
        assert_eq!(name_and_parent_of_living("17 (dead) Z 42 17"), None);
        assert_eq!(name_and_parent_of_living(""), None);
    }
}
