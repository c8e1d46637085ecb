//! The facts of a certificate that was shown.

use x509_parser::prelude::*;

use crate::timeline::{CertFacts, Fingerprint, Serial};

pub(super) fn cert_facts(der: &[u8]) -> Result<CertFacts, String> {
    let (rest, cert) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err("something follows the certificate".into());
    }
    let time = |t: ASN1Time| jiff::Timestamp::from_second(t.timestamp()).map_err(|e| e.to_string());
    let mut uris = Vec::new();
    let mut ids = (None, None);
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                uris.extend(san.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => ids.0 = Some(hex::encode(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                ids.1 = id.key_identifier.as_ref().map(|id| hex::encode(id.0));
            }
            _ => {}
        }
    }
    Ok(CertFacts {
        fingerprint: Fingerprint::of_der(der),
        serial: Serial::from_be_bytes(cert.raw_serial()),
        uris,
        not_before: time(cert.validity().not_before)?,
        not_after: time(cert.validity().not_after)?,
        subject: cert.subject().to_string(),
        issuer: cert.issuer().to_string(),
        subject_key_id: ids.0,
        authority_key_id: ids.1,
        key_type: String::new(),
        is_ca: cert.is_ca(),
    })
}
