//! What an outlet reports, and what it is told to do.

use serde::{Deserialize, Serialize};

use crate::pki::PrivateKey;

/// Type of the resources of SDS v3.
pub const SECRET_TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The RPC that a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rpc {
    /// SDS `StreamSecrets`.
    SdsStream,
    /// SDS `FetchSecrets`: one question, one answer.
    SdsFetch,
    /// Workload API `FetchX509SVID`.
    WorkloadSvid,
    /// Workload API `FetchX509Bundles`.
    WorkloadBundles,
    /// No RPC: files that are put into place, and that nobody answers.
    Files,
}

impl Rpc {
    /// The name in the timeline.
    pub fn name(self) -> &'static str {
        match self {
            Rpc::SdsStream => "sds_stream",
            Rpc::SdsFetch => "sds_fetch",
            Rpc::WorkloadSvid => "workload_svid",
            Rpc::WorkloadBundles => "workload_bundles",
            Rpc::Files => "files",
        }
    }
}

/// What happened on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It was opened.
    Opened {
        /// Its number.
        stream: u64,
        /// What it is.
        rpc: Rpc,
        /// Process that opened the connection.
        peer_pid: Option<i32>,
    },
    /// The peer named resources: first request, or another set of names.
    Subscribed {
        /// Its stream.
        stream: u64,
        /// Type asked for.
        type_url: String,
        /// Names; none means all.
        names: Vec<String>,
        /// The version held from an earlier stream.
        version_info: String,
        /// `node.id`, where given.
        node: String,
        /// Whether the peer says that it has the SPIFFE validator (Envoy 1.18 and later).
        spiffe_validator: bool,
        /// The path of its identity, where it is an Istio proxy: as the metadata of its node have it.
        istio_path: Option<String>,
    },
    /// A push was written to the stream.
    Sent {
        /// Its stream.
        stream: u64,
        /// Its nonce.
        nonce: String,
    },
    /// It was accepted.
    Acked {
        /// Its stream.
        stream: u64,
        /// The push's nonce.
        nonce: String,
        /// The version now held.
        version_info: String,
    },
    /// It was refused.
    Nacked {
        /// Its stream.
        stream: u64,
        /// The push's nonce.
        nonce: String,
        /// The version still held.
        version_info: String,
        /// The peer's words.
        error: String,
    },
    /// An answer to a nonce that was never sent on this stream; it is ignored.
    Stale {
        /// Its stream.
        stream: u64,
        /// What it names.
        nonce: String,
    },
    /// It ended.
    Closed {
        /// Its number.
        stream: u64,
        /// `provider`, `proxy` or `connection`.
        by: String,
        /// gRPC status or reason.
        status: String,
    },
}

impl Event {
    /// The stream that it happened on.
    pub fn stream(&self) -> u64 {
        match self {
            Event::Opened { stream, .. }
            | Event::Subscribed { stream, .. }
            | Event::Sent { stream, .. }
            | Event::Acked { stream, .. }
            | Event::Nacked { stream, .. }
            | Event::Stale { stream, .. }
            | Event::Closed { stream, .. } => *stream,
        }
    }
}

/// What an outlet is to do. Keys hide themselves from `Debug`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Write a response.
    Push {
        /// To which stream.
        stream: u64,
        /// What.
        push: Push,
    },
    /// End a stream.
    Close {
        /// Which.
        stream: u64,
        /// gRPC code.
        code: i32,
        /// gRPC message.
        message: String,
    },
}

/// A response.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Push {
    /// Its version.
    pub version_info: String,
    /// Its nonce.
    pub nonce: String,
    /// The type that it claims, where that is not `Secret`.
    #[serde(default)]
    pub type_url: Option<String>,
    /// What it holds.
    pub secrets: Vec<Secret>,
}

/// A secret, not yet in the form of either API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secret {
    /// The name under which it is sent.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// What a secret holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A certificate and its key.
    Certificate {
        /// Whose.
        spiffe_id: String,
        /// The chain as it is to be sent: PEM, unless it is spoiled.
        chain: String,
        /// The key.
        #[serde(with = "wire_key")]
        key: PrivateKey,
        /// An OCSP response to be stapled to it, DER.
        #[serde(default)]
        staple: Option<Vec<u8>>,
    },
    /// The authorities of a trust domain.
    Bundle {
        /// Of which.
        trust_domain: String,
        /// PEM, unless it is spoiled.
        roots: String,
        /// For Envoy's SPIFFE validator instead of as `trusted_ca`.
        spiffe_validator: bool,
    },
}

/// The one place where a key is serialised: on the pipe to an outlet in a process of its own.
mod wire_key {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::pki::PrivateKey;

    pub(super) fn serialize<S: Serializer>(key: &PrivateKey, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&zeroize::Zeroizing::new(hex::encode(key.pkcs8_der())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PrivateKey, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(from)?);
        let der = hex::decode(text.as_bytes()).map_err(|_| D::Error::custom("the key is not hexadecimal"))?;
        PrivateKey::from_pkcs8(der).map_err(D::Error::custom)
    }
}
