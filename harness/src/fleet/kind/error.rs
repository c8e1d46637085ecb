//! Why a cluster can't be had.

use camino::Utf8PathBuf;

use crate::cluster::ClusterError;
use crate::fleet::call::CallError;

/// Why a cluster can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// A program that makes the cluster.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no such cluster.
    #[error("find the kind cluster {name}: there {}", found(.there))]
    NoCluster {
        /// As it was asked for.
        name: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// An image of ours is not on this machine.
    #[error("find the relay's image {image} on this machine")]
    NoRelay {
        /// Which.
        image: String,
    },
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A pod that was to say which versions there are did not.
    #[error("learn which versions {image} has: {state}{events}")]
    Unmeasured {
        /// The image.
        image: String,
        /// What became of the pod.
        state: String,
        /// What its node says, a line each.
        events: String,
    },
    /// A file that these programs are to read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn found(there: &[String]) -> String {
    if there.is_empty() { "is none".to_owned() } else { format!("is {}", there.join(", ")) }
}

impl KindError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Call(e) => return Self::hint_of_call(e),
            Self::NoCluster { .. } => "--cluster names one of these; without it one is made for the run".into(),
            Self::NoRelay { .. } => "ci/image/build makes it; --relay-image names another".into(),
            Self::Cluster(e) => e.hint(),
            Self::Unmeasured { .. } => "can the nodes pull it? --istio-hub and --istio-tag name the image".into(),
            Self::File { .. } => return None,
        })
    }

    fn hint_of_call(e: &CallError) -> Option<String> {
        e.hint().or_else(|| {
            Some(match e {
                CallError::Start { program, .. } => {
                    format!("{program} has to be on the PATH; docs/guide/in-a-kind-cluster.md says where to get it")
                }
                CallError::Failed { said, .. } if said.contains("not found") && said.contains("docker") => {
                    "kind needs Docker, or Podman, on the PATH".into()
                }
                CallError::Failed { program: "kind", .. } => "`docker info` says whether Docker is well; --node-image \
                     names another image for the nodes"
                    .into(),
                CallError::Failed { program: "istioctl", .. } => {
                    "are hub and tag those of an Istio, and is istioctl as \
                     old? `istioctl version --remote=false` says"
                        .into()
                }
                CallError::Failed { .. } | CallError::Hangs { .. } => return None,
            })
        })
    }
}
