//! The provider's side: nothing newer was minted, or it did not reach the proxy's stream.

use std::collections::{HashMap, HashSet};

use super::super::Confidence;
use super::super::evidence::{
    MINTED_FOR_ASKER, clock_time, defect, due, sent_only, signed_and_not_sent, stream_open_at,
};
use super::{Case, ISSUER_DECIDES, Stop, many, one};
use crate::timeline::ledger::{Asked, Bundle, Mark, MintedFor, Push, SECRET_TYPE_URL, StreamEnd};
use crate::timeline::{CertFacts, Fingerprint, Layer, UNREADABLE};

/// What tells a provider that does not push from one that does nothing at all.
const OUTLET_DECIDES: &str = "a fresh subscription at the provider's socket: is it answered?";

impl<'a> Case<'a> {
    /// Minted for this proxy, but not on its stream.
    pub(super) fn not_sent(&self) -> Stop {
        let evidence: Vec<u64> = self.newer.iter().map(|(_, g)| g.first.seq).take(20).chain(self.seqs()).collect();
        let after = self.served.and_then(|row| self.ledger.generations.get(&row.generation)).map_or(0, |g| g.first.seq);
        let newer: Vec<_> =
            due(self.ledger, self.p).into_iter().filter(|(row, g)| g.first.seq > after && row.sends == 0).collect();
        let minted = match newer.len() {
            1 => "a newer certificate was minted".to_owned(),
            n => format!("{n} newer certificates were minted"),
        };
        if let Some(stop) = self.stream_lost(&minted).or_else(|| self.frozen(&minted)) {
            return stop;
        }
        let sent = |mode, story| self.stop(Layer::Sent, one(mode, Confidence::Certain, evidence.clone()), story);
        if let Some((mode, how)) = self.misaddressed() {
            return sent(mode, format!("{minted}, and sent {how}"));
        }
        let repeats = self.repeats();
        if !self.p.answers_to_nothing.is_empty() {
            return self.stop(
                None,
                Vec::new(),
                format!("{minted}, and not all that was sent to the proxy was recorded"),
            );
        }
        if !newer.iter().any(|(row, _)| row.minted_for == MintedFor::Proxy) {
            return self.perhaps_for_others(&minted, repeats, &evidence);
        }
        match repeats {
            0 if self.pushes.is_empty() => {
                if let Some(stop) = self.thin() {
                    return stop;
                }
                if self.p.by_files() {
                    return sent("issues-never-pushes", format!("{minted}, none was put into place"));
                }
                let story = format!("{minted}, none was sent; the stream is open and silent");
                if self.outlet_alive(newer.last().map_or(self.wrong.seq, |(_, g)| g.first.seq)) {
                    return sent("issues-never-pushes", story);
                }
                let modes = [("issues-never-pushes", Confidence::Likely), ("provider-frozen", Confidence::Possible)];
                self.stop(Layer::Sent, many(&modes, &evidence, OUTLET_DECIDES), story)
            }
            0 => self.stop(Layer::Sent, Vec::new(), format!("{minted}, none was sent to this proxy")),
            n => sent(
                "resend-stale",
                format!("{minted}, but the provider re-sent serial {} ({n} times) under new versions", self.serial()),
            ),
        }
    }

    /// The journal says for which identity, but not for whom: a provider that mints per stream mints for fresh
    /// subscribers and for the streams of the bundle too, and never sends those.
    fn perhaps_for_others(&self, minted: &str, repeats: usize, evidence: &[u64]) -> Stop {
        let (modes, how) = match repeats {
            0 if self.pushes.is_empty() => (["issues-never-pushes", "never-renews"], "and nothing was sent".to_owned()),
            0 => {
                return self.stop(None, Vec::new(), format!("{minted} for this identity, none was sent to this proxy"));
            }
            n => (
                ["resend-stale", "resend-cached"],
                format!("and the provider re-sent serial {} ({n} times) under new versions", self.serial()),
            ),
        };
        let [likely, possible] = modes;
        let modes = [(likely, Confidence::Likely), (possible, Confidence::Possible)];
        let decides = "the issuer's own log: for which stream was the newer certificate minted?";
        self.stop(None, many(&modes, evidence, decides), format!("{minted} for this identity, {how}"))
    }

    /// What it served was sent to it once more, after a newer one: the proxy did as it was told.
    pub(super) fn gone_back(&self) -> Option<Stop> {
        let served = self.served?;
        // What took its place in the end is not looked at, where the failure is that it came so late.
        let counts = |push: &Push| push.leaf(&self.p.svid).is_some() && (!self.replaced || self.is_served(push));
        let last = self.pushes.iter().rfind(|push| push.accepted() && counts(push))?;
        if !self.is_served(last) {
            return None;
        }
        let over = self.newer.iter().rev().map(|(row, _)| *row).find(|row| {
            row.sent.first().is_some_and(|sent| sent.seq < last.mark.seq) && row.cert.not_after > served.cert.not_after
        })?;
        let story = format!(
            "provider went back to serial {} at {}, after it had sent the newer {}",
            self.serial(),
            clock_time(last.mark.at.wall),
            over.cert.serial.short()
        );
        let evidence = over.sent.first().map(|m| m.seq).into_iter().chain([last.mark.seq, self.wrong.seq]).collect();
        Some(self.stop(Layer::Sent, one("resend-stale", Confidence::Likely, evidence), story))
    }

    /// What it served was new by its serial, and expired when the one before it did.
    fn not_extended(&self) -> Option<Stop> {
        let served = self.served?;
        let before = self.predecessor(served)?;
        let (old, new) = (before.sent.first()?, served.sent.first()?);
        let expiry = served.cert.not_after;
        if expiry > before.cert.not_after || expiry > self.wrong.at.wall || old.seq > new.seq {
            return None;
        }
        let story = format!(
            "provider replaced serial {} by {}, which expires no later (at {})",
            before.cert.serial.short(),
            self.serial(),
            clock_time(expiry)
        );
        let mut stop = self.stop(Layer::Issued, Vec::new(), story);
        stop.notes.push(self.row_note(served));
        Some(stop)
    }

    /// No newer generation that is sound was ever seen.
    pub(super) fn nothing_newer(&self) -> Stop {
        let certain = self.ledger.issuer_seen;
        let since = self.served.and_then(|row| row.sent.first()).map_or(0, |m| m.seq);
        let signed = signed_and_not_sent(self.ledger, self.p, since, self.wrong.seq);
        if let Some(stop) = self.not_extended().or_else(|| self.stream_lost("no newer certificate came")) {
            return stop;
        }
        if let Some((mode, how)) = self.misaddressed() {
            let story = format!("provider sent a response {how}");
            return self.stop(Layer::Sent, one(mode, Confidence::Certain, self.seqs()), story);
        }
        // A generation that was minted unfit and never served is the issuer's fault as well.
        if let Some((row, g)) = self.newer.last()
            && let Some(d) = defect(g.cert, g.first.at.wall, self.p.spiffe_id.as_deref())
        {
            let story =
                format!("the newer certificate (serial {}) was unfit when it was minted", row.cert.serial.short());
            return self.stop(
                Layer::Issued,
                one(d.mode(), Confidence::Likely, vec![g.first.seq, self.wrong.seq]),
                story,
            );
        }
        if let Some(stop) = self.frozen("no newer certificate came").or_else(|| self.thin()) {
            return stop;
        }
        if let Some(first) = self.p.answers_to_nothing.first() {
            let story = format!(
                "no newer certificate was seen on the stream, but the proxy answered {} responses that nobody recorded, \
                 first at {}",
                self.p.answers_to_nothing.len(),
                clock_time(first.at.wall)
            );
            return self.stop(None, Vec::new(), story);
        }
        if let Some((mark, line)) = self.broken_response() {
            let story = format!("no newer certificate came whole: at {} on {line}", clock_time(mark.at.wall));
            return self.stop(Layer::Sent, Vec::new(), story);
        }
        if !signed.is_empty() {
            let minted = match signed.len() {
                1 => "a newer certificate was signed".to_owned(),
                n => format!("{n} newer certificates were signed"),
            };
            let evidence: Vec<u64> = signed.iter().map(|mark| mark.seq).take(20).chain(self.seqs()).collect();
            return self.perhaps_for_others(&minted, self.repeats(), &evidence);
        }
        if let Some((mark, leaf)) = self.withheld().filter(|_| !certain) {
            let mode = if self.repeats() > 0 { "resend-stale" } else { "issues-never-pushes" };
            let story = format!(
                "a fresh subscriber got serial {} at {}, minted at {} or before; the proxy was not sent it",
                leaf.serial.short(),
                clock_time(mark.at.wall),
                clock_time(leaf.not_before)
            );
            let evidence = [self.seqs(), vec![mark.seq]].concat();
            return self.stop(Layer::Sent, one(mode, Confidence::Likely, evidence), story);
        }
        let bundles = self.bundle_pushes(true);
        let churn = self.bundle_churn(&bundles);
        let repeats = self.repeats();
        let mut modes: Vec<(&str, Confidence)> = Vec::new();
        let story;
        let sure = if certain { Confidence::Certain } else { Confidence::Likely };
        if repeats > 0 {
            story = format!("provider re-sent serial {} ({repeats} times) under new versions", self.serial());
            if churn {
                modes.push(("starved-by-bundle-churn", Confidence::Likely));
                if !certain {
                    modes.push(("resend-cached", Confidence::Possible));
                }
            } else if self.bundle_churn(&self.bundle_pushes(false)) {
                // A bundle that is sent again may reset the timer as well as a new one does.
                modes.push(("resend-cached", Confidence::Likely));
                modes.push(("starved-by-bundle-churn", Confidence::Possible));
            } else {
                modes.push(("resend-cached", sure));
            }
            if !certain {
                modes.push(("resend-stale", Confidence::Possible));
            }
        } else if !self.pushes.iter().all(|push| self.is_served(push)) {
            return self.stop(
                None,
                Vec::new(),
                format!("{} responses came for {}, none with a newer certificate", self.pushes.len(), self.p.svid),
            );
        } else if !bundles.is_empty() {
            story = format!("provider sent {} new trust bundles, but no newer certificate", bundles.len());
            modes.push(("bundle-only", sure));
            if churn {
                modes.push(("starved-by-bundle-churn", Confidence::Possible));
            }
            if !certain {
                modes.push(("issues-never-pushes", Confidence::Possible));
            }
        } else if certain {
            let again = if self.pushes.is_empty() { "sent nothing" } else { "sent the old one to a new stream" };
            story = format!("provider minted no newer certificate and {again}");
            modes.push(("never-renews", Confidence::Certain));
        } else if let Some(late) = self.came_late() {
            story = late;
            // Renewals that were left out, held back, or always come too late.
            modes.extend(["thin-margin", "never-renews", "issues-never-pushes"].map(|m| (m, Confidence::Possible)));
        } else {
            story = "nothing newer was sent on an open stream".to_owned();
            modes.push(("never-renews", Confidence::Possible));
            modes.push(("issues-never-pushes", Confidence::Possible));
            if !self.outlet_alive(self.wrong.seq) {
                modes.push(("provider-frozen", Confidence::Possible));
            }
        }
        let evidence: Vec<u64> = bundles.iter().map(|push| push.mark.seq).take(10).chain(self.seqs()).collect();
        self.stop(certain.then_some(Layer::Issued), many(&modes, &evidence, ISSUER_DECIDES), story)
    }

    /// A newer one came by itself, before anything expired, but later than the floor allows.
    pub(super) fn thin(&self) -> Option<Stop> {
        let (row, came) = self.successor()?;
        let left = self.served?.cert.not_after.duration_since(came.at.wall);
        let floor = i128::from(self.ledger.header.criteria.margin_floor());
        if !left.is_positive() || left.as_millis() >= floor {
            return None;
        }
        let story = sent_only(row.cert, left);
        let evidence = vec![came.seq, self.wrong.seq];
        // Minted in time and held back: then it also looks like one that was not pushed.
        let held_back = row.issued.first().is_some_and(|minted| minted.seq < self.wrong.seq);
        let modes = [("thin-margin", Confidence::Certain), ("issues-never-pushes", Confidence::Possible)];
        let modes = if held_back { &modes[..] } else { &modes[..1] };
        Some(self.stop(Layer::Sent, many(modes, &evidence, "whether later renewals come as late"), story))
    }

    /// A newer one came on the very stream that was silent, when the old one had expired.
    fn came_late(&self) -> Option<String> {
        let (row, came) = self.successor()?;
        let push = self.p.pushes_of(&self.p.svid).find(|push| push.mark.seq == came.seq)?;
        let same = self.p.certificate_streams().any(|s| s.number == push.stream && s.opened.seq < self.wrong.seq);
        let left = self.served?.cert.not_after.duration_since(came.at.wall);
        (same && !left.is_positive()).then(|| sent_only(row.cert, left))
    }

    /// Whether whatever serves the socket did anything after this observation: then it only did not push.
    fn outlet_alive(&self, since: u64) -> bool {
        let answered = self.ledger.witness.iter().any(|asked| asked.answered.is_some_and(|m| m.seq > since));
        answered || self.ledger.proxies.iter().flat_map(|p| &p.pushes).any(|push| push.mark.seq > since)
    }

    /// What a fresh subscriber got last, if that is newer than what the proxy serves and was not minted for the asking:
    /// then it exists, and was kept from the proxy.
    fn withheld(&self) -> Option<(Mark, &'a CertFacts)> {
        let served = &self.served?.cert;
        let (asked, leaf) = self.ledger.witness.iter().rev().find_map(|a| Some((a, a.leaf.as_ref()?)))?;
        let age = |leaf: &CertFacts, at: Mark| at.at.wall.duration_since(leaf.not_before).as_secs();
        // Some providers date certificates back; what was sent to proxies tells by how much.
        let rows = self.ledger.proxies.iter().flat_map(|p| &p.rows);
        let dated_back = rows.filter_map(|row| Some(age(row.cert, *row.sent.first()?))).min().unwrap_or(i64::MAX);
        let for_asker = i64::try_from(MINTED_FOR_ASKER.as_secs()).unwrap_or(i64::MAX);
        let minted_before = age(leaf, asked.mark) > dated_back.saturating_add(for_asker);
        let newer = leaf.fingerprint != served.fingerprint && leaf.not_before > served.not_before;
        let own = self.p.spiffe_id.as_ref().is_none_or(|id| leaf.uris.contains(id));
        (minted_before && newer && own).then_some((asked.answered?, leaf))
    }

    /// Who asked anew got no answer either.
    fn frozen(&self, what: &str) -> Option<Stop> {
        let bound = u128::from(self.ledger.header.criteria.lag_bound_ms);
        let end = self.ledger.collecting.or(self.ledger.end)?;
        let since_then = |from: Mark, to: Mark| to.at.mono.saturating_sub(from.at.mono).as_millis();
        let waited = |from: Mark| since_then(from, end);
        let since = self.served.and_then(|row| row.sent.first()).map_or(0, |m| m.seq);
        let asked = self.ledger.witness.iter().filter(|a| a.mark.seq > since);
        // Who was turned away was answered, in a way.
        let turned_away = |a: &&Asked| a.ended.is_some_and(|(end, _)| since_then(a.mark, end) <= bound);
        let unheard = asked.rev().find(|a| a.answered.is_none() && waited(a.mark) > bound && !turned_away(a))?;
        let answered_later = self.ledger.witness.iter().any(|a| a.answered.is_some_and(|m| m.seq > unheard.mark.seq));
        let story = format!(
            "{what}; a fresh subscription at {} was not answered within {} ms",
            clock_time(unheard.mark.at.wall),
            waited(unheard.mark)
        );
        let evidence = vec![unheard.mark.seq, self.wrong.seq];
        let sure = if answered_later { Confidence::Likely } else { Confidence::Certain };
        Some(self.stop(Layer::Sent, one("provider-frozen", sure, evidence), story))
    }

    /// The stream for the certificate was not open when the failure showed.
    pub(super) fn stream_lost(&self, what: &str) -> Option<Stop> {
        let of_svid: Vec<_> = self.p.certificate_streams().collect();
        let ended =
            |s: &&&crate::timeline::ledger::Stream| s.end.as_ref().is_some_and(|e| e.mark.seq <= self.wrong.seq);
        let last = of_svid.iter().filter(ended).filter_map(|s| s.end.as_ref()).max_by_key(|e| e.mark.seq)?;
        if stream_open_at(self.ledger, self.p, self.wrong.seq).is_some() {
            return None;
        }
        let ends = of_svid.iter().filter(ended).count();
        let evidence = vec![last.mark.seq, self.wrong.seq];
        let at = clock_time(last.mark.at.wall);
        if last.by == "proxy" {
            let unreadable =
                self.p.remarks.iter().rfind(|(m, line)| m.seq <= last.mark.seq && line.contains(UNREADABLE));
            let story = match unreadable {
                Some((mark, _)) => format!(
                    "{what}: the provider sent something at {} that is no SDS response, and the proxy ended the stream",
                    clock_time(mark.at.wall)
                ),
                None => format!("{what}, and the proxy itself ended the stream at {at} ({})", last.status),
            };
            return Some(self.stop(Layer::Sent, Vec::new(), story));
        }
        let (modes, story) = self.why_lost(what, last, ends, &at);
        Some(self.stop(
            Layer::Sent,
            many(
                &modes,
                &evidence,
                "the proxy's upstream_cx_connect_fail for the provider's cluster: climbing means that nothing listens",
            ),
            story,
        ))
    }

    /// Attempts that end at once are refusals; silence after the end means that no attempt arrives.
    fn why_lost(
        &self,
        what: &str,
        last: &StreamEnd,
        ends: usize,
        at: &str,
    ) -> (Vec<(&'static str, Confidence)>, String) {
        if ends > 2 {
            let story =
                format!("{what}, and the provider ended the stream {ends} times (last at {at}: {})", last.status);
            return (vec![("stream-refused", Confidence::Likely)], story);
        }
        let story = format!("{what}, and the stream, ended at {at} ({}), was not opened again", last.status);
        let failed = |until| self.p.risen(until, |n| n.contains("sds") && n.ends_with("upstream_cx_connect_fail"));
        let climbed = failed(u64::MAX).and_then(|all| Some(all > failed(last.mark.seq)?));
        // What a fresh subscriber finds is what there is: no mount of the proxy's own stands between.
        let nobody = self.ledger.unreachable.iter().any(|(at, _)| at.seq > last.mark.seq);
        let other =
            self.p.sockets.iter().rev().find(|s| s.mark.seq > last.mark.seq).map(|s| (s, s.inside != s.outside));
        if let Some((seen, true)) = other {
            let name = |inode: &Option<String>| inode.clone().unwrap_or_else(|| "nothing".to_owned());
            let story = format!(
                "{story}: its mount shows another socket ({}) than the provider's ({})",
                name(&seen.inside),
                name(&seen.outside)
            );
            // Without a socket of the provider's there is nothing to be mounted anew.
            return match seen.outside {
                Some(_) => (vec![("stale-bind-mount", Confidence::Certain)], story),
                None => (vec![("socket-gone", Confidence::Likely)], story),
            };
        }
        // Envoy's own next attempt may come after the end of the recording: it waits longer each time.
        let modes = match climbed {
            _ if nobody => vec![("socket-gone", Confidence::Likely)],
            Some(true) if other.is_some() => vec![("socket-gone", Confidence::Likely)],
            Some(true) => vec![("socket-gone", Confidence::Likely), ("stale-bind-mount", Confidence::Possible)],
            Some(false) => vec![("stream-refused", Confidence::Possible)],
            None => vec![("socket-gone", Confidence::Possible), ("stream-refused", Confidence::Possible)],
        };
        (modes, story)
    }

    /// Responses on the right stream that delivered nothing under the subscribed name.
    pub(super) fn misaddressed(&self) -> Option<(&'static str, String)> {
        let push = self.pushes.iter().rev().find(|push| push.delivered(&self.p.svid).is_none())?;
        if push.type_url != SECRET_TYPE_URL {
            return Some(("wrong-type-url", format!("with the type {}", push.type_url)));
        }
        match push.secrets.iter().find(|s| !push.asked_for(&s.name)).or(push.secrets.first()) {
            None => Some(("empty-response", "without any secret in it".to_owned())),
            Some(other) => Some(("wrong-name", format!("under the name {}, not {}", other.name, self.p.svid))),
        }
    }

    /// What came on the stream after what is served, and was no message. What was merely not looked into is none of it.
    fn broken_response(&self) -> Option<&'a (Mark, String)> {
        let since = self.served.and_then(|row| row.sent.first()).map_or(0, |m| m.seq);
        self.p.remarks.iter().rev().find(|(mark, line)| mark.seq > since && !line.contains("not looked into"))
    }

    /// Whether it delivered what is served.
    fn is_served(&self, push: &Push) -> bool {
        let served = self.served.map(|row| &row.generation);
        push.leaf(&self.p.svid).is_some_and(|leaf| Some(&leaf.fingerprint) == served)
    }

    /// How often what is served was sent again, in the whole recording, on a stream that had it already: a stream that
    /// was opened anew is rightly sent what there is.
    pub(super) fn repeats(&self) -> usize {
        if !self.pushes.iter().any(|push| self.is_served(push)) {
            return 0;
        }
        let mut has: HashSet<u64> = HashSet::new();
        self.p.pushes_of(&self.p.svid).filter(|push| self.is_served(push) && !has.insert(push.stream)).count()
    }

    /// Responses with a bundle (that differs from the one before), while what is served was the newest.
    fn bundle_pushes(&self, changed_only: bool) -> Vec<&'a Push<'a>> {
        let from = self.served.and_then(|r| r.sent.first()).map_or(0, |m| m.seq);
        let until = self.successor().map_or(u64::MAX, |(_, came)| came.seq);
        let mut held: HashMap<&str, &Fingerprint> = HashMap::new();
        let mut changed: Vec<&Push> = Vec::new();
        for (push, Bundle { name, digest, .. }) in self.p.bundles() {
            let other = held.insert(name, digest).is_some_and(|before| before != digest || !changed_only);
            let again = changed.last().is_some_and(|last| last.mark.seq == push.mark.seq);
            if other && !again && push.mark.seq > from && push.mark.seq < until {
                changed.push(push);
            }
        }
        changed
    }

    /// New bundles came more often than renewals are due: where they reset the timer, no renewal ever comes.
    fn bundle_churn(&self, bundles: &[&Push]) -> bool {
        let Some(every) = self.ledger.header.criteria.interval() else {
            return false;
        };
        let apart = |w: &[&Push]| w[1].mark.at.wall.duration_since(w[0].mark.at.wall).as_secs();
        bundles.len() > 2 && bundles.windows(2).all(|w| apart(w).saturating_mul(10) < every.saturating_mul(9))
    }
}
