//! A listener that was added later, and that the proxy does not have.

use super::super::Confidence;
use super::super::evidence::clock_time;
use super::{Candidate, Stop, one};
use crate::timeline::ledger::{LateListener, ProxyLedger};
use crate::timeline::{Layer, Ledger};

/// Where such a listener stopped. What it was refused for says the mode only where the secret had been refused before.
pub(in crate::verdict) fn late_listener(ledger: &Ledger, p: &ProxyLedger) -> Option<Stop> {
    let late = p.late_listeners.iter().find(|late| absent(late))?;
    let (answered, error) = late.answer.as_ref().map_or((None, None), |(m, error)| (Some(m.seq), error.as_deref()));
    let evidence: Vec<u64> =
        [late.mark.seq].into_iter().chain(answered).chain(late.listens.map(|(m, _)| m.seq)).collect();
    let said = error.map(|e| format!(": {e}")).unwrap_or_default();
    let what = format!("the listener {}, added at {}, was refused{said}", late.name, clock_time(late.mark.at.wall));
    let stop = |layer, candidates: Vec<Candidate>, story| Stop {
        proxy: p.id.clone(),
        layer,
        candidates,
        story,
        notes: Vec::new(),
    };
    // What was held when it came.
    let held = p.pushes_of(&p.svid).rfind(|push| push.mark.seq < late.mark.seq);
    if let Some((mark, text)) = held.and_then(|push| push.refusal()) {
        let story = format!(
            "{what}; the proxy held a certificate that it had refused ({text}), and new listeners get that one"
        );
        let evidence = [vec![mark.seq], evidence].concat();
        return Some(stop(Some(Layer::Loaded), one("late-listener-poisoned", Confidence::Certain, evidence), story));
    }
    let rejected = p.sds_stat("update_rejected");
    let before = p.risen(late.mark.seq, |n| n == rejected || n.ends_with(&format!(".{rejected}")));
    match (ledger.streams_seen, before) {
        (false, Some(0)) | (true, _) => Some(stop(None, Vec::new(), what)),
        (false, Some(_)) => {
            let story = format!("{what}; the proxy had refused a certificate before");
            Some(stop(Some(Layer::Loaded), one("late-listener-poisoned", Confidence::Likely, evidence), story))
        }
        (false, None) => Some(stop(None, one("late-listener-poisoned", Confidence::Possible, evidence), what)),
    }
}

/// Whether it was refused, or does not listen.
fn absent(late: &LateListener) -> bool {
    matches!(late.answer, Some((_, Some(_)))) || matches!(late.listens, Some((_, false)))
}
