//! The whole page.

use askama::Template;

use super::cell::CellView;
use super::prose::moment;
use crate::archive::RunRecord;
use crate::plan::CellReport;
use crate::report::matrix::{Column, OFF_PAIR};
use crate::report::text::{duration, plain};
use crate::report::{Counts, Difference, Mark, Matrix};
use crate::timeline::{Layer, Timeline};

#[derive(Template)]
#[template(path = "report/page.html")]
pub(super) struct Page {
    title: String,
    verdict: String,
    all_expected: bool,
    facts: Vec<(&'static str, String)>,
    legend: Vec<Legend>,
    layers: Vec<(&'static str, &'static str)>,
    corner: String,
    /// Titles over columns beside each other, with how many these are; none where all have all in common.
    groups: Vec<(String, usize)>,
    columns: Vec<String>,
    /// What marks the columns that are off-pair, where some are.
    off_pair: Option<char>,
    rows: Vec<MatrixRow>,
    /// Scenario, and what its columns do not have in common.
    differences: Vec<(String, String)>,
    spotlight: Option<CellView>,
    cells: Vec<CellView>,
    /// Digest of the one script, for the policy that forbids any other.
    script_hash: String,
}

struct Legend {
    class: &'static str,
    glyph: char,
    word: &'static str,
    meaning: &'static str,
    count: u32,
}

struct MatrixRow {
    scenario: String,
    summary: String,
    places: Vec<Vec<Place>>,
}

struct Place {
    anchor: String,
    class: &'static str,
    glyph: char,
    word: &'static str,
    layer: &'static str,
    title: String,
}

const SCRIPT: &str = include_str!("../../../templates/report/script.js");

impl Page {
    pub(super) fn new(
        run: &RunRecord,
        cells: &[CellReport],
        recording: impl Fn(&CellReport) -> Result<Timeline, String>,
    ) -> Self {
        let counts = Counts::of(cells);
        let matrix = Matrix::of(cells);
        let attention = cells.iter().filter(|c| Mark::of(c).needs_attention() && !c.as_expected).count();
        let views: Vec<CellView> = cells.iter().map(|c| CellView::new(c, recording(c))).collect();
        let spotlight = spotlight(cells).map(|c| CellView::new(c, recording(c)).in_the_light());
        Self {
            title: format!("rotacheck {}", plain(&run.id)),
            verdict: match (attention, cells.len()) {
                (_, 0) => "No cells".to_owned(),
                (0, 1) => "The cell is as expected".to_owned(),
                (0, n) => format!("All {n} cells are as expected"),
                (1, n) => format!("1 of {n} cells is not as expected"),
                (k, n) => format!("{k} of {n} cells are not as expected"),
            },
            all_expected: attention == 0 && !cells.is_empty(),
            facts: facts(run, cells),
            legend: counts
                .present()
                .map(|(mark, count)| Legend {
                    class: class(mark),
                    glyph: mark.glyph(),
                    word: mark.word(),
                    meaning: mark.meaning(),
                    count,
                })
                .collect(),
            layers: Layer::ALL.iter().map(|l| (l.name(), reached_when(*l))).collect(),
            corner: plain(matrix.corner()),
            groups: match matrix.groups() {
                groups if groups.iter().all(|g| matrix.columns[g.start].group.is_empty()) => Vec::new(),
                groups => groups.into_iter().map(|g| (matrix.columns[g.start].group.clone(), g.len())).collect(),
            },
            columns: matrix.columns.iter().map(Column::marked).collect(),
            off_pair: matrix.columns.iter().any(|c| c.off_pair).then_some(OFF_PAIR),
            rows: (0..matrix.rows.len()).map(|r| row(&matrix, r)).collect(),
            differences: Difference::all(cells).iter().map(|d| (d.scenario.to_string(), d.sentence())).collect(),
            spotlight,
            cells: views,
            script_hash: base64(&<sha2::Sha256 as sha2::Digest>::digest(SCRIPT.as_bytes())),
        }
    }

    fn script(&self) -> &'static str {
        SCRIPT
    }
}

/// The cell that is shown before all others: one that needs attention, else the control in which most claims were
/// contradicted.
fn spotlight(cells: &[CellReport]) -> Option<&CellReport> {
    let contradictions = |c: &CellReport| c.verdict.as_ref().map_or(0, |v| v.contradictions.len());
    let attention = cells.iter().find(|c| Mark::of(c).is_failure() && !c.as_expected && contradictions(c) > 0);
    // The longest one among equals: the more nights, the clearer.
    let most = || {
        let told = cells.iter().filter(|c| contradictions(c) > 0 && Mark::of(c) == Mark::Caught);
        told.rev().max_by_key(|c| (contradictions(c), c.cell_time_s))
    };
    attention.or_else(most)
}

fn row(matrix: &Matrix<'_>, r: usize) -> MatrixRow {
    let columns = 0..matrix.columns.len();
    MatrixRow {
        scenario: matrix.rows[r].to_string(),
        summary: columns.clone().find_map(|c| matrix.at(r, c).first()).map(|c| plain(&c.summary)).unwrap_or_default(),
        places: columns.map(|c| matrix.at(r, c).iter().map(|cell| place(cell)).collect()).collect(),
    }
}

fn place(cell: &CellReport) -> Place {
    let mark = Mark::of(cell);
    let layer = cell.verdict.as_ref().and_then(|v| v.layer).filter(|_| mark != Mark::Pass);
    Place {
        anchor: format!("cell-{}", cell.id),
        class: class(mark),
        glyph: mark.glyph(),
        word: mark.word(),
        layer: layer.map_or("", Layer::name),
        title: crate::report::text::headline(cell),
    }
}

pub(super) fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Pass => "pass",
        Mark::Caught => "caught",
        Mark::Fail => "fail",
        Mark::Missed => "fail missed",
        Mark::Misblamed => "fail misblamed",
        Mark::UnexpectedPass => "fail unexpected",
        Mark::Inconclusive => "unsure",
        Mark::Error => "unsure error",
        Mark::Known => "known",
        Mark::Unsupported => "quiet unsupported",
        Mark::NotRun => "quiet notrun",
    }
}

/// When a generation has reached a layer, and who sees it there.
fn reached_when(layer: Layer) -> &'static str {
    match layer {
        Layer::Issued => "the provider minted it",
        Layer::Sent => "it was on the SDS stream to the proxy, under the subscribed name and the right type",
        Layer::Acked => "the proxy accepted it, or refused it (NACK)",
        Layer::Dumped => "it is inside the secret that /config_dump shows: an observation, never proof",
        Layer::Loaded => "it is in every live TLS context of this identity (/certs)",
        Layer::Served => "a full, non-resumed handshake shows it, as server (inbound) and as client (outbound)",
    }
}

fn facts(run: &RunRecord, cells: &[CellReport]) -> Vec<(&'static str, String)> {
    let mut envoys: Vec<_> = cells.iter().map(|c| c.subject.envoy.version.semver()).collect();
    envoys.sort();
    envoys.dedup();
    let envoys: Vec<String> = envoys.iter().map(ToString::to_string).collect();
    let mut providers: Vec<String> = cells
        .iter()
        .map(|c| {
            let p = &c.subject.provider;
            p.profile.as_ref().map_or_else(|| p.kind.clone(), |profile| format!("{} ({profile})", p.kind))
        })
        .collect();
    providers.sort();
    providers.dedup();
    let h = &run.host;
    let took = match run.duration_ms {
        Some(ms) if run.interrupted => format!("{}, interrupted", duration(ms)),
        Some(ms) => duration(ms),
        None => "no end was recorded".to_owned(),
    };
    let cell_time: u64 = cells.iter().map(|c| c.cell_time_s).sum();
    // Of a timeline by itself, neither is known.
    let host = (h.cpus > 0).then(|| format!("{}, {}, {} CPUs, {} GiB", h.os, h.arch, h.cpus, h.memory_bytes >> 30));
    let command = (!run.command_line.is_empty()).then(|| run.command_line.join(" "));
    let mut facts = vec![
        ("Run", run.id.clone()),
        ("Started", moment(run.started)),
        ("Took", took),
        ("Cell time", crate::report::text::span(i64::try_from(cell_time).unwrap_or(i64::MAX))),
        ("Envoy", envoys.join(", ")),
        ("Provider", providers.join(", ")),
        ("rotacheck", run.rotacheck.clone()),
    ];
    facts.extend(host.map(|host| ("Host", host)));
    facts.extend(command.map(|command| ("Command", command)));
    facts.push(("Directory", run.directory.clone()));
    for (_, value) in &mut facts {
        *value = plain(value);
    }
    facts
}

/// Standard base64, as a Content-Security-Policy wants its digests.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(n >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        let encoded = ["", "f", "fo", "foo", "foobar"].map(|t| super::base64(t.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]);
    }
}
