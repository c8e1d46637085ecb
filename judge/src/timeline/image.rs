//! Names of container images.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const DOCKER_HUB: &str = "docker.io";

/// A container image by a tag or a digest: `docker.io/envoyproxy/envoy:v1.38.3`, written out whole. What it is parsed from may
/// leave `docker.io/` out, and `library/` there (grammar of github.com/distribution/reference).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    registry: String,
    repository: String,
    /// `:TAG` or `@sha256:DIGITS`.
    version: String,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an image is named with its tag or digest: envoyproxy/envoy:v1.38.3, registry.example:5000/envoy@sha256:...")]
pub struct InvalidImage;

impl ImageReference {
    /// The host that serves it, with its port if it is no usual one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The last part of its name: `envoy`.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The tag, or the first digits of the digest: what tells two images of a name apart.
    pub fn short_version(&self) -> &str {
        match self.version.strip_prefix("@sha256:") {
            Some(digits) => &digits[..12],
            None => &self.version[1..],
        }
    }

    /// The image of that name beside it, with the same tag; `None` for a digest, which no other image has.
    pub fn beside(&self, name: &str) -> Option<Self> {
        if self.name() == name {
            return Some(self.clone());
        }
        let directory = &self.repository[..self.repository.len() - self.name().len()];
        let beside = Self { repository: format!("{directory}{name}"), ..self.clone() };
        self.version.starts_with(':').then_some(beside)
    }

    /// Whether its registry is this machine, so that nobody on a network can listen or answer in its place.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ImageReference {
    type Err = InvalidImage;
    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        if text.len() > 400 {
            return Err(InvalidImage);
        }
        let (name, version) = match text.split_once('@') {
            Some((name, digest)) => (name, format!("@{}", sha256(digest).ok_or(InvalidImage)?)),
            None => {
                let (name, tag) = text.rsplit_once(':').filter(|(_, tag)| is_tag(tag)).ok_or(InvalidImage)?;
                (name, format!(":{tag}"))
            }
        };
        let is_host = |part: &str| part == "localhost" || part.contains(['.', ':', '[']);
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if is_host(host) => (host, rest.to_owned()),
            Some(_) => (DOCKER_HUB, name.to_owned()),
            None => (DOCKER_HUB, format!("library/{name}")),
        };
        if is_registry(registry) && repository.split('/').all(is_path_part) {
            Ok(Self { registry: registry.to_owned(), repository, version })
        } else {
            Err(InvalidImage)
        }
    }
}

fn sha256(digest: &str) -> Option<&str> {
    let digits = digest.strip_prefix("sha256:")?;
    (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then_some(digest)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next();
    text.len() <= 128 && first.is_some_and(word) && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ => (text, "443"),
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let within = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            !label.is_empty() && within && !label.starts_with('-') && !label.ends_with('-')
        }),
    };
    is_host && port.parse::<u16>().is_ok()
}

fn is_path_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|end| end.is_some_and(inner))
        && text.bytes().all(|b| inner(b) || b"._-".contains(&b))
        && !text.contains("..")
}

impl TryFrom<String> for ImageReference {
    type Error = InvalidImage;
    fn try_from(text: String) -> Result<Self, InvalidImage> {
        text.parse()
    }
}

impl From<ImageReference> for String {
    fn from(image: ImageReference) -> String {
        image.to_string()
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    #[test]
    fn an_image_is_written_out_whole() {
        let digest = format!("@sha256:{}", "0a".repeat(32));
        for (text, whole) in [
            ("envoyproxy/envoy:v1.38.3", "docker.io/envoyproxy/envoy:v1.38.3"),
            ("envoy:1", "docker.io/library/envoy:1"),
            ("ghcr.io/spiffe/spire-server:1.13.3", "ghcr.io/spiffe/spire-server:1.13.3"),
            ("localhost:5000/envoy:a", "localhost:5000/envoy:a"),
            ("[::1]:5000/x/envoy:a", "[::1]:5000/x/envoy:a"),
            (&format!("ghcr.io/x/y{digest}"), &format!("ghcr.io/x/y{digest}")),
        ] {
            assert_eq!(image(text).to_string(), whole);
            assert_eq!(image(whole), image(text));
        }
    }

    #[test]
    fn what_names_no_image_or_one_that_may_change_unseen_is_refused() {
        for wrong in [
            "",
            "envoy",
            ":v1",
            "envoyproxy/envoy",
            "envoy:",
            "envoy@sha256:00",
            "Envoy:1",
            "../envoy:1",
            "a/../b:1",
            "a//b:1",
            "envoy:1/2",
            "exa mple.com/x:1",
            "example.com:99999/x:1",
            "-a.b/x:1",
            "a.b/x@md5:00",
            "x:-1",
        ] {
            assert!(wrong.parse::<ImageReference>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_beside_another_has_its_tag() {
        let proxy = image("istio/proxyv2:1.31.0");
        assert_eq!(proxy.beside("pilot").unwrap().to_string(), "docker.io/istio/pilot:1.31.0");
        assert_eq!((proxy.name(), proxy.short_version()), ("proxyv2", "1.31.0"));
        let pinned = image(&format!("istio/proxyv2@sha256:{}", "0a".repeat(32)));
        assert_eq!((pinned.beside("pilot"), pinned.short_version()), (None, "0a0a0a0a0a0a"));
        assert_eq!(pinned.beside("proxyv2"), Some(pinned.clone()));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for here in ["localhost/x:1", "localhost:5000/x:1", "127.0.0.1:5000/x:1", "127.9.9.9:80/x:1", "[::1]:80/x:1"] {
            assert!(image(here).is_loopback(), "{here}");
        }
        for elsewhere in ["x:1", "localhost.example:80/x:1", "127.0.0.1.example/x:1", "10.0.0.1:80/x:1", "[::2]:80/x:1"]
        {
            assert!(!image(elsewhere).is_loopback(), "{elsewhere}");
        }
    }
}
