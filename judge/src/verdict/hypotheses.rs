//! What is suspected first in the night of such an incident, and what the recording says to it.
//!
//! Four guesses come up each time a certificate has expired although its provider renews: the proxy is not subscribed,
//! its stream was lost, its TLS contexts are static, Istio's agent serves files only. Each is answered by an
//! observation, or said to be unseen.

use std::collections::BTreeSet;

use super::Finding;
use super::blame::failure_moment;
use super::evidence::{ROLES, clock_time, first_served, is_stat, stream_open_at};
use super::model::{CheckResult, Hypothesis, Suspicion, YesNo};
use crate::timeline::ledger::{Mark, ProxyLedger, StatSample};
use crate::timeline::{Ledger, StaticContext};

/// Each of them, for the proxies that failed: true of one is true.
pub(super) fn answered(ledger: &Ledger, findings: &[Finding]) -> Vec<Hypothesis> {
    let violated: Vec<&Finding> = findings.iter().filter(|f| f.result == CheckResult::Violated).collect();
    let about = |p: &ProxyLedger| -> Vec<&Finding> {
        violated.iter().copied().filter(|f| f.proxy.as_ref() == Some(&p.id)).collect()
    };
    let mut failed: Vec<&ProxyLedger> = ledger.proxies.iter().filter(|p| !about(p).is_empty()).collect();
    if failed.is_empty() {
        failed = ledger.proxies.iter().collect();
    }
    let scenes: Vec<Scene<'_>> = failed
        .into_iter()
        .map(|p| {
            let own = about(p);
            let first = own.iter().filter(|f| f.secret.as_ref() == Some(&p.svid)).filter_map(|f| f.evidence.last());
            let wrong = first.min().and_then(|seq| failure_moment(p, &own, *seq));
            Scene { ledger, p, wrong: wrong.or(ledger.collecting).or(ledger.end) }
        })
        .collect();
    Suspicion::ALL
        .into_iter()
        .filter_map(|suspicion| {
            let mut all: Vec<Told> = scenes.iter().map(|scene| scene.asked(suspicion)).collect();
            // True of one proxy is true; false only where it is false of all.
            all.sort_by_key(|told| match told.answer {
                YesNo::Yes => 0,
                YesNo::Unseen => 1,
                YesNo::No => 2,
            });
            let Told { answer, observation, evidence } = all.into_iter().next()?;
            Some(Hypothesis { suspicion, answer, observation, evidence })
        })
        .collect()
}

struct Told {
    answer: YesNo,
    observation: String,
    evidence: Vec<u64>,
}

impl Told {
    fn new(answer: YesNo, observation: impl Into<String>, evidence: impl IntoIterator<Item = u64>) -> Self {
        Self { answer, observation: observation.into(), evidence: evidence.into_iter().collect() }
    }
    fn yes(observation: impl Into<String>, evidence: impl IntoIterator<Item = u64>) -> Self {
        Self::new(YesNo::Yes, observation, evidence)
    }
    fn no(observation: impl Into<String>, evidence: impl IntoIterator<Item = u64>) -> Self {
        Self::new(YesNo::No, observation, evidence)
    }
    fn unseen(observation: impl Into<String>) -> Self {
        Self::new(YesNo::Unseen, observation, [])
    }
}

/// One proxy, at the moment at which its failure shows.
struct Scene<'a> {
    ledger: &'a Ledger<'a>,
    p: &'a ProxyLedger<'a>,
    wrong: Option<Mark>,
}

impl Scene<'_> {
    fn asked(&self, suspicion: Suspicion) -> Told {
        match suspicion {
            Suspicion::NotSubscribed => self.not_subscribed(),
            Suspicion::StreamLost => self.stream_lost(),
            Suspicion::StaticTlsContext => self.static_context(),
            Suspicion::FilesOnlyMode => self.files_only(),
        }
    }

    fn not_subscribed(&self) -> Told {
        let (p, name) = (self.p, &self.p.svid);
        if let Some(stream) = p.certificate_streams().next() {
            let said = format!("{} subscribed to {name} at {}", p.id, clock_time(stream.opened.at.wall));
            let asked = stream.subscriptions.first().map_or(stream.opened.seq, |s| s.mark.seq);
            return Told::no(said, [asked]);
        }
        if let Some((dump, secret)) =
            p.dumps.iter().find_map(|d| Some((d, d.secrets.iter().find(|s| s.name == *name)?)))
        {
            let said = format!("config_dump of {} lists {name} among the dynamic secrets ({})", p.id, secret.state);
            return Told::no(said, [dump.mark.seq]);
        }
        let prefix = p.sds_stat("");
        if let Some(sample) = p.stats.iter().find(|s| s.values.keys().any(|n| n.starts_with(&prefix))) {
            return Told::no(format!("{} has statistics of the subscription ({prefix}*)", p.id), [sample.mark.seq]);
        }
        if let Some(last) = p.dumps.last() {
            let said = format!("config_dump of {} lists no dynamic secret named {name}", p.id);
            return Told::yes(said, [last.mark.seq]);
        }
        // Where streams have no known owner, one of them may be this proxy's.
        if self.ledger.streams_seen && self.ledger.unattributed_streams == 0 && !self.by_files() {
            let said = format!("{} opened no stream for {name}, though streams were watched", p.id);
            return Told::yes(said, self.wrong.map(|m| m.seq));
        }
        Told::unseen(format!(
            "nobody saw the streams of {}, and neither its config_dump nor its sds.* statistics",
            p.id
        ))
    }

    fn stream_lost(&self) -> Told {
        let (p, name) = (self.p, &self.p.svid);
        if self.by_files() {
            return Told::no(format!("{name} comes to {} by files: there is no stream to lose", p.id), []);
        }
        let Some(wrong) = self.wrong else { return Told::unseen("nothing was recorded") };
        let of_svid: Vec<_> = p.certificate_streams().collect();
        if let Some(open) = stream_open_at(self.ledger, p, wrong.seq) {
            let ends = of_svid.iter().filter_map(|s| s.end.as_ref()).filter(|e| e.mark.seq < wrong.seq);
            let ends: Vec<u64> = ends.map(|e| e.mark.seq).collect();
            let brought = p.pushes.iter().filter(|push| push.stream == open.number).count();
            let before = match ends.len() {
                0 => String::new(),
                n => format!("; it had been lost before ({n} times)"),
            };
            let said = format!(
                "the stream of {} for {name}, opened at {}, was open when it failed, and brought {brought} responses in all{before}",
                p.id,
                clock_time(open.opened.at.wall),
            );
            return Told::no(said, [open.opened.seq, wrong.seq].into_iter().chain(ends.into_iter().take(3)));
        }
        let ended = of_svid.iter().filter_map(|s| s.end.as_ref()).filter(|e| e.mark.seq <= wrong.seq);
        if let Some(end) = ended.max_by_key(|e| e.mark.seq) {
            let said = format!(
                "the stream of {} for {name} was ended by the {} at {} ({}), and none was open when it failed",
                p.id,
                end.by,
                clock_time(end.mark.at.wall),
                end.status
            );
            return Told::yes(said, [end.mark.seq, wrong.seq]);
        }
        self.lost_by_statistics(wrong)
    }

    /// Nobody saw the stream: what Envoy says of it, at the failure or after it.
    fn lost_by_statistics(&self, wrong: Mark) -> Told {
        let p = self.p;
        let sample = p.stats.iter().find(|s| s.mark.seq >= wrong.seq).or(p.stats.last());
        let value = |s: &StatSample, stat: &str| s.values.iter().find(|(n, _)| is_stat(n, stat)).map(|(_, v)| *v);
        let Some(sample) = sample else {
            return Told::unseen(format!("nobody saw the streams of {}, nor its statistics", p.id));
        };
        let failures = p.sds_stat("update_failure");
        let failures = p.risen(sample.mark.seq, |n| is_stat(n, &failures));
        let lost_before = match failures {
            Some(n @ 1..) => format!("; it had been lost before (update_failure rose by {n})"),
            _ => String::new(),
        };
        let state = p.sds_stat("control_plane.connected_state");
        let at = clock_time(sample.mark.at.wall);
        match value(sample, &state) {
            Some(0) => Told::yes(format!("{} said connected_state 0 at {at}{lost_before}", p.id), [sample.mark.seq]),
            Some(_) => Told::no(format!("{} said connected_state 1 at {at}{lost_before}", p.id), [sample.mark.seq]),
            None => {
                let mut active = sample
                    .values
                    .iter()
                    .filter(|(n, _)| n.starts_with("cluster.sds-grpc") && n.ends_with(".upstream_cx_active"));
                match active.next() {
                    Some((_, 0)) => {
                        let said = format!("{} had no connection to its provider at {at} (upstream_cx_active)", p.id);
                        Told::yes(said, [sample.mark.seq])
                    }
                    _ => {
                        Told::unseen(format!("nobody saw the streams of {}, and its sds.* statistics are hidden", p.id))
                    }
                }
            }
        }
    }

    fn static_context(&self) -> Told {
        let p = self.p;
        // A process that starts again reads whatever is there.
        let since = p.starts.last().map_or(0, |m| m.seq);
        let shown = ROLES.into_iter().flat_map(|role| p.full_handshakes(role)).filter(|(s, _)| s.mark.seq > since);
        let shown: Vec<_> = shown.collect();
        let configured = p.dumps.iter().rev().find(|d| !d.static_contexts.is_empty());
        let is_static = configured.and_then(|dump| {
            shown.iter().rev().find_map(|(s, leaf)| {
                let has = |c: &&StaticContext| c.chain.first().is_some_and(|c| c.fingerprint == leaf.fingerprint);
                Some((dump, dump.static_contexts.iter().find(has)?, *s, *leaf))
            })
        });
        if let Some((dump, context, seen, leaf)) = is_static {
            let said = format!(
                "{} serves serial {}, which stands in its configuration ({}, {}): no SDS update reaches that",
                p.id,
                leaf.serial.short(),
                context.place,
                context.from
            );
            return Told::yes(said, [seen.mark.seq, dump.mark.seq]);
        }
        let leaves: BTreeSet<_> = shown.iter().map(|(_, leaf)| &leaf.fingerprint).collect();
        if let Some((first, last)) = shown.first().zip(shown.last()).filter(|_| leaves.len() > 1) {
            let said = format!(
                "full handshakes with one process of {} have shown {} different certificates: its contexts were rebuilt",
                p.id,
                leaves.len()
            );
            return Told::no(said, [first.0.mark.seq, last.0.mark.seq]);
        }
        let by_stream = shown.iter().find_map(|(s, leaf)| {
            let sent = p.row(&leaf.fingerprint)?.sent.first()?;
            (sent.seq < s.mark.seq).then_some((s.mark, *sent, leaf))
        });
        if let Some((seen, sent, leaf)) = by_stream {
            let said = format!(
                "{} serves serial {}, which came on its SDS stream at {}",
                p.id,
                leaf.serial.short(),
                clock_time(sent.at.wall)
            );
            return Told::no(said, [sent.seq, seen.seq]);
        }
        let counted =
            p.stats.iter().rev().find_map(|s| Some((s, s.sum(|n| n.ends_with("ssl_context_update_by_sds"))?)));
        match counted {
            Some((sample, n @ 1..)) => {
                let said = format!("SDS has built TLS contexts of {} {n} times (ssl_context_update_by_sds)", p.id);
                return Told::no(said, [sample.mark.seq]);
            }
            // Before the first secret came it is zero everywhere.
            Some((sample, 0)) if first_served(p).is_some() => {
                let said = format!(
                    "{} serves a certificate, and SDS has built none of its TLS contexts (ssl_context_update_by_sds is 0)",
                    p.id
                );
                return Told::yes(said, [sample.mark.seq]);
            }
            _ => {}
        }
        let served = shown.last().map(|(s, leaf)| (s.mark, *leaf));
        let listed = p.dumps.iter().rev().find_map(|d| Some((d, d.active(&p.svid)?)));
        match (listed, served, p.dumps.last()) {
            (Some((dump, secret)), Some((seen, leaf)), _)
                if secret.chain.first().is_some_and(|c| c.fingerprint == leaf.fingerprint) =>
            {
                let said = format!("{} serves what config_dump lists as the dynamic secret {}", p.id, p.svid);
                Told::no(said, [dump.mark.seq, seen.seq])
            }
            (None, Some((seen, _)), Some(dump)) => {
                let others: Vec<_> = dump.static_contexts.iter().map(|c| format!("{}: {}", c.place, c.from)).collect();
                let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join("; ")) };
                let said = format!(
                    "{} serves a certificate, and config_dump lists no active dynamic secret {} that it could be{others}",
                    p.id, p.svid
                );
                Told::yes(said, [dump.mark.seq, seen.seq])
            }
            _ => Told::unseen(format!("nothing tells where the TLS contexts of {} have their certificate from", p.id)),
        }
    }

    fn files_only(&self) -> Told {
        let (p, name) = (self.p, &self.p.svid);
        if self.ledger.header.subject.istio.is_none() {
            let how = if self.by_files() { "watches the provider's files itself" } else { "asks the provider itself" };
            return Told::no(format!("no agent of Istio takes part: {} {how}", p.id), []);
        }
        if let Some(push) = p.pushes_of(name).next() {
            let said = format!(
                "the agent passes {name} by: it came to {} on a stream to the provider at {}",
                p.id,
                clock_time(push.mark.at.wall)
            );
            return Told::no(said, [push.mark.seq]);
        }
        let says = p.logs.iter().find(|(_, line)| line.contains("will only serve files"));
        let listed = p.dumps.iter().any(|d| d.active(name).is_some());
        match says {
            Some((mark, _)) if !listed && self.ledger.streams_seen && p.certificate_streams().next().is_none() => {
                let said = format!(
                    "the agent of {} said at {} that it serves files only, and no stream for {name} came to the provider",
                    p.id,
                    clock_time(mark.at.wall)
                );
                Told::yes(said, [mark.seq])
            }
            _ => Told::unseen(format!("Istio's agent takes part, and nobody saw from whom {} has {name}", p.id)),
        }
    }

    fn by_files(&self) -> bool {
        self.p.by_files() || self.ledger.header.subject.provider.kind == "files"
    }
}
