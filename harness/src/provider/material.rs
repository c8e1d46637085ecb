//! What can be sent: chains with keys, and bundles, with the facts of the very bytes that are sent.

use std::sync::Arc;

use crate::pki::{self, Authorities, Leaf, PrivateKey, chain_der, chain_facts, leaf_key_matches};
use crate::timeline::{CertFacts, Fingerprint, Payload, SpiffeId};
use crate::xds::Content;

/// A chain and a key as they are sent, whole or spoiled.
#[derive(Debug)]
pub(super) struct Certificate {
    spiffe_id: SpiffeId,
    chain: String,
    key: PrivateKey,
    /// An OCSP response, DER.
    staple: Option<Vec<u8>>,
    pub(super) payload: Payload,
}

impl Certificate {
    pub(super) fn new(spiffe_id: SpiffeId, leaf: Leaf, staple: Option<Vec<u8>>) -> Arc<Self> {
        Self::of(spiffe_id, leaf.chain_pem(), leaf.key, staple)
    }

    /// The same chain with a key that is not its own.
    pub(super) fn with_key(&self, key: PrivateKey) -> Arc<Self> {
        Self::of(self.spiffe_id.clone(), self.chain.clone(), key, self.staple.clone())
    }

    /// A chain that no PEM reader accepts.
    pub(super) fn with_bad_pem(&self) -> Arc<Self> {
        Self::of(self.spiffe_id.clone(), bad_pem(&self.chain), self.key.clone(), self.staple.clone())
    }

    /// The authority, and behind it the leaf.
    pub(super) fn with_leaf_last(&self, authority: &pki::Authority) -> Arc<Self> {
        Self::of(self.spiffe_id.clone(), format!("{}{}", authority.pem(), self.chain), self.key.clone(), None)
    }

    /// Leaf and authority in one PEM block.
    pub(super) fn with_one_block(&self, authority: &pki::Authority) -> Arc<Self> {
        let ders = chain_der(self.chain.as_bytes()).unwrap_or_default();
        let all: Vec<u8> = ders.iter().flatten().copied().chain(authority.der().iter().copied()).collect();
        Self::of(self.spiffe_id.clone(), pki::pem_of([all.as_slice()]), self.key.clone(), self.staple.clone())
    }

    fn of(spiffe_id: SpiffeId, chain: String, key: PrivateKey, staple: Option<Vec<u8>>) -> Arc<Self> {
        let payload = certificate_payload(&chain, &key);
        Arc::new(Self { spiffe_id, chain, key, staple, payload })
    }

    pub(super) fn content(&self) -> Content {
        Content::Certificate {
            spiffe_id: self.spiffe_id.to_string(),
            chain: self.chain.clone(),
            key: self.key.clone(),
            staple: self.staple.clone(),
        }
    }
}

/// A trust bundle as it is sent.
#[derive(Debug)]
pub(super) struct Bundle {
    roots: String,
    pub(super) payload: Payload,
}

impl Bundle {
    pub(super) fn new(authorities: &Authorities) -> Arc<Self> {
        Self::of(authorities.bundle().map(pki::Authority::pem).collect())
    }

    pub(super) fn with_bad_pem(&self) -> Arc<Self> {
        Self::of(bad_pem(&self.roots))
    }

    fn of(roots: String) -> Arc<Self> {
        let payload = bundle_payload(&roots);
        Arc::new(Self { roots, payload })
    }

    pub(super) fn content(&self, trust_domain: &str, spiffe_validator: bool) -> Content {
        Content::Bundle { trust_domain: trust_domain.to_owned(), roots: self.roots.clone(), spiffe_validator }
    }
}

/// The facts of a chain and a key, as these very bytes have them.
pub(super) fn certificate_payload(chain: &str, key: &PrivateKey) -> Payload {
    let digest = Fingerprint::of_der(chain.as_bytes());
    let (facts, problem) = read(chain);
    let key_matches = leaf_key_matches(chain.as_bytes(), key).ok();
    Payload::Certificate { chain: facts, digest, key_matches, problem }
}

/// The facts of a trust bundle, as these very bytes have them.
pub(super) fn bundle_payload(roots: &str) -> Payload {
    let (facts, problem) = read(roots);
    let mut prints: Vec<_> = facts.iter().map(|f| f.fingerprint.to_string()).collect();
    prints.sort_unstable();
    let digest = Fingerprint::of_der(prints.concat().as_bytes());
    Payload::Bundle { roots: facts, digest, problem }
}

fn read(certificates: &str) -> (Vec<CertFacts>, Option<String>) {
    match chain_facts(certificates.as_bytes()) {
        Ok(facts) => (facts, None),
        Err(e) => (Vec::new(), Some(e.to_string())),
    }
}

/// Still looks like PEM, but its base64 is none.
fn bad_pem(pem: &str) -> String {
    pem.replacen("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!!spoiled!!", 1)
}
