//! The observations that a verdict cites, each in a line.

use std::collections::BTreeSet;

use super::prose::moment;
use crate::report::text::plain;
use crate::timeline::{CertFacts, Fact, Observation, Payload, Timeline};
use crate::verdict::Verdict;

/// More than anybody reads; the timeline has them all.
const MOST: usize = 120;

pub(super) struct Cited {
    pub(super) seq: u64,
    pub(super) when: String,
    pub(super) source: String,
    pub(super) place: String,
    pub(super) kind: String,
    pub(super) says: String,
}

pub(super) fn cited(timeline: &Timeline, verdict: &Verdict) -> Vec<Cited> {
    let contradictions = verdict.contradictions.iter().flat_map(|c| &c.evidence);
    let findings = verdict.findings.iter().flat_map(|f| &f.evidence);
    let hypotheses = verdict.hypotheses.iter().flat_map(|h| &h.evidence);
    let candidates = verdict.candidates.iter().flat_map(|c| &c.evidence);
    // What contradicts comes first where not all can be shown.
    let mut wanted: Vec<u64> = Vec::new();
    let mut seen = BTreeSet::new();
    let told = contradictions.chain(candidates).chain(hypotheses).chain(findings);
    wanted.extend(told.copied().filter(|seq| seen.insert(*seq)).take(MOST));
    wanted.sort_unstable();
    let at = |seq: u64| usize::try_from(seq).ok().and_then(|i| timeline.observations.get(i));
    wanted.into_iter().filter_map(at).map(view).collect()
}

fn view(o: &Observation) -> Cited {
    let place = [o.proxy.as_ref().map(ToString::to_string), o.secret.as_ref().map(|s| plain(s.as_str()))];
    Cited {
        seq: o.seq,
        when: moment(o.at.wall),
        source: format!("{:?}", o.source).to_lowercase(),
        place: place.into_iter().flatten().collect::<Vec<_>>().join(" · "),
        kind: plain(o.fact.kind()),
        says: short(&says(&o.fact)),
    }
}

fn says(fact: &Fact) -> String {
    match fact {
        Fact::Issued(i) => format!("minted {}", leaf(&i.cert)),
        Fact::Signed(s) => format!("signed serial {} for {}, says its log", s.serial.short(), s.spiffe_id),
        Fact::Sent(s) => {
            let secrets: Vec<String> =
                s.secrets.iter().map(|one| format!("{}: {}", one.name, payload(&one.payload))).collect();
            format!("version {}, nonce {}, {}", s.version_info, s.nonce, secrets.join("; "))
        }
        Fact::Acked(a) => format!("accepted nonce {}, version {}", a.nonce, a.version_info),
        Fact::Nacked(n) => format!("refused nonce {}, still at version {}: {}", n.nonce, n.version_info, n.error),
        Fact::Handshake(h) => {
            let kind = if h.resumed { "resumed" } else { "full" };
            let shown = h.chain.first().map_or_else(|| "no certificate".to_owned(), leaf);
            let error = h.error.as_ref().map(|e| format!("; {e}")).unwrap_or_default();
            format!("{kind} {} handshake: {shown}{error}", h.tls)
        }
        Fact::Certs(c) => {
            let leaves = c
                .leaves
                .iter()
                .map(|l| format!("{} × serial {}, until {}", l.contexts, l.serial.short(), moment(l.not_after)));
            format!("{} contexts: {}", c.contexts, leaves.collect::<Vec<_>>().join("; "))
        }
        Fact::ConfigDump(d) => {
            let secrets = d.secrets.iter().map(|s| {
                let updated = s.last_updated.map(|t| format!(", last_updated {}", moment(t))).unwrap_or_default();
                let holds = s.chain.first().map(|c| format!(", {}", leaf(c))).unwrap_or_default();
                format!("{} ({}) version {}{updated}{holds}", s.name, s.state, s.version_info)
            });
            secrets.collect::<Vec<_>>().join("; ")
        }
        Fact::Request(r) => {
            let connection = if r.fresh { "a fresh connection" } else { "the kept connection" };
            let status = r.status.map_or_else(|| "no answer".to_owned(), |s| format!("status {s}"));
            let error = r.error.as_ref().map(|e| format!("; {e}")).unwrap_or_default();
            format!("to {} on {connection}: {status}{error}", r.to)
        }
        Fact::StreamClosed(c) => format!("stream {} closed by {}: {}", c.stream, c.by, c.status),
        // Others are rarely cited; their data says it.
        other => other.data_json().unwrap_or_default(),
    }
}

fn payload(payload: &Payload) -> String {
    match payload {
        Payload::Certificate { chain, problem, .. } => match (chain.first(), problem) {
            (Some(first), _) => leaf(first),
            (None, Some(problem)) => format!("an unreadable certificate ({problem})"),
            (None, None) => "no certificate".to_owned(),
        },
        Payload::Bundle { roots, .. } => format!("a bundle of {}", roots.len()),
        Payload::Other { what } => what.clone(),
    }
}

fn leaf(cert: &CertFacts) -> String {
    format!("serial {}, valid until {}", cert.serial.short(), moment(cert.not_after))
}

fn short(text: &str) -> String {
    const LONGEST: usize = 600;
    let text = plain(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
