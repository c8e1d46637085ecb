//! Files that are generated from the code, committed, and compared here: `UPDATE=1 cargo test --lib generated`.

use super::explain::{layer, url};
use super::list::{expected, role};
use super::schema::{self, Of};
use crate::scenario::ClockKind;
use crate::verdict::MODES;

fn assert_generated(file: &str, text: &str) {
    let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{file} is out of date: UPDATE=1 cargo test --lib generated");
}

#[test]
fn the_committed_schemas_are_those_generated() {
    assert_generated("scenarios/schema/scenario.schema.json", &schema::text(Of::Scenario));
    assert_generated("scenarios/schema/matrix.schema.json", &schema::text(Of::Matrix));
}

#[test]
fn the_committed_catalogue_is_the_one_generated() {
    assert_generated("scenarios/CATALOGUE.md", &catalogue());
}

#[test]
fn the_committed_reference_of_modes_is_the_one_generated() {
    assert_generated("docs/reference/failure-modes.md", &modes());
}

fn catalogue() -> String {
    let mut text = String::from(
        "<!-- Generated from the scenario files: UPDATE=1 cargo test --lib generated -->\n\n# Scenarios\n\n\
         A *conformance* scenario is expected to pass. A *control* seeds a fault that must be caught, blamed on the \
         layer given and named as given (`rotacheck explain NAME`).\n\n\
         | scenario | what it shows | role | profile | ttl, renewed every | observed | clock | expected |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let library = crate::plan::Library::embedded();
    table(&mut text, "", library.scenarios().unwrap());
    text.push_str(
        "\n## Controls\n\nOne for each failure mode that the scenarios above do not show, run by name, by glob, or all by \
         `rotacheck selfcheck`. What is *noted* recovers by itself, or hides another failure.\n\n\
         | scenario | what it shows | role | profile | ttl, renewed every | observed | clock | expected |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    table(&mut text, "controls/", library.controls().unwrap());
    text
}

fn table(text: &mut String, directory: &str, scenarios: Vec<crate::scenario::Scenario>) {
    for s in scenarios {
        let profile = serde_json::to_value(s.provider.profile).unwrap();
        let clock = if s.clock == ClockKind::Virtual { "virtual" } else { "real" };
        let mut diagnosis = s.expect.diagnosis.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
        if !s.expect.noted.is_empty() {
            diagnosis.push_str(&format!("; noted: {}", s.expect.noted.join(", ")));
        }
        text.push_str(&format!(
            "| [{name}]({directory}{name}.yaml) | {} | {} | {} | {}, {} | {}, {} renewals | {clock} | {}{diagnosis} |\n",
            s.summary,
            role(s.role),
            profile.as_str().unwrap(),
            s.provider.ttl,
            s.provider.interval(),
            s.observed(),
            s.renewals(),
            expected(&s.expect),
            name = s.name,
        ));
    }
}

fn modes() -> String {
    let mut text = String::from(
        "<!-- Generated from the table of modes: UPDATE=1 cargo test --lib generated -->\n\n# Failure modes\n\n\
         What a diagnosis can name; `rotacheck explain NAME` prints the same. The layer is where a new certificate \
         stopped: issued, sent, acked, dumped, loaded, served. A dash is no failure by itself: it is recovered from, or \
         hides another mode.\n\n| # | mode | layer | what it is |\n|---|---|---|---|\n",
    );
    for mode in MODES {
        let name = mode.name;
        text.push_str(&format!("| {} | [{name}](#{name}) | {} | {} |\n", mode.number, layer(mode), mode.title));
    }
    for mode in MODES {
        text.push_str(&format!("\n## {}\n\n**{}.** {}\n\n", mode.name, mode.title, mode.meaning));
        let sections = [
            ("Layer to blame", layer(mode)),
            ("Why it matters", mode.why_it_matters),
            ("What tells it apart", mode.evidence),
            ("First aid", mode.first_aid),
            ("Lasting fix", mode.lasting_fix),
        ];
        for (heading, body) in sections {
            text.push_str(&format!("- **{heading}**: {body}\n"));
        }
        for like in mode.looks_like {
            text.push_str(&format!("- **Looks like** [{0}](#{0}) until one sees: {1}\n", like.mode, like.decided_by));
        }
        for issue in mode.seen_in {
            text.push_str(&format!("- **Seen in** [{issue}]({})\n", url(issue)));
        }
    }
    text
}
