//! What runs left behind that are over: where a harness was killed, or was told to keep it.

use std::fmt;

use super::call::CallError;
use super::container::{containers_left_behind, sweep_container};
#[cfg(feature = "kubernetes")]
use super::kind::{KindError, clusters, left_in};
#[cfg(feature = "kubernetes")]
use crate::cluster::{Cluster, Labelled};

/// Something that was left behind.
pub enum Left {
    /// A proxy's container.
    Container(String),
    /// A kind cluster.
    #[cfg(feature = "kubernetes")]
    Cluster(String),
    /// A namespace, a Job or a Pod in a cluster that stays.
    #[cfg(feature = "kubernetes")]
    Object {
        /// The cluster's name.
        of: String,
        /// Where it is.
        cluster: Box<Cluster>,
        /// What it is.
        object: Box<Labelled>,
    },
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container {name}"),
            #[cfg(feature = "kubernetes")]
            Self::Cluster(name) => write!(f, "kind cluster {name}"),
            #[cfg(feature = "kubernetes")]
            Self::Object { of, object, .. } => write!(f, "{object} in the cluster {of}"),
        }
    }
}

/// Why something can't be looked for, or taken away. Reads well after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Docker.
    #[error(transparent)]
    Docker(#[from] CallError),
    /// kind, or a cluster.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Kind(#[from] KindError),
}

impl SweepError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Docker(e) => e.hint(),
            #[cfg(feature = "kubernetes")]
            Self::Kind(e) => e.hint(),
        }
    }

    /// The program with which it would have been made is not on this machine.
    fn is_without_program(&self) -> bool {
        let call = match self {
            Self::Docker(e) => e,
            #[cfg(feature = "kubernetes")]
            Self::Kind(KindError::Call(e)) => e,
            #[cfg(feature = "kubernetes")]
            Self::Kind(_) => return false,
        };
        matches!(call, CallError::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// What was found, and where it could not be looked.
#[derive(Default)]
pub struct Search {
    /// What is left.
    pub left: Vec<Left>,
    /// Why there may be more.
    pub blind: Vec<SweepError>,
}

/// Looks for what is left: containers; kind clusters, and what is in those that stay; with `context`, what is in that
/// cluster. Where the program is missing that makes such things, there are none.
pub async fn left_behind(context: Option<&str>) -> Search {
    let mut search = Search::default();
    match containers_left_behind().await {
        Ok(names) => search.left.extend(names.into_iter().map(Left::Container)),
        Err(e) => search.missed(e.into()),
    }
    #[cfg(feature = "kubernetes")]
    search.look_into_clusters(context).await;
    #[cfg(not(feature = "kubernetes"))]
    let _ = context;
    search
}

impl Search {
    fn missed(&mut self, e: SweepError) {
        if !e.is_without_program() {
            self.blind.push(e);
        }
    }

    #[cfg(feature = "kubernetes")]
    async fn look_into_clusters(&mut self, context: Option<&str>) {
        let (over, others) = clusters().await.unwrap_or_else(|e| {
            self.missed(e.into());
            (Vec::new(), Vec::new())
        });
        self.left.extend(over.into_iter().map(Left::Cluster));
        for name in others {
            self.look_into(&name, super::kind::cluster(&name).await).await;
        }
        if let Some(context) = context {
            self.look_into(context, Cluster::of_context(Some(context)).await.map_err(KindError::from)).await;
        }
    }

    #[cfg(feature = "kubernetes")]
    async fn look_into(&mut self, of: &str, cluster: Result<Cluster, KindError>) {
        let found = async {
            let cluster = cluster?;
            let objects = left_in(&cluster).await?;
            Ok::<_, KindError>((cluster, objects))
        };
        match found.await {
            Ok((cluster, objects)) => self.left.extend(objects.into_iter().map(|object| Left::Object {
                of: of.to_owned(),
                cluster: Box::new(cluster.clone()),
                object: Box::new(object),
            })),
            Err(e) => self.missed(e.into()),
        }
    }
}

/// Takes it away.
pub async fn sweep(left: &Left) -> Result<(), SweepError> {
    match left {
        Left::Container(name) => sweep_container(name).await?,
        #[cfg(feature = "kubernetes")]
        Left::Cluster(name) => super::kind::delete(name).await?,
        #[cfg(feature = "kubernetes")]
        Left::Object { cluster, object, .. } => cluster.delete(object).await.map_err(KindError::from)?,
    }
    Ok(())
}
