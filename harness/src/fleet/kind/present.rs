//! The proxies that are there now, and the ways to them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ways::Ways;
use crate::fleet::Proxy;
use crate::timeline::ProxyId;

/// Who is there. What is asked of one that has gone meanwhile is not answered.
#[derive(Default)]
pub(super) struct Present(Mutex<BTreeMap<ProxyId, (Proxy, Ways)>>);

impl Present {
    /// All of them, by name.
    pub(super) fn proxies(&self) -> Vec<Proxy> {
        self.lock().values().map(|(proxy, _)| proxy.clone()).collect()
    }

    pub(super) fn enter(&self, proxy: Proxy, ways: Ways) {
        self.lock().insert(proxy.id.clone(), (proxy, ways));
    }

    pub(super) fn leave(&self, id: &ProxyId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProxyId, (Proxy, Ways)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
