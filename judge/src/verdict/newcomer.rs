//! What whoever subscribes anew is given at one proxy's own socket: the provider seen from beside the proxy.

use super::activity::Failures;
use super::connection::is_connected;
use super::evidence::interval_of_held;
use crate::timeline::ledger::{Asked, Mark, ProxyLedger};
use crate::timeline::{CertFacts, Ledger};

/// Subscriptions of the harness's own through a proxy's socket.
pub(super) struct Newcomers<'a> {
    asked: Vec<&'a Asked<'a>>,
    identity: Option<&'a str>,
}

/// What was given last to somebody who came anew.
pub(super) struct Given<'a> {
    /// When.
    pub(super) mark: Mark,
    /// It.
    pub(super) leaf: &'a CertFacts,
    /// Whether somebody else was given it too: then it was not minted for the asking. Providers date certificates back, each
    /// by another time, so that notBefore alone does not tell.
    pub(super) shared: bool,
}

/// What one who stayed was sent again.
pub(super) struct Again<'a> {
    /// The last time.
    pub(super) mark: Mark,
    /// It.
    pub(super) leaf: &'a CertFacts,
    /// How often it came under another version than before.
    pub(super) times: usize,
}

impl<'a> Newcomers<'a> {
    /// None where nobody asked.
    pub(super) fn of(ledger: &'a Ledger<'a>, p: &'a ProxyLedger<'a>) -> Option<Self> {
        let asked: Vec<_> = ledger.witness.iter().filter(|asked| asked.proxy == Some(&p.id)).collect();
        (!asked.is_empty()).then_some(Self { asked, identity: p.spiffe_id.as_deref() })
    }

    /// Another identity's certificate says nothing about this proxy's.
    fn is_own(&self, leaf: &CertFacts) -> bool {
        self.identity.is_none_or(|id| leaf.uris.iter().any(|uri| uri == id))
    }

    /// When the last one subscribed, if none was answered; and how it was sent away, if it was.
    pub(super) fn unanswered(&self) -> Option<(Mark, Option<&'a str>)> {
        let none = self.asked.iter().all(|asked| asked.answered.is_none());
        self.asked.last().filter(|_| none).map(|asked| (asked.mark, asked.ended.map(|(_, how)| how)))
    }

    /// When some were answered.
    fn answered(&self) -> impl Iterator<Item = Mark> {
        self.asked.iter().filter_map(|asked| asked.answered)
    }

    pub(super) fn given(&self) -> Option<Given<'a>> {
        self.all().next()
    }

    /// What several were given, the last first.
    pub(super) fn shared(&self) -> impl Iterator<Item = Given<'a>> {
        self.all().filter(|given| given.shared)
    }

    /// What newcomers were given, the last first.
    fn all(&self) -> impl Iterator<Item = Given<'a>> {
        self.asked.iter().rev().filter_map(|asked| {
            let (mark, leaf) = (asked.answered?, asked.leaf.filter(|leaf| self.is_own(leaf))?);
            let has = |other: &&&Asked<'_>| other.came.iter().any(|(.., came)| came.fingerprint == leaf.fingerprint);
            let shared = self.asked.iter().filter(has).count() > 1;
            Some(Given { mark, leaf, shared })
        })
    }

    pub(super) fn again(&self) -> Option<Again<'a>> {
        let of_one = |asked: &&'a Asked<'a>| {
            let (mark, _, leaf) = asked.came.last().filter(|(.., leaf)| self.is_own(leaf))?;
            let same = asked.came.iter().rev().take_while(|(.., came)| came.fingerprint == leaf.fingerprint);
            let mut versions: Vec<_> = same.map(|(_, version, _)| version).collect();
            versions.dedup();
            let times = versions.len().saturating_sub(1);
            (times > 0).then_some(Again { mark: *mark, leaf, times })
        };
        self.asked.iter().filter_map(of_one).max_by_key(|again| again.times)
    }
}

/// Whether this came to the proxy, whatever became of it: config_dump has shown it.
pub(super) fn came(p: &ProxyLedger, leaf: &CertFacts) -> bool {
    let dumped = p.dumps.iter().filter_map(|dump| dump.active(&p.svid)?.chain.first());
    dumped.into_iter().any(|dumped| (&dumped.serial, dumped.not_after) == (&leaf.serial, leaf.not_after))
}

/// Whether it can't be this mode. One is neither frozen nor gone that gives something to whoever comes anew; when no renewal of what
/// the proxy holds was due yet, one that froze later answered too; and between two answers the proxy has to have tried in vain.
/// And the socket is there to which the proxy keeps a connection.
pub(super) fn rules_out(ledger: &Ledger, p: &ProxyLedger, mode: &str) -> bool {
    let answered_when = |fits: &dyn Fn(jiff::Timestamp) -> bool| {
        Newcomers::of(ledger, p).is_some_and(|newcomers| newcomers.answered().any(|mark| fits(mark.at.wall)))
    };
    let held = p.loads.last().and_then(|load| load.own.first());
    let due = |at: jiff::Timestamp| {
        held.is_some_and(|held| at.duration_since(held.not_before).as_secs() >= interval_of_held(ledger, p))
    };
    let tried = Failures::of(p).map(|failures| failures.at());
    match mode {
        "provider-frozen" => answered_when(&due),
        "socket-gone" => {
            let around = |tried| answered_when(&|at| due(at) && at < tried) && answered_when(&|at| at > tried);
            tried.map_or_else(|| answered_when(&due), around) || is_connected(p)
        }
        "stale-bind-mount" => is_connected(p),
        _ => false,
    }
}
