//! What the command line changes in a scenario.

use camino::Utf8PathBuf;

use crate::scenario::{ClockKind, ProviderKind, Scenario, Share, Span, StatsInclusion, TbotSpec};

use super::cell::quoted;

/// What the command line changes in every selected scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Where an external provider serves.
    pub socket: Option<Utf8PathBuf>,
    /// The tbot that issues, as far as it is given.
    pub tbot: TbotSpec,
    /// Whose time the proxies live in.
    pub clock: Option<ClockKind>,
    /// Lifetime of a leaf.
    pub ttl: Option<Span>,
    /// Interval of the renewals.
    pub renew_every: Option<Span>,
    /// Proxies.
    pub proxies: Option<u32>,
    /// Further contexts per proxy.
    pub contexts: Option<u32>,
    /// Which statistics the proxies keep.
    pub stats: Option<StatsInclusion>,
}

/// Lifetime where real time passes, and a real provider issues.
const SHORT: Span = Span::seconds(30);

impl Overrides {
    /// The scenario with the changes in it, and with this provider, where it is to be another than its own.
    ///
    /// With another `ttl` the renewal interval keeps its share of it (unless given too), rounded to whole seconds; a
    /// margin floor that is a time keeps its share as well; and a duration keeps its number of renewals, so that the
    /// faults, which count renewals, still fall where they should.
    ///
    /// Another provider has its own lifetimes: what the scenario says of the fake's is forgotten. A fault that it can be
    /// brought to have is brought about.
    pub fn apply(&self, scenario: &mut Scenario, provider: Option<ProviderKind>) {
        if let Some(socket) = &self.socket {
            scenario.provider.socket = Some(socket.clone());
        }
        if let Some(kind) = provider {
            scenario.provider.kind = kind;
            scenario.provider.tbot = None;
            match kind {
                ProviderKind::Fake | ProviderKind::Files => scenario.provider.command.clear(),
                ProviderKind::External => {
                    (scenario.provider.ttl, scenario.provider.renew_every) = (None, None);
                    scenario.clock = ClockKind::Real;
                }
                ProviderKind::IstioCa | ProviderKind::Spire | ProviderKind::Tbot => {
                    (scenario.provider.ttl, scenario.provider.renew_every) = (Some(SHORT), None);
                    scenario.clock = ClockKind::Real;
                }
            }
        }
        if self.tbot != TbotSpec::default() {
            let tbot = scenario.provider.tbot.get_or_insert_default();
            let TbotSpec { program, proxy, token, workload_identity, svid_path } = self.tbot.clone();
            tbot.program = program.or(tbot.program.take());
            tbot.proxy = proxy.or(tbot.proxy.take());
            tbot.token = token.or(tbot.token.take());
            if workload_identity.is_some() || svid_path.is_some() {
                (tbot.workload_identity, tbot.svid_path) = (workload_identity, svid_path);
            }
        }
        let known_interval = !scenario.provider.kind.has_own_timer() || scenario.provider.renew_every.is_some();
        let renewals = scenario.renewals();
        let (old_ttl, old_interval) =
            (scenario.provider.ttl().as_secs().max(1), scenario.provider.interval().as_secs());
        let scaled = |n: u128, ttl: Span| {
            let scaled = (n * u128::from(ttl.as_secs()) + u128::from(old_ttl) / 2) / u128::from(old_ttl);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        if let Some(ttl) = self.ttl {
            let interval = Span::seconds(scaled(old_interval.into(), ttl).max(1));
            scenario.provider.ttl = Some(ttl);
            scenario.provider.renew_every = known_interval.then_some(interval);
            if let Share::Time(floor) = scenario.criteria.margin_floor {
                scenario.criteria.margin_floor = Share::Time(Span::millis(scaled(floor.duration().as_millis(), ttl)));
            }
        }
        if let Some(renew_every) = self.renew_every {
            scenario.provider.renew_every = Some(renew_every);
        }
        if scenario.observe.duration.is_some() && (self.ttl.is_some() || self.renew_every.is_some()) {
            let interval = scenario.provider.interval().as_secs();
            scenario.observe.duration = Some(Span::seconds(interval.saturating_mul(u64::from(renewals))));
        }
        if let Some(clock) = self.clock {
            scenario.clock = clock;
        }
        if let Some(proxies) = self.proxies {
            scenario.fleet.proxies = proxies;
        }
        if let Some(contexts) = self.contexts {
            scenario.fleet.contexts = contexts;
        }
        if let Some(stats) = self.stats {
            scenario.fleet.stats = stats;
        }
        scenario.bring_about();
    }

    /// What of it concerns a provider, where several are named: a socket is an external one's, a tbot is tbot's.
    pub(super) fn for_provider(&self, kind: ProviderKind) -> Self {
        let mut own = self.clone();
        if kind != ProviderKind::External {
            own.socket = None;
        }
        if kind != ProviderKind::Tbot {
            own.tbot = TbotSpec::default();
        }
        own
    }

    /// As options of the command line, in words of a shell.
    pub fn options(&self) -> Vec<String> {
        let clock = self.clock.map(|clock| match clock {
            ClockKind::Real => "real".to_owned(),
            ClockKind::Virtual => "virtual".to_owned(),
        });
        let given = [
            ("--socket", self.socket.as_ref().map(ToString::to_string)),
            ("--tbot", self.tbot.program.as_ref().map(ToString::to_string)),
            ("--tbot-proxy", self.tbot.proxy.clone()),
            ("--tbot-token", self.tbot.token.as_ref().map(ToString::to_string)),
            ("--tbot-identity", self.tbot.workload_identity.clone()),
            ("--clock", clock),
            ("--ttl", self.ttl.map(|span| span.to_string())),
            ("--renew-every", self.renew_every.map(|span| span.to_string())),
            ("--proxies", self.proxies.map(|n| n.to_string())),
            ("--contexts", self.contexts.map(|n| n.to_string())),
            ("--stats", self.stats.map(|stats| stats.name().to_owned())),
        ];
        given.into_iter().filter_map(|(option, value)| Some(format!("{option} {}", quoted(&value?)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Library;
    use super::*;

    fn scenario(name: &str, overrides: Overrides) -> Scenario {
        let mut scenario = Library::embedded().scenario(name).unwrap().unwrap();
        overrides.apply(&mut scenario, None);
        assert_eq!(scenario.problems(), []);
        scenario
    }

    #[test]
    fn a_shorter_ttl_takes_the_interval_and_the_duration_with_it() {
        let ttl = |seconds| Overrides { ttl: Some(Span::seconds(seconds)), ..Overrides::default() };
        let changed = scenario("incident", ttl(90));
        assert_eq!(changed.provider.interval(), Span::seconds(30));
        assert_eq!(changed.renewals(), 33);
        assert_eq!(changed.observed(), Span::seconds(990));
        let changed = scenario("rotation", ttl(10));
        assert_eq!((changed.provider.interval(), changed.observed()), (Span::seconds(5), Span::seconds(20)));
    }

    #[test]
    fn what_a_spire_can_be_brought_to_do_is_done_to_it_and_nothing_else_is() {
        let on_spire = |name: &str, change: fn(&mut Scenario)| {
            let mut scenario = Library::embedded().scenario(name).unwrap().unwrap();
            change(&mut scenario);
            let ttl = Some(Span::seconds(20));
            Overrides { ttl, ..Overrides::default() }.apply(&mut scenario, Some(ProviderKind::Spire));
            scenario
        };
        let incident = on_spire("incident", |_| {});
        assert_eq!(incident.problems(), []);
        let events: Vec<String> =
            incident.provider.events.iter().map(|e| format!("{} {}", e.at, e.action.name())).collect();
        let every_ten = ["10s", "20s", "30s", "40s", "50s", "1m", "1m10s"].map(|at| format!("{at} resend-cached"));
        assert_eq!((events, incident.observed()), (every_ten.to_vec(), Span::seconds(80)));
        let changes: [fn(&mut Scenario); 3] = [
            |s| s.provider.faults[0].fault = crate::scenario::Fault::ResendStale,
            |s| s.provider.faults[0].until_renewal = Some(3),
            |s| s.provider.faults[0].once = true,
        ];
        for change in changes {
            let other = on_spire("incident", change);
            assert_eq!((other.provider.faults.len(), other.provider.events.len()), (1, 0));
        }
    }

    #[test]
    fn an_interval_that_is_given_is_not_scaled() {
        let overrides = Overrides {
            ttl: Some(Span::seconds(100)),
            renew_every: Some(Span::seconds(20)),
            clock: Some(ClockKind::Real),
            proxies: Some(3),
            contexts: Some(1),
            ..Overrides::default()
        };
        let changed = scenario("rotation", overrides.clone());
        assert_eq!(changed.provider.interval(), Span::seconds(20));
        assert_eq!((changed.clock, changed.fleet.proxies, changed.fleet.contexts), (ClockKind::Real, 3, 1));
        let options = overrides.options().join(" ");
        assert_eq!(options, "--clock real --ttl 1m40s --renew-every 20s --proxies 3 --contexts 1");
    }
}
