//! One scenario on one subject.

use camino::Utf8PathBuf;

use super::Overrides;
use super::select::InCluster;
use crate::scenario::{ProviderKind, Scenario};
use crate::timeline::{CellId, EnvoyRequest, EnvoyVersion, ProgramRequest};

/// One scenario on one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The scenario, with what the command line changes in it.
    pub scenario: Scenario,
    /// The Envoy to run it on.
    pub envoy: EnvoyRequest,
    /// The Istio whose agent starts that Envoy, where the scenario has one.
    pub istio: Option<ProgramRequest>,
    /// The SPIRE that issues, where the scenario has one.
    pub spire: Option<ProgramRequest>,
    /// Which of the selection's clusters its proxies are in, where they are in one.
    pub cluster: Option<usize>,
    /// Why it makes no sense to run it: its outcome is `unsupported`.
    pub unsupported: Option<String>,
    /// Told apart from the other Envoys of the plan that are given by a path: 1, 2, ...; 0 for a version.
    pub(super) nth_path: usize,
    pub(super) origin: Origin,
}

/// What the command that repeats the cell needs to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The scenario's name, or the path of its file.
    pub(super) argument: String,
    pub(super) directory: Option<Utf8PathBuf>,
    /// Istio's agent takes part in the scenario, as it is written.
    pub(super) has_agent: bool,
    /// The provider, where it is not the scenario's own.
    pub(super) provider: Option<ProviderKind>,
    pub(super) overrides: Overrides,
    /// The cluster that the proxies are in.
    pub(super) cluster: Option<InCluster>,
}

impl Cell {
    /// Its name, from the version that was measured: `incident@envoy-1.38.3`; `incident@envoy-1.38.3+path` where the
    /// executable was given by its path or image (`+path2`, `+image2` for the second one); `incident@envoy-1.38.3+istio-1.31` behind that
    /// Istio's agent; `rotation@envoy-1.38.3+container` in a container; `rotation@envoy-1.38.3+spire-1.13.3` with certificates of that SPIRE; `rotation@envoy-1.38.3+files`
    /// with those of another provider than the scenario's own.
    pub fn id(&self, measured: &EnvoyVersion) -> CellId {
        // A version may be long if somebody built it to be; the name is also that of a directory.
        let version: String = measured.as_str().chars().take(80).collect();
        let whence = if matches!(self.envoy, EnvoyRequest::Image(_)) { "image" } else { "path" };
        let suffix = match self.nth_path {
            0 if self.scenario.fleet.kind.is_container() => "+container".to_owned(),
            0 => String::new(),
            1 => format!("+{whence}"),
            n => format!("+{whence}{n}"),
        };
        let istio = part("istio", self.istio.as_ref());
        let provider = match (&self.spire, self.origin.provider) {
            (None, Some(kind)) => format!("+{}", kind.name()),
            (spire, _) => part("spire", spire.as_ref()),
        };
        let cluster: String = self.cluster_name().chars().take(40).collect();
        // The whole may be 160 long.
        let room = match (istio.is_empty() || provider.is_empty(), cluster.is_empty()) {
            (true, true) => 80,
            (false, true) => 50,
            (_, false) => 20,
        };
        let version: String = version.chars().take(room).collect();
        let id = format!("{}@envoy-{version}{suffix}{istio}{provider}{cluster}", self.scenario.name);
        CellId::parse(&id).expect("a scenario's name and a version hold nothing that a cell's name may not")
    }

    /// What tells its cluster apart, as a part of a name.
    fn cluster_name(&self) -> String {
        let name = self.origin.cluster.as_ref().map_or("", |cluster| &cluster.name);
        if name.is_empty() { String::new() } else { format!("+{name}") }
    }

    /// Its name before anything was measured, for lists.
    pub fn label(&self) -> String {
        match &self.envoy {
            EnvoyRequest::Version(version) => self.id(version).to_string(),
            EnvoyRequest::Path(_) | EnvoyRequest::Image(_) => {
                let istio = self.istio.as_ref().map(|istio| format!(" istio {istio}")).unwrap_or_default();
                let spire = self.spire.as_ref().map(|spire| format!(" spire {spire}")).unwrap_or_default();
                let provider = self.origin.provider.map(|kind| format!(" {}", kind.name())).unwrap_or_default();
                format!("{}@{}{istio}{provider}{spire}{}", self.scenario.name, self.envoy, self.cluster_name())
            }
        }
    }

    /// The scenario as it is run, changes of the command line included, for the run directory.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser_error::Error> {
        serde_saphyr::to_string(&self.scenario)
    }

    /// The command that repeats just this cell, in words of a shell.
    pub fn command(&self) -> String {
        let mut words = vec!["rotacheck run".to_owned(), quoted(&self.origin.argument)];
        if let Some(directory) = &self.origin.directory {
            words.push(format!("--scenarios {}", quoted(directory.as_str())));
        }
        if let Some(cluster) = &self.origin.cluster {
            // Envoy and Istio are those of one image.
            words.push("--topology kind".to_owned());
            words.extend(cluster.options.iter().map(|(option, value)| format!("{option} {}", quoted(value))));
            if let Some(ProgramRequest::Image(image)) = &self.spire {
                words.push(format!("--spire-image {}", quoted(&image.to_string())));
            }
            words.extend(self.changes());
            return words.join(" ");
        }
        if self.scenario.fleet.kind.is_container() {
            words.push("--topology container".to_owned());
        }
        words.push(format!("--envoy {}", quoted(&self.envoy.to_string())));
        match &self.istio {
            Some(istio) => words.push(format!("--istio {}", quoted(&istio.to_string()))),
            None if self.origin.has_agent => words.push("--istio none".to_owned()),
            None => {}
        }
        if let Some(spire) = &self.spire {
            words.push(format!("--spire {}", quoted(&spire.to_string())));
        }
        words.extend(self.changes());
        words.join(" ")
    }

    /// What the command line changes in the scenario, in words of a shell.
    pub(super) fn changes(&self) -> Vec<String> {
        let provider = self.origin.provider.map(|kind| format!("--provider {}", kind.name()));
        provider.into_iter().chain(self.origin.overrides.options()).collect()
    }

    /// Whether the two are the same scenario on the same subject.
    pub(super) fn is_at_the_place_of(&self, other: &Cell) -> bool {
        let place = |cell: &Cell| {
            (
                cell.scenario.name.clone(),
                cell.scenario.provider.kind,
                cell.envoy.clone(),
                cell.istio.clone(),
                cell.spire.clone(),
                cell.cluster,
            )
        };
        place(self) == place(other)
    }
}

/// What a further program adds to a cell's name.
fn part(name: &str, request: Option<&ProgramRequest>) -> String {
    match request {
        None => String::new(),
        Some(ProgramRequest::Version(version)) => {
            format!("+{name}-{}", version.as_str().chars().take(40).collect::<String>())
        }
        Some(ProgramRequest::Path(_)) => format!("+{name}-path"),
        Some(ProgramRequest::Image(image)) => {
            format!("+{name}-image-{}", image.short_version().chars().take(34).collect::<String>())
        }
    }
}

/// A word as a POSIX shell takes it literally.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("path=/opt/envoy-1.38"), "path=/opt/envoy-1.38");
        assert_eq!(quoted("my file.yaml"), "'my file.yaml'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
