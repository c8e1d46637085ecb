//! The user's own Go, with whatever proxy and checksum database it is configured for.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use camino::Utf8Path;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::error::GoTrouble;
use super::pip::executable;
use super::{ArtifactError, ModuleSum};
use crate::clock::Deadline;
use crate::proc::Errand;
use crate::timeline::ProgramVersion;

/// Istio's control plane takes several minutes on two processors.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// Of what Go prints as an answer, and of what it says besides.
const LONGEST_ANSWER: u64 = 16 << 20;
const LAST_WORDS: usize = 40;

/// A Go that answered.
#[derive(Debug, Clone)]
pub struct Go {
    program: PathBuf,
    search_path: OsString,
    settings: Settings,
    /// Whether a program's C parts are compiled in.
    cgo: bool,
}

/// What `go env` says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Settings {
    goversion: String,
    gotoolchain: String,
    goproxy: String,
    gocache: String,
    cc: String,
}

/// A module in Go's own cache, its files verified against `go.sum` or the checksum database.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Downloaded {
    pub(super) version: ProgramVersion,
    pub(super) sum: ModuleSum,
    pub(super) go_mod_sum: ModuleSum,
    /// Where its files are.
    pub(super) dir: camino::Utf8PathBuf,
}

impl Go {
    /// Looks for one along `search_path`, a value of PATH.
    pub async fn find(search_path: &OsStr) -> Result<Self, ArtifactError> {
        let program = executable("go", search_path).ok_or(ArtifactError::GoMissing)?;
        let go = Self { program, search_path: search_path.to_owned(), settings: Settings::default(), cgo: false };
        let doing = "say how it is set up";
        let settings = ["env", "-json", "GOVERSION", "GOTOOLCHAIN", "GOPROXY", "GOCACHE", "CC"];
        let settings = go.run(None, &settings, doing, &mut |_| ()).await?.parsed(doing)?;
        Ok(Self { settings, ..go })
    }

    /// What it says of itself: `go1.26.8`.
    pub fn version(&self) -> &str {
        &self.settings.goversion
    }

    /// Whether it is as new as a module's `go` directive (`1.26.0`) asks for.
    pub fn is_as_new_as(&self, directive: &str) -> bool {
        numbers(self.version().trim_start_matches("go")) >= numbers(directive)
    }

    /// Whether it may fetch a newer one of itself (`GOTOOLCHAIN`).
    pub fn may_fetch_a_newer(&self) -> bool {
        self.settings.gotoolchain != "local" && !self.settings.gotoolchain.starts_with("go")
            || self.settings.gotoolchain.contains("+auto")
    }

    /// Whether it may download modules (`GOPROXY`).
    pub fn may_download(&self) -> bool {
        self.settings.goproxy != "off"
    }

    /// Where it keeps what it has compiled.
    pub fn build_cache(&self) -> &Utf8Path {
        Utf8Path::new(&self.settings.gocache)
    }

    /// The C compiler that it would call, where that can be found.
    pub fn c_compiler(&self) -> Option<&str> {
        // A command line: `ccache gcc`.
        let name = self.settings.cc.split_whitespace().next()?;
        let found = name.contains('/') || executable(name, &self.search_path).is_some();
        found.then_some(&self.settings.cc)
    }

    /// One that compiles C parts in, or leaves them out.
    pub(super) fn with_c(&self, cgo: bool) -> Self {
        Self { cgo, ..self.clone() }
    }

    /// Has a module in Go's cache. `query` is a version, or what names one. `go.sum` in `dir`, if it has the module,
    /// decides; else the checksum database does.
    pub(super) async fn download(
        &self,
        dir: &Utf8Path,
        module: &str,
        query: &str,
    ) -> Result<Downloaded, ArtifactError> {
        let what = format!("{module}@{query}");
        let doing = format!("download {what}");
        self.run(Some(dir), &["mod", "download", "-json", &what], &doing, &mut |_| ()).await?.parsed(&doing)
    }

    /// Runs it in the directory, with its scratch files beside that, and hands on each line of what it says meanwhile; `doing`
    /// completes "go could not ...".
    pub(super) async fn run(
        &self,
        dir: Option<&Utf8Path>,
        arguments: &[&str],
        doing: &str,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Answer, ArtifactError> {
        let failed = |said: String| ArtifactError::GoFailed { doing: doing.into(), cause: GoTrouble::of(&said), said };
        let mut command = self.command(dir);
        command.args(arguments);
        let mut errand = Errand::start(&mut command).map_err(|e| failed(e.to_string()))?;
        let (stdout, stderr) = (errand.child.stdout.take(), errand.child.stderr.take());
        let work = async {
            let (stdout, said) = tokio::try_join!(whole(stdout), lines(stderr, on_line))?;
            Ok::<_, std::io::Error>((errand.wait().await?, stdout, said))
        };
        let answer = tokio::time::timeout_at(Deadline::after(PATIENCE).instant(), work).await;
        let answer = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let (status, stdout, said) = answer.map_err(|e| failed(e.to_string()))?;
        if status.success() { Ok(Answer { stdout }) } else { Err(failed(last_words(status, &stdout, &said))) }
    }

    fn command(&self, dir: Option<&Utf8Path>) -> Command {
        let mut command = Command::new(&self.program);
        command.env("PATH", &self.search_path).env_remove("PWD");
        match dir {
            Some(dir) => {
                // Go passes over a go.mod in the very directory of scratch files.
                let scratch = dir.parent().unwrap_or(dir);
                command.current_dir(dir).env("TMPDIR", scratch).env("GOTMPDIR", scratch)
            }
            // No go.mod lies about there.
            None => command.current_dir("/"),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A build that depends on the module alone: no flags of the user's own, no workspace above the directory, for
        // this machine. Who may be asked for modules, and who vouches for them, stays the user's choice.
        command.envs([("GOFLAGS", "-mod=readonly"), ("GO111MODULE", "on"), ("GOWORK", "off"), ("GOOS", "linux")]);
        command.env("GOARCH", go_arch()).env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        command
    }
}

/// What Go printed on stdout.
pub(super) struct Answer {
    pub(super) stdout: String,
}

impl Answer {
    fn parsed<'a, T: Deserialize<'a>>(&'a self, doing: &str) -> Result<T, ArtifactError> {
        serde_json::from_str(&self.stdout).map_err(|e| ArtifactError::GoFailed {
            doing: doing.into(),
            said: format!("its answer can't be understood: {e}"),
            cause: GoTrouble::Other,
        })
    }
}

/// As Go names the processor.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Of a version's first three parts; what is no number counts as none.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().unwrap_or_default()
    });
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(LONGEST_ANSWER).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines, each handed on as it comes.
async fn lines(
    pipe: Option<impl AsyncRead + Unpin>,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> std::io::Result<Vec<String>> {
    let mut last = std::collections::VecDeque::new();
    let Some(pipe) = pipe else { return Ok(Vec::new()) };
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Some(line) = lines.next_segment().await? {
        let line = String::from_utf8_lossy(&line);
        on_line(&line);
        last.push_back(line.chars().filter(|c| !c.is_control() || *c == '\t').take(500).collect());
        if last.len() > LAST_WORDS {
            last.pop_front();
        }
    }
    Ok(last.into())
}

/// What Go said of the reason, on one line: of a compiler's complaints the first few.
fn last_words(status: ExitStatus, stdout: &str, said: &[String]) -> String {
    // `go mod download -json` has its error there.
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refused {
        error: String,
    }
    if let Ok(Refused { error }) = serde_json::from_str(stdout) {
        return joined(error.lines());
    }
    // Names of packages that were compiled, and of modules that were downloaded, are no complaints.
    let is_news = |line: &str| line.starts_with("go: downloading ") || !line.trim().contains(' ');
    let words = joined(said.iter().map(String::as_str).filter(|line| !is_news(line)));
    if words.is_empty() { status.to_string() } else { words }
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines = lines.map(|line| line.trim().trim_start_matches("go: ")).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.take(6).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.join("; ").chars().filter(|c| !c.is_control()).take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("1.26.8") > numbers("1.26.0") && numbers("1.9") < numbers("1.26"));
        assert_eq!(numbers("1.27rc1"), [1, 27, 0]);
        assert_eq!(numbers("devel"), [0, 0, 0]);
    }
}
