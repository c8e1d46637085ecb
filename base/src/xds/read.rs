//! What is in a response that somebody else made: facts for the timeline, never a key. The bytes may be anything.

use prost::Message as _;
use prost_types::Any;

use super::message::SECRET_TYPE_URL;
use super::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use super::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as tls, CertificateValidationContext, SpiffeCertValidatorConfig, TlsCertificate,
};
use super::pb::envoy::service::discovery::v3::{DiscoveryResponse, Resource};
use crate::pki::{chain_der, chain_facts, cut, cut_name, facts, leaf_key_pem_matches};
use crate::timeline::{CertFacts, Fingerprint, Payload, SentSecret};

/// A resource in its wrapper (envoy.service.discovery.v3), which state-of-the-world responses may use too.
const WRAPPER_TYPE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// More secrets of one response are only counted: a stream asks for one.
const MOST_SECRETS: usize = 64;

/// What a response holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Contents {
    pub(super) secrets: Vec<SentSecret>,
    /// The authorities of all bundles in it, DER.
    pub(super) roots: Vec<Vec<u8>>,
    /// Secrets that were only counted.
    pub(super) uncounted: usize,
}

/// Reads a response.
pub(super) fn contents(response: &DiscoveryResponse) -> Contents {
    let mut contents = Contents::default();
    for any in response.resources.iter().take(MOST_SECRETS) {
        let (secret, roots) = resource(any);
        contents.secrets.push(secret);
        contents.roots.extend(roots);
    }
    contents.uncounted = response.resources.len().saturating_sub(MOST_SECRETS);
    contents
}

fn resource(any: &Any) -> (SentSecret, Vec<Vec<u8>>) {
    let other =
        |name: &str, what: String| (SentSecret { name: cut_name(name), payload: Payload::Other { what } }, vec![]);
    if any.type_url == WRAPPER_TYPE_URL {
        return match Resource::decode(any.value.as_slice()) {
            Ok(Resource { resource: Some(inner), name, .. }) if inner.type_url == SECRET_TYPE_URL => {
                secret(&inner, &name)
            }
            Ok(Resource { name, .. }) => other(&name, "a wrapper around no secret".to_owned()),
            Err(e) => other("", format!("a wrapper that can't be read: {e}")),
        };
    }
    match any.type_url.as_str() {
        SECRET_TYPE_URL => secret(any, ""),
        type_url => other("", format!("a resource of the type {}", cut(type_url))),
    }
}

fn secret(any: &Any, wrapped_as: &str) -> (SentSecret, Vec<Vec<u8>>) {
    let secret = match tls::Secret::decode(any.value.as_slice()) {
        Ok(secret) => secret,
        Err(e) => {
            let payload = Payload::Other { what: format!("a secret that can't be read: {e}") };
            return (SentSecret { name: cut_name(wrapped_as), payload }, Vec::new());
        }
    };
    let mut roots = Vec::new();
    let payload = match &secret.r#type {
        Some(tls::secret::Type::TlsCertificate(certificate)) => certificate_payload(certificate),
        Some(tls::secret::Type::ValidationContext(context)) => {
            let (payload, der) = bundle_payload(context);
            roots = der;
            payload
        }
        Some(tls::secret::Type::SessionTicketKeys(_)) => Payload::Other { what: "session ticket keys".to_owned() },
        Some(tls::secret::Type::GenericSecret(_)) => Payload::Other { what: "a generic secret".to_owned() },
        None => Payload::Other { what: "nothing".to_owned() },
    };
    (SentSecret { name: cut_name(&secret.name), payload }, roots)
}

fn certificate_payload(certificate: &TlsCertificate) -> Payload {
    let chain = inline(certificate.certificate_chain.as_ref());
    let (facts, problem) = match chain.map(chain_facts) {
        Ok(Ok(facts)) => (facts, chain.is_ok_and(is_der).then(|| NO_PEM.to_owned())),
        Ok(Err(e)) => (Vec::new(), Some(cut(&e.to_string()))),
        Err(why) => (Vec::new(), Some(why.to_owned())),
    };
    let chain = chain.unwrap_or_default();
    let key = inline(certificate.private_key.as_ref());
    let key_matches = key.ok().and_then(|key| leaf_key_pem_matches(chain, key));
    Payload::Certificate { chain: facts, digest: Fingerprint::of_der(chain), key_matches, problem }
}

/// By `trusted_ca`, or by the SPIFFE validator.
fn bundle_payload(context: &CertificateValidationContext) -> (Payload, Vec<Vec<u8>>) {
    let mut sources: Vec<&DataSource> = context.trusted_ca.iter().collect();
    let validator = context.custom_validator_config.as_ref().and_then(|v| v.typed_config.as_ref());
    let validator = validator.map(|config| SpiffeCertValidatorConfig::decode(config.value.as_slice()));
    let mut problem = None;
    match &validator {
        Some(Ok(validator)) => sources.extend(validator.trust_domains.iter().filter_map(|d| d.trust_bundle.as_ref())),
        Some(Err(e)) => problem = Some(format!("the validator's configuration can't be read: {e}")),
        None => {}
    }
    let mut roots = Vec::new();
    for source in sources {
        match inline(Some(source)).map(chain_der) {
            Ok(Ok(der)) => {
                roots.extend(der);
                if inline(Some(source)).is_ok_and(is_der) {
                    problem = Some(NO_PEM.to_owned());
                }
            }
            Ok(Err(e)) => problem = Some(cut(&e.to_string())),
            Err(why) => problem = Some(why.to_owned()),
        }
    }
    // Each was parsed before.
    let known: Vec<CertFacts> = roots.iter().filter_map(|der| facts(der).ok()).collect();
    if known.is_empty() {
        problem = problem.or_else(|| Some("there is no authority in it".to_owned()));
    }
    let mut prints: Vec<_> = known.iter().map(|f| f.fingerprint.to_string()).collect();
    prints.sort_unstable();
    let digest = Fingerprint::of_der(prints.concat().as_bytes());
    (Payload::Bundle { roots: known, digest, problem }, roots)
}

/// Envoy takes PEM only, whatever else can be read.
const NO_PEM: &str = "it is DER, and no PEM";

fn is_der(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30)
}

fn inline(source: Option<&DataSource>) -> Result<&[u8], &'static str> {
    match source.and_then(|s| s.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.as_bytes()),
        Some(Specifier::Filename(_)) => Err("it names a file instead of holding it"),
        Some(Specifier::EnvironmentVariable(_)) => Err("it names an environment variable instead of holding it"),
        None => Err("it is empty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_can_be_read_and_is_said_to_be_no_pem() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(&key).unwrap();
        let source = |bytes: &[u8]| Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())) });
        for (bytes, expected) in [(made.der().to_vec(), Some(NO_PEM)), (made.pem().into_bytes(), None)] {
            let chain = TlsCertificate { certificate_chain: source(&bytes), ..Default::default() };
            let bundle = CertificateValidationContext { trusted_ca: source(&bytes), ..Default::default() };
            let Payload::Certificate { chain, problem, .. } = certificate_payload(&chain) else { panic!() };
            assert_eq!((chain.len(), problem.as_deref()), (1, expected));
            let (Payload::Bundle { roots, problem, .. }, _) = bundle_payload(&bundle) else { panic!() };
            assert_eq!((roots.len(), problem.as_deref()), (1, expected));
        }
    }
}
