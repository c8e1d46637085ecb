//! Where a relay dials or listens.

use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;

use super::RemoteError;

/// A place, as seen from the pod: `tcp:HOST:PORT` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// An absolute path.
    Unix(Utf8PathBuf),
}

impl Target {
    /// A TCP target.
    pub fn tcp(host: impl fmt::Display, port: u16) -> Self {
        Self::Tcp(host.to_string(), port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl FromStr for Target {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let tcp = |rest: &str| {
            let (host, port) = rest.rsplit_once(':')?;
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let said = !host.is_empty() && !host.contains(char::is_whitespace);
            said.then_some(Self::Tcp(host.to_owned(), port.parse().ok()?))
        };
        let target = match text.split_once(':') {
            Some(("tcp", rest)) => tcp(rest),
            Some(("unix", path)) if path.starts_with('/') && !path.contains('\0') => Some(Self::Unix(path.into())),
            _ => None,
        };
        target.ok_or_else(|| RemoteError::Target { text: text.chars().take(200).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_survive_their_own_text() {
        for text in ["tcp:127.0.0.1:15000", "tcp:b.ns.svc.cluster.local:80", "tcp:[::1]:8080", "unix:/run/x/sds.sock"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!(Target::tcp("::1", 80), Target::Tcp("::1".into(), 80));
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_was_asked() {
        for text in
            ["", "tcp", "tcp:", "tcp::80", "tcp:x", "tcp:x:99999", "unix:", "unix:relative", "udp:x:1", "tcp:a b:1"]
        {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert!("unix:/a\0b".parse::<Target>().is_err());
    }
}
