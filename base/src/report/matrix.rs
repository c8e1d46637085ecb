//! Rows are scenarios, columns are subjects; a column is called only by what tells it apart.

use std::collections::{BTreeMap, BTreeSet};

use super::text::plain;
use crate::plan::CellReport;
use crate::timeline::{ClusterSubject, ScenarioName, Subject};

/// The cells of a run, arranged.
#[derive(Debug)]
pub struct Matrix<'a> {
    /// In the order of the cells.
    pub rows: Vec<&'a ScenarioName>,
    /// By group: Istio, then provider; in it, in ascending order of Envoy.
    pub columns: Vec<Column>,
    grid: BTreeMap<(usize, usize), Vec<&'a CellReport>>,
    common: String,
}

/// One column's title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// What several columns beside each other have in common, `istio 1.31 · spire`; empty where all have all.
    pub group: String,
    /// What tells it apart in its group: `1.38.3`.
    pub label: String,
    /// Its Envoy is not the one that its Istio ships.
    pub off_pair: bool,
}

/// Marks a column that is off-pair.
pub(super) const OFF_PAIR: char = '†';

impl Column {
    /// The label, marked where it is off-pair.
    pub fn marked(&self) -> String {
        if self.off_pair { format!("{}{OFF_PAIR}", self.label) } else { self.label.clone() }
    }
}

/// One way in which subjects can differ: how it is told.
struct Axis {
    label: fn(&Subject) -> String,
    /// A provider differs from scenario to scenario; that alone makes no columns. Within these, it does.
    within: Option<fn(&CellReport, &CellReport) -> bool>,
}

/// What is told of each column.
const ENVOY: [Axis; 2] = [
    Axis { label: |s| format!("envoy {}", s.envoy.version), within: None },
    Axis { label: |s| s.envoy.source.clone(), within: Some(same_versions) },
];

/// What is told of each group.
const GROUP: [Axis; 5] = [
    Axis {
        label: |s| s.istio.as_ref().map_or_else(|| "no istio".to_owned(), |i| format!("istio {}", i.name())),
        within: None,
    },
    Axis { label: |s| s.istio.as_ref().map_or_else(String::new, |i| i.source.clone()), within: Some(same_versions) },
    Axis { label: |s| s.cluster.as_ref().map_or_else(String::new, cluster), within: None },
    Axis { label: |s| s.provider.kind.clone(), within: Some(same_versions) },
    Axis {
        label: |s| match &s.provider.profile {
            Some(profile) => format!("{profile} {}", s.provider.version),
            None => s.provider.version.clone(),
        },
        within: Some(|a, b| same_versions(a, b) && a.subject.provider.kind == b.subject.provider.kind),
    },
];

fn cluster(cluster: &ClusterSubject) -> String {
    let nodes = if cluster.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", cluster.nodes) };
    format!("kubernetes {}, {nodes}", cluster.kubernetes)
}

fn same_versions(a: &CellReport, b: &CellReport) -> bool {
    let istio = |cell: &CellReport| cell.subject.istio.as_ref().map(|i| i.version.clone());
    a.scenario == b.scenario
        && a.subject.envoy.version == b.subject.envoy.version
        && istio(a) == istio(b)
        && a.subject.cluster == b.subject.cluster
}

impl<'a> Matrix<'a> {
    /// Arranges cells; each is in exactly one place, and a place may hold several.
    pub fn of(cells: &'a [CellReport]) -> Self {
        let apart = |axes: &'static [Axis]| -> Vec<&Axis> { axes.iter().filter(|a| a.tells_apart(cells)).collect() };
        let (mut own, mut group) = (apart(&ENVOY), apart(&GROUP));
        // Where all have one Envoy, groups are columns; without any difference there is one, called by its Envoy.
        if own.is_empty() {
            own = if group.is_empty() { vec![&ENVOY[0]] } else { std::mem::take(&mut group) };
        }
        let told = |axes: &[&Axis], s: &Subject| {
            let labels = axes.iter().map(|a| (a.label)(s)).filter(|label| !label.is_empty());
            plain(&labels.collect::<Vec<_>>().join(" · "))
        };
        let column = |s: &Subject| Column { group: told(&group, s), label: told(&own, s), off_pair: false };

        let mut titles: BTreeMap<SortKey, Column> = BTreeMap::new();
        let mut rows: Vec<&ScenarioName> = Vec::new();
        for cell in cells {
            let title = column(&cell.subject);
            if !titles.values().any(|t| *t == title) {
                titles.insert(SortKey::of(&cell.subject, &title), title);
            }
            if !rows.contains(&&cell.scenario) {
                rows.push(&cell.scenario);
            }
        }
        let mut columns: Vec<Column> = titles.into_values().collect();
        let mut grid: BTreeMap<(usize, usize), Vec<&CellReport>> = BTreeMap::new();
        for cell in cells {
            let title = column(&cell.subject);
            let column = columns.iter().position(|t| *t == title).expect("every cell's title was collected above");
            let row = rows.iter().position(|r| **r == cell.scenario).expect("every cell's row was collected above");
            grid.entry((row, column)).or_default().push(cell);
        }
        for (n, column) in columns.iter_mut().enumerate() {
            let mut in_it = grid.iter().filter(|((_, c), _)| *c == n).flat_map(|(_, cells)| cells);
            column.off_pair = in_it.any(|cell| cell.disclosed.iter().any(|d| d.name == "off-pair"));
        }
        // Where columns differ by their Envoys only, "envoy" is said once, not in each.
        let only_envoys = own.len() == 1 && std::ptr::eq(own[0], &ENVOY[0]);
        if only_envoys {
            for column in &mut columns {
                column.label = column.label.trim_start_matches("envoy ").to_owned();
            }
        }
        Self { rows, columns, grid, common: if only_envoys { "envoy".to_owned() } else { String::new() } }
    }

    /// Cells in a place; usually one, none where the plan has a hole.
    pub fn at(&self, row: usize, column: usize) -> &[&'a CellReport] {
        self.grid.get(&(row, column)).map_or(&[], Vec::as_slice)
    }

    /// What all columns are versions of, if they are of one thing: the corner of the table.
    pub fn corner(&self) -> &str {
        &self.common
    }

    /// The columns that stand together, as ranges; a single one where nothing is told of groups.
    pub fn groups(&self) -> Vec<std::ops::Range<usize>> {
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        for (n, column) in self.columns.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if self.columns[group.start].group == column.group => group.end = n + 1,
                _ => groups.push(n..n + 1),
            }
        }
        groups
    }

    /// The rows that have a cell in one of these columns.
    pub fn rows_of(&self, columns: std::ops::Range<usize>) -> impl Iterator<Item = usize> + '_ {
        (0..self.rows.len()).filter(move |row| columns.clone().any(|column| !self.at(*row, column).is_empty()))
    }

    /// All that is said of a column: `envoy 1.38.3 · istio 1.31 · spire`.
    pub fn title(&self, column: usize) -> String {
        let Column { group, label, .. } = &self.columns[column];
        let own = format!("{} {label}", self.common);
        [own.trim(), group].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" · ")
    }
}

impl Axis {
    fn tells_apart(&self, cells: &[CellReport]) -> bool {
        let values = |of: &mut dyn Iterator<Item = &CellReport>| {
            of.map(|c| (self.label)(&c.subject)).collect::<BTreeSet<_>>().len()
        };
        match self.within {
            None => values(&mut cells.iter()) > 1,
            // Otherwise it tells rows apart, or repeats another axis.
            Some(same) => cells.iter().any(|one| values(&mut cells.iter().filter(|c| same(one, c))) > 1),
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    istio: Option<Vec<u64>>,
    group: String,
    envoy: semver::Version,
    label: String,
}

impl SortKey {
    fn of(subject: &Subject, column: &Column) -> Self {
        // Istio's versions are not always semantic: compare the numbers in them.
        let numbers =
            |version: &str| version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        Self {
            istio: subject.istio.as_ref().map(|istio| numbers(istio.name())),
            group: column.group.clone(),
            envoy: subject.envoy.version.semver(),
            label: column.label.clone(),
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

    fn behind(version: &str, cell: CellReport) -> CellReport {
        let istio = IstioSubject { version: version.into(), source: "go".into(), name: None };
        CellReport { subject: Subject { istio: Some(istio), ..cell.subject.clone() }, ..cell }
    }

    #[test]
    fn clusters_are_told_apart_where_there_are_several() {
        let on = |nodes: u32| {
            let cell = behind("1.29.0", cell("rotation", "1.37.1"));
            let cluster = ClusterSubject { kubernetes: "v1.34.0".into(), nodes };
            CellReport { subject: Subject { cluster: Some(cluster), ..cell.subject.clone() }, ..cell }
        };
        assert_eq!(labels(&[on(1)]), ["1.37.1"]);
        assert_eq!(labels(&[on(1), on(2)]), ["kubernetes v1.34.0, 1 node", "kubernetes v1.34.0, 2 nodes"]);
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
        assert_eq!(labels(&[cell("a", "1.40.0"), tbot]), ["generic 0.1.0", "tbot 0.1.0"]);
    }

    #[test]
    fn istio_is_named_where_it_differs() {
        let alone = || cell("a", "1.38.3");
        assert_eq!(
            labels(&[behind("1.30.1", alone()), behind("1.9.0", alone()), alone()]),
            ["no istio", "istio 1.9.0", "istio 1.30.1"]
        );
    }

    #[test]
    fn columns_are_grouped_by_istio_and_provider_where_envoys_differ_too() {
        let spire = |mut cell: CellReport| {
            (cell.subject.provider.kind, cell.subject.provider.profile) = ("spire".into(), None);
            cell
        };
        let all = ["1.40.0", "1.36.4"].map(|envoy| {
            let alone = cell("a", envoy);
            [behind("1.31", spire(alone.clone())), behind("1.31", alone.clone()), spire(alone.clone()), alone]
        });
        let cells = [all.as_flattened(), &[cell("b", "1.36.4")]].concat();
        let matrix = Matrix::of(&cells);
        let titles: Vec<String> = (0..matrix.columns.len()).map(|c| matrix.title(c)).collect();
        insta::assert_snapshot!(titles.join("\n"), @"
        envoy 1.36.4 · no istio · fake
        envoy 1.40.0 · no istio · fake
        envoy 1.36.4 · no istio · spire
        envoy 1.40.0 · no istio · spire
        envoy 1.36.4 · istio 1.31 · fake
        envoy 1.40.0 · istio 1.31 · fake
        envoy 1.36.4 · istio 1.31 · spire
        envoy 1.40.0 · istio 1.31 · spire
        ");
        assert_eq!(matrix.groups(), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(matrix.rows_of(0..2).count(), 2);
        assert_eq!(matrix.rows_of(2..4).count(), 1);
    }

    #[test]
    fn no_cell_is_lost_where_two_share_a_place() {
        let cells = [cell("a", "1.38.3"), cell("a", "1.38.3")];
        assert_eq!(Matrix::of(&cells).at(0, 0).len(), 2);
        assert_eq!(Matrix::of(&cells).at(1, 0).len(), 0);
    }
}
