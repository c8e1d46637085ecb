//! Who consumes certificates, and how one reaches it.

mod admin;

use std::net::SocketAddr;

use camino::Utf8PathBuf;

use crate::timeline::{ProxyId, SpiffeId};

pub use admin::ReachError;

/// A proxy of a cell, and where it can be reached (all on loopback).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name, also `node.id` of its requests.
    pub id: ProxyId,
    /// The identity that its certificates must carry.
    pub spiffe_id: SpiffeId,
    /// Its process.
    pub pid: i32,
    /// Admin API (plain HTTP).
    pub admin: SocketAddr,
    /// Inbound listener: mTLS with its own certificate, a client certificate required.
    pub inbound: SocketAddr,
    /// Outbound listener: plain HTTP, forwarded over mTLS to the next proxy of the ring.
    pub outbound: SocketAddr,
    /// Listener whose requests go, over TLS with the proxy's client certificate, to the harness's own server.
    pub dial_out: SocketAddr,
    /// The proxy that `outbound` leads to.
    pub next: ProxyId,
    /// TLS contexts in `/certs` that hold its certificate.
    pub contexts: u32,
    /// Its bootstrap.
    pub bootstrap: Utf8PathBuf,
    /// Its log.
    pub log: Utf8PathBuf,
}
