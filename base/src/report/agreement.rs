//! Every format tells the same story: one model of what is expected, held against each of them.

use super::*;
use crate::archive::sample;
use crate::plan::CellReport;

/// Each mark at least once, two of them twice.
fn expected() -> Vec<(Mark, u32)> {
    Mark::ALL
        .into_iter()
        .map(|m| match m {
            Mark::Pass => (m, 3),
            other => (other, 1),
        })
        .collect()
}

fn cells() -> Vec<CellReport> {
    sample::every_outcome()
}

#[test]
fn the_sample_has_every_mark() {
    let counts = Counts::of(&cells());
    assert_eq!(counts.present().collect::<Vec<_>>(), expected());
    assert_eq!(counts.total(), 13);
}

#[test]
fn json_tells_the_counts() {
    let report: json::Report = serde_json::from_str(&json::render(&sample::record(), &cells()).unwrap()).unwrap();
    for (mark, n) in expected() {
        assert_eq!(report.counts.get(mark), n, "{mark:?}");
        assert_eq!(report.cells.iter().filter(|c| c.mark == mark).count() as u32, n, "{mark:?}");
    }
}

#[test]
fn the_terminal_tells_the_counts() {
    let text = terminal::summary(&sample::record(), &cells(), 80, terminal::Paint::Plain);
    let (matrix, counts) = text.split_once("13 cells:").expect("a line of counts");
    for (mark, n) in expected() {
        assert!(counts.contains(&format!("{} {n} {}", mark.glyph(), mark.counted())), "{mark:?} in {counts}");
        let shown = matrix.matches(&format!("{} {}", mark.glyph(), mark.short_word())).count() as u32;
        assert_eq!(shown, n, "{mark:?} in {matrix}");
    }
}

#[test]
fn junit_tells_the_counts() {
    let xml = junit::render(&sample::record(), &cells()).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let n = |of: fn(Mark) -> bool| expected().into_iter().filter(|(m, _)| of(*m)).map(|(_, n)| n).sum::<u32>() as usize;
    assert_eq!(report.tests, n(|_| true));
    assert_eq!(report.failures, n(Mark::is_failure));
    assert_eq!(report.errors, n(|m| matches!(m, Mark::Inconclusive | Mark::Error)));
    let tests = || report.test_suites.iter().flat_map(|s| &s.test_cases);
    let skipped = tests().filter(|t| matches!(t.status, quick_junit::TestCaseStatus::Skipped { .. })).count();
    assert_eq!(skipped, n(|m| matches!(m, Mark::Unsupported | Mark::NotRun)));
    for (mark, n) in expected() {
        let property = format!("name=\"mark\" value=\"{}\"", mark.word());
        assert_eq!(xml.matches(&property).count() as u32, n, "{mark:?}");
    }
}

#[test]
fn markdown_tells_the_counts() {
    let text = markdown::render(&sample::record(), &cells()).unwrap();
    assert!(text.contains(&Counts::of(&cells()).to_string()), "{text}");
    let rows: String = text.lines().filter(|l| l.starts_with("| ")).collect();
    for (mark, n) in expected() {
        let word = if mark.needs_attention() { format!("**{}**", mark.word()) } else { mark.word().into() };
        assert_eq!(rows.matches(&format!("{} {word}", mark.glyph())).count() as u32, n, "{mark:?}");
    }
}

#[test]
fn the_page_tells_the_counts() {
    let page = html::render(&sample::record(), &cells()).unwrap();
    let (_, matrix) = page.split_once("class=\"matrix\"").unwrap();
    let (matrix, _) = matrix.split_once("</table>").unwrap();
    for (mark, n) in expected() {
        assert!(page.contains(&format!("{} {n} {}</li>", mark.glyph(), mark.word())), "{mark:?}");
        let shown = matrix.matches(&format!(">{} {}", mark.glyph(), mark.word())).count() as u32;
        assert_eq!(shown, n, "{mark:?}");
    }
}

#[test]
fn an_archive_gives_the_same_reports_as_the_run_did() {
    let scratch = tempfile::tempdir().unwrap();
    let base = camino::Utf8Path::from_path(scratch.path()).unwrap();
    let directory = crate::archive::RunDirectory::create(base).unwrap();
    let run = crate::archive::RunRecord { directory: directory.path().to_string(), ..sample::record() };
    directory.write_record(&run).unwrap();
    directory.write_plan(&cells()).unwrap();
    for cell in cells().iter().filter(|c| Mark::of(c) != Mark::NotRun) {
        directory.cell_directory(&cell.id).unwrap().write_verdict(cell).unwrap();
    }
    let archive = Archive::open(directory.path()).unwrap();
    let live = RunEvent::RunFinished { run, cells: cells() };
    for format in FileFormat::ALL {
        let path = base.join(format.name());
        let spec = ReportSpec::File { format, path: path.clone() };
        let mut file = spec.file_reporter().expect("it is a file");
        file.event(&live).unwrap();
        let told_live = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        replay(&archive, file.as_mut()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap() == told_live, "{}", format.name());
    }
}
