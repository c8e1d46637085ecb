//! Certificates that come by files: no stream, no answers; what was put into place, and what the proxy makes of it.

use super::super::Confidence;
use super::super::evidence::clock_time;
use super::{Case, Stop, many, one};
use crate::timeline::ledger::{Entry, Mark, Push, Row};
use crate::timeline::{Layer, Payload};

/// What decides between the ways in which files can be no good.
const LOG_DECIDES: &str = "Envoy's warning \"Failed to reload certificates\": its reason, or what lies at the paths";

impl<'a> Case<'a> {
    /// A file was gone, half there, or not the key's own chain when the proxy looked.
    pub(super) fn unfit_files(&self) -> Option<Stop> {
        let mut written = self.pushes.iter().filter(|push| push.by_file.is_some());
        let unfit = |push: &&&Push| match push.delivered(&self.p.svid) {
            Some(Payload::Certificate { key_matches, problem, .. }) => problem.is_some() || *key_matches == Some(false),
            Some(Payload::Other { .. }) => true,
            _ => false,
        };
        let written = written.find(unfit).copied();
        let said = self.p.reload_failures.iter().find(|(mark, _)| mark.seq <= self.end_of_look());
        if written.is_none() && said.is_none() {
            return None;
        }
        let evidence: Vec<u64> = written
            .map(|push| push.mark.seq)
            .into_iter()
            .chain(said.map(|(m, _)| m.seq))
            .chain([self.wrong.seq])
            .collect();
        let text = said.map(|(_, why)| why.as_str());
        let mode = written.and_then(|push| of_payload(push.delivered(&self.p.svid)?)).or_else(|| of_text(text?));
        let at = clock_time(written.map(|push| push.mark).or(said.map(|(m, _)| *m)).unwrap_or(self.wrong).at.wall);
        let reason = text.map(|why| format!(": {why}")).unwrap_or_default();
        let Some(mode) = mode else {
            return Some(self.files_refused(&evidence, format!("the proxy could not take its files at {at}{reason}")));
        };
        let (layer, what) = match mode {
            "watched-file-missing" => (Layer::Sent, "the file of the chain was gone"),
            "files-half-written" => (Layer::Acked, "the chain was half written when the proxy read it"),
            _ => (Layer::Acked, "the key was not that of the chain beside it when the proxy read them"),
        };
        Some(self.stop(layer, one(mode, Confidence::Certain, evidence), format!("{what} at {at}{reason}")))
    }

    /// The proxy counts that it could not take its files, and nobody knows why.
    pub(super) fn files_refused(&self, evidence: &[u64], story: String) -> Stop {
        let modes = ["watched-file-missing", "files-half-written", "files-key-before-chain"];
        let modes = modes.map(|mode| (mode, Confidence::Possible));
        self.stop(None, many(&modes, evidence, LOG_DECIDES), story)
    }

    /// Whole files lie there, and the proxy holds the old ones.
    pub(super) fn unread_files(&self, row: &Row) -> Option<Stop> {
        let push = self.pushes.iter().rev().find(|push| {
            push.by_file.is_some()
                && push.whole_leaf(&self.p.svid).is_some_and(|leaf| leaf.fingerprint == row.generation)
        })?;
        if !matches!(row.loaded, Entry::NotReached | Entry::Unseen { .. }) {
            return None;
        }
        let (watched, seen) = match self.p.watches.iter().rev().find(|(mark, _)| mark.seq <= self.end_of_look()) {
            Some((mark, watched)) => (Some(*watched), Some(mark.seq)),
            None => (None, None),
        };
        let evidence: Vec<u64> = [push.mark.seq].into_iter().chain(seen).chain([self.wrong.seq]).collect();
        let serial = row.cert.serial.short();
        let at = clock_time(push.mark.at.wall);
        let stop = |mode, sure, how: &str| {
            self.stop(Layer::Loaded, one(mode, sure, evidence.clone()), format!("serial {serial} {how}"))
        };
        Some(match (push.by_file, watched) {
            (Some("in_place"), _) => stop(
                "files-rewritten-in-place",
                Confidence::Certain,
                &format!("was written over the old files at {at}, and nothing was moved: the proxy did not look"),
            ),
            (_, Some(false)) => stop(
                "files-not-watched",
                Confidence::Certain,
                &format!("was put into place at {at}, in a directory that the proxy does not watch"),
            ),
            (_, None) => stop(
                "files-not-watched",
                Confidence::Likely,
                &format!("was put into place at {at}, and the proxy did not look"),
            ),
            (_, Some(true)) => {
                let story =
                    format!("serial {serial} was put into place at {at}, in a directory that the proxy watches");
                let mut stop = self.stop(Layer::Loaded, Vec::new(), story);
                stop.notes.push(self.row_note(row));
                stop
            }
        })
    }

    /// The samples of one step are one look: what is read of the log and of the process comes last.
    pub(super) fn end_of_look(&self) -> u64 {
        let next = self.ledger.steps.iter().map(|(mark, _): &(Mark, _)| mark.seq).find(|seq| *seq > self.wrong.seq);
        next.unwrap_or(u64::MAX)
    }
}

fn of_payload(payload: &Payload) -> Option<&'static str> {
    match payload {
        Payload::Other { .. } => Some("watched-file-missing"),
        Payload::Certificate { problem: Some(_), .. } => Some("files-half-written"),
        Payload::Certificate { key_matches: Some(false), .. } => Some("files-key-before-chain"),
        _ => None,
    }
}

/// By Envoy's own words.
fn of_text(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    if text.contains("key_values_mismatch") {
        Some("files-key-before-chain")
    } else if text.contains("invalid path") || text.contains("unable to read file") || text.contains("does not exist") {
        Some("watched-file-missing")
    } else if text.contains("failed to load certificate chain") || text.contains("incomplete certificate") {
        Some("files-half-written")
    } else {
        None
    }
}
