//! Who was there when: proxies that came later than the others, were replaced by another one, or went.

use std::time::Duration;

use crate::timeline::Ledger;
use crate::timeline::ledger::{Exit, Mark, ProxyLedger, Traffic};

use super::{CheckResult, Finding};

/// So long before its end is known, a proxy may answer nobody any more; so long after its first certificate was seen,
/// others may not know yet where it is.
const UNSETTLED: Duration = Duration::from_secs(10);

/// Checks that ask for more than a proxy could show whose time was short.
const OVER_TIME: &[&str] = &[
    "full_handshakes",
    "renewed_past_first_expiry",
    "every_context_fresh",
    "peers_accept",
    "process_alive",
    "stream_alive",
    "renewal_margin",
];

/// Whoever took the place of this one.
pub(super) fn follower<'a, 't>(ledger: &'a Ledger<'t>, p: &ProxyLedger<'_>) -> Option<&'a ProxyLedger<'t>> {
    ledger.proxies.iter().find(|q| q.joined.as_ref().is_some_and(|join| join.after == Some(&p.id)))
}

/// Whether it owes nothing any more: it is gone, and another one has its place and its duties; or it was nobody's, like
/// one of several replicas that somebody takes away again.
pub(super) fn is_released(ledger: &Ledger, p: &ProxyLedger) -> bool {
    let nobodys = p.joined.as_ref().is_some_and(|join| join.after.is_none());
    p.gone().is_some() && (nobodys || follower(ledger, p).is_some())
}

/// What could not be told of one that owes nothing any more is worth knowing, and decides nothing. What it did wrong
/// while it was there it did.
pub(super) fn release(ledger: &Ledger, findings: &mut [Finding]) {
    for f in findings.iter_mut().filter(|f| f.result == CheckResult::Undecided && OVER_TIME.contains(&&*f.check)) {
        let p = f.proxy.as_ref().and_then(|id| ledger.proxy(id));
        if p.is_some_and(|p| is_released(ledger, p)) {
            f.result = CheckResult::Noted;
            f.message.push_str(" (it was gone before)");
        }
    }
}

/// Whether one of the two between whom this request went was not there, or not yet, or hardly any more.
pub(super) fn is_missed(ledger: &Ledger, from: &ProxyLedger, t: &Traffic) -> bool {
    let away = |p: &ProxyLedger| {
        let by_others = |exit: &&Exit| exit.expected || follower(ledger, p).is_some();
        let gone = p.gone().filter(by_others).map(|exit| exit.mark.at.mono);
        let ends = gone.is_some_and(|gone| t.mark.at.mono.saturating_add(UNSETTLED) >= gone);
        let settled = |first: Mark| first.at.mono.saturating_add(UNSETTLED) < t.mark.at.mono;
        ends || (p.joined.is_some() && !p.served.iter().find(|s| s.leaf().is_some()).is_some_and(|s| settled(s.mark)))
    };
    away(from) || ledger.proxies.iter().find(|p| p.id.as_str() == t.to).is_some_and(away)
}
