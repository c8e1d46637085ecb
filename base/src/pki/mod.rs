//! Authorities, SVIDs and the facts of a chain. Keys live in memory only.
//!
//! Minting follows the X.509-SVID standard: one URI SAN, digitalSignature, server and client authentication, and
//! basicConstraints that say "no authority" aloud, since some Workload API clients insist on them.

mod authorities;
mod authority;
mod cut;
mod facts;
mod key;
mod ocsp;

pub use authorities::Authorities;
pub use authority::pem_of;
pub use authority::{Authority, Leaf, LeafRequest, San, Validity};
pub use cut::{bounded, bounded_serial, bounded_uris, cut, cut_error, cut_name};
pub use facts::{ChainError, chain_der, chain_facts, facts, leaf_key_matches, leaf_key_pem_matches};
pub use key::PrivateKey;

/// Something could not be minted.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Key generation failed.
    #[error("no {kind} key could be made: {why}")]
    Key {
        /// Key type.
        kind: &'static str,
        /// The library's words; never the key's bytes.
        why: String,
    },
    /// The certificate could not be signed.
    #[error("no certificate could be made for {subject:?}: {why}")]
    Sign {
        /// For whom.
        subject: String,
        /// The library's words.
        why: String,
    },
    /// A name that no certificate can carry.
    #[error("{text:?} can't stand in a certificate: {why}")]
    Name {
        /// The name.
        text: String,
        /// Why not.
        why: String,
    },
    /// A moment that no certificate can carry.
    #[error("{0} is no time that a certificate can carry")]
    Time(jiff::Timestamp),
    /// A certificate that was just made can't be read back.
    #[error(transparent)]
    Facts(#[from] ChainError),
    /// There is no prepared authority to activate.
    #[error("there is no prepared authority that could be activated")]
    NothingPrepared,
}
