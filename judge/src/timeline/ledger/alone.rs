//! A proxy that has several certificates of its identity, looked at as if one of them were its only one.

use std::borrow::Cow;

use foldhash::HashSet;

use super::super::{Fingerprint, LoadedCert, SecretName};
use super::proxy::{ProxyLedger, Served, is_same};
use super::{Ledger, rows};

impl<'t> Ledger<'t> {
    /// The proxy with this secret alone: handshakes, contexts and generations that belong to its other ones are left out.
    pub fn alone(&self, p: &ProxyLedger<'t>, name: &SecretName) -> ProxyLedger<'t> {
        let under = |is: &dyn Fn(&SecretName) -> bool| -> HashSet<Fingerprint> {
            let names: Vec<&SecretName> = p.certificates().filter(|name| is(name)).collect();
            let leaves = p.pushes.iter().flat_map(|push| names.iter().filter_map(|name| push.leaf(name)));
            leaves.map(|leaf| leaf.fingerprint).collect()
        };
        let (own, others) = (under(&|n| n == name), under(&|n| n != name));
        let minted_for_another = |generation: &Fingerprint| {
            let issued = self.generations.get(generation).map_or(&[][..], |g| &g.issued);
            let another = |secret: &SecretName| secret != name && p.certificates().any(|known| known == secret);
            !issued.is_empty() && issued.iter().all(|issue| issue.secret.is_some_and(another))
        };
        let foreign = |leaf: &Fingerprint| !own.contains(leaf) && (others.contains(leaf) || minted_for_another(leaf));
        let mut view = p.clone();
        (view.svid, view.further) = (name.clone(), Vec::new());
        view.served.retain(|s| !s.leaf().is_some_and(|leaf| foreign(&leaf.fingerprint)));
        let known: Vec<_> =
            self.generations.values().filter(|g| foreign(&g.cert.fingerprint)).map(|g| g.cert).collect();
        for load in &mut view.loads {
            let is_foreign = |held: &LoadedCert| known.iter().any(|cert| is_same(held, cert));
            let (others, own) = std::mem::take(&mut load.own).into_owned().into_iter().partition(is_foreign);
            load.own = Cow::Owned(own);
            load.others.extend::<Vec<_>>(others);
        }
        // How many of its contexts are to hold this one, nobody says.
        view.contexts = None;
        rows::rebuild(self, &mut view, &|generation| !foreign(generation));
        view
    }

    /// The secret whose certificate the proxy showed when something went wrong.
    pub fn shown_at<'a>(&self, p: &'a ProxyLedger<'t>, seq: u64) -> &'a SecretName {
        let handshake = p.served.iter().rfind(|s| s.mark.seq <= seq && s.leaf().is_some());
        let load = p.loads.iter().find(|load| load.mark.seq == seq);
        let oldest = load.and_then(|load| load.own.iter().min_by_key(|held| held.not_after));
        let loaded = oldest.and_then(|held| p.rows.iter().find(|row| is_same(held, row.cert))).map(|row| row.cert);
        let leaf = loaded.or(handshake.and_then(Served::leaf));
        leaf.and_then(|leaf| p.carried_by(&leaf.fingerprint)).unwrap_or(&p.svid)
    }
}
