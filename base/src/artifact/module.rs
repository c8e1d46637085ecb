//! What pins a version of a Go module: its checksums, and with them the code of everything that it is built from.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::IstioLine;
use crate::timeline::ProgramVersion;

/// A version of Istio or SPIRE in the lock file. The module's own `go.mod` and `go.sum` are part of what `sum` covers,
/// and a build takes nothing that these do not name: one checksum locks every dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedModule {
    /// Where it comes from.
    pub source: ModuleSource,
    /// Version of the module, as Go writes it.
    pub version: ProgramVersion,
    /// Checksum of its files.
    pub sum: ModuleSum,
    /// Checksum of its `go.mod`.
    pub mod_sum: ModuleSum,
    /// The oldest Go that builds it, such as `1.26.0`.
    pub go: String,
    /// The line of Istio that it belongs to; absent for SPIRE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<IstioLine>,
}

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleSource {
    /// Fetched and built by the user's Go.
    Go,
}

/// A checksum as in `go.sum`: `h1:` and a SHA-256 in base64 (Go modules reference, "Module authentication").
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleSum(String);

/// A text that is no checksum of a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a module's checksum is \"h1:\" and a SHA-256 in base64")]
pub struct InvalidSum;

impl ModuleSum {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModuleSum {
    type Err = InvalidSum;
    fn from_str(text: &str) -> Result<Self, InvalidSum> {
        let digest = text.strip_prefix("h1:").and_then(|digest| STANDARD.decode(digest).ok());
        if digest.is_some_and(|digest| digest.len() == 32) { Ok(Self(text.to_owned())) } else { Err(InvalidSum) }
    }
}

impl TryFrom<String> for ModuleSum {
    type Error = InvalidSum;
    fn try_from(text: String) -> Result<Self, InvalidSum> {
        text.parse()
    }
}

impl From<ModuleSum> for String {
    fn from(sum: ModuleSum) -> String {
        sum.0
    }
}

impl fmt::Display for ModuleSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ModuleSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_a_sha_256_in_base64() {
        assert!("h1:ui9TJjRMAV/hb5ehQaZDq7IUGxuQP6dra9lapT/VjHI=".parse::<ModuleSum>().is_ok());
        for wrong in ["", "h1:", "h2:ui9TJjRMAV/hb5ehQaZDq7IUGxuQP6dra9lapT/VjHI=", "h1:ui9T", "h1:x\ny"] {
            assert!(wrong.parse::<ModuleSum>().is_err(), "{wrong}");
        }
    }
}
