//! Where scenarios and the matrix come from: the binary holds a copy, files on disk win.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Matrix, PlanError};
use crate::scenario::{Problem, Role, Scenario, refusal};
use crate::verdict;

macro_rules! embedded {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../../scenarios/", $file)))),*]
    };
}

/// The scenarios that the binary holds.
const SCENARIOS: &[(&str, &str)] = embedded![
    "bundle-rotation.yaml",
    "expired-on-arrival.yaml",
    "incident.yaml",
    "issues-never-pushes.yaml",
    "istio-stats.yaml",
    "nack-key-mismatch.yaml",
    "never-renews.yaml",
    "rotation-chain.yaml",
    "rotation-expired-authority.yaml",
    "rotation-files.yaml",
    "rotation-gateway.yaml",
    "rotation-one-hour.yaml",
    "rotation-serials.yaml",
    "rotation-shared-serial.yaml",
    "rotation.yaml",
    "stream-closed-once.yaml",
];
/// The controls that it holds: one for each mode that `SCENARIOS` does not show.
const CONTROLS: &[(&str, &str)] = embedded![
    "controls/authority-expires-first.yaml",
    "controls/bundle-drops-old-ca.yaml",
    "controls/bundle-only.yaml",
    "controls/duplicate-subscription.yaml",
    "controls/empty-response.yaml",
    "controls/files-half-written.yaml",
    "controls/files-key-before-chain.yaml",
    "controls/files-not-watched.yaml",
    "controls/files-rewritten-in-place.yaml",
    "controls/healed-by-reconnect.yaml",
    "controls/intermediate-expires-first.yaml",
    "controls/intermediate-overdue.yaml",
    "controls/late-listener-poisoned.yaml",
    "controls/leaf-before-bundle.yaml",
    "controls/masked-by-pool.yaml",
    "controls/masked-by-resumption.yaml",
    "controls/nack-bad-pem.yaml",
    "controls/nack-chain-one-block.yaml",
    "controls/nack-leaf-not-first.yaml",
    "controls/nack-then-same-bytes.yaml",
    "controls/never-arrives.yaml",
    "controls/not-yet-valid.yaml",
    "controls/partial-subscribers.yaml",
    "controls/provider-frozen.yaml",
    "controls/resend-cached-shared-serial.yaml",
    "controls/resend-stale.yaml",
    "controls/several-identities.yaml",
    "controls/socket-gone.yaml",
    "controls/socket-replaced.yaml",
    "controls/socket-unlinked-alive.yaml",
    "controls/stale-bind-mount.yaml",
    "controls/starved-by-bundle-churn.yaml",
    "controls/stream-refused.yaml",
    "controls/thin-margin.yaml",
    "controls/watched-file-missing.yaml",
    "controls/wrong-identity.yaml",
    "controls/wrong-name.yaml",
    "controls/wrong-secret-kind.yaml",
    "controls/wrong-type-url.yaml",
];
/// Scenarios on parts that take long to be had: Istio's agent, real providers. Selected by name only.
const REAL: &[(&str, &str)] = embedded![
    "real/agent-incident.yaml",
    "real/agent-owns-socket.yaml",
    "real/agent-refuses.yaml",
    "real/agent-socket-replaced.yaml",
    "real/files-socket-red-herring.yaml",
    "real/istio-ca-bundle-rotation.yaml",
    "real/istiod-down-past-expiry.yaml",
    "real/spire-agent-frozen.yaml",
    "real/spire-agent-gone.yaml",
    "real/spire-agent-joined-once.yaml",
    "real/spire-agent-killed.yaml",
    "real/spire-bundle-rotation.yaml",
    "real/spire-entry-deleted.yaml",
    "real/spire-entry-updated.yaml",
    "real/spire-resends.yaml",
    "real/spire-server-down-past-expiry.yaml",
];
const MATRIX: (&str, &str) = ("matrix.yaml", include_str!("../../../scenarios/matrix.yaml"));
/// Files beside the scenarios that are none.
const NO_SCENARIOS: &[&str] = &["matrix.yaml", "known-failures.yaml"];
/// The directory looked for in the working directory.
const DIRECTORY: &str = "scenarios";
/// The directory of controls below it: selected by name only.
const CONTROLS_DIRECTORY: &str = "controls";
/// That of scenarios on real parts: the same.
const REAL_DIRECTORY: &str = "real";

/// The scenarios that can be selected by name, and the matrix.
#[derive(Debug, Clone)]
pub struct Library {
    entries: BTreeMap<String, Entry>,
    controls: BTreeMap<String, Entry>,
    real: BTreeMap<String, Entry>,
    matrix: Entry,
    /// `--scenarios`, for the command that repeats a cell.
    directory: Option<Utf8PathBuf>,
}

/// One file, not yet read as what it is: a broken file hinders only those who select it.
#[derive(Debug, Clone)]
struct Entry {
    file: String,
    text: String,
    /// Where it ceases to be UTF-8, if it does.
    utf8_until: Option<usize>,
}

impl Library {
    /// What the binary holds.
    pub fn embedded() -> Self {
        let entry = |file: &str, text: &str| Entry::new(format!("{DIRECTORY}/{file}"), text.to_owned());
        let entries = |all: &[(&str, &str)]| all.iter().map(|(file, text)| (stem(file), entry(file, text))).collect();
        Self {
            entries: entries(SCENARIOS),
            controls: entries(CONTROLS),
            real: entries(REAL),
            matrix: entry(MATRIX.0, MATRIX.1),
            directory: None,
        }
    }

    /// The library of a command: the directory given, and nothing else of scenarios; or what the binary holds, over
    /// which the files of `scenarios/` in the working directory win. That directory is only taken for ours if it
    /// has a `matrix.yaml`.
    pub fn open(given: Option<&Utf8Path>) -> Result<Self, PlanError> {
        let mut library = Self::embedded();
        if let Some(directory) = given {
            library.entries.clear();
            library.controls.clear();
            library.real.clear();
            library.overlay(directory)?;
            library.directory = Some(directory.to_owned());
        } else if Utf8Path::new(DIRECTORY).join(MATRIX.0).is_file() {
            library.overlay(Utf8Path::new(DIRECTORY))?;
        }
        Ok(library)
    }

    fn overlay(&mut self, directory: &Utf8Path) -> Result<(), PlanError> {
        for file in yaml_files(directory)? {
            let name = file.file_name().unwrap_or_default();
            if name == MATRIX.0 {
                self.matrix = Entry::read(&file)?;
            } else if !NO_SCENARIOS.contains(&name) {
                self.controls.remove(&stem(name));
                self.real.remove(&stem(name));
                self.entries.insert(stem(name), Entry::read(&file)?);
            }
        }
        for (below, named) in [(CONTROLS_DIRECTORY, &mut self.controls), (REAL_DIRECTORY, &mut self.real)] {
            let below = directory.join(below);
            if !below.is_dir() {
                continue;
            }
            for file in yaml_files(&below)? {
                let name = stem(file.file_name().unwrap_or_default());
                if !self.entries.contains_key(&name) {
                    named.insert(name, Entry::read(&file)?);
                }
            }
        }
        Ok(())
    }

    /// The names of all scenarios, those of `controls/` and `real/` last.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.keys().chain(self.controls.keys()).chain(self.real.keys()).map(String::as_str)
    }

    /// The directory given with `--scenarios`.
    pub fn directory(&self) -> Option<&Utf8Path> {
        self.directory.as_deref()
    }

    /// The scenario of that name, read and checked; `None` if there is none.
    pub fn scenario(&self, name: &str) -> Option<Result<Scenario, PlanError>> {
        [&self.entries, &self.controls, &self.real].into_iter().find_map(|all| all.get(name)).map(Entry::scenario)
    }

    /// Every control, also those that are only selected by name; none of `real/`.
    pub fn every_control(&self) -> Result<Vec<Scenario>, PlanError> {
        let all = self.entries.values().chain(self.controls.values());
        let mut all = all.map(Entry::scenario).collect::<Result<Vec<_>, _>>()?;
        all.retain(|scenario| scenario.role == Role::Control);
        all.sort_by_key(super::matrix_order);
        Ok(all)
    }

    /// The scenarios of `controls/`, in the order of their names.
    pub fn controls(&self) -> Result<Vec<Scenario>, PlanError> {
        self.controls.values().map(Entry::scenario).collect()
    }

    /// The scenarios of `real/`, in the order of their names.
    pub fn real(&self) -> Result<Vec<Scenario>, PlanError> {
        self.real.values().map(Entry::scenario).collect()
    }

    /// The scenarios that are run where none is named, those that are expected to pass first.
    pub fn scenarios(&self) -> Result<Vec<Scenario>, PlanError> {
        let mut all = self.entries.values().map(Entry::scenario).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(super::matrix_order);
        Ok(all)
    }

    /// The default subjects.
    pub fn matrix(&self) -> Result<Matrix, PlanError> {
        Ok(Matrix::read(self.matrix.text()?, &self.matrix.file)?)
    }
}

/// Reads a scenario file by its path.
pub(super) fn read_file(path: &Utf8Path) -> Result<Scenario, PlanError> {
    Entry::read(path)?.scenario()
}

impl Entry {
    fn new(file: String, text: String) -> Self {
        Self { file, text, utf8_until: None }
    }

    fn read(path: &Utf8Path) -> Result<Self, PlanError> {
        use std::io::Read as _;
        // A little more than a scenario may have is enough to see that it is too large.
        const MOST: u64 = (1 << 20) + 1;
        let unreadable = |e| PlanError::Unreadable { path: path.to_owned(), source: e };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(unreadable)?.take(MOST).read_to_end(&mut bytes).map_err(unreadable)?;
        // What is too large is told as that, wherever it was cut.
        let cut = bytes.len() as u64 == MOST;
        let utf8_until = std::str::from_utf8(&bytes).err().filter(|_| !cut).map(|e| e.valid_up_to());
        Ok(Self { file: path.to_string(), text: String::from_utf8_lossy(&bytes).into_owned(), utf8_until })
    }

    fn text(&self) -> Result<&str, PlanError> {
        let Some(until) = self.utf8_until else { return Ok(&self.text) };
        let why = format!("it is not UTF-8 from byte {until} on");
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        Err(PlanError::Unreadable { path: self.file.clone().into(), source })
    }

    fn scenario(&self) -> Result<Scenario, PlanError> {
        let scenario = Scenario::read(self.text()?, &self.file)?;
        let problems = diagnosis_problem(&scenario).into_iter().chain(noted_problems(&scenario)).collect();
        refusal(&self.text, &self.file, problems).map_or(Ok(scenario), |error| Err(error.into()))
    }
}

/// A diagnosis that no verdict could give, or one that blames another layer.
fn diagnosis_problem(scenario: &Scenario) -> Option<Problem> {
    let name = scenario.expect.diagnosis.as_deref()?;
    let problem =
        |message: String, help: Option<String>| Some(Problem { path: "expect.diagnosis".to_owned(), message, help });
    let Some(mode) = verdict::mode(name) else {
        let near = crate::scenario::nearest(name, verdict::MODES.iter().map(|mode| mode.name));
        let help = near.map_or_else(
            || "`rotacheck explain` lists the modes".to_owned(),
            |near| format!("did you mean `{near}`? `rotacheck explain` lists the modes"),
        );
        let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        return problem(format!("there is no mode `{shown}`"), Some(help));
    };
    match (mode.layer, scenario.expect.layer) {
        (Some(of_mode), Some(expected)) if of_mode != expected => {
            problem(format!("`{name}` is blamed on the layer `{of_mode}`, and `{expected}` is expected"), None)
        }
        (None, _) => problem(
            format!("`{name}` is no failure by itself"),
            Some("it is recovered from, or hides another mode: name that one".to_owned()),
        ),
        _ => None,
    }
}

/// What is to be noted must be a mode that is no failure by itself.
fn noted_problems(scenario: &Scenario) -> Vec<Problem> {
    let noted = scenario.expect.noted.iter().enumerate();
    let wrong = noted.filter(|(_, name)| verdict::mode(name).is_none_or(|mode| mode.layer.is_some()));
    wrong
        .map(|(n, name)| {
            let passing = verdict::MODES.iter().filter(|mode| mode.layer.is_none()).map(|mode| mode.name);
            let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            Problem {
                path: format!("expect.noted[{n}]"),
                message: format!("`{shown}` is no mode that is only noted"),
                help: Some(format!("these are: {}", passing.collect::<Vec<_>>().join(", "))),
            }
        })
        .collect()
}

/// The YAML files of a directory, in the order of their names.
fn yaml_files(directory: &Utf8Path) -> Result<Vec<Utf8PathBuf>, PlanError> {
    let unreadable = |e| PlanError::Unreadable { path: directory.to_owned(), source: e };
    let mut found = Vec::new();
    for file in directory.read_dir_utf8().map_err(unreadable)? {
        let file = file.map_err(unreadable)?;
        if !file.file_name().starts_with('.') && file.file_name().ends_with(".yaml") {
            found.push(file.path().to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// A file's name without directory and ending.
fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".yaml").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> &'static Utf8Path {
        Utf8Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios"))
    }

    #[test]
    fn every_file_on_disk_is_embedded() {
        let on_disk = |directory: &Utf8Path| {
            let files = yaml_files(directory).unwrap().into_iter();
            let names = files.map(|file| file.strip_prefix(sources()).unwrap().to_string());
            names.filter(|name| !NO_SCENARIOS.contains(&name.as_str())).collect::<Vec<_>>()
        };
        let embedded = |all: &[(&'static str, &str)]| all.iter().map(|(file, _)| *file).collect::<Vec<_>>();
        assert_eq!(on_disk(sources()), embedded(SCENARIOS));
        assert_eq!(on_disk(&sources().join(CONTROLS_DIRECTORY)), embedded(CONTROLS));
        assert_eq!(on_disk(&sources().join(REAL_DIRECTORY)), embedded(REAL));
    }

    #[test]
    fn every_embedded_scenario_can_be_read_and_tells_its_schema() {
        let library = Library::embedded();
        assert_eq!(library.scenarios().unwrap().len(), SCENARIOS.len());
        library.matrix().unwrap();
        for (file, text) in SCENARIOS {
            assert!(text.starts_with("# yaml-language-server: $schema=schema/scenario.schema.json\n"), "{file}");
        }
        library.real().unwrap();
        for (file, text) in CONTROLS.iter().chain(REAL) {
            assert!(text.starts_with("# yaml-language-server: $schema=../schema/scenario.schema.json\n"), "{file}");
        }
        let controls = library.controls().unwrap();
        assert!(controls.iter().all(|control| control.role == Role::Control));
        assert_eq!(controls.len(), CONTROLS.len());
    }

    #[test]
    fn what_is_noted_must_be_a_mode_without_a_layer() {
        let good = CONTROLS.iter().find(|(file, _)| file.ends_with("healed-by-reconnect.yaml")).unwrap().1;
        let text = good.replace("noted: [stream-closed-once]", "noted: [stream-closed-once, resend-cached]");
        let entry = Entry::new("healed-by-reconnect.yaml".to_owned(), text);
        assert_eq!(entry.scenario().unwrap_err().to_string(), "`resend-cached` is no mode that is only noted");
    }

    #[test]
    fn a_diagnosis_must_be_a_mode_and_blame_its_layer() {
        let good = SCENARIOS.iter().find(|(file, _)| *file == "incident.yaml").unwrap().1;
        let why = |from: &str, to: &str| {
            let entry = Entry::new("incident.yaml".to_owned(), good.replacen(from, to, 1));
            entry.scenario().unwrap_err().to_string()
        };
        assert_eq!(why("diagnosis: resend-cached", "diagnosis: resend-cache"), "there is no mode `resend-cache`");
        assert!(why("layer: issued", "layer: sent").contains("blamed on the layer `issued`"));
        assert!(why("diagnosis: resend-cached", "diagnosis: masked-by-pool").contains("no failure by itself"));
    }

    #[test]
    fn a_directory_that_is_given_replaces_the_scenarios_and_keeps_the_matrix() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let rotation = SCENARIOS.iter().find(|(file, _)| *file == "rotation.yaml").unwrap();
        let text = rotation.1.replace("name: rotation", "name: mine");
        std::fs::write(path.join("mine.yaml"), text).unwrap();
        std::fs::write(path.join("notes.txt"), "no scenario").unwrap();
        let library = Library::open(Some(path)).unwrap();
        assert_eq!(library.names().collect::<Vec<_>>(), ["mine"], "also no controls");
        assert_eq!(library.matrix().unwrap(), Library::embedded().matrix().unwrap());

        std::fs::write(path.join("broken.yaml"), [0xff, 0xfe, b'\n']).unwrap();
        let library = Library::open(Some(path)).unwrap();
        assert!(library.scenario("mine").unwrap().is_ok());
        assert!(library.scenario("broken").unwrap().is_err());
        assert!(Library::open(Some(&path.join("nothing"))).is_err());
    }
}
