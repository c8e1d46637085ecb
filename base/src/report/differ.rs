//! Where columns differ in what they claim, though they end alike: told in words.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Matrix;
use super::text::plain;
use crate::plan::CellReport;
use crate::timeline::ScenarioName;

/// A claim of a layer's that some subjects of a scenario make and others do not, though they end alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
pub struct Difference {
    /// The scenario.
    pub scenario: ScenarioName,
    /// What is claimed, and contradicted by what was seen; what changes from proxy to proxy is left out.
    pub claim: String,
    /// On which subjects: Envoys, where these alone make the difference; else columns of the matrix.
    pub claimed_on: Vec<String>,
    /// On which it is not.
    pub not_on: Vec<String>,
}

/// Whose claims are compared: what the admin API says of a layer. Those of requests depend on when they were sent.
const CLAIMANTS: [&str; 2] = ["config_dump: ", "stats: "];

impl Difference {
    /// Every one of a run, in the order of its scenarios.
    pub fn all(cells: &[CellReport]) -> Vec<Self> {
        let matrix = Matrix::of(cells);
        (0..matrix.rows.len()).flat_map(|row| of_row(&matrix, row)).collect()
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        format!("claimed on {}, not on {}: {}", joined(&self.claimed_on), joined(&self.not_on), self.claim)
    }
}

/// Said once what each begins with.
fn joined(names: &[String]) -> String {
    let versions: Option<Vec<&str>> = names.iter().map(|name| name.strip_prefix(ENVOY)).collect();
    match versions {
        Some(versions) => format!("{ENVOY}{}", versions.join(", ")),
        None => names.join(", "),
    }
}

const ENVOY: &str = "Envoy ";

fn of_row(matrix: &Matrix<'_>, row: usize) -> Vec<Difference> {
    // Those that end alike are compared: what else differs is in the matrix.
    let mut alike: BTreeMap<String, Vec<(usize, &CellReport)>> = BTreeMap::new();
    for column in 0..matrix.columns.len() {
        for cell in matrix.at(row, column) {
            if let Some(v) = &cell.verdict {
                let end = format!("{:?} {:?} {:?}", v.judgement, v.layer, v.diagnosis);
                alike.entry(end).or_default().push((column, cell));
            }
        }
    }
    let claims: Vec<_> = alike.into_values().collect();
    claims.iter().flat_map(|cells| of_cells(matrix, row, cells)).collect()
}

fn of_cells(matrix: &Matrix<'_>, row: usize, cells: &[(usize, &CellReport)]) -> Vec<Difference> {
    let claimed: Vec<(usize, &CellReport, BTreeSet<String>)> =
        cells.iter().map(|(column, cell)| (*column, *cell, claims(cell))).collect();
    let every: BTreeSet<&String> = claimed.iter().flat_map(|(_, _, claims)| claims).collect();
    let differs = |claim: &&String| !claimed.iter().all(|(_, _, claims)| claims.contains(*claim));
    every
        .into_iter()
        .filter(differs)
        .map(|claim| {
            let told = |envoys: bool, with: bool| {
                let mut names = Vec::new();
                for (column, cell, _) in claimed.iter().filter(|(_, _, claims)| claims.contains(claim) == with) {
                    let version = format!("{ENVOY}{}", cell.subject.envoy.version);
                    let name = if envoys { version } else { matrix.title(*column) };
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                names
            };
            let by_envoy = told(true, true).iter().all(|name| !told(true, false).contains(name));
            Difference {
                scenario: matrix.rows[row].clone(),
                claim: claim.clone(),
                claimed_on: told(by_envoy, true),
                not_on: told(by_envoy, false),
            }
        })
        .collect()
}

/// What a cell claims, without what changes from proxy to proxy and from run to run: names, numbers, times.
fn claims(cell: &CellReport) -> BTreeSet<String> {
    let Some(verdict) = &cell.verdict else { return BTreeSet::new() };
    let general = |claim: &str| {
        let mut words: Vec<&str> = Vec::new();
        for word in claim.split_whitespace() {
            let word = if word.bytes().any(|b| b.is_ascii_digit()) { "…" } else { word };
            words.push(word);
        }
        plain(&words.join(" "))
    };
    let of_layers = verdict.contradictions.iter().map(|c| c.claim.as_str());
    of_layers.filter(|claim| CLAIMANTS.iter().any(|who| claim.starts_with(who))).map(general).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;
    use crate::plan::Outcome;
    use crate::timeline::Role;
    use crate::verdict::Contradiction;

    fn incident(envoy: &str, claims: &[&str]) -> CellReport {
        let mut cell = sample::cell("incident", envoy, Role::Control, Outcome::Fail, true);
        let contradiction =
            |claim: &&str| Contradiction { claim: (*claim).to_owned(), against: "x".into(), evidence: vec![1] };
        cell.verdict.as_mut().unwrap().contradictions = claims.iter().map(contradiction).collect();
        cell
    }

    const STATS: &str = "stats: sds.default.update_success rose from 1 to 34";

    #[test]
    fn a_claim_of_some_envoys_is_told_and_one_of_all_is_not() {
        let other = "stats: sds.default.update_success rose from 1 to 33";
        let cells = [
            incident("1.36.4", &["config_dump: default was last updated at 06:40:35", STATS]),
            incident("1.38.3", &[other]),
            incident(
                "1.40.0",
                &[STATS, "a: 9 requests on the connection kept since the beginning succeeded after that"],
            ),
        ];
        let told: Vec<String> = Difference::all(&cells).iter().map(Difference::sentence).collect();
        insta::assert_snapshot!(told.join("\n"), @"claimed on Envoy 1.36.4, not on Envoy 1.38.3, 1.40.0: config_dump: default was last updated at …");
        assert_eq!(Difference::all(&cells[1..]), []);
    }

    #[test]
    fn columns_are_named_where_envoys_do_not_tell_them_apart() {
        let mut cells = [incident("1.38.3", &[STATS]), incident("1.38.3", &[])];
        cells[1].subject.provider.profile = Some("tbot".into());
        let told = Difference::all(&cells);
        assert_eq!(
            (&told[0].claimed_on[0], &told[0].not_on[0]),
            (&"generic 0.1.0".to_owned(), &"tbot 0.1.0".to_owned())
        );
    }

    #[test]
    fn what_ends_otherwise_is_not_compared() {
        let mut cells = [incident("1.36.4", &[STATS]), incident("1.38.3", &[])];
        cells[1].verdict.as_mut().unwrap().diagnosis = None;
        assert_eq!(Difference::all(&cells), []);
    }
}
