//! The subjects that scenarios are run on.

use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scenario::{Document, Problem, ScenarioError};
use crate::timeline::EnvoyVersion;

/// `matrix.yaml`: what is tested where the command line names nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Envoy versions, in the order of the columns.
    #[schemars(length(min = 1))]
    pub envoy: Vec<EnvoyVersion>,
}

impl Matrix {
    /// Reads a matrix from YAML, with the same care and the same messages as a scenario.
    pub fn read(text: &str, file_name: &str) -> Result<Matrix, ScenarioError> {
        let document = Document::<Matrix>::parse(text, file_name)?;
        let envoy = &document.value.envoy;
        let problem = |path: String, message: String| Problem { path, message, help: None };
        let mut problems = Vec::new();
        if envoy.is_empty() {
            problems.push(problem("envoy".to_owned(), "the matrix needs at least one Envoy".to_owned()));
        }
        for (n, version) in envoy.iter().enumerate() {
            if envoy[..n].contains(version) {
                problems.push(problem(format!("envoy[{n}]"), format!("Envoy {version} is given twice")));
            }
        }
        document.checked(problems)
    }
}

/// Which Envoy a cell is run on. What a path holds is only known once it has been asked for its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnvoyRequest {
    /// A released version.
    Version(EnvoyVersion),
    /// An executable of the user's.
    Path(Utf8PathBuf),
}

impl FromStr for EnvoyRequest {
    type Err = String;

    /// `1.38.3`, or `path=/usr/local/bin/envoy`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("path", "")) => Err("path= needs the path of an Envoy executable".to_owned()),
            Some(("path", path)) => Ok(Self::Path(Utf8PathBuf::from(path))),
            Some((other, _)) => Err(format!("{other}= is no source of an Envoy; write 1.38.3 or path=/path/to/envoy")),
            None if text.contains('/') => Err(format!("write path={text} for an executable")),
            None => EnvoyVersion::parse(text).map(Self::Version).map_err(|e| e.to_string()),
        }
    }
}

impl fmt::Display for EnvoyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => f.pad(version.as_str()),
            Self::Path(path) => f.pad(&format!("path={path}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_and_a_path_are_told_apart() {
        assert_eq!("1.38.3".parse(), Ok(EnvoyRequest::Version(EnvoyVersion::parse("1.38.3").unwrap())));
        assert_eq!("path=/opt/a=b".parse(), Ok(EnvoyRequest::Path("/opt/a=b".into())));
        for bad in ["", "1.38", "path=", "/usr/bin/envoy", "docker=envoy:1", "1.38.3\n"] {
            assert!(bad.parse::<EnvoyRequest>().is_err(), "{bad:?}");
        }
        let path: EnvoyRequest = "path=/opt/envoy".parse().unwrap();
        assert_eq!(path.to_string().parse(), Ok(path));
    }

    #[test]
    fn a_matrix_with_mistakes_is_refused() {
        let why = |text: &str| Matrix::read(text, "matrix.yaml").unwrap_err().to_string();
        assert_eq!(why("envoy: []"), "the matrix needs at least one Envoy");
        assert_eq!(why("envoy: [1.38.3, 1.38.3]"), "Envoy 1.38.3 is given twice");
        assert_eq!(why("envoys: [1.38.3]"), "unknown key `envoys`");
        assert!(why("envoy: [1.38]").contains("1.38.3"));
    }
}
