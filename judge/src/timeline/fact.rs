//! What can be seen: the kinds of observation and their data, as documented in `docs/reference/timeline.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Layer, ProxyId, SecretName, Serial, TlsRole};

/// The facts of one certificate, taken from its DER. Never holds a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CertFacts {
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// Serial number.
    pub serial: Serial,
    /// Every URI subject alternative name, in order. A SPIFFE leaf has exactly one.
    #[serde(default)]
    pub uris: Vec<String>,
    /// notBefore.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub not_before: jiff::Timestamp,
    /// notAfter.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub not_after: jiff::Timestamp,
    /// Subject distinguished name, RFC 4514.
    #[serde(default)]
    pub subject: String,
    /// Issuer distinguished name, RFC 4514.
    #[serde(default)]
    pub issuer: String,
    /// Subject key identifier, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_key_id: Option<String>,
    /// Authority key identifier, lower-case hex: which authority signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_key_id: Option<String>,
    /// Key type, such as `ecdsa-p256` or `rsa-2048`.
    #[serde(default)]
    pub key_type: String,
    /// Whether basicConstraints says that it is an authority.
    #[serde(default)]
    pub is_ca: bool,
}

/// What a secret in an SDS response holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// `tls_certificate`: the chain, leaf first. Empty where it could not be parsed (see `problem`).
    Certificate {
        /// Leaf first.
        chain: Vec<CertFacts>,
        /// SHA-256 of the chain's bytes as sent: tells "the same bytes" even when they parse to nothing.
        digest: Fingerprint,
        /// Whether the private key is the leaf's; absent where it was not looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_matches: Option<bool>,
        /// Why the chain could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// `validation_context`, by trusted_ca or by the SPIFFE validator.
    Bundle {
        /// The authorities.
        roots: Vec<CertFacts>,
        /// SHA-256 over the authorities' sorted fingerprints: the bundle's generation.
        digest: Fingerprint,
        /// Why it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// Neither of both.
    Other {
        /// What it was.
        what: String,
    },
}

impl Payload {
    /// The authorities, where it is a bundle.
    pub fn roots(&self) -> &[CertFacts] {
        match self {
            Payload::Bundle { roots, .. } => roots,
            _ => &[],
        }
    }

    /// The leaf, where it is a certificate.
    pub fn leaf(&self) -> Option<&CertFacts> {
        match self {
            Payload::Certificate { chain, .. } => chain.first(),
            _ => None,
        }
    }
}

impl Signed {
    /// Whether it can be this certificate that the log is about.
    pub fn is(&self, cert: &CertFacts) -> bool {
        let expiry = self.not_after.is_none_or(|t| t.as_second() == cert.not_after.as_second());
        self.serial == cert.serial && cert.uris.contains(&self.spiffe_id) && expiry
    }
}

/// One secret in an SDS response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SentSecret {
    /// The name under which it was sent.
    pub name: String,
    /// What it holds.
    pub payload: Payload,
}

/// Identical certificates in `/certs`, counted. One live TLS context has one entry there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoadedCert {
    /// Serial number, as printed (normalised).
    pub serial: Serial,
    /// URI subject alternative names.
    #[serde(default)]
    pub uris: Vec<String>,
    /// `valid_from`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub not_before: jiff::Timestamp,
    /// `expiration_time`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub not_after: jiff::Timestamp,
    /// How many contexts hold it.
    pub contexts: u32,
}

/// A secret in `/config_dump`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DumpedSecret {
    /// Its name; names can repeat.
    pub name: SecretName,
    /// `active` or `warming`.
    pub state: String,
    /// What the dump claims; never a basis for a verdict.
    pub version_info: String,
    /// What the dump claims; never a basis for a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub last_updated: Option<jiff::Timestamp>,
    /// The chain inside, leaf first.
    #[serde(default)]
    pub chain: Vec<CertFacts>,
    /// The authorities inside.
    #[serde(default)]
    pub roots: Vec<CertFacts>,
}

/// A TLS context in `/config_dump` whose certificate is part of the proxy's configuration: no SDS update reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaticContext {
    /// Whose it is, such as `listener inbound` or `cluster outbound`.
    pub place: String,
    /// Where the certificate is from: `inline`, `file PATH`, `static secret NAME`.
    pub from: String,
    /// The chain, leaf first; empty where the dump does not show it (of files).
    #[serde(default)]
    pub chain: Vec<CertFacts>,
}

/// Where TLS contexts in `/config_dump` say that they get a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecretSource {
    /// Under which name.
    pub name: String,
    /// In which way.
    pub by: SourceKind,
    /// From whom: `cluster sds-grpc (unix:/run/sds/socket)`, a path, `ADS`.
    pub from: String,
    /// How many listeners and clusters say so.
    pub places: u32,
}

impl SecretSource {
    /// The Unix socket that it comes from, as the proxy's configuration has it, where it says one.
    pub fn socket(&self) -> Option<&str> {
        let (_, at) = self.from.split_once("(unix:")?;
        at.strip_suffix(')').filter(|path| !path.is_empty())
    }
}

/// In which way a secret comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// On a gRPC stream: SDS, or ADS.
    Stream,
    /// From a file that Envoy watches.
    File,
    /// In another one.
    Other,
}

/// What was seen. `kind` in the timeline is the variant's name in snake case.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant's data is documented below it")]
pub enum Fact {
    // harness
    Phase(Phase),
    Step(Step),
    FaultNote(FaultNote),
    Stall(Stall),
    DeadlineMissed(DeadlineMissed),
    Blind(Blind),
    // clock
    Jump(Jump),
    Receipt(Receipt),
    // provider, tap, witness
    Authority(Authority),
    Issued(Issued),
    Signed(Signed),
    StreamOpened(StreamOpened),
    Subscribed(Subscribed),
    Sent(Sent),
    Acked(Acked),
    Nacked(Nacked),
    StreamClosed(StreamClosed),
    Written(Written),
    ListenerSent(ListenerSent),
    ListenerAnswered(ListenerAnswered),
    // admin
    Certs(Certs),
    ConfigDump(ConfigDump),
    Stats(Stats),
    ServerInfo(ServerInfo),
    Listeners(Listeners),
    // inbound, outbound
    Handshake(Handshake),
    // traffic
    Request(Request),
    // census
    Peers(Peers),
    Watch(Watch),
    SocketInode(SocketInode),
    // process
    Joined(Joined),
    Spawned(Spawned),
    Exited(Exited),
    Log(Log),
    /// A kind that this version does not know: kept, and ignored.
    Unknown {
        kind: String,
        data: serde_json::Value,
    },
}

/// A fact without its kind.
pub(super) struct Data<'a>(pub(super) &'a Fact);

impl Fact {
    pub(super) fn unknown(kind: &str, data: &str) -> serde_json::Result<Fact> {
        Ok(Fact::Unknown { kind: kind.to_owned(), data: serde_json::from_str(data)? })
    }

    /// Without private keys in its texts; `None`: there is none.
    ///
    /// # Errors
    ///
    /// One is where it can't be taken out.
    pub fn without_private_keys(&self) -> serde_json::Result<Option<Fact>> {
        // Most of what is recorded has nobody's words: what was parsed out of certificates, numbers, and the admin API's
        // answers, which are searched before they are parsed. To search all of that would take longer than the samples.
        // Every kind is named, so that a new one is not left out unseen.
        let has_words = match self {
            Fact::Handshake(handshake) => handshake.error.is_some(),
            Fact::Request(request) => request.error.is_some(),
            Fact::Certs(_) | Fact::ConfigDump(_) | Fact::Stats(_) | Fact::ServerInfo(_) | Fact::Listeners(_) => false,
            Fact::Stall(_) | Fact::Jump(_) | Fact::Receipt(_) | Fact::Peers(_) | Fact::Watch(_) => false,
            Fact::Phase(_) | Fact::Issued(_) | Fact::Authority(_) | Fact::SocketInode(_) => false,
            Fact::Step(_) | Fact::FaultNote(_) | Fact::DeadlineMissed(_) | Fact::Blind(_) | Fact::Signed(_) => true,
            Fact::StreamOpened(_) | Fact::Subscribed(_) | Fact::Sent(_) | Fact::Acked(_) | Fact::Nacked(_) => true,
            Fact::StreamClosed(_) | Fact::Written(_) | Fact::ListenerSent(_) | Fact::ListenerAnswered(_) => true,
            Fact::Joined(_) | Fact::Spawned(_) | Fact::Exited(_) | Fact::Log(_) | Fact::Unknown { .. } => true,
        };
        if !has_words {
            return Ok(None);
        }
        let data = self.data_json()?;
        if !super::holds_private_key(data.as_bytes()) {
            return Ok(None);
        }
        let mut data = serde_json::from_str(&data)?;
        take_keys_out(&mut data);
        let data = data.to_string();
        if super::holds_private_key(data.as_bytes()) {
            return Err(serde::de::Error::custom("a private key is in more than one text"));
        }
        Fact::from_parts(self.kind(), &data).map(Some)
    }
}

fn take_keys_out(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = super::without_private_keys(text).into_owned(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(take_keys_out),
        serde_json::Value::Object(members) => members.values_mut().for_each(take_keys_out),
        _ => {}
    }
}

macro_rules! facts {
    ($($variant:ident = $kind:literal),* $(,)?) => {
        impl Fact {
            /// The kind's name in the timeline.
            pub fn kind(&self) -> &str {
                match self {
                    $(Fact::$variant(_) => $kind,)*
                    Fact::Unknown { kind, .. } => kind,
                }
            }
            /// What the timeline has under `data`.
            pub fn data_json(&self) -> serde_json::Result<String> {
                serde_json::to_string(&Data(self))
            }
            pub(super) fn from_parts(kind: &str, data: &str) -> serde_json::Result<Fact> {
                match kind {
                    $($kind => serde_json::from_str(data).map(Fact::$variant),)*
                    _ => Fact::unknown(kind, data),
                }
            }
        }
        impl Serialize for Data<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    $(Fact::$variant(data) => data.serialize(serializer),)*
                    Fact::Unknown { data, .. } => data.serialize(serializer),
                }
            }
        }
        $(impl From<$variant> for Fact {
            fn from(data: $variant) -> Fact { Fact::$variant(data) }
        })*
        /// The schema of each kind's data.
        #[cfg(feature = "schema")]
        pub(super) fn data_schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
            vec![$(($kind, generator.subschema_for::<$variant>())),*]
        }
        /// Every kind that this version knows.
        pub const KINDS: &[&str] = &[$($kind),*];
    };
}

facts! {
    Phase = "phase", Step = "step", FaultNote = "fault", Stall = "stall", DeadlineMissed = "deadline_missed", Blind = "blind",
    Jump = "jump", Receipt = "receipt",
    Authority = "authority", Issued = "issued", Signed = "signed", StreamOpened = "stream_opened", Subscribed = "subscribed", Sent = "sent",
    Acked = "acked", Nacked = "nacked", StreamClosed = "stream_closed",
    Written = "written", ListenerSent = "listener_sent", ListenerAnswered = "listener_answered",
    Certs = "certs", ConfigDump = "config_dump", Stats = "stats", ServerInfo = "server_info", Listeners = "listeners",
    Handshake = "handshake", Request = "request", Peers = "peers", Watch = "watch",
    SocketInode = "socket_inode", Joined = "joined", Spawned = "spawned", Exited = "exited", Log = "log",
}

macro_rules! data {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
            pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        )*
    };
}

data! {
    /// The cell entered a phase of its life.
    Phase {
        /// `prepare`, `bring_up`, `observe`, `past_expiry`, `collect`, `tear_down`.
        name: String,
    }
    /// The schedule took a step; the samples after it belong to it.
    Step {
        /// From 0 (the first generation).
        index: u32,
        /// The renewal that is due in this step, if one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renewal: Option<u32>,
        /// In words.
        what: String,
    }
    /// The scenario provoked something. For readers only: no check may look at it.
    FaultNote {
        /// The fault's name in the scenario.
        fault: String,
        /// What was done.
        action: String,
    }
    /// The harness itself did not run for a while; what it missed proves nothing.
    Stall {
        /// How long, beyond what was asked for.
        gap_ms: u64,
    }
    /// Something awaited did not come in time.
    DeadlineMissed {
        /// What was awaited.
        what: String,
        /// For how long.
        waited_ms: u64,
    }
    /// Something could not be asked.
    Blind {
        /// The layer that stays unseen by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<Layer>,
        /// What was asked.
        what: String,
        /// Why there is no answer.
        why: String,
    }
    /// Cell time was moved.
    Jump {
        /// Offset before, in seconds.
        from_s: i64,
        /// Offset after, in seconds.
        to_s: i64,
    }
    /// Whether a proxy's own clock followed.
    Receipt {
        /// The offset that it should have.
        expected_offset_s: i64,
        /// How far its clock moved since its own start, less the real time that passed: its measured offset.
        measured_offset_s: i64,
        /// Both agree within the resolution of a second.
        followed: bool,
    }
    /// An authority that signs leaves, or is prepared to.
    Authority {
        /// Its certificate.
        cert: CertFacts,
        /// `prepared`, `active`, `retired`.
        state: String,
    }
    /// A leaf was minted.
    Issued {
        /// It.
        cert: CertFacts,
        /// The renewal that asked for it (0: the first).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renewal: Option<u32>,
        /// The stream it was minted for, where the provider mints per stream: of no other stream is it due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<u64>,
    }
    /// A provider's own log says that it signed a leaf: which one, and not the certificate itself.
    Signed {
        /// Its serial number.
        serial: Serial,
        /// The SPIFFE ID in it.
        spiffe_id: String,
        /// Its notAfter, where the log says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
        not_after: Option<jiff::Timestamp>,
    }
    /// A stream (one RPC) was opened to the provider.
    StreamOpened {
        /// Number, unique within the cell.
        stream: u64,
        /// `sds_stream`, `sds_fetch`, `workload_svid`, `workload_bundles`.
        rpc: String,
        /// Process that opened the connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer_pid: Option<i32>,
    }
    /// A request that names resources and answers nothing: first of its stream, or a changed subscription.
    Subscribed {
        /// Its stream.
        stream: u64,
        /// Resource type asked for.
        type_url: String,
        /// Resource names.
        names: Vec<String>,
        /// The last version that the proxy had accepted; empty on its first stream.
        version_info: String,
        /// `node.id` of the request, where given.
        #[serde(default)]
        node: String,
    }
    /// A response was written to a stream.
    Sent {
        /// Its stream.
        stream: u64,
        /// Type of the response.
        type_url: String,
        /// Version.
        version_info: String,
        /// Nonce.
        nonce: String,
        /// What it holds.
        secrets: Vec<SentSecret>,
    }
    /// The response was accepted.
    Acked {
        /// Its stream.
        stream: u64,
        /// The nonce answered.
        nonce: String,
        /// The version now held.
        version_info: String,
    }
    /// The response was refused.
    Nacked {
        /// Its stream.
        stream: u64,
        /// The nonce answered.
        nonce: String,
        /// The version still held.
        version_info: String,
        /// `error_detail.message`, without private keys and of at most a few KiB.
        error: String,
    }
    /// A stream ended.
    StreamClosed {
        /// Its number.
        stream: u64,
        /// `provider`, `proxy` or `connection`.
        by: String,
        /// gRPC status or reason.
        status: String,
    }
    /// A secret's files were put into place: what a reader finds there from now on.
    Written {
        /// The directory that the proxy is to watch.
        directory: String,
        /// `moved`: by rename, which a watcher of the directory sees. `in_place`: written over, which none sees.
        how: String,
        /// The secret, by the name that the proxy knows it by; `other` where a file is missing.
        secret: SentSecret,
    }
    /// A listener was sent to a proxy by LDS.
    ListenerSent {
        /// Its name.
        name: String,
        /// Where it is to listen.
        address: String,
    }
    /// What the proxy said to a listener.
    ListenerAnswered {
        /// Its name.
        name: String,
        /// Why it was refused, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// `/certs`: the leaves of all live TLS contexts.
    Certs {
        /// Leaves, identical ones counted.
        leaves: Vec<LoadedCert>,
        /// First authority of each context's bundle, identical ones counted; the others do not show here.
        #[serde(default)]
        authorities: Vec<LoadedCert>,
        /// TLS contexts listed, with or without a leaf.
        contexts: u32,
    }
    /// `/config_dump`: the secrets that it shows. An observation, never proof.
    ConfigDump {
        /// All of them.
        secrets: Vec<DumpedSecret>,
        /// TLS contexts with a certificate that comes by no SDS subscription; where they were looked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        static_contexts: Vec<StaticContext>,
        /// Where the other contexts get theirs; where that was looked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subscriptions: Vec<SecretSource>,
    }
    /// `/stats`: those that concern secrets and TLS. What no sample of a process shows is hidden, not zero; TLS counters
    /// of a context that stood at zero in its first sample are told again when they have moved.
    Stats {
        /// Name to value.
        values: BTreeMap<String, u64>,
    }
    /// `/server_info`.
    ServerInfo {
        /// Version as the binary reports it.
        version: String,
        /// `LIVE`, `PRE_INITIALIZING`, ...
        state: String,
        /// `uptime_current_epoch`, seconds: follows a moved wall clock.
        uptime_s: i64,
    }
    /// `/listeners`.
    Listeners {
        /// Names and local addresses.
        listeners: Vec<(String, String)>,
    }
    /// A TLS handshake. Source `inbound`: the proxy showed its server certificate; `outbound`: its client certificate.
    Handshake {
        /// `TLSv1_2` or `TLSv1_3`.
        tls: String,
        /// A resumed session shows no certificate and proves nothing.
        resumed: bool,
        /// What the proxy showed, leaf first; empty if the handshake ended before.
        chain: Vec<CertFacts>,
        /// Whether the chain verified against the bundle issued last, at cell time; absent where not judged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verified: Option<bool>,
        /// Why it did not verify, or why there is no chain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// A request through a pair of proxies. `proxy` is the one that sends.
    Request {
        /// The proxy that receives.
        to: String,
        /// On a connection opened for it (else on one kept since the beginning).
        fresh: bool,
        /// HTTP status, if one came.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Whether the upstream TLS session was resumed; absent where it can't be told, then success proves nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed: Option<bool>,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// Processes connected to the provider's socket.
    Peers {
        /// The socket's path.
        socket: String,
        /// Their process ids, one per connection, where they may be seen.
        pids: Vec<i32>,
        /// The inodes of the connections' near ends, where they were looked for: one that stays is the same connection.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sockets: Vec<u64>,
    }
    /// Whether the proxy watches the directory into which the files of its certificate are moved (inotify).
    Watch {
        /// The directory.
        directory: String,
        /// Whether it is watched.
        watched: bool,
    }
    /// The provider's socket as the proxy's mounts show it, and as the harness sees it.
    SocketInode {
        /// Its path for the proxy.
        socket: String,
        /// Device and inode there; absent where there is nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inside: Option<String>,
        /// Device and inode at the provider's own path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outside: Option<String>,
    }
    /// A proxy that was not there at the beginning. What it is to do it has to do from its own first generation on.
    Joined {
        /// Which one it follows, where it is the same pod's, started again, or that of another pod of the same name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<ProxyId>,
        /// The roles in which it can be seen.
        roles: Vec<TlsRole>,
    }
    /// A process of the cell was started.
    Spawned {
        /// Its id.
        pid: i32,
        /// What it is.
        what: String,
    }
    /// A process of the cell ended.
    Exited {
        /// Exit code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// Signal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Whether the harness asked for it.
        expected: bool,
        /// Its last log lines.
        #[serde(default)]
        log_tail: Vec<String>,
    }
    /// A log line worth keeping.
    Log {
        /// The line.
        line: String,
    }
}

/// What Envoy says when it cannot take files that it watches; the reason follows.
pub const RELOAD_FAILED: &str = "Failed to reload certificates: ";

/// What Istio's agent says when it found somebody else's workload socket and leaves certificates to them.
pub const AGENT_FOUND_SOCKET: &str = "Existing workload SDS socket found";
/// What it says when it serves SDS to its Envoy on the workload socket itself: the certificates are then its own.
pub const AGENT_SERVES: &str = "Starting SDS server for workload certificates";
/// What it says when its server, which then serves files only, has no socket of its own.
pub const AGENT_NO_SOCKET: &str = "failed to set up UDS";
/// Words that mark the lines of its log that tell whose certificates its Envoy gets.
pub const AGENT_SAYS: &[&str] =
    &[AGENT_FOUND_SOCKET, AGENT_SERVES, AGENT_NO_SOCKET, "Workload is using file mounted certificates"];

/// Beginning of a [`Log`] of the harness: from here on Envoy's logger `config` is at debug, and its log is followed.
pub const CONFIG_AT_DEBUG: &str = "logger config at debug";
/// Beginning of a [`Log`] of the harness: that was put back, and nobody listens any more.
pub const CONFIG_PUT_BACK: &str = "logger config put back";
/// What a [`Blind`] is about where a log could not be followed further.
pub const CONFIG_UNHEARD: &str = "what the logger config says";

/// What a [`Blind`] of the harness's own subscriptions is about where nobody could be connected to.
pub const UNREACHED: &str = "a fresh connection";

/// Beginning of a [`Log`] about a response on a stream that is none of SDS.
pub const UNREADABLE: &str = "a response that is no DiscoveryResponse";

/// What such a [`Blind`] is about where the kernel did not tell who is connected to the socket.
pub const UNCOUNTED: &str = "who is connected to the provider's socket";

/// `node.id` of the harness's own subscriptions: a provider's journal shows their streams as well. Where a provider tells
/// subscribers apart by it, `~ADDRESS~NAME.NAMESPACE~DOMAIN` follows, as in that of an Istio sidecar.
pub const WITNESS_NODE: &str = "rotacheck-witness";

/// Whether this `node.id` is one of the harness's own.
pub fn is_witness(node: &str) -> bool {
    node.strip_prefix(WITNESS_NODE).is_some_and(|rest| rest.is_empty() || rest.starts_with('~'))
}

/// The name in `sidecar~ADDRESS~NAME.NAMESPACE~DOMAIN`, as Istio's agent names its Envoy's node.
pub fn istio_workload(node: &str) -> Option<&str> {
    let parts: Vec<&str> = node.split('~').collect();
    let [_, _, workload, _] = parts[..] else { return None };
    workload.rsplit_once('.').map(|(name, _)| name)
}
