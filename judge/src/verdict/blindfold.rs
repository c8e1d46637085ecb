//! The same recording with less evidence: what would be said if a source had not been there?

use super::{Judgement, Verdict, judge};
use crate::timeline::{Expectation, ExpectedJudgement, Fact, Observation, Source, StatsInclusion, Timeline};

/// One kind of evidence that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// What was minted: a provider that one only sees on its socket.
    Issuer,
    /// All that is seen of the provider's streams, what was minted, and what a fresh subscriber gets.
    Streams,
    /// What a fresh subscriber gets.
    Witness,
    /// All statistics.
    Stats,
    /// The statistics that Istio's sidecars do not keep by default.
    IstioStats,
    ConfigDump,
    /// `/certs`.
    Certs,
    Inbound,
    Outbound,
    Traffic,
    Census,
}

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blindfold {
    name: &'static str,
    hidden: &'static [Hidden],
}

const fn blind(name: &'static str, hidden: &'static [Hidden]) -> Blindfold {
    Blindfold { name, hidden }
}

impl Blindfold {
    /// Each source by itself, then what is missing together in practice.
    pub const ALL: [Blindfold; 17] = [
        blind("the issuer's journal", &[Hidden::Issuer]),
        blind("the provider's streams", &[Hidden::Streams]),
        blind("the fresh subscriber", &[Hidden::Witness]),
        blind("statistics", &[Hidden::Stats]),
        blind("the statistics that Istio hides", &[Hidden::IstioStats]),
        blind("config_dump", &[Hidden::ConfigDump]),
        blind("/certs", &[Hidden::Certs]),
        blind("inbound handshakes", &[Hidden::Inbound]),
        blind("outbound handshakes", &[Hidden::Outbound]),
        blind("requests from proxy to proxy", &[Hidden::Traffic]),
        blind("the census of the socket", &[Hidden::Census]),
        // An external provider, as its tap sees it, in a mesh with Istio's settings.
        blind("the issuer's journal and the statistics that Istio hides", &[Hidden::Issuer, Hidden::IstioStats]),
        // No tap.
        blind("the provider's streams and the statistics that Istio hides", &[Hidden::Streams, Hidden::IstioStats]),
        // A port to shake hands with, and the provider's logs.
        blind("any answer of the admin API", &[Hidden::Stats, Hidden::ConfigDump, Hidden::Certs]),
        // Only a port to shake hands with.
        blind(
            "the provider's streams and any answer of the admin API",
            &[Hidden::Streams, Hidden::Stats, Hidden::ConfigDump, Hidden::Certs],
        ),
        // `kubectl exec ... /certs` in a mesh, and nothing else: neither tap nor handshakes.
        blind(
            "the provider's streams, handshakes and the statistics that Istio hides",
            &[Hidden::Streams, Hidden::Inbound, Hidden::Outbound, Hidden::IstioStats],
        ),
        blind("handshakes", &[Hidden::Inbound, Hidden::Outbound]),
    ];

    /// In words, after "without".
    pub fn name(self) -> &'static str {
        self.name
    }
}

impl Hidden {
    fn hides(self, o: &Observation) -> bool {
        match self {
            Hidden::Issuer => matches!(o.fact, Fact::Issued(_) | Fact::Signed(_) | Fact::Authority(_)),
            Hidden::Streams => matches!(o.source, Source::Provider | Source::Tap | Source::Witness),
            Hidden::Witness => o.source == Source::Witness,
            Hidden::Stats => matches!(o.fact, Fact::Stats(_)),
            Hidden::IstioStats => false,
            Hidden::ConfigDump => matches!(o.fact, Fact::ConfigDump(_)),
            Hidden::Certs => matches!(o.fact, Fact::Certs(_)),
            Hidden::Inbound => o.source == Source::Inbound,
            Hidden::Outbound => o.source == Source::Outbound,
            Hidden::Traffic => o.source == Source::Traffic,
            Hidden::Census => o.source == Source::Census,
        }
    }
}

/// Judges the recording as if this had not been seen. The numbers of its observations change.
pub fn judge_without(timeline: &Timeline, blindfold: Blindfold) -> Verdict {
    let mut less = timeline.clone();
    less.observations.retain(|o| !blindfold.hidden.iter().any(|hidden| hidden.hides(o)));
    let only_istios = blindfold.hidden.contains(&Hidden::IstioStats);
    for (seq, o) in (0..).zip(&mut less.observations) {
        o.seq = seq;
        match &mut o.fact {
            Fact::Stats(s) if only_istios => s.values.retain(|name, _| StatsInclusion::IstioDefault.keeps(name)),
            _ => {}
        }
    }
    if let Some(footer) = &mut less.footer {
        footer.observations = less.observations.len() as u64;
    }
    judge(&less)
}

/// What is wrong in a verdict that rests on less evidence than there was: it may say less than what is expected, or
/// leave the choice between several, but no other layer, no name or choice without the right one, and no pass.
pub fn untrue(expected: &Expectation, verdict: &Verdict) -> Option<String> {
    match (verdict.judgement, expected.judgement) {
        (Judgement::Inconclusive, _) | (Judgement::Pass, ExpectedJudgement::Pass) => return None,
        (Judgement::Pass, ExpectedJudgement::Fail | ExpectedJudgement::Inconclusive) => {
            return Some(format!("it passed: {}", verdict.headline));
        }
        (Judgement::Fail, ExpectedJudgement::Pass | ExpectedJudgement::Inconclusive) => {
            return Some(format!("it was called failed: {}", verdict.headline));
        }
        (Judgement::Fail, ExpectedJudgement::Fail) => {}
    }
    let layer = verdict.layer.filter(|layer| expected.layer.is_some_and(|right| right != *layer));
    if let Some(layer) = layer {
        return Some(format!("it was blamed on {layer}: {}", verdict.headline));
    }
    let right = expected.diagnosis.as_deref()?;
    let named: Vec<&str> = verdict.candidates.iter().map(|c| c.mode.as_str()).collect();
    (!named.is_empty() && !named.contains(&right)).then(|| format!("it was called {}", named.join(" or ")))
}
