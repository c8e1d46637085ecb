//! Somebody else's certificate, in files: a proxy that has it beside its own is like a gateway.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::fleet::{FleetError, keep};
use crate::pki::{Authority, LeafRequest, San, Validity};
use crate::scenario::{KeyType, TRUST_DOMAIN};
use crate::timeline::SpiffeId;

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub(super) struct Foreign {
    pub(super) chain: Utf8PathBuf,
    pub(super) key: Utf8PathBuf,
}

/// Makes one that lives for so long, by an authority that nobody in the mesh trusts. The directory must not be one that
/// is kept: there is a private key in it.
pub(super) fn put(directory: &Utf8Path, lasting: Duration, now: jiff::Timestamp) -> Result<Foreign, FleetError> {
    let validity = Validity::starting(now, lasting);
    let id =
        SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/ns/demo/sa/gateway")).expect("a literal of the right form");
    let request = LeafRequest { names: vec![San::Spiffe(id)], validity, key_type: KeyType::EcdsaP256, serial: None };
    let authority = Authority::new("rotacheck foreign authority", validity);
    let leaf = authority.and_then(|authority| authority.mint(&request)).map_err(FleetError::Foreign)?;
    let written = |path: &Utf8Path, bytes: &[u8]| {
        keep::file(path, bytes).map_err(|source| FleetError::Write { path: path.to_owned(), source })
    };
    keep::directory(directory).map_err(|source| FleetError::Write { path: directory.to_owned(), source })?;
    let foreign = Foreign { chain: directory.join("tls.crt"), key: directory.join("tls.key") };
    written(&foreign.chain, leaf.chain_pem().as_bytes())?;
    written(&foreign.key, leaf.key.to_pem().as_bytes())?;
    Ok(foreign)
}
