//! The secrets in `/config_dump` (Envoy's `envoy.admin.v3.SecretsConfigDump`). An observation, never proof: refused
//! secrets show here too, and the times claim what no handshake bears out.

use base64::Engine as _;
use serde::Deserialize;

use super::{AnswerError, object};
use crate::pki;
use crate::timeline::{CertFacts, ConfigDump, DumpedSecret, SecretName};

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    configs: Vec<DynamicSecret>,
}

#[derive(Deserialize)]
struct DynamicSecret {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version_info: String,
    #[serde(default)]
    last_updated: Option<String>,
    #[serde(default)]
    secret: Secret,
}

/// Private keys are not even looked at: no field here takes one.
#[derive(Deserialize, Default)]
struct Secret {
    #[serde(default)]
    tls_certificate: Option<TlsCertificate>,
    #[serde(default)]
    validation_context: Option<ValidationContext>,
}

#[derive(Deserialize, Default)]
pub(super) struct TlsCertificate {
    #[serde(default)]
    certificate_chain: DataSource,
}

#[derive(Deserialize)]
struct ValidationContext {
    #[serde(default)]
    trusted_ca: DataSource,
    #[serde(default)]
    custom_validator_config: Option<ValidatorConfig>,
}

/// `envoy.tls.cert_validator.spiffe`; another validator has no trust domains and shows no authorities.
#[derive(Deserialize)]
struct ValidatorConfig {
    #[serde(default)]
    typed_config: SpiffeValidator,
}

#[derive(Deserialize, Default)]
struct SpiffeValidator {
    #[serde(default)]
    trust_domains: Vec<TrustDomain>,
}

#[derive(Deserialize)]
struct TrustDomain {
    #[serde(default)]
    trust_bundle: DataSource,
}

#[derive(Deserialize, Default)]
struct DataSource {
    #[serde(default)]
    inline_bytes: Option<String>,
    #[serde(default)]
    inline_string: Option<String>,
    #[serde(default)]
    filename: Option<String>,
}

impl DataSource {
    /// Each certificate in it, or `None` where one can't be read: a refused secret shows here as it came.
    fn certificates(&self) -> Vec<Option<CertFacts>> {
        let decoded = self.inline_bytes.as_deref().and_then(|b| base64::prelude::BASE64_STANDARD.decode(b).ok());
        let bytes = decoded.as_deref().or(self.inline_string.as_deref().map(str::as_bytes)).unwrap_or_default();
        let blocks = pem::parse_many(bytes).unwrap_or_default();
        let certificates = blocks.iter().filter(|block| block.tag() == "CERTIFICATE");
        certificates.map(|block| pki::facts(block.contents()).ok()).collect()
    }

    /// As a chain: what follows an unreadable certificate has lost its place.
    fn chain(&self) -> Vec<CertFacts> {
        self.certificates().into_iter().map_while(|cert| cert).collect()
    }

    /// As a bundle: every authority stands for itself.
    fn bundle(&self) -> Vec<CertFacts> {
        self.certificates().into_iter().flatten().collect()
    }
}

impl TlsCertificate {
    pub(super) fn chain(&self) -> Vec<CertFacts> {
        self.certificate_chain.chain()
    }

    /// The file that the chain is read from, if it is.
    pub(super) fn file(&self) -> Option<&str> {
        self.certificate_chain.filename.as_deref()
    }
}

pub(super) fn parse(body: &[u8], state: &str) -> Result<ConfigDump, AnswerError> {
    let answer: Answer = object(body)?;
    let mut secrets = Vec::with_capacity(answer.configs.len());
    for config in answer.configs {
        let last_updated = config.last_updated.map(|t| t.parse()).transpose();
        let context = config.secret.validation_context;
        let validator = context.as_ref().and_then(|c| c.custom_validator_config.as_ref());
        let domains = validator.map(|v| v.typed_config.trust_domains.as_slice()).unwrap_or_default();
        let trusted = context.as_ref().map(|c| c.trusted_ca.bundle()).unwrap_or_default();
        secrets.push(DumpedSecret {
            name: SecretName::parse(&config.name).map_err(|e| AnswerError::field("a secret's name", e))?,
            state: state.to_owned(),
            version_info: config.version_info,
            last_updated: last_updated.map_err(|e| AnswerError::field("last_updated", e))?,
            chain: config.secret.tls_certificate.map(|c| c.chain()).unwrap_or_default(),
            roots: trusted.into_iter().chain(domains.iter().flat_map(|d| d.trust_bundle.bundle())).collect(),
        });
    }
    Ok(ConfigDump { secrets, static_contexts: Vec::new(), subscriptions: Vec::new() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority(name: &str) -> pki::Authority {
        let validity = pki::Validity::starting(jiff::Timestamp::UNIX_EPOCH, std::time::Duration::from_secs(60));
        pki::Authority::new(name, validity).unwrap()
    }

    fn base64(text: &str) -> String {
        base64::prelude::BASE64_STANDARD.encode(text)
    }

    #[test]
    fn a_name_that_repeats_is_shown_twice() {
        let body = br#"{"configs":[{"name":"default","version_info":"1"},{"name":"default","version_info":"2"}]}"#;
        let dump = parse(body, "active").unwrap();
        let versions: Vec<_> = dump.secrets.iter().map(|s| (s.name.as_str(), s.version_info.as_str())).collect();
        assert_eq!(versions, [("default", "1"), ("default", "2")]);
    }

    #[test]
    fn authorities_are_found_as_trusted_ca_and_in_the_spiffe_validator() {
        let (one, two) = (authority("one").pem(), authority("two").pem());
        let body = serde_json::json!({"configs": [
            {"name": "ROOTCA", "secret": {"validation_context": {"trusted_ca": {"inline_bytes": base64(&format!("{one}{two}"))}}}},
            {"name": "ALL", "secret": {"validation_context": {"custom_validator_config": {
                "name": "envoy.tls.cert_validator.spiffe",
                "typed_config": {"trust_domains": [
                    {"name": "td", "trust_bundle": {"inline_string": one}},
                    {"name": "other", "trust_bundle": {"inline_bytes": base64(&two)}},
                ]}}}}},
        ]});
        let dump = parse(body.to_string().as_bytes(), "active").unwrap();
        let of = |secret: &DumpedSecret| secret.roots.iter().map(|r| r.fingerprint).collect::<Vec<_>>();
        assert_eq!(of(&dump.secrets[0]).len(), 2);
        assert_eq!(of(&dump.secrets[0]), of(&dump.secrets[1]));
    }

    #[test]
    fn a_secret_that_is_no_certificate_has_no_chain_and_no_private_key_is_ever_kept() {
        let body = serde_json::json!({"configs": [{"name": "default", "secret": {"tls_certificate": {
            "certificate_chain": {"inline_bytes": base64("-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----")},
            "private_key": {"inline_string": "no-such-secret-0451"}}}}]});
        let dump = parse(body.to_string().as_bytes(), "active").unwrap();
        assert!(dump.secrets[0].chain.is_empty());
        assert!(!format!("{dump:?}").contains("0451"));
    }

    #[test]
    fn what_follows_an_unreadable_certificate_is_no_leaf() {
        let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let chain = format!("{broken}{}", authority("one").pem());
        let body = serde_json::json!({"configs": [{"name": "x", "secret": {
            "tls_certificate": {"certificate_chain": {"inline_string": chain}},
            "validation_context": {"trusted_ca": {"inline_string": chain}}}}]});
        let dump = parse(body.to_string().as_bytes(), "active").unwrap();
        assert_eq!((dump.secrets[0].chain.len(), dump.secrets[0].roots.len()), (0, 1));
    }

    #[test]
    fn nonsense_is_an_error() {
        for body in [
            &b""[..],
            b"null",
            br#"{"configs":[{"name":""}]}"#,
            br#"{"configs":[{"name":"x","last_updated":"yesterday"}]}"#,
            br#"{"configs":[{"name":"x","secret":3}]}"#,
        ] {
            assert!(parse(body, "active").is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), inline in ".{0,80}") {
            let _ = parse(&body, "active");
            let secret = serde_json::json!({"configs": [{"name": "x", "secret": {
                "tls_certificate": {"certificate_chain": {"inline_bytes": &inline}},
                "validation_context": {"trusted_ca": {"inline_string": &inline}}}}]});
            prop_assert!(parse(secret.to_string().as_bytes(), "active").is_ok());
        }
    }
}
