//! The proxies of a cell, and the identities that they have.

use super::FleetSpec;
use crate::timeline::{ProxyId, SpiffeId};

/// The trust domain of every cell: Istio's default.
pub const TRUST_DOMAIN: &str = "cluster.local";

impl FleetSpec {
    /// The proxies with their identities, in the order of the ring. One service account each, as Istio names them.
    pub fn members(&self) -> Vec<(ProxyId, SpiffeId)> {
        self.members_of("demo")
    }

    /// The same in another namespace.
    pub fn members_of(&self, namespace: &str) -> Vec<(ProxyId, SpiffeId)> {
        self.proxy_ids()
            .into_iter()
            .map(|id| {
                let spiffe_id = SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{id}"))
                    .expect("a proxy's name is a valid path segment");
                (id, spiffe_id)
            })
            .collect()
    }
}
