//! The running proxies of a cell.

use std::sync::Arc;

use camino::Utf8Path;
use futures::future::{join_all, try_join_all};
use serde_json::Value;
use tokio::sync::{Mutex, watch};

use super::agent::Istiod;
#[cfg(feature = "kubernetes")]
use super::kind::Pods;
use super::member::{Ended, Launch, Running, Start};
use super::ready::{self, Live};
use super::{FleetError, Newcomer, Proxy, ProxyExit, collect};
use crate::clock::{Clock, ClockError, Deadline};
use crate::proc::Guard;
use crate::scenario::ProviderAction;
use crate::timeline::{Fact, ProxyId, Recorder};
use crate::xds::Lds;

/// The running proxies of a cell. The guard that started them ends them, if `stop` did not.
pub struct Fleet {
    proxies: Vec<Proxy>,
    starts: Vec<Start>,
    running: Vec<Running>,
    ended: Arc<Ended>,
    late: Option<Late>,
    recorder: Recorder,
    /// Who configures them, where that is istiod.
    istiod: Option<Mutex<Istiod>>,
    /// Where the proxies are pods, and no processes of ours.
    #[cfg(feature = "kubernetes")]
    pods: Option<Pods>,
    /// What must last as long as the fleet does: ports that are held, servers of the harness's own.
    _held: Held,
}

/// Anything that ends when it is dropped.
pub(super) type Held = Box<dyn Send + Sync>;

/// Listeners that proxies can be given later, one each.
pub(super) struct Late {
    pub(super) lds: Lds,
    pub(super) listeners: Vec<Value>,
}

impl Fleet {
    /// Starts all proxies, at the same time. They are not ready yet: see [`Fleet::ready`].
    pub(super) async fn of(
        members: Vec<(Proxy, Start)>,
        late: Option<Late>,
        held: Held,
        guard: &Guard,
        recorder: &Recorder,
    ) -> Result<Self, FleetError> {
        let (mut proxies, starts): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        let ended = Arc::new(watch::Sender::new(Vec::new()));
        let launch = Launch { guard, recorder, ended: &ended };
        let started = proxies.iter_mut().zip(&starts).map(|(proxy, start)| launch.start(proxy, start));
        let running = try_join_all(started).await?;
        Ok(Self {
            proxies,
            starts,
            running,
            ended,
            late,
            recorder: recorder.clone(),
            istiod: None,
            #[cfg(feature = "kubernetes")]
            pods: None,
            _held: held,
        })
    }

    /// Pods that run.
    #[cfg(feature = "kubernetes")]
    pub(super) fn of_pods(proxies: Vec<Proxy>, pods: Pods, ended: Arc<Ended>, recorder: &Recorder) -> Self {
        Self {
            proxies,
            starts: Vec::new(),
            running: Vec::new(),
            ended,
            late: None,
            recorder: recorder.clone(),
            istiod: None,
            pods: Some(pods),
            _held: Box::new(()),
        }
    }

    /// With istiod, which lasts as long as the fleet does.
    pub(super) fn under(mut self, istiod: Istiod) -> Self {
        self.istiod = Some(Mutex::new(istiod));
        self
    }

    /// Does something to who issues certificates, and records that, where that is a part of the fleet: istiod, or SPIRE in
    /// a cluster. To others, nothing.
    pub async fn undergo(&self, action: ProviderAction, guard: &Guard) -> Result<(), FleetError> {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            return pods.undergo(action, &self.recorder).await;
        }
        match &self.istiod {
            Some(istiod) => istiod.lock().await.undergo(action, guard).await,
            None => Ok(()),
        }
    }

    /// The proxies, in the order of the ring.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// The proxies that are there now: those of the beginning, as far as they still are, and those that came later.
    pub fn present(&self) -> Vec<Proxy> {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            return pods.present();
        }
        self.proxies.clone()
    }

    /// The next proxy that is on its way and was not there at the beginning; pending while there is none.
    pub async fn newcomer(&self) -> Newcomer {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            return pods.newcomer().await;
        }
        std::future::pending().await
    }

    /// Why nothing can be seen of the proxies now, where they are elsewhere and nobody answers there.
    pub fn silent(&self) -> Option<String> {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            return pods.silent();
        }
        None
    }

    /// Why nothing will be seen of the proxies any more; pending while that is not so.
    pub async fn lost(&self) -> String {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            return pods.lost().await;
        }
        std::future::pending().await
    }

    /// Until every proxy is LIVE (its first secrets came, its listeners are there); an error as soon as one of them
    /// ends. Gives the time that each took from its start.
    pub async fn ready(&self, deadline: Deadline) -> Result<Vec<Live>, FleetError> {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            return pods.ready(&self.proxies, &self.ended, deadline).await;
        }
        try_join_all(self.proxies.iter().zip(&self.running).map(async |(proxy, running)| {
            tokio::select! {
                biased;
                exit = running.exited(&self.ended) => Err(FleetError::Exited(exit)),
                live = ready::ready(proxy, &[], running.since, deadline) => live,
            }
        }))
        .await
    }

    /// Whether every proxy lives in cell time, as far as that shows before time is moved; who does not, and why.
    pub fn lives_in(&self, clock: &Clock) -> Result<(), (ProxyId, ClockError)> {
        #[cfg(feature = "kubernetes")]
        if self.pods.is_some() {
            // Its memory is not ours to look into: receipts will tell.
            return Ok(());
        }
        let lives = |proxy: &Proxy| clock.taken_by(proxy.pid).map_err(|e| (proxy.id.clone(), e));
        self.proxies.iter().try_for_each(lives)
    }

    /// Cell time was moved: so that proxies that do not share this machine's memory follow.
    pub async fn follow(&self, clock: &Clock) -> Result<(), FleetError> {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            pods.move_to(clock.offset()).await?;
        }
        #[cfg(not(feature = "kubernetes"))]
        let _ = clock;
        Ok(())
    }

    /// The first proxy that ended although nobody asked it to; pending while there is none. Lives on its own, so that
    /// it can be selected on while the fleet is in use.
    pub fn exited(&self) -> impl Future<Output = ProxyExit> + Send + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            let unexpected = |exits: &Vec<ProxyExit>| exits.iter().any(|exit| !exit.expected);
            let exit = match ended.wait_for(unexpected).await {
                Ok(exits) => exits.iter().find(|exit| !exit.expected).cloned(),
                Err(_) => None,
            };
            match exit {
                Some(exit) => exit,
                // The fleet is gone; nothing will come any more.
                None => std::future::pending().await,
            }
        }
    }

    /// Gives each proxy one inbound listener more, over LDS, and awaits what they say to it: accepted or refused. Returns
    /// those that said nothing.
    pub async fn add_listeners(&self, deadline: Deadline) -> Result<Vec<ProxyId>, FleetError> {
        let Some(late) = &self.late else { return Ok(Vec::new()) };
        let from = self.recorder.len();
        for (proxy, listener) in self.proxies.iter().zip(&late.listeners) {
            late.lds.add(&proxy.id, listener)?;
        }
        let mut silent: Vec<ProxyId> = self.proxies.iter().map(|proxy| proxy.id.clone()).collect();
        self.recorder
            .await_until(from, deadline, |o| {
                if matches!(o.fact, Fact::ListenerAnswered(_)) {
                    silent.retain(|id| o.proxy.as_ref() != Some(id));
                }
                silent.is_empty()
            })
            .await;
        Ok(silent)
    }

    /// Ends one proxy, if it still runs, and starts it again: same bootstrap, same ports, same log.
    pub async fn restart(&mut self, id: &ProxyId, guard: &Guard, deadline: Deadline) -> Result<(), FleetError> {
        let n = self.proxies.iter().position(|p| p.id == *id).ok_or_else(|| FleetError::NoSuchProxy(id.clone()))?;
        self.running.get(n).ok_or(FleetError::NotOurs)?.stop(&self.ended, deadline).await?;
        self.ended.send_modify(|exits| exits.retain(|exit| exit.id != *id));
        let proxy = &mut self.proxies[n];
        let launch = Launch { guard, recorder: &self.recorder, ended: &self.ended };
        self.running[n] = launch.start(proxy, &self.starts[n]).await?;
        Ok(())
    }

    /// Ends all proxies and waits until they are gone.
    pub async fn stop(&self, deadline: Deadline) -> Result<(), FleetError> {
        let stopped = self.running.iter().map(|running| running.stop(&self.ended, deadline));
        join_all(stopped).await.into_iter().collect()
    }

    /// Keeps the raw answers of every proxy's admin API below `directory/proxies/<id>`; what gives no answer is
    /// recorded as blind.
    pub async fn collect(&self, directory: &Utf8Path, deadline: Deadline) -> Result<(), FleetError> {
        #[cfg(feature = "kubernetes")]
        if let Some(pods) = &self.pods {
            pods.collect(directory, &self.recorder, deadline).await?;
        }
        collect::collect(&self.present(), directory, &self.recorder, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells run as tasks of a runtime with several threads: what does not compile here could not be in one.
    #[expect(dead_code, reason = "to compile is the test")]
    fn every_future_can_move_between_threads(
        config: crate::fleet::FleetConfig,
        fleet: &mut Fleet,
        guard: &Guard,
        deadline: Deadline,
    ) {
        fn send(_: impl Send) {}
        let recorder = fleet.recorder.clone();
        send(crate::fleet::process::start(config, guard, &recorder));
        send(fleet.ready(deadline));
        send(fleet.exited());
        send(fleet.stop(deadline));
        send(fleet.collect(Utf8Path::new("."), deadline));
        let id = fleet.proxies[0].id.clone();
        send(fleet.restart(&id, guard, deadline));
    }
}
