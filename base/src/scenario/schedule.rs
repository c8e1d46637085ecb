//! When what happens: renewals at multiples of the interval, samples where a failure shows first, and the end.
//!
//! All times are cell time since the first generation was issued.

use std::collections::BTreeMap;

use crate::timeline::Criteria;

use super::{Scenario, Span};

/// Generations past the first expiry where a scenario does not say how long to observe.
const PAST_EXPIRY: u32 = 2;

/// One step of an observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// From 0 (the first generation).
    pub index: u32,
    /// Cell time since the first generation, seconds.
    pub at_s: u64,
    /// The renewal that is due now; `None`: only samples are taken.
    pub renewal: Option<u32>,
    /// Whether the trust bundle changes now.
    pub bundle: bool,
    /// In words.
    pub what: String,
}

impl Scenario {
    /// The steps of the observation, in their order. The first is renewal 0: the first issue.
    ///
    /// Renewal `k` comes at `k` intervals. Two samples are added where no renewal falls: half-way between the last
    /// renewal before the first expiry and that expiry, where an overdue renewal shows before anything has expired;
    /// and a second after the first expiry.
    pub fn schedule(&self) -> Vec<StepPlan> {
        let ttl = self.provider.ttl().as_secs();
        let interval = self.interval_s();
        let end = self.observed_s();
        let mut steps: BTreeMap<u64, (Option<u32>, String)> = BTreeMap::new();
        for renewal in 0..=self.renewals() {
            let what = match renewal {
                0 => "first issue".to_owned(),
                n => format!("renewal {n} is due"),
            };
            steps.insert(u64::from(renewal) * interval, (Some(renewal), what));
        }
        let last_before_expiry = ttl.saturating_sub(1) / interval * interval;
        let overdue = last_before_expiry + (ttl - last_before_expiry) / 2;
        let samples = [(overdue, "before the first expiry"), (ttl + 1, "the first generation has expired")];
        for (at, what) in samples.into_iter().filter(|(at, _)| *at <= end) {
            steps.entry(at).or_insert_with(|| (None, what.to_owned()));
        }
        let bundles = self.provider.bundle_every.map_or(0, Span::as_secs);
        let is_bundle = |at: u64| bundles > 0 && at > 0 && at.is_multiple_of(bundles);
        for at in (0..=end).filter(|at| is_bundle(*at)) {
            steps.entry(at).or_insert_with(|| (None, "the trust bundle changes".to_owned()));
        }
        steps.entry(end).or_insert_with(|| (None, "end of the observation".to_owned()));
        let step = |(index, (at_s, (renewal, what)))| StepPlan { index, at_s, renewal, bundle: is_bundle(at_s), what };
        (0..).zip(steps).map(step).collect()
    }

    /// The steps that may follow, where proxies that came later have their first expiry still before them: further renewals.
    pub fn further(&self) -> Vec<StepPlan> {
        let planned = self.schedule();
        let (index, every) = (u32::try_from(planned.len()).unwrap_or(u32::MAX), self.interval_s());
        let last = u64::from(self.renewals()) * every;
        let end = self.observed_s().saturating_add(self.longer().as_secs());
        (1..)
            .map(|n: u32| (n, last + u64::from(n) * every))
            .take_while(|(_, at_s)| *at_s <= end)
            .map(|(n, at_s)| StepPlan {
                index: index.saturating_add(n - 1),
                at_s,
                renewal: Some(self.renewals() + n),
                bundle: false,
                what: format!("renewal {} is due; some came later", self.renewals() + n),
            })
            .collect()
    }

    /// Cell time by which the observation may be longer, so that whoever came before its end passes its own first expiry and
    /// shows as many generations after it as are demanded.
    pub fn longer(&self) -> Span {
        let after = u64::from(self.criteria().generations_past_first_expiry) + 1;
        let renewal =
            if self.provider.kind.has_own_timer() { self.provider.ttl().as_secs() } else { self.interval_s() };
        Span::seconds(self.provider.ttl().as_secs().saturating_add(after.saturating_mul(renewal)))
    }

    /// Renewals that are due during the observation.
    pub fn renewals(&self) -> u32 {
        let interval = self.interval_s();
        match self.observe.duration {
            Some(duration) => u32::try_from(duration.as_secs() / interval).unwrap_or(u32::MAX),
            None => self.due_by_first_expiry().saturating_add(self.past_expiry_wanted()),
        }
    }

    /// Cell time that the observation covers.
    pub fn observed(&self) -> Span {
        Span::seconds(self.observed_s())
    }

    /// The bounds by which its timeline is judged.
    pub fn criteria(&self) -> Criteria {
        // A renewal that is due at the very second of the expiry does not count as one after it.
        let past_expiry = self.renewals().saturating_sub(self.due_by_first_expiry());
        let ms = |span: Span| u64::try_from(span.duration().as_millis()).unwrap_or(u64::MAX);
        let floor = ms(self.criteria.margin_floor.of(self.provider.ttl()));
        Criteria {
            ttl_s: self.provider.ttl().as_secs(),
            renew_every_s: match (self.provider.kind, self.provider.renew_every) {
                (kind, None) if kind.has_own_timer() => None,
                _ => Some(self.interval_s()),
            },
            lag_bound_ms: ms(self.criteria.lag_bound),
            margin_floor_s: floor / 1000,
            margin_floor_ms: (!floor.is_multiple_of(1000)).then_some(floor),
            newer_generations: 2,
            generations_past_first_expiry: match self.observe.generations_past_first_expiry {
                Some(wanted) => wanted,
                None => past_expiry.min(PAST_EXPIRY),
            },
        }
    }

    /// Renewals due after the first expiry that the file asks for, where it gives no duration.
    fn past_expiry_wanted(&self) -> u32 {
        self.observe.generations_past_first_expiry.unwrap_or(PAST_EXPIRY)
    }

    fn due_by_first_expiry(&self) -> u32 {
        u32::try_from(self.provider.ttl().as_secs() / self.interval_s()).unwrap_or(u32::MAX)
    }

    fn observed_s(&self) -> u64 {
        match self.observe.duration {
            Some(duration) => duration.as_secs(),
            // Nobody knows when it renews: at the latest one TTL after the other.
            None if self.provider.kind.has_own_timer() => {
                u64::from(self.past_expiry_wanted()).saturating_add(2).saturating_mul(self.provider.ttl().as_secs())
            }
            None => u64::from(self.renewals()).saturating_mul(self.interval_s()),
        }
    }

    /// Never 0, so that an unchecked scenario cannot divide by it.
    fn interval_s(&self) -> u64 {
        self.provider.interval().as_secs().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_where_a_silent_provider_shows_first() {
        let text = include_str!("../../../scenarios/never-renews.yaml");
        let scenario = Scenario::read(text, "never-renews.yaml").unwrap();
        let steps: Vec<(u64, Option<u32>)> = scenario.schedule().iter().map(|step| (step.at_s, step.renewal)).collect();
        let renewal = |at, n| (at, Some(n));
        // At 80 and 100 s the renewal of 40 s is overdue and the certificate still valid; at 121 s it has expired.
        let expected = [
            renewal(0, 0),
            renewal(40, 1),
            renewal(80, 2),
            (100, None),
            renewal(120, 3),
            (121, None),
            renewal(160, 4),
            renewal(200, 5),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn whoever_came_just_before_the_end_passes_its_own_first_expiry() {
        let text = include_str!("../../../scenarios/rotation.yaml");
        let scenario = Scenario::read(text, "rotation.yaml").unwrap();
        let (planned, further) = (scenario.schedule(), scenario.further());
        let (last, first) = (planned.last().unwrap(), further.first().unwrap());
        let renewal = scenario.renewals();
        assert_eq!((first.index, first.at_s, first.renewal), (last.index + 1, last.at_s + 60, Some(renewal + 1)));
        // A lifetime, as many generations as are demanded, and one more: a certificate's first renewal is somewhere between.
        assert_eq!(further.last().unwrap().at_s, last.at_s + 120 + 3 * 60);
        assert!(further.iter().all(|step| step.renewal.is_some() && !step.bundle));
    }

    #[test]
    fn a_renewal_at_the_second_of_the_expiry_is_none_past_it() {
        let text = include_str!("../../../scenarios/incident.yaml");
        let mut scenario = Scenario::read(text, "incident.yaml").unwrap();
        assert_eq!(scenario.criteria().generations_past_first_expiry, 2);
        scenario.observe.duration = Some(Span::seconds(4_800));
        assert_eq!(scenario.criteria().generations_past_first_expiry, 1);
        scenario.observe.duration = Some(Span::seconds(4_799));
        assert_eq!(scenario.criteria().generations_past_first_expiry, 0);
        let criteria = scenario.criteria();
        assert_eq!((criteria.ttl_s, criteria.renew_every_s, criteria.margin_floor_s), (3600, Some(1200), 360));
        assert_eq!(criteria.margin_floor_ms, None);
        scenario.provider.ttl = Some(Span::seconds(8));
        let criteria = scenario.criteria();
        assert_eq!((criteria.margin_floor_s, criteria.margin_floor_ms, criteria.margin_floor()), (0, Some(800), 800));
    }
}
