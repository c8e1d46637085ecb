//! The subjects that scenarios are run on.

use serde::{Deserialize, Serialize};

use super::select::without_repetition;
use crate::scenario::{Document, Problem, ProviderKind, ScenarioError};
use crate::timeline::{EnvoyVersion, IstioRequest, ProgramRequest, ProgramVersion, ScenarioName};

/// `matrix.yaml`: what is tested where the command line names nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Envoy versions, in the order of the columns.
    #[cfg_attr(any(test, feature = "testing"), schemars(length(min = 1)))]
    pub envoy: Vec<EnvoyVersion>,
    /// Istio versions, for scenarios in which Istio's agent starts the proxies: names of the lock file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub istio: Vec<ProgramVersion>,
    /// SPIRE versions, where SPIRE issues: names of the lock file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spire: Vec<ProgramVersion>,
    /// What `--topology agent` runs where no scenario is named: all of these products together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agent: Vec<Product>,
}

/// Scenarios, and the subjects that each of them is run on: every combination of what is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Names of scenarios.
    #[cfg_attr(any(test, feature = "testing"), schemars(length(min = 1)))]
    pub scenarios: Vec<ScenarioName>,
    /// Envoy versions. Default: those of the whole matrix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub envoy: Vec<EnvoyVersion>,
    /// Istios: `none`, names of the lock file, `path=DIR`. Default: as each scenario says, with those of the whole matrix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "Vec<String>"))]
    pub istio: Vec<IstioRequest>,
    /// Who issues. Default: as each scenario says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provider: Vec<ProviderKind>,
    /// SPIRE versions, where SPIRE issues. Default: those of the whole matrix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spire: Vec<ProgramVersion>,
}

impl Matrix {
    /// Every Envoy, Istio and SPIRE that it names, in its products too, each once.
    pub fn all(&self) -> (Vec<EnvoyVersion>, Vec<ProgramRequest>, Vec<ProgramVersion>) {
        let mut envoys = self.envoy.clone();
        let mut istios: Vec<_> = self.istio.iter().cloned().map(ProgramRequest::Version).collect();
        let mut spires = self.spire.clone();
        for product in &self.agent {
            envoys.extend_from_slice(&product.envoy);
            istios.extend(product.istio.iter().filter_map(|istio| istio.programs().cloned()));
            spires.extend_from_slice(&product.spire);
        }
        (without_repetition(&envoys), without_repetition(&istios), without_repetition(&spires))
    }

    /// Reads a matrix from YAML, with the same care and the same messages as a scenario.
    pub fn read(text: &str, file_name: &str) -> Result<Matrix, ScenarioError> {
        let document = Document::<Matrix>::parse(text, file_name)?;
        let matrix = &document.value;
        let mut problems = Vec::new();
        if matrix.envoy.is_empty() {
            problems.push(problem("envoy", "the matrix needs at least one Envoy"));
        }
        once(&mut problems, "envoy", "Envoy", &matrix.envoy);
        once(&mut problems, "istio", "Istio", &matrix.istio);
        once(&mut problems, "spire", "SPIRE", &matrix.spire);
        for (n, product) in matrix.agent.iter().enumerate() {
            let at = |key: &str| format!("agent[{n}].{key}");
            if product.scenarios.is_empty() {
                problems.push(problem(&at("scenarios"), "at least one scenario must be named"));
            }
            let providers: Vec<&str> = product.provider.iter().map(|kind| kind.name()).collect();
            once(&mut problems, &at("scenarios"), "scenario", &product.scenarios);
            once(&mut problems, &at("envoy"), "Envoy", &product.envoy);
            once(&mut problems, &at("istio"), "Istio", &product.istio);
            once(&mut problems, &at("provider"), "provider", &providers);
            once(&mut problems, &at("spire"), "SPIRE", &product.spire);
        }
        document.checked(problems)
    }
}

fn problem(path: &str, message: &str) -> Problem {
    Problem { path: path.to_owned(), message: message.to_owned(), help: None }
}

fn once<T: PartialEq + std::fmt::Display>(problems: &mut Vec<Problem>, key: &str, name: &str, values: &[T]) {
    for (n, value) in values.iter().enumerate() {
        if values[..n].contains(value) {
            problems.push(problem(&format!("{key}[{n}]"), &format!("{name} {value} is given twice")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_products_name_belongs_to_it() {
        let text =
            "{envoy: [1.38.3], istio: [b], agent: [{scenarios: [x], envoy: [1.40.0, 1.38.3], istio: [none, a, b]},
                     {scenarios: [y], spire: [1.13.3]}]}";
        let (envoys, istios, spires) = Matrix::read(text, "matrix.yaml").unwrap().all();
        let told = |all: &[ProgramRequest]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(envoys.iter().map(EnvoyVersion::as_str).collect::<Vec<_>>(), ["1.38.3", "1.40.0"]);
        assert_eq!((told(&istios).as_str(), spires.len()), ("b a", 1));
    }

    #[test]
    fn a_matrix_with_mistakes_is_refused() {
        let why = |text: &str| Matrix::read(text, "matrix.yaml").unwrap_err().to_string();
        assert_eq!(why("envoy: []"), "the matrix needs at least one Envoy");
        assert_eq!(why("envoy: [1.38.3, 1.38.3]"), "Envoy 1.38.3 is given twice");
        assert_eq!(why("{envoy: [1.38.3], istio: [1.31, 1.31]}"), "Istio 1.31 is given twice");
        assert_eq!(why("{envoy: [1.38.3], spire: [1.13.3, 1.13.3]}"), "SPIRE 1.13.3 is given twice");
        assert_eq!(why("envoys: [1.38.3]"), "unknown key `envoys`");
        assert!(why("envoy: [1.38]").contains("1.38.3"));
        let agent = |product: &str| why(&format!("{{envoy: [1.38.3], agent: [{product}]}}"));
        assert_eq!(agent("{scenarios: []}"), "at least one scenario must be named");
        assert_eq!(agent("{scenarios: [rotation], istio: [none, none]}"), "Istio none is given twice");
        assert_eq!(agent("{scenarios: [rotation], provider: [spire, spire]}"), "provider spire is given twice");
        assert!(agent("{scenarios: [rotation], provider: [spyre]}").contains("spyre"));
        assert!(agent("{scenarios: [rotation], istio: ['path=']}").contains("path="));
    }
}
