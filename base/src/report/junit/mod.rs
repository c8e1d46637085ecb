//! JUnit XML for CI: a suite for each subject, a test for each scenario. A caught control is a passed test.

use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};

use super::text::{headline, plain};
use super::{Mark, Matrix, ReportError};
use crate::archive::RunRecord;
use crate::plan::CellReport;
use crate::verdict::CheckResult;

/// The report as XML.
pub(super) fn render(run: &RunRecord, cells: &[CellReport]) -> Result<String, ReportError> {
    let matrix = Matrix::of(cells);
    let mut report = quick_junit::Report::new("rotacheck");
    if let Some(ms) = run.duration_ms {
        report.set_time(std::time::Duration::from_millis(ms));
    }
    for c in 0..matrix.columns.len() {
        let in_column: Vec<&CellReport> = (0..matrix.rows.len()).flat_map(|r| matrix.at(r, c)).copied().collect();
        let Some(first) = in_column.first() else { continue };
        let name = matrix.title(c);
        let mut suite = TestSuite::new(&name);
        suite.add_property(Property::new("rotacheck", run.rotacheck.as_str()));
        suite.add_property(Property::new("run", run.id.as_str()));
        suite.add_property(Property::new("envoy", first.subject.envoy.version.as_str()));
        for cell in in_column {
            suite.add_test_case(test_case(cell, &name));
        }
        report.add_test_suite(suite);
    }
    report.to_string().map_err(|e| ReportError::Format { format: "junit", why: e.to_string() })
}

fn test_case(cell: &CellReport, suite: &str) -> TestCase {
    let mark = Mark::of(cell);
    let mut case = TestCase::new(cell.scenario.as_str(), status(cell, mark));
    // Viewers tell tests apart by class and name.
    case.set_classname(format!("rotacheck.{suite}"));
    case.set_time(std::time::Duration::from_millis(cell.duration_ms));
    let s = &cell.subject;
    let mut property = |name: &str, value: String| {
        case.add_property(Property::new(name, plain(&value)));
    };
    property("cell", cell.id.to_string());
    property("mark", mark.word().to_owned());
    property("envoy", format!("{} ({})", s.envoy.version, s.envoy.source));
    if let Some(istio) = &s.istio {
        property("istio", format!("{} ({})", istio.version, istio.source));
    }
    if let Some(cluster) = &s.cluster {
        property("kubernetes", format!("{} ({} nodes)", cluster.kubernetes, cluster.nodes));
    }
    let profile = s.provider.profile.as_ref().map(|p| format!(" {p}")).unwrap_or_default();
    property("provider", format!("{}{profile} {}", s.provider.kind, s.provider.version));
    property("command", cell.command.clone());
    case
}

fn status(cell: &CellReport, mark: Mark) -> TestCaseStatus {
    let mut status = match mark {
        Mark::Pass | Mark::Caught | Mark::Known => TestCaseStatus::success(),
        _ if cell.as_expected => TestCaseStatus::success(),
        Mark::Fail | Mark::Missed | Mark::Misblamed | Mark::UnexpectedPass => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Mark::Inconclusive | Mark::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Mark::Unsupported | Mark::NotRun => TestCaseStatus::skipped(),
    };
    if !matches!(status, TestCaseStatus::Success { .. }) {
        let layer = cell.verdict.as_ref().and_then(|v| v.layer);
        let kind = layer.map_or_else(|| mark.counted().to_owned(), |l| format!("{} {l}", mark.counted()));
        status.set_message(headline(cell)).set_type(kind).set_description(details(cell));
    }
    status
}

fn details(cell: &CellReport) -> String {
    let mut lines = vec![headline(cell)];
    if let Some(v) = &cell.verdict {
        let contradictions = v.contradictions.iter();
        lines.extend(contradictions.map(|c| format!("contradiction: {} | {}", plain(&c.claim), plain(&c.against))));
        let findings = v.findings.iter().filter(|f| f.result != CheckResult::Holds);
        lines.extend(findings.map(|f| {
            let proxy = f.proxy.as_ref().map(|p| format!(" [{p}]")).unwrap_or_default();
            format!("{}{proxy}: {}", plain(&f.check), plain(&f.message))
        }));
        lines.extend(v.missing.iter().map(|m| format!("missing: {}", plain(m))));
    }
    lines.push(format!("repeat: {}", plain(&cell.command)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;

    #[test]
    fn every_outcome_has_its_status() {
        insta::assert_snapshot!(render(&sample::record(), &sample::every_outcome()).unwrap());
    }

    #[test]
    fn hostile_texts_stay_text() {
        let mut cell = sample::every_outcome().remove(2);
        let verdict = cell.verdict.as_mut().unwrap();
        verdict.headline = "]]><system-out>\u{0}\u{1b}[2J\" & \u{202e}".into();
        let xml = render(&sample::record(), &[cell]).unwrap();
        assert!(!xml.contains("<system-out>") && !xml.contains('\0') && !xml.contains('\u{1b}'), "{xml}");
    }
}
