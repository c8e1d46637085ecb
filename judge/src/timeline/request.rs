//! Which Envoy is wanted.

use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::{EnvoyVersion, ImageReference, ProgramVersion};

/// Names the executable to use where no version is asked for.
const ENVOY_PATH: &str = "ENVOY_PATH";

/// Which Envoy is wanted: `1.38.3`, `image=envoyproxy/envoy:v1.38.3` or `path=/x/envoy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnvoyRequest {
    /// A version of the lock file.
    Version(EnvoyVersion),
    /// An executable of the user's own; its version is what it reports.
    Path(Utf8PathBuf),
    /// The one in an image of the lock file; its version is what it reports.
    Image(ImageReference),
}

/// A text that names no Envoy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a version such as 1.38.3 nor path=/x/envoy nor image=envoyproxy/envoy:v1.38.3")]
pub struct InvalidRequest(String);

impl EnvoyRequest {
    /// The executable that the environment variable `ENVOY_PATH` names, if it is set.
    pub fn from_environment() -> Option<Self> {
        let path = std::env::var(ENVOY_PATH).ok().filter(|path| !path.is_empty())?;
        Some(Self::Path(path.into()))
    }
}

impl FromStr for EnvoyRequest {
    type Err = InvalidRequest;
    fn from_str(text: &str) -> Result<Self, InvalidRequest> {
        if let Some(path) = text.strip_prefix("path=") {
            return if path.is_empty() { Err(InvalidRequest(text.into())) } else { Ok(Self::Path(path.into())) };
        }
        let invalid = || InvalidRequest(text.chars().take(300).collect());
        if let Some(image) = text.strip_prefix("image=") {
            return image.parse().map(Self::Image).map_err(|_| invalid());
        }
        let version = text.strip_prefix('v').unwrap_or(text);
        EnvoyVersion::parse(version).map(Self::Version).map_err(|_| invalid())
    }
}

impl fmt::Display for EnvoyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "{version}"),
            Self::Path(path) => write!(f, "path={path}"),
            Self::Image(image) => write!(f, "image={image}"),
        }
    }
}

/// Which Istio or SPIRE is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProgramRequest {
    /// A version of the lock file, by its name there or by that of its module.
    Version(ProgramVersion),
    /// A directory with programs of the user's own, under the names that their makers gave them; Istio's agent has its
    /// `envoy_bootstrap.json` beside it.
    Path(Utf8PathBuf),
    /// Those in an image of the lock file, and in the one beside it where its makers have one for each program:
    /// `istio/proxyv2` and `istio/pilot`, `spiffe/spire-server` and `spiffe/spire-agent`.
    Image(ImageReference),
}

/// A text that names no Istio or SPIRE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a version such as 1.13.3 nor path=/x/directory nor image=istio/proxyv2:1.31.0")]
pub struct InvalidProgramRequest(String);

impl FromStr for ProgramRequest {
    type Err = InvalidProgramRequest;
    fn from_str(text: &str) -> Result<Self, InvalidProgramRequest> {
        let invalid = || InvalidProgramRequest(text.chars().take(300).collect());
        if let Some(image) = text.strip_prefix("image=") {
            return image.parse().map(Self::Image).map_err(|_| invalid());
        }
        match text.strip_prefix("path=") {
            Some("") => Err(invalid()),
            Some(path) => Ok(Self::Path(path.into())),
            None => ProgramVersion::parse(text).map(Self::Version).map_err(|_| invalid()),
        }
    }
}

impl fmt::Display for ProgramRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "{version}"),
            Self::Path(path) => write!(f, "path={path}"),
            Self::Image(image) => write!(f, "image={image}"),
        }
    }
}

/// Which Istio is wanted, if any: `none`, or as a [`ProgramRequest`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IstioRequest {
    /// Envoys without Istio.
    Without,
    /// Envoys that this Istio's agent starts.
    Of(ProgramRequest),
}

impl IstioRequest {
    /// Its programs, where there is one.
    pub fn programs(&self) -> Option<&ProgramRequest> {
        match self {
            Self::Without => None,
            Self::Of(programs) => Some(programs),
        }
    }
}

/// How it is written that there is none.
const WITHOUT: &str = "none";

impl FromStr for IstioRequest {
    type Err = InvalidProgramRequest;
    fn from_str(text: &str) -> Result<Self, InvalidProgramRequest> {
        if text == WITHOUT { Ok(Self::Without) } else { text.parse().map(Self::Of) }
    }
}

impl fmt::Display for IstioRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without => f.write_str(WITHOUT),
            Self::Of(programs) => programs.fmt(f),
        }
    }
}

impl TryFrom<String> for IstioRequest {
    type Error = InvalidProgramRequest;
    fn try_from(text: String) -> Result<Self, InvalidProgramRequest> {
        text.parse()
    }
}

impl From<IstioRequest> for String {
    fn from(request: IstioRequest) -> String {
        request.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_version_or_a_path() {
        let version = EnvoyRequest::Version(EnvoyVersion::parse("1.38.3").unwrap());
        assert_eq!("1.38.3".parse(), Ok(version.clone()));
        assert_eq!("v1.38.3".parse(), Ok(version.clone()));
        assert_eq!(version.to_string(), "1.38.3");
        let path: EnvoyRequest = "path=/x/envoy".parse().unwrap();
        assert_eq!(path, EnvoyRequest::Path("/x/envoy".into()));
        assert_eq!(path.to_string(), "path=/x/envoy");
        let image: EnvoyRequest = "image=envoyproxy/envoy:v1.38.3".parse().unwrap();
        assert_eq!(image.to_string(), "image=docker.io/envoyproxy/envoy:v1.38.3");
        for wrong in ["", "1.38", "path=", "/x/envoy", "latest", "1.38.3/../..", "image=", "image=envoyproxy/envoy"] {
            assert!(wrong.parse::<EnvoyRequest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_istio_may_be_none() {
        assert_eq!("none".parse(), Ok(IstioRequest::Without));
        for text in ["none", "1.31-dev.20260827", "path=/x"] {
            assert_eq!(text.parse::<IstioRequest>().unwrap().to_string(), text);
        }
        assert!("None".parse::<IstioRequest>().is_err());
    }

    #[test]
    fn a_program_is_asked_for_by_version_or_by_directory() {
        for text in
            ["1.13.3", "1.31-dev.20260827", "v0.0.0-20260827124520-eed52ebb66ad", "path=/x", "image=ghcr.io/x/y:1"]
        {
            assert_eq!(text.parse::<ProgramRequest>().unwrap().to_string(), text);
        }
        for wrong in ["", "path=", "/x", "1.13/../3"] {
            assert!(wrong.parse::<ProgramRequest>().is_err(), "{wrong}");
        }
    }
}
