//! Who may speak with whom. Two authorities for one run: one signs the harness's certificate, the other those of its
//! relays, so that a relay's key opens no other relay. The keys of both authorities die with the value.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::RemoteError;
use crate::pki::{Authority, LeafRequest, PrivateKey, Validity};

/// The name that every relay has: there is one at the end of a way, and the way says which.
pub(super) const RELAY: &str = "relay.rotacheck.invalid";
const HARNESS: &str = "harness.rotacheck.invalid";
/// Longer than any run.
const LASTING: Duration = Duration::from_secs(30 * 24 * 3600);
/// By how much a node's clock may be behind.
const SKEW: Duration = Duration::from_secs(3600);
/// The longest file that is read.
const LARGEST: u64 = 1 << 20;

/// The authorities of one run.
pub struct Keys {
    harness: Authority,
    relays: Authority,
    validity: Validity,
}

/// What one side shows, and whom it believes.
pub struct Credentials {
    ca: String,
    cert: String,
    key: Zeroizing<String>,
}

impl Keys {
    /// New ones, valid from an hour ago for 30 days.
    pub fn new() -> Result<Self, RemoteError> {
        let start = jiff::Timestamp::now().checked_sub(SKEW).unwrap_or(jiff::Timestamp::MIN);
        let validity = Validity::starting(start, SKEW + LASTING);
        let harness = Authority::new("rotacheck harness of one run", validity)?;
        let relays = Authority::new("rotacheck relays of one run", validity)?;
        Ok(Self { harness, relays, validity })
    }

    /// What the harness shows.
    pub fn harness(&self) -> Result<Credentials, RemoteError> {
        self.signed(&self.harness, HARNESS, &self.relays)
    }

    /// What one relay shows, or several that are trusted alike.
    pub fn relay(&self) -> Result<Credentials, RemoteError> {
        self.signed(&self.relays, RELAY, &self.harness)
    }

    fn signed(&self, by: &Authority, name: &str, believes: &Authority) -> Result<Credentials, RemoteError> {
        let leaf = by.mint(&LeafRequest::of_host(name, self.validity))?;
        Ok(Credentials { ca: believes.pem(), cert: leaf.chain_pem(), key: PrivateKey::to_pem(&leaf.key) })
    }
}

impl Credentials {
    /// Its files, with what they hold: for a Secret. The last is the key.
    pub fn files(&self) -> [(&'static str, &str); 3] {
        [("ca.pem", &self.ca), ("cert.pem", &self.cert), ("key.pem", &self.key)]
    }

    /// Out of a directory with these files.
    pub fn read(dir: &Utf8Path) -> Result<Self, RemoteError> {
        let read = |name: &str| {
            let path = dir.join(name);
            let wrong = |why: String| RemoteError::Credentials { path: path.clone(), why };
            let size = std::fs::metadata(&path).map_err(|e| wrong(e.to_string()))?.len();
            if size > LARGEST {
                return Err(wrong(format!("it has {size} bytes")));
            }
            std::fs::read_to_string(&path).map(Zeroizing::new).map_err(|e| wrong(e.to_string()))
        };
        let public = |name: &str| read(name).map(|text| text.to_string());
        let read = Self { ca: public("ca.pem")?, cert: public("cert.pem")?, key: read("key.pem")? };
        // What is wrong with them is said here, where the directory is known.
        let wrong = |why: String| RemoteError::Credentials { path: dir.to_owned(), why };
        read.parts().map_err(wrong)?;
        Ok(read)
    }

    /// Chain, key, and whom it believes.
    fn parts(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Arc<RootCertStore>), String> {
        let certificates = |what: &str, pem: &str| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            all.ok().filter(|all| !all.is_empty()).ok_or_else(|| format!("{what} holds no certificate"))
        };
        let mut roots = RootCertStore::empty();
        for root in certificates("ca.pem", &self.ca)? {
            roots.add(root).map_err(|e| format!("ca.pem: {e}"))?;
        }
        let chain = certificates("cert.pem", &self.cert)?;
        // The parser's words could quote the key.
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| "key.pem holds no private key")?;
        Ok((chain, key, Arc::new(roots)))
    }

    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, RemoteError> {
        let make = || {
            let (chain, key, roots) = self.parts()?;
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, key));
            let mut config = config.map_err(|e| e.to_string())?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(Arc::new(config))
        };
        make().map_err(|why| RemoteError::Make { why })
    }

    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, RemoteError> {
        let make = || {
            let (chain, key, roots) = self.parts()?;
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            let verifier = verifier.map_err(|e| e.to_string())?;
            let config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(chain, key));
            let mut config = config.map_err(|e| e.to_string())?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(Arc::new(config))
        };
        make().map_err(|why| RemoteError::Make { why })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
impl Credentials {
    /// The same, but believing whom another one believes.
    pub(super) fn believing(self, other: &Self) -> Self {
        Self { ca: other.ca.clone(), ..self }
    }
}
