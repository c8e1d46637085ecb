//! From the words of a command line to the cells of a plan.

use camino::{Utf8Path, Utf8PathBuf};

use super::cell::Origin;
use super::library::read_file;
use super::{Cell, Library, Matrix, Overrides, PlanError, unsupported};
use crate::scenario::{ExpectedJudgement, Role, Scenario, nearest};
use crate::timeline::{EnvoyRequest, ProgramRequest, ProgramVersion};

/// What is selected, and what is changed in it.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names, globs (`nack-*`) and paths of scenario files; none: all.
    pub scenarios: Vec<String>,
    /// Envoys; none: those of the matrix.
    pub envoys: Vec<EnvoyRequest>,
    /// Istios, for scenarios with its agent; none: those of the matrix.
    pub istios: Vec<ProgramRequest>,
    /// SPIREs, for scenarios in which it issues; none: those of the matrix.
    pub spires: Vec<ProgramRequest>,
    /// What the command line changes.
    pub overrides: Overrides,
}

/// The cells of a run, in the order of the matrix: by scenario, then by subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its cells; never none.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// The plan of a selection.
    pub fn select(library: &Library, selection: &Selection) -> Result<Self, PlanError> {
        let mut scenarios = selected(library, &selection.scenarios)?;
        scenarios.iter_mut().for_each(|(_, scenario)| selection.overrides.apply(scenario));
        let envoys = match selection.envoys.as_slice() {
            [] => library.matrix()?.envoy.into_iter().map(EnvoyRequest::Version).collect(),
            given => without_repetition(given),
        };
        let named = |given: &[ProgramRequest], needed: bool, of_matrix: fn(Matrix) -> Vec<ProgramVersion>| match given {
            [] if needed => {
                library.matrix().map(|matrix| of_matrix(matrix).into_iter().map(ProgramRequest::Version).collect())
            }
            given => Ok(without_repetition(given)),
        };
        let any = |needs: fn(&Scenario) -> bool| scenarios.iter().any(|(_, scenario)| needs(scenario));
        let istios = named(&selection.istios, any(|s| s.fleet.kind.has_istio()), |matrix| matrix.istio)?;
        let spires = named(&selection.spires, any(|s| s.provider.kind.has_spire()), |matrix| matrix.spire)?;
        let mut cells = Vec::new();
        for (argument, scenario) in scenarios {
            let unsupported = unsupported(&scenario);
            if unsupported.is_none() {
                sound(&scenario, &selection.overrides)?;
            }
            let mut paths = 0;
            for envoy in &envoys {
                paths += usize::from(matches!(envoy, EnvoyRequest::Path(_)));
                let cell = |istio, spire| Cell {
                    scenario: scenario.clone(),
                    envoy: envoy.clone(),
                    istio,
                    spire,
                    unsupported: unsupported.clone(),
                    nth_path: if matches!(envoy, EnvoyRequest::Path(_)) { paths } else { 0 },
                    origin: Origin {
                        argument: argument.clone(),
                        directory: library.directory().map(Utf8Path::to_owned),
                        overrides: selection.overrides.clone(),
                    },
                };
                let name = || scenario.name.to_string();
                let istios = choices(scenario.fleet.kind.has_istio(), &istios)
                    .ok_or_else(|| PlanError::NoIstio { scenario: name() })?;
                let spires = choices(scenario.provider.kind.has_spire(), &spires)
                    .ok_or_else(|| PlanError::NoSpire { scenario: name() })?;
                for istio in &istios {
                    cells.extend(spires.iter().map(|spire| cell(istio.clone(), spire.clone())));
                }
            }
        }
        Ok(Self { cells })
    }

    /// The Istios that it needs, each once.
    pub fn istios(&self) -> Vec<ProgramRequest> {
        let all: Vec<_> = self.cells.iter().filter_map(|cell| cell.istio.clone()).collect();
        without_repetition(&all)
    }

    /// The SPIREs that it needs, each once.
    pub fn spires(&self) -> Vec<ProgramRequest> {
        let all: Vec<_> = self.cells.iter().filter_map(|cell| cell.spire.clone()).collect();
        without_repetition(&all)
    }

    /// The Envoys that it needs, each once.
    pub fn envoys(&self) -> Vec<EnvoyRequest> {
        let all: Vec<_> = self.cells.iter().map(|cell| cell.envoy.clone()).collect();
        without_repetition(&all)
    }
}

/// Where a scenario stands in lists and matrices: what must pass first, then what must be caught.
pub(super) fn matrix_order(scenario: &Scenario) -> (bool, bool, String) {
    let inconclusive = scenario.expect.judgement == ExpectedJudgement::Inconclusive;
    (scenario.role == Role::Control, inconclusive, scenario.name.to_string())
}

/// The scenarios with the words that select them, each once, in the order of the matrix.
fn selected(library: &Library, words: &[String]) -> Result<Vec<(String, Scenario)>, PlanError> {
    let mut found: Vec<(String, Scenario)> = Vec::new();
    let mut add = |argument: &str, scenario: Scenario| {
        if !found.iter().any(|(_, earlier)| earlier.name == scenario.name) {
            found.push((argument.to_owned(), scenario));
        }
    };
    if words.is_empty() {
        for scenario in library.scenarios()? {
            add(scenario.name.clone().as_str(), scenario);
        }
    }
    for word in words {
        if let Some(scenario) = library.scenario(word) {
            add(word, scenario?);
        } else if is_path(word) {
            add(word, read_file(&Utf8PathBuf::from(word))?);
        } else {
            let matching: Vec<&str> = library.names().filter(|name| glob(word, name)).collect();
            if matching.is_empty() {
                return Err(PlanError::NothingMatches {
                    pattern: word.clone(),
                    near: nearest(word, library.names()).map(str::to_owned),
                    names: library.names().map(str::to_owned).collect(),
                });
            }
            for name in matching {
                if let Some(scenario) = library.scenario(name) {
                    add(name, scenario?);
                }
            }
        }
    }
    if found.is_empty() {
        let place = library.directory().map_or_else(|| "the library".to_owned(), ToString::to_string);
        return Err(PlanError::Empty { place });
    }
    found.sort_by_key(|(_, scenario)| matrix_order(scenario));
    Ok(found)
}

fn sound(scenario: &Scenario, overrides: &Overrides) -> Result<(), PlanError> {
    let problems = scenario.problems();
    if problems.is_empty() {
        return Ok(());
    }
    let options = overrides.options().join(" ");
    Err(PlanError::Overridden { scenario: scenario.name.to_string(), options, problems })
}

/// What a cell's further program can be: nothing where none is needed; no answer where one is, and none was named.
fn choices(needed: bool, named: &[ProgramRequest]) -> Option<Vec<Option<ProgramRequest>>> {
    match (needed, named) {
        (false, _) => Some(vec![None]),
        (true, []) => None,
        (true, named) => Some(named.iter().cloned().map(Some).collect()),
    }
}

fn is_path(word: &str) -> bool {
    word.contains('/') || word.ends_with(".yaml") || word.ends_with(".yml")
}

fn without_repetition<T: Clone + PartialEq>(all: &[T]) -> Vec<T> {
    let mut unique: Vec<T> = Vec::new();
    for one in all {
        if !unique.contains(one) {
            unique.push(one.clone());
        }
    }
    unique
}

/// Whether the pattern, in which `*` is any text and `?` any sign, is the name.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: one sign later in the name.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n + 1));
                p += 1;
            }
            Some(sign) if *sign == b'?' || *sign == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, from)) => {
                    (p, n) = (after_star, from);
                    retry = Some((after_star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|sign| *sign == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{ClockKind, Span};
    use crate::timeline::EnvoyVersion;

    fn plan(words: &[&str], envoys: &[&str], overrides: Overrides) -> Result<Plan, PlanError> {
        let selection = Selection {
            scenarios: words.iter().map(|&word| word.to_owned()).collect(),
            envoys: envoys.iter().map(|text| text.parse().unwrap()).collect(),
            spires: Vec::new(),
            istios: Vec::new(),
            overrides,
        };
        Plan::select(&Library::embedded(), &selection)
    }

    #[test]
    fn the_default_plan_is_every_scenario_on_every_envoy_of_the_matrix() {
        let plan = plan(&[], &[], Overrides::default()).unwrap();
        let labels: Vec<String> = plan.cells.iter().map(Cell::label).collect();
        insta::assert_snapshot!(labels.join("\n"));
        assert!(plan.cells.iter().all(|cell| cell.unsupported.is_none()));
    }

    #[test]
    fn names_globs_and_paths_select_each_scenario_once() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/incident.yaml");
        let names = |words: &[&str]| -> Vec<String> {
            let cells = plan(words, &["1.38.3"], Overrides::default()).unwrap().cells;
            cells.iter().map(|cell| cell.scenario.name.to_string()).collect()
        };
        assert_eq!(names(&["incident", "inc*", path]), ["incident"]);
        assert_eq!(
            names(&["nack-key-mismatch", "rotation*"]),
            [
                "rotation",
                "rotation-chain",
                "rotation-expired-authority",
                "rotation-files",
                "rotation-gateway",
                "rotation-one-hour",
                "rotation-serials",
                "rotation-shared-serial",
                "nack-key-mismatch"
            ]
        );
        assert_eq!(names(&["*-renew?"]), ["never-renews"]);
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest() {
        match plan(&["incidnet"], &[], Overrides::default()) {
            Err(PlanError::NothingMatches { near: Some(near), .. }) => assert_eq!(near, "incident"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(plan(&["nothing-*"], &[], Overrides::default()), Err(PlanError::NothingMatches { .. })));
        assert!(matches!(plan(&["gone.yaml"], &[], Overrides::default()), Err(PlanError::Unreadable { .. })));
    }

    #[test]
    fn each_cell_says_the_command_that_repeats_it() {
        let overrides =
            Overrides { ttl: Some(Span::seconds(10)), clock: Some(ClockKind::Real), ..Overrides::default() };
        let plan = plan(&["rotation"], &["1.38.3", "path=/opt/my envoy", "1.38.3"], overrides).unwrap();
        let commands: Vec<String> = plan.cells.iter().map(Cell::command).collect();
        assert_eq!(
            commands,
            [
                "rotacheck run rotation --envoy 1.38.3 --clock real --ttl 10s",
                "rotacheck run rotation --envoy 'path=/opt/my envoy' --clock real --ttl 10s",
            ]
        );
        let measured = EnvoyVersion::parse("1.38.3").unwrap();
        let ids: Vec<String> = plan.cells.iter().map(|cell| cell.id(&measured).to_string()).collect();
        assert_eq!(ids, ["rotation@envoy-1.38.3", "rotation@envoy-1.38.3+path"]);
    }

    #[test]
    fn a_command_line_that_makes_no_sense_is_refused_and_one_that_could_only_flake_is_unsupported() {
        let renew_late = Overrides { renew_every: Some(Span::seconds(300)), ..Overrides::default() };
        let error = plan(&["rotation"], &[], renew_late).unwrap_err();
        assert!(error.to_string().starts_with("rotation cannot be run with --renew-every 5m: renew_every (5m) is not"));

        let real = Overrides { clock: Some(ClockKind::Real), ..Overrides::default() };
        let cells = plan(&[], &["1.38.3"], real).unwrap().cells;
        let not: Vec<&str> =
            cells.iter().filter(|c| c.unsupported.is_some()).map(|cell| cell.scenario.name.as_str()).collect();
        assert_eq!(not, ["rotation-one-hour", "incident"]);

        let short = Overrides { ttl: Some(Span::seconds(4)), ..Overrides::default() };
        let cells = plan(&["rotation"], &["1.38.3"], short).unwrap().cells;
        assert!(cells[0].unsupported.as_deref().unwrap().contains("below the floor of 20s"));
    }

    #[test]
    fn a_glob_matches_as_a_shell_would() {
        for (pattern, name, fits) in [
            ("*", "incident", true),
            ("nack-*", "nack-key-mismatch", true),
            ("*-*-*", "never-renews", false),
            ("r?tation", "rotation", true),
            ("rotation", "rotation-one-hour", false),
            ("*hour", "rotation-one-hour", true),
            ("", "incident", false),
            ("**a*b", "aab", true),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
        assert!(!glob(&"*a".repeat(50), &"b".repeat(80)));
    }
}
