//! The proxy's side: what it serves came from elsewhere, was unfit, or did not come through.

use std::time::Duration;

use jiff::SignedDuration;

use super::super::Confidence;
use super::super::evidence::{Defect, clock_time, defect, delivered_by_provider, is_stranger, sent_only, span};
use super::refusal::refusal_modes;
use super::{Case, Stop, many, one};
use crate::timeline::ledger::{Entry, Generation, Mark, MintedFor, Push, Row};
use crate::timeline::{AGENT_SERVES, Layer};

/// An answer takes milliseconds; on a busy machine a second.
const BROKE_OFF: Duration = Duration::from_secs(1);

impl<'a> Case<'a> {
    /// What it served was neither minted nor sent by this provider.
    pub(super) fn strange(&self) -> Option<Stop> {
        let row = self.served?;
        if !is_stranger(self.ledger, self.p, row) {
            return None;
        }
        let serial = row.cert.serial.short();
        if self.p.certificate_streams().next().is_none() {
            let story =
                format!("proxy serves serial {serial}, which this provider did not mint, and has no stream to it");
            // With streams of unknown proxies about, one of them may be this one's.
            let says = self.p.logs.iter().find(|(_, line)| line.contains(AGENT_SERVES));
            let (layer, modes) = match (says, self.ledger.unattributed_streams) {
                (Some((mark, _)), _) => {
                    let evidence = vec![mark.seq, self.wrong.seq];
                    (Some(Layer::Issued), one("agent-owns-socket", Confidence::Certain, evidence))
                }
                (None, 0) => (Some(Layer::Issued), one("agent-owns-socket", Confidence::Likely, vec![self.wrong.seq])),
                _ => (None, Vec::new()),
            };
            return Some(self.stop(layer, modes, story));
        }
        let story = format!("a full handshake shows serial {serial}, which was never sent to the proxy");
        let mut stop = self.stop(Layer::Served, Vec::new(), story);
        stop.notes.push(self.row_note(row));
        Some(stop)
    }

    /// What it served was unfit from the beginning, or what it served next: within one look, `/certs` may have been read
    /// before the handshakes were made.
    pub(super) fn defective(&self) -> Option<Stop> {
        let shown = |row: &&Row| row.inbound.first().is_some() || row.outbound.first().is_some();
        let next = self.newer.iter().map(|(row, _)| *row).find(shown);
        let served = self.served.and_then(|row| self.defect_of(row));
        served.or_else(|| self.defect_of(next?).filter(|stop| stop.layer == Some(Layer::Issued)))
    }

    fn defect_of(&self, row: &Row) -> Option<Stop> {
        let from = delivered_by_provider(self.ledger, self.p, row)?;
        let cert = row.cert;
        let serial = cert.serial.short();
        if defect(cert, from.at.wall, self.p.spiffe_id.as_deref()).is_none()
            && let Some(sent) = row.sent.first().filter(|sent| cert.not_after <= sent.at.wall)
        {
            let story = format!(
                "serial {serial} was minted at {} and not sent before {}, when it had been expired since {}",
                clock_time(from.at.wall),
                clock_time(sent.at.wall),
                clock_time(cert.not_after)
            );
            return Some(self.stop(Layer::Sent, Vec::new(), story));
        }
        let defect = defect(cert, from.at.wall, self.p.spiffe_id.as_deref())?;
        let story = match defect {
            Defect::Expired => format!(
                "provider sent serial {serial} at {}, when it had been expired since {}; the proxy serves it",
                clock_time(from.at.wall),
                clock_time(cert.not_after)
            ),
            Defect::NotYetValid => format!(
                "provider sent serial {serial} at {}, {} before it becomes valid; the proxy serves it",
                clock_time(from.at.wall),
                span(cert.not_before.duration_since(from.at.wall).as_secs())
            ),
            Defect::SeveralIdentities => format!(
                "provider sent serial {serial} with {} identities ({}); an SVID has exactly one",
                cert.uris.len(),
                cert.uris.join(", ")
            ),
            Defect::WrongIdentity => format!(
                "provider sent serial {serial} with the identity {}; the proxy's is {}",
                cert.uris.first().map_or("(none)", String::as_str),
                self.p.spiffe_id.as_deref().unwrap_or("unknown")
            ),
        };
        Some(self.stop(Layer::Issued, one(defect.mode(), Confidence::Certain, vec![from.seq, self.wrong.seq]), story))
    }

    /// Whether every stream that it was sent on ended within a moment, by no doing of the proxy's: then nobody knows
    /// whether it arrived.
    fn broke_off(&self, row: &Row) -> bool {
        let ends_after = |push: &Push| {
            let end = self.p.streams.iter().find(|s| s.number == push.stream).and_then(|s| s.end.as_ref());
            let end = end.filter(|end| end.by != "proxy" && end.mark.seq > push.mark.seq);
            end.is_some_and(|end| end.mark.at.mono.saturating_sub(push.mark.at.mono) <= BROKE_OFF)
        };
        let of_row = |push: &&Push| push.leaf(&self.p.svid).is_some_and(|leaf| leaf.fingerprint == row.generation);
        self.p.pushes_of(&self.p.svid).filter(of_row).all(ends_after)
    }

    /// It was sent: did the proxy answer, load and serve it?
    pub(super) fn after_sent(&self, row: &Row) -> Stop {
        if let Some(stop) = self.unread_files(row) {
            return stop;
        }
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
                let broke_off = format!("serial {serial} was sent as its stream broke off, and never answered");
                if self.broke_off(row)
                    && let Some(stop) = self.stream_lost(&broke_off)
                {
                    return stop;
                }
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
            _ if row.entry(Layer::Served).complete() => self.late(row),
            _ => unknown(Some(Layer::Served), format!("serial {serial} is loaded, but full handshakes do not show it")),
        }
    }

    /// It came all the way, but too late.
    fn late(&self, row: &Row) -> Stop {
        let floor = i128::from(self.ledger.header.criteria.margin_floor());
        // What it took the place of: what was served at the failure, or before it.
        let old = match self.served {
            Some(served) if served.generation != row.generation => Some(served),
            _ => self.predecessor(row),
        };
        let left = |sent: Mark| Some((sent, old?.cert.not_after.duration_since(sent.at.wall)));
        let thin = |(_, left): &(Mark, SignedDuration)| left.as_millis() < floor || !left.is_positive();
        // Another one may have come in time, and was accepted: then it is not for lack of a newer one.
        let in_time =
            |r: &Row| r.acked.first().is_some() && r.sent.first().and_then(|m| left(*m)).is_some_and(|l| !thin(&l));
        let another = self.newer.iter().any(|(r, _)| r.generation != row.generation && in_time(r));
        match row.sent.first().and_then(|m| left(*m)).filter(thin) {
            Some((mark, left)) if !another => self.sent_late(row, mark, left),
            _ => {
                let shown = row.inbound.first().into_iter().chain(row.outbound.first());
                // Both roles had shown it when the failure came: then serving it was not what failed.
                let before = shown.filter(|mark| mark.seq < self.wrong.seq).count() == 2;
                let (layer, how) = match before {
                    true => (None, "was served before, and another one at the failure"),
                    false => (Some(Layer::Served), "was served late"),
                };
                let mut stop = self.stop(layer, Vec::new(), format!("serial {} {how}", row.cert.serial.short()));
                stop.notes.push(self.row_note(row));
                stop
            }
        }
    }

    /// The renewals before it that came to nothing may be why it came so late.
    fn sent_late(&self, row: &Row, sent: Mark, left: SignedDuration) -> Stop {
        let evidence = [sent.seq, self.wrong.seq];
        let mut modes = vec![("thin-margin", Confidence::Certain)];
        let (mut layer, certain) = (Some(Layer::Sent), self.ledger.issuer_seen);
        let misaddressed = self.misaddressed().map(|(mode, _)| mode);
        modes.extend(misaddressed.map(|mode| (mode, Confidence::Possible)));
        let unsent =
            |(r, g): &&(&Row, &Generation)| r.sends == 0 && r.minted_for > MintedFor::Others && g.first.seq < sent.seq;
        let held_back = self.newer.iter().any(|newer| unsent(&newer));
        match self.repeats() {
            0 if held_back && misaddressed.is_none() => modes.push(("issues-never-pushes", Confidence::Possible)),
            0 => {}
            _ => {
                modes.extend(
                    [("resend-cached", !held_back), ("resend-stale", held_back || !certain)]
                        .into_iter()
                        .filter(|(_, fits)| *fits)
                        .map(|(mode, _)| (mode, Confidence::Possible)),
                );
                layer = layer.filter(|_| held_back);
            }
        }
        let decides = "whether later renewals come as late";
        self.stop(layer, many(&modes, &evidence, decides), sent_only(row.cert, left))
    }

    /// The row that was shown last before this one was.
    pub(super) fn predecessor(&self, row: &Row) -> Option<&'a Row<'a>> {
        let shown = row.inbound.first().or(row.outbound.first())?;
        let before = self.p.served.iter().filter(|s| s.mark.seq < shown.seq).filter_map(|s| s.leaf());
        before.rev().find(|leaf| leaf.fingerprint != row.generation).and_then(|leaf| self.p.row(&leaf.fingerprint))
    }
}
