//! Proxies as local processes: an Envoy each, configured as Istio configures a sidecar.

mod bootstrap;
mod config;
mod foreign;

use std::net::{Ipv4Addr, SocketAddr};

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::try_join_all;
use serde_json::Value;

pub use config::{Dialled, FleetConfig, ForeignConfig};

use super::container::{Container, Mount};
use super::member::Start;
use super::members::{Fleet, Late};
use super::{FleetError, MAX_SOCKET_PATH, Proxy, keep, ports};
use crate::proc::{Guard, MOUNTED, Spawn};
use crate::timeline::{ProxyId, RELOAD_FAILED, Recorder, SecretName, SpiffeId};
use crate::xds::{Delivery, Lds, watched_directory};
use bootstrap::Sidecar;

/// A cluster that dials the harness with the proxy's client certificate, and the listener that leads there, for proxies
/// that are configured otherwise.
pub(super) fn dial_out(id: &ProxyId, at: SocketAddr, delivery: &Delivery, dialled: &Dialled) -> [Value; 2] {
    bootstrap::dial_out(id, at, delivery, (dialled.server, &dialled.authority_pem))
}

/// Entries in `/certs` that hold a proxy's certificate.
pub(super) fn contexts(further: u32) -> u32 {
    bootstrap::OWN_CONTEXTS.saturating_add(further)
}

/// Writes the bootstraps and starts an Envoy for each.
pub(super) async fn start(config: FleetConfig, guard: &Guard, recorder: &Recorder) -> Result<Fleet, FleetError> {
    let config = checked(config)?;
    let reserved = reserve(&config)?;
    let inbound: Vec<SocketAddr> = reserved.iter().map(|ports| ports.addresses().inbound).collect();

    let ids: Vec<ProxyId> = config.members.iter().map(|(id, _)| id.clone()).collect();
    let lds = config.lds_socket.as_deref().map(|path| Lds::serve(path, &ids, recorder.clone())).transpose()?;
    let now = recorder.clock().now();
    let foreign = config.foreign.as_ref().map(|f| foreign::put(&f.directory, f.ttl, now)).transpose()?;
    let (mut members, mut listeners) = (Vec::new(), Vec::new());
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
            trust_domain: config.identity.as_ref().map(SpiffeId::trust_domain),
            delivery: &seen,
            dialled: (config.dialled.server, &config.dialled.authority_pem),
            further_contexts: config.further_contexts,
            duplicate_subscription: config.duplicate_subscription,
            resumption: config.resumption,
            must_staple: config.must_staple,
            foreign: foreign.as_ref(),
            lds_socket: config.lds_socket.as_deref(),
            stats: config.stats,
        };
        listeners.push(bootstrap::late_listener(&sidecar));
        let bootstrap = write_bootstrap(&directory, &sidecar)?;
        let proxy = Proxy {
            id: id.clone(),
            spiffe_id: spiffe_id.clone(),
            // Known when it is started.
            pid: 0,
            admin: at.admin,
            inbound: at.inbound,
            outbound: at.outbound,
            dial_out: at.dial_out,
            next: next_id.clone(),
            contexts: contexts(config.further_contexts + u32::from(config.resumption) + u32::from(config.must_staple)),
            listens: None,
            stapled: config.must_staple.then_some(at.stapled),
            socket: match (&seen, &config.delivery) {
                (Delivery::Socket(inside), Delivery::Socket(outside)) => Some((inside.clone(), outside.clone())),
                _ => None,
            },
            watches: match &config.delivery {
                Delivery::Files(files) => Some(watched_directory(files, id, &SecretName::default_svid())),
                Delivery::Socket(_) | Delivery::Mesh(_) => None,
            },
            resumes: config.resumption,
            keeps_no_sessions: true,
            sides: crate::fleet::Sides::ALL,
            bootstrap,
            log: directory.join("envoy.log"),
            telling: match &config.delivery {
                Delivery::Files(_) => &[RELOAD_FAILED],
                Delivery::Socket(_) | Delivery::Mesh(_) => &[],
            },
        };
        members.push((proxy.clone(), start_of(&proxy, &config, recorder)));
    }
    let containers = members.iter().filter_map(|(proxy, start)| Some((&proxy.id, start.container.as_ref()?)));
    try_join_all(containers.map(|(id, container)| container.make(id, guard))).await?;

    let late = lds.map(|lds| Late { lds, listeners });
    Fleet::of(members, late, Box::new(reserved), guard, recorder).await
}

fn start_of(proxy: &Proxy, config: &FleetConfig, recorder: &Recorder) -> Start {
    let spawn = spawn(proxy, config, recorder);
    let Some(vessel) = &config.vessel else {
        return Start { spawn, what: "envoy", child: None, container: None };
    };
    let container = Container::of(vessel, &proxy.id, &spawn, &mounts(proxy, config, recorder));
    Start { spawn: container.spawn(), what: "docker", child: None, container: Some(container) }
}

/// What a proxy in a container has to see of this machine. Directories rather than what is in them, where that comes and
/// goes.
fn mounts(proxy: &Proxy, config: &FleetConfig, recorder: &Recorder) -> Vec<Mount> {
    let parent = |path: &Utf8PathBuf| path.parent().map(Utf8Path::to_owned);
    let secrets = match &config.delivery {
        Delivery::Socket(socket) => parent(socket),
        Delivery::Files(files) => Some(files.clone()),
        Delivery::Mesh(_) => None,
    };
    let foreign = config.foreign.as_ref().map(|foreign| foreign.directory.clone());
    let further = [secrets, config.lds_socket.as_ref().and_then(parent), foreign, parent(&proxy.bootstrap)];
    let mut mounts: Vec<Mount> = Vec::new();
    for place in further.into_iter().flatten() {
        if !mounts.iter().any(|seen| place.starts_with(&seen.target)) {
            mounts.push(Mount::same(place));
        }
    }
    mounts.extend(recorder.clock().files().into_iter().map(Mount::same));
    if let (Some(_), Some((inside, outside))) = (&config.socket_mounted_by, &proxy.socket) {
        mounts.push(Mount { source: outside.clone(), target: inside.clone() });
    }
    mounts
}

fn spawn(proxy: &Proxy, config: &FleetConfig, recorder: &Recorder) -> Spawn {
    let args = [
        "--config-path",
        proxy.bootstrap.as_str(),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        // Refused secrets and broken streams are warnings. At debug the config logger would tell the version of each
        // response, but also print the secrets of watched files, keys included.
        "--log-level",
        "warning",
        "--component-log-level",
        "config:info",
        // Cell time, whatever the version's own default is.
        "--log-format",
        "[%Y-%m-%dT%T.%eZ][%l][%n] %v",
    ];
    let (program, args) = match (&config.socket_mounted_by, &proxy.socket, &config.vessel) {
        (Some(harness), Some((inside, outside)), None) => {
            let mount = [MOUNTED, outside.as_str(), inside.as_str(), "--", config.envoy.as_str()];
            (harness, mount.iter().chain(&args).map(|arg| (*arg).to_owned()).collect())
        }
        _ => (&config.envoy, args.map(str::to_owned).to_vec()),
    };
    Spawn {
        what: format!("envoy {}", proxy.id),
        program: program.clone(),
        args,
        // Nothing of the harness's own environment, so that a run does not depend on who started it.
        env: [recorder.clock().environment(), vec![("TZ".to_owned(), "UTC0".to_owned())]].concat(),
        cwd: proxy.bootstrap.parent().map(Utf8Path::to_owned),
        log: proxy.log.clone(),
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
    let secrets = match &mut config.delivery {
        Delivery::Socket(secrets) | Delivery::Files(secrets) => secrets,
        // Proxies without an agent have nobody behind these sockets.
        Delivery::Mesh(_) => return Err(FleetError::AgentsWanted),
    };
    for path in [&mut config.envoy, &mut config.directory, &mut *secrets].into_iter().chain(&mut config.lds_socket) {
        *path = camino::absolute_utf8(&*path).map_err(|source| FleetError::Write { path: path.clone(), source })?;
    }
    let served = match &config.delivery {
        Delivery::Socket(socket) => Some(socket),
        Delivery::Files(_) | Delivery::Mesh(_) => None,
    };
    let too_long = |path: &&Utf8PathBuf| path.as_str().len() > MAX_SOCKET_PATH;
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
    let one = |id: &ProxyId| {
        ports::Reserved::at(Ipv4Addr::LOCALHOST).map_err(|source| FleetError::Ports { id: id.clone(), source })
    };
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
