use std::sync::OnceLock;

use super::*;
use crate::archive::RunDirectory;
use crate::archive::sample::{self, Night, recording};
use crate::plan::Outcome;
use crate::timeline::{Expectation, ExpectedJudgement, Layer, Role};
use crate::verdict::judge;

/// A run on disk with a cell for each night, judged as a run would.
struct Nights {
    _scratch: tempfile::TempDir,
    run: RunRecord,
    cells: Vec<CellReport>,
}

fn night(name: &str, envoy: &str, night: Night, hostile: &str, directory: &RunDirectory) -> CellReport {
    let (role, outcome) = match night {
        Night::Healthy => (Role::Conformance, Outcome::Pass),
        Night::Resent | Night::Refused => (Role::Control, Outcome::Fail),
        Night::CutShort => (Role::Conformance, Outcome::Inconclusive),
    };
    let mut cell = sample::cell(name, envoy, role, outcome, outcome != Outcome::Inconclusive);
    cell.summary = format!("{}{hostile}", cell.summary);
    let timeline = recording(night, &cell.id, hostile);
    cell.verdict = Some(judge(&timeline));
    if night == Night::Refused {
        let diagnosis = Some("nack-key-mismatch".to_owned());
        cell.expect =
            Expectation { judgement: ExpectedJudgement::Fail, layer: Some(Layer::Acked), diagnosis, noted: Vec::new() };
    }
    let file = directory.cell_directory(&cell.id).unwrap().create_timeline().unwrap();
    timeline.write(file).unwrap();
    cell
}

fn nights(hostile: &str) -> Nights {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().join("runs");
    let directory = RunDirectory::create(Utf8Path::from_path(&base).unwrap()).unwrap();
    let mut cells = vec![
        night("rotation-one-hour", "1.36.4", Night::Healthy, hostile, &directory),
        night("incident", "1.36.4", Night::Resent, hostile, &directory),
        night("nack-key-mismatch", "1.36.4", Night::Refused, hostile, &directory),
        night("cut-short", "1.38.3", Night::CutShort, hostile, &directory),
    ];
    cells.push(sample::cell("bundle-rotation", "1.38.3", Role::Conformance, Outcome::Error, false));
    let run = RunRecord { directory: directory.path().to_string(), ..sample::record() };
    Nights { _scratch: scratch, run, cells }
}

/// The page of those nights, made once for all tests that only read it.
fn usual() -> &'static (Nights, String) {
    static USUAL: OnceLock<(Nights, String)> = OnceLock::new();
    USUAL.get_or_init(|| {
        let nights = nights("");
        let page = render(&nights.run, &nights.cells).unwrap();
        // For a look at it in a browser.
        if let Some(path) = std::env::var_os("ROTACHECK_KEEP_PAGE") {
            std::fs::write(path, &page).unwrap();
        }
        (nights, page)
    })
}

/// The part of the page that is one cell's section.
fn section<'a>(page: &'a str, cell: &CellReport) -> &'a str {
    let from = page.find(&format!("id=\"cell-{}\"", cell.id)).expect("every cell has a section");
    let to = page[from..].find("class=\"repeat\"").expect("a section ends with how to repeat it");
    &page[from..from + to]
}

#[test]
fn the_incident_shows_its_contradiction_and_where_it_stopped() {
    let (nights, page) = usual();
    let incident = section(page, &nights.cells[1]);
    assert!(incident.contains("config_dump: default was last updated at 14:10:05"));
    assert!(incident.contains("31 full handshakes served serial"));
    assert!(incident.contains("served certificate expires 04:10:05"));
    assert!(incident.contains("34 responses, 1 certificate"));
    assert!(incident.contains("<li class=\"stop\"><b>issued</b><span>1 generation</span>"));
    assert!(incident.contains("class=\"expired\""));
    // It is also what one sees first.
    let light = page.find("class=\"light caught\"").unwrap();
    assert!(light < page.find("id=\"cells-title\"").unwrap());
}

#[test]
fn a_healthy_night_has_no_expired_stretch_and_every_generation() {
    let (nights, page) = usual();
    let healthy = section(page, &nights.cells[0]);
    assert!(!healthy.contains("class=\"expired\"") && !healthy.contains("class=\"wash\""));
    assert!(healthy.contains("first certificate expires 04:10:05"));
    assert!(healthy.contains("34 minted") && healthy.contains("34 responses, 34 certificates"));
    assert_eq!(healthy.matches("<li class=\"ok\">").count(), 6);
}

#[test]
fn refusals_are_crosses_with_their_text() {
    let (nights, page) = usual();
    let refused = section(page, &nights.cells[2]);
    assert!(refused.contains("3 accepted, 31 refused"));
    assert!(refused.contains("KEY_VALUES_MISMATCH"));
    assert!(refused.matches("class=\"nack mark\"").count() >= 31);
}

#[test]
fn a_cell_without_a_recording_says_so() {
    let (nights, page) = usual();
    let error = section(page, nights.cells.last().unwrap());
    assert!(error.contains("No drawing: cannot "), "{error}");
    assert!(error.contains("envoy exited with code 1"));
}

#[test]
fn the_page_refers_to_nothing_outside() {
    let (_, page) = usual();
    for outside in ["http://", "https://", "src=", "@import", "<link", "<base", "<iframe", "<object"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let references: Vec<&str> = page.split("url(").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(references.iter().all(|r| *r == "#hatch"), "{references:?}");
    // Every link leads to a place on the page.
    for target in page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let name = target.strip_prefix('#').expect("only links within the page");
        assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
    }
}

#[test]
fn hostile_texts_stay_text_wherever_they_come_from() {
    const HOSTILE: &str = "\"'><script>alert(1)</script><svg onload=x>\u{202e}\u{0}{{ 7 }}</style></title>";
    let mut nights = nights(HOSTILE);
    // Where the judge would not carry it, it is put by hand: a run's files may come from anybody.
    for cell in &mut nights.cells {
        cell.command.push_str(HOSTILE);
        cell.subject.envoy.source.push_str(HOSTILE);
        cell.subject.provider.kind.push_str(HOSTILE);
        cell.reason = cell.reason.take().map(|r| r + HOSTILE);
        cell.expect.diagnosis = Some(HOSTILE.into());
        let Some(v) = &mut cell.verdict else { continue };
        v.headline.push_str(HOSTILE);
        v.missing.push(HOSTILE.into());
        v.findings.iter_mut().for_each(|f| {
            f.message.push_str(HOSTILE);
            f.check.push_str(HOSTILE);
        });
        v.contradictions.iter_mut().for_each(|c| {
            c.claim.push_str(HOSTILE);
            c.against.push_str(HOSTILE);
        });
        v.candidates.iter_mut().for_each(|c| {
            c.mode.push_str(HOSTILE);
            c.would_decide = Some(HOSTILE.into());
        });
    }
    nights.run.command_line.push(HOSTILE.into());
    nights.run.host.os.push_str(HOSTILE);
    nights.run.rotacheck.push_str(HOSTILE);
    let page = render(&nights.run, &nights.cells).unwrap();
    assert_eq!(page.matches("<script").count(), 1, "only our own");
    assert_eq!(page.matches("</style").count(), 1);
    assert_eq!(page.matches("</title>\n").count(), 1);
    assert!(!page.contains("<svg onload"));
    assert!(!page.contains('\u{202e}') && !page.contains('\0'));
    // It is there, as text, at least in every cell.
    assert!(page.matches("&#60;script&#62;").count() > nights.cells.len());
}

#[test]
fn a_run_of_the_default_size_stays_a_page() {
    let (nights, page) = usual();
    let per_cell = page.len() / nights.cells.len();
    assert!(per_cell < 200_000, "{per_cell} bytes for each cell");
}

#[test]
fn groups_of_columns_have_a_title_over_them() {
    let page = render(&sample::record(), &sample::agents()).unwrap();
    for told in [
        "colspan=\"3\">no istio · fake</th>",
        "colspan=\"3\">istio 1.31-dev.20260423 · spire</th>",
        "<th scope=\"col\">1.38.3</th>",
        "<th scope=\"col\">1.38.3†</th>",
        "<b>agent-incident</b>: claimed on Envoy 1.36.4, not on Envoy 1.38.3, 1.40.0: config_dump: updated at …",
        "<li>off-pair: Istio 1.31 ships Envoy 1.39, and this one is 1.36.4</li>",
    ] {
        assert!(page.contains(told), "{told}");
    }
}
