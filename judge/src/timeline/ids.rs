//! Names that are valid by construction.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

/// Why a text is not the identifier that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {why}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    why: &'static str,
}

/// Parses the text where it stands: a long recording has millions of them.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidId>> Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(into = "String")]
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        pub struct $name(String);

        impl $name {
            /// Parses the text; see the type for the form.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> Result<String, &'static str> = $check;
                check(text).map(Self).map_err(|why| InvalidId {
                    what: $what,
                    text: text.chars().take(300).collect(),
                    why,
                })
            }

            /// The text, in its canonical form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

/// SHA-256 of a certificate's DER, 64 lower-case hex digits: the identity of a generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "String")]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub struct Fingerprint([u8; 32]);

text_id!(
    /// A certificate's serial number: lower-case hex without leading zeros ("0" for zero). What people read; no identity.
    Serial, "serial number", |text| {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("it must be hexadecimal");
        }
        let digits = text.trim_start_matches('0').to_ascii_lowercase();
        Ok(if digits.is_empty() { "0".to_owned() } else { digits })
    }
);
text_id!(
    /// A SPIFFE ID with a path, `spiffe://trust-domain/path` (SPIFFE-ID standard, section 2).
    SpiffeId, "SPIFFE ID", |text| {
        let rest = text.strip_prefix("spiffe://").ok_or("it must begin with spiffe://")?;
        if text.len() > 2048 {
            return Err("it must have at most 2048 bytes");
        }
        let (domain, path) = rest.split_once('/').ok_or("it needs a path")?;
        if domain.is_empty() || !domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b)) {
            return Err("its trust domain may hold only a-z, 0-9, '-', '.' and '_'");
        }
        let segment_ok = |s: &str| {
            !matches!(s, "" | "." | "..") && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        if path.split('/').all(segment_ok) { Ok(text.to_owned()) } else { Err("a path segment is empty, relative, or holds other signs than letters, digits, '-', '.' and '_'") }
    }
);
text_id!(
    /// The name of an SDS secret, as it is subscribed to: `default`, `ROOTCA`, a SPIFFE ID.
    SecretName, "secret name", |text| {
        if text.is_empty() || text.len() > 2048 || text.chars().any(char::is_control) {
            Err("it must have 1 to 2048 bytes without control characters")
        } else { Ok(text.to_owned()) }
    }
);
text_id!(
    /// The name of a proxy within its cell.
    ProxyId, "proxy name", |text| slug(text, 253)
);
text_id!(
    /// The name of a scenario: lower-case letters, digits and hyphens.
    ScenarioName, "scenario name", |text| slug(text, 80)
);
text_id!(
    /// The name of a cell: `scenario@subject`, also the name of its directory.
    CellId, "cell name", |text| {
        let (scenario, subject) = text.split_once('@').ok_or("it must have the form scenario@subject")?;
        slug(scenario, 80)?;
        if subject.is_empty() || subject.len() > 160 || subject.starts_with('.')
            || !subject.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b)) {
            return Err("its subject may hold only letters, digits, '-', '.', '_' and '+'");
        }
        Ok(text.to_owned())
    }
);
text_id!(
    /// The version that a binary reported, such as `1.38.3`.
    EnvoyVersion, "Envoy version", |text| {
        semver::Version::parse(text).map(|v| v.to_string()).map_err(|_| "it must have the form 1.38.3")
    }
);
text_id!(
    /// A version of Istio or SPIRE: a name of the lock file, such as `1.13.3` or `1.31-dev.20260827`, or that of a Go
    /// module, such as `v1.13.3`. Lower-case letters, digits, hyphens and dots.
    ProgramVersion, "version", |text| slug(text, 80)
);

fn slug(text: &str, longest: usize) -> Result<String, &'static str> {
    if text.is_empty() || text.len() > longest {
        return Err("its length is out of bounds");
    }
    let inner_ok = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    if !inner_ok || text.starts_with(['-', '.']) || text.ends_with(['-', '.']) || text.contains("..") {
        return Err("it may hold only a-z, 0-9, '-' and '.', and must begin and end with a letter or digit");
    }
    Ok(text.to_owned())
}

impl Fingerprint {
    /// Parses 64 hex digits.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => Err(InvalidId {
                what: "SHA-256 fingerprint",
                text: text.chars().take(300).collect(),
                why: "it must have 64 hexadecimal digits",
            }),
        }
    }

    /// The fingerprint of DER bytes.
    pub fn of_der(der: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(der).into())
    }

    /// The first 16 digits: enough to tell it from any other, and to look for it.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..8])
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        hex::encode(fingerprint.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&hex::encode(self.0), f)
    }
}

impl Serial {
    /// From the INTEGER's big-endian bytes in the certificate.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        let digits = hex::encode(bytes);
        let digits = digits.trim_start_matches('0');
        Self(if digits.is_empty() { "0".to_owned() } else { digits.to_owned() })
    }

    /// `4a..e1`: enough to follow one generation through a report.
    pub fn short(&self) -> String {
        if self.0.len() <= 8 { self.0.clone() } else { format!("{}..{}", &self.0[..4], &self.0[self.0.len() - 4..]) }
    }
}

impl SpiffeId {
    /// The trust domain, without scheme.
    pub fn trust_domain(&self) -> &str {
        self.0["spiffe://".len()..].split('/').next().unwrap_or_default()
    }
}

impl SecretName {
    /// The workload's own certificate.
    pub fn default_svid() -> Self {
        Self("default".to_owned())
    }
    /// The trust bundle.
    pub fn root_ca() -> Self {
        Self("ROOTCA".to_owned())
    }
}

impl EnvoyVersion {
    /// As a version that can be compared.
    pub fn semver(&self) -> semver::Version {
        semver::Version::parse(&self.0).expect("checked when the value was made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_compared_without_leading_zeros_and_case() {
        assert_eq!(Serial::parse("00AB").unwrap(), Serial::from_be_bytes(&[0, 0xab]));
        assert_eq!(Serial::parse("000").unwrap().as_str(), "0");
        assert!(Serial::parse("xyz").is_err());
        assert!(Serial::parse("").is_err());
    }

    #[test]
    fn hostile_names_are_refused() {
        assert!(CellId::parse("a@../../etc").is_err());
        assert!(CellId::parse("..@x").is_err());
        assert!(ProxyId::parse("a/b").is_err());
        assert!(SpiffeId::parse("spiffe://td/../x").is_err());
        assert!(SpiffeId::parse("spiffe://td").is_err());
        assert!(SpiffeId::parse("spiffe://td/ns/demo/sa/a").is_ok());
        assert!(ProgramVersion::parse("../1.13.3").is_err());
        assert!(ProgramVersion::parse("v0.0.0-20260827124520-eed52ebb66ad").is_ok());
    }
}
