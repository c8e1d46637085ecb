//! Why a relay did not do it.

use camino::Utf8PathBuf;

use crate::pki::PkiError;
use crate::xds::SocketError;

/// Why a relay, or what is asked of it, did not come about.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// The way to it, or the relay itself.
    #[error("reach the relay of {relay}: {why}")]
    Unreachable {
        /// Whose relay.
        relay: String,
        /// In words.
        why: String,
    },
    /// It is there, and could not.
    #[error("{asked} through the relay of {relay}: {why}")]
    Refused {
        /// Whose relay.
        relay: String,
        /// In words: "dial tcp:...".
        asked: String,
        /// In words.
        why: String,
    },
    /// What is no place.
    #[error("use {text:?} as a place to dial or to listen at: it takes tcp:HOST:PORT or unix:/PATH")]
    Target {
        /// What was asked for.
        text: String,
    },
    /// A place on our side.
    #[error("listen at {place}: {why}")]
    Listen {
        /// Where.
        place: String,
        /// In words.
        why: String,
    },
    /// Its certificate or key.
    #[error("use the credentials in {path}: {why}")]
    Credentials {
        /// The file.
        path: Utf8PathBuf,
        /// In words; never what the file holds.
        why: String,
    },
    /// Credentials could not be made.
    #[error("make the credentials of a relay: {why}")]
    Make {
        /// In words.
        why: String,
    },
}

impl RemoteError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "`kubectl logs` of the pod's relay says whether it started, and what it refused"
            }
            Self::Refused { .. } => {
                "the relay sees what its pod sees: names, addresses and mounts are those of the pod"
            }
            Self::Target { .. } => "write tcp:127.0.0.1:15000 or unix:/run/rotacheck/sds.sock",
            Self::Listen { .. } => "choose another place, or end who has it",
            Self::Credentials { .. } => "the directory holds ca.pem, cert.pem and key.pem, as the harness made them",
            Self::Make { .. } => "this is a bug of rotacheck's, or of its cryptography",
        }
    }
}

impl From<PkiError> for RemoteError {
    fn from(e: PkiError) -> Self {
        Self::Make { why: e.to_string() }
    }
}

impl From<SocketError> for RemoteError {
    fn from(e: SocketError) -> Self {
        let place = match &e {
            SocketError::TooLong { path, .. }
            | SocketError::Alive { path }
            | SocketError::NotASocket { path }
            | SocketError::Io { path, .. } => path.to_string(),
        };
        Self::Listen { place, why: e.to_string() }
    }
}
