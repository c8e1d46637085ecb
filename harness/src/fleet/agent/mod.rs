//! Proxies behind Istio's real agent, as in a pod: the agent starts its Envoy, a real istiod configures it. No cluster,
//! no root, no iptables: everything is on loopback, each agent in a private working directory.

mod authority;
mod disclosed;
mod istiod;
mod kubernetes;
mod mesh;
mod sidecar;
mod web;

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use camino::Utf8PathBuf;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use rsa::rand_core::{OsRng, RngCore as _};

use super::members::Fleet;
use super::ports::{self, Addresses};
use super::process::{FleetConfig, dial_out};
use super::{FleetError, Proxy, keep};
use crate::proc::{Guard, free_ports};
use crate::scenario::Span;
use crate::timeline::{AGENT_SAYS, ProxyId, Recorder, SpiffeId};
use crate::xds::Delivery;
pub use disclosed::disclosures;
#[cfg(feature = "kubernetes")]
pub(super) use disclosed::{disclosure, in_pods};
pub(super) use istiod::Istiod;
use istiod::IstiodConfig;
use kubernetes::ServiceAccount;
#[cfg(feature = "kubernetes")]
pub(super) use mesh::without_sessions;
use mesh::{NAMESPACE, Workload};
#[cfg(feature = "kubernetes")]
pub(super) use sidecar::led_to;
pub use sidecar::workload_socket;
use sidecar::{Agent, SOCKET_NAME};
use web::Server;

/// Istio's programs, as they are found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioPrograms {
    /// `pilot-agent`.
    pub agent: Utf8PathBuf,
    /// `pilot-discovery`.
    pub discovery: Utf8PathBuf,
    /// The bootstrap template that belongs to this agent.
    pub template: Utf8PathBuf,
    /// Whether the Envoy that the agent is to start is Istio's own build, with the filters that only that one has.
    pub own_envoy: bool,
}

/// An Istio for one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Istio {
    /// What is run.
    pub programs: IstioPrograms,
    /// A private directory, outside the run, for what these programs read and write. Its path is short.
    pub scratch: Utf8PathBuf,
    /// Lifetime of the certificates that the agents ask istiod for, where no provider has a socket for them.
    pub secret_ttl: Span,
    /// The agents do not find the provider's socket when they start.
    pub agents_first: bool,
    /// The agents can't open their socket for certificates from files.
    pub files_socket_blocked: bool,
}

/// Lifetime of certificates of Istio's own CA where it is not the one that is tested: Istio's default.
const DEFAULT_TTL: Span = Span::seconds(86_400);

/// Entries in `/certs` that hold the proxy's certificate when no further contexts are asked for: the inbound listener,
/// the cluster to the next proxy and its second one for long-lived connections, the cluster that dials the harness.
const OWN_CONTEXTS: u32 = 4;

/// As [`super::process::contexts`].
pub(super) fn contexts(further: u32) -> u32 {
    OWN_CONTEXTS.saturating_add(further)
}

/// What one agent and its Envoy have on this machine.
struct Place {
    id: ProxyId,
    address: Ipv4Addr,
    at: Addresses,
    status: SocketAddr,
    prometheus: SocketAddr,
    app: Server,
    token: String,
    _held: ports::Reserved,
}

impl Place {
    /// Its token, and the service account for which it stands.
    fn account(&self) -> (String, ServiceAccount) {
        let account = ServiceAccount { namespace: NAMESPACE.to_owned(), name: self.id.to_string() };
        (self.token.clone(), account)
    }
}

/// Starts istiod, and when it serves, the agents.
pub(super) async fn start(
    config: FleetConfig,
    istio: &Istio,
    guard: &Guard,
    recorder: &Recorder,
) -> Result<Fleet, FleetError> {
    let socket = match &config.delivery {
        Delivery::Socket(socket) if socket.file_name() == Some(SOCKET_NAME) => (!istio.agents_first).then_some(socket),
        Delivery::Mesh(_) => None,
        _ => return Err(FleetError::AgentWithoutSocket),
    };
    let known = config.members.iter().find_map(|(_, id)| id.as_ref()).or(config.identity.as_ref());
    let trust_domain = known.map(SpiffeId::trust_domain).unwrap_or_default();
    let mut places = Vec::new();
    for (n, (id, _)) in (0u32..).zip(&config.members) {
        places.push(place(id, n).await?);
    }

    let ring = |n: usize, by: usize| &places[(n + by) % places.len()];
    let workloads: Vec<Workload<'_>> = places
        .iter()
        .enumerate()
        .map(|(n, place)| Workload {
            id: &place.id,
            address: place.address,
            at: place.at,
            app: place.app.addr(),
            caller: ring(n, places.len() - 1).at.outbound,
            next: &ring(n, 1).id,
            identity: config.identity.as_ref(),
            dial_out: dial_out(&place.id, place.at.dial_out, &config.delivery, &config.dialled),
        })
        .collect();
    let istiod = IstiodConfig {
        program: &istio.programs.discovery,
        directory: &istio.scratch.join("istiod"),
        log: config.directory.join("istiod.log"),
        trust_domain,
        mesh: &mesh::configuration(&workloads, config.further_contexts),
        tokens: places.iter().map(Place::account).collect(),
        issues: socket.is_none(),
        own_envoy: istio.programs.own_envoy,
        started: recorder.clock().now(),
    };
    let mut istiod = Istiod::start(istiod, guard, recorder).await?;

    let mut members = Vec::new();
    for (n, place) in places.iter().enumerate() {
        let kept = config.directory.join("proxies").join(place.id.as_str());
        keep::directory(&kept).map_err(|source| FleetError::Write { path: kept.clone(), source })?;
        let directory = istio.scratch.join(place.id.as_str());
        let tap = match &config.delivery {
            Delivery::Mesh(taps) => taps.get(&place.id),
            _ => None,
        };
        let agent = Agent {
            id: &place.id,
            program: &istio.programs.agent,
            envoy: &config.envoy,
            template: &template(istio, &place.id, tap)?,
            directory: &directory,
            sockets: socket.and_then(|socket| socket.parent()),
            log: kept.join("agent.log"),
            address: place.address,
            discovery: istiod.discovery,
            token: &place.token,
            secret_ttl: if tap.is_some() { istio.secret_ttl } else { DEFAULT_TTL },
            files_socket_blocked: istio.files_socket_blocked,
            trust_domain,
            admin: place.at.admin,
            status: place.status,
            taken: place.at.late,
            prometheus: place.prometheus,
            stats: config.stats,
        };
        let start = Agent::in_cell_time(agent.prepare()?, recorder);
        if let Some(authorities) = &mut istiod.authorities {
            authorities.read_by(sidecar::root_file(&directory))?;
        }
        let proxy = Proxy {
            id: place.id.clone(),
            spiffe_id: config.members[n].1.clone(),
            // Known when it is started.
            pid: 0,
            admin: place.at.admin,
            inbound: place.at.inbound,
            outbound: place.at.outbound,
            dial_out: place.at.dial_out,
            resumes: false,
            keeps_no_sessions: true,
            sides: crate::fleet::Sides::ALL,
            next: ring(n, 1).id.clone(),
            contexts: contexts(config.further_contexts),
            listens: None,
            stapled: None,
            socket: socket.map(|socket| (socket.clone(), socket.clone())),
            watches: None,
            bootstrap: sidecar::bootstrap(&directory),
            log: agent.log.clone(),
            telling: AGENT_SAYS,
        };
        members.push((proxy, start));
    }
    let fleet = Fleet::of(members, None, Box::new(places), guard, recorder).await?;
    Ok(fleet.under(istiod))
}

async fn place(id: &ProxyId, n: u32) -> Result<Place, FleetError> {
    let refused = |source| FleetError::Ports { id: id.clone(), source };
    let address = address(n);
    let held = ports::Reserved::at(address).map_err(refused)?;
    // These can't be held: Istio's configuration does not share them.
    let [admin, status, prometheus] = free_ports().map_err(refused)?;
    let answer = Bytes::from(format!("{id}\n"));
    let app = Server::start(move |_| {
        let answer = answer.clone();
        async move { Response::new(Full::new(answer).boxed()) }
    });
    let app = app.await.map_err(refused)?;
    Ok(Place {
        id: id.clone(),
        address,
        at: Addresses { admin, ..held.addresses() },
        status,
        prometheus,
        app,
        token: token(),
        _held: held,
    })
}

/// A loopback address for each workload: Istio tells workloads apart by their addresses.
fn address(n: u32) -> Ipv4Addr {
    const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
    Ipv4Addr::from(u32::from(FIRST) + n)
}

/// Nobody else on this machine is to guess it.
fn token() -> String {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

fn template(istio: &Istio, id: &ProxyId, tap: Option<&Utf8PathBuf>) -> Result<Utf8PathBuf, FleetError> {
    let read = std::fs::read_to_string(&istio.programs.template);
    let text = read.map_err(|source| FleetError::Read { path: istio.programs.template.clone(), source })?;
    let text = sidecar::adapted(&text, tap.map(|tap| tap.as_path()))
        .ok_or_else(|| FleetError::Template { path: istio.programs.template.clone() })?;
    let path = istio.scratch.join(format!("bootstrap-template-{id}.json"));
    keep::file(&path, text.as_bytes()).map_err(|source| FleetError::Write { path: path.clone(), source })?;
    Ok(path)
}
