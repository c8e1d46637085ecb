//! `docs/reference/timeline.md` says all that a timeline holds.

use std::collections::BTreeMap;

use super::{KINDS, Timeline};

const PAGE: &str = include_str!("../../../docs/reference/timeline.md");

/// The page's text on each kind.
fn sections() -> BTreeMap<&'static str, &'static str> {
    let (_, kinds) = PAGE.split_once("\n## Kinds\n").unwrap();
    let (kinds, _) = kinds.split_once("\n## Footer\n").unwrap();
    kinds.split("\n### `").skip(1).map(|s| s.split_once("`\n").unwrap()).collect()
}

#[test]
fn every_kind_is_documented_and_nothing_else() {
    let mut kinds = KINDS.to_vec();
    kinds.sort_unstable();
    assert_eq!(sections().into_keys().collect::<Vec<_>>(), kinds);
}

#[test]
fn every_field_in_the_recordings_is_documented() {
    let sections = sections();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/timelines");
    let mut looked = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        let header = text.split(|b| *b == b'\n').next().unwrap();
        let header: serde_json::Value = serde_json::from_slice(header).unwrap();
        for (name, value) in header["header"].as_object().unwrap() {
            assert!(PAGE.contains(&format!("`{name}")), "{name}");
            for inner in value.as_object().into_iter().flat_map(|o| o.keys()) {
                assert!(PAGE.contains(&format!("`{name}.{inner}")) || PAGE.contains(&format!("`{inner}`")), "{inner}");
            }
        }
        for o in Timeline::read(text.as_slice()).unwrap().observations {
            let data: serde_json::Value = serde_json::from_str(&o.fact.data_json().unwrap()).unwrap();
            for name in data.as_object().unwrap().keys() {
                let told = [format!("`{name}`"), format!("`{name}[]`")];
                assert!(told.iter().any(|t| sections[o.fact.kind()].contains(t)), "{name} of {}", o.fact.kind());
                looked += 1;
            }
        }
    }
    assert!(looked > 1000);
}
