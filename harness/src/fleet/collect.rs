//! What every proxy says at the end, kept as it was said.

use camino::Utf8Path;
use futures::future::join_all;

use super::{FleetError, Proxy, keep};
use crate::clock::Deadline;
use crate::timeline::{Blind, Recorder, Source};

/// Path of the admin API, and the file that keeps its answer.
const ANSWERS: [(&str, &str); 6] = [
    ("/certs", "certs.json"),
    ("/config_dump", "config_dump.json"),
    ("/stats", "stats.txt"),
    ("/server_info", "server_info.json"),
    ("/listeners?format=json", "listeners.json"),
    ("/clusters?format=json", "clusters.json"),
];

/// Writes the raw answers of each proxy below `directory/proxies/<id>`. What gives no answer is recorded as blind;
/// what it would have overwritten stays.
pub(super) async fn collect(
    proxies: &[Proxy],
    directory: &Utf8Path,
    recorder: &Recorder,
    deadline: Deadline,
) -> Result<(), FleetError> {
    let all = proxies.iter().flat_map(|proxy| ANSWERS.map(|(path, file)| (proxy, path, file)));
    let kept = all.map(async |(proxy, path, file)| {
        let why = match proxy.admin(path, deadline).await {
            Ok((status, _)) if !status.is_success() => format!("it answered {status}"),
            Ok((_, body)) if holds_private_key(&body) => "the answer holds a private key and was not kept".to_owned(),
            Ok((_, body)) => {
                let kept_in = directory.join("proxies").join(proxy.id.as_str());
                let target = kept_in.join(file);
                let written = keep::directory(&kept_in).and_then(|()| keep::file(&target, &body));
                return written.map_err(|source| FleetError::Write { path: target, source });
            }
            Err(e) => e.to_string(),
        };
        recorder.record(Source::Admin, Some(&proxy.id), None, Blind { layer: None, what: path.to_owned(), why });
        Ok(())
    });
    join_all(kept).await.into_iter().collect()
}

/// Envoy redacts private keys in its dumps. Should one ever not, what it dumped must not reach the disk: neither as
/// text nor inside base64, at any of its three alignments.
fn holds_private_key(body: &[u8]) -> bool {
    const MARKS: [&[u8]; 4] = [b"PRIVATE KEY", b"UFJJVkFURSBLRV", b"BSSVZBVEUgS0V", b"QUklWQVRFIEtFW"];
    MARKS.iter().any(|mark| memchr::memmem::find(body, mark).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_seen_through_base64_at_any_alignment() {
        // base64 of "-----BEGIN PRIVATE KEY-----" behind 0, 1 and 2 further bytes.
        for text in [
            "-----BEGIN EC PRIVATE KEY-----",
            "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t",
            "IC0tLS0tQkVHSU4gUFJJVkFURSBLRVktLS0tLQ==",
            "ICAtLS0tLUJFR0lOIFBSSVZBVEUgS0VZLS0tLS0=",
        ] {
            assert!(holds_private_key(format!("{{\"inline_bytes\": \"{text}\"}}").as_bytes()), "{text}");
        }
        assert!(!holds_private_key(br#"{"private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="}}"#));
    }
}
