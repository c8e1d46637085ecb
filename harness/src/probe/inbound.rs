//! Full handshakes with a proxy's inbound listener: what does it serve to somebody who comes now?

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::context::{ProbeContext, Shown};
use super::tls::{self, Capture};
use crate::clock::Deadline;
use crate::fleet::Proxy;
use crate::timeline::{Handshake, ProxyId, Source, TlsRole};

/// The protocol versions that Istio's listeners speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246. The certificate travels in the clear, the refusal of a missing client certificate ends the handshake.
    V1_2,
    /// RFC 8446. The refusal comes after the handshake, with the first read.
    V1_3,
}

impl TlsVersion {
    /// Both.
    pub const ALL: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

    fn protocol(self) -> &'static SupportedProtocolVersion {
        match self {
            TlsVersion::V1_2 => &rustls::version::TLS12,
            TlsVersion::V1_3 => &rustls::version::TLS13,
        }
    }
}

/// What a sidecar's peers offer (Istio's clients; the last for a listener that knows nothing of Istio).
const ALPN: [&[u8]; 3] = [b"istio-http/1.1", b"istio", b"http/1.1"];

/// Makes a fresh, full handshake with the inbound listener and records what was shown.
///
/// No client certificate is offered: the proxy refuses the connection for that, but only after it has shown its own.
pub async fn inbound(proxy: &Proxy, version: TlsVersion, ctx: &ProbeContext) -> Handshake {
    let name = format!("outbound_.8080_._.{}.rotacheck.svc.cluster.local", proxy.id);
    inbound_at(&proxy.id, proxy.inbound, &name, version, ctx).await
}

/// As [`inbound`], with whatever leads to the listener of a proxy of that name; `server_name` is asked for (SNI).
pub async fn inbound_at(
    proxy: &ProxyId,
    addr: SocketAddr,
    server_name: &str,
    version: TlsVersion,
    ctx: &ProbeContext,
) -> Handshake {
    let shown = look(addr, server_name, version, ctx.deadline()).await;
    let handshake = shown.judged(&ctx.roots, ctx.clock().now(), TlsRole::Inbound);
    ctx.recorder.record(Source::Inbound, Some(proxy), None, handshake.clone());
    handshake
}

async fn look(addr: SocketAddr, name: &str, version: TlsVersion, deadline: Deadline) -> Shown {
    let capture = Arc::new(Capture::default());
    let began = tokio::time::Instant::now();
    let ended = tokio::time::timeout_at(deadline.instant(), handshake(addr, name, version, capture.clone())).await;

    let mut resumed = false;
    let error = match ended {
        Ok(Ok(kind)) => {
            resumed = kind == Some(HandshakeKind::Resumed);
            None
        }
        Ok(Err(e)) => Some(describe(&e)),
        Err(_) => Some(format!("no answer within {} ms", began.elapsed().as_millis())),
    };
    let chain = capture.chain().map(<[_]>::to_vec).unwrap_or_default();
    let error = if chain.is_empty() && !resumed {
        let unproven = capture.unproven().then(|| "the leaf that was shown did not sign the handshake".to_owned());
        unproven.or(error).or_else(|| Some("no certificate was shown".to_owned()))
    } else {
        // The listener's refusal of a client without certificate is no news.
        None
    };
    Shown { tls: tls::version_name(Some(version.protocol().version)).to_owned(), resumed, chain, error }
}

async fn handshake(
    addr: SocketAddr,
    name: &str,
    version: TlsVersion,
    capture: Arc<Capture>,
) -> io::Result<Option<HandshakeKind>> {
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version.protocol()])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(capture)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = ALPN.iter().map(|p| p.to_vec()).collect();
    // A proxy's name that makes no host name goes without SNI: the listener's default chain answers.
    let name = ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::IpAddress(addr.ip().into()));

    let stream = TcpStream::connect(addr).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(stream.get_ref().1.handshake_kind())
}

/// What became of a handshake, in words that tell apart who failed.
pub(super) fn describe(e: &io::Error) -> String {
    if let Some(e) = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return match e {
            rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
                format!("what answered does not speak TLS: {e}")
            }
            rustls::Error::AlertReceived(alert) => format!("the peer ended the handshake with the alert {alert:?}"),
            other => other.to_string(),
        };
    }
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => "connection closed in the handshake".into(),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::probe::fakes::{self, Authority};
    use crate::timeline::Fact;

    const PATIENT: Duration = Duration::from_secs(30);

    async fn seen(addr: SocketAddr, trusted: &Authority, patience: Duration) -> [Handshake; 2] {
        let ctx = fakes::context(patience).await;
        ctx.roots().replace([trusted.der.clone()]);
        let proxy = Proxy { inbound: addr, ..fakes::unreachable() };
        let seen = [inbound(&proxy, TlsVersion::V1_2, &ctx).await, inbound(&proxy, TlsVersion::V1_3, &ctx).await];
        assert_eq!(fakes::facts(&ctx), seen.clone().map(Fact::from), "what is returned is what is recorded");
        seen
    }

    #[tokio::test]
    async fn the_leaf_is_seen_although_a_client_certificate_is_required() {
        let authority = Authority::new("one");
        let svid = authority.svid(60);
        let addr = fakes::tls_listener(svid.server_config(&authority)).await;
        let [tls12, tls13] = seen(addr, &authority, PATIENT).await;
        assert_eq!((tls12.tls.as_str(), tls13.tls.as_str()), ("TLSv1_2", "TLSv1_3"));
        for shown in [tls12, tls13] {
            assert_eq!(shown.chain, [svid.facts()]);
            assert_eq!((shown.resumed, shown.verified, shown.error), (false, Some(true), None));
        }
    }

    #[tokio::test]
    async fn an_expired_leaf_is_seen_and_judged() {
        let authority = Authority::new("one");
        let svid = authority.svid(-10);
        let addr = fakes::tls_listener(svid.server_config(&authority)).await;
        for shown in seen(addr, &authority, PATIENT).await {
            assert_eq!((shown.chain.as_slice(), shown.verified), (&[svid.facts()][..], Some(false)));
            assert_eq!(shown.error, Some(format!("it expired at {}", svid.facts().not_after)));
        }
    }

    #[tokio::test]
    async fn a_leaf_of_another_authority_is_seen_and_judged() {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let svid = one.svid(60);
        let addr = fakes::tls_listener(svid.server_config(&one)).await;
        for shown in seen(addr, &other, PATIENT).await {
            assert_eq!((shown.chain.as_slice(), shown.verified), (&[svid.facts()][..], Some(false)));
            assert_eq!(shown.error.as_deref(), Some("no authority of the bundle signed it"));
        }
    }

    #[tokio::test]
    async fn a_listener_that_offers_sessions_still_gets_full_handshakes() {
        let authority = Authority::new("one");
        let svid = authority.svid(60);
        let addr = fakes::tls_listener(svid.server_config(&authority)).await;
        for _ in 0..3 {
            for shown in seen(addr, &authority, PATIENT).await {
                assert!(!shown.resumed && shown.chain.len() == 1, "{shown:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_speaks_no_tls_is_told_so() {
        let addr = fakes::listen(async |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.shutdown().await;
        })
        .await;
        for shown in seen(addr, &Authority::new("one"), PATIENT).await {
            let error = shown.error.unwrap();
            assert!(shown.chain.is_empty() && error.starts_with("what answered does not speak TLS"), "{error}");
            assert_eq!(shown.verified, None, "nothing was judged");
        }
    }

    #[tokio::test]
    async fn a_peer_that_never_answers_is_given_up_at_the_deadline() {
        let addr = fakes::listen(async |stream| {
            let _held = stream;
            std::future::pending::<()>().await;
        })
        .await;
        for shown in seen(addr, &Authority::new("one"), Duration::from_millis(50)).await {
            assert!(shown.error.unwrap().starts_with("no answer within"));
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_and_a_connection_that_is_closed_are_told_apart() {
        let [refused, _] = seen(fakes::unreachable().inbound, &Authority::new("one"), PATIENT).await;
        assert_eq!((refused.chain.len(), refused.error.as_deref()), (0, Some("connection refused")));

        let addr = fakes::listen(async |mut stream| {
            // Read first: what is closed with bytes unread is reset.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
        })
        .await;
        let [closed, _] = seen(addr, &Authority::new("one"), PATIENT).await;
        assert_eq!(closed.error.as_deref(), Some("connection closed in the handshake"));
    }
}
