//! Texts of somebody else's, cut to a length that can be kept. What is cut ends in the digest of the whole, so that two texts
//! that differ are never taken for the same one; whose certificate it is, its fingerprint tells.

use crate::timeline::{CertFacts, Fingerprint, Serial};

/// Of a URI, or a name that may be one, bytes: the length of the longest SPIFFE ID (SPIFFE-ID standard, section 2.3).
const LONGEST_URI: usize = 2048;
/// Of what a proxy says is wrong, bytes: the cause stands at the end of Envoy's errors.
const LONGEST_ERROR: usize = 8192;
/// Of any other text, bytes.
const LONGEST_TEXT: usize = 512;
/// More URIs of one certificate are only counted.
const MOST_URIS: usize = 16;
/// Hex digits of a serial number; 40 are allowed (RFC 5280, 4.1.2.2).
const LONGEST_SERIAL: usize = 128;

/// A text that is cut to 512 bytes. To cut it again changes nothing.
pub fn cut(text: &str) -> String {
    cut_to(text, LONGEST_TEXT)
}

/// A name that may be a SPIFFE ID, cut likewise.
pub fn cut_name(name: &str) -> String {
    cut_to(name, LONGEST_URI)
}

/// What went wrong, in the words of a proxy, cut likewise.
pub fn cut_error(error: &str) -> String {
    cut_to(error, LONGEST_ERROR)
}

fn cut_to(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = format!("... ({} bytes, SHA-256 {})", text.len(), digest(text));
    let room = longest - end.len();
    let at = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}{end}", &text[..at])
}

fn digest(text: &str) -> Fingerprint {
    // SHA-256, of whatever bytes.
    Fingerprint::of_der(text.as_bytes())
}

/// A certificate's facts with all texts cut, and no more of them than anybody needs.
pub fn bounded(mut facts: CertFacts) -> CertFacts {
    let ids = [facts.subject_key_id.as_mut(), facts.authority_key_id.as_mut()].into_iter().flatten();
    let texts = [&mut facts.subject, &mut facts.issuer, &mut facts.key_type].into_iter().chain(ids);
    texts.for_each(|text| shorten(text, LONGEST_TEXT));
    CertFacts { uris: bounded_uris(facts.uris), serial: bounded_serial(facts.serial), ..facts }
}

/// URIs, cut.
pub fn bounded_uris(mut uris: Vec<String>) -> Vec<String> {
    if uris.len() > MOST_URIS {
        let left_out = uris.split_off(MOST_URIS - 1);
        uris.push(format!("... {} more (SHA-256 {})", left_out.len(), digest(&left_out.join("\n"))));
    }
    uris.iter_mut().for_each(|uri| shorten(uri, LONGEST_URI));
    uris
}

/// A serial number, cut.
pub fn bounded_serial(serial: Serial) -> Serial {
    let text = serial.as_str();
    if text.len() <= LONGEST_SERIAL {
        return serial;
    }
    let short = format!("{}{}", &text[..LONGEST_SERIAL - 64], digest(text));
    Serial::parse(&short).expect("hexadecimal digits, and a digest in such")
}

fn shorten(text: &mut String, longest: usize) {
    if text.len() > longest {
        *text = cut_to(text, longest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::pki::{Authority, Validity, facts};

    #[test]
    fn what_is_cut_stays_different_from_what_is_not_the_same() {
        let [a, b] = ["a", "b"].map(|end| cut(&format!("{}{end}", "x".repeat(5000))));
        assert_ne!(a, b);
        assert!(a.starts_with("xxx") && a.contains("... (5001 bytes, SHA-256 "), "{a}");
    }

    #[test]
    fn a_certificate_of_megabytes_has_facts_of_kilobytes_and_is_no_other_certificate() {
        let validity = Validity::starting("2026-01-01T00:00:00Z".parse().unwrap(), Duration::from_secs(60));
        let leaf = facts(Authority::new("a", validity).unwrap().der()).unwrap();
        assert_eq!(bounded(leaf.clone()), leaf);
        let huge = |end: &str| {
            let long = format!("{}{end}", "7".repeat(1 << 20));
            let mut cert = leaf.clone();
            cert.uris = vec![long.clone(); 100];
            cert.serial = Serial::parse(&long).unwrap();
            (cert.subject, cert.issuer, cert.key_type) = (long.clone(), long.clone(), long.clone());
            (cert.subject_key_id, cert.authority_key_id) = (Some(long.clone()), Some(long));
            bounded(cert)
        };
        let (a, b) = (huge("1"), huge("2"));
        assert_eq!(bounded(a.clone()), a);
        assert!(serde_json::to_vec(&a).unwrap().len() < 40_000);
        assert!(a.uris[0] != b.uris[0] && a.uris[15] != b.uris[15] && a.serial != b.serial && a.issuer != b.issuer);
    }

    proptest! {
        #[test]
        fn what_was_cut_is_not_cut_again(text: String, times in 1usize..200) {
            let once = cut(&text.repeat(times));
            prop_assert!(once.len() <= LONGEST_TEXT);
            prop_assert_eq!(cut(&once), once);
        }
    }
}
