//! Which fault spoils what, and when.

use crate::scenario::{Fault, FaultPlace, FaultSpec};
use crate::timeline::{ProxyId, SecretName};

/// The scenario's faults. Where several of one place hit the same secret in the same renewal, the first counts.
pub(super) struct Faults(Vec<FaultSpec>);

impl Faults {
    pub(super) fn new(specs: Vec<FaultSpec>) -> Self {
        Self(specs)
    }

    /// What spoils a certificate. A fault that names no secret is about certificates, and a certificate is meant by
    /// `default` too, whatever name a stream gives it.
    pub(super) fn of_certificate(&self, renewal: u32, proxy: Option<&ProxyId>, name: &str) -> Option<Fault> {
        self.first(FaultPlace::Content, renewal, proxy, |secret| of_certificate(secret, name))
    }

    /// What spoils a bundle: only what names it.
    pub(super) fn of_bundle(&self, renewal: u32, proxy: Option<&ProxyId>, name: &str) -> Option<Fault> {
        self.first(FaultPlace::Content, renewal, proxy, |secret| secret.is_some_and(|secret| secret.as_str() == name))
    }

    /// What befalls a stream for a certificate (or for a bundle): a fault that names no secret befalls all streams of
    /// the proxy.
    pub(super) fn of_stream(
        &self,
        renewal: u32,
        proxy: Option<&ProxyId>,
        name: &str,
        is_bundle: bool,
    ) -> Option<Fault> {
        self.first(FaultPlace::Streams, renewal, proxy, |secret| match (secret, is_bundle) {
            (None, _) => true,
            (Some(_), false) => of_certificate(secret, name),
            (Some(secret), true) => secret.as_str() == name,
        })
    }

    /// What befalls the socket.
    pub(super) fn of_socket(&self, renewal: u32) -> Option<Fault> {
        self.first(FaultPlace::Socket, renewal, None, |_| true)
    }

    /// How this proxy's files are put into place, if not as they should be.
    pub(super) fn of_files(&self, renewal: u32, proxy: &ProxyId) -> Option<Fault> {
        self.first(FaultPlace::Files, renewal, Some(proxy), |_| true)
    }

    fn first(
        &self,
        place: FaultPlace,
        renewal: u32,
        proxy: Option<&ProxyId>,
        concerns: impl Fn(Option<&SecretName>) -> bool,
    ) -> Option<Fault> {
        let hits = |spec: &&FaultSpec| {
            spec.fault.place() == place && concerns(spec.secret.as_ref()) && spec.spoils(renewal, proxy)
        };
        self.0.iter().find(hits).map(|spec| spec.fault)
    }
}

fn of_certificate(secret: Option<&SecretName>, name: &str) -> bool {
    secret.is_none_or(|secret| secret.as_str() == name || *secret == SecretName::default_svid())
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
        Fault::LeafLast => ("leaf-last", "sent the chain with the authority first and the leaf behind it"),
        Fault::ChainInOneBlock => ("chain-in-one-block", "sent the whole chain in one PEM block"),
        Fault::WrongIdentity => ("wrong-identity", "minted a certificate for another SPIFFE ID"),
        Fault::SecondIdentity => ("second-identity", "minted a certificate for a second SPIFFE ID as well"),
        Fault::NotYetValid => ("not-yet-valid", "minted a certificate that is not valid yet"),
        Fault::WrongName => ("wrong-name", "sent the new certificate under another name"),
        Fault::EmptyResponse => ("empty-response", "minted a certificate, sent a response without a secret"),
        Fault::WrongKind => ("wrong-kind", "minted a certificate, sent a trust bundle under its name"),
        Fault::WrongTypeUrl => ("wrong-type-url", "sent the new certificate in a response of another type"),
        Fault::CloseStream => ("close-stream", "ended the streams instead of pushing"),
        Fault::RefuseStreams => ("refuse-streams", "ended the streams, and each that came after them"),
        Fault::StarvedRenewal => ("starved-renewal", "minted nothing: a new bundle had reset the timer"),
        Fault::SocketGone => ("socket-gone", "stopped listening, removed the socket, ended all streams"),
        Fault::SocketReplaced => ("socket-replaced", "ended all streams, and listens on a new socket"),
        Fault::SocketUnlinked => ("socket-unlinked", "removed the socket's path, and goes on serving"),
        Fault::NoStaple => ("no-staple", "minted a certificate without an OCSP staple"),
        Fault::NotWatched => ("not-watched", "put files into place in a directory that is not watched"),
        Fault::RewriteInPlace => ("rewrite-in-place", "wrote the new files over the old ones"),
        Fault::HalfWritten => ("half-written", "let half of the chain be read, then wrote the rest"),
        Fault::KeyBeforeChain => ("key-before-chain", "put the new key into place, and not yet its chain"),
        Fault::FileMissing => ("file-missing", "took the chain away"),
        Fault::Freeze => ("freeze", "froze the process that serves the socket"),
    }
}
