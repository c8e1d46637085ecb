//! Which scenario meets which subjects: the products of what the matrix and the command line name.

use super::select::{InCluster, Selection, selected, without_repetition};
use super::{Library, Matrix, PlanError};
use crate::scenario::{ProviderKind, Scenario};
use crate::timeline::{EnvoyRequest, EnvoyVersion, IstioRequest, ProgramRequest, ProgramVersion};

/// Scenarios, and the subjects that each of them is run on: every combination of what is listed.
pub(super) struct Product {
    /// Each with the word that selects it.
    pub(super) scenarios: Vec<(String, Scenario)>,
    envoys: Vec<EnvoyRequest>,
    /// `None`: as each scenario says.
    istios: Option<Vec<IstioRequest>>,
    /// `None`: as each scenario says.
    providers: Option<Vec<ProviderKind>>,
    /// For scenarios that say themselves that Istio takes part.
    own_istios: Vec<ProgramRequest>,
    spires: Vec<ProgramRequest>,
    /// If there are any: where all proxies are, with the Envoys and Istios that are there.
    clusters: Vec<InCluster>,
}

/// What one scenario is run on.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) envoy: EnvoyRequest,
    /// Which it is of the Envoys that are given by a path: 1, 2, ...; 0 for a version.
    pub(super) nth_path: usize,
    pub(super) istio: Option<ProgramRequest>,
    /// Which of the clusters it is in.
    pub(super) cluster: Option<usize>,
    pub(super) provider: ProviderKind,
    pub(super) spire: Option<ProgramRequest>,
}

/// What a selection comes to. The command line goes before the matrix, in each of its dimensions.
pub(super) fn products(library: &Library, selection: &Selection) -> Result<Vec<Product>, PlanError> {
    let agent = selection.topology.is_some_and(|kind| kind.has_istio() && !kind.is_cluster());
    if agent && selection.scenarios.is_empty() {
        let matrix = library.matrix()?;
        if !matrix.agent.is_empty() {
            return matrix.agent.iter().map(|product| of_matrix(library, selection, &matrix, product)).collect();
        }
    }
    let scenarios = selected(library, &selection.scenarios)?;
    let providers = given(&selection.providers);
    let istios = match selection.topology {
        _ if !selection.clusters.is_empty() => Some(Vec::new()),
        _ if !selection.istios.is_empty() => given(&selection.istios),
        Some(kind) if kind.has_istio() => {
            let versions = library.matrix()?.istio.into_iter().map(ProgramRequest::Version);
            Some(versions.map(IstioRequest::Of).collect())
        }
        Some(_) => Some(vec![IstioRequest::Without]),
        None => None,
    };
    // A matrix with a mistake hinders only those who need it.
    let issues = |kind: &ProviderKind| kind.has_spire();
    let any_spire = providers.as_ref().map_or_else(
        || scenarios.iter().any(|(_, scenario)| issues(&scenario.provider.kind)),
        |providers| providers.iter().any(issues),
    );
    let any_istio = istios.is_none() && scenarios.iter().any(|(_, scenario)| scenario.fleet.kind.has_istio());
    let programs = |needed: bool, of_matrix: fn(Matrix) -> Vec<ProgramVersion>| match needed {
        true => library.matrix().map(|matrix| versions(&of_matrix(matrix))),
        false => Ok(Vec::new()),
    };
    Ok(vec![Product {
        envoys: match selection.envoys.as_slice() {
            [] if !selection.clusters.is_empty() => Vec::new(),
            [] => envoys(&library.matrix()?.envoy),
            given => without_repetition(given),
        },
        own_istios: programs(any_istio, |matrix| matrix.istio)?,
        spires: match selection.spires.as_slice() {
            [] => programs(any_spire, |matrix| matrix.spire)?,
            given => without_repetition(given),
        },
        scenarios,
        istios,
        providers,
        clusters: selection.clusters.clone(),
    }])
}

fn of_matrix(
    library: &Library,
    selection: &Selection,
    matrix: &Matrix,
    product: &super::matrix::Product,
) -> Result<Product, PlanError> {
    let names: Vec<String> = product.scenarios.iter().map(ToString::to_string).collect();
    let own = |own: &[EnvoyVersion]| envoys(if own.is_empty() { &matrix.envoy } else { own });
    let spires = if product.spire.is_empty() { &matrix.spire } else { &product.spire };
    Ok(Product {
        scenarios: selected(library, &names)?,
        envoys: match selection.envoys.as_slice() {
            [] => own(&product.envoy),
            given => without_repetition(given),
        },
        istios: given(&selection.istios).or_else(|| given(&product.istio)),
        providers: given(&selection.providers).or_else(|| given(&product.provider)),
        own_istios: versions(&matrix.istio),
        spires: match selection.spires.as_slice() {
            [] => versions(spires),
            given => without_repetition(given),
        },
        clusters: Vec::new(),
    })
}

impl Product {
    /// What a scenario is to meet: by Envoy, then by Istio, or by cluster; then by provider.
    pub(super) fn subjects(&self, own: &Scenario) -> Result<Vec<Subject>, PlanError> {
        let mut issuers = Vec::new();
        for provider in self.providers.clone().unwrap_or_else(|| vec![own.provider.kind]) {
            let spires = choices(provider.has_spire(), &self.spires);
            if spires.is_empty() {
                return Err(PlanError::NoSpire { scenario: own.name.to_string() });
            }
            issuers.extend(spires.into_iter().map(|spire| (provider, spire)));
        }
        let proxies = if self.clusters.is_empty() { self.local(own)? } else { self.in_clusters() };
        let subjects = proxies.into_iter().flat_map(|proxy| {
            let issued = |(provider, spire): &(ProviderKind, Option<ProgramRequest>)| Subject {
                provider: *provider,
                spire: spire.clone(),
                ..proxy.clone()
            };
            issuers.iter().map(issued).collect::<Vec<_>>()
        });
        Ok(subjects.collect())
    }

    /// Each Envoy with each Istio; who issues is to be said yet.
    fn local(&self, own: &Scenario) -> Result<Vec<Subject>, PlanError> {
        let istios: Vec<Option<ProgramRequest>> = match &self.istios {
            Some(istios) => istios.iter().map(|istio| istio.programs().cloned()).collect(),
            None => choices(own.fleet.kind.has_istio(), &self.own_istios),
        };
        if istios.is_empty() {
            return Err(PlanError::NoIstio { scenario: own.name.to_string() });
        }
        let mut subjects = Vec::new();
        let mut paths = 0;
        for envoy in &self.envoys {
            let given = !matches!(envoy, EnvoyRequest::Version(_));
            paths += usize::from(given);
            let nth_path = if given { paths } else { 0 };
            subjects.extend(istios.iter().map(|istio| Subject {
                envoy: envoy.clone(),
                nth_path,
                istio: istio.clone(),
                cluster: None,
                provider: own.provider.kind,
                spire: None,
            }));
        }
        Ok(subjects)
    }

    /// What each cluster has; who issues is to be said yet.
    fn in_clusters(&self) -> Vec<Subject> {
        let there = |(nth, cluster): (usize, &InCluster)| Subject {
            envoy: EnvoyRequest::Image(cluster.envoy.clone()),
            nth_path: cluster.nth_envoy,
            istio: Some(ProgramRequest::Image(cluster.istio.clone())),
            cluster: Some(nth),
            provider: ProviderKind::default(),
            spire: None,
        };
        self.clusters.iter().enumerate().map(there).collect()
    }
}

/// What a cell's further program can be: nothing where none is needed.
fn choices(needed: bool, named: &[ProgramRequest]) -> Vec<Option<ProgramRequest>> {
    if needed { named.iter().cloned().map(Some).collect() } else { vec![None] }
}

/// What is named, if something is.
fn given<T: Clone + PartialEq>(named: &[T]) -> Option<Vec<T>> {
    (!named.is_empty()).then(|| without_repetition(named))
}

fn versions(named: &[ProgramVersion]) -> Vec<ProgramRequest> {
    named.iter().cloned().map(ProgramRequest::Version).collect()
}

fn envoys(named: &[EnvoyVersion]) -> Vec<EnvoyRequest> {
    named.iter().cloned().map(EnvoyRequest::Version).collect()
}
