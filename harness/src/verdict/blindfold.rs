//! The same recording with less evidence: what would be said if a source had not been there?

use super::{Judgement, Verdict, judge};
use crate::timeline::{Expectation, ExpectedJudgement, Fact, Observation, Source, Timeline};

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blindfold {
    /// What was minted: a provider that one only sees on its socket.
    Issuer,
    /// All that is seen of the provider's streams, too: what Envoy and its peers show.
    Provider,
}

impl Blindfold {
    /// All of them.
    pub const ALL: [Blindfold; 2] = [Blindfold::Issuer, Blindfold::Provider];

    /// In words, after "without".
    pub fn name(self) -> &'static str {
        match self {
            Blindfold::Issuer => "the issuer's journal",
            Blindfold::Provider => "the provider's streams",
        }
    }

    fn hides(self, o: &Observation) -> bool {
        match self {
            Blindfold::Issuer => matches!(o.fact, Fact::Issued(_) | Fact::Authority(_)),
            Blindfold::Provider => matches!(o.source, Source::Provider | Source::Tap | Source::Witness),
        }
    }
}

/// Judges the recording as if this had not been seen. The numbers of its observations change.
pub fn judge_without(timeline: &Timeline, blindfold: Blindfold) -> Verdict {
    let mut less = timeline.clone();
    less.observations.retain(|o| !blindfold.hides(o));
    for (seq, o) in (0..).zip(&mut less.observations) {
        o.seq = seq;
    }
    if let Some(footer) = &mut less.footer {
        footer.observations = less.observations.len() as u64;
    }
    judge(&less)
}

/// What is wrong in a verdict that rests on less evidence than there was: it may say less than what is expected, or
/// leave the choice between several, but no other layer, and no name or choice without the right one.
pub fn untrue(expected: &Expectation, verdict: &Verdict) -> Option<String> {
    if verdict.judgement != Judgement::Fail {
        return None;
    }
    if expected.judgement != ExpectedJudgement::Fail {
        return Some(format!("it was called failed: {}", verdict.headline));
    }
    let layer = verdict.layer.filter(|layer| expected.layer.is_some_and(|right| right != *layer));
    if let Some(layer) = layer {
        return Some(format!("it was blamed on {layer}"));
    }
    let right = expected.diagnosis.as_deref()?;
    let named: Vec<&str> = verdict.candidates.iter().map(|c| c.mode.as_str()).collect();
    (!named.is_empty() && !named.contains(&right)).then(|| format!("it was called {}", named.join(" or ")))
}
