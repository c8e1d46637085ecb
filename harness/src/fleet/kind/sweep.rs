//! Clusters that a harness left behind: one that was killed, or that was told to keep them; and what it left in others.

use std::time::Duration;

use camino::Utf8PathBuf;

use super::KindError;
use crate::cluster::{Cluster, Labelled};
use crate::fleet::call::Call;
use crate::fleet::owner;

/// kind asks Docker, and ends containers.
const TO_ANSWER: Duration = Duration::from_secs(60);
const TO_DELETE: Duration = Duration::from_secs(120);

/// The kind clusters that there are: those of a rotacheck that does not run any more, and all others.
pub(crate) async fn clusters() -> Result<(Vec<String>, Vec<String>), KindError> {
    let args = ["get", "clusters"].map(str::to_owned).to_vec();
    let what = "list the kind clusters".to_owned();
    let listed = Call { what, program: "kind", args, kubeconfig: None, patience: TO_ANSWER }.run().await?;
    Ok(listed.lines().map(str::to_owned).partition(|name| is_left(name)))
}

/// By the name that it was given: `rotacheck-RUN`.
fn is_left(name: &str) -> bool {
    name.strip_prefix("rotacheck-").is_some_and(owner::is_over)
}

/// Deletes one of them. No kubeconfig but an empty one of our own is touched.
pub(crate) async fn delete(name: &str) -> Result<(), KindError> {
    let (_directory, kubeconfig) = own_kubeconfig()?;
    let args = ["delete", "cluster", "--name", name].map(str::to_owned).to_vec();
    let what = format!("delete the kind cluster {name}");
    Call { what, program: "kind", args, kubeconfig: Some(&kubeconfig), patience: TO_DELETE }.run().await?;
    Ok(())
}

/// The API server of a kind cluster.
pub(crate) async fn cluster(name: &str) -> Result<Cluster, KindError> {
    let (_directory, kubeconfig) = own_kubeconfig()?;
    let args = ["get", "kubeconfig", "--name", name].map(str::to_owned).to_vec();
    let what = format!("read the kubeconfig of {name}");
    let text = Call { what, program: "kind", args, kubeconfig: None, patience: TO_ANSWER }.run().await?;
    crate::fleet::keep::file(&kubeconfig, text.as_bytes())
        .map_err(|source| KindError::File { path: kubeconfig.clone(), source })?;
    Ok(Cluster::of_file(&kubeconfig).await?)
}

/// What runs of this machine that are over left in a cluster.
pub(crate) async fn left_in(cluster: &Cluster) -> Result<Vec<Labelled>, KindError> {
    let ours = format!("{}={}", owner::MACHINE, owner::machine());
    let found = cluster.labelled(&ours, owner::RUN).await?;
    Ok(found.into_iter().filter(|object| owner::is_over(&object.value)).collect())
}

fn own_kubeconfig() -> Result<(tempfile::TempDir, Utf8PathBuf), KindError> {
    let io = |source| KindError::File { path: std::env::temp_dir().to_string_lossy().as_ref().into(), source };
    let directory = tempfile::tempdir().map_err(io)?;
    let path = Utf8PathBuf::from(directory.path().to_string_lossy().as_ref()).join("kubeconfig");
    Ok((directory, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_rotacheck_made_that_is_gone_is_left_behind() {
        assert!(is_left(&format!("rotacheck-{}", owner::run())), "this is a test, which has another name");
        for name in ["kind", "rotacheck", "rotacheck-dev", "rotacheck-4711", "rotacheck-x-00af", "rotacheck-4711-00afb"]
        {
            assert!(!is_left(name), "{name}");
        }
    }
}
