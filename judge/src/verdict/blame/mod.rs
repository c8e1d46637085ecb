//! The layer at which a proxy's new certificate stopped, and the modes that leave this evidence.

mod delivery;
mod files;
mod late;
mod newcomer;
mod outside;
mod proxy_side;
mod refusal;

use super::evidence::{authority, clock_time, defect, due, pushes_between};
use super::{Candidate, CheckResult, Confidence, Finding};
use crate::timeline::ledger::{Entry, Generation, Mark, ProxyLedger, Push, Row, Served, is_same};
use crate::timeline::{CertFacts, Layer, Ledger, LoadedCert, TlsRole};

pub(super) use late::late_listener;

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
    ledger: &'a Ledger<'a>,
    p: &'a ProxyLedger<'a>,
    /// What it served when it went wrong.
    served: Option<&'a Row<'a>>,
    /// First observation of the failure.
    wrong: Mark,
    /// Responses for its certificate between the delivery of what it served and the failure.
    pushes: Vec<&'a Push<'a>>,
    /// Generations meant for it that came after what it served.
    newer: Vec<(&'a Row<'a>, &'a Generation<'a>)>,
    /// The failure is the very moment at which something newer took the place of what it served.
    replaced: bool,
}

/// Follows the proxy's own certificate, if one of the violated checks is about it.
pub(super) fn own_certificate(ledger: &Ledger, p: &ProxyLedger, violated: &[&Finding]) -> Option<Stop> {
    let about = |f: &&&Finding| f.secret.as_ref() == Some(&p.svid);
    if let Some(f) = violated.iter().find(|f| f.check == "secrets_arrived") {
        return Some(never_arrived(p, f));
    }
    let first = violated.iter().filter(about).filter_map(|f| f.evidence.last()).min().copied()?;
    let wrong = failure_moment(p, violated, first)?;
    // What befell one of several certificates says nothing of the others.
    let alone = (!p.further.is_empty()).then(|| ledger.alone(p, ledger.shown_at(p, wrong.seq)));
    let case = Case::new(ledger, alone.as_ref().unwrap_or(p), wrong, replaced_late(p, violated, wrong));
    if let Some(stop) = case.contexts_only(violated) {
        return Some(stop);
    }
    Some(case.follow())
}

/// Where the failure is that something was replaced too late: the handshake that showed it last.
fn replaced_late(p: &ProxyLedger, violated: &[&Finding], wrong: Mark) -> Option<u64> {
    let is_it = |f: &&&Finding| {
        f.check == "renewal_margin" && f.secret.as_ref() == Some(&p.svid) && f.evidence.last() == Some(&wrong.seq)
    };
    violated.iter().find(is_it)?.evidence.first().copied()
}

/// The handshake (or look, or answer) at which the failure shows first.
pub(super) fn failure_moment(p: &ProxyLedger, violated: &[&Finding], fallback: u64) -> Option<Mark> {
    let seqs = violated.iter().filter(|f| f.secret.as_ref() == Some(&p.svid)).map(|f| {
        // These name the beginning of the wait first, and the sight of the failure last.
        let sight = matches!(
            f.check.as_str(),
            "renewal_overdue" | "lag_bound" | "renewed_past_first_expiry" | "accepted" | "renewal_margin"
        );
        if sight { f.evidence.last() } else { f.evidence.first() }.copied().unwrap_or(fallback)
    });
    let seq = seqs.min().unwrap_or(fallback);
    let marks = p.served.iter().map(|s| s.mark);
    let marks = marks.chain(p.loads.iter().map(|l| l.mark));
    let marks = marks.chain(p.pushes.iter().filter_map(|push| push.refusal().map(|(m, _)| *m)));
    let marks = marks.chain(p.streams.iter().filter_map(|s| Some(s.end.as_ref()?.mark)));
    marks.filter(|m| m.seq >= seq).min_by_key(|m| m.seq)
}

/// Without any handshake, what its contexts held.
fn held<'a>(p: &'a ProxyLedger<'a>, wrong: Mark) -> Option<&'a Row<'a>> {
    if p.served.iter().any(|s| s.leaf().is_some()) {
        return None;
    }
    let load = p.loads.iter().rfind(|l| l.mark.seq <= wrong.seq)?;
    row_of(p, load.own.iter().min_by_key(|l| l.not_after)?)
}

/// The expired leaf that all its contexts held at the failure: within one look, `/certs` may have been read before the
/// handshakes were made, and the last handshake is one of the look before.
fn seen_expired<'a>(p: &'a ProxyLedger<'a>, wrong: Mark) -> Option<&'a Row<'a>> {
    let load = p.loads.iter().find(|l| l.mark.seq == wrong.seq)?;
    match &*load.own {
        [leaf] if leaf.not_after <= wrong.at.wall => row_of(p, leaf),
        _ => None,
    }
}

/// The row of a leaf in `/certs`, unless two look the same.
fn row_of<'a>(p: &'a ProxyLedger<'a>, leaf: &LoadedCert) -> Option<&'a Row<'a>> {
    let mut alike = p.rows.iter().filter(|row| is_same(leaf, row.cert));
    alike.next().filter(|_| alike.next().is_none())
}

impl<'a> Case<'a> {
    fn new(ledger: &'a Ledger<'a>, p: &'a ProxyLedger<'a>, wrong: Mark, replaced: Option<u64>) -> Self {
        // What it served at the failure, or last before it.
        let shown = p.full_handshakes(TlsRole::Inbound).chain(p.full_handshakes(TlsRole::Outbound));
        let at = shown.filter(|(s, _)| s.mark.seq <= wrong.seq).max_by_key(|(s, _)| s.mark.seq);
        let shown = || at.and_then(|(_, leaf)| p.row(&leaf.fingerprint));
        let before = replaced.and_then(|seq| p.served.iter().find(|s| s.mark.seq == seq)?.leaf());
        let served = match before.and_then(|leaf| p.row(&leaf.fingerprint)) {
            Some(row) => Some(row),
            None => seen_expired(p, wrong).or_else(shown).or_else(|| held(p, wrong)),
        };
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
        let pushes = pushes_between(p, from, wrong.seq + 1);
        Self { ledger, p, served, wrong, pushes, newer, replaced: replaced.is_some() }
    }

    /// Handshakes show the newest, and nothing but `/certs` is amiss.
    fn contexts_only(&self, violated: &[&Finding]) -> Option<Stop> {
        let about = violated.iter().filter(|f| f.secret.as_ref() == Some(&self.p.svid));
        let (contexts, others): (Vec<&Finding>, Vec<&Finding>) =
            about.copied().partition(|f| f.check == "every_context_fresh");
        let (row, f) = (self.served?, contexts.first()?);
        let shown = row.inbound.first().is_some() && row.outbound.first().is_some();
        if !others.is_empty() || !shown || !self.newer.is_empty() {
            return None;
        }
        let newest = self.p.place(&row.generation).and_then(|place| self.p.behind(place, self.wrong.seq));
        let expired = row.cert.not_after <= self.wrong.at.wall;
        (newest.unwrap_or(0) == 0 && !expired).then(|| {
            let (layer, candidates) = match &row.acked {
                Entry::Unseen { .. } => self.perhaps_refused(),
                _ => (Some(Layer::Loaded), Vec::new()),
            };
            let mut stop = self.stop(layer, candidates, f.message.clone());
            stop.notes.push(self.row_note(row));
            stop
        })
    }

    /// Some contexts have it, others not, and nobody saw what the proxy answered: whether it refused it, its own counters
    /// tell.
    fn perhaps_refused(&self) -> (Option<Layer>, Vec<Candidate>) {
        let counter = if self.p.by_files() { "key_rotation_failed" } else { "update_rejected" };
        match self.counted(u64::MAX, counter) {
            Some(0) => (Some(Layer::Loaded), Vec::new()),
            Some(_) if !self.p.by_files() => {
                (Some(Layer::Acked), one("partial-subscribers", Confidence::Likely, vec![self.wrong.seq]))
            }
            _ => (None, Vec::new()),
        }
    }

    /// The leaf itself is valid, and what it hangs on is not, or will end although leaves are renewed in time.
    fn below_what_ends_first(&self) -> Option<Stop> {
        let at = self.wrong.at.wall;
        let here = self.p.served.iter().find(|s| s.mark.seq == self.wrong.seq)?;
        let held = |s: &'a Served| {
            let (leaf, above) = (s.leaf()?, self.ledger.ends_first(s)?);
            (leaf.not_after > at).then_some((leaf, above))
        };
        let now = held(here).filter(|(leaf, above)| above.not_after <= at || self.renewed_in_vain(leaf));
        let (leaf, above) = now.or_else(|| {
            // What took its place came when there was too little left.
            let other = |s: &&Served| s.role == here.role && s.leaf().is_some_and(|leaf| here.leaf() != Some(leaf));
            let before = self.p.served.iter().rfind(|s| s.mark.seq < here.mark.seq && other(s))?;
            let floor = i64::try_from(self.ledger.header.criteria.margin_floor_s).unwrap_or(i64::MAX);
            held(before).filter(|(_, above)| above.not_after.duration_since(at).as_secs() < floor)
        })?;
        let story = format!(
            "serial {} lives until {}, but {} only until {}",
            leaf.serial.short(),
            clock_time(leaf.not_after),
            authority(above),
            clock_time(above.not_after)
        );
        let mode = if above.subject == above.issuer { "authority-expires-first" } else { "intermediate-expires-first" };
        Some(self.stop(Layer::Issued, one(mode, Confidence::Certain, vec![self.wrong.seq]), story))
    }

    /// Whether this leaf is the newest and came in time.
    fn renewed_in_vain(&self, leaf: &CertFacts) -> bool {
        let Some(row) = self.p.row(&leaf.fingerprint).filter(|_| self.newer.is_empty()) else { return false };
        let came = row.issued.first().or(row.sent.first()).or(row.inbound.first()).or(row.outbound.first());
        let every = self.ledger.header.criteria.interval();
        came.zip(every).is_some_and(|(came, every)| {
            self.wrong.at.wall.duration_since(came.at.wall).as_secs() < every.saturating_mul(2)
        })
    }

    fn follow(self) -> Stop {
        let stop = self.below_what_ends_first().or_else(|| self.strange()).or_else(|| self.defective());
        if let Some(stop) = stop.or_else(|| self.refused()).or_else(|| self.unfit_files()) {
            return stop;
        }
        if let Some(stop) = self.gone_back() {
            return stop;
        }
        let identity = self.p.spiffe_id.as_deref();
        let sound = self.newer.iter().filter(|(_, g)| defect(g.cert, g.first.at.wall, identity).is_none());
        let sound: Vec<&Row> = sound.map(|(row, _)| *row).collect();
        match sound.iter().rev().find(|row| row.sends > 0) {
            Some(row) => self.after_sent(row),
            None if !sound.is_empty() => self.not_sent(),
            None if !self.ledger.streams_seen && !self.ledger.issuer_seen => self.seen_from_outside(),
            None => self.nothing_newer(),
        }
    }

    fn stop(&self, layer: impl Into<Option<Layer>>, candidates: Vec<Candidate>, story: String) -> Stop {
        Stop { proxy: self.p.id.clone(), layer: layer.into(), candidates, story, notes: Vec::new() }
    }

    fn seqs(&self) -> Vec<u64> {
        self.pushes.iter().map(|push| push.mark.seq).take(20).chain([self.wrong.seq]).collect()
    }

    fn serial(&self) -> String {
        self.served.map_or_else(|| "?".to_owned(), |row| row.cert.serial.short())
    }

    /// The generation that took the place of what was served, and when it was sent (or minted, or shown).
    fn successor(&self) -> Option<(&'a Row<'a>, Mark)> {
        let served = self.served?;
        let after = self.ledger.generations.get(&served.generation)?.first.seq;
        let next = |row: &&Row| {
            let g = self.ledger.generations.get(&row.generation);
            g.is_some_and(|g| g.first.seq > after) && (row.inbound.first().is_some() || row.outbound.first().is_some())
        };
        let row = self.p.rows.iter().find(next)?;
        let came = [row.sent.first(), row.issued.first(), row.inbound.first(), row.outbound.first()];
        Some((row, **came.iter().flatten().next()?))
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
