//! Files that are generated from the code, committed, and compared here: `UPDATE=1 cargo test --lib generated`.

use clap::ValueEnum as _;

use super::explain::{layer, url};
use super::list::{expected, role};
use super::man;
use super::schema::{Of, generate};
use crate::scenario::{ClockKind, ProviderKind};
use crate::verdict::{ALERTS, CHECKS, MODES, alerts_of, why_no_alert};

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
    for of in Of::value_variants() {
        let name = of.to_possible_value().expect("none is hidden").get_name().to_owned();
        assert_generated(&format!("scenarios/schema/{name}.schema.json"), &generate::text(*of));
    }
}

#[test]
fn the_committed_catalogue_is_the_one_generated() {
    assert_generated("scenarios/CATALOGUE.md", &catalogue());
}

#[test]
fn the_committed_reference_of_modes_is_the_one_generated() {
    assert_generated("docs/reference/failure-modes.md", &modes());
}

#[test]
fn the_committed_reference_of_alerts_is_the_one_generated() {
    assert_generated("docs/reference/alerts.md", &alerts());
}

#[test]
fn the_committed_reference_of_checks_is_the_one_generated() {
    assert_generated("docs/reference/checks.md", &checks());
}

#[test]
fn the_committed_reference_of_commands_is_the_one_generated() {
    assert_generated("docs/reference/cli.md", &commands());
}

#[test]
fn the_committed_man_pages_are_those_generated() {
    let scratch = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(man::command(), scratch.path()).unwrap();
    for page in std::fs::read_dir(scratch.path()).unwrap() {
        let page = page.unwrap();
        let text = std::fs::read_to_string(page.path()).unwrap();
        assert_generated(&format!("docs/man/{}", page.file_name().to_str().unwrap()), &text);
    }
}

#[test]
fn the_committed_completions_are_those_generated() {
    use clap_complete::Shell;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut super::command(), "rotacheck", &mut script);
        assert_generated(&format!("docs/completions/rotacheck.{shell}"), &String::from_utf8(script).unwrap());
    }
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let root = camino::Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = Vec::new();
    let mut directories = vec![root.to_owned(), root.join("scenarios"), root.join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir_utf8().unwrap() {
            let path = entry.unwrap().into_path();
            if path.extension() == Some("md") {
                pages.push(path);
            } else if path.starts_with(root.join("docs")) && path.is_dir() {
                directories.push(path);
            }
        }
    }
    assert!(pages.len() > 15, "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || file.is_empty();
            assert!(elsewhere || page.with_file_name(file).exists(), "{page} links to {target}, which is not there");
        }
    }
}

/// What `--help` says, as wide as it gets.
fn commands() -> String {
    let mut text = String::from(
        "<!-- Generated from the command line: UPDATE=1 cargo test --lib generated -->\n\n# Commands\n\n\
         Data goes to stdout, talk to stderr; a pipe gets neither colour nor bars. [Exit codes](exit-codes.md) are the \
         same for all commands. `rotacheck man` prints this as a man page, `rotacheck completions SHELL` teaches a \
         shell.\n",
    );
    let mut command = super::command().term_width(100);
    command.build();
    let mut section = |heading: &str, help: clap::builder::StyledStr| {
        let help: Vec<String> = help.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        text.push_str(&format!("\n## {heading}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    };
    section("rotacheck", command.render_long_help());
    for subcommand in command.get_subcommands_mut().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        section(&format!("rotacheck {}", subcommand.get_name()), subcommand.render_long_help());
    }
    text
}

fn alerts() -> String {
    let mut text = String::from(
        "<!-- Generated from the table of alerts: UPDATE=1 cargo test --lib generated -->\n\n# Alerts\n\n\
         Prometheus rules that would have warned of a [failure mode](failure-modes.md); `rotacheck explain --alert` \
         prints all of them as a file to load, `rotacheck explain --alert MODE` those of one mode. Their bounds are for \
         certificates of one hour that are renewed every twenty minutes: scale them to yours.\n\n\
         Istio's proxies show neither `sds.*` nor `*.ssl.*` by default. A rule that rests on them needs \
         `proxyStatsMatcher`, in the mesh's `defaultConfig` or in the annotation `proxy.istio.io/config`; without it such \
         a rule never fires, which is not the same as all being well.\n\n\
         Each rule was evaluated over what real Envoys showed Prometheus in a run with the mode, where it fires, and in \
         runs without, where it does not (`harness/tests/alerts.rs`). No rule rests on what deceives: versions and \
         `last_updated`, `/ready`, acknowledgements, success on connections that were kept or sessions that were \
         resumed.\n",
    );
    for alert in ALERTS {
        let shown = match alert.needs {
            None => "shown by Istio by default".to_owned(),
            Some(inclusion) => format!("hidden by Istio by default: `{}`", inclusion.sentence()),
        };
        text.push_str(&format!("\n## {}\n\n{}.\n\n", alert.name, capitalized(alert.summary)));
        text.push_str(&format!("```text\n{}\n```\n\n", alert.expr));
        text.push_str(&format!("- **For**: {}, severity {}\n- **Statistics**: {shown}\n", alert.hold, alert.severity));
        text.push_str(&format!("- **Mind**: {}\n", alert.mind));
        for (heading, modes) in [("Warns before an expiry of", alert.warns), ("Tells, as it happens, of", alert.tells)]
        {
            if !modes.is_empty() {
                let modes: Vec<_> = modes.iter().map(|m| format!("[{m}](failure-modes.md#{m})")).collect();
                text.push_str(&format!("- **{heading}**: {}\n", modes.join(", ")));
            }
        }
    }
    text.push_str("\n## By mode\n\n| mode | under Istio's default statistics | with more of them |\n|---|---|---|\n");
    for mode in MODES {
        let rules = alerts_of(mode.name);
        let of = |hidden: bool| {
            let named = rules.iter().filter(|a| a.needs.is_some() == hidden);
            let links: Vec<_> = named.map(|a| format!("[{}](#{})", a.name, a.name.to_lowercase())).collect();
            if links.is_empty() { "none".to_owned() } else { links.join(", ") }
        };
        let cells = match why_no_alert(mode.name) {
            Some(why) => format!("none | none: {why}"),
            None => format!("{} | {}", of(false), of(true)),
        };
        text.push_str(&format!("| [{0}](failure-modes.md#{0}) | {cells} |\n", mode.name));
    }
    text
}

fn capitalized(text: &str) -> String {
    let mut signs = text.chars();
    signs.next().map_or_else(String::new, |first| first.to_uppercase().chain(signs).collect())
}

fn checks() -> String {
    let mut text = String::from(
        "<!-- Generated from the table of checks: UPDATE=1 cargo test --lib generated -->\n\n# Checks\n\n\
         A check is a named rule over the ledger of a cell: the table of which generation of which secret reached \
         which layer at which proxy. Its findings, with the observations that show them (`seq` in \
         [timeline.ndjson](timeline.md)), are in [the reports](report-json.md). One that is *violated* makes the cell \
         fail. One that is *undecided* lacks a source that it needs, and the cell can't pass. One that *holds* or is \
         *noted* decides nothing by itself. The controls seed a fault that the check must find; `rotacheck run --require-controls` refuses its pass \
         where one was missed.\n\n| check | what it demands | sources that it needs | controls |\n|---|---|---|---|\n",
    );
    for check in CHECKS {
        let controls: Vec<String> = check.controls.iter().map(|control| format!("`{control}`")).collect();
        let (name, rule, needs) = (check.name, check.rule, check.needs.join(", "));
        text.push_str(&format!("| `{name}` | {rule} | {needs} | {} |\n", controls.join(", ")));
    }
    text
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
    text.push_str(
        "\n## On real parts\n\nIstio's agent and istiod, or a real provider, in place of what the harness imitates; run by \
         name or by glob. Their programs are fetched or built on first use.\n\n\
         | scenario | what it shows | role | profile | ttl, renewed every | observed | clock | expected |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    table(&mut text, "real/", library.real().unwrap());
    text
}

fn table(text: &mut String, directory: &str, scenarios: Vec<crate::scenario::Scenario>) {
    for s in scenarios {
        let profile = match s.provider.kind {
            ProviderKind::Fake => serde_json::to_value(s.provider.profile).unwrap(),
            kind => kind.name().into(),
        };
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
            s.provider.ttl(),
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
