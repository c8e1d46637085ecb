//! Nobody saw the stream: only what Envoy shows of itself.

use super::super::Confidence;
use super::super::activity::{Activity, Failures, refusal, refused_modes};
use super::super::evidence::{clock_time, held_since, in_vain_since_start, interval_of_held, is_stat, tells_of_none};
use super::super::newcomer::rules_out;
use super::{Case, ISSUER_DECIDES, STREAM_DECIDES, Stop, many};
use crate::timeline::ledger::{Mark, Row, StatSample};
use crate::timeline::{CertFacts, Layer, LoadedCert, SourceKind};

/// What decides where the stream was heard already.
const PROVIDER_DECIDES: &str = "the provider's own log: did it mint a newer certificate, and to whom did it send it?";
/// And where it was heard that what comes is nothing new.
const SECRET_DECIDES: &str = "the issuer's own log: did it mint a newer certificate for this identity? And of which secret \
    the updates are: `sds.default.update_success` and `sds.ROOTCA.update_success`";
/// What decides where nobody can connect.
const SOCKET_DECIDES: &str = "whether somebody listens on the socket outside, and whether the socket in the proxy's mount is the same \
    one (its inode)";
/// What decides where an old one came.
const SERVED_BEFORE_DECIDES: &str = "whether that serial was served before: then the provider went back to it";
/// What decides where nobody saw the files.
const FILES_DECIDE: &str = "the files themselves: when they changed, how (a rename or not), and what is in them";

/// Modes of a certificate that comes by files.
const BY_FILES: [&str; 5] = [
    "files-not-watched",
    "files-rewritten-in-place",
    "watched-file-missing",
    "files-half-written",
    "files-key-before-chain",
];

impl Case<'_> {
    pub(super) fn seen_from_outside(&self) -> Stop {
        // When the new one was first shown is all that it takes.
        if let Some(stop) = self.thin() {
            return stop;
        }
        let name = self.p.svid.as_str();
        // What was shown long after the failure may be true of another time.
        let lasts = self.lasts();
        let nearest = |marks: &mut dyn Iterator<Item = Mark>| {
            if lasts {
                return marks.last().map_or(self.wrong.seq, |m| m.seq);
            }
            marks.min_by_key(|m| m.at.mono.abs_diff(self.wrong.at.mono)).map_or(self.wrong.seq, |m| m.seq)
        };
        let sampled = nearest(&mut self.p.stats.iter().map(|s| s.mark));
        let moved = |suffix: &str| self.counted(sampled, suffix);
        let connected = self.p.stats.iter().find(|s| s.mark.seq == sampled).and_then(|s| {
            let stat = self.p.sds_stat("control_plane.connected_state");
            s.values.iter().find(|(n, _)| is_stat(n, &stat)).map(|(_, v)| *v)
        });
        // Where the counters are hidden, its own log may have been heard.
        let heard = Activity::of(self.p);
        let connected = connected.or_else(|| heard.as_ref()?.connected().map(u64::from));
        let lasting = Failures::lasting(self.p);
        let failures = heard.as_ref().and_then(Activity::lost).or(lasting.as_ref());
        let connected = connected.or_else(|| failures.map(|_| 0));
        let looked = nearest(&mut self.p.dumps.iter().map(|d| d.mark));
        let newer_in_dump = self.p.dumps.iter().find(|d| d.mark.seq == looked).and_then(|d| {
            let leaf = d.active(&self.p.svid)?.chain.first()?.clone();
            (!self.in_use(&leaf)?).then_some(leaf)
        });
        let in_dump = self.p.dumps.iter().find(|d| d.mark.seq == looked).and_then(|d| d.active(&self.p.svid));
        let evidence = vec![sampled, self.wrong.seq];
        let counted = moved("update_rejected");
        let refused_by_log = heard.as_ref().map(Activity::refused).filter(|n| *n > 0);
        let rejected = counted.or(refused_by_log);
        let refusals = [
            "nack-key-mismatch",
            "nack-bad-pem",
            "nack-chain-one-block",
            "nack-leaf-not-first",
            "nack-then-same-bytes",
        ];
        let why = refusal(self.p);
        if let Some(n @ 1..) = rejected {
            let story = match counted {
                Some(_) => format!("Envoy counts {n} refused updates of {name} (update_rejected)"),
                None => format!("Envoy's own log tells of {n} refused SDS updates"),
            };
            let modes = match why {
                Some((_, reason)) => refused_modes(reason).to_vec(),
                None => refusals.into_iter().chain(["partial-subscribers", "wrong-secret-kind"]).collect(),
            };
            let modes: Vec<_> = modes.into_iter().map(|m| (m, Confidence::Possible)).collect();
            // A refused update that is no certificate was never delivered as one.
            let layer = newer_in_dump.is_some().then_some(Layer::Acked);
            return self.stop(layer, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        if moved("key_rotation_failed").is_some_and(|n| n > 0) {
            let story = "Envoy could not take the files that it watches (key_rotation_failed)".to_owned();
            return self.unfit_files().unwrap_or_else(|| self.files_refused(&evidence, story));
        }
        // What its configuration says is no guess: a stream brings no files.
        let streamed = self.p.source() == Some(SourceKind::Stream);
        let may_be = |mode: &&str| !(streamed && BY_FILES.contains(mode) || rules_out(self.ledger, self.p, mode));
        if let Some(leaf) = newer_in_dump {
            let story = format!("config_dump holds serial {}, which no handshake shows", leaf.serial.short());
            // Bytes that it has refused, Envoy takes for known when they come again.
            if heard.as_ref().is_some_and(Activity::in_vain) {
                let modes =
                    [("nack-then-same-bytes", Confidence::Likely), ("partial-subscribers", Confidence::Possible)];
                let story = story + ", and accepts updates that bring nothing new";
                return self.stop(Layer::Acked, many(&modes, &evidence, STREAM_DECIDES), story);
            }
            if rejected == Some(0) {
                return self.stop(None, Vec::new(), story + ", and Envoy counts no refusal");
            }
            let refused = ["partial-subscribers", "files-half-written", "files-key-before-chain"];
            let told = why.map(|(_, reason)| refused_modes(reason).to_vec());
            let modes = told.unwrap_or_else(|| refusals.into_iter().chain(refused).filter(may_be).collect());
            let modes: Vec<_> = modes.into_iter().map(|m| (m, Confidence::Possible)).collect();
            return self.stop(None, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        if let Some(stop) = self.unfit_in_contexts().or_else(|| self.never_valid()).or_else(|| self.mixed()) {
            return stop;
        }
        // A refused secret shows in the dump as it came.
        if let Some(secret) = in_dump.filter(|secret| secret.chain.is_empty()) {
            let story = format!("config_dump holds no readable certificate under the name {name}");
            if !secret.roots.is_empty() {
                let modes = [("wrong-secret-kind", Confidence::Likely)];
                return self.stop(Layer::Sent, many(&modes, &evidence, STREAM_DECIDES), story + ", but a trust bundle");
            }
            let modes = [
                "nack-bad-pem",
                "nack-chain-one-block",
                "nack-leaf-not-first",
                "nack-then-same-bytes",
                "wrong-secret-kind",
                "files-half-written",
            ];
            let modes: Vec<_> = modes.into_iter().filter(may_be).map(|m| (m, Confidence::Possible)).collect();
            return self.stop(None, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        if let Some(false) = self.p.watches.iter().rev().find(|(mark, _)| mark.seq <= self.end_of_look()).map(|w| w.1) {
            let story = "Envoy does not watch the directory into which its files are moved".to_owned();
            let modes = ["files-not-watched", "never-renews", "issues-never-pushes"].map(|m| (m, Confidence::Possible));
            return self.stop(None, many(&modes, &evidence, FILES_DECIDE), story);
        }
        if self.p.by_files() {
            let modes =
                ["never-renews", "issues-never-pushes", "files-rewritten-in-place", "resend-cached", "resend-stale"];
            let modes = modes.map(|m| (m, Confidence::Possible));
            let story = "Envoy shows no sign of new files".to_owned();
            return self.stop(None, many(&modes, &evidence, FILES_DECIDE), story);
        }
        if connected == Some(0) {
            if let Some(stop) = self.refused_to_newcomers() {
                return stop;
            }
            let any: &[&str] = &["stream-refused", "socket-gone", "stale-bind-mount"];
            let lost = failures.map_or(any, Failures::modes).iter().copied().filter(may_be);
            let modes: Vec<_> = lost.map(|m| (m, Confidence::Possible)).collect();
            let story = "Envoy has no stream for it (connected_state is 0)".to_owned();
            let decides = match modes.as_slice() {
                [("socket-gone", _), ("stale-bind-mount", _)] => SOCKET_DECIDES,
                _ => STREAM_DECIDES,
            };
            let story = failures.map_or(story, Failures::told);
            return self.stop(Layer::Sent, many(&modes, &evidence, decides), story);
        }
        let dumps = self.p.dumps.iter().filter(|d| d.mark.seq <= looked);
        let versions: std::collections::BTreeSet<_> =
            dumps.filter_map(|d| d.active(&self.p.svid)).map(|s| &s.version_info).collect();
        let updated = moved("update_success").is_some_and(|n| n > 0) || versions.len() > 1;
        let in_vain = updated && self.only_one_served();
        if let Some(stop) = self.beside_newcomers() {
            return stop;
        }
        let resends = ["resend-cached", "resend-stale", "starved-by-bundle-churn"].map(|m| (m, Confidence::Possible));
        if in_vain {
            let story = format!("Envoy accepts updates of {name}, and the certificate stays the same");
            return self.stop(None, many(&resends, &evidence, ISSUER_DECIDES), story);
        }
        if let Some(heard) = heard.as_ref().filter(|heard| heard.in_vain() && self.only_one_served()) {
            // Envoy does not say of which secret: only the bundle may have come again.
            let modes: Vec<_> = resends.into_iter().chain([("never-renews", Confidence::Possible)]).collect();
            return self.stop(None, many(&modes, &heard.evidence(), SECRET_DECIDES), heard.lately());
        }
        let silence = heard.as_ref().is_some_and(|heard| heard.silent_for(interval_of_held(self.ledger, self.p)));
        let silent =
            ["never-renews", "issues-never-pushes", "provider-frozen", "bundle-only", "wrong-name", "empty-response"];
        let mut modes: Vec<_> = silent.into_iter().filter(may_be).map(|m| (m, Confidence::Possible)).collect();
        modes.push(("wrong-type-url", Confidence::Possible));
        let since = self.held(sampled).filter(|_| !silence && self.only_one_served());
        let since =
            since.and_then(|leaf| in_vain_since_start(self.ledger, self.p, sampled, (leaf.not_before, leaf.not_after)));
        if let Some(story) = since {
            let modes: Vec<_> = resends.into_iter().chain(modes).collect();
            return self.stop(None, many(&modes, &evidence, STREAM_DECIDES), story);
        }
        // Hidden counters are not zero; what moved may have been the renewals that did come; and of files, none moves.
        if !silence && (moved("update_success") != Some(0) || connected.is_none()) {
            modes.extend(resends);
        }
        if connected.is_none() {
            // Files have no stream either.
            let lost = ["stream-refused", "socket-gone", "stale-bind-mount"];
            let unread = ["files-not-watched", "files-rewritten-in-place"];
            modes.extend(lost.into_iter().chain(unread).filter(may_be).map(|m| (m, Confidence::Possible)));
        }
        if moved("key_rotation_failed").is_none() {
            let unfit = ["watched-file-missing", "files-half-written", "files-key-before-chain"];
            modes.extend(unfit.into_iter().filter(may_be).map(|m| (m, Confidence::Possible)));
        }
        if rejected.is_none() {
            modes.push(("wrong-secret-kind", Confidence::Possible));
            // A refused certificate would stand in the dump instead of the one in use.
            let refusals = refusals.into_iter().filter(|_| in_dump.is_none());
            modes.extend(refusals.map(|m| (m, Confidence::Possible)));
        }
        let (story, decides) = match &heard {
            Some(heard) => (heard.lately(), PROVIDER_DECIDES),
            None => ("Envoy shows no sign of an update".to_owned(), STREAM_DECIDES),
        };
        self.stop(None, many(&modes, &evidence, decides), story)
    }

    /// Whether its contexts held to the end the one certificate that they held when it failed: then all that was shown is of
    /// the same failure.
    fn lasts(&self) -> bool {
        let since = held_since(self.p).map(|since| since.seq);
        let at = self.p.loads.iter().min_by_key(|load| load.mark.at.mono.abs_diff(self.wrong.at.mono));
        since.zip(at).is_some_and(|(since, load)| since <= load.mark.seq)
    }

    /// By how much a counter of its certificate's secret rose up to this observation; absent where it was not shown, or
    /// that it did not rise says nothing.
    pub(super) fn counted(&self, until: u64, suffix: &str) -> Option<u64> {
        let stat = self.p.sds_stat(suffix);
        let shown = |s: &&StatSample| s.mark.seq <= until && s.sum(|n| is_stat(n, &stat)).is_some();
        let looks = (self.p.stats.iter().find(shown)?.mark, self.p.stats.iter().rfind(shown)?.mark);
        let rose = self.p.risen(until, |n| is_stat(n, &stat))?;
        (rose > 0 || tells_of_none(self.ledger, self.p, looks, suffix)).then_some(rose)
    }

    /// The one leaf that its contexts hold.
    fn held(&self, at: u64) -> Option<&LoadedCert> {
        let near = self.p.loads.iter().min_by_key(|load| load.mark.seq.abs_diff(at))?;
        let [leaf] = &*near.own else { return None };
        Some(leaf)
    }

    /// What it serves took the place of another, and had expired when it was first shown: it came unfit, or it came in
    /// time and expired unseen.
    fn never_valid(&self) -> Option<Stop> {
        let row = self.served?;
        let first = [row.inbound.first(), row.outbound.first()].into_iter().flatten().min_by_key(|m| m.seq)?;
        (row.cert.not_after <= first.at.wall && !self.only_one_served()).then(|| {
            let story = format!("serial {} had expired when a handshake first showed it", row.cert.serial.short());
            self.stop(None, Vec::new(), story)
        })
    }

    /// Some contexts took what others did not.
    fn mixed(&self) -> Option<Stop> {
        let load = self.p.loads.iter().rfind(|load| load.mark.seq <= self.wrong.seq)?;
        (load.own.len() > self.p.successions.len().max(1)).then(|| {
            let story = format!("its TLS contexts hold {} different certificates (/certs)", load.own.len());
            self.stop(None, Vec::new(), story)
        })
    }

    /// A leaf that came into the contexts unfit: within one look, `/certs` may be read before handshakes are made. Where it had
    /// failed before anybody looked, what came later tells.
    fn unfit_in_contexts(&self) -> Option<Stop> {
        let loads = &self.p.loads;
        let until = loads.partition_point(|load| load.mark.seq <= self.wrong.seq);
        let last = loads.get(until.checked_sub(1)?)?;
        if let Some(leaf) = last.own.iter().find(|leaf| leaf.not_before > last.mark.at.wall) {
            let from = clock_time(leaf.not_before);
            let story =
                format!("serial {} is in the TLS contexts before it is valid, from {from} on", leaf.serial.short());
            let modes = [("not-yet-valid", Confidence::Likely)];
            return Some(self.stop(Layer::Issued, many(&modes, &[last.mark.seq], STREAM_DECIDES), story));
        }
        let last = self.came_unfit(until - 1);
        let failed_before = || {
            let first = loads.first();
            first.is_some_and(|first| first.own.iter().all(|leaf| leaf.not_after <= first.mark.at.wall))
        };
        let is_open = last.as_ref().map_or_else(failed_before, |stop| stop.candidates.len() > 1);
        let mut later = (until..loads.len()).rev().filter(|_| is_open).filter_map(|n| self.came_unfit(n));
        later.find(|stop| last.is_none() || stop.layer.is_some()).or(last)
    }

    /// What came between this look at the contexts and the one before it.
    fn came_unfit(&self, n: usize) -> Option<Stop> {
        let (before, last) = (self.p.loads.get(n.checked_sub(1)?)?, self.p.loads.get(n)?);
        let same = |leaf: &LoadedCert, l: &LoadedCert| l.serial == leaf.serial && l.not_after == leaf.not_after;
        let came = last
            .own
            .iter()
            .find(|leaf| leaf.not_after <= last.mark.at.wall && !before.own.iter().any(|l| same(leaf, l)))?;
        let serial = came.serial.short();
        let evidence = vec![before.mark.seq, last.mark.seq];
        let unfit = |layer: Option<Layer>, modes: &[(&'static str, Confidence)], how: &str| {
            let story = format!("serial {serial} came into the TLS contexts {how} (/certs)");
            let decides = if layer.is_some() { STREAM_DECIDES } else { SERVED_BEFORE_DECIDES };
            self.stop(layer, many(modes, &evidence, decides), story)
        };
        let held = self.p.loads[..n].iter().any(|load| load.own.iter().any(|l| same(came, l)));
        let older = before.own.iter().any(|l| l.not_after > came.not_after);
        Some(if held {
            unfit(Some(Layer::Sent), &[("resend-stale", Confidence::Likely)], "again, after another one")
        } else if came.not_after <= before.mark.at.wall && older {
            // A provider that goes back looks the same, where what it goes back to was not seen in use.
            let modes = [("expired-on-arrival", Confidence::Possible), ("resend-stale", Confidence::Possible)];
            unfit(None, &modes, "when it had expired")
        } else if came.not_after <= before.mark.at.wall {
            unfit(Some(Layer::Issued), &[("expired-on-arrival", Confidence::Likely)], "when it had expired")
        } else {
            // It may have come in time, and not been followed.
            let story =
                format!("serial {serial} came into the TLS contexts, and had expired when /certs was read next");
            self.stop(None, Vec::new(), story)
        })
    }

    /// Whether handshakes, or without any its contexts from the failure on, showed this leaf; absent where neither was
    /// seen.
    fn in_use(&self, leaf: &CertFacts) -> Option<bool> {
        if self.p.served.iter().any(|s| s.leaf().is_some()) {
            // What was shown later only came later.
            return Some(self.p.row(&leaf.fingerprint).is_some_and(shown));
        }
        let load = self.p.loads.iter().rfind(|load| load.mark.seq <= self.wrong.seq).or(self.p.loads.first())?;
        let later = self.p.loads.iter().filter(|load| load.mark.seq > self.wrong.seq);
        Some(later.chain([load]).any(|load| load.holding(leaf) > 0))
    }

    /// Whether what was served at the failure is the first that ever was: then no update brought another one.
    fn only_one_served(&self) -> bool {
        let Some((_, leaf)) = super::super::evidence::first_served(self.p) else {
            // Without handshakes, its contexts tell.
            let loads = self.p.loads.iter().filter(|load| load.mark.seq <= self.wrong.seq.max(self.end_of_look()));
            let leaves: std::collections::BTreeSet<_> =
                loads.flat_map(|load| &*load.own).map(|leaf| (&leaf.serial, leaf.not_after)).collect();
            return leaves.len() == 1;
        };
        self.served.is_some_and(|row| row.generation == leaf.fingerprint)
    }
}

fn shown(row: &Row) -> bool {
    row.inbound.first().is_some() || row.outbound.first().is_some()
}
