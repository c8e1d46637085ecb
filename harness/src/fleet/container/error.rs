//! Why containers can't be had.

use crate::fleet::call::CallError;
use crate::timeline::ImageReference;

/// Why containers can't be had. Reads well after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Docker.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Containers would not share this machine's network.
    #[error("reach containers on loopback: Docker runs on {system}, and they with it")]
    Elsewhere {
        /// As it calls itself.
        system: String,
    },
    /// The image is not here, and nothing may be downloaded.
    #[error("find the image {0} on this machine")]
    Absent(ImageReference),
    /// The image is not here, and was not to be had.
    #[error("{why}")]
    Pull {
        /// Which.
        image: ImageReference,
        /// What Docker says.
        why: CallError,
    },
    /// What is in it is no Envoy.
    #[error("learn which Envoy the image {image} has: {why}")]
    Unmeasured {
        /// Which.
        image: ImageReference,
        /// What was tried, or what its program said.
        why: String,
    },
}

impl ContainerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Call(CallError::Start { .. }) => {
                "docker has to be on the PATH (Debian: apt-get install docker.io); --topology process needs none".into()
            }
            Self::Call(e) => return e.hint(),
            Self::Elsewhere { .. } => "run rotacheck where Docker runs: `docker context ls` says where that is".into(),
            Self::Absent(image) => format!("leave out --offline, or `docker pull {image}`"),
            Self::Pull { image, .. } => format!(
                "`docker pull {image}` has to work here; --envoy image=NAME:TAG names another image, and one that is on \
                 this machine is not pulled"
            ),
            Self::Unmeasured { .. } => {
                format!("the image has to have an Envoy of this machine's architecture at {}", super::ENVOY)
            }
        })
    }
}
