//! Until when a certificate works: not only by its own dates, but by those of what it hangs on.

use foldhash::{HashMap, HashSet};

use super::super::{CertFacts, Fingerprint};
use super::proxy::{ProxyLedger, Served};
use super::{Ledger, Mark};
use crate::timeline::Authority;

/// Every authority that some bundle held or that signed, by the names that certificates know it by. Of several
/// certificates for one key, the one that ends last: an old one beside it spoils nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Anchors<'t> {
    by_key: HashMap<&'t str, &'t CertFacts>,
    by_name: HashMap<&'t str, &'t CertFacts>,
}

impl<'t> Anchors<'t> {
    pub(super) fn of(authorities: &[(Mark, &'t Authority)], proxies: &[ProxyLedger<'t>]) -> Self {
        let mut anchors = Self::default();
        // The same roots come with every push.
        let mut taken: HashSet<Fingerprint> = HashSet::default();
        let mut take = |root: &'t CertFacts| {
            if taken.insert(root.fingerprint) {
                anchors.take(root);
            }
        };
        authorities.iter().for_each(|(_, a)| take(&a.cert));
        for p in proxies {
            let sent = p.pushes.iter().flat_map(|push| push.secrets).flat_map(|secret| secret.payload.roots());
            let dumped = p.dumps.iter().flat_map(|dump| dump.secrets).flat_map(|secret| &secret.roots);
            sent.chain(dumped).for_each(&mut take);
        }
        anchors
    }

    fn take(&mut self, root: &'t CertFacts) {
        let keep = |map: &mut HashMap<&'t str, &'t CertFacts>, key: &'t str| {
            let known = map.entry(key).or_insert(root);
            if known.not_after < root.not_after {
                *known = root;
            }
        };
        if let Some(id) = &root.subject_key_id {
            keep(&mut self.by_key, id);
        }
        keep(&mut self.by_name, &root.subject);
    }

    /// What signed this certificate.
    fn above(&self, cert: &CertFacts) -> Option<&'t CertFacts> {
        let by_name = || self.by_name.get(cert.issuer.as_str()).copied();
        match &cert.authority_key_id {
            Some(id) => {
                self.by_key.get(id.as_str()).copied().or_else(|| by_name().filter(|root| root.subject_key_id.is_none()))
            }
            None => by_name(),
        }
    }
}

/// Whether this certificate was signed by that authority, as far as their names tell (RFC 5280, 6.1).
fn signed(authority: &CertFacts, cert: &CertFacts) -> bool {
    match (&authority.subject_key_id, &cert.authority_key_id) {
        (Some(has), Some(names)) => has == names,
        _ => authority.subject == cert.issuer,
    }
}

impl<'t> Ledger<'t> {
    /// The authority above the leaf that ends before the leaf does, and before any other of its chain: an intermediate
    /// that was shown with it, or one that the bundles hold. From its end on, no peer accepts the leaf.
    pub fn ends_first(&self, shown: &Served<'t>) -> Option<&'t CertFacts> {
        let leaf = shown.leaf()?;
        let mut first: Option<&'t CertFacts> = None;
        let mut below = leaf;
        for _ in 0..shown.chain.len() {
            let anchor = self.anchors.above(below);
            let of_chain = || shown.chain[1..].iter().find(|c| c.is_ca && c.subject != c.issuer && signed(c, below));
            let Some(above) = anchor.or_else(of_chain) else { break };
            if first.is_none_or(|first| above.not_after < first.not_after) {
                first = Some(above);
            }
            if anchor.is_some() {
                break;
            }
            below = above;
        }
        first.filter(|above| above.not_after < leaf.not_after)
    }

    /// Until when peers accept what a full handshake showed: the leaf's own end, or that of what it hangs on.
    pub fn works_until(&self, shown: &Served<'t>) -> Option<jiff::Timestamp> {
        Some(self.ends_first(shown).or(shown.leaf())?.not_after)
    }
}
