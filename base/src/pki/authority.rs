//! A self-signed authority on P-256, and the leaves that it signs.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rsa::rand_core::{OsRng, RngCore as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{PkiError, PrivateKey, facts, ocsp};
use crate::scenario::KeyType;
use crate::timeline::{CertFacts, SpiffeId};

/// From when until when; certificates carry whole seconds, fractions are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second in which it is valid.
    pub not_before: jiff::Timestamp,
    /// Last second in which it is valid.
    pub not_after: jiff::Timestamp,
}

impl Validity {
    /// From `start` on, for that long.
    pub fn starting(start: jiff::Timestamp, lasting: Duration) -> Self {
        Self { not_before: start, not_after: start.checked_add(lasting).unwrap_or(jiff::Timestamp::MAX) }
    }

    /// Until `end`, for that long.
    pub fn ending(end: jiff::Timestamp, lasting: Duration) -> Self {
        Self { not_before: end.checked_sub(lasting).unwrap_or(jiff::Timestamp::MIN), not_after: end }
    }
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A SPIFFE ID.
    Spiffe(SpiffeId),
}

/// What a leaf is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRequest {
    /// Its names. An SVID has exactly one, a SPIFFE ID.
    pub names: Vec<San>,
    /// When it is valid.
    pub validity: Validity,
    /// Its key.
    pub key_type: KeyType,
    /// Its serial number, big-endian, at most 20 bytes. Default: 126 to 127 random bits.
    pub serial: Option<Vec<u8>>,
}

impl LeafRequest {
    /// That of a host, by its DNS name, with a P-256 key.
    pub fn of_host(name: &str, validity: Validity) -> Self {
        Self { names: vec![San::Dns(name.to_owned())], validity, key_type: KeyType::EcdsaP256, serial: None }
    }
}

/// A leaf with its chain and key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: PrivateKey,
    /// What the leaf says.
    pub facts: CertFacts,
}

impl Leaf {
    /// The chain as PEM, one block each.
    pub fn chain_pem(&self) -> String {
        pem_of(self.chain.iter().map(Vec::as_slice))
    }

    /// As rustls wants it.
    pub fn to_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.iter().cloned().map(CertificateDer::from).collect(), self.key.to_rustls())
    }
}

/// An authority that signs leaves: a root, or an intermediate below one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    facts: CertFacts,
    /// Its own certificate goes with what it signs.
    is_intermediate: bool,
}

impl Authority {
    /// A new one, self-signed.
    pub fn new(name: &str, validity: Validity) -> Result<Self, PkiError> {
        Self::with_key(name, validity).map(|(authority, _)| authority)
    }

    /// A new one, self-signed, with its key, for a program that is to sign with it.
    pub fn with_key(name: &str, validity: Validity) -> Result<(Self, PrivateKey), PkiError> {
        let (key, pair) = PrivateKey::generate(KeyType::EcdsaP256)?;
        let mut params = params(name, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let sign = |e: rcgen::Error| PkiError::Sign { subject: name.to_owned(), why: e.to_string() };
        let der = params.self_signed(&pair).map_err(sign)?.der().to_vec();
        let facts = facts(&der)?;
        Ok((Self { issuer: Issuer::new(params, pair), der, facts, is_intermediate: false }, key))
    }

    /// A new one below this one, whose leaves are shown with its certificate.
    pub fn intermediate(&self, name: &str, validity: Validity) -> Result<Self, PkiError> {
        let (_, pair) = PrivateKey::generate(KeyType::EcdsaP256)?;
        let mut params = params(name, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let sign = |e: rcgen::Error| PkiError::Sign { subject: name.to_owned(), why: e.to_string() };
        let der = params.signed_by(&pair, &self.issuer).map_err(sign)?.der().to_vec();
        let facts = facts(&der)?;
        Ok(Self { issuer: Issuer::new(params, pair), der, facts, is_intermediate: true })
    }

    /// Its certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its certificate as PEM.
    pub fn pem(&self) -> String {
        pem_of([self.der.as_slice()])
    }

    /// What its certificate says.
    pub fn facts(&self) -> &CertFacts {
        &self.facts
    }

    /// An OCSP response that says that the leaf is good, DER, to be stapled to it.
    pub fn staple(&self, leaf: &Leaf, validity: Validity) -> Result<Vec<u8>, PkiError> {
        let der = leaf.chain.first().map(Vec::as_slice).unwrap_or_default();
        ocsp::good(der, &self.der, self.issuer.key(), validity)
    }

    /// Signs a leaf with a key of its own ([`PrivateKey::of_leaf`]).
    pub fn mint(&self, request: &LeafRequest) -> Result<Leaf, PkiError> {
        let subject = match request.names.first() {
            Some(San::Dns(name)) => name.clone(),
            Some(San::Ip(address)) => address.to_string(),
            Some(San::Spiffe(id)) => id.to_string(),
            None => String::new(),
        };
        let (key, pair) = PrivateKey::of_leaf(request.key_type)?;
        let mut params = params("workload", request.validity)?;
        if let Some(bytes) = &request.serial {
            params.serial_number = Some(SerialNumber::from_slice(bytes));
        }
        params.subject_alt_names = request.names.iter().map(san).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed =
            params.signed_by(&pair, &self.issuer).map_err(|e| PkiError::Sign { subject, why: e.to_string() })?;
        let der = signed.der().to_vec();
        let facts = facts(&der)?;
        let chain = [der].into_iter().chain(self.is_intermediate.then(|| self.der.clone())).collect();
        Ok(Leaf { chain, key, facts })
    }
}

/// Certificates one after the other, as DER in and PEM out.
pub fn pem_of<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let blocks: Vec<_> = certificates.into_iter().map(|der| pem::Pem::new("CERTIFICATE", der)).collect();
    pem::encode_many_config(&blocks, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let second =
        |at: jiff::Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| PkiError::Time(at));
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "rotacheck");
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = second(validity.not_before)?;
    params.not_after = second(validity.not_after)?;
    params.serial_number = Some(serial());
    Ok(params)
}

/// 126 to 127 random bits (RFC 5280, 4.1.2.2: positive, at most 20 bytes).
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x01;
    SerialNumber::from_slice(&bytes)
}

fn san(name: &San) -> Result<SanType, PkiError> {
    let ia5 = |text: &str| {
        text.try_into().map_err(|e: rcgen::Error| PkiError::Name { text: text.to_owned(), why: e.to_string() })
    };
    Ok(match name {
        San::Dns(name) => SanType::DnsName(ia5(name)?),
        San::Ip(address) => SanType::IpAddress(*address),
        San::Spiffe(id) => SanType::URI(ia5(id.as_str())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{chain_facts, leaf_key_matches};

    fn now() -> jiff::Timestamp {
        "2026-01-02T03:04:05.9Z".parse().unwrap()
    }

    fn authority() -> Authority {
        Authority::new("authority 1", Validity::starting(now(), Duration::from_secs(3600))).unwrap()
    }

    fn request(key_type: KeyType) -> LeafRequest {
        LeafRequest {
            names: vec![San::Spiffe(SpiffeId::parse("spiffe://demo.test/ns/a/sa/b").unwrap())],
            validity: Validity::starting(now(), Duration::from_secs(7)),
            key_type,
            serial: None,
        }
    }

    #[test]
    fn an_svid_says_whose_it_is_who_signed_it_and_how_long_it_lives_to_the_second() {
        let authority = authority();
        let leaf = authority.mint(&request(KeyType::EcdsaP256)).unwrap();
        let facts = &leaf.facts;
        assert_eq!(facts.uris, ["spiffe://demo.test/ns/a/sa/b"]);
        assert_eq!(facts.not_before.to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(facts.not_after.to_string(), "2026-01-02T03:04:12Z");
        assert_eq!(facts.authority_key_id, authority.facts().subject_key_id);
        assert!(facts.authority_key_id.is_some() && facts.subject_key_id.is_some());
        assert_eq!(facts.issuer, "CN=authority 1,O=rotacheck");
        assert_eq!(facts.key_type, "ecdsa-p256");
        assert!(!facts.is_ca && authority.facts().is_ca);
    }

    #[test]
    fn an_rsa_leaf_is_signed_by_the_same_authority() {
        let authority = authority();
        let leaf = authority.mint(&request(KeyType::Rsa2048)).unwrap();
        assert_eq!(leaf.facts.key_type, "rsa-2048");
        assert!(leaf_key_matches(leaf.chain_pem().as_bytes(), &leaf.key).unwrap());
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        let (_, root) = x509_parser::parse_x509_certificate(authority.der()).unwrap();
        parsed.verify_signature(Some(root.public_key())).unwrap();
    }

    #[test]
    fn every_svid_has_the_extensions_that_the_standard_and_its_strictest_clients_want() {
        let leaf = authority().mint(&request(KeyType::EcdsaP256)).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        assert!(!cert.basic_constraints().unwrap().unwrap().value.ca);
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
        let extended = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth);
    }

    #[test]
    fn an_intermediate_goes_with_its_leaves_and_the_root_does_not() {
        let root = authority();
        let life = Validity::starting(now(), Duration::from_secs(5));
        let below = root.intermediate("intermediate 1", life).unwrap();
        let leaf = below.mint(&request(KeyType::EcdsaP256)).unwrap();
        let chain = chain_facts(leaf.chain_pem().as_bytes()).unwrap();
        let subjects: Vec<_> = chain.iter().map(|c| (c.issuer.as_str(), c.is_ca)).collect();
        assert_eq!(subjects, [("CN=intermediate 1,O=rotacheck", false), ("CN=authority 1,O=rotacheck", true)]);
        assert_eq!(chain[1].authority_key_id, root.facts().subject_key_id);
        assert!(chain[1].not_after < chain[0].not_after, "it may end before its leaves do");
    }

    /// The INTEGER of a serial number is as short as can be, and never negative (X.690, 8.3.2).
    #[test]
    fn a_serial_number_is_minted_as_given_whatever_it_begins_with() {
        let authority = authority();
        for (given, raw, read) in [
            (&[0x05_u8, 0xab][..], &[0x05_u8, 0xab][..], "5ab"),
            (&[0x9c, 0x01], &[0x00, 0x9c, 0x01], "9c01"),
            (&[0x00, 0x00, 0x7f], &[0x7f], "7f"),
        ] {
            let request = LeafRequest { serial: Some(given.to_vec()), ..request(KeyType::EcdsaP256) };
            let leaf = authority.mint(&request).unwrap();
            let (_, cert) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
            assert_eq!((cert.raw_serial(), leaf.facts.serial.as_str()), (raw, read));
        }
    }

    #[test]
    fn another_leafs_key_does_not_match() {
        let authority = authority();
        let a = authority.mint(&request(KeyType::EcdsaP256)).unwrap();
        let b = authority.mint(&request(KeyType::EcdsaP256)).unwrap();
        assert!(!leaf_key_matches(a.chain_pem().as_bytes(), &b.key).unwrap());
        assert_ne!(a.facts.serial, b.facts.serial);
    }

    #[test]
    fn a_server_certificate_carries_dns_names_and_addresses() {
        let request = LeafRequest {
            names: vec![San::Dns("harness.test".into()), San::Ip("127.0.0.1".parse().unwrap())],
            ..request(KeyType::EcdsaP256)
        };
        let leaf = authority().mint(&request).unwrap();
        assert_eq!(chain_facts(leaf.chain_pem().as_bytes()).unwrap(), std::slice::from_ref(&leaf.facts));
        let (_, cert) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        assert_eq!(cert.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    }
}
