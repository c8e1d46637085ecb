//! What Envoy's logger `config` writes of SDS: the few messages that are kept, each by a fixed pattern.
//!
//! The words are those of Envoy 1.36 to 1.40 (`grpc_mux_impl.cc`, `grpc_subscription_impl.cc`, `grpc_stream.h`,
//! `*_ssl_socket.cc`); its lines in the format that Envoy has by default, and in both of Istio's.

use std::fmt;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// A longer version is no version.
const LONGEST_VERSION: usize = 96;

/// Why Envoy refuses a secret, as far as it can be repeated: what follows may quote the secret itself.
const REASONS: [&str; 9] = [
    "Failed to load certificate chain",
    "Failed to load private key",
    "Failed to load incomplete private key",
    "Failed to load incomplete certificate",
    "Failed to load trusted CA certificates",
    "Unexpected SDS secret",
    "Missing SDS resources",
    "Proto constraint validation failed",
    "Unable to unpack",
];
const NO_REASON: &str = "for a reason that is not kept, as it may quote the secret";

/// Said of SDS by a logger `config`. Which secret it is about, Envoy does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdsMessage {
    /// A response came.
    Received {
        /// Its version.
        version: String,
    },
    /// A TLS context was made anew: a secret is another one than before. Written for each context, before the response
    /// that brought the secret is accepted, or refused.
    Updated,
    /// The response was accepted. Also where it brought what was there already.
    Accepted {
        /// Its version.
        version: String,
    },
    /// The response was refused.
    Refused {
        /// Why, in Envoy's words.
        reason: &'static str,
    },
    /// A stream ended, or could not be opened.
    Closed {
        /// The gRPC status.
        status: u8,
        /// Whether the connection itself could not be made.
        unconnected: bool,
        /// For how many seconds none has come up, where Envoy says so: it does when it has been trying for a while.
        failing_s: Option<u64>,
    },
}

/// Methods of the streams on which secrets come.
const METHODS: [&str; 2] = ["StreamSecrets", "DeltaSecrets"];
/// What Envoy says of a connection that could not be made.
const UNCONNECTED: [&str; 3] = [
    "reset reason: remote connection failure",
    "reset reason: local connection failure",
    "reset reason: connection failure",
];

impl SdsMessage {
    /// What a line of Envoy's log says, if it is one of the logger `config` about SDS. Requests that are logged in the same
    /// place can't pass for one: they begin otherwise.
    pub fn of_line(line: &str) -> Option<Self> {
        Self::of_message(&message(line.trim_end_matches(['\r', '\n']))?)
    }

    /// The same of the message alone, as this type writes it.
    pub fn of_message(message: &str) -> Option<Self> {
        if message == "Secret is updated." {
            return Some(Self::Updated);
        }
        if let Some(version) = message.strip_prefix(&format!("Received gRPC message for {SECRET} at version ")) {
            return Some(Self::Received { version: as_version(version)? });
        }
        if let Some(rest) = message.strip_prefix(&format!("gRPC config for {SECRET} ")) {
            if let Some(why) = rest.strip_prefix("rejected: ") {
                let reason = REASONS.into_iter().find(|reason| why.starts_with(reason));
                return Some(Self::Refused { reason: reason.unwrap_or(NO_REASON) });
            }
            let (count, version) = rest.strip_prefix("accepted with ")?.split_once(" resources with version ")?;
            count.parse::<u32>().ok()?;
            return Some(Self::Accepted { version: as_version(version)? });
        }
        let (method, rest) = message.split_once(" gRPC config stream to ")?;
        let (_, rest) = rest.split_once(" closed").filter(|_| METHODS.contains(&method))?;
        let (failing_s, rest) = match rest.strip_prefix(" since ") {
            Some(rest) => {
                let (seconds, rest) = rest.split_once("s ago: ")?;
                (Some(seconds.parse().ok()?), rest)
            }
            None => (None, rest.strip_prefix(": ")?),
        };
        let (status, why) = rest.split_once(',').unwrap_or((rest, ""));
        // What was wrong before is told behind it.
        let why = why.split(" (previously ").next().unwrap_or_default();
        let unconnected = UNCONNECTED.into_iter().any(|reason| why.contains(reason));
        Some(Self::Closed { status: status.parse().ok()?, unconnected, failing_s })
    }
}

/// In Envoy's words, without those that are not kept.
impl fmt::Display for SdsMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received { version } => write!(f, "Received gRPC message for {SECRET} at version {version}"),
            Self::Updated => f.write_str("Secret is updated."),
            Self::Accepted { version } => {
                write!(f, "gRPC config for {SECRET} accepted with 1 resources with version {version}")
            }
            Self::Refused { reason } => write!(f, "gRPC config for {SECRET} rejected: {reason}"),
            Self::Closed { status, unconnected, failing_s } => {
                let since = failing_s.map(|seconds| format!(" since {seconds}s ago")).unwrap_or_default();
                let why = if *unconnected { UNCONNECTED[0] } else { "" };
                write!(f, "StreamSecrets gRPC config stream to sds closed{since}: {status}, {why}")
            }
        }
    }
}

/// A version as providers make them: a number, a time, a hash.
fn as_version(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:+/".contains(c);
    (!text.is_empty() && text.len() <= LONGEST_VERSION && text.chars().all(fits)).then(|| text.to_owned())
}

/// The message in a line of the logger `config`.
fn message(line: &str) -> Option<String> {
    if line.starts_with('{') {
        #[derive(serde::Deserialize)]
        struct Line {
            scope: String,
            msg: String,
        }
        let line: Line = serde_json::from_str(line).ok()?;
        return (line.scope == "envoy config").then_some(line.msg);
    }
    // Istio: time, level, "envoy config" and place, message, thread; between them tabs.
    let mut parts = line.split('\t');
    if let (Some(time), Some(_level), Some(place)) = (parts.next(), parts.next(), parts.next())
        && is_time(time)
        && place.starts_with("envoy config ")
    {
        return parts.next().map(str::to_owned);
    }
    // Envoy: [time][thread][level][config] [place] message
    let (time, rest) = line.strip_prefix('[')?.split_once("][")?;
    let (thread, rest) = rest.split_once("][")?;
    let (_level, rest) = rest.split_once("][config] [")?;
    let (place, message) = rest.split_once("] ")?;
    let known = is_time(time) && thread.bytes().all(|b| b.is_ascii_digit()) && !place.contains(' ');
    known.then(|| message.to_owned())
}

fn is_time(text: &str) -> bool {
    text.len() <= 40 && text.chars().all(|c| c.is_ascii_digit() || "-:. TZ".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn istio(message: &str) -> String {
        format!("2026-11-26T22:39:02.601024Z\tdebug\tenvoy config source/a/b.cc:89\t{message}\tthread=2180")
    }

    fn envoy(message: &str) -> String {
        format!("[2026-11-26 22:39:02.601][2180][warning][config] [source/a/b.cc:138] {message}")
    }

    fn json(message: &str) -> String {
        let message = serde_json::to_string(message).unwrap();
        format!(
            r#"{{"level":"debug","time":"2026-11-26T22:39:02.601Z","scope":"envoy config","msg":{message},"caller":"b.cc:89","thread":"2180"}}"#
        )
    }

    #[test]
    fn what_envoys_of_five_versions_write_is_read_in_each_format() {
        let closed = |how: &str, why: &str| format!("StreamSecrets gRPC config stream to sds-grpc closed{how}: {why}");
        let ended = |status, unconnected, failing_s| SdsMessage::Closed { status, unconnected, failing_s };
        let refused = "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
                       failure{upstream_reset_before_response_started{remote_connection_failure|x}}";
        let key = "Failed to load private key from <inline>, Cause: error:0b000074:X.509 certificate \
                   routines:OPENSSL_internal:KEY_VALUES_MISMATCH";
        let version = "2026-11-26T22:39:58.082511896Z".to_owned();
        for (message, expected) in [
            (
                format!("Received gRPC message for {SECRET} at version {version}"),
                SdsMessage::Received { version: version.clone() },
            ),
            ("Secret is updated.".to_owned(), SdsMessage::Updated),
            (
                format!("gRPC config for {SECRET} accepted with 1 resources with version 3"),
                SdsMessage::Accepted { version: "3".into() },
            ),
            (
                format!("gRPC config for {SECRET} rejected: {key}"),
                SdsMessage::Refused { reason: "Failed to load private key" },
            ),
            (closed("", "14, upstream connect error{x|y}"), ended(14, false, None)),
            (closed("", &format!("14, {refused}")), ended(14, true, None)),
            (closed(" since 131s ago", &format!("14, {refused}")), ended(14, true, Some(131))),
            (closed("", &format!("7, denied (previously 14, {refused} since 4s ago)")), ended(7, false, None)),
            ("DeltaSecrets gRPC config stream to x closed: 13, ".to_owned(), ended(13, false, None)),
        ] {
            for line in [istio(&message), envoy(&message), json(&message)] {
                assert_eq!(SdsMessage::of_line(&line), Some(expected.clone()), "{line}");
            }
            assert_eq!(SdsMessage::of_message(&expected.to_string()), Some(expected));
        }
    }

    #[test]
    fn of_a_line_that_quotes_a_private_key_nothing_of_it_is_kept() {
        let key = "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMGByqGSM49AgEG\\n-----END PRIVATE KEY-----";
        let quoting = [
            format!("gRPC config for {SECRET} rejected: {SECRET} does not match x in DiscoveryResponse {key}"),
            format!("gRPC config for {SECRET} rejected: Failed to load private key from {key}"),
            format!("StreamSecrets gRPC config stream to sds-grpc closed: 13, {key}"),
            format!("Received gRPC message for {SECRET} at version {key}"),
            format!("gRPC config for {SECRET} accepted with 1 resources with version 3 {key}"),
            format!("Secret is updated.{key}"),
            format!("adding {key}"),
        ];
        let mut kept = Vec::new();
        for message in quoting {
            for line in [istio(&message), envoy(&message), json(&message)] {
                kept.extend(SdsMessage::of_line(&line).map(|said| said.to_string()));
            }
        }
        // What happened is kept of those that say so first.
        assert_eq!(kept.len(), 9, "{kept:#?}");
        assert!(kept.iter().all(|line| !line.contains("MIGH") && !line.contains("BEGIN")), "{kept:#?}");
    }

    #[test]
    fn what_others_write_into_the_same_log_is_not_envoys_word() {
        let message = "Secret is updated.";
        for line in [
            format!("[2026-11-26T22:39:02.601Z] \"GET / HTTP/1.1\" 200 - \"{}\"", envoy(message)),
            format!("[2026-11-26T22:39:02.601Z] \"GET / HTTP/1.1\" 200 - \"\tx\tenvoy config b.cc:1\t{message}\""),
            istio(message).replace("envoy config", "envoy upstream"),
            envoy(message).replace("[config]", "[upstream]"),
            json(message).replace("envoy config", "access log"),
            message.to_owned(),
            istio("DeltaAggregatedResources gRPC config stream to xds-grpc closed: 14, "),
        ] {
            assert_eq!(SdsMessage::of_line(&line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic_and_what_it_keeps_is_short(line in "\\PC{0,200}", tail in "[ -~]{0,300}") {
            let _ = SdsMessage::of_line(&line);
            for message in [format!("Received gRPC message for {SECRET} at version {tail}"),
                format!("gRPC config for {SECRET} rejected: {tail}")] {
                let kept = SdsMessage::of_line(&istio(&message)).map_or(0, |said| said.to_string().len());
                prop_assert!(kept < 300);
            }
        }
    }
}
