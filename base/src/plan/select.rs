//! From the words of a command line to the cells of a plan.

use camino::{Utf8Path, Utf8PathBuf};

use super::capability::unsupported_here;
use super::cell::Origin;
use super::library::read_file;
use super::subjects::{Subject, products};
use super::{Cell, Library, Overrides, PlanError};
use crate::scenario::{ExpectedJudgement, FleetKind, ProviderKind, Role, Scenario, nearest};
use crate::timeline::{EnvoyRequest, ImageReference, IstioRequest, ProgramRequest};

/// What is selected, and what is changed in it.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names, globs (`nack-*`) and paths of scenario files; none: all, or those that the matrix lists for `topology`.
    pub scenarios: Vec<String>,
    /// How the proxies are run, in every cell; none: as each scenario and `istios` say.
    pub topology: Option<FleetKind>,
    /// Where the proxies are in a cluster, those that every scenario meets; `envoys` and `istios` are then of no account.
    pub clusters: Vec<InCluster>,
    /// Envoys; none: those of the matrix.
    pub envoys: Vec<EnvoyRequest>,
    /// Istios, each of which every scenario meets; none: as each scenario says, with those of the matrix.
    pub istios: Vec<IstioRequest>,
    /// Who issues, each of which every scenario meets; none: as each scenario says.
    pub providers: Vec<ProviderKind>,
    /// SPIREs, where SPIRE issues; none: those of the matrix.
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

/// A cluster that proxies are to be in, and what is tested there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InCluster {
    /// The options that say which one, with their values.
    pub options: Vec<(&'static str, String)>,
    /// What tells it apart from the others in a cell's name, beside its Istio: `k8s-v1.34.0+nodes-2`; often nothing.
    pub name: String,
    /// The image that has Envoy and Istio's agent.
    pub envoy: ImageReference,
    /// Which it is of the images that are named: 1, 2, ...
    pub nth_envoy: usize,
    /// Istio's own image of that kind, which says the version of its control plane.
    pub istio: ImageReference,
}

impl Plan {
    /// The plan of a selection.
    pub fn select(library: &Library, selection: &Selection) -> Result<Self, PlanError> {
        let has_istio = |istio: &IstioRequest| istio.programs().is_some();
        if selection.topology.is_some_and(|kind| !kind.has_istio()) && selection.istios.iter().any(has_istio) {
            return Err(PlanError::IstioWithoutAgent);
        }
        let mut cells: Vec<Cell> = Vec::new();
        for product in products(library, selection)? {
            for (argument, own) in &product.scenarios {
                for subject in product.subjects(own)? {
                    let cell = cell(library, selection, (argument, own), subject)?;
                    // A scenario may be in several products.
                    if !cells.iter().any(|other| other.is_at_the_place_of(&cell)) {
                        cells.push(cell);
                    }
                }
            }
        }
        cells.sort_by_key(|cell| matrix_order(&cell.scenario));
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
pub(super) fn selected(library: &Library, words: &[String]) -> Result<Vec<(String, Scenario)>, PlanError> {
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

/// One scenario, with the word that selects it, on one subject.
fn cell(
    library: &Library,
    selection: &Selection,
    (argument, own): (&str, &Scenario),
    subject: Subject,
) -> Result<Cell, PlanError> {
    let Subject { envoy, nth_path, istio, cluster, provider, spire } = subject;
    let mut scenario = own.clone();
    let in_cluster = selection.topology.filter(|kind| kind.is_cluster());
    // As the command line says; else as the scenario does, if no Istio takes part.
    let in_container = selection.topology.unwrap_or(own.fleet.kind).is_container() && istio.is_none();
    scenario.fleet.kind = match in_cluster {
        Some(kind) => kind,
        None if in_container => FleetKind::Container,
        None => FleetKind::of_istio(istio.is_some()),
    };
    let changed = Some(provider).filter(|kind| *kind != own.provider.kind);
    let overrides = match selection.providers.len() {
        0 | 1 => selection.overrides.clone(),
        _ => selection.overrides.for_provider(provider),
    };
    overrides.apply(&mut scenario, changed);
    let unsupported = unsupported_here(own, &scenario);
    let cell = Cell {
        scenario,
        envoy,
        istio,
        spire,
        cluster,
        unsupported,
        nth_path,
        origin: Origin {
            argument: argument.to_owned(),
            directory: library.directory().map(Utf8Path::to_owned),
            has_agent: own.fleet.kind.has_istio(),
            provider: changed,
            overrides,
            cluster: cluster.and_then(|nth| selection.clusters.get(nth)).cloned(),
        },
    };
    let problems = cell.scenario.problems();
    if cell.unsupported.is_none() && !problems.is_empty() {
        return Err(PlanError::Overridden {
            scenario: own.name.to_string(),
            options: cell.changes().join(" "),
            problems,
        });
    }
    Ok(cell)
}

fn is_path(word: &str) -> bool {
    word.contains('/') || word.ends_with(".yaml") || word.ends_with(".yml")
}

pub(super) fn without_repetition<T: Clone + PartialEq>(all: &[T]) -> Vec<T> {
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
            overrides,
            ..Selection::default()
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

    fn on(words: &[&str], istios: &[&str], providers: &[ProviderKind]) -> Selection {
        Selection {
            scenarios: words.iter().map(|&word| word.to_owned()).collect(),
            envoys: vec!["1.38.3".parse().unwrap()],
            istios: istios.iter().map(|text| text.parse().unwrap()).collect(),
            providers: providers.to_vec(),
            ..Selection::default()
        }
    }

    fn told(selection: &Selection) -> Vec<String> {
        let cells = Plan::select(&Library::embedded(), selection).unwrap().cells;
        let told = |cell: &Cell| match &cell.unsupported {
            Some(why) => format!("{}  unsupported: {why}", cell.label()),
            None => cell.label(),
        };
        cells.iter().map(told).collect()
    }

    #[test]
    fn the_plan_of_agents_is_what_the_matrix_lists_and_says_what_makes_no_sense() {
        let selection = Selection { topology: Some(FleetKind::Agent), ..Selection::default() };
        insta::assert_snapshot!(told(&selection).join("\n"));
        let fewer = Selection { topology: Some(FleetKind::Agent), ..on(&[], &["none"], &[ProviderKind::Fake]) };
        let fewer = Plan::select(&Library::embedded(), &fewer).unwrap().cells;
        assert!(fewer.iter().all(|cell| cell.istio.is_none() && cell.envoy.to_string() == "1.38.3"));
    }

    #[test]
    fn each_scenario_meets_every_istio_and_every_provider_that_is_named() {
        use ProviderKind::{Fake, IstioCa, Spire};
        let all = told(&on(&["rotation", "agent-incident"], &["none", "1.31"], &[Fake, IstioCa, Spire]));
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn an_option_of_one_provider_concerns_no_other_where_several_are_named() {
        let socket = Overrides { socket: Some("s".into()), ..Overrides::default() };
        let both = on(&["rotation"], &[], &[ProviderKind::Fake, ProviderKind::External]);
        let cells = Plan::select(&Library::embedded(), &Selection { overrides: socket.clone(), ..both }).unwrap().cells;
        let commands: Vec<String> = cells.iter().map(Cell::command).collect();
        insta::assert_snapshot!(commands.join("\n"), @"
        rotacheck run rotation --envoy 1.38.3
        rotacheck run rotation --envoy 1.38.3 --provider external --socket s
        ");
        let alone = Selection { overrides: socket, ..on(&["rotation"], &[], &[ProviderKind::Fake]) };
        assert!(matches!(Plan::select(&Library::embedded(), &alone), Err(PlanError::Overridden { .. })));
    }

    #[test]
    fn a_scenario_stays_at_home_where_nothing_is_named() {
        assert_eq!(
            told(&on(&["rotation", "agent-refuses", "spire-agent-gone"], &[], &[])),
            [
                "rotation@envoy-1.38.3",
                "agent-refuses@envoy-1.38.3+istio-1.31-dev.20260827",
                "spire-agent-gone@envoy-1.38.3+spire-1.13.3",
            ]
        );
        let agent = Selection { topology: Some(FleetKind::Agent), ..on(&["rotation"], &[], &[]) };
        assert_eq!(told(&agent), ["rotation@envoy-1.38.3+istio-1.31-dev.20260827"]);
        let process = Selection { topology: Some(FleetKind::Process), ..on(&["rotation"], &[], &[]) };
        assert_eq!(told(&process), ["rotation@envoy-1.38.3"]);
        let both = Selection { topology: Some(FleetKind::Process), ..on(&["rotation"], &["1.31"], &[]) };
        let refused = Plan::select(&Library::embedded(), &both);
        assert!(matches!(refused, Err(PlanError::IstioWithoutAgent)), "{refused:?}");
    }

    #[test]
    fn every_scenario_meets_every_cluster_and_is_called_by_what_tells_it_apart() {
        let cluster = |tag: &str, name: &str, nodes: &str| InCluster {
            options: vec![("--nodes", nodes.to_owned()), ("--istio-tag", tag.to_owned())],
            name: name.to_owned(),
            envoy: format!("docker.io/istio/proxyv2:{tag}").parse().unwrap(),
            nth_envoy: 1,
            istio: format!("docker.io/istio/proxyv2:{tag}").parse().unwrap(),
        };
        let clusters =
            vec![cluster("1.28.3", "nodes-1", "1"), cluster("1.28.3", "nodes-2", "2"), cluster("1.29.0", "", "1")];
        let selection = Selection {
            scenarios: vec!["rotation".into(), "incident".into()],
            topology: Some(FleetKind::Kind),
            clusters,
            ..Selection::default()
        };
        let cells = Plan::select(&Library::embedded(), &selection).unwrap().cells;
        let measured = EnvoyVersion::parse("1.36.4").unwrap();
        let told: Vec<String> =
            cells.iter().map(|cell| format!("{}: {}", cell.id(&measured), cell.command())).collect();
        insta::assert_snapshot!(told.join("\n"), @"
        rotation@envoy-1.36.4+image+istio-image-1.28.3+nodes-1: rotacheck run rotation --topology kind --nodes 1 --istio-tag 1.28.3
        rotation@envoy-1.36.4+image+istio-image-1.28.3+nodes-2: rotacheck run rotation --topology kind --nodes 2 --istio-tag 1.28.3
        rotation@envoy-1.36.4+image+istio-image-1.29.0: rotacheck run rotation --topology kind --nodes 1 --istio-tag 1.29.0
        incident@envoy-1.36.4+image+istio-image-1.28.3+nodes-1: rotacheck run incident --topology kind --nodes 1 --istio-tag 1.28.3
        incident@envoy-1.36.4+image+istio-image-1.28.3+nodes-2: rotacheck run incident --topology kind --nodes 2 --istio-tag 1.28.3
        incident@envoy-1.36.4+image+istio-image-1.29.0: rotacheck run incident --topology kind --nodes 1 --istio-tag 1.29.0
        ");
        assert_eq!(cells.iter().map(|cell| cell.cluster.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_cell_on_another_subject_says_so_in_its_name_and_its_command() {
        let selection = on(&["rotation"], &["path=/opt/istio"], &[ProviderKind::IstioCa, ProviderKind::Spire]);
        let cells = Plan::select(&Library::embedded(), &selection).unwrap().cells;
        let commands: Vec<String> = cells.iter().map(|cell| format!("{}: {}", cell.label(), cell.command())).collect();
        insta::assert_snapshot!(commands.join("\n"), @"
        rotation@envoy-1.38.3+istio-path+istio-ca: rotacheck run rotation --envoy 1.38.3 --istio path=/opt/istio --provider istio-ca
        rotation@envoy-1.38.3+istio-path+spire-1.13.3: rotacheck run rotation --envoy 1.38.3 --istio path=/opt/istio --spire 1.13.3 --provider spire
        ");
        // Said once more, it is the same cell.
        let again = Selection {
            spires: vec!["1.13.3".parse().unwrap()],
            ..on(&["rotation"], &["path=/opt/istio"], &[ProviderKind::Spire])
        };
        assert_eq!(told(&again), [cells[1].label()]);
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
