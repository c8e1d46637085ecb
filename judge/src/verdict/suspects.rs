//! What it may be that is wrong, of each proxy by itself: what one counts or says is no evidence of another's failure.

use super::standing::{Standing, State};
use super::{Judgement, Mode, Verdict, combine, mode, stops};
use crate::timeline::{Ledger, ProxyId, Timeline};

/// What may be wrong with some proxies.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspects {
    /// They, in the order in which they were given.
    pub proxies: Vec<ProxyId>,
    /// What it may be, best first; with what would decide, where that is known.
    pub modes: Vec<(&'static Mode, Option<String>)>,
    /// Whether it is the first of them.
    pub certain: bool,
    /// What that rests on, of each, in a sentence.
    pub stories: Vec<String>,
}

/// What may be wrong with these proxies of a recording, of which this is the verdict: those of which it is the same together, in the order in which they are
/// given. Nothing is said of one with which nothing is wrong.
pub fn suspects(timeline: &Timeline, verdict: &Verdict, standings: &[Standing]) -> Vec<Suspects> {
    let stops = match verdict.judgement {
        Judgement::Fail => stops(&Ledger::of(timeline), &verdict.findings),
        _ => Vec::new(),
    };
    let mut all: Vec<Suspects> = Vec::new();
    for standing in standings {
        let own: Vec<_> = stops.iter().filter(|stop| stop.proxy == standing.proxy).cloned().collect();
        let (_, diagnosis, candidates) = combine(&own);
        let of_verdict = candidates.iter().filter_map(|c| Some((mode(&c.mode)?, c.would_decide.clone()))).collect();
        let modes = of_one(standing, of_verdict);
        let Some((first, _)) = modes.first() else { continue };
        let certain = diagnosis.as_deref() == Some(first.name);
        // What was wrong with it is over, and nothing that was seen tells what it was.
        if standing.state == State::Fresh && standing.suspected.is_empty() && !certain {
            continue;
        }
        let same = |known: &&mut Suspects| (known.certain, &known.modes) == (certain, &modes);
        let stories = own.iter().map(|stop| format!("{}: {}", standing.proxy, stop.story));
        match all.iter_mut().find(same) {
            Some(known) => {
                known.proxies.push(standing.proxy.clone());
                known.stories.extend(stories);
            }
            None => {
                all.push(Suspects {
                    proxies: vec![standing.proxy.clone()],
                    modes,
                    certain,
                    stories: stories.collect(),
                });
            }
        }
    }
    all
}

/// Modes of the verdict; those to which something odd points, if any do.
fn of_one(
    standing: &Standing,
    of_verdict: Vec<(&'static Mode, Option<String>)>,
) -> Vec<(&'static Mode, Option<String>)> {
    let mut suspected: Vec<(&str, usize)> = Vec::new();
    for name in &standing.suspected {
        match suspected.iter_mut().find(|(known, _)| known == name) {
            Some((_, times)) => *times += 1,
            None => suspected.push((name, 1)),
        }
    }
    // To which the most points, first.
    suspected.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    let points = |name: &str| suspected.iter().any(|(known, _)| *known == name);
    let (pointed, rest): (Vec<_>, Vec<_>) = of_verdict.into_iter().partition(|(mode, _)| points(mode.name));
    if !pointed.is_empty() || suspected.is_empty() {
        return if pointed.is_empty() { rest } else { pointed };
    }
    // What has failed before anybody looked, the verdict can't see coming about: what is still going on tells more.
    let decides = |mode: &Mode| {
        let other = mode.looks_like.iter().find(|like| points(like.mode));
        other.map(|like| like.decided_by.to_owned())
    };
    suspected.iter().filter_map(|(name, _)| mode(name)).map(|mode| (mode, decides(mode))).collect()
}
