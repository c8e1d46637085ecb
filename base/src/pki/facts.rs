//! What a certificate says, read from bytes that anybody may have made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::{PrivateKey, bounded};
use crate::timeline::{CertFacts, Fingerprint, Serial};

/// Longer chains and bundles are refused: none of this trade comes near.
const MOST_CERTIFICATES: usize = 256;

/// Why a chain can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is none.
    #[error("there is no certificate")]
    Empty,
    /// The PEM is broken.
    #[error("the PEM is malformed: {0}")]
    Pem(String),
    /// The DER is broken.
    #[error("certificate {index} is malformed: {why}")]
    Der {
        /// From 0, the leaf.
        index: usize,
        /// The parser's words.
        why: String,
    },
    /// More than one certificate in one PEM block, or rubbish behind it.
    #[error("certificate {index} is followed by {bytes} bytes in the same block: one PEM block holds one certificate")]
    Trailing {
        /// From 0, the leaf.
        index: usize,
        /// How many.
        bytes: usize,
    },
    /// Too many.
    #[error("there are more than {MOST_CERTIFICATES} certificates")]
    TooMany,
}

/// What was read of the certificates shown lately: every proxy shows the same few, in every context and at every look.
static READ: Mutex<BTreeMap<Vec<u8>, CertFacts>> = Mutex::new(BTreeMap::new());
const MOST_READ: usize = 256;
/// Who sends longer ones may have many.
const LONGEST_KEPT: usize = 8 << 10;

/// The facts of one certificate, DER.
pub fn facts(der: &[u8]) -> Result<CertFacts, ChainError> {
    if let Some(facts) = READ.lock().unwrap_or_else(PoisonError::into_inner).get(der) {
        return Ok(facts.clone());
    }
    let (rest, cert) = parse(der, 0)?;
    if !rest.is_empty() {
        return Err(ChainError::Trailing { index: 0, bytes: rest.len() });
    }
    let facts = of(der, &cert);
    if der.len() <= LONGEST_KEPT {
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= MOST_READ {
            read.clear();
        }
        read.insert(der.to_vec(), facts.clone());
    }
    Ok(facts)
}

/// The facts of every certificate in PEM text or concatenated DER, in order.
pub fn chain_facts(bytes: &[u8]) -> Result<Vec<CertFacts>, ChainError> {
    chain_der(bytes)?.iter().map(|der| facts(der)).collect()
}

/// The DER of every certificate in PEM text or concatenated DER, in order. Every one of them parses.
pub fn chain_der(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    // DER begins with the tag of a SEQUENCE, which as text would be "0": no PEM begins so.
    let chain = if bytes.first() == Some(&0x30) { split_der(bytes)? } else { split_pem(bytes)? };
    if chain.is_empty() { Err(ChainError::Empty) } else { Ok(chain) }
}

/// Whether the key is that of the chain's first certificate.
pub fn leaf_key_matches(chain: &[u8], key: &PrivateKey) -> Result<bool, ChainError> {
    let chain = chain_der(chain)?;
    let (_, leaf) = parse(&chain[0], 0)?;
    Ok(leaf.public_key().subject_public_key.data.as_ref() == key.public_key())
}

/// Whether the key, PEM as a provider sends it (PKCS #8, PKCS #1 or SEC 1), is that of the chain's first certificate;
/// absent where either can't be read.
pub fn leaf_key_pem_matches(chain: &[u8], key: &[u8]) -> Option<bool> {
    let chain = chain_der(chain).ok()?;
    let (_, leaf) = parse(&chain[0], 0).ok()?;
    let key = PrivateKeyDer::from_pem_slice(key).ok()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).ok()?;
    Some(key.public_key()?.as_ref() == leaf.public_key().raw)
}

fn split_pem(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    let blocks = pem::parse_many(bytes).map_err(|e| ChainError::Pem(e.to_string()))?;
    let mut chain = Vec::new();
    for block in blocks.into_iter().filter(|b| matches!(b.tag(), "CERTIFICATE" | "X509 CERTIFICATE")) {
        if chain.len() == MOST_CERTIFICATES {
            return Err(ChainError::TooMany);
        }
        let der = block.into_contents();
        let (rest, _) = parse(&der, chain.len())?;
        if !rest.is_empty() {
            return Err(ChainError::Trailing { index: chain.len(), bytes: rest.len() });
        }
        chain.push(der);
    }
    Ok(chain)
}

fn split_der(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        if chain.len() == MOST_CERTIFICATES {
            return Err(ChainError::TooMany);
        }
        let (rest, _) = parse(bytes, chain.len())?;
        let (der, tail) = bytes.split_at(bytes.len() - rest.len());
        chain.push(der.to_vec());
        bytes = tail;
    }
    Ok(chain)
}

fn parse(der: &[u8], index: usize) -> Result<(&[u8], X509Certificate<'_>), ChainError> {
    x509_parser::parse_x509_certificate(der).map_err(|e| {
        let why = match e {
            x509_parser::nom::Err::Incomplete(_) => "it ends too early".to_owned(),
            x509_parser::nom::Err::Error(e) | x509_parser::nom::Err::Failure(e) => e.to_string(),
        };
        ChainError::Der { index, why }
    })
}

fn of(der: &[u8], cert: &X509Certificate<'_>) -> CertFacts {
    let mut facts = CertFacts {
        fingerprint: Fingerprint::of_der(der),
        serial: Serial::from_be_bytes(cert.raw_serial()),
        uris: Vec::new(),
        not_before: moment(cert.validity().not_before.timestamp()),
        not_after: moment(cert.validity().not_after.timestamp()),
        subject: rfc4514(cert.subject()),
        issuer: rfc4514(cert.issuer()),
        subject_key_id: None,
        authority_key_id: None,
        key_type: key_type(cert.public_key()),
        is_ca: false,
    };
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                facts.uris.extend(san.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key_id = Some(hex::encode(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key_id = id.key_identifier.as_ref().map(|id| hex::encode(id.0));
            }
            ParsedExtension::BasicConstraints(constraints) => facts.is_ca = constraints.ca,
            _ => {}
        }
    }
    bounded(facts)
}

/// "Never expires" is written as the end of the year 9999 (RFC 5280, 4.1.2.5), a day later than the last moment here.
fn moment(seconds: i64) -> jiff::Timestamp {
    let limit = if seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_second(seconds).unwrap_or(limit)
}

fn key_type(spki: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = spki.algorithm.algorithm.to_id_string();
    match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            let significant = rsa.modulus.iter().position(|b| *b != 0).map_or(&[][..], |at| &rsa.modulus[at..]);
            let leading = significant.first().map_or(0, |b| b.leading_zeros() as usize);
            format!("rsa-{}", significant.len() * 8 - leading)
        }
        Ok(PublicKey::EC(_)) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
            match curve.as_deref() {
                Some("1.2.840.10045.3.1.7") => "ecdsa-p256".to_owned(),
                Some("1.3.132.0.34") => "ecdsa-p384".to_owned(),
                Some("1.3.132.0.35") => "ecdsa-p521".to_owned(),
                Some(other) => format!("ecdsa-{other}"),
                None => "ecdsa".to_owned(),
            }
        }
        _ if algorithm == "1.3.101.112" => "ed25519".to_owned(),
        _ => algorithm,
    }
}

/// RFC 4514: the last RDN first, special signs escaped.
fn rfc4514(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (i, rdn) in rdns.iter().rev().enumerate() {
        for (j, attribute) in rdn.iter().enumerate() {
            match (i, j) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            let oid = attribute.attr_type().to_id_string();
            let short = match oid.as_str() {
                "2.5.4.3" => "CN",
                "2.5.4.6" => "C",
                "2.5.4.7" => "L",
                "2.5.4.8" => "ST",
                "2.5.4.10" => "O",
                "2.5.4.11" => "OU",
                other => other,
            };
            text.push_str(short);
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    text.push_str(&hex::encode(attribute.as_slice()));
                }
            }
        }
    }
    text
}

fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (i, sign) in value.chars().enumerate() {
        match sign {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => {
                text.push('\\');
                text.push(sign);
            }
            '#' if i == 0 => text.push_str("\\#"),
            ' ' if i == 0 || i == last => text.push_str("\\ "),
            sign if sign.is_control() => {
                let mut buffer = [0; 4];
                for byte in sign.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            sign => text.push(sign),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::pki::authority::pem_of;
    use crate::pki::{Authority, Validity};

    fn certificate(name: &str) -> Vec<u8> {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        Authority::new(name, Validity::starting(start, Duration::from_secs(60))).unwrap().der().to_vec()
    }

    #[test]
    fn a_chain_reads_the_same_as_pem_and_as_der() {
        let (a, b) = (certificate("a"), certificate("b"));
        let pem = pem_of([a.as_slice(), b.as_slice()]);
        let from_pem = chain_facts(pem.as_bytes()).unwrap();
        assert_eq!(from_pem.len(), 2);
        assert_eq!(from_pem, chain_facts(&[a, b].concat()).unwrap());
    }

    #[test]
    fn what_was_read_once_reads_the_same_again_and_is_not_kept_for_ever() {
        let mut seen: Vec<(Vec<u8>, CertFacts)> = Vec::new();
        for n in 0..MOST_READ + 2 {
            let der = certificate(&n.to_string());
            let first = facts(&der).unwrap();
            assert_eq!((first.fingerprint, facts(&der)), (Fingerprint::of_der(&der), Ok(first.clone())));
            seen.push((der, first));
            assert!(READ.lock().unwrap().len() <= MOST_READ);
        }
        assert!(seen.iter().all(|(der, first)| facts(der).as_ref() == Ok(first)));
        // One that begins as a certificate that was read is another.
        let longer = [seen[0].0.as_slice(), &[0]].concat();
        assert_eq!(facts(&longer), Err(ChainError::Trailing { index: 0, bytes: 1 }));
    }

    #[test]
    fn a_whole_chain_in_one_block_is_refused_like_envoy_refuses_it() {
        let (a, b) = (certificate("a"), certificate("b"));
        let bytes = b.len();
        let one_block = pem_of([[a, b].concat().as_slice()]);
        assert_eq!(chain_facts(one_block.as_bytes()), Err(ChainError::Trailing { index: 0, bytes }));
    }

    #[test]
    fn nothing_is_no_chain() {
        assert_eq!(chain_facts(b""), Err(ChainError::Empty));
        assert_eq!(chain_facts(b"no PEM at all"), Err(ChainError::Empty));
        assert!(chain_facts(b"-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n").is_err());
    }

    #[test]
    fn names_are_escaped() {
        let facts = facts(&certificate("a,b+c \n ")).unwrap();
        assert_eq!(facts.subject, r"CN=a\,b\+c \0A\ ,O=rotacheck");
    }

    #[test]
    fn certificates_that_never_expire_end_at_the_last_moment() {
        assert_eq!(moment(253_402_300_799), jiff::Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn spoiled_certificates_never_panic(at in 0usize..600, byte: u8, cut in 0usize..600) {
            let mut der = certificate("spoiled");
            let at = at % der.len();
            der[at] = byte;
            let _ = facts(&der);
            let _ = chain_facts(&der[..cut % der.len()]);
            let _ = chain_facts(pem_of([der.as_slice()]).as_bytes());
        }

        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            let _ = chain_facts(&bytes);
            let _ = facts(&bytes);
        }
    }
}
