//! The observation of a provider that renews when it likes: samples come at its pushes, and where an absent one shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::RunError;
use super::observe::{Observed, Scene, trust};
use super::teller::Teller;
use crate::clock::Deadline;
use crate::fleet::{FleetError, Proxy};
use crate::probe::{Depth, sample};
use crate::provider::External;
use crate::scenario::ProviderEvent;
use crate::timeline::{CertFacts, Fact, Layer, Observation, Payload, ProxyId, SecretName, Source, Step};

/// A proxy without its first secrets is given up after this, if a fresh subscriber got none either.
const WITHOUT_SECRETS: Duration = Duration::from_secs(15);
/// What belongs to one push, to several streams and proxies, comes within this.
const ONE_PUSH: Duration = Duration::from_millis(50);
/// Between two samples, however often something is pushed.
const BETWEEN: Duration = Duration::from_millis(250);

impl Scene<'_> {
    /// Until the first generation has expired and enough newer ones came, or until it is plain that none come.
    pub(super) async fn watch(
        &self,
        external: &External,
        tell: &Teller<'_>,
        deadline: Deadline,
    ) -> Result<Observed, RunError> {
        let ready = match external.complete() {
            true => deadline,
            false => Deadline::after(WITHOUT_SECRETS.min(deadline.left())),
        };
        let course = async {
            match self.ready(ready).await {
                Ok(()) => self.follow(external, tell, deadline).await,
                Err(RunError::Fleet(e @ FleetError::NotReady { .. })) => self.unready(external, tell, &e).await,
                Err(e) => Err(e),
            }
        };
        tokio::select! {
            observed = course => observed,
            why = external.flooded() => Ok(Observed::Until(why)),
        }
    }

    /// Secrets that never come are a failure of the provider's, which is to be judged.
    async fn unready(&self, external: &External, tell: &Teller<'_>, why: &FleetError) -> Result<Observed, RunError> {
        tell.observes();
        self.step(0, "the first secrets were waited for");
        let waited = self.clock().now().duration_since(self.began);
        self.missed(None, format!("every proxy ready; {why}"), waited.try_into().unwrap_or_default());
        external.ask(self.patience()).await;
        sample(&self.fleet.present(), self.probes, Depth::Collect).await;
        external.tell_signed();
        self.kept()?;
        Ok(Observed::ToTheEnd)
    }

    async fn follow(&self, external: &External, tell: &Teller<'_>, deadline: Deadline) -> Result<Observed, RunError> {
        tell.observes();
        self.step(0, "first secrets");
        trust(self.probes.roots(), self.provider);
        external.tell_signed();
        // It may have been renewed since it was accepted: then nobody serves it any more.
        self.look(0, true, Depth::Complete, Deadline::after(self.patience().min(deadline.left()))).await;
        let mut seen = Seen::default();
        let mut from = seen.take_in(&self.recorder.since(0));
        seen.take_in_shown(&self.recorder.since(0));
        seen.forget_replaced();
        let mut times = Times::of(self, &seen);
        let mut events = self.scenario.provider.events.iter().peekable();
        // What is done too late keeps its distance to what is done after it.
        let mut late = jiff::SignedDuration::ZERO;
        let mut index = 1;
        loop {
            self.kept()?;
            let now = self.clock().now();
            let passed = now.duration_since(self.began).as_secs();
            let planned = self.scenario.observed().as_secs();
            let seconds = |s: i64| u32::try_from(s).unwrap_or(0);
            tell.progress(
                "observe",
                seconds(passed),
                u32::try_from(planned).unwrap_or(u32::MAX),
                u64::try_from(passed).unwrap_or(0),
            );
            let open_ended = self.scenario.observe.duration.is_none() && events.peek().is_none();
            let enough = open_ended && self.enough(&seen, &times);
            let end = times.end(self, &seen) + late;
            if enough || now >= end {
                if !enough {
                    // What does somebody get who comes now?
                    external.ask(self.patience()).await;
                }
                external.ask_workload_api(self.patience()).await;
                self.step(index, if enough { "enough renewals came" } else { "end of the observation" });
                self.look(from, false, Depth::Collect, deadline).await;
                external.tell_signed();
                self.kept()?;
                return Ok(Observed::ToTheEnd);
            }
            let at = |event: &ProviderEvent| self.began + event.at.duration() + late;
            if let Some(event) = events.next_if(|event| now >= at(event)) {
                late += now.duration_since(at(event));
                external.undergo(event.action, self.guard).await?;
                self.fleet.undergo(event.action, self.guard).await?;
                continue;
            }
            let due = times.next(now, &seen).min(end);
            let due = events.peek().map_or(due, |event| due.min(at(event)));
            let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
            let pushed = self.recorder.await_until(from, Deadline::after(left), is_news).await;
            if pushed {
                tokio::time::sleep(ONE_PUSH).await;
            }
            external.tell_signed();
            let what = times.pass(self.clock().now(), &seen).unwrap_or("the provider pushed");
            if !pushed && what == "the provider pushed" {
                continue;
            }
            trust(self.probes.roots(), self.provider);
            external.look_at_path();
            self.step(index, what);
            index += 1;
            let sample_from = from;
            from = seen.take_in(&self.recorder.since(from)) + from;
            self.look(sample_from, false, Depth::Complete, deadline).await;
            seen.take_in_shown(&self.recorder.since(sample_from));
            times.learn(self, &seen);
            tokio::time::sleep(BETWEEN).await;
        }
    }

    fn step(&self, index: u32, what: &str) {
        let step = Step { index, renewal: (index == 0).then_some(0), what: what.to_owned() };
        self.recorder.record(Source::Harness, None, None, step);
    }

    /// Longer than anything that is sent may take.
    fn patience(&self) -> Duration {
        self.scenario.criteria.lag_bound.duration() + Duration::from_millis(500)
    }

    /// Whether it was not there at the beginning.
    fn is_late(&self, proxy: &Proxy) -> bool {
        !self.fleet.proxies().iter().any(|p| p.id == proxy.id)
    }

    /// Whether every proxy served as many generations after the first expiry as are to be seen, and newer ones at all.
    fn enough(&self, seen: &Seen, times: &Times) -> bool {
        let criteria = self.scenario.criteria();
        let Some(expiry) = times.first_expiry else { return false };
        let present = self.fleet.present();
        !seen.awaits(&present)
            && present.iter().all(|p| {
                let counted = seen.counted(&p.id);
                // Whoever came later has its own first expiry before it.
                let own = counted.first().map_or(expiry, |(_, leaf)| leaf.not_after.max(expiry));
                let expiry = if self.is_late(p) { own } else { expiry };
                let after = counted.iter().filter(|(at, _)| *at > expiry).count();
                after >= criteria.generations_past_first_expiry as usize
                    && counted.len() > criteria.newer_generations as usize
            })
    }
}

/// An answer of a proxy, or the end of a stream: what a sample may show.
fn is_news(o: &Observation) -> bool {
    o.source == Source::Tap && matches!(o.fact, Fact::Acked(_) | Fact::Nacked(_) | Fact::StreamClosed(_))
}

/// The leaves that proxies accepted, and those that they showed, each once, in their order.
#[derive(Default)]
struct Seen {
    sent: HashMap<(u64, String), CertFacts>,
    accepted: Leaves,
    shown: Leaves,
    /// Who came later, and is neither gone nor said to be out of reach.
    coming: BTreeSet<ProxyId>,
}

type Leaves = BTreeMap<ProxyId, Vec<(jiff::Timestamp, CertFacts)>>;

fn keep(leaves: &mut Leaves, proxy: &ProxyId, at: jiff::Timestamp, leaf: &CertFacts) {
    let leaves = leaves.entry(proxy.clone()).or_default();
    if !leaves.iter().any(|(_, known)| known.fingerprint == leaf.fingerprint) {
        leaves.push((at, leaf.clone()));
    }
}

impl Seen {
    /// Whether somebody has come to whom there are no ways yet.
    fn awaits(&self, present: &[Proxy]) -> bool {
        self.coming.iter().any(|id| !present.iter().any(|p| p.id == *id))
    }

    /// How many observations there were.
    fn take_in(&mut self, observations: &[std::sync::Arc<Observation>]) -> usize {
        for o in observations {
            let Some(proxy) = &o.proxy else { continue };
            match &o.fact {
                Fact::Joined(_) => {
                    self.coming.insert(proxy.clone());
                }
                Fact::Exited(_) => {
                    self.coming.remove(proxy);
                }
                Fact::Blind(blind) if blind.layer == Some(Layer::Served) => {
                    self.coming.remove(proxy);
                }
                Fact::Sent(s) if o.source == Source::Tap => {
                    let svid = s.secrets.iter().find(|x| x.name == SecretName::default_svid().as_str());
                    if let Some(Payload::Certificate { chain, .. }) = svid.map(|x| &x.payload)
                        && let Some(leaf) = chain.first()
                    {
                        self.sent.insert((s.stream, s.nonce.clone()), leaf.clone());
                    }
                }
                Fact::Acked(a) if o.source == Source::Tap => {
                    if let Some(leaf) = self.sent.remove(&(a.stream, a.nonce.clone())) {
                        keep(&mut self.accepted, proxy, o.at.wall, &leaf);
                    }
                }
                _ => {}
            }
        }
        observations.len()
    }

    /// What handshakes showed.
    fn take_in_shown(&mut self, observations: &[std::sync::Arc<Observation>]) {
        for o in observations {
            if let (Source::Inbound | Source::Outbound, Fact::Handshake(h), Some(proxy)) = (o.source, &o.fact, &o.proxy)
                && let Some(leaf) = h.chain.first()
            {
                keep(&mut self.shown, proxy, o.at.wall, leaf);
            }
        }
    }

    /// The generations that the verdict will count. Of several that come at once the proxy serves only the last, as far as
    /// anybody sees; where nothing can be looked at, those that it accepted have to do.
    fn counted(&self, proxy: &ProxyId) -> &[(jiff::Timestamp, CertFacts)] {
        self.shown.get(proxy).or_else(|| self.accepted.get(proxy)).map(Vec::as_slice).unwrap_or_default()
    }

    /// What was replaced before anybody looked was served to nobody: the first is the one that was looked at.
    fn forget_replaced(&mut self) {
        for leaves in self.accepted.values_mut() {
            leaves.drain(..leaves.len().saturating_sub(1));
        }
    }

    /// When the last one came that was new.
    fn last_new(&self) -> Option<jiff::Timestamp> {
        self.accepted.values().filter_map(|leaves| leaves.last()).map(|(at, _)| *at).max()
    }
}

/// When samples are taken though nothing is pushed.
struct Times {
    first_expiry: Option<jiff::Timestamp>,
    ttl: Duration,
    planned: Vec<(jiff::Timestamp, &'static str)>,
    /// The last expiry of a newest generation after which a sample was taken.
    past: Option<jiff::Timestamp>,
}

impl Times {
    fn of(scene: &Scene<'_>, seen: &Seen) -> Self {
        let ttl = scene.scenario.provider.ttl().duration();
        let mut times = Self { first_expiry: None, ttl, planned: Vec::new(), past: None };
        times.learn(scene, seen);
        times
    }

    /// The first expiry is known once every proxy has a certificate.
    fn learn(&mut self, scene: &Scene<'_>, seen: &Seen) {
        if self.first_expiry.is_some() || seen.accepted.len() < scene.fleet.proxies().len() {
            return;
        }
        let first = seen.accepted.values().filter_map(|leaves| leaves.first()).map(|(_, leaf)| leaf.not_after);
        self.first_expiry = first.max();
        if let Some(expiry) = self.first_expiry {
            let before = expiry - (self.ttl / 10).max(Duration::from_secs(1));
            self.planned = vec![
                (before, "before the first expiry"),
                (expiry + Duration::from_secs(1), "the first generation has expired"),
                (expiry + self.ttl / 2, "half a lifetime past the first expiry"),
            ];
        }
    }

    /// The next sample that is due.
    fn next(&self, now: jiff::Timestamp, seen: &Seen) -> jiff::Timestamp {
        let planned = self.planned.iter().map(|(at, _)| *at).min();
        planned.into_iter().chain(self.past_newest(seen)).min().unwrap_or(now + self.ttl)
    }

    /// When what some proxy accepted last has expired, unless that was looked at already.
    fn past_newest(&self, seen: &Seen) -> Option<jiff::Timestamp> {
        let newest = seen.accepted.values().filter_map(|leaves| leaves.last()).map(|(_, leaf)| leaf.not_after).min()?;
        Some(newest + Duration::from_secs(1)).filter(|at| self.past.is_none_or(|past| past < *at))
    }

    /// What has become due; it is done with.
    fn pass(&mut self, now: jiff::Timestamp, seen: &Seen) -> Option<&'static str> {
        let mut what = self.planned.iter().rfind(|(at, _)| *at <= now).map(|(_, what)| *what);
        if let Some(at) = self.past_newest(seen).filter(|at| *at <= now) {
            self.past = Some(at);
            what = what.or(Some("the newest generation has expired"));
        }
        self.planned.retain(|(at, _)| *at > now);
        what
    }

    /// When it is over at the latest: no new certificate came for a lifetime, nor since the first one's expiry; or they
    /// come too slowly.
    fn end(&self, scene: &Scene<'_>, seen: &Seen) -> jiff::Timestamp {
        if let Some(duration) = scene.scenario.observe.duration {
            return scene.began + duration.duration();
        }
        let start = self.first_expiry.unwrap_or(scene.began + self.ttl);
        let quiet = seen.last_new().map_or(start, |last| last.max(start)) + self.ttl;
        let planned = scene.began + scene.scenario.observed().duration();
        let present = scene.fleet.present();
        let late = seen.awaits(&present) || present.iter().any(|p| scene.is_late(p));
        quiet.min(if late { planned + scene.scenario.longer().duration() } else { planned })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::timeline::{Acked, At, Blind, Exited, Fingerprint, Handshake, Joined, Sent, SentSecret, Timeline};

    fn leaf(n: u8) -> CertFacts {
        let text = include_bytes!("../../../fixtures/timelines/rotation.ndjson");
        let recorded = Timeline::read(&text[..]).unwrap();
        let chains = recorded.observations.iter().filter_map(|o| match &o.fact {
            Fact::Handshake(h) => h.chain.first().cloned(),
            _ => None,
        });
        let leaf = chains.take(1).next().unwrap();
        CertFacts { fingerprint: Fingerprint::of_der(&[n]), ..leaf }
    }

    fn observed(source: Source, fact: impl Into<Fact>) -> Arc<Observation> {
        let at = At { mono: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH, offset_s: 0 };
        let proxy = Some(ProxyId::parse("a").unwrap());
        Arc::new(Observation { seq: 0, at, source, proxy, secret: None, fact: fact.into() })
    }

    /// Sent to the proxy, and accepted by it.
    fn accepted(n: u8) -> [Arc<Observation>; 2] {
        let payload = Payload::Certificate {
            chain: vec![leaf(n)],
            digest: Fingerprint::of_der(&[n]),
            key_matches: None,
            problem: None,
        };
        let secrets = vec![SentSecret { name: SecretName::default_svid().to_string(), payload }];
        let (nonce, version_info) = (n.to_string(), n.to_string());
        let sent = Sent {
            stream: 1,
            type_url: String::new(),
            version_info: version_info.clone(),
            nonce: nonce.clone(),
            secrets,
        };
        [observed(Source::Tap, sent), observed(Source::Tap, Acked { stream: 1, nonce, version_info })]
    }

    fn shown(n: u8) -> Arc<Observation> {
        let tls = "TLSv1_3".to_owned();
        let handshake = Handshake { tls, resumed: false, chain: vec![leaf(n)], verified: None, error: None };
        observed(Source::Inbound, handshake)
    }

    #[test]
    fn of_generations_that_come_at_once_those_count_that_are_served() {
        let mut seen = Seen::default();
        let bursts = [[0, 1, 2], [3, 4, 5]];
        for burst in bursts {
            let looked = burst.into_iter().flat_map(accepted).chain([shown(burst[2])]).collect::<Vec<_>>();
            seen.take_in(&looked);
            seen.take_in_shown(&looked);
        }
        let a = ProxyId::parse("a").unwrap();
        assert_eq!((seen.accepted[&a].len(), seen.counted(&a).len()), (6, 2));
    }

    #[test]
    fn what_a_proxy_that_shows_nothing_accepted_counts() {
        let mut seen = Seen::default();
        seen.take_in(&accepted(0));
        assert_eq!(seen.counted(&ProxyId::parse("a").unwrap()).len(), 1);
    }

    #[test]
    fn who_comes_is_awaited_until_nothing_more_is_to_be_seen() {
        let joined = || observed(Source::Process, Joined { after: None, roles: Vec::new() });
        let blind = |layer| {
            observed(Source::Process, Blind { layer, what: "a proxy that came later".into(), why: String::new() })
        };
        let exited = Exited { code: Some(0), signal: None, expected: true, log_tail: Vec::new() };
        for (then, awaited) in [
            (blind(None), true),
            (blind(Some(Layer::Served)), false),
            (observed(Source::Process, exited), false),
            (shown(0), true),
        ] {
            let mut seen = Seen::default();
            assert!(!seen.awaits(&[]));
            seen.take_in(&[joined(), then.clone()]);
            assert_eq!(seen.awaits(&[]), awaited, "{then:?}");
        }
    }
}
