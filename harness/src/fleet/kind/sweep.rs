//! Clusters that a harness left behind: one that was killed, or that was told to keep them.

use std::time::Duration;

use super::KindError;
use super::programs::Call;

/// kind asks Docker, and ends containers.
const TO_ANSWER: Duration = Duration::from_secs(60);
const TO_DELETE: Duration = Duration::from_secs(120);

/// The kind clusters that a rotacheck made which does not run any more.
pub async fn left_behind() -> Result<Vec<String>, KindError> {
    let args = ["get", "clusters"].map(str::to_owned).to_vec();
    let what = "list the kind clusters".to_owned();
    let listed = Call { what, program: "kind", args, kubeconfig: None, patience: TO_ANSWER }.run().await?;
    Ok(listed.lines().filter(|name| maker(name).is_some_and(|pid| !runs(pid))).map(str::to_owned).collect())
}

/// Deletes one of them. No kubeconfig but an empty one of our own is touched.
pub async fn sweep(name: &str) -> Result<(), KindError> {
    let io = |source| KindError::File { path: std::env::temp_dir().to_string_lossy().as_ref().into(), source };
    let directory = tempfile::tempdir().map_err(io)?;
    let kubeconfig = camino::Utf8PathBuf::from(directory.path().to_string_lossy().as_ref()).join("kubeconfig");
    let args = ["delete", "cluster", "--name", name].map(str::to_owned).to_vec();
    let what = format!("delete the kind cluster {name}");
    Call { what, program: "kind", args, kubeconfig: Some(&kubeconfig), patience: TO_DELETE }.run().await.map(|_| ())
}

/// The process that made it, by the name that it gave: `rotacheck-PID-HEX`.
fn maker(name: &str) -> Option<u32> {
    let (pid, random) = name.strip_prefix("rotacheck-")?.split_once('-')?;
    let is_ours = random.len() == 4 && random.bytes().all(|b| b.is_ascii_hexdigit());
    pid.parse().ok().filter(|_| is_ours)
}

/// Whether this process runs, and is a rotacheck: numbers are given again.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "rotacheck")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_rotacheck_made_is_known_by_its_name() {
        assert_eq!(maker("rotacheck-4711-00af"), Some(4711));
        for name in ["kind", "rotacheck", "rotacheck-dev", "rotacheck-4711", "rotacheck-x-00af", "rotacheck-4711-00afb"]
        {
            assert_eq!(maker(name), None, "{name}");
        }
        assert!(!runs(std::process::id()), "this is a test, which has another name");
    }
}
