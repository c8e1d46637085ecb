//! The programs that make a cluster: kind and istioctl, as they are on the user's PATH.

use std::process::Stdio;
use std::time::Duration;

use camino::Utf8Path;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::KindError;
use crate::proc::Errand;

/// Of what a program says, so many bytes; its last lines are told where it fails.
const MOST: u64 = 1 << 20;
const LAST_LINES: usize = 12;

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
    pub(super) async fn run(self) -> Result<String, KindError> {
        let mut command = Command::new(self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(kubeconfig) = self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let mut errand = Errand::start(&mut command).map_err(|source| KindError::Start {
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
            return Err(KindError::Hangs { what: self.what, program: self.program, patience: self.patience });
        };
        let status =
            ended.map_err(|source| KindError::Start { what: self.what.clone(), program: self.program, source })?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        if status.success() {
            return Ok(printed);
        }
        let said = [String::from_utf8_lossy(&told).as_ref(), &printed].map(last_lines).concat();
        Err(KindError::Failed { what: self.what, program: self.program, said })
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

    #[tokio::test]
    async fn one_that_is_missing_and_one_that_hangs_are_told_apart() {
        let missing = call("rotacheck-no-such-program", &[], PATIENT).run().await.unwrap_err();
        assert!(matches!(missing, KindError::Start { .. }) && missing.hint().unwrap().contains("PATH"), "{missing}");
        let hangs = call("sleep", &["1000"], Duration::from_millis(50)).run().await.unwrap_err();
        assert!(matches!(hangs, KindError::Hangs { .. }), "{hangs}");
    }
}
