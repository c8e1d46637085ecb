//! The images of the cells whose proxies are to be in containers.

use std::collections::BTreeMap;

use super::fetch::Talk;
use super::{CliError, Exit};
use crate::fleet::{ContainerError, Docker, EnvoyImage, Vessel};
use crate::plan::Cell;
use crate::timeline::{CellId, EnvoyRequest, EnvoySubject};

/// Docker, with the images of a plan.
pub(super) struct Containers {
    docker: Docker,
    images: BTreeMap<EnvoyRequest, EnvoyImage>,
}

impl Containers {
    /// What the cells of a plan need of Docker; `None` if they need nothing of it.
    pub(super) async fn provide(cells: &[Cell], offline: bool) -> Result<Option<Self>, CliError> {
        let mut docker = None;
        let mut images = BTreeMap::new();
        for cell in cells.iter().filter(|cell| cell.scenario.fleet.kind.is_container()) {
            if images.contains_key(&cell.envoy) {
                continue;
            }
            let image = Docker::image_of(&cell.envoy).ok_or_else(|| {
                let told = format!("in a container, an Envoy comes in an image: {} is none", cell.envoy);
                CliError::with_hint(Exit::Usage, told, "--envoy takes a version or image=NAME:TAG there")
            })?;
            let here = match &docker {
                Some(docker) => docker,
                None => docker.insert(Docker::find().await.map_err(|e| refused(&e))?),
            };
            let line = Talk::new().line();
            let found = here.envoy(image, !offline, &|doing| line.tell(doing)).await;
            line.clear();
            images.insert(cell.envoy.clone(), found.map_err(|e| refused(&e))?);
        }
        Ok(docker.map(|docker| Self { docker, images }))
    }

    /// The image of a cell's Envoy.
    pub(super) fn subject(&self, cell: &Cell) -> EnvoySubject {
        let image = &self.images[&cell.envoy];
        EnvoySubject { version: image.version.clone(), source: format!("image {}", image.reference) }
    }

    /// What a cell's containers are made of.
    pub(super) fn vessel(&self, cell: &Cell, id: &CellId) -> Vessel {
        Vessel { docker: self.docker.clone(), image: self.images[&cell.envoy].clone(), cell: id.clone() }
    }

    /// Digests by image.
    pub(super) fn digests(&self) -> impl Iterator<Item = (String, String)> {
        self.images.values().map(|image| (format!("image {}", image.reference), image.digest.clone()))
    }
}

fn refused(e: &ContainerError) -> CliError {
    let told = format!("cannot {e}");
    match e.hint() {
        Some(hint) => CliError::with_hint(Exit::CouldNotTell, told, hint),
        None => CliError::new(Exit::CouldNotTell, told),
    }
}
