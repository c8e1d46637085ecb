//! Whether new generations come, in time.

use std::collections::{BTreeMap, BTreeSet};

use super::{finding, or_holds};
use crate::timeline::ledger::{Answer, ProxyLedger, Served};
use crate::timeline::{CertFacts, Ledger, TlsRole};
use crate::verdict::evidence::{ROLES, clock_time, due, first_served, longest_stall, role_name, span};
use crate::verdict::summary::{margin as smallest_margin, margins};
use crate::verdict::{CheckResult, Finding};

pub(super) fn renewed(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "renewed_past_first_expiry";
    let wanted = ledger.header.criteria.newer_generations;
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let Some((first_shown, first)) = first_served(p) else { continue };
        for role in ROLES {
            let shown: Vec<_> = p.full_handshakes(role).collect();
            let Some((last, _)) = shown.last() else { continue };
            let newer: BTreeSet<_> =
                shown.iter().map(|(_, leaf)| &leaf.fingerprint).filter(|f| **f != first.fingerprint).collect();
            if newer.len() >= wanted as usize {
                continue;
            }
            let role = role_name(role);
            let past = last.mark.at.wall > first.not_after;
            let (result, message) = if past {
                let message = format!(
                    "{}: past the first expiry at {}, {role} handshakes have shown {} newer generations; {wanted} are demanded",
                    p.id,
                    clock_time(first.not_after),
                    newer.len(),
                );
                // Without any newer one it is a failure whatever the schedule; with some, the recording may be short.
                let short = !newer.is_empty()
                    && ledger.header.criteria.renew_every_s.is_some_and(|every| {
                        let passed = last.mark.at.wall.duration_since(first_shown.mark.at.wall).as_secs();
                        passed < i64::try_from(every * u64::from(wanted)).unwrap_or(i64::MAX)
                    });
                (if short { CheckResult::Undecided } else { CheckResult::Violated }, message)
            } else {
                let message =
                    format!("{}: the recording ends before the first expiry at {}", p.id, clock_time(first.not_after));
                (CheckResult::Undecided, message)
            };
            found.push(finding(NAME, result, message, vec![first_shown.mark.seq, last.mark.seq]).of(p).about(&p.svid));
            break;
        }
    }
    let generations = ledger
        .proxies
        .iter()
        .map(|p| p.full_handshakes(TlsRole::Inbound).map(|(_, leaf)| &leaf.fingerprint).collect::<BTreeSet<_>>().len());
    or_holds(found, NAME, format!("every proxy served {} or more generations", generations.min().unwrap_or(0)))
}

pub(super) fn newest_or_previous(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "newest_or_previous";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        // Where certificates are minted per stream, each stream has its own succession.
        let mut successions: BTreeMap<Option<u64>, Vec<(u64, &str)>> = BTreeMap::new();
        for (row, g) in due(ledger, p) {
            let stream = g.issued.first().and_then(|i| i.stream);
            successions.entry(stream).or_default().push((g.first.seq, row.generation.as_str()));
        }
        if let Some((s, leaf)) = stranger(ledger, p) {
            let message = format!(
                "{}: at {} a full handshake showed serial {} (SHA-256 {}...), which its provider neither minted for it nor sent to it",
                p.id,
                clock_time(s.mark.at.wall),
                leaf.serial.short(),
                &leaf.fingerprint.as_str()[..16],
            );
            found.push(finding(NAME, CheckResult::Violated, message, vec![s.mark.seq]).of(p).about(&p.svid));
            continue;
        }
        for role in ROLES {
            let behind = p.full_handshakes(role).find_map(|(s, leaf)| {
                let newer = successions.values().map(|line| {
                    let known = line.iter().filter(|(seq, _)| *seq < s.mark.seq);
                    known.rev().take_while(|(_, f)| *f != leaf.fingerprint.as_str()).count()
                });
                // In a succession in which the leaf does not stand at all, everything would count as newer.
                let stands = |line: &Vec<(u64, &str)>| line.iter().any(|(_, f)| *f == leaf.fingerprint.as_str());
                let behind = successions.values().zip(newer).filter(|(line, _)| stands(line)).map(|(_, n)| n).min()?;
                (behind > 1).then_some((s, leaf, behind))
            });
            if let Some((s, leaf, behind)) = behind {
                let message = format!(
                    "{}: at {} an {} handshake showed serial {}, {behind} generations behind the newest",
                    p.id,
                    clock_time(s.mark.at.wall),
                    role_name(role),
                    leaf.serial.short(),
                );
                found.push(finding(NAME, CheckResult::Violated, message, vec![s.mark.seq]).of(p).about(&p.svid));
                break;
            }
        }
    }
    or_holds(found, NAME, "what was served was never older than the generation before the newest")
}

/// A leaf that came from nowhere, where all that its provider sends was seen.
fn stranger<'a>(ledger: &Ledger, p: &'a ProxyLedger) -> Option<(&'a Served, &'a CertFacts)> {
    if !ledger.streams_seen {
        return None;
    }
    let known: BTreeSet<_> = due(ledger, p).into_iter().map(|(row, _)| &row.generation).collect();
    ROLES.into_iter().flat_map(|role| p.full_handshakes(role)).find(|(_, leaf)| !known.contains(&leaf.fingerprint))
}

pub(super) fn margin(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "renewal_margin";
    let floor_s = ledger.header.criteria.margin_floor_s;
    let floor = i64::try_from(floor_s).unwrap_or(i64::MAX).saturating_mul(1000);
    let mut found = Vec::new();
    for p in &ledger.proxies {
        for role in ROLES {
            // Only a handshake that still showed the old leaf below the floor proves that the new one was late; the
            // first sight of the new one may itself have come late.
            let Some(thin) = margins(p, role).into_iter().find(|m| m.left_when_old_ms < floor) else { continue };
            let left = thin.left_when_old_ms;
            let how = if left <= 0 {
                format!("{} after it had expired", span(left / 1000))
            } else {
                format!("with {} left of it", span(left / 1000))
            };
            let message = format!(
                "{}: an {} handshake still showed the old certificate {how}; the floor is {}",
                p.id,
                role_name(role),
                span(floor / 1000),
            );
            let stalled = longest_stall(ledger, 0, thin.new_seen) * 1000 > u64::try_from(floor).unwrap_or(0) / 2;
            let result = if stalled { CheckResult::Undecided } else { CheckResult::Violated };
            let evidence = vec![thin.old_seen, thin.new_seen];
            found.push(finding(NAME, result, message, evidence).of(p).about(&p.svid));
            break;
        }
    }
    let least = smallest_margin(ledger).map(|ms| format!("; the smallest was {}", span(ms / 1000)));
    or_holds(
        found,
        NAME,
        format!("no renewal came below the floor of {}{}", span(floor / 1000), least.unwrap_or_default()),
    )
}

pub(super) fn overdue(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "renewal_overdue";
    let Some(every) = ledger.header.criteria.renew_every_s.and_then(|s| i64::try_from(s).ok()).filter(|s| *s > 0)
    else {
        return vec![finding(NAME, CheckResult::Noted, "the interval of the renewals is not known", Vec::new())];
    };
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let hit = p.full_handshakes(TlsRole::Inbound).find_map(|(s, leaf)| {
            let since = p.row(&leaf.fingerprint)?.issued.first().or(p.row(&leaf.fingerprint)?.sent.first());
            let since = since.copied().unwrap_or_else(|| {
                p.full_handshakes(TlsRole::Inbound)
                    .find(|(_, l)| l.fingerprint == leaf.fingerprint)
                    .map_or(s.mark, |(first, _)| first.mark)
            });
            let age = s.mark.at.wall.duration_since(since.at.wall).as_secs();
            (age >= 2 * every).then_some((s, leaf, since, age))
        });
        let Some((s, leaf, since, age)) = hit else { continue };
        let late = age - every;
        let left = leaf.not_after.duration_since(s.mark.at.wall).as_secs();
        let left = if left > 0 { format!("{} left", span(left)) } else { format!("expired {} ago", span(left)) };
        let message = format!(
            "{}: at {} the renewal of serial {} was overdue by {}, {left}",
            p.id,
            clock_time(s.mark.at.wall),
            leaf.serial.short(),
            span(late),
        );
        // A harness that stood still may itself be why nothing was renewed.
        let stall = longest_stall(ledger, since.seq, s.mark.seq);
        let result = if i64::try_from(stall * 4).unwrap_or(i64::MAX) >= every {
            CheckResult::Undecided
        } else {
            CheckResult::Violated
        };
        found.push(finding(NAME, result, message, vec![since.seq, s.mark.seq]).of(p).about(&p.svid));
    }
    or_holds(found, NAME, "no renewal was left out")
}

pub(super) fn lag(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "lag_bound";
    let bound = u128::from(ledger.header.criteria.lag_bound_ms);
    let found: Vec<_> = ledger.proxies.iter().filter_map(|p| late(ledger, p, bound, NAME)).collect();
    let longest = ledger.lags(crate::timeline::Layer::Served).into_iter().fold(0.0, f64::max);
    or_holds(found, NAME, format!("from sent to served it took at most {longest:.1} ms"))
}

/// A handshake that began after the bound and still showed another leaf than the one accepted.
fn late(ledger: &Ledger, p: &ProxyLedger, bound_ms: u128, name: &str) -> Option<Finding> {
    let accepted: Vec<_> = p
        .pushes
        .iter()
        .filter_map(|push| match (&push.answer, push.leaf(&p.svid)) {
            (Some(Answer::Acked(mark)), Some(leaf)) => Some((push, mark, leaf)),
            _ => None,
        })
        .collect();
    for (i, (push, acked, leaf)) in accepted.iter().enumerate() {
        let until = accepted.get(i + 1).map_or(u64::MAX, |(next, ..)| next.mark.seq);
        let lasting = |s: &Served| {
            s.mark.seq > acked.seq
                && s.mark.seq < until
                && s.mark.at.mono.saturating_sub(acked.at.mono).as_millis() > bound_ms
        };
        let refused_before = p
            .pushes
            .iter()
            .any(|x| x.refusal().is_some() && x.leaf(&p.svid).is_some_and(|l| l.fingerprint == leaf.fingerprint));
        // The same bytes, refused before, are accepted and change nothing: that is a refusal, not a lag.
        if refused_before {
            continue;
        }
        for role in ROLES {
            let stale = p.full_handshakes(role).find(|(s, shown)| lasting(s) && shown.fingerprint != leaf.fingerprint);
            if let Some((s, shown)) = stale {
                let message = format!(
                    "{}: serial {} was accepted at {}; {} ms later an {} handshake still showed serial {}",
                    p.id,
                    leaf.serial.short(),
                    clock_time(acked.at.wall),
                    s.mark.at.mono.saturating_sub(acked.at.mono).as_millis(),
                    role_name(role),
                    shown.serial.short(),
                );
                let stalled = u128::from(longest_stall(ledger, push.mark.seq, s.mark.seq)) * 1000 >= bound_ms;
                let result = if stalled { CheckResult::Undecided } else { CheckResult::Violated };
                return Some(
                    finding(name, result, message, vec![push.mark.seq, acked.seq, s.mark.seq]).of(p).about(&p.svid),
                );
            }
        }
    }
    None
}
