//! The observation: the schedule moves time or waits, renewals and faults come, probes look until all has settled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::RunError;
use super::teller::Teller;
use crate::clock::{Clock, ClockError, Deadline};
use crate::fleet::{Fleet, FleetError, Proxy};
use crate::probe::{Depth, ExpectedLeaf, ProbeContext, ProxySample, Roots, sample, settle};
use crate::proc::Guard;
use crate::provider::{Fake, Provider};
use crate::scenario::{ClockKind, Scenario, StepPlan};
use crate::timeline::{DeadlineMissed, Fact, Jump, Payload, ProxyId, Recorder, SecretName, Source, Stall, Step};
use crate::verdict::undecided_latecomers;

/// How far an observation came.
pub(super) enum Observed {
    /// As far as it should.
    ToTheEnd,
    /// Something ended it before.
    Until(String),
    /// Not a step: a proxy was not ready in time.
    NeverReady(FleetError),
}

/// What an observation works with.
pub(super) struct Scene<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) provider: &'a Provider,
    pub(super) fleet: &'a Fleet,
    pub(super) probes: &'a ProbeContext,
    pub(super) recorder: &'a Recorder,
    /// Starts what is to be started again.
    pub(super) guard: &'a Guard,
    pub(super) began: jiff::Timestamp,
}

/// Envoy's longest back-off between two attempts to open a stream, and some time to answer.
const RECONNECTED: Duration = Duration::from_secs(45);

/// A step may begin this much after its time.
const LATE: Duration = Duration::from_secs(1);

pub(super) async fn observe(
    scenario: &Scenario,
    provider: &Provider,
    fleet: &Fleet,
    probes: &ProbeContext,
    guard: &Guard,
    tell: &Teller<'_>,
    ready: Duration,
) -> Result<Observed, RunError> {
    let recorder = tell.recorder;
    let began = recorder.clock().now();
    let scene = Scene { scenario, provider, fleet, probes, recorder, guard, began };
    let deadline = Deadline::after(ready);
    let course = async {
        let played = match provider {
            Provider::Fake(fake) => match scene.ready(deadline).await {
                Ok(()) => scene.play(fake, tell, deadline).await.map(|()| Observed::ToTheEnd),
                Err(e) => Err(e),
            },
            Provider::External(external) => scene.watch(external, tell, deadline).await,
        };
        match played {
            Err(RunError::Fleet(why @ FleetError::NotReady { .. })) => {
                scene.missed(None, why.to_string(), ready);
                Ok(Observed::NeverReady(why))
            }
            played => played,
        }
    };
    // One that ended on nothing but silence did not come to its end.
    let course = async {
        let observed = course.await;
        match (observed, fleet.silent()) {
            (Ok(Observed::ToTheEnd), Some(why)) => Ok(Observed::Until(why)),
            (observed, _) => observed,
        }
    };
    tokio::select! {
        biased;
        observed = course => observed,
        // A crash is seen at once, and ends the observation: it was recorded by the fleet. One before the proxies are
        // ready is for `ready` to tell.
        exit = fleet.exited() => Ok(Observed::Until(exit.to_string())),
        why = fleet.lost() => Ok(Observed::Until(why)),
        never = scene.admit() => never,
    }
}

impl Scene<'_> {
    /// Every proxy is up, and lives in cell time. One that ends before that could not be started.
    pub(super) async fn ready(&self, deadline: Deadline) -> Result<(), RunError> {
        self.fleet.ready(deadline).await?;
        self.fleet.lives_in(self.clock()).map_err(|(proxy, e)| match e {
            ClockError::NotTaken { why } => RunError::NotMoved { proxy, why },
            // It has gone in this very moment.
            e => e.into(),
        })
    }

    /// Whoever comes later is to be known to the provider before it asks.
    async fn admit<T>(&self) -> T {
        loop {
            let newcomer = self.fleet.newcomer().await;
            self.provider.admit(newcomer.id, newcomer.spiffe_id);
        }
    }

    async fn play(&self, fake: &Fake, tell: &Teller<'_>, deadline: Deadline) -> Result<(), RunError> {
        let steps = self.scenario.schedule();
        let total = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        tell.observes();
        let began = self.first_issue();
        let progress = |step: &StepPlan, total: u32| {
            let passed = self.clock().now().duration_since(began).as_secs();
            tell.progress("observe", step.index + 1, total, u64::try_from(passed).unwrap_or(0));
        };
        for step in &steps {
            let depth = if step.index + 1 == total { Depth::Collect } else { Depth::Complete };
            self.take(fake, step, began, depth, deadline).await?;
            progress(step, total);
        }
        // To judge the recording is work, which is done where somebody came.
        if !self.recorder.since(0).iter().any(|o| matches!(o.fact, Fact::Joined(_))) {
            return Ok(());
        }
        // Those who came later have their own first expiry before them. Whoever comes only now has no claim to more.
        let waited_for = undecided_latecomers(&self.recorder.so_far());
        for step in self.scenario.further() {
            let undecided =
                if waited_for.is_empty() { Vec::new() } else { undecided_latecomers(&self.recorder.so_far()) };
            if !waited_for.iter().any(|id| undecided.contains(id)) {
                break;
            }
            self.take(fake, &step, began, Depth::Collect, deadline).await?;
            progress(&step, step.index + 1);
        }
        Ok(())
    }

    /// One step of the schedule: what is due comes, and everybody is looked at.
    async fn take(
        &self,
        fake: &Fake,
        step: &StepPlan,
        began: jiff::Timestamp,
        depth: Depth,
        deadline: Deadline,
    ) -> Result<(), RunError> {
        self.reach(step, began).await?;
        let what = Step { index: step.index, renewal: step.renewal, what: step.what.clone() };
        self.recorder.record(Source::Harness, None, None, what);
        let from = self.recorder.len();
        if let Some(renewal) = step.renewal.filter(|n| *n > 0) {
            self.renew(fake, renewal).await?;
            if self.scenario.fleet.late_listener == Some(renewal) {
                let wait = self.scenario.criteria.lag_bound.duration();
                for proxy in self.fleet.add_listeners(Deadline::after(wait)).await? {
                    self.missed(Some(&proxy), "an answer to the further listener".to_owned(), wait);
                }
            }
        }
        if step.bundle {
            let changed = fake.change_bundle().await?;
            let wait = self.scenario.criteria.lag_bound.duration();
            fake.answered(&changed, Deadline::after(wait)).await;
            trust(self.probes.roots(), self.provider);
        }
        self.look(from, step.renewal == Some(0), depth, deadline).await;
        self.kept()
    }

    /// What was recorded so far is on disk.
    pub(super) fn kept(&self) -> Result<(), RunError> {
        self.recorder.flush();
        self.recorder.error().map_or(Ok(()), |e| Err(e.into()))
    }

    pub(super) fn clock(&self) -> &Clock {
        self.recorder.clock()
    }

    /// From when on the schedule counts: certificates age from their first issue on, however long proxies take to start.
    fn first_issue(&self) -> jiff::Timestamp {
        let all = self.recorder.since(0);
        let first = all.iter().find(|o| matches!(o.fact, Fact::Issued(_)));
        first.map_or(self.began, |o| o.at.wall.min(self.began))
    }

    /// Moves time to the step, or waits for it.
    async fn reach(&self, step: &StepPlan, began: jiff::Timestamp) -> Result<(), RunError> {
        let due = jiff::SignedDuration::from_secs(i64::try_from(step.at_s).unwrap_or(i64::MAX));
        let passed = || self.clock().now().duration_since(began);
        if let Ok(left) = Duration::try_from(due - passed()) {
            if self.scenario.clock == ClockKind::Virtual {
                let whole = left + Duration::from_nanos(999_999_999);
                let (from_s, to_s) = self.clock().advance(Duration::from_secs(whole.as_secs()))?;
                self.fleet.follow(self.clock()).await?;
                self.recorder.record(Source::Clock, None, None, Jump { from_s, to_s });
                return Ok(());
            }
            // The schedule itself is what is awaited here.
            tokio::time::sleep(left).await;
        }
        // Nothing was due before the first look. The renewals are the harness's own: where they come late, it is the
        // machine that does.
        if step.at_s > 0 {
            self.late(Duration::try_from(passed() - due).unwrap_or_default());
        }
        Ok(())
    }

    /// What the harness is late with, it is too slow for: as good as if it had not run.
    fn late(&self, by: Duration) {
        if by > LATE {
            let gap_ms = super::milliseconds(by);
            self.recorder.record(Source::Harness, None, None, Stall { gap_ms });
        }
    }

    /// The renewal comes, and every proxy answers what was sent to it.
    async fn renew(&self, fake: &Fake, renewal: u32) -> Result<(), RunError> {
        let wait = self.scenario.criteria.lag_bound.duration();
        let began = Instant::now();
        let renewal = fake.renew(renewal).await?;
        // Minting is the harness's own work as well.
        self.late(began.elapsed());
        for push in fake.answered(&renewal, Deadline::after(wait)).await {
            let what = format!("an answer to nonce {} on stream {}", push.nonce, push.stream);
            self.missed(push.proxy.as_ref(), what, wait);
        }
        // Back-off runs in real time: while a stream is away, hours must not pass.
        // Through a mount of the old socket nobody can come back.
        let back = if self.scenario.fleet.socket_file_mounted { Duration::ZERO } else { RECONNECTED };
        for closed in fake.reconnected(&renewal, Deadline::after(back)).await {
            let what = format!("another stream in place of stream {}", closed.stream);
            self.missed(closed.proxy.as_ref(), what, back);
        }
        trust(self.probes.roots(), self.provider);
        Ok(())
    }

    /// One complete sample of all proxies; if the leaf that they accepted last is not served yet, another one when it
    /// is, or when its time is over.
    pub(super) async fn look(&self, from: usize, first: bool, depth: Depth, ready: Deadline) {
        let proxies = &self.fleet.present();
        let expect = if first { self.first_leaves(ready).await } else { self.accepted_leaves(from) };
        if first {
            settle(proxies, self.probes, &expect, ready).await;
        }
        let samples = sample(proxies, self.probes, depth).await;
        if !first && !all_serve(&samples, &expect, proxies) {
            let deadline = Deadline::after(self.scenario.criteria.lag_bound.duration());
            settle(proxies, self.probes, &expect, deadline).await;
            sample(proxies, self.probes, depth).await;
        }
    }

    /// What every proxy accepted since `from`.
    fn accepted_leaves(&self, from: usize) -> BTreeMap<ProxyId, ExpectedLeaf> {
        let mut sent = BTreeMap::new();
        let mut accepted = BTreeMap::new();
        for o in self.recorder.since(from) {
            match (&o.fact, &o.proxy) {
                (Fact::Sent(s), Some(proxy)) => {
                    let svid = s.secrets.iter().find(|x| x.name == SecretName::default_svid().as_str());
                    if let Some(Payload::Certificate { chain, .. }) = svid.map(|x| &x.payload)
                        && let Some(leaf) = chain.first()
                    {
                        let leaf = ExpectedLeaf { cert: leaf.clone() };
                        sent.insert((s.stream, s.nonce.clone()), (proxy.clone(), leaf));
                    }
                }
                // Nobody acknowledges files: what is whole is to be taken.
                (Fact::Written(w), Some(proxy)) if w.secret.name == SecretName::default_svid().as_str() => {
                    if let Payload::Certificate { chain, key_matches: Some(true), .. } = &w.secret.payload
                        && let Some(leaf) = chain.first()
                    {
                        let leaf = ExpectedLeaf { cert: leaf.clone() };
                        accepted.insert(proxy.clone(), leaf);
                    }
                }
                (Fact::Acked(a), _) => {
                    if let Some((proxy, leaf)) = sent.remove(&(a.stream, a.nonce.clone())) {
                        accepted.insert(proxy, leaf);
                    }
                }
                _ => {}
            }
        }
        accepted
    }

    /// The first generation, as soon as every proxy has answered it.
    async fn first_leaves(&self, deadline: Deadline) -> BTreeMap<ProxyId, ExpectedLeaf> {
        let left = deadline.left();
        for (proxy, secret) in self.provider.settled(deadline).await {
            self.missed(Some(&proxy), format!("an answer to the first {secret}"), left);
        }
        self.accepted_leaves(0)
    }

    pub(super) fn missed(&self, proxy: Option<&ProxyId>, what: String, waited: Duration) {
        let missed = DeadlineMissed { what, waited_ms: super::milliseconds(waited) };
        self.recorder.record(Source::Harness, proxy, None, missed);
    }
}

/// From now on, the provider's present bundle judges what is served.
pub(super) fn trust(roots: &Roots, provider: &Provider) {
    let bundle = provider.bundle();
    // Without one, nothing can be judged.
    if !bundle.is_empty() {
        roots.replace(bundle.into_iter().map(CertificateDer::from));
    }
}

fn all_serve(samples: &[ProxySample], expect: &BTreeMap<ProxyId, ExpectedLeaf>, proxies: &[Proxy]) -> bool {
    samples.iter().zip(proxies).all(|(s, p)| expect.get(&p.id).is_none_or(|leaf| s.serves(leaf, p)))
}
