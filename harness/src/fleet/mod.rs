//! Who consumes certificates, and how one reaches it.
//!
//! `process` runs the proxies as local processes, `container` in containers, `agent` behind Istio's, `kind` as pods of a cluster; `attached` are those
//! of a cluster which somebody else runs; `admin` asks one of them, however it is run.

mod admin;
mod agent;
#[cfg(feature = "kubernetes")]
mod attached;
mod call;
mod collect;
mod container;
mod error;
mod keep;
#[cfg(feature = "kubernetes")]
mod kind;
mod member;
mod members;
mod owner;
mod ports;
#[cfg(feature = "kubernetes")]
mod prober;
mod process;
mod ready;
mod sweep;

use std::net::SocketAddr;

use camino::Utf8PathBuf;

use crate::timeline::{ProxyExpectation, ProxyId, SpiffeId};

pub use admin::{Admin, ReachError};
pub use agent::{Istio, IstioPrograms, disclosures, workload_socket};
#[cfg(feature = "kubernetes")]
pub use attached::Attached;
pub use call::CallError;
pub use container::{ContainerError, Docker, ENVOY, EnvoyImage, Vessel};
pub use error::{FleetError, ProxyExit};
#[cfg(feature = "kubernetes")]
pub use kind::{Asked, Gated, IssuerThere, Issuers, Kind, KindConfig, KindError, Place, SpireImages, Yard};
pub use members::Fleet;
pub use owner::RUN;
#[cfg(feature = "kubernetes")]
pub use owner::run_labels;
#[cfg(feature = "kubernetes")]
pub use prober::{Prober, WayThrough};
pub use process::{Dialled, FleetConfig, ForeignConfig};
pub use ready::Live;
pub use sweep::{Left, Search, SweepError, left_behind, sweep};

use crate::proc::Guard;
use crate::timeline::Recorder;
use error::MAX_SOCKET_PATH;

impl Fleet {
    /// Writes the proxies' configuration and starts them all. They are not ready yet: see [`Fleet::ready`].
    pub async fn start(config: FleetConfig, guard: &Guard, recorder: &Recorder) -> Result<Self, FleetError> {
        #[cfg(feature = "kubernetes")]
        if let Some(yard) = config.yard.clone() {
            return kind::start(config, &yard, recorder).await;
        }
        match config.istio.clone() {
            None => process::start(config, guard, recorder).await,
            Some(istio) => agent::start(config, &istio, guard, recorder).await,
        }
    }
}

/// A proxy of a cell, and where it can be reached (all on loopback).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name, also `node.id` of its requests.
    pub id: ProxyId,
    /// The identity that its certificates must carry; absent where that is for the provider to say.
    pub spiffe_id: Option<SpiffeId>,
    /// Its process; in a cluster, a number that each start of its container has of its own.
    pub pid: i32,
    /// Admin API (plain HTTP).
    pub admin: SocketAddr,
    /// Inbound listener: mTLS with its own certificate, a client certificate required.
    pub inbound: SocketAddr,
    /// Outbound listener: plain HTTP, forwarded over mTLS to the next proxy of the ring. A request for `/long-lived`
    /// takes a pooled connection; any other makes its own, with a full handshake.
    pub outbound: SocketAddr,
    /// Where its listeners are as it knows them itself, where that is not where they are reached.
    pub listens: Option<Vec<(&'static str, SocketAddr)>>,
    /// Whether a request for `/resumed` on `outbound` takes a fresh connection that resumes the TLS session before.
    pub resumes: bool,
    /// Whether any other request there is known to resume none, whatever statistics show: its cluster keeps no session.
    pub keeps_no_sessions: bool,
    /// Whether it is looked at as a server, on `inbound`; as a client, by `dial_out`; and whether it is made to call the
    /// next one, by `outbound`. Else these lead nowhere.
    pub sides: Sides,
    /// Listener whose requests go, over TLS with the proxy's client certificate, to the harness's own server: a
    /// connection and a full handshake each, with the proxy's name as server name.
    pub dial_out: SocketAddr,
    /// The proxy that `outbound` leads to.
    pub next: ProxyId,
    /// TLS contexts in `/certs` that hold its certificate.
    pub contexts: u32,
    /// The inbound listener that must staple an OCSP response, where there is one.
    pub stapled: Option<SocketAddr>,
    /// Where the provider's socket is for it, and where it is for the provider.
    pub socket: Option<(Utf8PathBuf, Utf8PathBuf)>,
    /// The directory into which the files of its certificate are moved, which it is to watch.
    pub watches: Option<Utf8PathBuf>,
    /// Its bootstrap.
    pub bootstrap: Utf8PathBuf,
    /// Its log; that of Istio's agent, where one starts it, which then holds its own too.
    pub log: Utf8PathBuf,
    /// Words that mark the lines of its log that are recorded.
    pub telling: &'static [&'static str],
}

/// What of a proxy is looked at from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// What it serves.
    pub inbound: bool,
    /// What it shows where it dials the harness.
    pub dial_out: bool,
    /// Whether its peers accept it.
    pub outbound: bool,
}

impl Sides {
    /// Of a sidecar into which something leads.
    pub const ALL: Sides = Sides { inbound: true, dial_out: true, outbound: true };
    /// Of one that can only be asked from outside.
    pub const OUTER: Sides = Sides { inbound: true, dial_out: false, outbound: false };
    /// Of a gateway, which calls nobody by itself.
    pub const GATEWAY: Sides = Sides { inbound: true, dial_out: true, outbound: false };
}

/// A proxy that is on its way, and was not there at the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// What it will be called; also the workload's name in its `node.id`.
    pub id: ProxyId,
    /// The identity that its certificates are to carry.
    pub spiffe_id: SpiffeId,
}

/// What a timeline's header says of these proxies, when each has this many contexts beside those of a plain
/// sidecar.
pub fn expectations(members: &[(ProxyId, Option<SpiffeId>)], further_contexts: u32) -> Vec<ProxyExpectation> {
    members
        .iter()
        .map(|(id, spiffe_id)| ProxyExpectation {
            id: id.clone(),
            spiffe_id: spiffe_id.clone(),
            contexts: Some(process::contexts(further_contexts)),
        })
        .collect()
}
