//! The proxy refused what came: by which words, and what became of it.

use std::collections::BTreeSet;

use super::super::evidence::clock_time;
use super::super::{Candidate, CheckResult, Confidence, Finding};
use super::{Case, Stop, many, one};
use crate::timeline::ledger::{Entry, Mark, Push};
use crate::timeline::{Layer, Payload};

impl Case<'_> {
    /// The proxy refused what came, before it failed or at that moment.
    pub(super) fn refused(&self) -> Option<Stop> {
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
        if let Some(story) = self.refused_for_its_bundle(text) {
            return Some(self.stop(Layer::Acked, Vec::new(), story));
        }
        let story = self.refusal_story(push, mark, text);
        let mut candidates = refusal_modes(delivered, text, &evidence);
        // The refused bytes sent again are accepted, and change nothing.
        let digest = |push: &Push| match push.delivered(&self.p.svid) {
            Some(Payload::Certificate { digest, .. }) => Some(*digest),
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

    /// Envoy makes its contexts of both: with a bundle that it refused, it refuses each certificate too.
    fn refused_for_its_bundle(&self, text: &str) -> Option<String> {
        let mut refused = self.p.bundles().filter_map(|(push, bundle)| Some((push.refusal()?, bundle.name)));
        let ((mark, words), name) = refused.next().filter(|_| text.contains("trusted CA"))?;
        let at = clock_time(mark.at.wall);
        Some(format!("proxy refused the bundle {name} at {at}: {words}; with it, it takes no certificate either"))
    }

    /// All of them, also after the first sight of the failure: how often it was tried is worth knowing.
    fn refusal_story(&self, first: &Push, mark: &Mark, text: &str) -> String {
        let refused: Vec<_> = self.p.pushes_of(&self.p.svid).filter(|push| push.refusal().is_some()).collect();
        let digest = |push: &Push| match push.delivered(&self.p.svid) {
            Some(Payload::Certificate { digest, .. }) => Some(*digest),
            _ => None,
        };
        let distinct: BTreeSet<_> = refused.iter().map(|push| digest(push)).collect();
        let at = clock_time(mark.at.wall);
        let serial = first.leaf(&self.p.svid).map(|leaf| leaf.serial.short());
        let what = match (&serial, distinct.len(), refused.len()) {
            (Some(serial), _, 1) => format!("serial {serial} at {at}"),
            (Some(serial), 1, n) => format!("serial {serial} ({n} times), first at {at}"),
            (Some(serial), _, n) => format!("{n} certificates, first serial {serial} at {at}"),
            (None, _, 1) => format!("a certificate at {at}"),
            (None, _, n) => format!("{n} certificates, first at {at}"),
        };
        format!("proxy refused {what}: {text}")
    }
}

/// The refusals that Envoy's words and the response itself tell apart.
pub(super) fn refusal_modes(delivered: Option<&Payload>, text: &str, evidence: &[u64]) -> Vec<Candidate> {
    let text = text.to_ascii_lowercase();
    let certain = |mode| one(mode, Confidence::Certain, evidence.to_vec());
    if let Some(Payload::Certificate { chain, key_matches, problem, .. }) = delivered {
        if let [first, rest @ ..] = chain.as_slice()
            && first.is_ca
            && rest.iter().any(|cert| !cert.is_ca)
        {
            return certain("nack-leaf-not-first");
        }
        let of_the_chain = text.contains("certificate chain");
        if *key_matches == Some(false) && problem.is_none() && !of_the_chain {
            return certain("nack-key-mismatch");
        }
        if let Some(problem) = problem {
            return certain(if problem.contains("one PEM block") { "nack-chain-one-block" } else { "nack-bad-pem" });
        }
    }
    if text.contains("key_values_mismatch") || text.contains("key values mismatch") {
        return certain("nack-key-mismatch");
    }
    // The chain was read, and this is what is wrong with it: its kind of key, a staple that it lacks.
    let says_why =
        text.split_once("failed to load certificate chain from ").and_then(|(_, rest)| rest.split_once(", "));
    if says_why.is_some_and(|(_, why)| !why.starts_with("cause")) {
        return Vec::new();
    }
    if text.contains("failed to load certificate chain") || text.contains("pem") {
        let modes = ["nack-bad-pem", "nack-chain-one-block", "nack-leaf-not-first"];
        let decides = "the bytes of the chain: is there one PEM block for each certificate, and the leaf first?";
        return many(&modes.map(|mode| (mode, Confidence::Possible)), evidence, decides);
    }
    Vec::new()
}
