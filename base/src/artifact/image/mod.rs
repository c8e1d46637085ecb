//! Programs out of container images, without anything that runs containers.
//!
//! The lock file pins an image, on a platform, by the digest of its manifest, which names every layer by digest, and
//! each file that is taken from it by its own. `registry` obtains manifests and layers, `layer` reads them; both only
//! where the feature `oci` is compiled in. What is in the cache already needs neither.

#[cfg(feature = "oci")]
mod layer;
#[cfg(feature = "oci")]
mod registry;

use std::collections::BTreeMap;
use std::fmt;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

#[cfg(feature = "oci")]
use super::Platform;
use super::record::TEMPLATE;
use super::store::{OnProgress, Progress, Store, this_platform, verify};
use super::{ArtifactError, Digest, Program};
use crate::timeline::ImageReference;

/// An image in the lock file, on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// SHA-256 of its manifest.
    pub manifest_sha256: Digest,
    /// What is taken from it.
    pub files: BTreeMap<ImageFile, LockedFile>,
}

/// A file of an image in the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// How many they are.
    pub size: u64,
}

/// What is taken from an image, if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFile {
    /// Envoy; in Istio's images the one that Istio builds, with its own filters.
    Envoy,
    /// Istio's agent.
    PilotAgent,
    /// The bootstrap template that it makes Envoy's configuration from.
    BootstrapTemplate,
    /// Istio's control plane.
    PilotDiscovery,
    /// SPIRE's server.
    SpireServer,
    /// SPIRE's agent.
    SpireAgent,
}

impl ImageFile {
    /// All of them.
    #[cfg(feature = "oci")]
    pub(super) const ALL: [Self; 6] = [
        Self::Envoy,
        Self::PilotAgent,
        Self::BootstrapTemplate,
        Self::PilotDiscovery,
        Self::SpireServer,
        Self::SpireAgent,
    ];

    /// Where its makers' images have it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Envoy => "usr/local/bin/envoy",
            Self::PilotAgent => "usr/local/bin/pilot-agent",
            Self::BootstrapTemplate => "var/lib/istio/envoy/envoy_bootstrap_tmpl.json",
            Self::PilotDiscovery => "usr/local/bin/pilot-discovery",
            Self::SpireServer => "opt/spire/bin/spire-server",
            Self::SpireAgent => "opt/spire/bin/spire-agent",
        }
    }

    /// Its name in the cache.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::PilotAgent => Program::PilotAgent.name(),
            Self::BootstrapTemplate => TEMPLATE,
            Self::PilotDiscovery => Program::PilotDiscovery.name(),
            Self::SpireServer => Program::SpireServer.name(),
            Self::SpireAgent => Program::SpireAgent.name(),
        }
    }
}

impl fmt::Display for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Program {
    fn file(self) -> ImageFile {
        match self {
            Self::PilotAgent => ImageFile::PilotAgent,
            Self::PilotDiscovery => ImageFile::PilotDiscovery,
            Self::SpireServer => ImageFile::SpireServer,
            Self::SpireAgent => ImageFile::SpireAgent,
        }
    }

    /// What its makers call its image.
    fn image_name(self) -> &'static str {
        match self {
            Self::PilotAgent => "proxyv2",
            Self::PilotDiscovery => "pilot",
            Self::SpireServer | Self::SpireAgent => self.name(),
        }
    }

    /// Its image, where one of those of its component is named: makers have an image for each program, others may have
    /// one for all.
    pub fn image(self, named: &ImageReference) -> Result<ImageReference, ArtifactError> {
        let of_makers = self.component().programs().map(Self::image_name);
        if !of_makers.contains(&named.name()) {
            return Ok(named.clone());
        }
        named.beside(self.image_name()).ok_or_else(|| ArtifactError::BadImage {
            image: named.clone(),
            why: format!("a digest names one image only, and {self} is in that called {}", self.image_name()),
        })
    }
}

/// Whether images can be pulled, in this build.
pub const PULLS_IMAGES: bool = cfg!(feature = "oci");

impl Store {
    /// The file of a locked image, fetched if need be, its digest computed. `component` is what options call it.
    pub(super) async fn image_file(
        &self,
        image: &ImageReference,
        file: ImageFile,
        component: &'static str,
        progress: OnProgress<'_>,
    ) -> Result<Utf8PathBuf, ArtifactError> {
        let locked = self.locked_image(image, component)?;
        let dir = self.cache.image(&locked.manifest_sha256);
        if dir.exists() {
            progress(Progress::Verifying);
        } else if self.offline {
            return Err(ArtifactError::Offline {
                what: image.to_string(),
                component,
                version: format!("image={image}"),
            });
        } else {
            self.pull(image, locked, progress).await?;
        }
        let Some(known) = locked.files.get(&file) else { return Err(lacks(image, file)) };
        let path = dir.join(file.name());
        verify(&path, &known.sha256).await?;
        if file == ImageFile::PilotAgent {
            // Of no use without.
            let template = ImageFile::BootstrapTemplate;
            let known = locked.files.get(&template).ok_or_else(|| lacks(image, template))?;
            verify(&dir.join(template.name()), &known.sha256).await?;
        }
        Ok(path)
    }

    /// The same for a program, from the image that has it; the template of Istio's agent lies beside it.
    pub(super) async fn image_program(
        &self,
        program: Program,
        named: &ImageReference,
        progress: OnProgress<'_>,
    ) -> Result<Utf8PathBuf, ArtifactError> {
        let image = program.image(named)?;
        self.image_file(&image, program.file(), program.component().key(), progress).await
    }

    /// Whether what is locked of an image for this machine is in the cache, unverified; `None` where nothing is.
    pub fn has_image(&self, image: &ImageReference) -> Option<bool> {
        let locked = self.lock.image(image, this_platform().ok()?)?;
        Some(self.cache.image(&locked.manifest_sha256).exists())
    }

    fn locked_image(&self, image: &ImageReference, component: &'static str) -> Result<&LockedImage, ArtifactError> {
        let platform = this_platform()?;
        self.lock.image(image, platform).ok_or_else(|| {
            let known: Vec<_> = self.lock.images().map(|(image, _)| image.to_string()).collect();
            ArtifactError::NotLocked {
                what: format!("image {image} for {platform}"),
                known: if known.is_empty() { "no image".into() } else { known.join(", ") },
                component,
                version: format!("image={image}"),
            }
        })
    }

    #[cfg(not(feature = "oci"))]
    async fn pull(&self, _: &ImageReference, _: &LockedImage, _: OnProgress<'_>) -> Result<(), ArtifactError> {
        Err(ArtifactError::NoImages)
    }

    #[cfg(feature = "oci")]
    async fn pull(
        &self,
        image: &ImageReference,
        locked: &LockedImage,
        progress: OnProgress<'_>,
    ) -> Result<(), ArtifactError> {
        let digest = &locked.manifest_sha256;
        let staging = self.cache.stage(&format!("image-{digest}"), || progress(Progress::Waiting)).await?;
        if self.cache.image(digest).exists() {
            // Somebody else was quicker; their bytes are judged like any that were there before.
            return Ok(());
        }
        progress(Progress::Downloading);
        let registry = registry::Registry::of(image)?;
        let manifest = registry.manifest(digest).await?;
        let limits = locked.files.iter().map(|(file, locked)| (*file, locked.size)).collect();
        let found = registry.take(&manifest, limits, staging.dir(), progress).await?;
        for (file, locked) in &locked.files {
            let found = found.get(file).ok_or_else(|| lacks(image, *file))?;
            if found.sha256 != locked.sha256 {
                return Err(ArtifactError::WrongDigest {
                    name: format!("{file} in {image}"),
                    expected: locked.sha256.clone(),
                    found: found.sha256.clone(),
                });
            }
        }
        self.cache.admit_image(&staging.dir().join(registry::READY), digest)
    }

    /// What is to be locked of an image on a platform, whatever of `component` and its like it has; it goes into the cache.
    #[cfg(feature = "oci")]
    pub async fn image_entry(
        &self,
        image: &ImageReference,
        platform: Platform,
        progress: OnProgress<'_>,
    ) -> Result<LockedImage, ArtifactError> {
        let registry = registry::Registry::of(image)?;
        progress(Progress::Downloading);
        let manifest_sha256 = registry.resolve(platform).await?;
        let staging = self.cache.stage(&format!("image-{manifest_sha256}"), || progress(Progress::Waiting)).await?;
        let manifest = registry.manifest(&manifest_sha256).await?;
        let limits = ImageFile::ALL.map(|file| (file, super::store::LARGEST)).into();
        let files = registry.take(&manifest, limits, staging.dir(), progress).await?;
        if files.is_empty() {
            return Err(ArtifactError::BadImage {
                image: image.clone(),
                why: "it holds no program that is known".into(),
            });
        }
        if !self.cache.image(&manifest_sha256).exists() {
            self.cache.admit_image(&staging.dir().join(registry::READY), &manifest_sha256)?;
        }
        Ok(LockedImage { manifest_sha256, files })
    }

    /// As in a build that can pull: an error that says that this one can't.
    #[cfg(not(feature = "oci"))]
    pub async fn image_entry(
        &self,
        _: &ImageReference,
        _: super::Platform,
        _: OnProgress<'_>,
    ) -> Result<LockedImage, ArtifactError> {
        Err(ArtifactError::NoImages)
    }
}

fn lacks(image: &ImageReference, file: ImageFile) -> ArtifactError {
    ArtifactError::BadImage { image: image.clone(), why: format!("it has no {file} at /{}", file.path()) }
}
