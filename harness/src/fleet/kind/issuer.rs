//! What is made in a cell's namespace to issue certificates there.

use camino::Utf8PathBuf;
use serde_json::Value;
use tokio::task::JoinSet;

use super::yard::Yard;
use crate::fleet::FleetError;
use crate::timeline::ImageReference;

/// An issuer in a cell's namespace, with which it goes.
pub struct IssuerThere {
    /// As its program tells it.
    pub version: String,
    /// What it says is kept in these.
    pub logs: Vec<Utf8PathBuf>,
    /// They are kept as long as this is.
    pub(super) _following: JoinSet<()>,
}

impl Yard {
    /// The objects of a manifest, in which `known` is filled in, and what all of them have.
    pub(super) fn filled(
        &self,
        manifest: &str,
        image: &ImageReference,
        known: &[(&str, &str)],
    ) -> Result<Vec<Value>, FleetError> {
        let image = image.to_string();
        let everywhere =
            [("{namespace}", self.name()), ("{uid}", &self.uid), ("{run}", &self.place.run), ("{image}", &image)];
        let all = everywhere.iter().chain(known);
        let text = all.fold(manifest.to_owned(), |text, (name, value)| text.replace(name, value));
        serde_saphyr::from_multiple(&text).map_err(|e| FleetError::Manifest { why: e.to_string() })
    }

    /// A pod can't be made before its service account.
    pub(super) async fn create_in_order(&self, objects: &[Value]) -> Result<(), FleetError> {
        for object in objects {
            self.place.cluster.create(object).await?;
        }
        Ok(())
    }
}
