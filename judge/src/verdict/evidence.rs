//! Questions about the ledger that several checks ask.

use std::collections::BTreeSet;
use std::time::Duration;

use super::activity::Activity;
use crate::timeline::ledger::{Generation, Load, Mark, MintedFor, ProxyLedger, Push, Row, Served, Stream};
use crate::timeline::{CertFacts, Ledger, Payload, Signed, TlsRole};

/// Within so long of a subscription, what is minted was minted for it.
pub(super) const MINTED_FOR_ASKER: Duration = Duration::from_secs(2);

pub(super) const ROLES: [TlsRole; 2] = [TlsRole::Inbound, TlsRole::Outbound];

/// `14:10:56`, UTC: what people compare with their logs.
pub(super) fn clock_time(t: jiff::Timestamp) -> String {
    t.strftime("%H:%M:%S").to_string()
}

/// `12 min`, `8 s`: whole and rounded down, the largest unit that leaves two digits of meaning.
pub(super) fn span(seconds: i64) -> String {
    let s = seconds.saturating_abs();
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// As `span`; below ten seconds also with what is no whole second: `340 ms`, `2.5 s`.
pub(super) fn span_ms(ms: i64) -> String {
    match ms.saturating_abs() {
        ms @ 1..1000 => format!("{ms} ms"),
        ms @ 1000..10_000 if ms % 1000 >= 100 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => span(ms / 1000),
    }
}

/// How close a new certificate was sent to the end of the old one, of which this much was left.
pub(super) fn sent_only(cert: &CertFacts, left: jiff::SignedDuration) -> String {
    let side = if left.is_positive() { "before" } else { "after" };
    let serial = cert.serial.short();
    format!(
        "serial {serial} was sent only {} {side} the expiry of the old certificate",
        span_ms(i64::try_from(left.as_millis()).unwrap_or(i64::MAX))
    )
}

/// What stands above a leaf, by its kind and name.
pub(super) fn authority(cert: &CertFacts) -> String {
    let kind = if cert.subject == cert.issuer { "the authority" } else { "the intermediate" };
    format!("{kind} above it ({})", cert.subject)
}

pub(super) fn role_name(role: TlsRole) -> &'static str {
    match role {
        TlsRole::Inbound => "inbound",
        TlsRole::Outbound => "outbound",
    }
}

/// The certificate that all of the proxy's renewals are counted from: the first that it served.
pub(super) fn first_served<'a>(p: &'a ProxyLedger<'a>) -> Option<(&'a Served<'a>, &'a CertFacts)> {
    p.full_handshakes(TlsRole::Inbound).next().or_else(|| p.full_handshakes(TlsRole::Outbound).next())
}

/// What can be wrong with a leaf from the day it was minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    Expired,
    NotYetValid,
    WrongIdentity,
    SeveralIdentities,
}

impl Defect {
    /// The mode that it is.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Defect::Expired => "expired-on-arrival",
            Defect::NotYetValid => "not-yet-valid",
            Defect::WrongIdentity => "wrong-identity",
            Defect::SeveralIdentities => "several-identities",
        }
    }
}

/// Whether the leaf was unfit when it was first seen. `seen` must be the moment of its minting or sending, or a
/// moment at which it replaced another one: an old leaf found expired at the first look is not defective as issued.
pub(super) fn defect(cert: &CertFacts, seen: jiff::Timestamp, identity: Option<&str>) -> Option<Defect> {
    if identity.is_some_and(|id| cert.uris.len() > 1 && cert.uris.iter().any(|uri| uri == id)) {
        Some(Defect::SeveralIdentities)
    } else if identity.is_some_and(|id| cert.uris.len() != 1 || cert.uris[0] != id) {
        Some(Defect::WrongIdentity)
    } else if cert.not_after <= seen {
        Some(Defect::Expired)
    } else if cert.not_before > seen {
        Some(Defect::NotYetValid)
    } else {
        None
    }
}

/// The moment from which the provider answers for the leaf: minted, or else sent; absent where the leaf may be older
/// than the recording's knowledge of it.
pub(super) fn delivered_by_provider(ledger: &Ledger, p: &ProxyLedger, row: &Row) -> Option<Mark> {
    if let Some(issue) = ledger.generations.get(&row.generation).and_then(|g| g.issued.first()) {
        return Some(issue.mark);
    }
    let shown = [row.inbound.first(), row.outbound.first()].into_iter().flatten().min_by_key(|m| m.seq).copied();
    if let Some(sent) = row.sent.first() {
        // A stream that says that it held a version already, or a proxy that showed it before: an old acquaintance.
        let first = p.rows.iter().find(|r| r.sends > 0).is_some_and(|r| r.generation == row.generation);
        let held = p.certificate_streams().next().and_then(|s| s.subscriptions.first());
        let held = held.is_some_and(|s| !s.version_info.is_empty());
        let shown_before = shown.is_some_and(|m| m.seq < sent.seq);
        let known_before = shown_before || (first && held);
        return (!known_before).then_some(*sent);
    }
    // Nobody saw it coming, but it took the place of another leaf in the proxy's handshakes. Then it was unfit when it
    // came if it had been so at the last look before.
    let shown = shown?;
    let before = p.served.iter().rfind(|s| s.mark.seq < shown.seq && s.leaf().is_some())?;
    let expired_meanwhile = row.cert.not_after <= shown.at.wall && row.cert.not_after > before.mark.at.wall;
    (!expired_meanwhile).then_some(shown)
}

/// Whether what is served came from elsewhere: neither minted for anybody nor sent to this proxy, though its streams
/// were seen. What it held before its first response was seen may be older than the recording.
pub(super) fn is_stranger(ledger: &Ledger, p: &ProxyLedger, row: &Row) -> bool {
    if !ledger.streams_seen || row.sends > 0 || row.minted_for > MintedFor::Others {
        return false;
    }
    // What names a file, for example, holds a certificate that nobody saw on the stream.
    let unread =
        |push: &Push| matches!(push.delivered(&p.svid), Some(Payload::Certificate { chain, .. }) if chain.is_empty());
    if p.pushes_of(&p.svid).any(|push| push.accepted() && unread(push)) {
        return false;
    }
    let first_shown = [row.inbound.first(), row.outbound.first()].into_iter().flatten().map(|m| m.seq).min();
    let first_push = p.pushes_of(&p.svid).next().map_or(u64::MAX, |push| push.mark.seq);
    let streams = p.certificate_streams().next().is_some();
    !(streams && first_shown.is_some_and(|seq| seq < first_push))
}

/// Generations meant for this proxy, in the order in which they were first seen: minted for it, or sent to it.
pub(super) fn due<'a>(ledger: &'a Ledger<'a>, p: &'a ProxyLedger<'a>) -> Vec<(&'a Row<'a>, &'a Generation<'a>)> {
    p.rows
        .iter()
        .filter_map(|row| Some((row, ledger.generations.get(&row.generation)?)))
        .filter(|(row, _)| row.sends > 0 || row.minted_for > MintedFor::Others)
        .collect()
}

/// What a provider's log says that it signed for the identity of this proxy between two observations, and that was not
/// sent to it. What a log tells just after somebody subscribed may have been minted for that subscriber: of a provider
/// that mints per stream, the streams of the bundle get certificates too.
pub(super) fn signed_and_not_sent(ledger: &Ledger, p: &ProxyLedger, from: u64, to: u64) -> Vec<Mark> {
    let own = |s: &Signed| p.spiffe_id.as_ref().is_none_or(|id| *id == s.spiffe_id);
    let sent = |s: &Signed| p.rows.iter().any(|row| row.sends > 0 && s.is(row.cert));
    let opened = || {
        let streams = ledger.proxies.iter().flat_map(|p| &p.streams).map(|s| s.opened);
        streams.chain(ledger.witness.iter().map(|asked| asked.mark))
    };
    let for_asker = |at: Mark| {
        let since = |opened: Mark| Duration::try_from(at.at.wall.duration_since(opened.at.wall)).ok();
        opened().filter(|opened| opened.seq < at.seq).filter_map(since).any(|since| since <= MINTED_FOR_ASKER)
    };
    let between = ledger.signed.iter().filter(|(mark, _)| mark.seq > from && mark.seq < to);
    between.filter(|(mark, s)| own(s) && !sent(s) && !for_asker(*mark)).map(|(mark, _)| *mark).collect()
}

/// Responses on the streams of the proxy's own certificate, after `from` and before `to`.
pub(super) fn pushes_between<'a>(p: &'a ProxyLedger<'a>, from: u64, to: u64) -> Vec<&'a Push<'a>> {
    p.pushes_of(&p.svid).filter(|push| push.mark.seq > from && push.mark.seq < to).collect()
}

/// Longest time for which the harness itself did not run between two moments, in seconds. Who stood still says so only
/// when it goes on, and others that stood still with it may be quicker.
pub(super) fn longest_stall(ledger: &Ledger, from: Option<Mark>, to: Mark) -> u64 {
    let began = |end: &Mark, gap_ms: u64| end.at.mono.saturating_sub(Duration::from_millis(gap_ms));
    let within = ledger.stalls.iter().filter(|(end, gap_ms)| {
        from.is_none_or(|from| end.seq >= from.seq) && (end.seq <= to.seq || began(end, *gap_ms) <= to.at.mono)
    });
    within.map(|(_, ms)| ms.div_ceil(1000)).max().unwrap_or(0)
}

/// Whether a sight that came `late` seconds too late is explained by a harness that did not run at that time: it may
/// have noted late what it saw, or renewed late what it was to renew.
pub(super) fn stall_explains(ledger: &Ledger, at: Mark, late: i64) -> bool {
    ledger.stalls.iter().any(|(end, gap_ms)| {
        let gap = Duration::from_millis(*gap_ms);
        let from = end.at.mono.saturating_sub(gap);
        let until = end.at.mono.saturating_add(gap);
        u64::try_from(late).is_ok_and(|late| late <= gap.as_secs().saturating_add(1))
            && (from..=until).contains(&at.at.mono)
    })
}

/// Whether it is this statistic, under whatever prefix.
pub(super) fn is_stat(name: &str, stat: &str) -> bool {
    name.strip_suffix(stat).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

/// What Envoy says of its certificate's secret since its contexts hold the one leaf that they hold now.
pub(super) struct Unchanged<'a> {
    /// Since when.
    pub(super) since: Mark,
    /// The secret's version at each look at config_dump.
    pub(super) versions: Vec<&'a str>,
    /// Updates that it counts, where it shows them; none, where its own log says so.
    pub(super) updates: Option<u64>,
}

impl Unchanged<'_> {
    /// How many versions there were.
    pub(super) fn distinct(&self) -> usize {
        self.versions.iter().collect::<BTreeSet<_>>().len()
    }

    /// Whether it took updates and changed nothing; absent where it does not tell.
    pub(super) fn updated(&self) -> Option<bool> {
        if self.distinct() > 1 { Some(true) } else { self.updates.map(|n| n > 0) }
    }
}

/// The first look that showed the one leaf which its contexts hold; absent where they hold none, or several.
pub(super) fn held_since(p: &ProxyLedger) -> Option<Mark> {
    let [leaf] = &*p.loads.last()?.own else { return None };
    let same = |load: &&Load| load.own.len() == 1 && load.own[0].serial == leaf.serial;
    Some(p.loads.iter().rev().take_while(same).last()?.mark)
}

/// Absent where its contexts hold none, or several.
pub(super) fn unchanged<'a>(ledger: &Ledger, p: &'a ProxyLedger<'a>) -> Option<Unchanged<'a>> {
    let since = held_since(p)?;
    let dumps = p.dumps.iter().filter(|d| d.mark.seq > since.seq);
    let versions = dumps.filter_map(|d| d.active(&p.svid)).map(|s| s.version_info.as_str()).collect();
    let stat = p.sds_stat("update_success");
    let counted = p.stats.iter().filter(|s| s.mark.seq > since.seq);
    let counted: Vec<_> = counted.filter_map(|s| Some((s.mark, s.sum(|name| is_stat(name, &stat))?))).collect();
    let updates = counted.first().zip(counted.last()).and_then(|((_, from), (at, to))| {
        let rose = to.saturating_sub(*from);
        (rose > 0 || tells_of_none(ledger, p, (since, *at), "update_success")).then_some(rose)
    });
    let silent = || Activity::of(p).is_some_and(|heard| heard.silent_for(interval_of_held(ledger, p))).then_some(0);
    Some(Unchanged { since, versions, updates: updates.or_else(silent) })
}

/// Whether a counter of its certificate's secret that did not rise between two looks says that nothing came: they were as far
/// apart as renewals are, or it tells of all the time since its process started.
pub(super) fn tells_of_none(ledger: &Ledger, p: &ProxyLedger, (from, to): (Mark, Mark), suffix: &str) -> bool {
    let stat = p.sds_stat(suffix);
    let at = p.stats.iter().rfind(|s| s.mark.seq <= to.seq).and_then(|s| s.sum(|name| is_stat(name, &stat)));
    // The first that came is none that came later.
    let since = match (at, suffix) {
        (Some(0), _) => return true,
        (Some(1), "update_success") => match p.started(to.seq) {
            Some(started) => started.min(from.at.wall),
            None => return true,
        },
        _ => from.at.wall,
    };
    to.at.wall.duration_since(since).as_secs() >= interval_of_held(ledger, p)
}

/// How often renewals of what its contexts hold are due, seconds; none, where they hold nothing.
pub(super) fn interval_of_held(ledger: &Ledger, p: &ProxyLedger) -> i64 {
    let leaf = p.loads.last().and_then(|load| load.own.first());
    leaf.map_or(0, |leaf| renewal_interval(ledger, leaf.not_before, leaf.not_after))
}

/// How often renewals of a certificate are due, seconds: as it was named, else half of its lifetime, when most providers renew.
pub(super) fn renewal_interval(ledger: &Ledger, not_before: jiff::Timestamp, not_after: jiff::Timestamp) -> i64 {
    ledger.header.criteria.interval().unwrap_or_else(|| not_after.duration_since(not_before).as_secs() / 2).max(1)
}

/// Updates of its certificate that its process took, where it holds the one that it started with, and they are as many as
/// if renewals had come all the time; in words. A few come at the start, of providers that tell whatever changes.
pub(super) fn in_vain_since_start(
    ledger: &Ledger,
    p: &ProxyLedger,
    sampled: u64,
    (not_before, not_after): (jiff::Timestamp, jiff::Timestamp),
) -> Option<String> {
    const AT_THE_START: u64 = 3;
    let sample = p.stats.iter().rfind(|s| s.mark.seq <= sampled)?;
    let (stat, started) = (p.sds_stat("update_success"), p.started(sampled)?);
    let updates = sample.sum(|name| is_stat(name, &stat))?;
    let every = renewal_interval(ledger, not_before, not_after);
    let seconds = sample.mark.at.wall.duration_since(started).as_secs();
    let due = u64::try_from(seconds / every).unwrap_or(0);
    // Before its second renewal is due, it may well hold its first.
    let first = due >= 2 && not_before.duration_since(started).as_secs() < every;
    (first && updates > AT_THE_START.max(due / 4 * 3)).then(|| {
        format!(
            "in the {} since its start Envoy took {updates} updates of {} (update_success), and holds the certificate that it \
             started with",
            span(seconds),
            p.svid
        )
    })
}

/// A stream for the proxy's certificate that was open at this observation. One that ended soon and without a response was an
/// attempt that was refused; one that lasted was open, though its provider had nothing to say to somebody who held a version.
pub(super) fn stream_open_at<'a>(ledger: &Ledger, p: &'a ProxyLedger<'_>, seq: u64) -> Option<&'a Stream> {
    let served = |number: u64| p.pushes.iter().any(|push| push.stream == number);
    let lasted = |s: &Stream, end: Mark| {
        let real =
            end.at.mono.saturating_sub(s.opened.at.mono).as_millis() > u128::from(ledger.header.criteria.lag_bound_ms);
        real || end.at.wall.duration_since(s.opened.at.wall).as_millis()
            > i128::from(ledger.header.criteria.lag_bound_ms)
    };
    let open = |s: &Stream, end: Mark| end.seq > seq && (served(s.number) || lasted(s, end));
    p.certificate_streams().find(|s| s.opened.seq < seq && s.end.as_ref().is_none_or(|end| open(s, end.mark)))
}
