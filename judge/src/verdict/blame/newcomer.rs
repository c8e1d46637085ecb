//! Nobody saw the proxy's own stream, but somebody subscribed beside it.

use std::collections::HashMap;

use super::super::Confidence;
use super::super::activity::Activity;
use super::super::evidence::{clock_time, unchanged};
use super::super::newcomer::{Again, Given, Newcomers, came, rules_out};
use super::{Case, ISSUER_DECIDES, STREAM_DECIDES, Stop, many, one};
use crate::timeline::ledger::{Mark, is_same};
use crate::timeline::{CertFacts, Layer};

impl Case<'_> {
    /// What newcomers are given decides between the provider and the proxy.
    pub(super) fn beside_newcomers(&self) -> Option<Stop> {
        let newcomers = Newcomers::of(self.ledger, self.p)?;
        let updated = unchanged(self.ledger, self.p).and_then(|unchanged| unchanged.updated());
        if let Some((mark, how)) = newcomers.unanswered() {
            return self.nobody_is_answered(mark, how, updated);
        }
        let (given, again) = (newcomers.given(), newcomers.again());
        let kept = |given: &Given<'_>| self.is_newer(given.leaf) && self.looked_since(given.mark) && !self.took(given);
        if let Some(given) = newcomers.shared().find(kept) {
            return Some(self.kept_from_it(&given, updated));
        }
        let same = given.as_ref().filter(|given| self.holds(given.leaf));
        match (&again, same, updated) {
            // Others are sent the same again, and this one nothing: it is not the provider's cache alone.
            (Some(_), None, Some(false)) => None,
            (Some(again), ..) => Some(self.sent_again_to_others(again, given.as_ref())),
            (None, Some(given), Some(true)) => Some(self.given_to_all(given)),
            (None, Some(given), _) => Some(self.nothing_newer_for_anybody(given, updated)),
            (None, None, _) => None,
        }
    }

    /// Where the proxy has no stream: nor has anybody else.
    pub(super) fn refused_to_newcomers(&self) -> Option<Stop> {
        let (mark, how) = Newcomers::of(self.ledger, self.p)?.unanswered()?;
        if let (Some(how), None) = (how, self.ledger.unreachable.last()) {
            let story = format!("a fresh subscription at {} was sent away: {how}", clock_time(mark.at.wall));
            let evidence = vec![mark.seq, self.wrong.seq];
            return Some(self.stop(Layer::Sent, one("stream-refused", Confidence::Likely, evidence), story));
        }
        self.nobody_is_answered(mark, how, None)
    }

    fn nobody_is_answered(&self, mark: Mark, how: Option<&str>, updated: Option<bool>) -> Option<Stop> {
        let (at, evidence) = (clock_time(mark.at.wall), vec![mark.seq, self.wrong.seq]);
        match (how, self.ledger.unreachable.last()) {
            // The proxy is answered, or says nothing; whoever is sent away may only be unknown to the provider.
            _ if updated == Some(true) => None,
            (Some(_), None) => None,
            (_, Some((_, why))) => {
                let modes = [("socket-gone", Confidence::Likely), ("stale-bind-mount", Confidence::Possible)];
                let story = format!("a fresh subscriber can't connect (at {at}): {why}");
                Some(self.stop(Layer::Sent, many(&modes, &evidence, STREAM_DECIDES), story))
            }
            (None, None) => {
                let story = format!("a fresh subscription at {at} was not answered");
                Some(self.stop(Layer::Sent, one("provider-frozen", Confidence::Likely, evidence), story))
            }
        }
    }

    fn kept_from_it(&self, given: &Given<'_>, updated: Option<bool>) -> Stop {
        let serial = given.leaf.serial.short();
        let at = clock_time(given.mark.at.wall);
        let heard = Activity::of(self.p).is_some_and(|heard| heard.connected() == Some(true) && heard.hears());
        let story = format!("whoever subscribes now is given serial {serial} (at {at}); the proxy has not got it");
        let modes: &[(&str, Confidence)] = match updated {
            Some(true) => &[("resend-stale", Confidence::Likely)],
            Some(false) => &[("issues-never-pushes", Confidence::Likely), ("stale-bind-mount", Confidence::Possible)],
            // Of which secret Envoy's own log tells, it does not say.
            None if heard => &[("resend-stale", Confidence::Possible), ("issues-never-pushes", Confidence::Possible)],
            None => &[
                ("issues-never-pushes", Confidence::Possible),
                ("resend-stale", Confidence::Possible),
                ("stale-bind-mount", Confidence::Possible),
            ],
        };
        let modes: Vec<_> = modes.iter().copied().filter(|(mode, _)| !rules_out(self.ledger, self.p, mode)).collect();
        self.stop(Layer::Sent, many(&modes, &[given.mark.seq, self.wrong.seq], STREAM_DECIDES), story)
    }

    fn sent_again_to_others(&self, again: &Again<'_>, given: Option<&Given<'_>>) -> Stop {
        let serial = again.leaf.serial.short();
        let times = again.times;
        let newcomer = match given {
            Some(given) if given.leaf.fingerprint == again.leaf.fingerprint => "; whoever comes now is given the same",
            Some(_) => "; whoever comes now is given one that is minted for it",
            None => "",
        };
        let story =
            format!("provider re-sent serial {serial} ({times} times) under new versions to one who stayed{newcomer}");
        self.cached(vec![again.mark.seq, self.wrong.seq], story)
    }

    fn given_to_all(&self, given: &Given<'_>) -> Stop {
        let story = format!(
            "Envoy accepts updates of {}, and whoever subscribes now is given the same serial {} (at {})",
            self.p.svid,
            given.leaf.serial.short(),
            clock_time(given.mark.at.wall)
        );
        self.cached(vec![given.mark.seq, self.wrong.seq], story)
    }

    /// Nothing newer is given to anybody. Whether one was minted all the same, only the issuer could say.
    fn cached(&self, evidence: Vec<u64>, story: String) -> Stop {
        let churned = self.bundle_changed();
        let cached = if churned { Confidence::Possible } else { Confidence::Likely };
        let mut modes = vec![("resend-cached", cached), ("resend-stale", Confidence::Possible)];
        modes.extend(churned.then_some(("starved-by-bundle-churn", Confidence::Possible)));
        self.stop(None, many(&modes, &evidence, ISSUER_DECIDES), story)
    }

    fn nothing_newer_for_anybody(&self, given: &Given<'_>, updated: Option<bool>) -> Stop {
        let story = format!(
            "whoever subscribes now is given the same serial {} (at {})",
            given.leaf.serial.short(),
            clock_time(given.mark.at.wall)
        );
        let (sure, hidden) = match updated {
            Some(_) => (Confidence::Likely, &[][..]),
            None => (Confidence::Possible, &[("resend-cached", Confidence::Possible)][..]),
        };
        let mut modes = vec![("never-renews", sure)];
        modes.extend(self.bundle_changed().then_some(("bundle-only", Confidence::Possible)));
        modes.extend_from_slice(hidden);
        self.stop(Layer::Issued, many(&modes, &[given.mark.seq, self.wrong.seq], STREAM_DECIDES), story)
    }

    /// Whether the authorities in config_dump were others at another look.
    fn bundle_changed(&self) -> bool {
        let mut held = HashMap::new();
        let listed = self.p.dumps.iter().flat_map(|dump| dump.secrets);
        let mut bundles = listed.filter(|s| s.state == "active" && !s.roots.is_empty());
        bundles.any(|s| held.insert(&s.name, &s.roots).is_some_and(|before| *before != s.roots))
    }

    /// Whether it came all the same, or its contexts held one later that is as new.
    fn took(&self, given: &Given<'_>) -> bool {
        let later = self.p.loads.iter().filter(|load| load.mark.seq > given.mark.seq);
        later.flat_map(|load| load.own.iter()).any(|held| held.not_before >= given.leaf.not_before)
            || came(self.p, given.leaf)
    }

    /// Whether the proxy had time to take what was there at this moment.
    fn looked_since(&self, mark: Mark) -> bool {
        let bound = u128::from(self.ledger.header.criteria.lag_bound_ms);
        self.p.loads.last().is_some_and(|load| load.mark.at.mono.saturating_sub(mark.at.mono).as_millis() > bound)
    }

    /// Whether it is what the proxy serves; without a handshake, what its contexts hold.
    fn holds(&self, leaf: &CertFacts) -> bool {
        match self.served {
            Some(row) => row.generation == leaf.fingerprint,
            None => self.p.loads.last().is_some_and(|load| load.own.iter().any(|held| is_same(held, leaf))),
        }
    }

    fn is_newer(&self, leaf: &CertFacts) -> bool {
        let held = self.p.loads.last().and_then(|load| load.own.iter().map(|held| held.not_before).max());
        let served = self.served.map(|row| row.cert.not_before).or(held);
        !self.holds(leaf) && served.is_some_and(|served| leaf.not_before > served)
    }
}
