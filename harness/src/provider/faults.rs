//! Which fault spoils what, and when.

use crate::scenario::{Fault, FaultSpec};
use crate::timeline::{ProxyId, SecretName};

/// The scenario's faults. Where several hit the same secret in the same renewal, the first counts.
pub(super) struct Faults(Vec<FaultSpec>);

impl Faults {
    pub(super) fn new(specs: Vec<FaultSpec>) -> Self {
        Self(specs)
    }

    /// What spoils a certificate. A fault that names no secret is about certificates, and a certificate is meant by
    /// `default` too, whatever name a stream gives it.
    pub(super) fn of_certificate(&self, renewal: u32, proxy: Option<&ProxyId>, name: &str) -> Option<Fault> {
        self.first(renewal, proxy, |secret| {
            secret.is_none_or(|secret| secret.as_str() == name || *secret == SecretName::default_svid())
        })
    }

    /// What spoils a bundle: only what names it.
    pub(super) fn of_bundle(&self, renewal: u32, proxy: Option<&ProxyId>, name: &str) -> Option<Fault> {
        self.first(renewal, proxy, |secret| secret.is_some_and(|secret| secret.as_str() == name))
    }

    /// Whether all streams of the proxy are ended, not only those of one secret.
    pub(super) fn close_everything(&self, renewal: u32, proxy: Option<&ProxyId>) -> bool {
        self.0
            .iter()
            .any(|spec| spec.fault == Fault::CloseStream && spec.secret.is_none() && spec.spoils(renewal, proxy))
    }

    fn first(
        &self,
        renewal: u32,
        proxy: Option<&ProxyId>,
        concerns: impl Fn(Option<&SecretName>) -> bool,
    ) -> Option<Fault> {
        let hits = |spec: &&FaultSpec| concerns(spec.secret.as_ref()) && spec.spoils(renewal, proxy);
        self.0.iter().find(hits).map(|spec| spec.fault)
    }
}

/// The fault's name in a scenario, and what it does, for readers.
pub(super) fn words(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::NoRenewal => ("no-renewal", "minted nothing, pushed nothing"),
        Fault::NoPush => ("no-push", "minted a certificate and kept it"),
        Fault::ResendCached => ("resend-cached", "minted nothing, sent the same certificate under a new version"),
        Fault::ResendStale => ("resend-stale", "minted a certificate, sent the one before under a new version"),
        Fault::ExpiredCertificate => ("expired-certificate", "minted a certificate that has already expired"),
        Fault::WrongKey => ("wrong-key", "sent the new chain with another key"),
        Fault::BadPem => ("bad-pem", "sent a chain that is no PEM"),
        Fault::CloseStream => ("close-stream", "ended the streams instead of pushing"),
    }
}
