//! What a registry serves of an image (OCI distribution specification), verified by digest.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use camino::Utf8Path;
use futures::TryStreamExt as _;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciDescriptor, OciImageManifest, OciManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::super::digest::Hashing;
use super::super::error::RegistryTrouble;
use super::super::store::{OnProgress, Progress, blocking};
use super::super::{ArtifactError, Digest, Platform};
use super::{ImageFile, LockedFile, layer};
use crate::clock::Deadline;
use crate::timeline::ImageReference;

/// Where what was taken lies, below the directory that it was taken in.
pub(super) const READY: &str = "ready";
const CONNECT: Duration = Duration::from_secs(30);
/// Between two pieces of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// Manifests and configurations are some kilobytes.
const SMALL: Duration = Duration::from_secs(120);
const MOST_LAYERS: usize = 200;
/// Of all layers as they are downloaded; Istio's debug images have some 300 MB.
const LARGEST_IMAGE: u64 = 8 << 30;
const LARGEST_CONFIG: u64 = 8 << 20;

/// One image, where it is served.
pub(super) struct Registry<'a> {
    image: &'a ImageReference,
    reference: Reference,
    client: Client,
}

impl<'a> Registry<'a> {
    /// Nothing is asked yet.
    pub(super) fn of(image: &'a ImageReference) -> Result<Self, ArtifactError> {
        // The client takes the provider of the process; everything else here names its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = match image.is_loopback() {
            true => ClientProtocol::HttpsExcept(vec![image.registry().to_owned()]),
            false => ClientProtocol::Https,
        };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("rotacheck/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| refused(image, &e))?;
        let reference = image.to_string().parse().map_err(|e| bad(image, format!("its name is refused: {e}")))?;
        Ok(Self { image, reference, client })
    }

    /// The digest of its manifest for a platform, by what its registry says now.
    pub(super) async fn resolve(&self, platform: Platform) -> Result<Digest, ArtifactError> {
        let bytes = self.small(&self.reference).await?;
        match self.parsed(&bytes)? {
            OciManifest::ImageIndex(index) => {
                let (os, arch) = as_images_write_it(platform);
                let of_platform = |entry: &&oci_client::manifest::ImageIndexEntry| {
                    entry
                        .platform
                        .as_ref()
                        .is_some_and(|p| p.os.to_string() == os && p.architecture.to_string() == arch)
                };
                let entry = index.manifests.iter().find(of_platform).ok_or_else(|| {
                    let has = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
                    let has: Vec<_> = has.map(|p| format!("{}-{}", p.os, p.architecture)).collect();
                    self.bad(format!("it is not made for {platform} (its index has {})", shortened(&has.join(", "))))
                })?;
                self.digest(&entry.digest)
            }
            OciManifest::Image(manifest) => {
                self.check_platform(&manifest, platform).await?;
                Ok(Digest::of_bytes(&bytes))
            }
        }
    }

    /// An image without an index says in its configuration what it is made for.
    async fn check_platform(&self, manifest: &OciImageManifest, platform: Platform) -> Result<(), ArtifactError> {
        #[derive(Deserialize)]
        struct Config {
            os: String,
            architecture: String,
        }
        let mut bytes = Vec::new();
        self.blob(&manifest.config, LARGEST_CONFIG, &mut bytes, &mut |_| ()).await?;
        let config: Config = serde_json::from_str(&String::from_utf8_lossy(&bytes))
            .map_err(|e| self.bad(format!("its configuration can't be read: {e}")))?;
        let (os, arch) = as_images_write_it(platform);
        if (config.os.as_str(), config.architecture.as_str()) == (os, arch) {
            return Ok(());
        }
        let made_for = shortened(&format!("{}-{}", config.os, config.architecture));
        Err(self.bad(format!("it is not made for {platform}, but for {made_for}")))
    }

    /// The manifest with this digest.
    pub(super) async fn manifest(&self, digest: &Digest) -> Result<OciImageManifest, ArtifactError> {
        let reference = self.reference.clone_with_digest(format!("sha256:{digest}"));
        let bytes = self.small(&reference).await?;
        let found = Digest::of_bytes(&bytes);
        if found != *digest {
            let name = format!("the manifest of {}", self.image);
            return Err(ArtifactError::WrongDigest { name, expected: digest.clone(), found });
        }
        match self.parsed(&bytes)? {
            OciManifest::Image(manifest) => Ok(manifest),
            OciManifest::ImageIndex(_) => Err(self.bad("what should be its manifest is an index".into())),
        }
    }

    /// Takes files out of its layers into `dir/ready`, each with no more bytes than it may have: those that are there.
    pub(super) async fn take(
        &self,
        manifest: &OciImageManifest,
        mut wanted: BTreeMap<ImageFile, u64>,
        dir: &Utf8Path,
        progress: OnProgress<'_>,
    ) -> Result<BTreeMap<ImageFile, LockedFile>, ArtifactError> {
        let ready = dir.join(READY);
        std::fs::create_dir(&ready).map_err(|e| ArtifactError::io("made", &ready, e))?;
        let layers = &manifest.layers;
        let sizes = layers.iter().map(|layer| u64::try_from(layer.size).ok());
        let total = sizes.sum::<Option<u64>>().filter(|total| *total <= LARGEST_IMAGE);
        let total = total.ok_or_else(|| self.bad(format!("its layers have more than {LARGEST_IMAGE} bytes")))?;
        if layers.len() > MOST_LAYERS {
            return Err(self.bad(format!("it has {} layers, more than {MOST_LAYERS}", layers.len())));
        }
        let mut taken = BTreeMap::new();
        let mut before = 0;
        // What an upper layer has hides what is below: the first that is seen from above counts.
        for (nth, layer) in layers.iter().enumerate().rev() {
            if wanted.is_empty() {
                break;
            }
            let path = dir.join(format!("layer{nth}"));
            let on_progress = &mut |done| progress(Progress::Pulling { done: before + done, total });
            self.layer(layer, &path, on_progress).await?;
            before += layer.size.unsigned_abs();
            let found = blocking({
                let (path, wanted, ready) = (path.clone(), wanted.clone(), ready.clone());
                move || layer::read(&path, &wanted, &ready)
            });
            let found = found.await?.map_err(|why| self.bad(format!("its layer {}: {why}", layer.digest)))?;
            std::fs::remove_file(&path).map_err(|e| ArtifactError::io("removed", &path, e))?;
            wanted.retain(|file, _| !found.files.contains_key(file) && !found.gone.contains(file));
            taken.extend(found.files);
        }
        Ok(taken)
    }

    async fn layer(
        &self,
        layer: &OciDescriptor,
        to: &Utf8Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), ArtifactError> {
        let io = |e| ArtifactError::io("written", to, e);
        let mut file = tokio::fs::File::create_new(to).await.map_err(io)?;
        self.blob(layer, LARGEST_IMAGE, &mut file, on_progress).await?;
        file.flush().await.map_err(io)
    }

    /// Has a blob written, and verifies its length and its digest.
    async fn blob(
        &self,
        blob: &OciDescriptor,
        limit: u64,
        to: &mut (impl tokio::io::AsyncWrite + Unpin),
        on_progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), ArtifactError> {
        let expected = self.digest(&blob.digest)?;
        let size = u64::try_from(blob.size).ok().filter(|size| *size <= limit);
        let size = size.ok_or_else(|| self.bad(format!("its blob {expected} has more than {limit} bytes")))?;
        let mut stream = self.client.pull_blob_stream(&self.reference, blob).await.map_err(|e| self.refused(&e))?;
        let mut hash = Hashing::new(std::io::sink());
        let mut done = 0;
        loop {
            let piece = match stream.try_next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // The client's own opinion, after the last piece; ours follows.
                Err(e) if e.get_ref().is_some_and(|e| e.is::<DigestError>()) => break,
                Err(e) => return Err(self.broken(&expected, &e)),
            };
            done += piece.len() as u64;
            if done > size {
                return Err(self.bad(format!("its blob {expected} has more than the {size} bytes it should have")));
            }
            std::io::Write::write_all(&mut hash, &piece).expect("a sink takes everything");
            to.write_all(&piece).await.map_err(|e| ArtifactError::io("written", Utf8Path::new("a layer"), e))?;
            on_progress(done);
        }
        let (found, ..) = hash.finish();
        if found == expected {
            return Ok(());
        }
        Err(ArtifactError::WrongDigest { name: format!("a blob of {}", self.image), expected, found })
    }

    async fn small(&self, reference: &Reference) -> Result<Vec<u8>, ArtifactError> {
        let accepted = [
            OCI_IMAGE_INDEX_MEDIA_TYPE,
            IMAGE_MANIFEST_LIST_MEDIA_TYPE,
            OCI_IMAGE_MEDIA_TYPE,
            IMAGE_MANIFEST_MEDIA_TYPE,
        ];
        let pulled = self.client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &accepted);
        match tokio::time::timeout_at(Deadline::after(SMALL).instant(), pulled).await {
            Ok(pulled) => pulled.map(|(bytes, _)| bytes.to_vec()).map_err(|e| self.refused(&e)),
            Err(_) => Err(ArtifactError::Registry {
                image: self.image.clone(),
                said: format!("no answer within {} seconds", SMALL.as_secs()),
                cause: RegistryTrouble::Unreachable,
            }),
        }
    }

    fn parsed(&self, bytes: &[u8]) -> Result<OciManifest, ArtifactError> {
        serde_json::from_str(&String::from_utf8_lossy(bytes))
            .map_err(|e| self.bad(format!("its manifest can't be read: {e}")))
    }

    fn digest(&self, text: &str) -> Result<Digest, ArtifactError> {
        let digits = text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        digits.ok_or_else(|| self.bad(format!("{:?} in its manifest is no SHA-256", shortened(text))))
    }

    fn bad(&self, why: String) -> ArtifactError {
        bad(self.image, why)
    }

    fn refused(&self, e: &OciDistributionError) -> ArtifactError {
        refused(self.image, e)
    }

    fn broken(&self, blob: &Digest, e: &std::io::Error) -> ArtifactError {
        self.bad(format!("its blob {blob} did not come whole: {}", shortened(&e.to_string())))
    }
}

fn bad(image: &ImageReference, why: String) -> ArtifactError {
    ArtifactError::BadImage { image: image.clone(), why }
}

fn refused(image: &ImageReference, e: &OciDistributionError) -> ArtifactError {
    use OciDistributionError as E;
    let cause = match e {
        E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. } => RegistryTrouble::NoImage,
        E::RegistryError { envelope, .. } => match envelope.errors.first().map(|e| &e.code) {
            Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => RegistryTrouble::Denied,
            Some(OciErrorCode::Toomanyrequests) => RegistryTrouble::TooMany,
            Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::BlobUnknown) => {
                RegistryTrouble::NoImage
            }
            _ => RegistryTrouble::Other,
        },
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => RegistryTrouble::Denied,
        E::ServerError { code: 429, .. } => RegistryTrouble::TooMany,
        E::RequestError(_) => RegistryTrouble::Unreachable,
        _ => RegistryTrouble::Other,
    };
    let mut said = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = e.source();
    }
    ArtifactError::Registry { image: image.clone(), said: shortened(&said), cause }
}

/// Operating system and processor (OCI image specification: those of Go).
fn as_images_write_it(platform: Platform) -> (&'static str, &'static str) {
    match platform {
        Platform::LinuxX86_64 => ("linux", "amd64"),
        Platform::LinuxAarch64 => ("linux", "arm64"),
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
