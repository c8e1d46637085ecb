//! What tbot says that its cluster issued: its log, one JSON object a line (`--log-format=json`).
//!
//! It has the serial number in pairs of hexadecimal digits, as `openssl` prints it.

use serde::Deserialize;

use crate::timeline::{Serial, Signed, SpiffeId};

/// What the service `workload-identity-api` says of each credential, and the older `spiffe-workload-api`.
const ISSUED: [&str; 2] = ["Issued Workload Identity Credential", "Issued SVID for workload"];

/// What the line holds, as far as it is of interest.
#[derive(Deserialize)]
struct Line {
    message: String,
    #[serde(alias = "svid")]
    credential: Credential,
}

#[derive(Deserialize)]
struct Credential {
    /// `x509-svid`, or `x509`; else it is a JWT.
    r#type: String,
    spiffe_id: String,
    serial_number: String,
    #[serde(default, alias = "not_after")]
    expires_at: String,
}

/// The certificate of which a line of the log tells, if it tells of one.
pub(super) fn issued(line: &str) -> Option<Signed> {
    // Most lines are others, and need not be read.
    if !ISSUED.iter().any(|words| line.contains(words)) {
        return None;
    }
    let Line { message, credential } = serde_json::from_str(line).ok()?;
    if !ISSUED.contains(&message.as_str()) || !credential.r#type.starts_with("x509") {
        return None;
    }
    Some(Signed {
        serial: Serial::parse(&credential.serial_number.replace(':', "")).ok()?,
        spiffe_id: SpiffeId::parse(&credential.spiffe_id).ok()?.into(),
        not_after: moment(&credential.expires_at),
    })
}

/// RFC 3339; or a protobuf timestamp as Go prints it, `seconds:1790000000 nanos:5`.
fn moment(text: &str) -> Option<jiff::Timestamp> {
    let seconds = || text.split_whitespace().find_map(|word| word.strip_prefix("seconds:")?.parse().ok());
    text.parse().ok().or_else(|| jiff::Timestamp::from_second(seconds()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-11-26T06:50:00Z","level":"info","caller":"workloadidentity/workload_api.go:512","message":"Issued Workload Identity Credential","component":"tbot","workload":{"unix":{"attested":true,"pid":41}},"credential":{"type":"x509-svid","spiffe_id":"spiffe://example.teleport.sh/svc/proxies","serial_number":"0a:9f:00:e1","hint":"","expires_at":"seconds:1790000060","ttl":"seconds:60","workload_identity_name":"proxies"}}"#;
    const OLDER: &str = r#"{"level":"info","message":"Issued SVID for workload","svid":{"type":"x509","spiffe_id":"spiffe://example.teleport.sh/svc/proxies","serial_number":"9f:00","hint":"","not_after":"2026-11-26T06:51:00Z","not_before":"2026-11-26T06:49:00Z"}}"#;

    #[test]
    fn an_issued_certificate_is_known_by_its_serial_number() {
        let signed = issued(LINE).unwrap();
        assert_eq!(signed.serial.as_str(), "a9f00e1");
        assert_eq!(signed.spiffe_id, "spiffe://example.teleport.sh/svc/proxies");
        assert_eq!(signed.not_after.map(|t| t.as_second()), Some(1_790_000_060));
        let signed = issued(OLDER).unwrap();
        assert_eq!(signed.serial.as_str(), "9f00");
        assert_eq!(signed.not_after, Some("2026-11-26T06:51:00Z".parse().unwrap()));
    }

    #[test]
    fn other_lines_and_hostile_ones_tell_of_nothing() {
        let jwt = LINE.replace("x509-svid", "jwt-svid");
        let none = LINE.replace("0a:9f:00:e1", "");
        let no_hex = LINE.replace("0a:9f", "0x:9f");
        let no_id = LINE.replace("spiffe://example.teleport.sh", "\\u001b[31m");
        let quoted = LINE.replace("\"message\":\"Issued", "\"message\":\"x\",\"note\":\"Issued");
        let half = &LINE[..LINE.len() - 2];
        for line in ["", ISSUED[0], "[]", &jwt, &none, &no_hex, &no_id, &quoted, half] {
            assert_eq!(issued(line), None, "{line}");
        }
        assert_eq!(issued(&LINE.replace("seconds:1790000060", "seconds:9999999999999")).unwrap().not_after, None);
    }
}
