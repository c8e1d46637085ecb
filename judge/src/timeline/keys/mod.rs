//! Private keys in texts of others: Envoy, for one, quotes in its refusal, and in its log, all that it was sent. Whatever
//! is recorded, kept or shown of such a text goes through here. In doubt it takes too much.

mod find;
mod log;

use std::borrow::Cow;

use find::first;

pub use log::LogFilter;

/// What takes a key's place, and that of all that follows in the text.
const LEFT_OUT: &str = "(a private key was left out here)";

/// With this, Envoy's protobuf library begins to quote a message. It varies what follows.
const QUOTED: &str = "goo.gle/debug";
/// Bytes of a text that was said to us.
const LONGEST: usize = 4 << 10;

/// Whether there is a private key, or what may be one: as PEM, DER, or a field of that name; as it is, escaped, in base64 or
/// in hexadecimal, and that several times over.
pub fn holds_private_key(bytes: &[u8]) -> bool {
    first(bytes).is_some()
}

/// The text up to the first private key.
pub fn without_private_keys(text: &str) -> Cow<'_, str> {
    let Some(at) = first(text.as_bytes()) else { return Cow::Borrowed(text) };
    let head = &text[..boundary(text, at)];
    // What is quoted before the key says nothing that the complaint does not.
    let head = head.find(QUOTED).map_or(head, |quoted| &head[..quoted]).trim_end();
    Cow::Owned(if head.is_empty() { LEFT_OUT.to_owned() } else { format!("{head} {LEFT_OUT}") })
}

/// What a peer said, fit to be recorded: without private keys, and not longer than a few KiB.
pub fn said(text: &str) -> String {
    let text = without_private_keys(text);
    if text.len() <= LONGEST {
        return text.into_owned();
    }
    let head = &text[..boundary(&text, LONGEST)];
    format!("{head} ({} further bytes were left out here)", text.len() - head.len())
}

/// A whole log, or what is like one, without private keys.
pub fn log_without_private_keys(log: &[u8]) -> Vec<u8> {
    let (mut filter, mut kept) = (LogFilter::default(), Vec::new());
    filter.hear(log, &mut kept);
    filter.finish(&mut kept);
    kept
}

/// At most so many bytes, and no part of a character.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_envoy_complains_about_stays_and_what_it_quotes_goes() {
        let complaint = "Unable to unpack as Secret: goo.gle/debugstr  \ntype_url: \"x\"\nvalue: \"\\n\\007default\
            \\022\\361\\001-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMG\\n-----END PRIVATE KEY-----\\n\\377\"\n";
        assert_eq!(without_private_keys(complaint), format!("Unable to unpack as Secret: {LEFT_OUT}"));
        assert_eq!(said(complaint), without_private_keys(complaint));
    }

    #[test]
    fn usual_texts_stay_as_they_are() {
        for text in [
            "",
            "Failed to load private key from <inline>, Cause: error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE",
            "Failed to load certificate chain from <inline>, please see log for details",
            "tls: failed to find \"PRIVATE KEY\" PEM block in key input",
            "Proto constraint validation failed (DownstreamTlsContextValidationError.TlsCertificate.private_key: value is \
             required and must not be empty)",
            "\"private_key\": {\"inline_bytes\": \"W3JlZGFjdGVkXQ==\"}, \"certificate_chain\": {\"inline_bytes\": \
             \"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJ5VENDQVc\"}",
            "\"private_key\": {\"filename\": \"/tmp/rotacheck-1/files/proxy-a/of-a-long-name/private-key.pem\"}",
            "private_key: [redacted]\nserial 0f2e3d4c5b6a79880f2e3d4c5b6a79880f2e3d4c5b6a79880f2e3d4c5b6a7988",
        ] {
            assert_eq!(without_private_keys(text), text);
        }
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let said = said(&"é".repeat(5000));
        assert!(said.ends_with(" (5904 further bytes were left out here)") && said.len() < 4200, "{said}");
    }
}
