//! OCSP responses (RFC 6960) that say "good", to be stapled to a leaf by its own authority.

use rcgen::{KeyPair, SigningKey as _};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{PkiError, Validity};

const SEQUENCE: u8 = 0x30;
const ENUMERATED: u8 = 0x0a;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const GENERALIZED_TIME: u8 = 0x18;
const NULL: u8 = 0x05;

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
/// id-sha256, 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2: authorities have P-256 keys.
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// The response, DER.
pub(super) fn good(leaf: &[u8], authority: &[u8], key: &KeyPair, validity: Validity) -> Result<Vec<u8>, PkiError> {
    let failed = |why: String| PkiError::Sign { subject: "an OCSP response".to_owned(), why };
    let parse = |der| X509Certificate::from_der(der).map(|(_, cert)| cert).map_err(|e| failed(e.to_string()));
    let (leaf, authority) = (parse(leaf)?, parse(authority)?);
    let issuer = authority.subject().as_raw();

    let certificate = tlv(
        SEQUENCE,
        &[
            &tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[SHA256]), &tlv(NULL, &[])]),
            &tlv(OCTET_STRING, &[&Sha256::digest(issuer)]),
            &tlv(OCTET_STRING, &[&Sha256::digest(&authority.public_key().subject_public_key.data)]),
            &tlv(INTEGER, &[leaf.raw_serial()]),
        ],
    );
    let single = tlv(
        SEQUENCE,
        &[
            &certificate,
            // good
            &tlv(0x80, &[]),
            &time(validity.not_before),
            &tlv(0xa0, &[&time(validity.not_after)]),
        ],
    );
    // The responder by its name.
    let data = tlv(SEQUENCE, &[&tlv(0xa1, &[issuer]), &time(validity.not_before), &tlv(SEQUENCE, &[&single])]);
    let signature = key.sign(&data).map_err(|e| failed(e.to_string()))?;
    let basic = tlv(
        SEQUENCE,
        &[&data, &tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[ECDSA_SHA256])]), &tlv(BIT_STRING, &[&[0], &signature])],
    );
    let bytes = tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[BASIC]), &tlv(OCTET_STRING, &[&basic])]);
    Ok(tlv(SEQUENCE, &[&tlv(ENUMERATED, &[&[0]]), &tlv(0xa0, &[&bytes])]))
}

fn time(at: jiff::Timestamp) -> Vec<u8> {
    tlv(GENERALIZED_TIME, &[at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
}

/// Tag, length, contents.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|b| **b == 0).count().min(bytes.len() - 1)..];
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => der.push(short),
        _ => {
            der.push(0x80 | significant.len() as u8);
            der.extend(significant);
        }
    }
    parts.iter().for_each(|part| der.extend(*part));
    der
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use x509_parser::der_parser::parse_der;

    use super::*;
    use crate::pki::{Authority, LeafRequest, San};
    use crate::scenario::KeyType;
    use crate::timeline::SpiffeId;

    #[test]
    fn lengths_are_written_in_as_few_bytes_as_they_take() {
        assert_eq!(tlv(NULL, &[]), [5, 0]);
        assert_eq!(tlv(OCTET_STRING, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(tlv(OCTET_STRING, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(OCTET_STRING, &[&[7; 300]])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn a_staple_is_whole_der_that_names_the_leafs_serial() {
        let validity = Validity::starting("2026-01-02T03:04:05Z".parse().unwrap(), Duration::from_secs(60));
        let authority = Authority::new("one", validity).unwrap();
        let request = LeafRequest {
            names: vec![San::Spiffe(SpiffeId::parse("spiffe://demo.test/a").unwrap())],
            validity,
            key_type: KeyType::EcdsaP256,
            serial: None,
        };
        let leaf = authority.mint(&request).unwrap();
        let staple = authority.staple(&leaf, validity).unwrap();
        let (rest, response) = parse_der(&staple).unwrap();
        assert!(rest.is_empty() && response.as_sequence().unwrap().len() == 2);
        let (_, cert) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
        assert!(staple.windows(cert.raw_serial().len()).any(|bytes| bytes == cert.raw_serial()));
        assert!(staple.windows(15).any(|bytes| bytes == b"20260102030505Z"));
    }
}
