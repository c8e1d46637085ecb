//! What SPIRE's server says that it signed: its log, one JSON object a line.

use serde::Deserialize;

use crate::timeline::{Serial, Signed, SpiffeId};

/// A line that tells of a signed SVID has this for its message.
const SIGNED: &str = "Signed X509 SVID";

/// What the line holds, as far as it is of interest. Whatever else a log may hold is not.
#[derive(Deserialize)]
struct Line {
    msg: String,
    #[serde(default)]
    serial_num: String,
    #[serde(default)]
    spiffe_id: String,
    #[serde(default)]
    expiration: String,
}

/// The certificate of which a line of the log tells, if it tells of one.
pub(super) fn signed(line: &str) -> Option<Signed> {
    // Most lines are others, and need not be read.
    if !line.contains(SIGNED) {
        return None;
    }
    let line: Line = serde_json::from_str(line).ok()?;
    (line.msg == SIGNED).then_some(())?;
    Some(Signed {
        serial: Serial::from_be_bytes(&from_decimal(&line.serial_num)?),
        spiffe_id: SpiffeId::parse(&line.spiffe_id).ok()?.into(),
        not_after: line.expiration.parse().ok(),
    })
}

/// The big-endian bytes of a decimal number of at most 20 bytes, the longest that a serial number may be (RFC 5280,
/// 4.1.2.2).
fn from_decimal(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() {
        return None;
    }
    let mut bytes = [0_u8; 20];
    for digit in digits.bytes() {
        let mut carry = u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        for byte in bytes.iter_mut().rev() {
            let value = u16::from(*byte) * 10 + carry;
            *byte = value.to_be_bytes()[1];
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"authorized_as":"agent","authorized_via":"datastore","caller_addr":"127.0.0.1:51234","expiration":"2026-11-26T06:50:30Z","level":"debug","method":"BatchNewX509SVID","msg":"Signed X509 SVID","registration_id":"proxies","revision_number":0,"serial_num":"340282366920938463463374607431768211456","spiffe_id":"spiffe://cluster.local/ns/demo/sa/proxies","subsystem_name":"api","time":"2026-11-26T06:50:00Z"}"#;

    #[test]
    fn a_signed_certificate_is_known_by_its_serial_number() {
        let signed = signed(LINE).unwrap();
        // 2 to the power of 128.
        assert_eq!(signed.serial.as_str(), format!("1{}", "0".repeat(32)));
        assert_eq!(signed.spiffe_id, "spiffe://cluster.local/ns/demo/sa/proxies");
        assert_eq!(signed.not_after, Some("2026-11-26T06:50:30Z".parse().unwrap()));
    }

    #[test]
    fn decimal_becomes_hexadecimal() {
        let hex = |digits: &str| from_decimal(digits).map(|bytes| Serial::from_be_bytes(&bytes).as_str().to_owned());
        assert_eq!(hex("0").as_deref(), Some("0"));
        assert_eq!(hex("255").as_deref(), Some("ff"));
        assert_eq!(hex("0000256").as_deref(), Some("100"));
        let most = "1461501637330902918203684832716283019655932542975";
        assert_eq!(hex(most), Some("f".repeat(40)));
        assert_eq!(hex(&format!("{}6", &most[..most.len() - 1])), None, "21 bytes");
    }

    #[test]
    fn other_lines_and_hostile_ones_tell_of_nothing() {
        let without = LINE.replace("340282366920938463463374607431768211456", "");
        let negative = LINE.replace("\"3402", "\"-3402");
        let a_number = LINE.replace("\"340282366920938463463374607431768211456\"", "17");
        let nested = LINE.replace("\"msg\":\"Signed X509 SVID\"", "\"msg\":\"x\",\"note\":\"Signed X509 SVID\"");
        let path = LINE.replace("spiffe://cluster.local", "\\u001b[31m\\nred");
        let half = &LINE[..LINE.len() - 2];
        for line in ["", "Signed X509 SVID", "[]", &without, &negative, &a_number, &nested, &path, half] {
            assert_eq!(signed(line), None, "{line:.200}");
        }
        let undated = LINE.replace("2026-11-26T06:50:30Z", "soon");
        assert_eq!(signed(&undated).unwrap().not_after, None);
    }
}
