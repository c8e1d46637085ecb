//! The guard leaves nothing behind, however the harness ends.
//!
//! Processes are watched through a FIFO that they and all their descendants hold open for writing: its end of file is
//! the kernel's word that all of them are gone.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rotacheck::proc::{Exit, Guard, ProcError, Process, Signal, Spawn};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

/// Where the harness of [`the_harness_that_is_to_be_killed`] works.
const DIR: &str = "ROTACHECK_TEST_GUARD_DIR";

fn exe() -> &'static Utf8Path {
    Utf8Path::new(env!("CARGO_BIN_EXE_rotacheck"))
}

async fn in_time<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), event).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

struct Scratch {
    _dir: tempfile::TempDir,
    path: Utf8PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        Self { _dir: dir, path }
    }

    fn shell(&self, script: &str) -> Spawn {
        shell(&self.path, script)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path.join("log")).unwrap()
    }
}

fn shell(dir: &Utf8Path, script: &str) -> Spawn {
    Spawn {
        what: "a shell".into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: None,
        log: dir.join("log"),
    }
}

/// Processes that hold a FIFO open for writing, and write a line into it when they are up.
struct Family {
    reader: BufReader<pipe::Receiver>,
    /// As long as nobody else has opened it, this keeps the FIFO from ending.
    writer: File,
}

impl Family {
    const FIFO: &str = "family";

    /// The started one, a child, and a grandchild that left its session, lost its parent and is deaf to signals.
    fn script(dir: &Utf8Path) -> String {
        let fifo = dir.join(Self::FIFO);
        format!(
            "exec 3>{fifo}
             setsid sh -c '(trap \"\" HUP INT TERM; sh -c \"echo daemon >&3; exec sleep 1000\") & echo its parent >&3' &
             sh -c 'echo child >&3; exec sleep 1000' &
             echo parent >&3
             exec sleep 1000"
        )
    }
    const LINES: usize = 4;

    /// Before the processes start, so that they find a reader.
    fn await_in(dir: &Utf8Path) -> Self {
        let fifo = dir.join(Self::FIFO);
        mknodat(CWD, fifo.as_std_path(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let reader = BufReader::new(pipe::OpenOptions::new().open_receiver(&fifo).unwrap());
        Self { reader, writer: File::options().write(true).open(&fifo).unwrap() }
    }

    /// Waits until all are up.
    async fn born(mut self, lines: usize) -> Living {
        for _ in 0..lines {
            let mut line = String::new();
            in_time("the family", self.reader.read_line(&mut line)).await.unwrap();
        }
        drop(self.writer);
        Living(self.reader)
    }
}

struct Living(BufReader<pipe::Receiver>);

impl Living {
    /// Waits until none of them lives.
    async fn gone(mut self) {
        let mut rest = Vec::new();
        in_time("the family's end", self.0.read_to_end(&mut rest)).await.unwrap();
    }
}

async fn start(scratch: Vec<Utf8PathBuf>) -> Guard {
    in_time("the guard", Guard::start(exe(), scratch)).await.unwrap()
}

async fn exited(process: &Process) -> Exit {
    in_time("the process's end", process.exited()).await
}

#[tokio::test]
async fn a_private_key_that_a_process_says_never_comes_into_its_log() {
    let scratch = Scratch::new();
    let guard = Guard::start(exe(), Vec::new()).await.unwrap();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(scratch.path.join("key.pem"), &key).unwrap();
    // As a file has it; as Envoy quotes it; and as somebody says it who is killed in the middle.
    let script = format!(
        "cd {}; echo before; cat key.pem; echo between
         awk '{{ printf \"%s\\\\n\", $0 }}' key.pem; echo; echo after >&2; head -c 150 key.pem; kill -9 $$",
        scratch.path
    );
    let process = guard.spawn(scratch.shell(&script)).await.unwrap();
    assert_eq!(in_time("its end", process.exited()).await.signal, Some(9));
    let tail = process.log_tail(20).unwrap();
    guard.stop().await.unwrap();
    let left_out = "(a private key was left out here)";
    assert_eq!(tail, ["before", left_out, "between", left_out, "after", left_out]);
    assert_eq!(scratch.log().lines().collect::<Vec<_>>(), tail);
}

#[tokio::test]
async fn ends_are_reported_with_code_and_signal_to_all_who_wait() {
    let scratch = Scratch::new();
    let guard = start(vec![]).await;
    let seven = guard.spawn(scratch.shell("echo out; echo err >&2; exit 7")).await.unwrap();
    let (one, other) = tokio::join!(exited(&seven), exited(&seven));
    assert_eq!((one.code, one.signal), (Some(7), None));
    assert_eq!(one, other);
    assert_eq!(seven.exit_now(), Some(one));
    assert_eq!(one.to_string(), "exited with code 7");
    assert_eq!(scratch.log(), "out\nerr\n");
    assert_eq!(seven.log_tail(1).unwrap(), ["err"]);

    let sleeper = guard.spawn(scratch.shell("exec sleep 1000")).await.unwrap();
    assert_eq!(sleeper.exit_now(), None);
    sleeper.signal(Signal::TERM).await.unwrap();
    let killed = exited(&sleeper).await;
    assert_eq!((killed.code, killed.signal), (None, Some(15)));
    assert_eq!(killed.to_string(), "was killed by SIGTERM");
    let too_late = sleeper.signal(Signal::KILL).await.unwrap_err();
    assert_eq!(too_late.to_string(), "signal a shell: it was killed by SIGTERM");
    assert_eq!(guard.stop().await.unwrap().killed, Vec::<String>::new());
}

#[tokio::test]
async fn stop_kills_descendants_too_and_says_whom_and_what_they_used() {
    let scratch = Scratch::new();
    let keys = scratch.path.join("keys");
    std::fs::create_dir_all(keys.join("deep")).unwrap();
    std::fs::write(keys.join("deep/file"), "secret").unwrap();
    let family = Family::await_in(&scratch.path);
    let guard = start(vec![keys.clone(), scratch.path.join("never-made")]).await;
    let busy = guard.spawn(scratch.shell("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")).await.unwrap();
    exited(&busy).await;
    let parent = guard.spawn(scratch.shell(&Family::script(&scratch.path))).await.unwrap();
    let family = family.born(Family::LINES).await;
    let stopped = in_time("the stop", guard.stop()).await.unwrap();
    family.gone().await;
    assert_eq!(exited(&parent).await.signal, Some(9));
    assert_eq!(stopped.killed.first().map(String::as_str), Some("a shell"));
    // By the names that they happened to have: a shell, or sleep already. The daemon's parent may have been there still.
    assert!(stopped.killed.len() >= 3, "{stopped:?}");
    assert!(stopped.children_cpu > Duration::ZERO);
    assert!(!keys.exists());
}

#[tokio::test]
async fn a_scratch_directory_that_cannot_be_removed_is_reported() {
    let scratch = Scratch::new();
    let file = scratch.path.join("no-directory");
    std::fs::write(&file, "").unwrap();
    let left = start(vec![file.clone()]).await.stop().await.unwrap_err();
    assert!(left.to_string().starts_with(&format!("clean up: directory {file} (")), "{left}");
}

#[tokio::test]
async fn a_scratch_directory_is_made_private_and_only_what_was_made_is_removed() {
    let scratch = Scratch::new();
    let (made, other) = (scratch.path.join("made"), scratch.path.join("other"));
    std::fs::create_dir(&other).unwrap();
    let guard = start(vec![]).await;
    guard.make_scratch(&made).await.unwrap();
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(made.join("key"), "secret").unwrap();
    let refused = guard.make_scratch(&other).await.unwrap_err();
    let ProcError::Scratch { source, .. } = &refused else { panic!("{refused}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    guard.stop().await.unwrap();
    assert!(!made.exists() && other.exists());
}

#[tokio::test]
async fn what_is_to_be_run_at_the_end_runs_when_the_rest_has_ended_and_its_failure_is_told() {
    let scratch = Scratch::new();
    let inner = scratch.path.join("inner");
    let guard = start(Vec::new()).await;
    guard.make_scratch(&inner).await.unwrap();
    let process = guard.spawn(scratch.shell("exec sleep 1000")).await.unwrap();
    let look = format!("! kill -0 {} 2>/dev/null && test -d {inner} && echo gone", process.pid);
    guard.at_end(scratch.shell(&look)).await.unwrap();
    guard.at_end(Spawn { what: "the container x".into(), ..scratch.shell("exit 3") }).await.unwrap();
    let left = guard.stop().await.unwrap_err().to_string();
    let told = format!("clean up: the container x (/bin/sh exited with code 3; see {}) left", scratch.path.join("log"));
    assert_eq!((scratch.log().as_str(), left), ("gone\n", told));
    assert!(!inner.exists());
}

#[tokio::test]
async fn dropping_the_guard_ends_everything() {
    let scratch = Scratch::new();
    let family = Family::await_in(&scratch.path);
    let guard = start(vec![]).await;
    let parent = guard.spawn(scratch.shell(&Family::script(&scratch.path))).await.unwrap();
    let family = family.born(Family::LINES).await;
    drop(guard);
    family.gone().await;
    assert_eq!(exited(&parent).await.signal, Some(9), "a process that is held on to does not keep the guard");
    assert!(matches!(parent.signal(Signal::TERM).await, Err(ProcError::GuardLost)));
}

#[tokio::test]
async fn what_cannot_be_started_is_said_clearly() {
    let scratch = Scratch::new();
    let foreign = scratch.path.join("foreign");
    std::fs::write(&foreign, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&foreign, PermissionsExt::from_mode(0o700)).unwrap();
    let guard = start(vec![]).await;
    let complaint = async |change: fn(&mut Spawn, &Utf8Path)| {
        let mut spec = scratch.shell("exit 0");
        spec.what = "proxy a".into();
        change(&mut spec, &scratch.path);
        guard.spawn(spec).await.unwrap_err().to_string().replace(scratch.path.as_str(), "DIR")
    };
    assert_eq!(complaint(|spec, dir| spec.program = dir.join("envoy")).await, "start proxy a: there is no DIR/envoy");
    assert_eq!(
        complaint(|spec, dir| spec.program = dir.join("foreign")).await,
        "start proxy a: DIR/foreign is there, but not its loader or interpreter (built for another system?)"
    );
    assert_eq!(
        complaint(|spec, dir| spec.program = dir.to_owned()).await,
        "start proxy a: DIR: Permission denied (os error 13)"
    );
    assert_eq!(
        complaint(|spec, dir| spec.cwd = Some(dir.join("gone"))).await,
        "start proxy a in DIR/gone: No such file or directory (os error 2)"
    );
    assert_eq!(
        complaint(|spec, dir| spec.log = dir.join("gone/log")).await,
        "start proxy a: its log DIR/gone/log: No such file or directory (os error 2)"
    );
    let nul = complaint(|spec, _| spec.args.push("\0".into())).await;
    assert!(nul.starts_with("start proxy a: /bin/sh: ") && nul.contains("nul byte"), "{nul}");
    // And it goes on working.
    let fine = guard.spawn(scratch.shell("exit 0")).await.unwrap();
    assert_eq!(exited(&fine).await.code, Some(0));
}

#[tokio::test]
async fn an_executable_that_is_no_guard_is_refused() {
    let refused = in_time("the refusal", Guard::start(Utf8Path::new("/bin/false"), vec![])).await;
    assert!(matches!(refused, Err(ProcError::GuardStart { .. })));
}

#[test]
fn a_person_who_tries_the_hidden_subcommand_is_told() {
    let mut command = assert_cmd::Command::new(exe());
    let told = command.arg("__guard").assert().code(2);
    assert!(String::from_utf8_lossy(&told.get_output().stderr).contains("starts its guard processes itself"));
}

#[tokio::test]
async fn only_the_given_environment_is_passed_and_stdin_is_empty() {
    let scratch = Scratch::new();
    let guard = start(vec![]).await;
    let mut spec = scratch.shell("cat; env | grep -v ^_= | sort; pwd");
    spec.env.push(("LC_ALL".into(), "C".into()));
    spec.env.push(("GIVEN".into(), "with = and\nnew line".into()));
    spec.cwd = Some("/".into());
    exited(&guard.spawn(spec).await.unwrap()).await;
    assert_eq!(scratch.log(), "GIVEN=with = and\nLC_ALL=C\nPATH=/usr/bin:/bin\nPWD=/\nnew line\n/\n");
}

#[tokio::test]
async fn a_stopped_process_stays_stopped_until_it_is_continued() {
    let scratch = Scratch::new();
    let guard = start(vec![]).await;
    let process = guard.spawn(scratch.shell("exec sleep 1000")).await.unwrap();
    process.signal(Signal::STOP).await.unwrap();
    // The stopped process itself carries it out, and nobody but its parent is told.
    in_time("the stop", async {
        let stat = format!("/proc/{}/stat", process.pid);
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    process.signal(Signal::TERM).await.unwrap();
    assert_eq!(process.exit_now(), None);
    process.signal(Signal::CONT).await.unwrap();
    assert_eq!(exited(&process).await.signal, Some(15));
}

#[tokio::test]
async fn the_guard_withstands_the_signals_that_end_others() {
    let scratch = Scratch::new();
    let guard = start(vec![]).await;
    let pid = Pid::from_raw(guard.pid()).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::ALARM] {
        kill_process(pid, signal).unwrap();
        let process = guard.spawn(scratch.shell("exit 3")).await.unwrap();
        assert_eq!(exited(&process).await.code, Some(3), "after {signal:?}");
    }
    // What it starts does not inherit that.
    let process = guard.spawn(scratch.shell("exec sleep 1000")).await.unwrap();
    process.signal(Signal::HUP).await.unwrap();
    assert_eq!(exited(&process).await.signal, Some(1));
}

#[tokio::test]
async fn a_killed_guard_takes_its_children_along_and_is_reported() {
    let scratch = Scratch::new();
    let family = Family::await_in(&scratch.path);
    let guard = start(vec![]).await;
    let script = format!("exec 3>{}; echo up >&3; exec sleep 1000", scratch.path.join(Family::FIFO));
    let process = guard.spawn(scratch.shell(&script)).await.unwrap();
    let family = family.born(1).await;
    kill_process(Pid::from_raw(guard.pid()).unwrap(), Signal::KILL).unwrap();
    let exit = exited(&process).await;
    assert_eq!((exit.code, exit.signal), (None, None));
    family.gone().await;
    assert!(matches!(guard.spawn(scratch.shell("exit 0")).await, Err(ProcError::GuardLost)));
    assert!(matches!(in_time("the stop", guard.stop()).await, Err(ProcError::GuardLost)));
}

/// Runs [`the_harness_that_is_to_be_killed`] in a process group of its own, ends it as told, and sees that nothing of
/// its cell outlives it.
async fn nothing_outlives_a_harness(end: impl FnOnce(Pid)) {
    let scratch = Scratch::new();
    let keys = scratch.path.join("keys");
    std::fs::create_dir(&keys).unwrap();
    let family = Family::await_in(&scratch.path);
    // Whoever runs the tests may have SIGINT ignored, which is inherited.
    let mut command = std::process::Command::new("env");
    command
        .arg("--default-signal=INT")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "the_harness_that_is_to_be_killed"])
        .env(DIR, &scratch.path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut harness = tokio::process::Command::from(command).spawn().unwrap();
    let family = family.born(Family::LINES).await;
    end(Pid::from_raw(harness.id().unwrap().cast_signed()).unwrap());
    let status = in_time("the harness's end", harness.wait()).await.unwrap();
    assert!(!status.success());
    family.gone().await;
    // The guard holds the harness's stderr: its end is the guard's.
    let mut said = String::new();
    in_time("the guard's end", harness.stderr.take().unwrap().read_to_string(&mut said)).await.unwrap();
    assert!(!keys.exists(), "{said}");
    assert!(scratch.path.join("cleared").exists(), "{said}");
}

#[tokio::test]
async fn nothing_outlives_a_harness_that_is_killed() {
    nothing_outlives_a_harness(|pid| kill_process(pid, Signal::KILL).unwrap()).await;
}

#[tokio::test]
async fn ctrl_c_to_the_harness_does_not_keep_the_guard_from_cleaning_up() {
    nothing_outlives_a_harness(|pid| kill_process_group(pid, Signal::INT).unwrap()).await;
}

#[tokio::test]
async fn a_killed_process_group_does_not_keep_the_guard_from_cleaning_up() {
    nothing_outlives_a_harness(|pid| kill_process_group(pid, Signal::KILL).unwrap()).await;
}

#[tokio::test]
#[ignore = "a part of other tests, which start it and end it"]
async fn the_harness_that_is_to_be_killed() {
    let path = Utf8PathBuf::from(std::env::var(DIR).expect("the tests that start it set it"));
    let guard = Guard::start(exe(), vec![path.join("keys")]).await.unwrap();
    guard.at_end(shell(&path, &format!("touch {path}/cleared"))).await.unwrap();
    guard.spawn(shell(&path, &Family::script(&path))).await.unwrap().exited().await;
}
