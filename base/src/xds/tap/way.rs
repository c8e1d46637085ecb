//! Whither a tap leads.

use camino::{Utf8Path, Utf8PathBuf};
use tokio::net::UnixStream;

use super::super::dial::dial;
use super::{CONNECT, present};
use crate::timeline::{ProxyId, istio_workload};

/// A provider's socket; and others that lie beside it.
#[derive(Debug, Clone)]
pub struct Way {
    pub(super) upstream: Utf8PathBuf,
    /// Whether a proxy that has a socket of its name beside this one is led there, by what it says which node it is.
    pub(super) by_node: bool,
}

impl Way {
    /// All are led to this socket.
    pub fn to(upstream: &Utf8Path) -> Self {
        Self { upstream: upstream.to_owned(), by_node: false }
    }

    /// As `to`; but a proxy that has a socket of its own beside it ([`socket_of`]) is led there.
    pub fn by_node(upstream: &Utf8Path) -> Self {
        Self { upstream: upstream.to_owned(), by_node: true }
    }

    /// A connection for the proxy that says to be this node.
    pub(super) async fn dial(&self, node: &str) -> std::io::Result<UnixStream> {
        dial(&self.of(node), CONNECT).await
    }

    fn of(&self, node: &str) -> Utf8PathBuf {
        let named = istio_workload(node).and_then(|name| ProxyId::parse(name).ok());
        let own = named.filter(|_| self.by_node).map(|id| self.upstream.with_file_name(socket_of(&id)));
        own.filter(|path: &Utf8PathBuf| present(path)).unwrap_or_else(|| self.upstream.clone())
    }
}

/// What the socket of this proxy is called.
pub fn socket_of(proxy: &ProxyId) -> String {
    format!("{proxy}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leads_to_its_own_socket_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let upstream = dir.join("sockets/a.sock");
        std::fs::create_dir(dir.join("sockets")).unwrap();
        let _sockets = ["sockets/a.sock", "sockets/b.sock", "c.sock"]
            .map(|name| std::os::unix::net::UnixListener::bind(dir.join(name)).unwrap());
        let way = Way::by_node(&upstream);
        let node = |name: &str| format!("sidecar~10.0.0.7~{name}.ns~ns.svc.cluster.local");
        assert_eq!(way.of(&node("b")), dir.join("sockets/b.sock"));
        for name in ["a", "unknown", "../c", "/etc/passwd", ""] {
            assert_eq!(way.of(&node(name)), upstream, "{name}");
        }
        assert_eq!(way.of("b"), upstream);
        assert_eq!(Way::to(&upstream).of(&node("b")), upstream);
    }
}
