//! What Envoy's own log tells of SDS, while its logger `config` was at debug.

use super::evidence::{clock_time, held_since, span};
use crate::timeline::ledger::{Mark, ProxyLedger};
use crate::timeline::{CONFIG_AT_DEBUG, CONFIG_PUT_BACK, CONFIG_UNHEARD, SdsMessage};

/// Envoy opens a stream again within half a minute: one that is not up shows in so many seconds.
const DIALS_WITHIN: i64 = 60;
/// Envoy tries again within half a minute: a stream that failed so many seconds ago, and nothing since, is up.
const TRIES_WITHIN: i64 = 40;
/// Who listened for less than so many seconds can't say that nothing comes.
const LISTENED: i64 = 20;

/// What became of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A TLS context was made anew.
    New,
    /// It brought what was there.
    Same,
    Refused(&'static str),
    /// The log ends in the middle of it.
    Open,
}

/// One response. Of which secret, Envoy does not say.
struct Update {
    mark: Mark,
    version: String,
    outcome: Outcome,
}

/// What was heard, from when to when.
pub(super) struct Activity {
    from: Mark,
    until: Mark,
    /// Since when its contexts hold the certificate that they hold, or since the beginning.
    held: Mark,
    /// The last look at its contexts.
    looked: u64,
    updates: Vec<Update>,
    /// The last end of a stream.
    closed: Option<u64>,
    failures: Option<Failures>,
}

/// Ends of a proxy's SDS streams since the last response that was heard, as far as Envoy's own log tells: it writes them at the
/// level that it has by default too, when they last.
pub(super) struct Failures {
    last: Mark,
    times: usize,
    status: u8,
    unconnected: bool,
    failing_s: Option<u64>,
}

impl Failures {
    pub(super) fn of(p: &ProxyLedger) -> Option<Self> {
        let mut failures = None::<Self>;
        for (mark, line) in &p.logs {
            match SdsMessage::of_message(line) {
                Some(SdsMessage::Received { .. }) => failures = None,
                Some(SdsMessage::Closed { status, unconnected, failing_s }) => {
                    let times = failures.map_or(0, |before| before.times) + 1;
                    failures = Some(Self { last: *mark, times, status, unconnected, failing_s });
                }
                _ => {}
            }
        }
        failures
    }

    /// Whether none has come up when it was looked at last.
    fn last(&self, p: &ProxyLedger) -> bool {
        let looked = p.loads.last().map_or(self.last, |load| load.mark);
        let again = self.times > 1 || self.failing_s.is_some();
        again && looked.at.wall.duration_since(self.last.at.wall).as_secs() <= TRIES_WITHIN
    }

    /// When the last one was.
    pub(super) fn at(&self) -> jiff::Timestamp {
        self.last.at.wall
    }

    /// Those that last.
    pub(super) fn lasting(p: &ProxyLedger) -> Option<Self> {
        Self::of(p).filter(|failures| failures.last(p))
    }

    /// What it may be.
    pub(super) fn modes(&self) -> &'static [&'static str] {
        match (self.unconnected, self.times) {
            (true, _) => &["socket-gone", "stale-bind-mount"],
            // How the next try ends is not known.
            (false, 1) => &["stream-refused", "socket-gone", "stale-bind-mount"],
            (false, _) => &["stream-refused"],
        }
    }

    /// In words.
    pub(super) fn told(&self) -> String {
        let (at, status) = (clock_time(self.last.at.wall), self.status);
        let how = if self.unconnected { ": its socket can't be connected to" } else { "" };
        match self.failing_s {
            Some(seconds) => {
                format!(
                    "Envoy's own log tells of no stream to the provider for {} (the last try at {at}, gRPC status {status}{how})",
                    span(i64::try_from(seconds).unwrap_or(i64::MAX))
                )
            }
            None => format!(
                "Envoy's own log tells that its streams to the provider ended or failed {} (the last at {at}, gRPC status \
                 {status}{how}), and of no SDS update since",
                if self.times == 1 { "once".to_owned() } else { format!("{} times", self.times) }
            ),
        }
    }
}

/// The last response that was refused, and why: of those that its own log tells of, where none was accepted since. Envoy writes
/// that as a warning.
pub(super) fn refusal(p: &ProxyLedger) -> Option<(Mark, &'static str)> {
    p.logs.iter().fold(None, |last, (mark, line)| match SdsMessage::of_message(line) {
        Some(SdsMessage::Refused { reason }) => Some((*mark, reason)),
        Some(SdsMessage::Accepted { .. }) => None,
        _ => last,
    })
}

/// What a refusal for this reason may be.
pub(super) fn refused_modes(reason: &str) -> &'static [&'static str] {
    match reason {
        _ if reason.contains("private key") => &["nack-key-mismatch"],
        _ if reason.contains("certificate") => &["nack-bad-pem", "nack-chain-one-block", "nack-leaf-not-first"],
        "Unexpected SDS secret" => &["wrong-secret-kind"],
        _ => &["nack-key-mismatch", "nack-bad-pem", "nack-chain-one-block"],
    }
}

impl Activity {
    /// Absent where the level was not raised, or nothing could be heard.
    pub(super) fn of(p: &ProxyLedger) -> Option<Self> {
        let (from, _) = p.logs.iter().find(|(_, line)| line.starts_with(CONFIG_AT_DEBUG))?;
        let unheard = p.blind.iter().find(|(mark, what)| mark.seq > from.seq && what.starts_with(CONFIG_UNHEARD));
        let back = p.logs.iter().find(|(mark, line)| mark.seq > from.seq && line.starts_with(CONFIG_PUT_BACK));
        let ends = [unheard.map(|(mark, _)| *mark), back.map(|(mark, _)| *mark)];
        let last = p.logs.last().map(|(mark, _)| *mark).into_iter().chain(p.loads.last().map(|load| load.mark));
        let until = ends.into_iter().flatten().min_by_key(|mark| mark.seq).or(last.max_by_key(|mark| mark.seq))?;
        let held = held_since(p).filter(|held| held.seq > from.seq).unwrap_or(*from);
        let looked = p.loads.last().map_or(0, |load| load.mark.seq);
        let mut heard =
            Self { from: *from, until, held, looked, updates: Vec::new(), closed: None, failures: Failures::of(p) };
        let mut made_anew = false;
        for (mark, line) in p.logs.iter().filter(|(mark, _)| mark.seq > from.seq && mark.seq <= until.seq) {
            match SdsMessage::of_message(line) {
                Some(SdsMessage::Received { version }) => {
                    made_anew = false;
                    heard.updates.push(Update { mark: *mark, version, outcome: Outcome::Open });
                }
                Some(SdsMessage::Updated) => made_anew = true,
                Some(SdsMessage::Accepted { .. }) => {
                    heard.conclude(if made_anew { Outcome::New } else { Outcome::Same });
                }
                Some(SdsMessage::Refused { reason }) => heard.conclude(Outcome::Refused(reason)),
                Some(SdsMessage::Closed { .. }) => heard.closed = Some(mark.seq),
                None => {}
            }
        }
        Some(heard)
    }

    fn conclude(&mut self, outcome: Outcome) {
        if let Some(update) = self.updates.last_mut().filter(|update| update.outcome == Outcome::Open) {
            update.outcome = outcome;
        }
    }

    /// Responses from this moment on.
    fn since(&self, from: Mark) -> impl Iterator<Item = &Update> {
        self.updates.iter().filter(move |update| update.mark.seq > from.seq)
    }

    /// Whether responses came since its contexts hold what they hold, and none brought anything new.
    pub(super) fn in_vain(&self) -> bool {
        let mut lately = self.since(self.held).peekable();
        lately.peek().is_some() && lately.all(|update| update.outcome == Outcome::Same)
    }

    /// Whether no response came since its contexts hold what they hold, for long enough to say so.
    pub(super) fn silent(&self) -> bool {
        let seconds = self.until.at.wall.duration_since(self.held.at.wall).as_secs();
        seconds >= LISTENED && self.since(self.held).next().is_none()
    }

    /// Whether it was silent for as long as renewals are apart: to have listened for less rules out nothing that comes with them.
    pub(super) fn silent_for(&self, interval: i64) -> bool {
        self.silent() && self.until.at.wall.duration_since(self.held.at.wall).as_secs() >= interval
    }

    /// Whether it was heard for long enough to say anything.
    pub(super) fn tells(&self) -> bool {
        !self.updates.is_empty() || self.until.at.wall.duration_since(self.from.at.wall).as_secs() >= LISTENED
    }

    /// Whether any response came since its contexts hold what they hold.
    pub(super) fn hears(&self) -> bool {
        self.since(self.held).next().is_some()
    }

    /// How many responses were refused.
    pub(super) fn refused(&self) -> u64 {
        self.updates.iter().filter(|update| matches!(update.outcome, Outcome::Refused(_))).count() as u64
    }

    /// Whether there was a stream at the end; absent where that can't be told yet.
    pub(super) fn connected(&self) -> Option<bool> {
        let answered = self.updates.last().map(|update| update.mark.seq);
        match self.closed {
            // Of two streams, one may be up again when the other was heard to end.
            Some(ended) => answered.is_none_or(|seq| seq < ended).then_some(false),
            None => {
                let seconds = self.until.at.wall.duration_since(self.from.at.wall).as_secs();
                (answered.is_some() || seconds >= DIALS_WITHIN).then_some(true)
            }
        }
    }

    /// How its streams failed, where there was none at the end.
    pub(super) fn lost(&self) -> Option<&Failures> {
        self.failures.as_ref().filter(|_| self.connected() == Some(false))
    }

    /// Of which observations it speaks.
    pub(super) fn evidence(&self) -> Vec<u64> {
        vec![self.from.seq, self.updates.last().map_or(self.until.seq, |update| update.mark.seq)]
    }

    /// What it comes to since its contexts hold what they hold.
    pub(super) fn lately(&self) -> String {
        self.told(self.held)
    }

    /// The same of the whole time.
    pub(super) fn all(&self) -> String {
        self.told(self.from)
    }

    fn told(&self, from: Mark) -> String {
        let time = span(self.until.at.wall.duration_since(from.at.wall).as_secs());
        let updates: Vec<_> = self.since(from).collect();
        let Some(last) = updates.last() else {
            return format!("Envoy's own log tells of no SDS update in {time}");
        };
        let at = clock_time(last.mark.at.wall);
        let new = updates.iter().filter(|update| update.outcome == Outcome::New).count();
        let brought = match (updates.len(), new) {
            (1, 0) => "it brought nothing new".to_owned(),
            (1, _) => "it brought something new".to_owned(),
            (_, 0) => "none brought anything new".to_owned(),
            (all, new) if new == all => "each brought something new".to_owned(),
            (_, new) => format!("{new} of them brought something new"),
        };
        let s = if updates.len() == 1 { "" } else { "s" };
        let n = updates.len();
        format!(
            "Envoy's own log tells of {n} SDS update{s} in {time} (the last at {at}, version {}): {brought}",
            last.version
        )
    }

    /// What is wrong by it, each in a sentence, with the modes that it fits. `late`: a renewal should have come.
    pub(super) fn remarks(&self, late: bool) -> Vec<(String, &'static [&'static str])> {
        let mut said: Vec<(String, &'static [&'static str])> = Vec::new();
        // What came after the last look may be the renewal.
        let other = |update: &Update| update.outcome == Outcome::New && update.mark.seq < self.looked;
        let lost = self.lost();
        if late && self.in_vain() {
            said.push((self.lately(), &["resend-cached", "resend-stale", "never-renews"]));
        } else if late && lost.is_none() && self.silent() {
            said.push((self.lately(), &["never-renews", "issues-never-pushes", "provider-frozen"]));
        } else if late && self.since(self.held).any(other) {
            // What came again may be the certificate.
            let again = self.since(self.held).any(|update| update.outcome == Outcome::Same);
            let modes: &[&str] = match again {
                true => &["bundle-only", "starved-by-bundle-churn", "resend-cached", "resend-stale"],
                false => &["bundle-only", "starved-by-bundle-churn"],
            };
            said.push((self.lately() + ", and its certificate stayed", modes));
        }
        let refused = self.updates.iter().rev().find_map(|update| match update.outcome {
            Outcome::Refused(reason) => Some((update.mark, reason)),
            _ => None,
        });
        if let Some((mark, reason)) = refused {
            let (n, at) = (self.refused(), clock_time(mark.at.wall));
            let modes = refused_modes(reason);
            said.push((
                format!("Envoy's own log tells of {n} refused SDS updates (the last at {at}): {reason}"),
                modes,
            ));
        }
        if let Some(failures) = lost {
            said.push((failures.told(), failures.modes()));
        }
        said
    }
}
