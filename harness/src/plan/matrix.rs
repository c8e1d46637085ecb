//! The subjects that scenarios are run on.

use serde::{Deserialize, Serialize};

use crate::scenario::{Document, Problem, ScenarioError};
use crate::timeline::EnvoyVersion;

/// `matrix.yaml`: what is tested where the command line names nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Envoy versions, in the order of the columns.
    #[cfg_attr(test, schemars(length(min = 1)))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_with_mistakes_is_refused() {
        let why = |text: &str| Matrix::read(text, "matrix.yaml").unwrap_err().to_string();
        assert_eq!(why("envoy: []"), "the matrix needs at least one Envoy");
        assert_eq!(why("envoy: [1.38.3, 1.38.3]"), "Envoy 1.38.3 is given twice");
        assert_eq!(why("envoys: [1.38.3]"), "unknown key `envoys`");
        assert!(why("envoy: [1.38]").contains("1.38.3"));
    }
}
