//! The subjects that scenarios are run on.

use serde::{Deserialize, Serialize};

use crate::scenario::{Document, Problem, ScenarioError};
use crate::timeline::{EnvoyVersion, ProgramVersion};

/// `matrix.yaml`: what is tested where the command line names nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Envoy versions, in the order of the columns.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub envoy: Vec<EnvoyVersion>,
    /// Istio versions, where Istio's agent starts the proxies: names of the lock file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub istio: Vec<ProgramVersion>,
    /// SPIRE versions, where SPIRE issues: names of the lock file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spire: Vec<ProgramVersion>,
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
        for (key, name, programs) in
            [("istio", "Istio", &document.value.istio), ("spire", "SPIRE", &document.value.spire)]
        {
            for (n, version) in programs.iter().enumerate() {
                if programs[..n].contains(version) {
                    problems.push(problem(format!("{key}[{n}]"), format!("{name} {version} is given twice")));
                }
            }
        }
        document.checked(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_with_mistakes_is_refused() {
        let why = |text: &str| Matrix::read(text, "matrix.yaml").unwrap_err().to_string();
        assert_eq!(why("envoy: []"), "the matrix needs at least one Envoy");
        assert_eq!(why("envoy: [1.38.3, 1.38.3]"), "Envoy 1.38.3 is given twice");
        assert_eq!(why("{envoy: [1.38.3], istio: [1.31, 1.31]}"), "Istio 1.31 is given twice");
        assert_eq!(why("{envoy: [1.38.3], spire: [1.13.3, 1.13.3]}"), "SPIRE 1.13.3 is given twice");
        assert_eq!(why("envoys: [1.38.3]"), "unknown key `envoys`");
        assert!(why("envoy: [1.38]").contains("1.38.3"));
    }
}
