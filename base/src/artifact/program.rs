//! The programs of Istio and SPIRE, and what is known of one that is ready to run.

use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::Digest;
use crate::timeline::{EnvoyVersion, ProgramVersion};

/// What the programs of one version belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The mesh.
    Istio,
    /// The provider.
    Spire,
}

/// An executable other than Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// Istio's agent, which runs beside a proxy.
    PilotAgent,
    /// Istio's control plane, istiod.
    PilotDiscovery,
    /// SPIRE's server.
    SpireServer,
    /// SPIRE's agent.
    SpireAgent,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 2] = [Component::Istio, Component::Spire];

    /// Its programs.
    pub fn programs(self) -> [Program; 2] {
        match self {
            Self::Istio => [Program::PilotAgent, Program::PilotDiscovery],
            Self::Spire => [Program::SpireServer, Program::SpireAgent],
        }
    }

    /// As options and the lock file write it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::Spire => "spire",
        }
    }

    /// The Go module that holds its programs.
    pub fn module(self) -> &'static str {
        match self {
            Self::Istio => "istio.io/istio",
            Self::Spire => "github.com/spiffe/spire",
        }
    }

    /// Whether a C compiler is needed to build it: SPIRE's server is nothing without SQLite. As its makers build it.
    pub fn needs_c(self) -> bool {
        self == Self::Spire
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Istio => "Istio",
            Self::Spire => "SPIRE",
        })
    }
}

impl Program {
    /// Its file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PilotAgent => "pilot-agent",
            Self::PilotDiscovery => "pilot-discovery",
            Self::SpireServer => "spire-server",
            Self::SpireAgent => "spire-agent",
        }
    }

    /// What it belongs to.
    pub fn component(self) -> Component {
        match self {
            Self::PilotAgent | Self::PilotDiscovery => Component::Istio,
            Self::SpireServer | Self::SpireAgent => Component::Spire,
        }
    }

    /// Its package, an import path.
    pub(super) fn package(self) -> String {
        let directory = match self {
            Self::PilotAgent | Self::PilotDiscovery => "pilot/cmd",
            Self::SpireServer | Self::SpireAgent => "cmd",
        };
        format!("{}/{directory}/{}", self.component().module(), self.name())
    }

    /// The file of its module, beside the executable in the cache, that it can't run without.
    pub(super) fn template(self) -> Option<&'static str> {
        (self == Self::PilotAgent).then_some("tools/packaging/common/envoy_bootstrap.json")
    }

    /// What makes it print its version.
    pub(super) fn version_arguments(self) -> &'static [&'static str] {
        match self.component() {
            Component::Istio => &["version", "--short"],
            Component::Spire => &["--version"],
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A verified executable other than Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramBinary {
    /// Which.
    pub program: Program,
    /// Where it is; absolute.
    pub path: Utf8PathBuf,
    /// What people call its version: its name in the lock file, else as `version`.
    pub name: String,
    /// The version of its Go module; of one of the user's own or of an image, what it reports.
    pub version: String,
    /// Where it came from: `go`, `image` or `path`.
    pub source: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The Istio line that it belongs to, where that is known.
    pub line: Option<IstioLine>,
    /// The bootstrap template that Istio's agent makes Envoy's configuration from; absolute. Only the agent has one.
    pub bootstrap_template: Option<Utf8PathBuf>,
}

/// A minor version of Istio, such as `1.31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IstioLine {
    minor: u32,
}

/// A text that is no Istio line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an Istio line is written as 1.31")]
pub struct InvalidLine;

impl IstioLine {
    /// The line of a version such as `1.31.2`, `1.31-alpha` or `1.31`.
    pub fn of_version(version: &str) -> Option<Self> {
        let minor = version.strip_prefix('v').unwrap_or(version).strip_prefix("1.")?;
        let end = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
        Some(Self { minor: minor[..end].parse().ok()? })
    }

    /// Whether a release of this line ships such an Envoy; if not, the two are off-pair.
    pub fn ships(self, envoy: &EnvoyVersion) -> bool {
        let envoy = envoy.semver();
        (envoy.major, envoy.minor) == (1, self.envoy_minor())
    }

    /// The line of Envoy that its releases ship, `1.39`.
    pub fn envoy(self) -> String {
        format!("1.{}", self.envoy_minor())
    }

    /// The proxy of every line since 1.26 was built from the Envoy eight minor versions ahead (Istio's supported
    /// releases page).
    fn envoy_minor(self) -> u64 {
        u64::from(self.minor) + 8
    }
}

impl FromStr for IstioLine {
    type Err = InvalidLine;
    fn from_str(text: &str) -> Result<Self, InvalidLine> {
        Self::of_version(text).filter(|line| line.to_string() == text).ok_or(InvalidLine)
    }
}

impl TryFrom<String> for IstioLine {
    type Error = InvalidLine;
    fn try_from(text: String) -> Result<Self, InvalidLine> {
        text.parse()
    }
}

impl From<IstioLine> for String {
    fn from(line: IstioLine) -> String {
        line.to_string()
    }
}

impl fmt::Display for IstioLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// How a module version is called by people: `v1.13.3` is 1.13.3; what lies between two releases is named by what it
/// leads to (an Istio line, else the release that Go derives it from) and its day: `1.31-dev.20260827`.
pub(super) fn name_of(version: &ProgramVersion, line: Option<IstioLine>) -> ProgramVersion {
    let text = version.as_str();
    let release = text.strip_prefix('v').unwrap_or(text);
    let name = match day_of(text) {
        None => release.to_owned(),
        Some(day) => {
            let base = line.map(|line| line.to_string());
            let base = base.unwrap_or_else(|| release.split('-').next().unwrap_or_default().to_owned());
            format!("{base}-dev.{day}")
        }
    };
    ProgramVersion::parse(&name).unwrap_or_else(|_| version.clone())
}

/// The day in a pseudo-version, `v0.0.0-20260827124520-eed52ebb66ad` (Go modules reference, "Pseudo-versions").
fn day_of(version: &str) -> Option<&str> {
    let mut parts = version.rsplit('-');
    let (revision, rest) = (parts.next()?, parts.next()?);
    let time = rest.rsplit('.').next()?;
    let is_revision = revision.len() == 12 && revision.bytes().all(|b| b.is_ascii_hexdigit());
    (is_revision && time.len() == 14 && time.bytes().all(|b| b.is_ascii_digit())).then(|| &time[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_knows_the_envoy_that_it_ships() {
        let ships =
            |line: &str, envoy: &str| line.parse::<IstioLine>().unwrap().ships(&EnvoyVersion::parse(envoy).unwrap());
        for (istio, envoy) in [("1.26", "1.34.0"), ("1.28", "1.36.4"), ("1.30", "1.38.3"), ("1.31", "1.39.1")] {
            assert!(ships(istio, envoy));
        }
        assert!(!ships("1.31", "1.38.3") && !ships("1.31", "2.39.0"));
    }

    #[test]
    fn the_line_of_a_version_is_its_minor_version() {
        let line = |text| IstioLine::of_version(text).map(|line| line.to_string());
        for text in ["1.31", "1.31.2", "v1.31.0-rc.1", "1.31-dev.20260827"] {
            assert_eq!(line(text).as_deref(), Some("1.31"));
        }
        assert_eq!(line("unknown"), None);
        assert!("1.31.2".parse::<IstioLine>().is_err() && "1.031".parse::<IstioLine>().is_err());
    }

    #[test]
    fn a_pseudo_version_is_named_by_its_line_and_its_day() {
        let name = |version: &str, line: Option<&str>| {
            name_of(&ProgramVersion::parse(version).unwrap(), line.map(|l| l.parse().unwrap())).to_string()
        };
        assert_eq!(name("v0.0.0-20260827124520-eed52ebb66ad", Some("1.31")), "1.31-dev.20260827");
        assert_eq!(name("v1.13.4-0.20260827124520-eed52ebb66ad", None), "1.13.4-dev.20260827");
        assert_eq!(name("v1.13.3", None), "1.13.3");
        assert_eq!(name("v1.31.0-rc.1", Some("1.31")), "1.31.0-rc.1");
    }
}
