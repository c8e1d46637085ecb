//! `/certs` (Envoy's `envoy.admin.v3.Certificates`).

use serde::Deserialize;

use super::{AnswerError, object};
use crate::pki::{bounded_serial, bounded_uris};
use crate::timeline::{Certs, LoadedCert, Serial};

#[derive(Deserialize)]
struct Answer {
    /// One entry per live TLS context; absent before the first.
    #[serde(default)]
    certificates: Vec<Context>,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    ca_cert: Vec<Details>,
    #[serde(default)]
    cert_chain: Vec<Details>,
}

/// `days_until_expiration` is left alone: it says "0" of the expired and of what has hours to live.
#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    serial_number: String,
    #[serde(default)]
    subject_alt_names: Vec<SubjectAltName>,
    #[serde(default)]
    valid_from: String,
    #[serde(default)]
    expiration_time: String,
}

#[derive(Deserialize)]
struct SubjectAltName {
    #[serde(default)]
    uri: Option<String>,
}

pub(super) fn parse(body: &[u8]) -> Result<Certs, AnswerError> {
    let answer: Answer = object(body)?;
    let mut certs = Certs { leaves: Vec::new(), authorities: Vec::new(), contexts: 0 };
    for context in answer.certificates {
        certs.contexts = certs.contexts.saturating_add(1);
        for details in context.cert_chain {
            count(&mut certs.leaves, details)?;
        }
        for details in context.ca_cert {
            count(&mut certs.authorities, details)?;
        }
    }
    Ok(certs)
}

fn count(known: &mut Vec<LoadedCert>, details: Details) -> Result<(), AnswerError> {
    // An entry without certificate (a context whose secret has not arrived) is printed with empty fields.
    if details.serial_number.is_empty() {
        return Ok(());
    }
    let time = |what, text: &str| text.parse::<jiff::Timestamp>().map_err(|e| AnswerError::field(what, e));
    let serial = Serial::parse(&details.serial_number).map_err(|e| AnswerError::field("a serial number", e))?;
    let cert = LoadedCert {
        // As they are cut where the certificate itself is read.
        serial: bounded_serial(serial),
        uris: bounded_uris(details.subject_alt_names.into_iter().filter_map(|name| name.uri).collect()),
        not_before: time("a validity", &details.valid_from)?,
        not_after: time("a validity", &details.expiration_time)?,
        contexts: 1,
    };
    let same = |k: &&mut LoadedCert| {
        (&k.serial, &k.uris, k.not_before, k.not_after) == (&cert.serial, &cert.uris, cert.not_before, cert.not_after)
    };
    match known.iter_mut().find(same) {
        Some(known) => known.contexts = known.contexts.saturating_add(1),
        None => known.push(cert),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_leaves_are_counted_and_contexts_without_leaf_too() {
        let leaf = r#"{"serial_number":"00aB","subject_alt_names":[{"uri":"spiffe://td/a"},{"dns":"x"}],
            "days_until_expiration":"0","valid_from":"2026-01-01T00:00:00Z","expiration_time":"2026-01-01T01:00:00Z"}"#;
        let body = format!(
            r#"{{"certificates":[{{"ca_cert":[],"cert_chain":[{leaf}]}},{{"cert_chain":[{leaf}],"later":1}},{{}}]}}"#
        );
        let certs = parse(body.as_bytes()).unwrap();
        assert_eq!((certs.contexts, certs.leaves.len()), (3, 1));
        assert_eq!((certs.leaves[0].serial.as_str(), certs.leaves[0].contexts), ("ab", 2));
        assert_eq!(certs.leaves[0].uris, ["spiffe://td/a"]);
    }

    #[test]
    fn before_the_first_secret_there_is_nothing() {
        assert_eq!(parse(b"{}").unwrap(), Certs { leaves: vec![], authorities: vec![], contexts: 0 });
    }

    #[test]
    fn nonsense_is_an_error() {
        for body in [
            &b""[..],
            b"[]",
            b"<html>",
            br#"{"certificates":3}"#,
            br#"{"certificates":[{"cert_chain":[{"serial_number":"xyz"}]}]}"#,
            br#"{"certificates":[{"cert_chain":[{"serial_number":"1","valid_from":"soon"}]}]}"#,
        ] {
            assert!(parse(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[{\":,}\\]a-z0-9]{0,80}") {
            let _ = parse(&body);
            let _ = parse(text.as_bytes());
        }
    }
}
