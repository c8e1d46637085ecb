//! Rows are scenarios, columns are subjects; a column is called only by what tells it apart.

use std::collections::{BTreeMap, BTreeSet};

use super::text::plain;
use crate::plan::CellReport;
use crate::timeline::{ScenarioName, Subject};

/// The cells of a run, arranged.
#[derive(Debug)]
pub struct Matrix<'a> {
    /// In the order of the cells.
    pub rows: Vec<&'a ScenarioName>,
    /// In ascending order of Envoy, Istio, provider.
    pub columns: Vec<Column>,
    grid: BTreeMap<(usize, usize), Vec<&'a CellReport>>,
    common: String,
}

/// One column's title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// What tells it apart: `1.38.3`, `1.38.3 · istio 1.30`.
    pub label: String,
}

/// One way in which subjects can differ: how it is told, and how it is sorted.
struct Axis {
    label: fn(&Subject) -> String,
    /// A provider differs from scenario to scenario; that alone makes no columns.
    by_scenario: bool,
}

const AXES: [Axis; 4] = [
    Axis { label: |s| format!("envoy {}", s.envoy.version), by_scenario: false },
    Axis { label: |s| s.envoy.source.clone(), by_scenario: true },
    Axis {
        label: |s| s.istio.as_ref().map_or_else(|| "no istio".to_owned(), |i| format!("istio {}", i.version)),
        by_scenario: false,
    },
    Axis { label: provider, by_scenario: true },
];

fn provider(subject: &Subject) -> String {
    let p = &subject.provider;
    match &p.profile {
        Some(profile) => format!("{} {profile} {}", p.kind, p.version),
        None => format!("{} {}", p.kind, p.version),
    }
}

impl<'a> Matrix<'a> {
    /// Arranges cells; each is in exactly one place, and a place may hold several.
    pub fn of(cells: &'a [CellReport]) -> Self {
        let axes: Vec<&Axis> = AXES.iter().filter(|axis| axis.tells_apart(cells)).collect();
        // Without any difference there is one column, called by its Envoy.
        let shown = if axes.is_empty() { vec![&AXES[0]] } else { axes };
        let label = |s: &Subject| plain(&shown.iter().map(|a| (a.label)(s)).collect::<Vec<_>>().join(" · "));

        let mut titles: BTreeMap<SortKey, String> = BTreeMap::new();
        let mut rows: Vec<&ScenarioName> = Vec::new();
        for cell in cells {
            let title = label(&cell.subject);
            if !titles.values().any(|t| *t == title) {
                titles.insert(SortKey::of(&cell.subject, &title), title);
            }
            if !rows.contains(&&cell.scenario) {
                rows.push(&cell.scenario);
            }
        }
        let titles: Vec<String> = titles.into_values().collect();
        let mut grid: BTreeMap<(usize, usize), Vec<&CellReport>> = BTreeMap::new();
        for cell in cells {
            let title = label(&cell.subject);
            let column = titles.iter().position(|t| *t == title).expect("every cell's title was collected above");
            let row = rows.iter().position(|r| **r == cell.scenario).expect("every cell's row was collected above");
            grid.entry((row, column)).or_default().push(cell);
        }
        // Where only Envoys differ, "envoy" is said once, not in each column.
        let only_envoys = shown.len() == 1 && std::ptr::eq(shown[0], &AXES[0]);
        let columns = titles
            .into_iter()
            .map(|t| Column {
                label: if only_envoys { t.strip_prefix("envoy ").map(str::to_owned).unwrap_or(t) } else { t },
            })
            .collect();
        let common = if only_envoys { "envoy".to_owned() } else { String::new() };
        Self { rows, columns, grid, common }
    }

    /// Cells in a place; usually one, none where the plan has a hole.
    pub fn at(&self, row: usize, column: usize) -> &[&'a CellReport] {
        self.grid.get(&(row, column)).map_or(&[], Vec::as_slice)
    }

    /// What all columns are versions of, if they are of one thing: the corner of the table.
    pub fn corner(&self) -> &str {
        &self.common
    }
}

impl Axis {
    fn tells_apart(&self, cells: &[CellReport]) -> bool {
        let values = |of: &mut dyn Iterator<Item = &CellReport>| {
            of.map(|c| (self.label)(&c.subject)).collect::<BTreeSet<_>>().len()
        };
        if !self.by_scenario {
            return values(&mut cells.iter()) > 1;
        }
        // Within one scenario, on one Envoy and Istio: otherwise it tells rows apart, or repeats another axis.
        cells.iter().any(|one| {
            values(&mut cells.iter().filter(|c| {
                c.scenario == one.scenario
                    && c.subject.envoy.version == one.subject.envoy.version
                    && c.subject.istio == one.subject.istio
            })) > 1
        })
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    envoy: semver::Version,
    istio: Option<Vec<u64>>,
    title: String,
}

impl SortKey {
    fn of(subject: &Subject, title: &str) -> Self {
        Self {
            envoy: subject.envoy.version.semver(),
            // Istio's versions are not always semantic: compare the numbers in them.
            istio: subject
                .istio
                .as_ref()
                .map(|i| i.version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()),
            title: title.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;
    use crate::plan::Outcome;
    use crate::timeline::{IstioSubject, Role};

    fn cell(scenario: &str, envoy: &str) -> CellReport {
        sample::cell(scenario, envoy, Role::Conformance, Outcome::Pass, true)
    }

    fn labels(cells: &[CellReport]) -> Vec<String> {
        Matrix::of(cells).columns.into_iter().map(|c| c.label).collect()
    }

    #[test]
    fn columns_are_called_by_what_differs_and_sorted_by_version() {
        let cells = [cell("a", "1.40.0"), cell("a", "1.36.4"), cell("b", "1.100.0")];
        assert_eq!(labels(&cells), ["1.36.4", "1.40.0", "1.100.0"]);
        assert_eq!(Matrix::of(&cells).corner(), "envoy");
        assert_eq!(labels(&cells[..1]), ["1.40.0"]);
    }

    #[test]
    fn a_provider_that_belongs_to_the_scenario_makes_no_columns() {
        let mut tbot = cell("b", "1.40.0");
        tbot.subject.provider.profile = Some("tbot".into());
        assert_eq!(labels(&[cell("a", "1.40.0"), tbot.clone()]), ["1.40.0"]);
        // Two providers for the same scenario and Envoy do.
        tbot.scenario = ScenarioName::parse("a").unwrap();
        assert_eq!(labels(&[cell("a", "1.40.0"), tbot]), ["fake generic 0.1.0", "fake tbot 0.1.0"]);
    }

    #[test]
    fn istio_is_named_where_it_differs() {
        let with = |version: &str| {
            let mut c = cell("a", "1.38.3");
            c.subject.istio = Some(IstioSubject { version: version.into(), source: "go".into() });
            c
        };
        assert_eq!(
            labels(&[with("1.30.1"), with("1.9.0"), cell("a", "1.38.3")]),
            ["no istio", "istio 1.9.0", "istio 1.30.1"]
        );
    }

    #[test]
    fn no_cell_is_lost_where_two_share_a_place() {
        let cells = [cell("a", "1.38.3"), cell("a", "1.38.3")];
        assert_eq!(Matrix::of(&cells).at(0, 0).len(), 2);
        assert_eq!(Matrix::of(&cells).at(1, 0).len(), 0);
    }
}
