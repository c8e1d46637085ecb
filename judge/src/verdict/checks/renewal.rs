//! Whether new generations come, in time.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::{finding, or_holds_if_shown};
use crate::timeline::ledger::{Answer, ProxyLedger, Row, Served};
use crate::timeline::{CertFacts, Ledger};
use crate::verdict::attendance::is_released;
use crate::verdict::evidence::{
    ROLES, authority, clock_time, first_served, is_stranger, longest_stall, role_name, span, span_ms,
};
use crate::verdict::summary::{Margin, margin as smallest_margin, margins};
use crate::verdict::{CheckResult, Finding};

pub(super) fn renewed(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "renewed_past_first_expiry";
    let wanted = ledger.header.criteria.newer_generations;
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let Some((first_shown, first)) = first_served(p) else { continue };
        for role in ROLES {
            let Some((last, _)) = p.full_handshakes(role).next_back() else { continue };
            let shown = p.rows.iter().filter(|row| row.shown(role).first().is_some());
            let newer = shown.filter(|row| row.generation != first.fingerprint).count();
            if newer >= wanted as usize {
                continue;
            }
            let role = role_name(role);
            let past = last.mark.at.wall > first.not_after;
            let (result, message) = if past {
                let message = format!(
                    "{}: past the first expiry at {}, {role} handshakes have shown {} newer generations; {wanted} are demanded",
                    p.id,
                    clock_time(first.not_after),
                    newer,
                );
                // Without any newer one it is a failure whatever the schedule; with some, the recording may be short.
                let short = newer > 0
                    && ledger.header.criteria.renew_every_s.is_some_and(|every| {
                        let passed = last.mark.at.wall.duration_since(first_shown.mark.at.wall).as_secs();
                        passed < i64::try_from(every.saturating_mul(u64::from(wanted))).unwrap_or(i64::MAX)
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
    if found.is_empty() {
        found.extend(ledger.proxies.iter().filter_map(|p| too_short(ledger, p, NAME)));
    }
    let shown = |p: &ProxyLedger| p.rows.iter().filter(|row| row.shown(p.looked_at()).first().is_some()).count();
    let generations = ledger.proxies.iter().filter(|p| !is_released(ledger, p)).map(shown);
    or_holds_if_shown(
        ledger,
        found,
        NAME,
        format!("every proxy served {} or more generations", generations.min().unwrap_or(0)),
    )
}

/// As many generations as are demanded must be served for the first time after the first one's expiry.
fn too_short(ledger: &Ledger, p: &ProxyLedger, name: &str) -> Option<Finding> {
    let wanted = ledger.header.criteria.generations_past_first_expiry as usize;
    let (_, first) = first_served(p)?;
    let new = |row: &&Row| {
        let shown = || ROLES.into_iter().filter_map(|role| row.shown(role).first());
        shown().next().is_some() && shown().all(|m| m.at.wall >= first.not_after)
    };
    let after = p.rows.iter().filter(new).count();
    (after < wanted).then(|| {
        let message = format!(
            "{}: {} generations were served first after the first expiry at {}; {wanted} are to be seen",
            p.id,
            after,
            clock_time(first.not_after)
        );
        finding(name, CheckResult::Undecided, message, Vec::new()).of(p)
    })
}

pub(super) fn newest_or_previous(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "newest_or_previous";
    let mut found = Vec::new();
    for p in &ledger.proxies {
        if let Some((s, leaf)) = stranger(ledger, p) {
            let message = format!(
                "{}: at {} a full handshake showed serial {} (SHA-256 {}...), which its provider neither minted for it nor sent to it",
                p.id,
                clock_time(s.mark.at.wall),
                leaf.serial.short(),
                leaf.fingerprint.short(),
            );
            found.push(finding(NAME, CheckResult::Violated, message, vec![s.mark.seq]).of(p).about(&p.svid));
            continue;
        }
        for role in ROLES {
            // Where certificates are minted per stream, each stream has its own line.
            let behind = p.full_handshakes(role).find_map(|(s, leaf)| {
                let behind = p.behind(p.place(&leaf.fingerprint)?, s.mark.seq)?;
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
    or_holds_if_shown(ledger, found, NAME, "what was served was never older than the generation before the newest")
}

/// A leaf that came from nowhere, where all that its provider sends was seen.
fn stranger<'a>(ledger: &Ledger, p: &'a ProxyLedger<'a>) -> Option<(&'a Served<'a>, &'a CertFacts)> {
    let strange: BTreeSet<_> =
        p.rows.iter().filter(|row| is_stranger(ledger, p, row)).map(|row| &row.generation).collect();
    ROLES.into_iter().flat_map(|role| p.full_handshakes(role)).find(|(_, leaf)| strange.contains(&leaf.fingerprint))
}

pub(super) fn margin(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "renewal_margin";
    let floor = i64::try_from(ledger.header.criteria.margin_floor()).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for p in &ledger.proxies {
        for role in ROLES {
            let Some((thin, (left, proved))) = margins(ledger, p, role).into_iter().find_map(|m| {
                let late = came_late(p, &m, floor)?;
                Some((m, late))
            }) else {
                continue;
            };
            let how = if left <= 0 {
                format!("{} after the old one had expired", span_ms(left))
            } else {
                format!("with {} left of the old one", span_ms(left))
            };
            let message = format!(
                "{}: a new certificate came {how} ({}); the floor is {}",
                p.id,
                role_name(role),
                span_ms(floor),
            );
            // Whole seconds: one that is as long as the floor may be longer.
            let stalled = u128::from(longest_stall(ledger, None, thin.new_seen)) * 1000 >= floor.unsigned_abs().into();
            let result = if proved && !stalled { CheckResult::Violated } else { CheckResult::Undecided };
            let evidence = vec![thin.old_seen.seq, thin.new_seen.seq];
            found.push(finding(NAME, result, message, evidence).of(p).about(&p.svid));
            break;
        }
    }
    let least = smallest_margin(ledger).map(|ms| format!("; the smallest was {}", span_ms(ms)));
    or_holds_if_shown(
        ledger,
        found,
        NAME,
        format!("no renewal came below the floor of {}{}", span_ms(floor), least.unwrap_or_default()),
    )
}

/// What was left of the old certificate, in milliseconds, when the new one came below the floor; and whether that is
/// proved: the first sight of the new one may itself have come late.
fn came_late(p: &ProxyLedger, m: &Margin<'_>, floor: i64) -> Option<(i64, bool)> {
    if m.left_when_old_ms < floor {
        return Some((m.left_when_old_ms, true));
    }
    if m.left_ms >= floor {
        return None;
    }
    let row = p.row(&m.new.fingerprint);
    let came = row.and_then(|row| row.sent.first().or(row.issued.first())).map(|mark| mark.at.wall);
    match came {
        Some(came) => Some((m.left_at(came), true)).filter(|(left, _)| *left < floor),
        None => Some((m.left_ms, m.left_at(m.new.not_before) < floor)),
    }
}

pub(super) fn overdue(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "renewal_overdue";
    let Some(every) = ledger.header.criteria.interval().filter(|s| *s > 0) else {
        return vec![finding(NAME, CheckResult::Noted, "the interval of the renewals is not known", Vec::new())];
    };
    let renewals = ledger.steps.iter().filter(|(_, renewal)| renewal.is_some_and(|n| n > 0));
    let scheduled: Vec<u64> = renewals.map(|(mark, _)| mark.seq).collect();
    let mut found = Vec::new();
    for p in &ledger.proxies {
        let shown = ROLES.into_iter().flat_map(|role| p.full_handshakes(role));
        // Since when there is something that ends at this moment.
        let mut since_when = HashMap::default();
        let hit = shown.filter_map(|(s, leaf)| {
            let row = p.row(&leaf.fingerprint)?;
            let first_shown = [row.inbound.first(), row.outbound.first()].into_iter().flatten().min_by_key(|m| m.seq);
            let came = *row.issued.first().or(row.sent.first()).or(first_shown)?;
            let until = ledger.works_until(s)?;
            let first = *since_when.entry(until).or_insert(came);
            // A new leaf below an authority that ends before it lengthens nothing.
            let since = if until < leaf.not_after { first } else { came };
            let age = s.mark.at.wall.duration_since(since.at.wall).as_secs();
            // Where the schedule is known, it says what was due: on a slow machine the clock alone runs ahead of it.
            let steps = |until: u64| scheduled.partition_point(|seq| *seq < until);
            let due = scheduled.is_empty() || steps(s.mark.seq).saturating_sub(steps(since.seq)) > 1;
            (age >= every.saturating_mul(2) && due).then_some((s, leaf, since, age, until))
        });
        let hit = hit.min_by_key(|(s, ..)| s.mark.seq);
        let Some((s, leaf, since, age, until)) = hit else { continue };
        let late = age.saturating_sub(every);
        let left = until.duration_since(s.mark.at.wall).as_secs();
        let above = match ledger.ends_first(s) {
            Some(above) => format!(", as {} ends before it", authority(above)),
            None => String::new(),
        };
        let left = if left > 0 { format!("{} left", span(left)) } else { format!("expired {} ago", span(left)) };
        let message = format!(
            "{}: at {} the renewal of serial {} was overdue by {}, {left}{above}",
            p.id,
            clock_time(s.mark.at.wall),
            leaf.serial.short(),
            span(late),
        );
        // A harness that stood still may itself be why nothing was renewed.
        let stall = longest_stall(ledger, Some(since), s.mark);
        let result = if i64::try_from(stall.saturating_mul(4)).unwrap_or(i64::MAX) >= every {
            CheckResult::Undecided
        } else {
            CheckResult::Violated
        };
        found.push(finding(NAME, result, message, vec![since.seq, s.mark.seq]).of(p).about(&p.svid));
    }
    or_holds_if_shown(ledger, found, NAME, "no renewal was left out")
}

pub(super) fn lag(ledger: &Ledger) -> Vec<Finding> {
    const NAME: &str = "lag_bound";
    let bound = u128::from(ledger.header.criteria.lag_bound_ms);
    let found: Vec<_> = ledger.proxies.iter().filter_map(|p| late(ledger, p, bound, NAME)).collect();
    let longest = ledger.lags(crate::timeline::Layer::Served).into_iter().fold(0.0, f64::max);
    or_holds_if_shown(ledger, found, NAME, format!("from sent to served it took at most {longest:.1} ms"))
}

/// A handshake that began after the bound and still showed an older leaf than the one accepted.
fn late(ledger: &Ledger, p: &ProxyLedger, bound_ms: u128, name: &str) -> Option<Finding> {
    // The same bytes, refused before, are accepted and change nothing: that is a refusal, not a lag.
    let refused: BTreeSet<_> = p
        .pushes
        .iter()
        .filter(|x| x.refusal().is_some())
        .filter_map(|x| x.leaf(&p.svid))
        .map(|l| &l.fingerprint)
        .collect();
    let accepted: Vec<_> = p
        .pushes
        .iter()
        .filter_map(|push| match (&push.answer, push.leaf(&p.svid)) {
            (Some(Answer::Acked(mark)), Some(leaf)) if !refused.contains(&leaf.fingerprint) => Some((push, mark, leaf)),
            _ => None,
        })
        .collect();
    // Acknowledgements and handshakes are both in the recording's order.
    for role in ROLES {
        for (s, shown) in p.full_handshakes(role) {
            let ripe = accepted.partition_point(|(_, acked, _)| acked.seq < s.mark.seq);
            let Some((push, acked, leaf)) = accepted[..ripe].last() else { continue };
            let ms = s.mark.at.mono.saturating_sub(acked.at.mono).as_millis();
            if ms <= bound_ms {
                continue;
            }
            // Another line's leaf is no older one: its own stream's are to be compared.
            let older = p.place(&shown.fingerprint).zip(p.place(&leaf.fingerprint)).is_some_and(|(old, new)| {
                old < new && p.successions.iter().any(|line| line.holds(old) && line.holds(new))
            });
            if !older {
                continue;
            }
            let message = format!(
                "{}: serial {} was accepted at {}; {ms} ms later an {} handshake still showed serial {}",
                p.id,
                leaf.serial.short(),
                clock_time(acked.at.wall),
                role_name(role),
                shown.serial.short(),
            );
            let stalled = u128::from(longest_stall(ledger, Some(push.mark), s.mark)) * 1000 >= bound_ms;
            let result = if stalled { CheckResult::Undecided } else { CheckResult::Violated };
            let evidence = vec![push.mark.seq, acked.seq, s.mark.seq];
            return Some(finding(name, result, message, evidence).of(p).about(&p.svid));
        }
    }
    None
}
