//! Programs on the user's PATH that do something for the harness: docker, kind, istioctl.

use std::process::Stdio;
use std::time::Duration;

use camino::Utf8Path;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::proc::Errand;

/// Of what a program says, so many bytes; its last lines are told where it fails.
const MOST: u64 = 1 << 20;
const LAST_LINES: usize = 12;

/// Why a program did not do what it was called for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A program is missing.
    #[error("{what}: {program} can't be started: {source}")]
    Start {
        /// What it was to do.
        what: String,
        /// Which.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("{what}: {program} failed:{said}")]
    Failed {
        /// What it was to do.
        what: String,
        /// Which.
        program: &'static str,
        /// Its last lines, each on one of its own.
        said: String,
    },
    /// It did not end.
    #[error("{what}: {program} did not end within {patience:?}")]
    Hangs {
        /// What it was to do.
        what: String,
        /// Which.
        program: &'static str,
        /// That long.
        patience: Duration,
    },
}

impl CallError {
    /// What to do about it, where that is plain.
    pub fn hint(&self) -> Option<String> {
        let Self::Failed { said, .. } = self else { return None };
        let said = said.to_lowercase();
        if said.contains("permission denied") && said.contains("docker") {
            return Some(
                "this user may not use Docker's socket: join the group that owns it (`sudo usermod -aG docker \
                 $USER`, then log in anew), or run Docker rootless"
                    .into(),
            );
        }
        said.contains("docker daemon").then(|| "is Docker running, and may this user use it? `docker info` says".into())
    }
}

/// One call of a program.
pub(super) struct Call<'a> {
    /// What it does, in words: `make the kind cluster x`.
    pub(super) what: String,
    pub(super) program: &'static str,
    pub(super) args: Vec<String>,
    /// Whose cluster it is about; a user's own kubeconfig is never written.
    pub(super) kubeconfig: Option<&'a Utf8Path>,
    pub(super) patience: Duration,
}

impl Call<'_> {
    /// Runs it to its end, and returns what it printed.
    pub(super) async fn run(self) -> Result<String, CallError> {
        let mut command = Command::new(self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(kubeconfig) = self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let mut errand = Errand::start(&mut command).map_err(|source| CallError::Start {
            what: self.what.clone(),
            program: self.program,
            source,
        })?;
        let (mut printed, mut told) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (errand.child.stdout.take(), errand.child.stderr.take());
        let read = async {
            let printed = async {
                if let Some(stdout) = stdout {
                    let _ = stdout.take(MOST).read_to_end(&mut printed).await;
                }
            };
            let told = async {
                if let Some(stderr) = stderr {
                    let _ = stderr.take(MOST).read_to_end(&mut told).await;
                }
            };
            tokio::join!(printed, told);
            errand.wait().await
        };
        let ended = tokio::time::timeout(self.patience, read).await;
        let Ok(ended) = ended else {
            return Err(CallError::Hangs { what: self.what, program: self.program, patience: self.patience });
        };
        let status =
            ended.map_err(|source| CallError::Start { what: self.what.clone(), program: self.program, source })?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        if status.success() {
            return Ok(printed);
        }
        let said = [String::from_utf8_lossy(&told).as_ref(), &printed].map(last_lines).concat();
        Err(CallError::Failed { what: self.what, program: self.program, said })
    }
}

/// The last lines that say something, without what paints a terminal.
fn last_lines(text: &str) -> String {
    let plain = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned();
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines[from..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(program: &'static str, args: &[&str], patience: Duration) -> Call<'static> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Call { what: "try it".into(), program, args, kubeconfig: None, patience }
    }

    const PATIENT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_it_prints_is_told_and_what_it_complains_of_where_it_fails() {
        let printed = call("sh", &["-c", "echo x; echo y >&2"], PATIENT).run().await.unwrap();
        assert_eq!(printed, "x\n");
        let failed =
            call("sh", &["-c", "echo 'ERROR: \x1b[1mno daemon'  >&2; exit 1"], PATIENT).run().await.unwrap_err();
        assert_eq!(failed.to_string(), "try it: sh failed:\n    ERROR: [1mno daemon");
    }

    #[test]
    fn docker_that_may_not_be_used_and_docker_that_does_not_run_are_told_apart() {
        let hint = |said: &str| {
            let (what, said) = ("ask".into(), said.into());
            CallError::Failed { what, program: "docker", said }.hint().unwrap_or_default()
        };
        let refused =
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock";
        assert!(hint(refused).contains("join the group"), "{}", hint(refused));
        assert!(hint("Cannot connect to the Docker daemon at unix:///nowhere").contains("is Docker running"));
        assert_eq!(hint("No such image: x"), "");
    }

    #[tokio::test]
    async fn one_that_is_missing_and_one_that_hangs_are_told_apart() {
        let missing = call("rotacheck-no-such-program", &[], PATIENT).run().await.unwrap_err();
        assert!(matches!(missing, CallError::Start { .. }), "{missing}");
        let hangs = call("sleep", &["1000"], Duration::from_millis(50)).run().await.unwrap_err();
        assert!(matches!(hangs, CallError::Hangs { .. }), "{hangs}");
    }
}
