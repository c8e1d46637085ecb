use super::*;
use crate::scenario::{ObserveSpec, Span};

const GOOD: &str = include_str!("../../../../scenarios/incident.yaml");

fn rendered(text: &str, file: &str) -> String {
    let error = match Scenario::read(text, file) {
        Err(error) => error,
        Ok(_) => return "ACCEPTED".to_owned(),
    };
    let mut out = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut out, &error)
        .expect("a String takes everything");
    // The renderer pads some lines.
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    GOOD.replacen(from, to, 1)
}

#[test]
fn the_incident_has_33_renewals_in_11_hours() {
    let scenario = Scenario::read(GOOD, "scenarios/incident.yaml").unwrap();
    let steps = scenario.schedule();
    let renewals: Vec<u64> = steps.iter().filter(|s| s.renewal.is_some_and(|n| n > 0)).map(|s| s.at_s).collect();
    assert_eq!(renewals.len(), 33);
    assert_eq!((renewals[0], renewals[32]), (1200, 39_600));
    assert_eq!(scenario.renewals(), 33);
}

/// What is changed in the incident's file; the snapshot shows what the user gets for it.
const MISTAKES: &[(&str, &str)] = &[
    ("ttl: 1h", "tl: 1h"),
    ("ttl: 1h", "ttl: 1h\n  ttl: 2h"),
    ("ttl: 1h", "ttl: 1x"),
    ("ttl: 1h", "ttl: 20m"),
    ("ttl: 1h", "ttl: 1500ms"),
    ("ttl: 1h", "ttl:"),
    ("renew_every: 20m", "renew_every: 0s"),
    ("profile: tbot", "profile: tbto"),
    ("profile: tbot", "profile: [tbot]"),
    ("contexts: 45", "contexts: 1001\n  proxies: 0"),
    ("provider:", "provider"),
    ("name: incident", "name: incidents"),
    ("name: incident", "name: ../incident"),
    ("from_renewal: 1", "from_renewal: -1"),
    ("from_renewal: 1", "from_renewal: 0"),
    ("from_renewal: 1", "from_renewal: 34"),
    ("from_renewal: 1", "from_renewal: 5\n      until_renewal: 3\n      proxy: proxy-z"),
    ("from_renewal: 1", "secret: ROOTCA"),
    ("from_renewal: 1", "from_renewal: 1\n    - fault: no-push\n      from_renewal: 2"),
    ("duration: 11h", "duration: 1h19m"),
    ("duration: 11h", "duration: 9000h"),
    ("duration: 11h", "generations_past_first_expiry: 2\n  duration: 11h"),
    ("duration: 11h", "generations_past_first_expiry: 0"),
    ("fleet:", "clock: real\nfleet:"),
    ("expect:", "criteria:\n  margin_floor: 70%\nexpect:"),
    ("expect:", "criteria:\n  margin_floor: 101%\nexpect:"),
    ("role: control", "role: conformance"),
    ("  layer: issued\n", ""),
    ("  layer: issued", "  layr: issued"),
    ("  layer: issued", "  layer: isued"),
    ("judgement: fail", "judgement: pass"),
    ("judgement: fail", "judgement: inconclusive"),
];

#[test]
fn each_mistake_is_shown_where_it_stands() {
    let shown = MISTAKES.iter().map(|(from, to)| {
        let text = changed(from, to);
        format!("{from:?} -> {to:?}\n{}\n", rendered(&text, "scenarios/incident.yaml"))
    });
    insta::assert_snapshot!(shown.collect::<Vec<_>>().join("\n"));
}

#[test]
fn mistakes_about_authorities_are_shown_where_they_stand() {
    let good = include_str!("../../../../scenarios/bundle-rotation.yaml");
    Scenario::read(good, "bundle-rotation.yaml").unwrap();
    let mistakes = [
        ("action: prepare", "action: activate"),
        ("at_renewal: 4", "at_renewal: 2"),
        ("at_renewal: 4", "at_renewal: 1"),
        ("at_renewal: 4", "at_renewal: 40"),
    ];
    let shown = mistakes.map(|(from, to)| rendered(&good.replacen(from, to, 1), "bundle-rotation.yaml"));
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn events_befall_what_is_there() {
    let good = include_str!("../../../../scenarios/real/spire-agent-killed.yaml");
    Scenario::read(good, "spire-agent-killed.yaml").unwrap();
    let mistakes = [
        ("kind: spire", "kind: fake"),
        ("action: kill-agent", "action: kill-server"),
        ("action: kill-agent", "action: freeze-agent"),
        ("action: kill-agent", "action: delete-entry"),
        ("kind: spire", "kind: istio-ca"),
        ("action: kill-agent", "action: resend-cached"),
        ("action: start-agent", "action: freeze-agent"),
        ("at: 12s", "at: 7s"),
        ("at: 12s", "at: 90s"),
    ];
    let shown = mistakes.map(|(from, to)| rendered(&good.replacen(from, to, 1), "spire-agent-killed.yaml"));
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn authorities_live_for_whole_seconds() {
    let read = |key: &str, life: &str| {
        let text = changed("  ttl: 1h", &format!("  ttl: 1h\n  {key}: {life}"));
        Scenario::read(&text, "incident.yaml")
    };
    for key in ["intermediate_ttl", "authority_ttl"] {
        read(key, "90s").unwrap();
        for life in ["0s", "1500ms"] {
            let said = rendered_error(&read(key, life).unwrap_err());
            assert!(said.contains(&format!("{key} is")), "{said}");
        }
    }
}

#[test]
fn line_and_column_are_those_of_the_value() {
    let error = Scenario::read(&changed("ttl: 1h", "ttl: 1x"), "incident.yaml").unwrap_err();
    assert_eq!((error.file(), error.line_column()), ("incident.yaml", Some((12, 8))));
}

#[test]
fn a_flood_of_problems_is_counted_not_printed() {
    let faults = "\n    - fault: resend-cached\n      from_renewal: 99\n      proxy: nobody".repeat(500);
    let error = Scenario::read(
        &changed("\n      from_renewal: 1", &format!("\n      from_renewal: 1{faults}")),
        "incident.yaml",
    )
    .unwrap_err();
    assert_eq!(error.messages().count(), 8);
    assert!(rendered_error(&error).contains("more problems in this file"));
}

#[test]
fn a_huge_file_and_a_bomb_of_aliases_are_refused_quickly() {
    let huge = format!("# {}\n{GOOD}", "x".repeat(1 << 20));
    assert!(Scenario::read(&huge, "incident.yaml").unwrap_err().to_string().contains("at most 1048576"));

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    for text in [bomb.clone(), changed("profile: tbot", &format!("profile: tbot\n{}", bomb.replace("a0", "  a0")))] {
        let error = Scenario::read(&text, "incident.yaml").unwrap_err();
        assert!(rendered_error(&error).len() < 2_000);
    }
    // A bomb that the types themselves would accept.
    let list = "&a {fault: no-push}, ".to_owned() + &"*a, ".repeat(60_000);
    let text = changed("faults:\n    - fault: resend-cached\n      from_renewal: 1", &format!("faults: [{list}]"));
    let error = Scenario::read(&text, "incident.yaml").unwrap_err();
    assert!(rendered_error(&error).len() < 2_000);
    assert!(error.to_string().starts_with("incident.yaml:14:"), "{error}");

    let deep = format!("name: {}", "[".repeat(10_000));
    Scenario::read(&deep, "incident.yaml").unwrap_err();
}

#[test]
fn empty_and_several_documents_are_refused() {
    assert_eq!(Scenario::read("", "a.yaml").unwrap_err().to_string(), "a.yaml is empty");
    Scenario::read("# only a comment\n", "a.yaml").unwrap_err();
    Scenario::read(&format!("{GOOD}---\n{GOOD}"), "incident.yaml").unwrap_err();
}

#[test]
fn proxies_are_named_by_letters() {
    let ids = FleetSpec { proxies: 64, ..FleetSpec::default() }.proxy_ids();
    assert_eq!(
        ["proxy-a", "proxy-z", "proxy-aa", "proxy-bl"],
        [0, 25, 26, 63].map(|n: usize| ids[n].as_str().to_owned()).each_ref().map(String::as_str)
    );
    assert_eq!(FleetSpec { proxies: u32::MAX, ..FleetSpec::default() }.proxy_ids().len(), 64);
}

fn rendered_error(error: &ScenarioError) -> String {
    let mut out = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .render_report(&mut out, error)
        .expect("a String takes everything");
    out
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,300}|([a-z_]{1,8}: ?[-\\[{&*!|>\"'#%@`, a-z0-9\n]{0,12}\n){0,12}") {
        if let Err(error) = Scenario::read(&text, "incident.yaml") {
            rendered_error(&error);
        }
    }

    #[test]
    fn a_changed_file_never_panics(at in 0..GOOD.len(), cut in 0..40_usize, insert in "\\PC{0,12}|[0-9]{1,20}[smh%]?|\\*a|&a|\n *|: ") {
        let start = (0..=at).rev().find(|n| GOOD.is_char_boundary(*n)).unwrap_or(0);
        let end = (at..=(at + cut).min(GOOD.len())).rev().find(|n| GOOD.is_char_boundary(*n)).unwrap_or(GOOD.len()).max(start);
        let text = format!("{}{insert}{}", &GOOD[..start], &GOOD[end..]);
        match Scenario::read(&text, "incident.yaml") {
            Ok(scenario) => assert!(scenario.schedule().len() <= 5_100),
            Err(error) => { rendered_error(&error); }
        }
    }

    #[test]
    fn any_numbers_give_a_bounded_schedule_or_a_problem(
        ttl in 0..5_000_u64, every in proptest::option::of(0..5_000_u64),
        past in proptest::option::of(0..10_000_u32), duration in proptest::option::of(0..100_000_u64),
    ) {
        let mut scenario = Scenario::read(GOOD, "incident.yaml").unwrap();
        scenario.provider.ttl = Some(Span::seconds(ttl));
        scenario.provider.renew_every = every.map(Span::seconds);
        scenario.observe = ObserveSpec { generations_past_first_expiry: past, duration: duration.map(Span::seconds), ready_within: None };
        if scenario.problems().is_empty() {
            let steps = scenario.schedule();
            let criteria = scenario.criteria();
            assert!(steps.iter().zip(0..).all(|(step, n)| step.index == n));
            assert!(steps.windows(2).all(|pair| pair[0].at_s < pair[1].at_s));
            let late = steps.iter().filter(|step| step.renewal.is_some() && step.at_s > ttl).count();
            assert!(late >= usize::try_from(criteria.generations_past_first_expiry).unwrap());
            assert!(criteria.generations_past_first_expiry > 0);
            assert!(steps.iter().filter(|step| step.renewal.is_some()).count() > 2, "two newer generations are due");
            assert!(steps.iter().any(|step| step.at_s == ttl + 1), "a sample right after the first expiry");
        }
    }
}
