//! The map of `docs/decisions/0001-rooms.md` is true: who may call whom, and where a kind may be asked for.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms that it may name. `cli` may name all. An arrow more is a decision: argue for it in
/// `docs/decisions/0001-rooms.md`.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "run",
        &[
            "plan", "provider", "fleet", "probe", "verdict", "archive", "scenario", "timeline", "xds", "pki",
            "artifact", "clock", "proc", "cluster",
        ],
    ),
    ("report", &["archive", "plan", "verdict", "timeline"]),
    ("archive", &["plan", "verdict", "timeline", "clock"]),
    ("plan", &["scenario", "verdict", "timeline", "proc"]),
    ("verdict", &["timeline"]),
    ("provider", &["scenario", "timeline", "xds", "pki", "artifact", "clock", "proc"]),
    ("probe", &["fleet", "scenario", "timeline", "pki", "clock"]),
    ("fleet", &["scenario", "timeline", "xds", "pki", "artifact", "clock", "proc", "cluster", "remote"]),
    ("cluster", &["timeline", "clock"]),
    ("remote", &["xds", "pki", "clock"]),
    ("scenario", &["timeline"]),
    ("xds", &["timeline", "pki"]),
    ("pki", &["scenario", "timeline"]),
    ("artifact", &["timeline", "clock", "proc"]),
    ("proc", &["timeline"]),
    // One pair that names each other: moments are the timeline's type, and its recorder reads the clock.
    ("timeline", &["clock"]),
    ("clock", &["timeline"]),
];

/// Who names all of them.
const TOP: &str = "cli";

/// Kinds that a cell's course may not fork on: what differs belongs behind what a constructor returns.
const KINDS: &[&str] = &["ClockKind", "ProviderKind", "FleetKind"];

/// Where a kind is asked for all the same, and why.
const FORKS: &[(&str, &str)] = &[
    ("cli/generated.rs", "a column of the catalogue"),
    ("cli/plan.rs", "a column of the plan"),
    ("plan/capability.rs", "whose clock can be moved"),
    ("plan/overrides.rs", "an option's values"),
    ("provider/mod.rs", "the constructor of a cell's provider"),
    ("report/html/cell.rs", "a sentence about time"),
    ("run/cell.rs", "the constructor of a cell's clock, and the time that a cell may take"),
    ("run/lanes.rs", "the weight of a cell: one in real time is mostly waiting"),
    ("run/observe.rs", "moving time, or waiting for it"),
    ("verdict/checks/recording.rs", "a sentence about time"),
];

struct Source {
    /// The directory of its crate.
    home: &'static str,
    /// Below the `src` of its crate.
    path: PathBuf,
    /// Without comments and string literals.
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.path.iter().next().unwrap().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Without the test module at its end.
    fn without_tests(&self) -> &str {
        if self.path.iter().any(|part| part == "tests" || part == "tests.rs") {
            return "";
        }
        self.code.split("#[cfg(test)]\nmod ").next().unwrap()
    }

    /// How many `super` lead from its own module to the crate.
    fn depth(&self) -> usize {
        let parts = self.path.iter().count();
        if self.path.ends_with("mod.rs") { parts - 1 } else { parts }
    }
}

fn sources() -> Vec<Source> {
    fn collect(dir: &Path, home: &'static str, root: &Path, all: &mut Vec<Source>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, home, root, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let code = code_only(&fs::read_to_string(&path).unwrap());
                all.push(Source { home, path: path.strip_prefix(root).unwrap().to_owned(), code });
            }
        }
    }
    let mut all = Vec::new();
    for home in ["harness", "base", "judge"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(home).join("src");
        collect(&root, home, &root, &mut all);
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Blanks comments and literals: what they mention is no arrow.
fn code_only(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            3 + raw.find("\"#").map_or(raw.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()
}

/// The first segments of the paths in a brace group that begins here.
fn group(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut names = Vec::new();
    let mut at_start = false;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            _ => (),
        }
        if at_start && !c.is_whitespace() {
            names.push(identifier(&text[at..]));
        }
        at_start = (c == '{' || c == ',' || (at_start && c.is_whitespace())) && depth == 1;
    }
    names
}

/// The rooms that a source names.
fn named<'a>(source: &'a Source, rooms: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in source.code.match_indices("crate::") {
        let path = &source.code[at + "crate::".len()..];
        if path.starts_with('{') { names.extend(group(path)) } else { names.extend([identifier(path)]) }
    }
    let mut rest = source.code.as_str();
    while let Some(at) = rest.find("super::") {
        let path = rest[at..].trim_start_matches("super::");
        let supers = (rest[at..].len() - path.len()) / "super::".len();
        if supers >= source.depth() {
            names.extend([identifier(path)]);
        }
        rest = path;
    }
    names.retain(|name| rooms.contains(name) && *name != source.room());
    names
}

#[test]
fn arrows_go_down_the_map_only() {
    let sources = sources();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let rooms: BTreeSet<_> = allowed.keys().copied().chain([TOP]).collect();
    let mut strays = Vec::new();
    for source in sources.iter().filter(|s| rooms.contains(s.room()) && s.room() != TOP) {
        for name in named(source, &rooms) {
            if !allowed[source.room()].contains(&name) {
                strays.push(format!("{}: {} -> {name}", source.path.display(), source.room()));
            }
        }
    }
    assert!(strays.is_empty(), "not on the map of docs/decisions/0001-rooms.md:\n{}", strays.join("\n"));
}

#[test]
fn every_room_is_on_the_map() {
    let rooms: BTreeSet<String> = sources().iter().map(|s| s.room().to_owned()).collect();
    let known = ARROWS.iter().map(|(room, _)| *room).chain([TOP, "lib", "main", "spread"]).map(str::to_owned).collect();
    assert_eq!(rooms, known);
}

/// The compiler shares generic functions among crates that are hardly optimised: how `probe` reads each answer of a proxy
/// would be `base`'s unoptimised one. A text's reader is another function.
#[test]
fn base_reads_json_from_texts_only() {
    let reads = |source: &&Source| source.without_tests().contains("serde_json::from_slice");
    let sources = sources();
    let readers: BTreeSet<_> = sources.iter().filter(reads).map(|s| (s.home, s.room())).collect();
    assert!(readers.contains(&("harness", "probe")), "it reads bytes, so that its reader is its own");
    assert!(readers.iter().all(|(home, _)| *home != "base"), "{readers:?}");
}

#[test]
fn no_circle_of_arrows_but_that_of_clock_and_timeline() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ARROWS.iter().map(|(room, to)| (*room, to.iter().copied().collect())).collect();
    let mut reach = allowed.clone();
    for _ in 0..allowed.len() {
        for to in reach.values_mut() {
            to.extend(to.clone().iter().flat_map(|room| &allowed[room]));
        }
    }
    let circles: Vec<_> = reach.iter().filter(|(room, to)| to.contains(*room)).map(|(room, _)| *room).collect();
    assert_eq!(circles, ["clock", "timeline"]);
}

#[test]
fn the_map_shows_every_room_and_nothing_else() {
    let page = include_str!("../../docs/decisions/0001-rooms.md");
    for (room, to) in ARROWS {
        let line =
            page.lines().find(|line| line.starts_with(&format!("| `{room}` |"))).unwrap_or_else(|| panic!("{room}"));
        let told: BTreeSet<_> =
            line.rsplit('|').nth(1).unwrap().split(',').map(|r| r.trim().trim_matches('`')).collect();
        assert_eq!(told, to.iter().copied().collect(), "the arrows of {room} in docs/decisions/0001-rooms.md");
    }
}

#[test]
fn a_kind_is_asked_for_only_where_the_list_says_why() {
    let allowed: BTreeSet<_> = FORKS.iter().map(|(path, _)| *path).collect();
    let mut forks = BTreeSet::new();
    for source in sources() {
        let asks = source.without_tests().lines().any(|line| KINDS.iter().any(|kind| is_asked_for(line, kind)));
        if asks && !source.path.starts_with("scenario") {
            forks.insert(source.path.to_str().unwrap().to_owned());
        }
    }
    let forks: BTreeSet<_> = forks.iter().map(String::as_str).collect();
    let new: Vec<_> = forks.difference(&allowed).collect();
    assert!(new.is_empty(), "let a constructor return what differs, or say why in this test: {new:?}");
    let stale: Vec<_> = allowed.difference(&forks).collect();
    assert!(stale.is_empty(), "no longer needed in this test: {stale:?}");
}

/// A pattern of this enum (an arm, an `if let`, `matches!`), or a comparison with one of its values.
fn is_asked_for(line: &str, kind: &str) -> bool {
    let Some(at) = line.find(&format!("{kind}::")) else { return false };
    line[at..].contains("=>") || line[..at].contains("== ") || line[..at].contains("!= ") || line.contains("matches!")
}

#[test]
fn the_scan_sees_paths_and_not_what_is_said_about_them() {
    let source = |path: &str, code: &str| Source { home: "harness", path: path.into(), code: code_only(code) };
    let rooms = ["clock", "fleet", "plan", "probe", "xds"].into();
    let see =
        |path: &str, code: &str| named(&source(path, code), &rooms).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(see("xds/mod.rs", "use crate::clock::Clock; // crate::fleet"), ["clock"]);
    assert_eq!(see("xds/mod.rs", "use crate::{clock::{self, fleet}, plan};"), ["clock", "plan"]);
    assert_eq!(see("xds/mod.rs", "let x = \"\\\"crate::clock\"; crate::plan::x()"), ["plan"]);
    assert_eq!(see("xds/sds.rs", "use super::clock::x; use super::super::probe;"), ["probe"]);
    assert_eq!(see("xds/mod.rs", "r#\"crate::clock \"crate::plan\"#; '\"'; crate::fleet::x"), ["fleet"]);
    assert!(is_asked_for("        ClockKind::Real => 1,", "ClockKind"));
    assert!(is_asked_for("if x.clock == ClockKind::Real {", "ClockKind"));
    assert!(!is_asked_for("clock: ClockKind::Real,", "ClockKind"));
}
