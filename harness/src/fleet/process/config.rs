//! What a fleet of local proxies is made of.

use std::net::SocketAddr;
use std::time::Duration;

use camino::Utf8PathBuf;

use crate::fleet::Vessel;
use crate::fleet::agent::Istio;
use crate::scenario::StatsInclusion;
use crate::timeline::{ProxyId, SpiffeId};
use crate::xds::Delivery;

/// A fleet of local proxies.
#[derive(Clone)]
pub struct FleetConfig {
    /// The Envoy executable.
    pub envoy: Utf8PathBuf,
    /// The cell's directory; each proxy has `proxies/<id>` below it.
    pub directory: Utf8PathBuf,
    /// Where the secrets come from.
    pub delivery: Delivery,
    /// The proxies and their identities, as far as these are known, in the order of the ring: each calls the next, the
    /// last one the first.
    pub members: Vec<(ProxyId, Option<SpiffeId>)>,
    /// Where their identities are not known, the one that a fresh subscriber got: its trust domain is that of all peers.
    /// Without one, whoever the bundle vouches for is a peer.
    pub identity: Option<SpiffeId>,
    /// TLS contexts with the proxy's certificate beside those that every proxy has.
    pub further_contexts: u32,
    /// One cluster asks for its secrets by another ConfigSource.
    pub duplicate_subscription: bool,
    /// A further cluster resumes TLS sessions.
    pub resumption: bool,
    /// A further inbound listener must staple an OCSP response.
    pub must_staple: bool,
    /// A further inbound listener has somebody else's certificate, from files.
    pub foreign: Option<ForeignConfig>,
    /// Where a small LDS server is to serve, so that listeners can be added later: a Unix socket's path.
    pub lds_socket: Option<Utf8PathBuf>,
    /// The harness's executable, where each proxy is to see the provider's socket through a bind mount of the socket file
    /// itself, in a mount namespace of its own.
    pub socket_mounted_by: Option<Utf8PathBuf>,
    /// Which statistics the proxies keep.
    pub stats: StatsInclusion,
    /// Istio's programs, where the proxies are to be started by its agent and configured by its control plane.
    pub istio: Option<Istio>,
    /// What their containers are made of, where the proxies are to be in some.
    pub vessel: Option<Vessel>,
    /// The namespace of a cluster where the proxies are to be pods.
    #[cfg(feature = "kubernetes")]
    pub yard: Option<std::sync::Arc<crate::fleet::Yard>>,
    /// The harness's server that shows which client certificate a proxy presents.
    pub dialled: Dialled,
}

/// Somebody else's certificate, which the proxies have in files beside their own.
#[derive(Debug, Clone)]
pub struct ForeignConfig {
    /// Where its files are put, with its private key: no directory that is kept.
    pub directory: Utf8PathBuf,
    /// How long it lives.
    pub ttl: Duration,
}

/// A TLS server of the harness's own, which the proxies dial.
#[derive(Debug, Clone)]
pub struct Dialled {
    /// Where it listens.
    pub server: SocketAddr,
    /// The authority that vouches for it, PEM. It stands in the bootstrap: no provider has a say in it.
    pub authority_pem: String,
}
