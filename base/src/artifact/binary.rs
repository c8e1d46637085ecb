//! What an executable says of itself.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::Utf8Path;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{ArtifactError, Program};
use crate::clock::Deadline;
use crate::proc::dies_with_us;
use crate::timeline::EnvoyVersion;

/// An Envoy answers within some 30 ms, a program of Istio's within 100.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The version that the executable reports. `path` must be absolute, lest PATH is searched.
pub(super) async fn measure(path: &Utf8Path) -> Result<EnvoyVersion, ArtifactError> {
    let answer = asked(path, &["--version"]).await?;
    if let Some(version) = version_told(&answer.stdout) {
        return Ok(version);
    }
    let said = answer.first_line().unwrap_or_default();
    Err(ArtifactError::NotEnvoy { path: path.to_owned(), said })
}

/// The version that a program of Istio's or SPIRE's reports; `None` if its makers built none into it, as those of a
/// release do. `path` must be absolute.
pub(super) async fn reported(path: &Utf8Path, program: Program) -> Result<Option<String>, ArtifactError> {
    let answer = asked(path, program.version_arguments()).await?;
    // "client version: 1.31.2", "1.13.3-dev-unk"
    let version = answer.first_line().and_then(|line| line.split_whitespace().last().map(str::to_owned));
    Ok(version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit()) && !version.ends_with("-unk")))
}

/// What an executable that runs here answers.
async fn asked(path: &Utf8Path, arguments: &[&str]) -> Result<Answer, ArtifactError> {
    // Before it is started: what the kernel refuses to execute, `execvp` hands to a shell.
    if let Some(why) = foreign(path).map_err(|e| ArtifactError::io("read", path, e))? {
        return Err(ArtifactError::WrongPlatform { path: path.to_owned(), why });
    }
    let deadline = Deadline::after(PATIENCE);
    let does_not_run = |said| Err(ArtifactError::DoesNotRun { path: path.to_owned(), said });
    let answer = match tokio::time::timeout_at(deadline.instant(), ask(path, arguments, deadline)).await {
        Ok(answer) => answer.map_err(|e| cannot_start(path, e))?,
        Err(_) => return does_not_run(format!("it said nothing for {} seconds", PATIENCE.as_secs())),
    };
    if answer.status.success() {
        return Ok(answer);
    }
    // The loader's complaint about a C library that is too old is on stderr.
    does_not_run(first_line(&answer.stderr).unwrap_or_else(|| answer.status.to_string()))
}

struct Answer {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn first_line(&self) -> Option<String> {
        first_line(&self.stdout).or_else(|| first_line(&self.stderr))
    }
}

fn first_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(shortened)
}

async fn ask(path: &Utf8Path, arguments: &[&str], deadline: Deadline) -> io::Result<Answer> {
    let mut command = tokio::process::Command::new(path);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    dies_with_us(&mut command);
    let mut child = loop {
        match command.spawn() {
            // A process that was forked elsewhere while the file was being written holds it open until its own exec:
            // nothing that could be awaited, and over in a moment.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && !deadline.passed() => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            spawned => break spawned?,
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(read_bounded(stdout), read_bounded(stderr))?;
    Ok(Answer { status: child.wait().await?, stdout, stderr })
}

async fn read_bounded(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(LONGEST_ANSWER).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What an Envoy says of itself: `/x/envoy  version: <commit>/1.38.3/Clean/RELEASE/BoringSSL`.
pub fn version_told(text: &str) -> Option<EnvoyVersion> {
    let (_, build) = text.split_once("version: ")?;
    let mut parts = build.trim().split('/');
    let (_commit, version, _state) = (parts.next()?, parts.next()?, parts.next()?);
    EnvoyVersion::parse(version).ok()
}

fn cannot_start(path: &Utf8Path, e: io::Error) -> ArtifactError {
    let path = path.to_owned();
    match e.kind() {
        io::ErrorKind::PermissionDenied => {
            let noexec = rustix::fs::statvfs(path.as_std_path())
                .is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC));
            ArtifactError::NotExecutable { why: e.to_string(), path, noexec }
        }
        io::ErrorKind::NotFound if path.exists() => {
            let why = "the loader or interpreter that it names does not exist (Envoy needs glibc)".into();
            ArtifactError::WrongPlatform { path, why }
        }
        _ => ArtifactError::io("started", &path, e),
    }
}

/// Why the file can't be a program of this machine: it is neither a script nor an ELF file for this processor
/// (`e_machine`, at 18 in the header).
fn foreign(path: &Utf8Path) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let mut header = Vec::new();
    std::fs::File::open(path)?.take(20).read_to_end(&mut header)?;
    if header.starts_with(b"#!") {
        return Ok(None);
    }
    if !header.starts_with(b"\x7fELF") || header.len() < 20 {
        return Ok(Some("it is not an executable of this operating system".into()));
    }
    let machine = match u16::from_le_bytes([header[18], header[19]]) {
        0x03 => "x86",
        0x28 => "arm",
        0x3e => "x86_64",
        0xb7 => "aarch64",
        0xf3 => "riscv64",
        _ => "another processor",
    };
    let here = std::env::consts::ARCH;
    Ok((machine != here).then(|| format!("it is built for {machine}, and this is {here}")))
}

fn shortened(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use camino::Utf8PathBuf;

    use super::*;

    fn file(contents: &[u8], mode: u32) -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("envoy");
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (dir, path)
    }

    async fn refused(contents: &[u8], mode: u32) -> ArtifactError {
        let (_dir, path) = file(contents, mode);
        measure(&path).await.unwrap_err()
    }

    #[test]
    fn the_version_is_the_second_part_of_the_build() {
        let version = |text| version_told(text).map(|v| v.to_string());
        let answer = "\n/x/envoy  version: 0ebfcfe5/1.38.3/Modified/RELEASE/BoringSSL\n\n";
        assert_eq!(version(answer).as_deref(), Some("1.38.3"));
        assert_eq!(version("envoy  version: 0eb/1.39.0-dev/Clean/DEBUG/BoringSSL").as_deref(), Some("1.39.0-dev"));
        for other in ["", "ls (GNU coreutils) 9.1", "version: 1.38.3", "version: a/b/c", "version: //"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn the_measured_version_is_what_the_executable_prints() {
        let (_dir, path) = file(b"#!/bin/sh\necho \"$0  version: 0eb/1.2.3/Clean/RELEASE/BoringSSL\"\n", 0o755);
        assert_eq!(measure(&path).await.unwrap().as_str(), "1.2.3");
    }

    #[tokio::test]
    async fn a_file_without_execute_permission_is_named_as_that() {
        let e = refused(b"#!/bin/sh\n", 0o644).await;
        assert!(matches!(&e, ArtifactError::NotExecutable { noexec: false, .. }), "{e}");
        assert!(e.hint().unwrap().starts_with("chmod +x /"));
    }

    #[tokio::test]
    async fn another_program_is_no_envoy() {
        let e = refused(b"#!/bin/sh\necho ls 9.1\n", 0o755).await;
        assert!(e.to_string().ends_with("is not an Envoy: to --version it said \"ls 9.1\""), "{e}");
    }

    #[tokio::test]
    async fn an_executable_for_another_processor_is_named_as_that() {
        let mut header = [0u8; 64];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        header[16] = 2;
        header[18] = 0xf3;
        let e = refused(&header, 0o755).await;
        assert!(e.to_string().contains("built for riscv"), "{e}");
    }

    #[tokio::test]
    async fn what_is_no_program_is_not_handed_to_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("ran");
        for text in [format!("echo > {}\n", ran.display()), String::new()] {
            let e = refused(text.as_bytes(), 0o755).await;
            assert!(matches!(&e, ArtifactError::WrongPlatform { .. }), "{e}");
            assert!(!ran.exists());
        }
    }

    #[tokio::test]
    async fn the_complaint_of_the_loader_is_shown() {
        let complaint = "envoy: /lib/libc.so.6: version `GLIBC_2.38' not found (required by envoy)";
        let loader = format!("#!/bin/sh\ncat >&2 <<'END'\n{complaint}\nEND\nexit 1\n");
        let e = refused(loader.as_bytes(), 0o755).await;
        assert!(e.to_string().ends_with(&format!("does not run here: {complaint}")));
    }

    #[tokio::test]
    async fn a_missing_interpreter_is_not_a_missing_file() {
        let e = refused(b"#!/no/such/interpreter\n", 0o755).await;
        assert!(matches!(&e, ArtifactError::WrongPlatform { .. }), "{e}");
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let e = refused(b"#!/bin/sh\nwhile :; do echo yes; done\n", 0o755).await;
        assert!(matches!(&e, ArtifactError::DoesNotRun { .. } | ArtifactError::NotEnvoy { .. }), "{e}");
    }
}
