//! Where each proxy stands with its own certificate, by its admin API alone: what can be said of a cluster that is only
//! looked at, at once or after a while.
//!
//! No check: a look at `/certs` shows neither what is sent nor what a handshake shows. But a certificate that has expired in
//! a TLS context is served expired, and one that should long have been renewed can be told before it expires.

use serde::Serialize;

use super::activity::{Activity, Failures, refusal, refused_modes};
use super::connection::{Kept, kept};
use super::evidence::{clock_time, in_vain_since_start, is_stat, renewal_interval, span, unchanged};
use super::newcomer::{Given, Newcomers, came, rules_out};
use crate::timeline::ledger::{Dump, Load, Mark, ProxyLedger};
use crate::timeline::{
    AGENT_FOUND_SOCKET, AGENT_SERVES, CertFacts, Ledger, LoadedCert, ProxyId, SecretName, Serial, SourceKind, Timeline,
    TlsRole,
};

/// A first secret comes this long after its proxy's start, and a certificate may be dated back this far; seconds.
const START: i64 = 60;

/// Where one proxy stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// The proxy.
    pub proxy: ProxyId,
    /// The identity of its certificate.
    pub identity: Option<String>,
    /// In a word.
    pub state: State,
    /// Of what its TLS contexts hold, what expires first.
    pub leaf: Option<LoadedCert>,
    /// The leaf of the last full handshake, where one was made.
    pub served: Option<CertFacts>,
    /// Until the first of both expires, seconds; negative: since.
    pub left_s: Option<i64>,
    /// When it should have been renewed by a provider that renews at the interval that was named, else at half of the
    /// lifetime.
    pub due: Option<jiff::Timestamp>,
    /// How long it is overdue, seconds.
    pub overdue_s: Option<i64>,
    /// When `/certs` was read last.
    pub read: Option<jiff::Timestamp>,
    /// What is wrong or odd, in sentences.
    pub remarks: Vec<String>,
    /// How its certificate comes, by its configuration and its agent's words, in sentences.
    pub comes: Vec<String>,
    /// Modes that what is odd fits, though nothing may have failed yet.
    pub suspected: Vec<&'static str>,
    /// What could not be seen, in sentences.
    pub unseen: Vec<String>,
}

impl Standing {
    /// Whether a renewal should have come.
    fn is_late(&self) -> bool {
        matches!(self.state, State::Expired | State::Overdue)
    }
}

/// How a proxy stands, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// What it serves has expired.
    Expired,
    /// What it serves is not valid yet.
    NotYetValid,
    /// Its contexts hold several certificates of one identity, or others than config_dump shows.
    Mixed,
    /// It should have been renewed.
    Overdue,
    /// It has no certificate.
    Empty,
    /// Nobody could look.
    Unseen,
    /// As it should be.
    Fresh,
}

impl State {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Mixed => "mixed",
            Self::Overdue => "overdue",
            Self::Empty => "no certificate",
            Self::Unseen => "unseen",
            Self::Fresh => "ok",
        }
    }
}

/// Where every proxy of a recording stands at its end, in the order of the recording.
pub fn standings(timeline: &Timeline) -> Vec<Standing> {
    let ledger = Ledger::of(timeline);
    ledger.proxies.iter().map(|p| Look { ledger: &ledger, p }.standing()).collect()
}

struct Look<'a> {
    ledger: &'a Ledger<'a>,
    p: &'a ProxyLedger<'a>,
}

impl Look<'_> {
    fn standing(&self) -> Standing {
        let p = self.p;
        let mut standing = Standing {
            proxy: p.id.clone(),
            identity: p.spiffe_id.clone(),
            state: State::Unseen,
            leaf: None,
            served: self.served().cloned(),
            left_s: None,
            due: None,
            overdue_s: None,
            read: None,
            remarks: Vec::new(),
            comes: self.comes(),
            suspected: Vec::new(),
            unseen: self.unseen(),
        };
        let Some(load) = p.loads.last() else { return standing };
        let now = load.mark.at.wall;
        standing.read = Some(now);
        let Some(leaf) = load.own.iter().min_by_key(|leaf| leaf.not_after) else {
            standing.state = State::Empty;
            standing.remarks.push("none of its TLS contexts holds a certificate of its own (/certs)".into());
            return standing;
        };
        standing.identity = standing.identity.or_else(|| leaf.uris.first().cloned());
        standing.leaf = Some(leaf.clone());
        let ends = standing.served.iter().map(|served| served.not_after).fold(leaf.not_after, jiff::Timestamp::min);
        let left = ends.duration_since(now).as_secs();
        standing.left_s = Some(left);
        let (due, late) = self.due(leaf);
        standing.due = Some(due);
        standing.overdue_s = Some(now.duration_since(due).as_secs()).filter(|_| now >= late);
        standing.state = match () {
            () if left <= 0 => State::Expired,
            () if leaf.not_before > now => State::NotYetValid,
            () if self.several(load) || self.behind_the_dump(load).is_some() => State::Mixed,
            () if standing.overdue_s.is_some() => State::Overdue,
            () => State::Fresh,
        };
        self.remark(&mut standing, load, leaf);
        standing
    }

    /// What the last look's full handshakes showed.
    fn served(&self) -> Option<&CertFacts> {
        let before = self.p.loads.iter().rev().nth(1).map_or(0, |load| load.mark.seq);
        let (seen, leaf) = self.p.full_handshakes(TlsRole::Inbound).next_back()?;
        (seen.mark.seq >= before).then_some(leaf)
    }

    /// When a renewal is due, and from when on it is certain that it is late.
    fn due(&self, leaf: &LoadedCert) -> (jiff::Timestamp, jiff::Timestamp) {
        let every = renewal_interval(self.ledger, leaf.not_before, leaf.not_after);
        let after = |seconds: i64| {
            leaf.not_before.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(leaf.not_after)
        };
        (after(every), after(every.saturating_add(every / 5)))
    }

    /// Several leaves of one identity at once, in the last two looks: between a push and its last context is a moment.
    fn several(&self, load: &Load) -> bool {
        let before = self.p.loads.iter().rev().nth(1);
        load.own.len() > 1 && before.is_none_or(|before| before.own.len() > 1)
    }

    /// The leaf in config_dump that no TLS context holds.
    fn behind_the_dump(&self, load: &Load) -> Option<(&Dump<'_>, Serial)> {
        let dump = self.p.dumps.last()?;
        let leaf = dump.active(&self.p.svid)?.chain.first()?;
        // Read before the push that brought it, perhaps: then the next look shows it. Or the dump was read before the push that
        // brought what the contexts hold.
        let held = load.holding(leaf) > 0 || load.own.iter().any(|held| held.not_before > leaf.not_before);
        (!held && dump.mark.seq < load.mark.seq).then(|| (dump, leaf.serial.clone()))
    }

    fn remark(&self, standing: &mut Standing, load: &Load, leaf: &LoadedCert) {
        let p = self.p;
        let serial = leaf.serial.short();
        let of = format!("{} of {} TLS contexts hold serial {serial}", leaf.contexts, load.contexts());
        match standing.state {
            State::Expired => {
                standing.remarks.push(format!("{of}, expired since {}", clock_time(leaf.not_after)));
            }
            State::NotYetValid => {
                standing.remarks.push(format!("{of}, which is not valid before {}", clock_time(leaf.not_before)));
                standing.suspected.push("not-yet-valid");
            }
            _ => {}
        }
        if let (State::Fresh, Some((held, at))) = (standing.state, self.expired_before(leaf)) {
            let (serial, since, at) = (held.serial.short(), clock_time(held.not_after), clock_time(at.at.wall));
            let remark = format!(
                "its TLS contexts held serial {serial}, expired since {since}, still at {at}: the next one came too late"
            );
            standing.remarks.push(remark);
        }
        if let Some(served) = standing.served.as_ref().filter(|served| served.not_after <= load.mark.at.wall) {
            let (serial, since) = (served.serial.short(), clock_time(served.not_after));
            standing.remarks.push(format!("a full handshake shows serial {serial}, expired since {since}"));
        }
        self.beside(standing, load);
        if self.several(load) {
            standing.remarks.push(format!(
                "its TLS contexts hold {} different certificates of its identity: some did not take the newest",
                load.own.len()
            ));
            standing.suspected.push("partial-subscribers");
        }
        let refused = self.behind_the_dump(load);
        if let Some((_, dumped)) = &refused {
            standing.remarks.push(format!(
                "config_dump has serial {} under {}, and no TLS context holds it: it was refused, or is not used",
                dumped.short(),
                p.svid
            ));
            standing.suspected.extend([
                "nack-key-mismatch",
                "nack-bad-pem",
                "nack-chain-one-block",
                "nack-leaf-not-first",
                "nack-then-same-bytes",
                "partial-subscribers",
            ]);
        }
        if let Some(remark) = self.sent_again(leaf).or_else(|| self.versions_moved(leaf)) {
            standing.remarks.push(remark);
            // Versions of what is refused move too.
            if refused.is_none() {
                standing.suspected.extend(["resend-cached", "resend-stale"]);
            }
        }
        let counted = self.counters(standing, refused.is_some() || p.dumps.is_empty());
        standing.remarks.extend(counted);
        self.heard(standing);
        match kept(self.p) {
            Some(Kept::Some(said)) => standing.comes.push(said),
            Some(Kept::None(said)) => {
                standing.remarks.push(said);
                standing.suspected.extend(["stream-refused", "socket-gone", "stale-bind-mount"]);
            }
            None => {}
        }
        standing.suspected.retain(|mode| !rules_out(self.ledger, p, mode));
        if let Some(seconds) = standing.overdue_s.filter(|_| standing.state == State::Overdue) {
            let by = if self.ledger.header.criteria.renew_every_s.is_some() {
                "at the interval that was named"
            } else {
                "at half of its lifetime, when most providers renew"
            };
            let due = standing.due.map(clock_time).unwrap_or_default();
            standing.remarks.push(format!("its renewal was due at {due} ({by}), and is overdue by {}", span(seconds)));
        }
    }

    /// What its contexts held at an earlier look, when it had expired; and at which look last.
    fn expired_before(&self, leaf: &LoadedCert) -> Option<(&LoadedCert, Mark)> {
        self.p.loads.iter().rev().find_map(|load| {
            let expired = |held: &&LoadedCert| held.not_after <= load.mark.at.wall && held.serial != leaf.serial;
            Some((load.own.iter().find(expired)?, load.mark))
        })
    }

    /// What newcomers at its socket were given.
    fn beside(&self, standing: &mut Standing, load: &Load) {
        let Some(newcomers) = Newcomers::of(self.ledger, self.p) else { return };
        if let Some((mark, how)) = newcomers.unanswered() {
            let at = clock_time(mark.at.wall);
            let (how, modes): (_, &[&str]) = match (self.ledger.unreachable.last(), how) {
                (Some((_, why)), _) => (format!("not possible: {why}"), &["socket-gone", "stale-bind-mount"]),
                (None, Some(how)) => (format!("sent away: {how}"), &["stream-refused"]),
                (None, None) => ("not answered".to_owned(), &["provider-frozen"]),
            };
            if standing.is_late() {
                standing.suspected.extend(modes);
            }
            standing.remarks.push(format!("a fresh subscription at its socket was {how} (at {at})"));
            return;
        }
        if let Some(again) = newcomers.again() {
            standing.remarks.push(format!(
                "a fresh subscriber that stayed was sent serial {} again under new versions ({} times)",
                again.leaf.serial.short(),
                again.times
            ));
            standing.suspected.extend(["resend-cached", "resend-stale"]);
        }
        let bound = u128::from(self.ledger.header.criteria.lag_bound_ms);
        let kept_from_it = |given: &Given<'_>| {
            let could_take = load.mark.at.mono.saturating_sub(given.mark.at.mono).as_millis() > bound;
            let newer = load.own.iter().all(|held| held.not_before < given.leaf.not_before);
            could_take && newer && !came(self.p, given.leaf)
        };
        let kept = newcomers.shared().find(kept_from_it);
        let Some(given) = kept.or_else(|| newcomers.given()) else { return };
        let (serial, at) = (given.leaf.serial.short(), clock_time(given.mark.at.wall));
        if load.holding(given.leaf) > 0 {
            standing
                .comes
                .push(format!("a fresh subscriber at its socket is given the same, serial {serial} (at {at})"));
        } else if !given.shared {
            standing.comes.push(format!(
                "a fresh subscriber at its socket is given serial {serial} (at {at}), which may be minted for the asking"
            ));
        } else if kept_from_it(&given) {
            standing.remarks.push(format!(
                "a fresh subscriber at its socket is given serial {serial} (at {at}), which is newer: it did not come to this proxy"
            ));
            standing.suspected.extend(["issues-never-pushes", "resend-stale", "stale-bind-mount"]);
        }
    }

    /// What its own log told of SDS.
    fn heard(&self, standing: &mut Standing) {
        let late = standing.is_late();
        let Some(activity) = Activity::of(self.p) else {
            // What lasts, Envoy writes as a warning.
            if let Some(failures) = Failures::lasting(self.p).filter(|_| late) {
                standing.remarks.push(failures.told());
                standing.suspected.extend(failures.modes());
            }
            if let Some((mark, reason)) = refusal(self.p).filter(|_| standing.state != State::Fresh) {
                let at = clock_time(mark.at.wall);
                standing.remarks.push(format!("Envoy's own log tells of a refused SDS update (at {at}): {reason}"));
                standing.suspected.extend(refused_modes(reason));
            }
            return;
        };
        let remarks = activity.remarks(late);
        if remarks.is_empty() && activity.tells() {
            standing.comes.push(activity.all());
        }
        for (remark, modes) in remarks {
            standing.remarks.push(remark);
            standing.suspected.extend(modes);
        }
    }

    /// Up to Envoy 1.36, `last_updated` moves with every response, also with one that brings what is there already.
    fn sent_again(&self, leaf: &LoadedCert) -> Option<String> {
        let dump = self.p.dumps.last()?;
        let secret = dump.active(&self.p.svid)?;
        let (updated, dumped) = (secret.last_updated?, secret.chain.first()?);
        if dumped.serial != leaf.serial || dumped.not_after != leaf.not_after {
            return None;
        }
        let started = self.p.started(u64::MAX)?;
        let after_start = updated.duration_since(started).as_secs() > START;
        let older = leaf.not_before < started || updated.duration_since(leaf.not_before).as_secs() > 2 * START;
        let own_time = updated.duration_since(leaf.not_before).as_secs();
        (after_start && older).then(|| {
            format!(
                "config_dump: {} was last updated at {}, {} after this certificate was made: it was sent again, and not renewed",
                self.p.svid,
                clock_time(updated),
                span(own_time)
            )
        })
    }

    /// Between looks: new versions of the secret, and the same certificate.
    fn versions_moved(&self, leaf: &LoadedCert) -> Option<String> {
        let p = self.p;
        let unchanged = unchanged(self.ledger, p)?;
        let seconds = p.loads.last()?.mark.at.wall.duration_since(unchanged.since.at.wall).as_secs();
        match (unchanged.distinct(), unchanged.updates) {
            (distinct @ 2.., _) => Some(format!(
                "in {} the version of {} moved {} ({} to {}), and the certificate stayed serial {}",
                span(seconds),
                p.svid,
                if distinct == 2 { "once".to_owned() } else { format!("{} times", distinct - 1) },
                unchanged.versions.first()?,
                unchanged.versions.last()?,
                leaf.serial.short()
            )),
            (_, Some(rose @ 1..)) => Some(format!(
                "in {} Envoy took {rose} update{} of {} (update_success), and the certificate stayed serial {}",
                span(seconds),
                if rose == 1 { "" } else { "s" },
                p.svid,
                leaf.serial.short()
            )),
            // In one look, what its process counted since it started.
            _ => in_vain_since_start(self.ledger, p, u64::MAX, (leaf.not_before, leaf.not_after)),
        }
    }

    /// What the counters of its secret say, where they are shown; `refused`: what config_dump has, no context holds.
    fn counters(&self, standing: &mut Standing, refused: bool) -> Vec<String> {
        let Some(sample) = self.p.stats.last() else { return Vec::new() };
        let name = &self.p.svid;
        let value = |suffix: &str| {
            let stat = self.p.sds_stat(suffix);
            sample.values.iter().find(|(n, _)| is_stat(n, &stat)).map(|(_, value)| *value)
        };
        let mut said = Vec::new();
        let rejected = self.p.sds_stat("update_rejected");
        match (value("update_rejected"), self.p.risen(u64::MAX, |n| is_stat(n, &rejected))) {
            (Some(n @ 1..), rose) if refused || rose > Some(0) => {
                said.push(format!("Envoy counts {n} refused updates of {name} (update_rejected)"));
                standing.suspected.extend(["nack-key-mismatch", "nack-bad-pem", "nack-chain-one-block"]);
            }
            // A refused one would stand in config_dump.
            (Some(n @ 1..), _) => standing.comes.push(format!(
                "Envoy counts {n} refused updates of {name} since its process started (update_rejected), none of them lately"
            )),
            _ => {}
        }
        let (own, bundle) =
            (self.p.sds_stat("update_success"), format!("sds.{}.update_success", SecretName::root_ca()));
        let rose = |stat: &str| self.p.risen(u64::MAX, |n| is_stat(n, stat));
        if let (Some(0), Some(n @ 1..), true) = (rose(&own), rose(&bundle), standing.is_late()) {
            let s = if n == 1 { "" } else { "s" };
            said.push(format!(
                "Envoy took {n} update{s} of its trust bundle meanwhile (update_success), and none of {name}"
            ));
            standing.suspected.extend(["bundle-only", "starved-by-bundle-churn"]);
        }
        if value("control_plane.connected_state") == Some(0) {
            said.push(format!("Envoy has no stream for {name} now (connected_state is 0)"));
            standing.suspected.extend(["stream-refused", "socket-gone", "stale-bind-mount"]);
        }
        said
    }

    /// From whom the configuration says that it comes, and what Istio's agent said of that at its start.
    fn comes(&self) -> Vec<String> {
        let p = self.p;
        let told = p.dumps.iter().rev().find(|d| !d.subscriptions.is_empty()).map(|d| d.subscriptions);
        let own = told.unwrap_or_default().iter().filter(|s| s.name == p.svid.as_str());
        let mut said: Vec<String> = own
            .map(|s| {
                let way = match s.by {
                    SourceKind::Stream => "on a gRPC stream from",
                    SourceKind::File => "from the file",
                    SourceKind::Other => "from",
                };
                format!("{} comes {way} {}", p.svid, s.from)
            })
            .collect();
        let fixed = p.dumps.iter().rev().find(|d| !d.static_contexts.is_empty()).map_or(&[][..], |d| d.static_contexts);
        if said.is_empty() && !fixed.is_empty() {
            said.push(format!("by its configuration, from no stream: {}", fixed[0].from));
        }
        let says = |word: &str| p.logs.iter().any(|(_, line)| line.contains(word));
        if says(AGENT_FOUND_SOCKET) {
            said.push(
                "Istio's agent found the provider's socket at its start and stands aside: it serves files only".into(),
            );
        } else if says(AGENT_SERVES) {
            said.push(
                "Istio's agent found no provider's socket at its start: it serves certificates of Istio's own CA"
                    .into(),
            );
        }
        said
    }

    fn unseen(&self) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        // What failed once may have been answered since.
        let last = self.p.loads.last().map_or(0, |load| load.mark.seq);
        for (mark, what) in &self.p.blind {
            if (self.p.loads.is_empty() || mark.seq > last) && !said.contains(what) {
                said.push(what.clone());
            }
        }
        said
    }
}
