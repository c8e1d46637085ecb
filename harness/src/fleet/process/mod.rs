//! Proxies as local processes: an Envoy each, configured as Istio configures a sidecar.

mod bootstrap;
mod collect;
mod config;
mod keep;
mod member;
mod ports;
mod ready;

use std::net::SocketAddr;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::{join_all, try_join_all};
use serde_json::Value;
use tokio::sync::watch;

pub use config::{Dialled, FleetConfig, FleetError, ProxyExit};
pub use ready::Live;

use super::Proxy;
use crate::clock::Deadline;
use crate::proc::Guard;
use crate::timeline::{Fact, ProxyId, Recorder, SecretName};
use crate::xds::{Delivery, Lds, watched_directory};
use bootstrap::Sidecar;
use member::{Ended, Launch, Running};

/// Entries in `/certs` that hold a proxy's certificate.
pub(super) fn contexts(further: u32) -> u32 {
    bootstrap::OWN_CONTEXTS.saturating_add(further)
}

/// The running proxies of a cell. The guard that started them ends them, if `stop` did not.
pub struct Fleet {
    proxies: Vec<Proxy>,
    running: Vec<Running>,
    _ports: Vec<ports::Reserved>,
    ended: Arc<Ended>,
    envoy: Utf8PathBuf,
    mounted_by: Option<Utf8PathBuf>,
    lds: Option<Lds>,
    /// Listeners that each proxy can be given later.
    late: Vec<Value>,
    recorder: Recorder,
}

impl Fleet {
    /// Writes the bootstraps and starts all proxies, at the same time. They are not ready yet: see [`Fleet::ready`].
    pub async fn start(config: FleetConfig, guard: &Guard, recorder: &Recorder) -> Result<Self, FleetError> {
        let config = checked(config)?;
        let reserved = reserve(&config)?;
        let inbound: Vec<SocketAddr> = reserved.iter().map(|ports| ports.addresses().inbound).collect();

        let ids: Vec<ProxyId> = config.members.iter().map(|(id, _)| id.clone()).collect();
        let lds = config.lds_socket.as_deref().map(|path| Lds::serve(path, &ids, recorder.clone())).transpose()?;
        let (mut proxies, mut late) = (Vec::new(), Vec::new());
        for (n, ((id, spiffe_id), ports)) in config.members.iter().zip(&reserved).enumerate() {
            let next = (n + 1) % config.members.len();
            let (next_id, next_spiffe_id) = &config.members[next];
            let directory = config.directory.join("proxies").join(id.as_str());
            let at = ports.addresses();
            let seen = seen_by(id, &config).map_err(|source| FleetError::Write { path: directory.clone(), source })?;
            let sidecar = Sidecar {
                id,
                spiffe_id: spiffe_id.as_ref(),
                at,
                next: (inbound[next], next_spiffe_id.as_ref()),
                trust_domain: config.trust_domain.as_deref(),
                delivery: &seen,
                dialled: (config.dialled.server, &config.dialled.authority_pem),
                further_contexts: config.further_contexts,
                duplicate_subscription: config.duplicate_subscription,
                resumption: config.resumption,
                must_staple: config.must_staple,
                lds_socket: config.lds_socket.as_deref(),
                stats: config.stats,
            };
            late.push(bootstrap::late_listener(&sidecar));
            let bootstrap = write_bootstrap(&directory, &sidecar)?;
            proxies.push(Proxy {
                id: id.clone(),
                spiffe_id: spiffe_id.clone(),
                // Known when it is started.
                pid: 0,
                admin: at.admin,
                inbound: at.inbound,
                outbound: at.outbound,
                dial_out: at.dial_out,
                next: next_id.clone(),
                contexts: contexts(
                    config.further_contexts + u32::from(config.resumption) + u32::from(config.must_staple),
                ),
                stapled: config.must_staple.then_some(at.stapled),
                socket: match (&seen, &config.delivery) {
                    (Delivery::Socket(inside), Delivery::Socket(outside)) => Some((inside.clone(), outside.clone())),
                    _ => None,
                },
                watches: match &config.delivery {
                    Delivery::Files(files) => Some(watched_directory(files, id, &SecretName::default_svid())),
                    Delivery::Socket(_) => None,
                },
                resumes: config.resumption,
                keeps_no_sessions: true,
                bootstrap,
                log: directory.join("envoy.log"),
            });
        }

        let ended = Arc::new(watch::Sender::new(Vec::new()));
        let mounted_by = config.socket_mounted_by.as_deref();
        let launch = Launch { envoy: &config.envoy, guard, recorder, ended: &ended, mounted_by };
        let running = try_join_all(proxies.iter_mut().map(|proxy| launch.start(proxy))).await?;
        Ok(Self {
            proxies,
            running,
            _ports: reserved,
            ended,
            envoy: config.envoy,
            mounted_by: config.socket_mounted_by,
            lds,
            late,
            recorder: recorder.clone(),
        })
    }

    /// The proxies, in the order of the ring.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Until every proxy is LIVE (its first secrets came, its listeners are there); an error as soon as one of them
    /// ends. Gives the time that each took from its start.
    pub async fn ready(&self, deadline: Deadline) -> Result<Vec<Live>, FleetError> {
        try_join_all(self.proxies.iter().zip(&self.running).map(async |(proxy, running)| {
            tokio::select! {
                biased;
                exit = running.exited(&self.ended) => Err(FleetError::Exited(exit)),
                live = ready::ready(proxy, running.since, deadline) => live,
            }
        }))
        .await
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
        let Some(lds) = &self.lds else { return Ok(Vec::new()) };
        let from = self.recorder.len();
        for (proxy, listener) in self.proxies.iter().zip(&self.late) {
            lds.add(&proxy.id, listener)?;
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
        self.running[n].stop(&self.ended, deadline).await?;
        self.ended.send_modify(|exits| exits.retain(|exit| exit.id != *id));
        let proxy = &mut self.proxies[n];
        let launch = Launch {
            envoy: &self.envoy,
            guard,
            recorder: &self.recorder,
            ended: &self.ended,
            mounted_by: self.mounted_by.as_deref(),
        };
        self.running[n] = launch.start(proxy).await?;
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
        collect::collect(&self.proxies, directory, &self.recorder, deadline).await
    }
}

/// Paths made absolute, for each proxy has its own working directory; names unique.
fn checked(mut config: FleetConfig) -> Result<FleetConfig, FleetError> {
    if config.members.is_empty() {
        return Err(FleetError::Empty);
    }
    let mut names: Vec<_> = config.members.iter().map(|(id, _)| id).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(FleetError::SameName(twice[0].clone()));
    }
    let (Delivery::Socket(secrets) | Delivery::Files(secrets)) = &mut config.delivery;
    for path in [&mut config.envoy, &mut config.directory, &mut *secrets].into_iter().chain(&mut config.lds_socket) {
        *path = camino::absolute_utf8(&*path).map_err(|source| FleetError::Write { path: path.clone(), source })?;
    }
    let served = match &config.delivery {
        Delivery::Socket(socket) => Some(socket),
        Delivery::Files(_) => None,
    };
    let too_long = |path: &&Utf8PathBuf| path.as_str().len() > config::MAX_SOCKET_PATH;
    match served.into_iter().chain(&config.lds_socket).find(too_long) {
        Some(path) => Err(FleetError::SocketPath { path: path.clone() }),
        None => Ok(config),
    }
}

/// Where this proxy's secrets come from, as it sees that.
fn seen_by(id: &ProxyId, config: &FleetConfig) -> std::io::Result<Delivery> {
    match (&config.delivery, &config.socket_mounted_by) {
        (Delivery::Socket(socket), Some(_)) => {
            // What a file is mounted on must be there.
            let mounted = socket.with_file_name(format!("{id}.sock"));
            keep::file(&mounted, b"")?;
            Ok(Delivery::Socket(mounted))
        }
        (delivery, _) => Ok(delivery.clone()),
    }
}

fn reserve(config: &FleetConfig) -> Result<Vec<ports::Reserved>, FleetError> {
    let one = |id: &ProxyId| ports::Reserved::new().map_err(|source| FleetError::Ports { id: id.clone(), source });
    config.members.iter().map(|(id, _)| one(id)).collect()
}

fn write_bootstrap(directory: &Utf8Path, sidecar: &Sidecar<'_>) -> Result<Utf8PathBuf, FleetError> {
    let failed = |path: &Utf8Path, source| FleetError::Write { path: path.to_owned(), source };
    keep::directory(directory).map_err(|e| failed(directory, e))?;
    let mut text = serde_json::to_string_pretty(&bootstrap::bootstrap(sidecar)).expect("a JSON value can be written");
    text.push('\n');
    let path = directory.join("bootstrap.json");
    keep::file(&path, text.as_bytes()).map_err(|e| failed(&path, e))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells run as tasks of a runtime with several threads: what does not compile here could not be in one.
    #[expect(dead_code, reason = "to compile is the test")]
    fn every_future_can_move_between_threads(
        config: FleetConfig,
        fleet: &mut Fleet,
        guard: &Guard,
        deadline: Deadline,
    ) {
        fn send(_: impl Send) {}
        let recorder = fleet.recorder.clone();
        send(Fleet::start(config, guard, &recorder));
        send(fleet.ready(deadline));
        send(fleet.exited());
        send(fleet.stop(deadline));
        send(fleet.collect(Utf8Path::new("."), deadline));
        let id = fleet.proxies[0].id.clone();
        send(fleet.restart(&id, guard, deadline));
    }
}
