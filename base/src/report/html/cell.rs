//! One cell: expected beside observed, the contradiction, the way through the layers, what to do.

use super::evidence::{Cited, cited};
use super::lanes::ProxyLanes;
use super::page::class;
use super::prose::{Span, counted, spans};
use crate::plan::CellReport;
use crate::report::Mark;
use crate::report::text::{duration, headline, plain, span};
use crate::timeline::{ClockKind, ExpectedJudgement, Layer, Ledger, Role, Timeline};
use crate::verdict::{CHECKS, CheckResult, Confidence, Finding, Hypothesis, Judgement, Verdict, mode};

pub(super) struct CellView {
    /// Prefix of the element names in it: the same cell can be on the page twice.
    pub(super) anchor: String,
    /// Where its full section is.
    pub(super) target: String,
    pub(super) id: String,
    pub(super) class: &'static str,
    pub(super) glyph: char,
    pub(super) word: &'static str,
    pub(super) layer: &'static str,
    pub(super) headline: String,
    pub(super) summary: String,
    pub(super) disclosed: Vec<String>,
    pub(super) open: bool,
    pub(super) expected: Vec<String>,
    pub(super) observed: Vec<String>,
    pub(super) as_expected: bool,
    pub(super) contradictions: Vec<ContradictionView>,
    pub(super) steps: Vec<StepView>,
    pub(super) proxies: Vec<ProxyLanes>,
    /// Why there is no drawing.
    pub(super) no_recording: Option<String>,
    pub(super) diagnosis: Option<ModeView>,
    pub(super) candidates: Vec<CandidateView>,
    pub(super) hypotheses: Vec<HypothesisView>,
    pub(super) findings: Vec<FindingView>,
    pub(super) holding: Vec<FindingView>,
    pub(super) missing: Vec<String>,
    pub(super) evidence: Vec<Cited>,
    pub(super) command: String,
}

pub(super) struct ContradictionView {
    /// What was claimed, all of it contradicted by the same observation.
    pub(super) claims: Vec<String>,
    pub(super) against: String,
    pub(super) evidence: Vec<u64>,
}

/// A layer in the strip.
pub(super) struct StepView {
    pub(super) name: &'static str,
    /// `ok`, `stop`, `after`, `unknown`.
    pub(super) class: &'static str,
    pub(super) says: String,
}

pub(super) struct ModeView {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) meaning: Vec<Span>,
    pub(super) first_aid: Vec<Span>,
    pub(super) lasting_fix: Vec<Span>,
    pub(super) seen_in: String,
}

pub(super) struct CandidateView {
    pub(super) mode: String,
    pub(super) title: &'static str,
    pub(super) confidence: &'static str,
    pub(super) would_decide: Option<String>,
    pub(super) evidence: Vec<u64>,
}

pub(super) struct HypothesisView {
    pub(super) class: &'static str,
    pub(super) suspicion: &'static str,
    pub(super) observation: String,
    pub(super) evidence: Vec<u64>,
}

pub(super) struct FindingView {
    pub(super) class: &'static str,
    pub(super) result: &'static str,
    pub(super) check: String,
    pub(super) rule: &'static str,
    pub(super) place: String,
    pub(super) message: String,
    pub(super) evidence: Vec<u64>,
}

impl CellView {
    pub(super) fn new(cell: &CellReport, recording: Result<Timeline, String>) -> Self {
        let mark = Mark::of(cell);
        let verdict = cell.verdict.as_ref();
        let (timeline, no_recording) = match recording {
            Ok(timeline) => (Some(timeline), None),
            Err(why) => (None, Some(plain(&why))),
        };
        let ledger = timeline.as_ref().map(Ledger::of);
        let layer = verdict.and_then(|v| v.layer).filter(|_| mark != Mark::Pass);
        let (findings, holding) = verdict
            .map(|v| v.findings.iter().map(finding).partition::<Vec<_>, _>(|f| f.class != "holds"))
            .unwrap_or_default();
        Self {
            anchor: format!("cell-{}", cell.id),
            target: format!("cell-{}", cell.id),
            id: cell.id.to_string(),
            class: class(mark),
            glyph: mark.glyph(),
            word: mark.word(),
            layer: layer.map_or("", Layer::name),
            headline: headline(cell),
            summary: plain(&cell.summary),
            disclosed: cell.disclosed.iter().map(|d| plain(&d.text)).collect(),
            open: mark.needs_attention() && !cell.as_expected,
            expected: expected(cell, timeline.as_ref()),
            observed: observed(cell),
            as_expected: cell.as_expected,
            contradictions: verdict.map(contradictions).unwrap_or_default(),
            steps: steps(cell, ledger.as_ref()),
            proxies: ledger.as_ref().map(super::lanes::draw).unwrap_or_default(),
            no_recording,
            diagnosis: verdict.and_then(|v| v.diagnosis.as_deref()).and_then(mode_view),
            candidates: verdict.map(candidates).unwrap_or_default(),
            hypotheses: verdict.map(|v| v.hypotheses.iter().map(hypothesis).collect()).unwrap_or_default(),
            findings,
            holding,
            missing: verdict.map(|v| v.missing.iter().map(|m| plain(m)).collect()).unwrap_or_default(),
            evidence: match (&timeline, verdict) {
                (Some(timeline), Some(v)) => cited(timeline, v),
                _ => Vec::new(),
            },
            command: plain(&cell.command),
        }
    }

    /// As it is shown on top of the page: a single proxy, and names of its own.
    pub(super) fn in_the_light(mut self) -> Self {
        self.anchor = "light".to_owned();
        self.contradictions.truncate(1);
        self.proxies.truncate(1);
        self.evidence.clear();
        self
    }

    /// The element to which a citation leads; an observation that the recording lacks leads nowhere.
    pub(super) fn cites(&self, seq: &u64) -> Option<String> {
        self.evidence.iter().any(|c| c.seq == *seq).then(|| format!("{}-seq-{seq}", self.target))
    }
}

fn expected(cell: &CellReport, timeline: Option<&Timeline>) -> Vec<String> {
    let mut lines = Vec::new();
    match cell.expect.judgement {
        ExpectedJudgement::Pass => {
            let newer = timeline.map(|t| t.header.criteria.newer_generations).filter(|n| *n > 0);
            let newer = newer.map_or_else(|| "newer generations".into(), |n| counted(n as usize, "newer generation"));
            lines.push(format!(
                "A pass: every proxy serves {newer} in full handshakes, as server and as client, past the first expiry."
            ));
        }
        ExpectedJudgement::Fail => {
            let layer = cell.expect.layer.map(|l| format!(", blamed on the layer “{l}”")).unwrap_or_default();
            let mode = cell.expect.diagnosis.as_ref().map(|d| format!(", named “{}”", plain(d))).unwrap_or_default();
            lines.push(format!("A failure{layer}{mode}."));
        }
        ExpectedJudgement::Inconclusive => lines.push("No judgement: the evidence is to be found wanting.".into()),
    }
    if cell.role == Role::Control {
        lines.push("This is a control: its fault is seeded, to see that it is caught.".into());
    }
    if let Some(c) = timeline.map(|t| &t.header.criteria) {
        let renewals = c.renew_every_s.map(|s| format!(", renewed every {}", span(to_i64(s)))).unwrap_or_default();
        lines.push(format!(
            "Certificates live {}{renewals}. A new one is to be served within {} of being sent, with at least {} left of the old one.",
            span(to_i64(c.ttl_s)),
            duration(c.lag_bound_ms),
            match c.margin_floor_ms {
                Some(ms) => duration(ms),
                None => span(to_i64(c.margin_floor_s)),
            },
        ));
    }
    lines
}

fn observed(cell: &CellReport) -> Vec<String> {
    let mut lines = vec![sentence(&headline(cell))];
    if let Some(v) = &cell.verdict {
        lines.extend(match (v.judgement, v.layer, &v.diagnosis) {
            (Judgement::Fail, Some(l), Some(d)) => Some(format!("Blamed on the layer “{l}”, named “{}”.", plain(d))),
            (Judgement::Fail, Some(l), None) => Some(format!("Blamed on the layer “{l}”; no single mode fits.")),
            (Judgement::Fail, None, _) => Some("No single layer is to blame.".to_owned()),
            _ => None,
        });
        if let Some(margin) = v.margin_ms {
            lines.push(format!("Smallest renewal margin: {}.", span(margin / 1000)));
        }
        if let Some(lag) = v.lag_ms.get(&Layer::Served) {
            lines.push(format!("From sent to served: median {:.1} ms, longest {:.1} ms.", lag.median, lag.max));
        }
    }
    let time = match cell.clock {
        ClockKind::Virtual if cell.cell_time_s > 0 => {
            format!("{} of cell time in {}.", span(to_i64(cell.cell_time_s)), duration(cell.duration_ms))
        }
        _ => format!("Took {}.", duration(cell.duration_ms)),
    };
    lines.push(time);
    lines
}

/// Begins as it does: a proxy's name is not capitalised.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{text}{end}")
}

/// Claims against which the same observation speaks stand together.
fn contradictions(verdict: &Verdict) -> Vec<ContradictionView> {
    let mut views: Vec<ContradictionView> = Vec::new();
    for c in &verdict.contradictions {
        let (claim, against) = (plain(&c.claim), plain(&c.against));
        match views.iter_mut().find(|v| v.against == against) {
            Some(view) => {
                view.claims.push(claim);
                view.evidence.extend(&c.evidence);
            }
            None => views.push(ContradictionView { claims: vec![claim], against, evidence: c.evidence.clone() }),
        }
    }
    for view in &mut views {
        view.evidence.sort_unstable();
        view.evidence.dedup();
    }
    views
}

fn steps(cell: &CellReport, ledger: Option<&Ledger>) -> Vec<StepView> {
    let Some(verdict) = &cell.verdict else { return Vec::new() };
    let blamed = verdict.layer.filter(|_| verdict.judgement == Judgement::Fail);
    Layer::ALL
        .into_iter()
        .map(|layer| {
            let class = match (verdict.judgement, blamed) {
                (Judgement::Pass, _) => "ok",
                (_, Some(stop)) if layer < stop => "ok",
                (_, Some(stop)) if layer == stop => "stop",
                (_, Some(_)) => "after",
                _ => "unknown",
            };
            StepView { name: layer.name(), class, says: ledger.map(|l| reached(l, layer)).unwrap_or_default() }
        })
        .collect()
}

/// How many generations came this far, on the proxy where fewest did.
fn reached(ledger: &Ledger, layer: Layer) -> String {
    let per_proxy = ledger.proxies.iter().map(|p| {
        let came = p.rows.iter().filter(|r| r.entry(layer).first().is_some()).count();
        let unseen = !p.rows.is_empty()
            && p.rows.iter().all(|r| matches!(r.entry(layer), crate::timeline::ledger::Entry::Unseen { .. }));
        (came, unseen)
    });
    match per_proxy.min() {
        Some((_, true)) => "unseen".to_owned(),
        Some((n, false)) => counted(n, "generation"),
        None => String::new(),
    }
}

fn mode_view(name: &str) -> Option<ModeView> {
    let mode = mode(name)?;
    Some(ModeView {
        name: mode.name,
        title: mode.title,
        meaning: spans(mode.meaning),
        first_aid: spans(mode.first_aid),
        lasting_fix: spans(mode.lasting_fix),
        seen_in: mode.seen_in.join(", "),
    })
}

fn candidates(verdict: &Verdict) -> Vec<CandidateView> {
    let view = |c: &crate::verdict::Candidate| CandidateView {
        mode: plain(&c.mode),
        title: mode(&c.mode).map_or("", |m| m.title),
        confidence: match c.confidence {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible => "possible",
        },
        would_decide: c.would_decide.as_deref().map(plain),
        evidence: c.evidence.clone(),
    };
    verdict.candidates.iter().map(view).collect()
}

fn hypothesis(h: &Hypothesis) -> HypothesisView {
    HypothesisView {
        class: h.answer.word(),
        suspicion: h.suspicion.words(),
        observation: plain(&h.observation),
        evidence: h.evidence.clone(),
    }
}

fn finding(f: &Finding) -> FindingView {
    let (class, result) = match f.result {
        CheckResult::Holds => ("holds", "holds"),
        CheckResult::Violated => ("violated", "violated"),
        CheckResult::Undecided => ("undecided", "undecided"),
        CheckResult::Noted => ("noted", "noted"),
    };
    // Most messages begin with the proxy's name; then it needs no saying twice.
    let proxy = f.proxy.iter().map(ToString::to_string).filter(|p| !f.message.starts_with(p.as_str()));
    let place: Vec<String> = proxy.chain(f.secret.iter().map(|s| plain(s.as_str()))).collect();
    FindingView {
        class,
        result,
        check: plain(&f.check),
        rule: CHECKS.iter().find(|c| c.name == f.check).map_or("", |c| c.rule),
        place: place.join(" · "),
        message: plain(&f.message),
        evidence: f.evidence.clone(),
    }
}

fn to_i64(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
