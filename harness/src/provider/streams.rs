//! What a stream subscribed to, and what its names stand for.

use super::profile;
use crate::scenario::Profile;
use crate::timeline::{ProxyId, SecretName, SpiffeId};
use crate::xds::Rpc;

/// An open stream, as the issuer knows it.
pub(super) struct Stream {
    pub(super) rpc: Rpc,
    pub(super) proxy: Option<ProxyId>,
    /// None before the first request, and once it is being ended.
    pub(super) names: Option<Vec<Name>>,
    pub(super) spiffe_validator: bool,
    pub(super) pushes: u64,
}

impl Stream {
    pub(super) fn new(rpc: Rpc, proxy: Option<ProxyId>) -> Self {
        Self { rpc, proxy, names: None, spiffe_validator: false, pushes: 0 }
    }

    /// The name under which it wants a certificate, if it does.
    pub(super) fn certificate_name(&self) -> Option<&Name> {
        self.names.iter().flatten().find(|name| !name.is_bundle)
    }
}

/// A name subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) is_bundle: bool,
}

impl Name {
    pub(super) fn leaf(text: &str) -> Self {
        Self { text: text.to_owned(), is_bundle: false }
    }

    pub(super) fn bundle(text: &str) -> Self {
        Self { text: text.to_owned(), is_bundle: true }
    }

    pub(super) fn secret_name(&self) -> SecretName {
        SecretName::parse(&self.text).unwrap_or_else(|_| SecretName::default_svid())
    }
}

/// What an SDS subscription stands for; the first name that stands for nothing, unless the provider passes over those.
pub(super) fn resolve(
    names: &[String],
    own: &SpiffeId,
    bundle_id: &str,
    profile: Profile,
) -> Result<Vec<Name>, String> {
    let mut known = Vec::new();
    for text in names {
        match text.as_str() {
            "default" => known.push(Name::leaf(text)),
            "ROOTCA" | profile::ALL_BUNDLES => known.push(Name::bundle(text)),
            id if id == own.as_str() => known.push(Name::leaf(text)),
            id if id == bundle_id => known.push(Name::bundle(text)),
            _ if profile::ignores_unknown_names(profile) => {}
            _ => return Err(text.clone()),
        }
    }
    Ok(known)
}
