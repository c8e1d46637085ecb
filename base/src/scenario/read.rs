//! From a text to a scenario that makes sense.

use std::path::Path;

use super::document::Document;
use super::error::{Problem, ScenarioError};
use super::{FleetSpec, Scenario, check};
use crate::timeline::ProxyId;

impl Scenario {
    /// Reads a scenario from YAML. `file_name` is how the user knows the file; its stem must be the scenario's name.
    ///
    /// Unknown and duplicate keys, wrong types and contradicting values are errors that show the place in the text.
    /// Size, nesting and aliases are bounded.
    pub fn read(text: &str, file_name: &str) -> Result<Scenario, ScenarioError> {
        let document = Document::<Scenario>::parse(text, file_name)?;
        let scenario = &document.value;
        let mut problems = Vec::new();
        let stem = Path::new(file_name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if scenario.name.as_str() != stem {
            problems.push(Problem {
                path: "name".to_owned(),
                message: format!("the name `{}` is not that of the file", scenario.name),
                help: Some(format!("write `name: {stem}`, or rename the file")),
            });
        }
        problems.extend(scenario.problems());
        document.checked(problems)
    }
}

impl FleetSpec {
    /// The names of its proxies: `proxy-a`, `proxy-b`, ... `proxy-z`, `proxy-aa`, ...
    pub fn proxy_ids(&self) -> Vec<ProxyId> {
        (0..self.proxies.min(check::MOST_PROXIES)).map(proxy_id).collect()
    }
}

fn proxy_id(n: u32) -> ProxyId {
    let letter = |n: u32| char::from(b'a' + u8::try_from(n % 26).expect("below 26"));
    let name = match n / 26 {
        0 => format!("proxy-{}", letter(n)),
        tens => format!("proxy-{}{}", letter(tens - 1), letter(n)),
    };
    ProxyId::parse(&name).expect("letters and a hyphen")
}

#[cfg(test)]
mod tests;
