//! Where scenarios and the matrix come from: the binary holds a copy, files on disk win.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Matrix, PlanError};
use crate::scenario::{Problem, Scenario, refusal};
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
    "nack-key-mismatch.yaml",
    "never-renews.yaml",
    "rotation-one-hour.yaml",
    "rotation.yaml",
    "stream-closed-once.yaml",
];
const MATRIX: (&str, &str) = ("matrix.yaml", include_str!("../../../scenarios/matrix.yaml"));
/// Files beside the scenarios that are none.
const NO_SCENARIOS: &[&str] = &["matrix.yaml", "known-failures.yaml"];
/// The directory looked for in the working directory.
const DIRECTORY: &str = "scenarios";

/// The scenarios that can be selected by name, and the matrix.
#[derive(Debug, Clone)]
pub struct Library {
    entries: BTreeMap<String, Entry>,
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
        let entry = |file: &str, text: &str| Entry {
            file: format!("{DIRECTORY}/{file}"),
            text: text.to_owned(),
            utf8_until: None,
        };
        let entries = SCENARIOS.iter().map(|(file, text)| (stem(file), entry(file, text)));
        Self { entries: entries.collect(), matrix: entry(MATRIX.0, MATRIX.1), directory: None }
    }

    /// The library of a command: the directory given, and nothing else of scenarios; or what the binary holds, over
    /// which the files of `scenarios/` in the working directory win. That directory is only taken for ours if it
    /// has a `matrix.yaml`.
    pub fn open(given: Option<&Utf8Path>) -> Result<Self, PlanError> {
        let mut library = Self::embedded();
        if let Some(directory) = given {
            library.entries.clear();
            library.overlay(directory)?;
            library.directory = Some(directory.to_owned());
        } else if Utf8Path::new(DIRECTORY).join(MATRIX.0).is_file() {
            library.overlay(Utf8Path::new(DIRECTORY))?;
        }
        Ok(library)
    }

    fn overlay(&mut self, directory: &Utf8Path) -> Result<(), PlanError> {
        let unreadable = |e| PlanError::Unreadable { path: directory.to_owned(), source: e };
        for file in directory.read_dir_utf8().map_err(unreadable)? {
            let file = file.map_err(unreadable)?;
            let name = file.file_name();
            if name.starts_with('.') || !name.ends_with(".yaml") {
                continue;
            }
            if name == MATRIX.0 {
                self.matrix = Entry::read(file.path())?;
            } else if !NO_SCENARIOS.contains(&name) {
                self.entries.insert(stem(name), Entry::read(file.path())?);
            }
        }
        Ok(())
    }

    /// The names of all scenarios.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.keys().map(String::as_str)
    }

    /// The directory given with `--scenarios`.
    pub fn directory(&self) -> Option<&Utf8Path> {
        self.directory.as_deref()
    }

    /// The scenario of that name, read and checked; `None` if there is none.
    pub fn scenario(&self, name: &str) -> Option<Result<Scenario, PlanError>> {
        self.entries.get(name).map(Entry::scenario)
    }

    /// All scenarios, those that are expected to pass first.
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
        let problems = diagnosis_problem(&scenario).into_iter().collect();
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

fn stem(file: &str) -> String {
    file.strip_suffix(".yaml").unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> &'static Utf8Path {
        Utf8Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios"))
    }

    #[test]
    fn every_file_on_disk_is_embedded() {
        let mut on_disk: Vec<String> =
            sources().read_dir_utf8().unwrap().map(|file| file.unwrap().file_name().to_owned()).collect();
        on_disk.retain(|name| name.ends_with(".yaml") && !NO_SCENARIOS.contains(&name.as_str()));
        on_disk.sort();
        let embedded: Vec<&str> = SCENARIOS.iter().map(|(file, _)| *file).collect();
        assert_eq!(on_disk, embedded);
    }

    #[test]
    fn every_embedded_scenario_can_be_read_and_tells_its_schema() {
        let library = Library::embedded();
        assert_eq!(library.scenarios().unwrap().len(), SCENARIOS.len());
        library.matrix().unwrap();
        for (file, text) in SCENARIOS {
            assert!(text.starts_with("# yaml-language-server: $schema=schema/scenario.schema.json\n"), "{file}");
        }
    }

    #[test]
    fn a_diagnosis_must_be_a_mode_and_blame_its_layer() {
        let good = SCENARIOS.iter().find(|(file, _)| *file == "incident.yaml").unwrap().1;
        let why = |from: &str, to: &str| {
            let entry = Entry { file: "incident.yaml".to_owned(), text: good.replacen(from, to, 1), utf8_until: None };
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
        let text = SCENARIOS[7].1.replace("name: rotation", "name: mine");
        std::fs::write(path.join("mine.yaml"), text).unwrap();
        std::fs::write(path.join("notes.txt"), "no scenario").unwrap();
        let library = Library::open(Some(path)).unwrap();
        assert_eq!(library.names().collect::<Vec<_>>(), ["mine"]);
        assert_eq!(library.matrix().unwrap(), Library::embedded().matrix().unwrap());

        std::fs::write(path.join("broken.yaml"), [0xff, 0xfe, b'\n']).unwrap();
        let library = Library::open(Some(path)).unwrap();
        assert!(library.scenario("mine").unwrap().is_ok());
        assert!(library.scenario("broken").unwrap().is_err());
        assert!(Library::open(Some(&path.join("nothing"))).is_err());
    }
}
