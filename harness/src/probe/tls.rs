//! TLS that looks without believing: chains are captured whatever they are, then judged at cell time.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ProtocolVersion, RootCertStore, SignatureScheme,
};

use crate::timeline::TlsRole;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The cryptography of every handshake here; never the process-wide default, which nobody may rely on.
pub(super) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &PROVIDER.signature_verification_algorithms
}

/// The name in the timeline.
pub(super) fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1_2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1_3",
        _ => "",
    }
}

/// A verifier of one handshake: accepts every chain, but not a chain whose key did not sign the handshake.
#[derive(Debug, Default)]
pub(super) struct Capture {
    shown: OnceLock<Vec<CertificateDer<'static>>>,
    proven: OnceLock<()>,
}

impl Capture {
    /// The chain, leaf first, once its holder has proven that it has the leaf's key.
    pub(super) fn chain(&self) -> Option<&[CertificateDer<'static>]> {
        self.proven.get().and(self.shown.get()).map(Vec::as_slice)
    }

    /// Whether a chain was shown whose key is not the peer's.
    pub(super) fn unproven(&self) -> bool {
        self.shown.get().is_some() && self.proven.get().is_none()
    }

    fn note(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) {
        let chain = std::iter::once(leaf).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        // One verifier serves one handshake, and a handshake has one certificate message.
        let _ = self.shown.set(chain);
    }

    fn signature(
        &self,
        checked: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if checked.is_ok() {
            let _ = self.proven.set(());
        }
        checked
    }
}

impl ServerCertVerifier for Capture {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.note(leaf, intermediates);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Capture {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.note(leaf, intermediates);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Whether a peer of the mesh would accept the chain at `now` (RFC 5280 path validation and the extended key usage
/// of the role; names are left to the reader, who knows the identity).
pub(super) fn judge(
    chain: &[CertificateDer<'_>],
    roots: &Arc<RootCertStore>,
    now: jiff::Timestamp,
    role: TlsRole,
) -> Result<(), String> {
    let Some((leaf, intermediates)) = chain.split_first() else { return Err("there is no certificate".into()) };
    if roots.is_empty() {
        return Err("the bundle holds no authority that is still valid".into());
    }
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
    let verified = match role {
        TlsRole::Inbound => ParsedCertificate::try_from(leaf).and_then(|leaf| {
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &leaf,
                roots,
                intermediates,
                now,
                algorithms().all,
            )
        }),
        TlsRole::Outbound => WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))
            .and_then(|verifier| verifier.verify_client_cert(leaf, intermediates, now).map(drop)),
    };
    verified.map_err(|e| match e {
        rustls::Error::InvalidCertificate(why) => certificate_error(&why),
        other => other.to_string(),
    })
}

fn certificate_error(why: &CertificateError) -> String {
    let at = |time: &UnixTime| {
        i64::try_from(time.as_secs())
            .ok()
            .and_then(|s| jiff::Timestamp::from_second(s).ok())
            .map_or_else(|| "an unreadable time".to_owned(), |t| t.to_string())
    };
    match why {
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired at {}", at(not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => format!("it is not valid before {}", at(not_before)),
        CertificateError::UnknownIssuer => "no authority of the bundle signed it".into(),
        CertificateError::BadSignature => "its signature is not that of the authority it names".into(),
        other => format!("it is not valid: {other}"),
    }
}
