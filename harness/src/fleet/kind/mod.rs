//! Pods of a kind cluster, with the sidecars that Istio injects there: a namespace for each cell, in it a relay on each node
//! that stands for the provider, and a pod for each proxy. Everything that judges stays in the harness; what is in the
//! cluster carries bytes.

mod asked;
mod attend;
mod error;
mod issuer;
mod life;
mod lives;
mod log;
mod measure;
mod mesh;
mod pods;
mod present;
mod spire;
mod sweep;
mod tbot;
mod ways;
mod yard;

use std::fmt;
use std::sync::Arc;

pub use asked::Asked;
pub use error::KindError;
pub use issuer::IssuerThere;
pub use life::{Issuers, Kind, KindConfig};
pub(super) use pods::{Pods, start};
pub use spire::{Gated, SpireImages};
pub(super) use sweep::{cluster, clusters, delete, left_in};
pub use yard::Yard;

use crate::cluster::Cluster;
use crate::timeline::ImageReference;

/// A cluster in which cells may be.
#[derive(Clone)]
pub struct Place {
    /// Its API server.
    cluster: Cluster,
    /// The image of rotacheck itself.
    relay_image: String,
    /// SPIRE's, for cells in which it issues.
    spire: SpireImages,
    /// tbot's, likewise.
    tbot: ImageReference,
    /// Istio's bootstrap template, if its image told it.
    bootstrap: Option<Arc<str>>,
    /// What is made there is labelled with this.
    run: String,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({}, {})", self.cluster.context(), self.run)
    }
}
