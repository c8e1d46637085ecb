//! The provider in a scenario file: who issues, what it imitates, and what goes wrong with it, by schedule.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::{NodeAttestation, ProviderEvent, Span, TbotSpec};
use crate::timeline::{ProviderSubject, ProxyId, SecretName};

/// The certificate provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// Which provider.
    #[serde(default)]
    pub kind: ProviderKind,
    /// What the fake imitates: versions, nonces, validators, when it mints.
    #[serde(default)]
    pub profile: Profile,
    /// Where an external provider serves SDS v3: a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "Option<String>"))]
    pub socket: Option<Utf8PathBuf>,
    /// What starts an external provider: a program and its arguments. It ends with the cell. Default: it runs already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// How a SPIRE's agent proves to the server which node it is.
    #[serde(default, skip_serializing_if = "NodeAttestation::is_default")]
    pub attestation: NodeAttestation,
    /// The tbot that is started for the cell, and the Teleport cluster that it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tbot: Option<TbotSpec>,
    /// Lifetime of a leaf, such as `2m`, `1h`, `20s`. Default: 2m; of an external provider, that of its first one.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "Span"))]
    pub ttl: Option<Span>,
    /// Interval of the renewals. Default: half the TTL; of an external provider, unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_every: Option<Span>,
    /// Key type of the leaves.
    #[serde(default)]
    pub key_type: KeyType,
    /// Key type of the leaves from the second renewal on. Default: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_key_type: Option<KeyType>,
    /// Serial numbers of the leaves.
    #[serde(default, skip_serializing_if = "Serials::are_random")]
    pub serials: Serials,
    /// Leaves are signed by an intermediate with this lifetime, one for the whole run, and shown with its certificate.
    /// Default: by the authority itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_ttl: Option<Span>,
    /// Lifetime of the authority that signs first, counted from the beginning; those that come after it outlive the run.
    /// Default: it outlives the run too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_ttl: Option<Span>,
    /// What goes wrong, and when. Renewal 0 is the first issue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultSpec>,
    /// When authorities change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityStep>,
    /// What is done to a SPIRE that was started for the cell, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<ProviderEvent>,
    /// Interval at which the trust bundle changes and is pushed, between the renewals: others' authorities that come
    /// and go. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_every: Option<Span>,
}

/// A key without a value is a mistake, no absence.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Which provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// The harness's own: SPIFFE Workload API and SDS on one Unix socket.
    #[default]
    Fake,
    /// The harness's own: certificate, key and trust bundle in files that the proxies watch.
    Files,
    /// One that is not ours, behind a tap: whatever serves SDS v3 on a Unix socket.
    External,
    /// Istio's own CA: Istio's agents get certificates from istiod, and serve them to their proxies.
    IstioCa,
    /// A SPIRE server and a SPIRE agent, started for the cell, behind a tap.
    Spire,
    /// Teleport's tbot, started for the cell, behind a tap; its Teleport cluster is the user's.
    Tbot,
}

/// What the fake imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Plain SDS: decimal versions, trusted_ca, one certificate for all streams of an identity.
    #[default]
    Generic,
    /// Teleport's tbot: RFC 3339 versions, 8-hex nonces, SPIFFE validator, a certificate minted per stream.
    Tbot,
    /// SPIRE's agent: decimal versions per stream, the bundle re-pushed with each certificate.
    Spire,
    /// Istio's agent: RFC 3339 "/" counter versions, trusted_ca.
    Istio,
}

/// Key type of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// RSA, 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

/// What the serial numbers of leaves are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Serials {
    /// At random, as they should be.
    #[default]
    Random,
    /// At random, and written with a zero in front: by turns for a small first digit and for the sign (X.690, 8.3).
    LeadingZeros,
    /// One and the same for all leaves.
    Shared,
}

impl Serials {
    fn are_random(&self) -> bool {
        *self == Serials::Random
    }
}

/// One thing that goes wrong, by schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// What goes wrong.
    pub fault: Fault,
    /// First renewal that it spoils.
    #[serde(default = "one")]
    pub from_renewal: u32,
    /// First renewal that it spares again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_renewal: Option<u32>,
    /// It spoils `from_renewal` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Only this proxy. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyId>,
    /// Only this secret. Default: the one that the fault is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
}

fn one() -> u32 {
    1
}

impl FaultSpec {
    /// Whether it spoils this renewal for this proxy.
    pub fn spoils(&self, renewal: u32, proxy: Option<&ProxyId>) -> bool {
        renewal >= self.from_renewal
            && self.ends().is_none_or(|until| renewal < until)
            && (self.proxy.is_none() || self.proxy.as_ref() == proxy)
    }
}

impl FaultSpec {
    /// First renewal that it spares again.
    pub fn ends(&self) -> Option<u32> {
        if self.once { Some(self.from_renewal.saturating_add(1)) } else { self.until_renewal }
    }
}

/// What a scenario can provoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Neither mints nor pushes.
    NoRenewal,
    /// Mints, pushes nothing.
    NoPush,
    /// Mints nothing; pushes the certificate that it has under a new version.
    ResendCached,
    /// Mints; pushes the certificate from before under a new version.
    ResendStale,
    /// Mints a certificate that has already expired, and pushes it.
    ExpiredCertificate,
    /// Pushes the new chain with another key.
    WrongKey,
    /// Pushes a chain that is no PEM.
    BadPem,
    /// Pushes the leaf and its authority in one PEM block.
    ChainInOneBlock,
    /// Pushes the authority first and the leaf behind it.
    LeafLast,
    /// Pushes a certificate for somebody else's SPIFFE ID.
    WrongIdentity,
    /// Pushes a certificate with two SPIFFE IDs: its own, and somebody else's behind it.
    SecondIdentity,
    /// Pushes a certificate that becomes valid in ten minutes.
    NotYetValid,
    /// Pushes the new certificate under another name than the one subscribed to.
    WrongName,
    /// Pushes a response without any secret in it.
    EmptyResponse,
    /// Pushes a trust bundle under the certificate's name.
    WrongKind,
    /// Pushes the new certificate in a response of another type.
    WrongTypeUrl,
    /// Ends the streams instead of pushing; what was minted is sent when they come again.
    CloseStream,
    /// Ends the streams, and every further one as soon as it subscribes.
    RefuseStreams,
    /// Mints nothing when a renewal is due, and sends the certificate that it has again with each new bundle.
    StarvedRenewal,
    /// Stops listening, removes the socket and ends all streams.
    SocketGone,
    /// Stops listening and ends all streams, then listens at the same path again.
    SocketReplaced,
    /// Removes the socket's path; who is connected is served as before.
    SocketUnlinked,
    /// Freezes the process that serves the socket. It runs apart from the harness for that.
    Freeze,
    /// Mints a certificate and staples no OCSP response to it, where one must be.
    NoStaple,
    /// The files' secrets name no watched directory, from the beginning: what is put into place later is not seen.
    NotWatched,
    /// Writes the new files over the old ones; nothing is moved.
    RewriteInPlace,
    /// Writes half of the chain over the old one, moves something, and then writes the rest.
    HalfWritten,
    /// Puts the new key into place; its chain follows with the next renewal only.
    KeyBeforeChain,
    /// Takes the chain away instead of putting a new one into place.
    FileMissing,
}

/// Where a fault sits. Faults of different places go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPlace {
    /// In what is minted and pushed.
    Content,
    /// In the streams.
    Streams,
    /// In the socket, or in the process that serves it.
    Socket,
    /// In how files are put into place.
    Files,
}

impl Fault {
    /// Where it sits.
    pub fn place(self) -> FaultPlace {
        match self {
            Fault::CloseStream | Fault::RefuseStreams => FaultPlace::Streams,
            Fault::SocketGone | Fault::SocketReplaced | Fault::SocketUnlinked | Fault::Freeze => FaultPlace::Socket,
            Fault::NotWatched
            | Fault::RewriteInPlace
            | Fault::HalfWritten
            | Fault::KeyBeforeChain
            | Fault::FileMissing => FaultPlace::Files,
            _ => FaultPlace::Content,
        }
    }
}

/// A change of the signing authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuthorityStep {
    /// The renewal before which it happens.
    pub at_renewal: u32,
    /// What happens.
    pub action: AuthorityAction,
}

/// What happens to the signing authorities, in SPIRE's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityAction {
    /// A new authority joins the bundle; the old one goes on signing.
    Prepare,
    /// The prepared authority signs from now on; both stay in the bundle.
    Activate,
    /// The authority that no longer signs leaves the bundle.
    Revoke,
}

impl ProviderKind {
    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            ProviderKind::Fake => "fake",
            ProviderKind::Files => "files",
            ProviderKind::External => "external",
            ProviderKind::IstioCa => "istio-ca",
            ProviderKind::Spire => "spire",
            ProviderKind::Tbot => "tbot",
        }
    }

    /// Whether SPIRE's programs are needed.
    pub fn has_spire(self) -> bool {
        self == ProviderKind::Spire
    }

    /// Whether it is Teleport's tbot.
    pub fn has_tbot(self) -> bool {
        self == ProviderKind::Tbot
    }

    /// Whether Istio's agents serve the proxies what it issues.
    pub fn is_of_istio(self) -> bool {
        self == ProviderKind::IstioCa
    }

    /// Whether nobody but the provider knows when it renews: SPIRE's agent does at half of the lifetime, more or less.
    pub fn has_own_timer(self) -> bool {
        matches!(self, ProviderKind::External | ProviderKind::Spire)
    }

    /// Whether its identities are of a trust domain that is the user's to choose.
    pub fn has_own_trust_domain(self) -> bool {
        matches!(self, ProviderKind::External | ProviderKind::Tbot)
    }
}

impl Profile {
    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Generic => "generic",
            Profile::Tbot => "tbot",
            Profile::Spire => "spire",
            Profile::Istio => "istio",
        }
    }
}

impl ProviderSpec {
    /// What a report says of it. The harness's own ones have its version; Istio's CA and SPIRE that of their programs;
    /// nothing tells an external one's.
    pub fn subject(&self, istio: Option<&str>, spire: Option<&str>) -> ProviderSubject {
        let version = match self.kind {
            ProviderKind::Fake | ProviderKind::Files => Some(env!("CARGO_PKG_VERSION")),
            ProviderKind::IstioCa => istio,
            ProviderKind::Spire => spire,
            // It is asked when it is started.
            ProviderKind::External | ProviderKind::Tbot => None,
        };
        ProviderSubject {
            kind: self.kind.name().to_owned(),
            profile: (self.kind == ProviderKind::Fake).then(|| self.profile.name().to_owned()),
            version: version.unwrap_or("unknown").to_owned(),
        }
    }

    /// Lifetime of a leaf, as far as it is known.
    pub fn ttl(&self) -> Span {
        self.ttl.unwrap_or(Span::seconds(120))
    }

    /// Interval of the renewals. The default is half the TTL, in whole seconds as all certificate times are.
    pub fn interval(&self) -> Span {
        self.renew_every.unwrap_or(Span::seconds(self.ttl().as_secs() / 2))
    }
}
