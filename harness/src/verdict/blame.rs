//! The layer at which a proxy's new certificate stopped, and the modes that leave this evidence.

use super::evidence::{Defect, clock_time, defect, delivered_by_provider, due, pushes_between, span};
use super::{Candidate, CheckResult, Confidence, Finding};
use crate::timeline::ledger::{Entry, Generation, Mark, ProxyLedger, Push, Row};
use crate::timeline::{Layer, Ledger, Payload, SecretName, TlsRole};

/// Where a new certificate or bundle stopped on its way to one proxy.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) proxy: crate::timeline::ProxyId,
    /// Absent where the evidence leaves it open.
    pub(super) layer: Option<Layer>,
    /// Every mode that fits; none for a pattern that is not known.
    pub(super) candidates: Vec<Candidate>,
    /// What happened, in a sentence that follows the layer's name.
    pub(super) story: String,
    /// Further findings that the blame rests on.
    pub(super) notes: Vec<Finding>,
}

/// What decides between minting and sending, when nobody saw the minting.
const ISSUER_DECIDES: &str = "the issuer's own log: did it mint a newer certificate for this identity?";
const STREAM_DECIDES: &str =
    "what is on the SDS stream: a tap in front of the provider, or Envoy's `config` logger at debug";

struct Case<'a> {
    ledger: &'a Ledger,
    p: &'a ProxyLedger,
    /// What it served when it went wrong.
    served: Option<&'a Row>,
    /// First observation of the failure.
    wrong: Mark,
    /// Responses for its certificate between the delivery of what it served and the failure.
    pushes: Vec<&'a Push>,
    /// Generations meant for it that came after what it served.
    newer: Vec<(&'a Row, &'a Generation)>,
}

/// Follows the proxy's own certificate, if one of the violated checks is about it.
pub(super) fn own_certificate(ledger: &Ledger, p: &ProxyLedger, violated: &[&Finding]) -> Option<Stop> {
    let about = |f: &&&Finding| f.secret.as_ref() == Some(&p.svid);
    if let Some(f) = violated.iter().find(|f| f.check == "secrets_arrived") {
        return Some(never_arrived(p, f));
    }
    let first = violated.iter().filter(about).filter_map(|f| f.evidence.last()).min().copied()?;
    let wrong = failure_moment(p, violated, first)?;
    let case = Case::new(ledger, p, wrong);
    Some(case.follow())
}

/// The handshake (or look, or answer) at which the failure shows first.
fn failure_moment(p: &ProxyLedger, violated: &[&Finding], fallback: u64) -> Option<Mark> {
    let seqs = violated.iter().filter(|f| f.secret.as_ref() == Some(&p.svid)).map(|f| {
        // These name the beginning of the wait first, and the sight of the failure last.
        let sight =
            matches!(f.check.as_str(), "renewal_overdue" | "lag_bound" | "renewed_past_first_expiry" | "accepted");
        if sight { f.evidence.last() } else { f.evidence.first() }.copied().unwrap_or(fallback)
    });
    let seq = seqs.min().unwrap_or(fallback);
    let marks = p.served.iter().map(|s| s.mark);
    let marks = marks.chain(p.loads.iter().map(|l| l.mark));
    let marks = marks.chain(p.pushes.iter().filter_map(|push| push.refusal().map(|(m, _)| *m)));
    marks.filter(|m| m.seq >= seq).min_by_key(|m| m.seq)
}

impl<'a> Case<'a> {
    fn new(ledger: &'a Ledger, p: &'a ProxyLedger, wrong: Mark) -> Self {
        // What it served at the failure, or last before it.
        let shown = p.full_handshakes(TlsRole::Inbound).chain(p.full_handshakes(TlsRole::Outbound));
        let at = shown.filter(|(s, _)| s.mark.seq <= wrong.seq).max_by_key(|(s, _)| s.mark.seq);
        let served = at.and_then(|(_, leaf)| p.row(&leaf.fingerprint));
        // The samples of one step are one look: answers and pushes of that step belong to the failure too.
        let from = served.and_then(|row| row.sent.first().or(row.issued.first())).map_or(0, |m| m.seq);
        let first_seen = served.and_then(|row| ledger.generations.get(&row.generation)).map(|g| g.first.seq);
        let newer = due(ledger, p)
            .into_iter()
            .filter(|(row, g)| {
                Some(g.first.seq) > first_seen
                    && g.first.seq < wrong.seq
                    && served.is_none_or(|s| s.generation != row.generation)
            })
            .collect();
        Self { ledger, p, served, wrong, pushes: pushes_between(p, from, wrong.seq + 1), newer }
    }

    fn follow(self) -> Stop {
        if let Some(stop) = self.strange() {
            return stop;
        }
        if let Some(stop) = self.defective() {
            return stop;
        }
        if let Some(stop) = self.refused() {
            return stop;
        }
        let identity = self.p.spiffe_id.as_deref();
        let sound: Vec<_> =
            self.newer.iter().filter(|(_, g)| defect(&g.cert, g.first.at.wall, identity).is_none()).collect();
        match sound.last() {
            Some(_) if !sound.iter().any(|(row, _)| row.sends > 0) => self.not_sent(),
            Some(_) => {
                let (row, _) =
                    sound.iter().rev().find(|(row, _)| row.sends > 0).expect("one was sent, by the arm above");
                self.after_sent(row)
            }
            None if !self.ledger.streams_seen && !self.ledger.issuer_seen => self.from_outside(),
            None => self.nothing_newer(),
        }
    }

    fn stop(&self, layer: impl Into<Option<Layer>>, candidates: Vec<Candidate>, story: String) -> Stop {
        Stop { proxy: self.p.id.clone(), layer: layer.into(), candidates, story, notes: Vec::new() }
    }

    fn seqs(&self) -> Vec<u64> {
        self.pushes.iter().map(|push| push.mark.seq).take(20).chain([self.wrong.seq]).collect()
    }

    /// What it served was neither minted nor sent by this provider.
    fn strange(&self) -> Option<Stop> {
        let row = self.served?;
        if row.sends > 0 || !self.ledger.streams_seen || row.issued.first().is_some() {
            return None;
        }
        let serial = row.cert.serial.short();
        if !self.p.streams.iter().any(|s| s.asked_for(self.p.svid.as_str())) {
            let story =
                format!("proxy serves serial {serial}, which this provider did not mint, and has no stream to it");
            return Some(self.stop(
                Layer::Issued,
                one("agent-owns-socket", Confidence::Likely, vec![self.wrong.seq]),
                story,
            ));
        }
        let story = format!("a full handshake shows serial {serial}, which was never sent to the proxy");
        let mut stop = self.stop(Layer::Served, Vec::new(), story);
        stop.notes.push(self.row_note(row));
        Some(stop)
    }

    /// What it served was unfit from the beginning.
    fn defective(&self) -> Option<Stop> {
        let row = self.served?;
        let from = delivered_by_provider(self.ledger, self.p, row)?;
        let cert = &row.cert;
        let serial = cert.serial.short();
        let (mode, story) = match defect(cert, from.at.wall, self.p.spiffe_id.as_deref())? {
            Defect::Expired => (
                "expired-on-arrival",
                format!(
                    "provider sent serial {serial} at {}, when it had been expired since {}; the proxy serves it",
                    clock_time(from.at.wall),
                    clock_time(cert.not_after)
                ),
            ),
            Defect::NotYetValid => (
                "not-yet-valid",
                format!(
                    "provider sent serial {serial} at {}, {} before it becomes valid; the proxy serves it",
                    clock_time(from.at.wall),
                    span(cert.not_before.duration_since(from.at.wall).as_secs())
                ),
            ),
            Defect::WrongIdentity => (
                "wrong-identity",
                format!(
                    "provider sent serial {serial} with the identity {}; the proxy's is {}",
                    cert.uris.first().map_or("(none)", String::as_str),
                    self.p.spiffe_id.as_deref().unwrap_or("unknown")
                ),
            ),
        };
        Some(self.stop(Layer::Issued, one(mode, Confidence::Certain, vec![from.seq, self.wrong.seq]), story))
    }

    /// The proxy refused what came, before it failed or at that moment.
    fn refused(&self) -> Option<Stop> {
        let refusals: Vec<_> = self.pushes.iter().filter_map(|push| Some((*push, push.refusal()?))).collect();
        let (push, (mark, text)) = refusals.first()?;
        let evidence = vec![push.mark.seq, mark.seq, self.wrong.seq];
        let delivered = push.delivered(&self.p.svid);
        if let Some(Payload::Bundle { .. } | Payload::Other { .. }) = delivered {
            let story = format!(
                "provider sent something that is no certificate under the name {}; the proxy refused it: {text}",
                self.p.svid
            );
            return Some(self.stop(Layer::Sent, one("wrong-secret-kind", Confidence::Certain, evidence), story));
        }
        // All of them, also after the first sight of the failure: how often it was tried is worth knowing.
        let times = match self.p.pushes_of(&self.p.svid).filter(|push| push.refusal().is_some()).count() {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let serial =
            push.leaf(&self.p.svid).map_or_else(String::new, |leaf| format!(" serial {}", leaf.serial.short()));
        let story = format!("proxy refused{serial} {times}, first at {}: {text}", clock_time(mark.at.wall));
        let mut candidates = refusal_modes(delivered, text, &evidence);
        // The refused bytes sent again are accepted, and change nothing.
        let digest = |push: &Push| match push.delivered(&self.p.svid) {
            Some(Payload::Certificate { digest, .. }) => Some(digest.clone()),
            _ => None,
        };
        let again =
            self.p.pushes_of(&self.p.svid).find(|x| x.mark.seq > mark.seq && x.accepted() && digest(x) == digest(push));
        if let (Some(again), true) = (again, digest(push).is_some()) {
            candidates =
                one("nack-then-same-bytes", Confidence::Certain, [evidence.clone(), vec![again.mark.seq]].concat());
        }
        let mut stop = self.stop(Layer::Acked, candidates, story);
        let took = self.newer.iter().find_map(|(row, _)| match row.loaded {
            Entry::Reached { count, of, first, .. }
                if row.acked == (Entry::Rejected { at: *(*mark), text: (*text).to_owned() }) =>
            {
                Some((count, of, first, row))
            }
            _ => None,
        });
        if let Some((count, of, first, row)) = took {
            stop.notes.push(Finding {
                check: "partial".to_owned(),
                result: CheckResult::Violated,
                proxy: Some(self.p.id.clone()),
                secret: Some(self.p.svid.clone()),
                message: format!(
                    "{}: {count} of {of} TLS contexts took serial {} although the proxy refused it",
                    self.p.id,
                    row.cert.serial.short()
                ),
                evidence: vec![mark.seq, first.seq],
            });
            stop.candidates = one("partial-subscribers", Confidence::Likely, vec![mark.seq, first.seq]);
        }
        Some(stop)
    }

    /// Minted for this proxy, but not on its stream.
    fn not_sent(&self) -> Stop {
        let evidence: Vec<u64> = self.newer.iter().map(|(_, g)| g.first.seq).take(20).chain(self.seqs()).collect();
        let after = self.served.map_or(0, |row| self.ledger.generations[&row.generation].first.seq);
        let newer = due(self.ledger, self.p).into_iter().filter(|(row, g)| g.first.seq > after && row.sends == 0);
        let minted = match newer.count() {
            1 => "a newer certificate was minted".to_owned(),
            n => format!("{n} newer certificates were minted"),
        };
        if let Some(stop) = self.stream_lost(&minted) {
            return stop;
        }
        let sent = |mode, story| self.stop(Layer::Sent, one(mode, Confidence::Certain, evidence.clone()), story);
        if let Some((mode, how)) = self.misaddressed() {
            return sent(mode, format!("{minted}, and sent {how}"));
        }
        match self.repeats() {
            0 if self.pushes.is_empty() => {
                sent("issues-never-pushes", format!("{minted}, none was sent; the stream is open and silent"))
            }
            0 => self.stop(Layer::Sent, Vec::new(), format!("{minted}, none was sent to this proxy")),
            n => sent(
                "resend-stale",
                format!("{minted}, but the provider re-sent serial {} ({n} times) under new versions", self.serial()),
            ),
        }
    }

    /// No newer generation that is sound was ever seen.
    fn nothing_newer(&self) -> Stop {
        let certain = self.ledger.issuer_seen;
        if let Some(stop) = self.stream_lost("no newer certificate came") {
            return stop;
        }
        if let Some((mode, how)) = self.misaddressed() {
            let story = format!("provider sent a response {how}");
            return self.stop(Layer::Sent, one(mode, Confidence::Certain, self.seqs()), story);
        }
        // A generation that was minted unfit and never served is the issuer's fault as well.
        if let Some((row, g)) = self.newer.last()
            && let Some(d) = defect(&g.cert, g.first.at.wall, self.p.spiffe_id.as_deref())
        {
            let mode = match d {
                Defect::Expired => "expired-on-arrival",
                Defect::NotYetValid => "not-yet-valid",
                Defect::WrongIdentity => "wrong-identity",
            };
            let story =
                format!("the newer certificate (serial {}) was unfit when it was minted", row.cert.serial.short());
            return self.stop(Layer::Issued, one(mode, Confidence::Likely, vec![g.first.seq, self.wrong.seq]), story);
        }
        let bundles = self.bundle_pushes();
        let churn = self.bundle_churn(&bundles);
        let repeats = self.repeats();
        let mut modes: Vec<(&str, Confidence)> = Vec::new();
        let story;
        if repeats > 0 {
            story = format!("provider re-sent serial {} ({repeats} times) under new versions", self.serial());
            if churn {
                modes.push(("starved-by-bundle-churn", Confidence::Likely));
                if !certain {
                    modes.push(("resend-cached", Confidence::Possible));
                }
            } else {
                modes.push(("resend-cached", if certain { Confidence::Certain } else { Confidence::Likely }));
            }
            if !certain {
                modes.push(("resend-stale", Confidence::Possible));
            }
        } else if !self.pushes.is_empty() {
            return self.stop(
                None,
                Vec::new(),
                format!("{} responses came for {}, none with a newer certificate", self.pushes.len(), self.p.svid),
            );
        } else if !bundles.is_empty() {
            story = format!("provider sent {} new trust bundles, but no newer certificate", bundles.len());
            modes.push(("bundle-only", if certain { Confidence::Certain } else { Confidence::Likely }));
            if churn {
                modes.push(("starved-by-bundle-churn", Confidence::Possible));
            }
            if !certain {
                modes.push(("issues-never-pushes", Confidence::Possible));
            }
        } else if certain {
            story = "provider minted no newer certificate and sent nothing".to_owned();
            modes.push(("never-renews", Confidence::Certain));
        } else {
            story = "nothing was sent on an open stream".to_owned();
            modes.push(("never-renews", Confidence::Possible));
            modes.push(("issues-never-pushes", Confidence::Possible));
            modes.push(("provider-frozen", Confidence::Possible));
        }
        let evidence: Vec<u64> = bundles.iter().map(|push| push.mark.seq).take(10).chain(self.seqs()).collect();
        self.stop(certain.then_some(Layer::Issued), many(&modes, &evidence, ISSUER_DECIDES), story)
    }

    /// Nobody saw the stream: only what Envoy shows of itself.
    fn from_outside(&self) -> Stop {
        let name = self.p.svid.as_str();
        let moved = |suffix: &str| {
            let stat = format!("sds.{name}.{suffix}");
            let end = format!(".{stat}");
            self.p.counter(|n| n == stat || n.ends_with(&end)).map(|(first, last)| last.saturating_sub(first))
        };
        let connected = self.p.stats.last().and_then(|s| {
            let stat = format!("sds.{name}.control_plane.connected_state");
            s.values.iter().find(|(n, _)| **n == stat || n.ends_with(&format!(".{stat}"))).map(|(_, v)| *v)
        });
        let newer_in_dump = self.p.dumps.last().and_then(|d| {
            let leaf = d.active(&self.p.svid)?.chain.first()?.clone();
            (Some(&leaf.fingerprint) != self.served.map(|row| &row.generation)).then_some(leaf)
        });
        let evidence: Vec<u64> = self.p.stats.last().map(|s| s.mark.seq).into_iter().chain([self.wrong.seq]).collect();
        if let Some(n @ 1..) = moved("update_rejected") {
            let story = format!("Envoy counts {n} refused updates of {name} (update_rejected)");
            let modes =
                ["nack-key-mismatch", "nack-bad-pem", "nack-chain-one-block"].map(|m| (m, Confidence::Possible));
            return self.stop(Layer::Acked, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        if let Some(leaf) = newer_in_dump {
            let story = format!("config_dump holds serial {}, which no handshake shows", leaf.serial.short());
            let modes =
                ["nack-key-mismatch", "nack-bad-pem", "nack-then-same-bytes"].map(|m| (m, Confidence::Possible));
            return self.stop(Layer::Acked, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        if connected == Some(0) {
            let modes = [("stream-refused", Confidence::Possible), ("socket-gone", Confidence::Possible)];
            let story = "Envoy has no stream for it (connected_state is 0)".to_owned();
            return self.stop(Layer::Sent, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        let versions: std::collections::BTreeSet<_> =
            self.p.dumps.iter().filter_map(|d| d.active(&self.p.svid)).map(|s| &s.version_info).collect();
        let updated = moved("update_success").is_some_and(|n| n > 0) || versions.len() > 1;
        let resends = [("resend-cached", Confidence::Possible), ("resend-stale", Confidence::Possible)];
        if updated {
            let story = format!("Envoy accepts updates of {name}, and the certificate stays the same");
            return self.stop(None, many(&resends, &evidence, ISSUER_DECIDES), story);
        }
        let mut modes: Vec<_> = [
            "never-renews",
            "issues-never-pushes",
            "provider-frozen",
            "wrong-name",
            "empty-response",
            "wrong-type-url",
        ]
        .map(|m| (m, Confidence::Possible))
        .to_vec();
        // Hidden counters are not zero.
        if moved("update_success").is_none() {
            modes.extend(resends);
            modes.extend([("stream-refused", Confidence::Possible), ("socket-gone", Confidence::Possible)]);
        }
        self.stop(None, many(&modes, &evidence, STREAM_DECIDES), "Envoy shows no sign of an update".to_owned())
    }

    /// It was sent: did the proxy answer, load and serve it?
    fn after_sent(&self, row: &Row) -> Stop {
        let serial = row.cert.serial.short();
        let evidence: Vec<u64> = row.sent.first().map(|m| m.seq).into_iter().chain([self.wrong.seq]).collect();
        let unknown = |layer: Option<Layer>, story: String| {
            let mut stop = self.stop(layer, Vec::new(), story);
            stop.notes.push(self.row_note(row));
            stop
        };
        match &row.acked {
            Entry::Rejected { text, .. } => {
                // Refused before what is served now was delivered, so not among the responses looked at above.
                let candidates = refusal_modes(None, text, &evidence);
                return self.stop(Layer::Acked, candidates, format!("proxy refused serial {serial}: {text}"));
            }
            Entry::NotReached => {
                return unknown(Some(Layer::Acked), format!("serial {serial} was sent, and the proxy never answered"));
            }
            Entry::Reached { .. } | Entry::Unseen { .. } => {}
        }
        match &row.loaded {
            Entry::Reached { all: None, count, of, .. } => unknown(
                Some(Layer::Loaded),
                format!("serial {serial} was accepted, but only {count} of {of} TLS contexts hold it"),
            ),
            Entry::NotReached => {
                unknown(Some(Layer::Loaded), format!("serial {serial} was accepted, but no TLS context holds it"))
            }
            Entry::Unseen { why } => unknown(None, format!("serial {serial} was accepted, and is not served ({why})")),
            _ => match &row.inbound {
                Entry::Reached { .. } if row.outbound.complete() => self.late(row),
                _ => unknown(
                    Some(Layer::Served),
                    format!("serial {serial} is loaded, but full handshakes do not show it"),
                ),
            },
        }
    }

    /// It came all the way, but too late.
    fn late(&self, row: &Row) -> Stop {
        let sent = row.sent.first().copied();
        let left = |m: Mark| self.served.map(|old| old.cert.not_after.duration_since(m.at.wall).as_secs());
        let floor = i64::try_from(self.ledger.header.criteria.margin_floor_s).unwrap_or(i64::MAX);
        match sent.and_then(|m| Some((m, left(m)?))) {
            Some((mark, left)) if left < floor => {
                let how = if left > 0 { format!("{} before", span(left)) } else { format!("{} after", span(left)) };
                let story =
                    format!("serial {} was sent only {how} the expiry of the old certificate", row.cert.serial.short());
                self.stop(Layer::Sent, one("thin-margin", Confidence::Certain, vec![mark.seq, self.wrong.seq]), story)
            }
            _ => {
                let mut stop =
                    self.stop(Layer::Served, Vec::new(), format!("serial {} was served late", row.cert.serial.short()));
                stop.notes.push(self.row_note(row));
                stop
            }
        }
    }

    /// The stream for the certificate was not open when the failure showed.
    fn stream_lost(&self, what: &str) -> Option<Stop> {
        let of_svid: Vec<_> = self.p.streams.iter().filter(|s| s.asked_for(self.p.svid.as_str())).collect();
        let open = |s: &&&crate::timeline::ledger::Stream| {
            s.opened.seq < self.wrong.seq && s.end.as_ref().is_none_or(|e| e.mark.seq > self.wrong.seq)
        };
        let last = of_svid.iter().filter_map(|s| s.end.as_ref()).filter(|e| e.mark.seq < self.wrong.seq).next_back()?;
        if of_svid.iter().any(|s| open(&s)) {
            return None;
        }
        let ended = of_svid.iter().filter(|s| s.end.as_ref().is_some_and(|e| e.mark.seq < self.wrong.seq)).count();
        let evidence = vec![last.mark.seq, self.wrong.seq];
        let at = clock_time(last.mark.at.wall);
        // Attempts that end at once are refusals; silence after the end means that no attempt arrives.
        let (modes, story): (Vec<_>, _) = if ended > 2 {
            (
                vec![("stream-refused", Confidence::Likely)],
                format!("{what}, and the provider ended the stream {ended} times (last at {at}: {})", last.status),
            )
        } else {
            (
                vec![("socket-gone", Confidence::Possible), ("stream-refused", Confidence::Possible)],
                format!("{what}, and the stream, ended at {at} ({}), was not opened again", last.status),
            )
        };
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

    /// Responses on the right stream that delivered nothing under the subscribed name.
    fn misaddressed(&self) -> Option<(&'static str, String)> {
        let push = self.pushes.iter().rev().find(|push| push.delivered(&self.p.svid).is_none())?;
        if push.type_url != crate::timeline::ledger::SECRET_TYPE_URL {
            return Some(("wrong-type-url", format!("with the type {}", push.type_url)));
        }
        match push.secrets.first() {
            None => Some(("empty-response", "without any secret in it".to_owned())),
            Some(other) => Some(("wrong-name", format!("under the name {}, not {}", other.name, self.p.svid))),
        }
    }

    /// How often what is served was sent again, after its first delivery, in the whole recording.
    fn repeats(&self) -> usize {
        let Some(row) = self.served else { return 0 };
        let same = |push: &&&Push| push.leaf(&self.p.svid).is_some_and(|l| l.fingerprint == row.generation);
        if self.pushes.iter().filter(same).count() == 0 {
            return 0;
        }
        self.p.pushes_of(&self.p.svid).filter(|push| same(&push)).count().saturating_sub(1)
    }

    fn serial(&self) -> String {
        self.served.map_or_else(|| "?".to_owned(), |row| row.cert.serial.short())
    }

    /// Responses with a bundle that differs from the one before, in the time of the failure.
    fn bundle_pushes(&self) -> Vec<&'a Push> {
        let root = SecretName::root_ca();
        let from = self.served.and_then(|r| r.sent.first()).map_or(0, |m| m.seq);
        let mut held = None;
        let mut changed = Vec::new();
        for push in self.p.pushes_of(&root) {
            if let Some((_, digest)) = push.bundle(&root) {
                if held.is_some_and(|h| h != digest) && push.mark.seq > from && push.mark.seq < self.wrong.seq {
                    changed.push(push);
                }
                held = Some(digest);
            }
        }
        changed
    }

    /// New bundles came more often than renewals are due: where they reset the timer, no renewal ever comes.
    fn bundle_churn(&self, bundles: &[&Push]) -> bool {
        let Some(every) = self.ledger.header.criteria.renew_every_s.and_then(|s| i64::try_from(s).ok()) else {
            return false;
        };
        bundles.len() > 2
            && bundles
                .windows(2)
                .all(|w| w[1].mark.at.wall.duration_since(w[0].mark.at.wall).as_secs().saturating_mul(10) < every * 9)
    }

    fn row_note(&self, row: &Row) -> Finding {
        let show = |entry: &Entry| match entry {
            Entry::Reached { first, count, of, .. } if of > &1 => {
                format!("reached at {} ({count} of {of})", clock_time(first.at.wall))
            }
            Entry::Reached { first, .. } => format!("reached at {}", clock_time(first.at.wall)),
            Entry::Rejected { text, .. } => format!("rejected ({text})"),
            Entry::NotReached => "not reached".to_owned(),
            Entry::Unseen { why } => format!("unseen ({why})"),
        };
        let layers: Vec<_> = Layer::ALL.iter().map(|l| format!("{l}: {}", show(&row.entry(*l)))).collect();
        Finding {
            check: "ledger_row".to_owned(),
            result: CheckResult::Noted,
            proxy: Some(self.p.id.clone()),
            secret: Some(self.p.svid.clone()),
            message: format!("serial {}: {}", row.cert.serial.short(), layers.join("; ")),
            evidence: vec![self.wrong.seq],
        }
    }
}

fn never_arrived(p: &ProxyLedger, f: &Finding) -> Stop {
    Stop {
        proxy: p.id.clone(),
        layer: Some(Layer::Sent),
        candidates: one("never-arrives", Confidence::Likely, f.evidence.clone()),
        story: format!("{} was subscribed to and never sent", f.secret.as_ref().unwrap_or(&p.svid)),
        notes: Vec::new(),
    }
}

/// The refusals that Envoy's words and the response itself tell apart.
fn refusal_modes(delivered: Option<&Payload>, text: &str, evidence: &[u64]) -> Vec<Candidate> {
    let text = text.to_ascii_lowercase();
    let certain = |mode| one(mode, Confidence::Certain, evidence.to_vec());
    if let Some(Payload::Certificate { key_matches, problem, .. }) = delivered {
        if *key_matches == Some(false) && problem.is_none() {
            return certain("nack-key-mismatch");
        }
        if let Some(problem) = problem {
            return certain(if problem.contains("one PEM block") { "nack-chain-one-block" } else { "nack-bad-pem" });
        }
    }
    if text.contains("key_values_mismatch") || text.contains("key values mismatch") {
        return certain("nack-key-mismatch");
    }
    if text.contains("failed to load certificate chain") || text.contains("pem") {
        let modes = [("nack-bad-pem", Confidence::Possible), ("nack-chain-one-block", Confidence::Possible)];
        return many(&modes, evidence, "the bytes of the chain: is there one PEM block for each certificate?");
    }
    Vec::new()
}

pub(super) fn one(mode: &str, confidence: Confidence, evidence: Vec<u64>) -> Vec<Candidate> {
    vec![Candidate { mode: mode.to_owned(), confidence, evidence, would_decide: None }]
}

fn many(modes: &[(&str, Confidence)], evidence: &[u64], decides: &str) -> Vec<Candidate> {
    let open = modes.len() > 1;
    modes
        .iter()
        .map(|(mode, confidence)| Candidate {
            mode: (*mode).to_owned(),
            confidence: *confidence,
            evidence: evidence.to_vec(),
            would_decide: open.then(|| decides.to_owned()),
        })
        .collect()
}
