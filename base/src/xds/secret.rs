//! Secrets in the form of either API.

use bytes::Bytes;
use prost_types::Any;

use super::message::{Content, Push, SECRET_TYPE_URL, Secret};
use super::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use super::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as tls, SpiffeCertValidatorConfig, spiffe_cert_validator_config::TrustDomain,
};
use super::pb::envoy::service::discovery::v3::DiscoveryResponse;
use super::proto::{X509BundlesResponse, X509svid, X509svidResponse};
use crate::pki::chain_der;

/// Envoy's name of the validator that knows trust domains.
const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const SPIFFE_VALIDATOR_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

impl Push {
    pub(super) fn to_discovery_response(&self) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: self.version_info.clone(),
            nonce: self.nonce.clone(),
            type_url: self.type_url.clone().unwrap_or_else(|| SECRET_TYPE_URL.to_owned()),
            resources: self.secrets.iter().map(|secret| packed(SECRET_TYPE_URL, &secret.to_envoy())).collect(),
        }
    }

    pub(super) fn to_svid_response(&self) -> X509svidResponse {
        let bundle = self.secrets.iter().find_map(|secret| match &secret.content {
            Content::Bundle { roots, .. } => Some(der(roots)),
            Content::Certificate { .. } => None,
        });
        let svids = self.secrets.iter().filter_map(|secret| match &secret.content {
            Content::Certificate { spiffe_id, chain, key, .. } => Some(X509svid {
                spiffe_id: spiffe_id.clone(),
                x509_svid: der(chain),
                x509_svid_key: key.pkcs8_der().to_vec().into(),
                bundle: bundle.clone().unwrap_or_default(),
                hint: String::new(),
            }),
            Content::Bundle { .. } => None,
        });
        X509svidResponse { svids: svids.collect(), ..Default::default() }
    }

    pub(super) fn to_bundles_response(&self) -> X509BundlesResponse {
        let bundles = self.secrets.iter().filter_map(|secret| match &secret.content {
            Content::Bundle { trust_domain, roots, .. } => Some((format!("spiffe://{trust_domain}"), der(roots))),
            Content::Certificate { .. } => None,
        });
        X509BundlesResponse { bundles: bundles.collect(), ..Default::default() }
    }
}

impl Secret {
    fn to_envoy(&self) -> tls::Secret {
        let content = match &self.content {
            Content::Certificate { chain, key, staple, .. } => tls::secret::Type::TlsCertificate(tls::TlsCertificate {
                certificate_chain: Some(inline(chain)),
                private_key: Some(inline(&key.to_pem())),
                ocsp_staple: staple
                    .as_ref()
                    .map(|der| DataSource { specifier: Some(Specifier::InlineBytes(der.clone())) }),
            }),
            Content::Bundle { trust_domain, roots, spiffe_validator: true } => {
                let config = SpiffeCertValidatorConfig {
                    trust_domains: vec![TrustDomain { name: trust_domain.clone(), trust_bundle: Some(inline(roots)) }],
                };
                tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
                    custom_validator_config: Some(TypedExtensionConfig {
                        name: SPIFFE_VALIDATOR.to_owned(),
                        typed_config: Some(packed(SPIFFE_VALIDATOR_TYPE_URL, &config)),
                    }),
                    ..Default::default()
                })
            }
            Content::Bundle { roots, spiffe_validator: false, .. } => {
                tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
                    trusted_ca: Some(inline(roots)),
                    ..Default::default()
                })
            }
        };
        tls::Secret { name: self.name.clone(), r#type: Some(content) }
    }
}

fn packed(type_url: &str, message: &impl prost::Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

fn inline(text: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(text.as_bytes().to_vec())) }
}

/// The Workload API speaks DER. What a fault has spoiled travels as it is.
fn der(text: &str) -> Bytes {
    chain_der(text.as_bytes()).map_or_else(|_| Bytes::copy_from_slice(text.as_bytes()), |chain| chain.concat().into())
}
