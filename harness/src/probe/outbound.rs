//! The harness's own TLS server: proxies dial it, so that the client certificate they show can be seen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::context::{ProbeContext, Roots, Shown};
use super::tls::{self, Capture};
use super::{http as plain, inbound};
use crate::clock::Deadline;
use crate::fleet::Proxy;
use crate::pki::{Authority, LeafRequest, PkiError, Validity};
use crate::timeline::{Fact, Handshake, Layer, ProxyId, Recorder, Source, TlsRole};

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// No port to be had.
    #[error("the harness's TLS server can't listen on loopback: {0}")]
    Listen(#[from] std::io::Error),
    /// No certificate to be had.
    #[error("the harness's TLS server has no certificate: {0}")]
    Certificate(#[from] PkiError),
}

/// A TLS server on loopback, one per cell. It accepts whatever client certificate is shown, and records it.
///
/// It keeps no sessions and issues no tickets, so each connection is a full handshake. Proxies say who they are by
/// SNI. It stops when it is dropped.
pub struct OutboundServer {
    addr: SocketAddr,
    authority_pem: String,
    task: JoinHandle<()>,
}

impl OutboundServer {
    /// Listens; handshakes go to `recorder`, judged by `roots`.
    pub async fn start(recorder: Recorder, roots: Roots) -> Result<Self, OutboundError> {
        let (authority_pem, credentials) = Credentials::make()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let serving = Arc::new(Serving { recorder, roots, credentials });
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            let serving = serving.clone();
                            connections.spawn(async move { serving.connection(stream).await });
                        }
                        // Out of descriptors, most likely: let others finish first.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { addr, authority_pem, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The authority that a proxy must trust to dial it, PEM. It issues nothing else.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }
}

impl Drop for OutboundServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the proxy dial the server, awaits the handshake that comes of it, and returns what was recorded.
pub async fn outbound(proxy: &Proxy, ctx: &ProbeContext) -> Option<Handshake> {
    let what = "outbound handshake";
    let deadline = ctx.deadline();
    let from = ctx.recorder.len();
    let answer = plain::get(proxy.dial_out, &format!("{}{HOST}", proxy.id), "/", deadline).await;
    let why = match answer {
        Ok((StatusCode::OK, _)) => format!("the proxy dialled nobody, or not under its own name {}", proxy.id),
        Ok((status, body)) => {
            let body: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            format!("the proxy answered {status}: {body}")
        }
        Err(e) => e.to_string(),
    };
    // A handshake is recorded before its request is answered; one that failed may be recorded a little after the
    // proxy has given up.
    let wait = deadline.min(Deadline::after(LATE_HANDSHAKE));
    let mut seen = None;
    ctx.recorder
        .await_until(from, wait, |o| {
            if let Fact::Handshake(handshake) = &o.fact
                && o.source == Source::Outbound
                && o.proxy.as_ref() == Some(&proxy.id)
            {
                seen = Some(handshake.clone());
            }
            seen.is_some()
        })
        .await;
    if seen.is_none() {
        ctx.blind(Source::Outbound, &proxy.id, Some(Layer::Served), what, why);
    }
    seen
}

/// What follows a proxy's name in the name of the host that is asked for: where a listener is all proxies', it is the name
/// under which they dial.
const HOST: &str = ".outbound";

/// 2200-01-01.
const FAR: jiff::Timestamp = jiff::Timestamp::constant(7_258_118_400, 0);

/// The server's certificate and key. Neither leaves the process.
struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Its authority (PEM), and itself. Both outlive whatever cell time is moved to.
    fn make() -> Result<(String, Self), PkiError> {
        let always = Validity { not_before: jiff::Timestamp::UNIX_EPOCH, not_after: FAR };
        let authority = Authority::new("rotacheck outbound authority", always)?;
        let leaf = authority.mint(&LeafRequest::of_host("outbound.rotacheck.invalid", always))?;
        let (chain, key) = leaf.to_rustls();
        Ok((authority.pem(), Self { chain, key }))
    }

    fn config(&self, capture: Arc<Capture>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(capture)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        // A resumed session shows no certificate.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// How long after the proxy's answer the record of a failed handshake may come.
const LATE_HANDSHAKE: Duration = Duration::from_millis(100);

/// The longest that a connection may take from the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(10);

struct Serving {
    recorder: Recorder,
    roots: Roots,
    credentials: Credentials,
}

impl Serving {
    async fn connection(&self, stream: TcpStream) {
        let deadline = Deadline::after(PATIENCE);
        let capture = Arc::new(Capture::default());
        let mut sni = None;
        let hello = tokio::time::timeout_at(deadline.instant(), self.handshake(stream, &capture, &mut sni));
        let (stream, version, resumed, error) = match hello.await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
                let version = tls::version_name(session.protocol_version());
                (Some(stream), version, resumed, None)
            }
            Ok(Err(e)) => (None, "", false, Some(inbound::describe(&e))),
            Err(_) => (None, "", false, Some(format!("no handshake within {} ms", PATIENCE.as_millis()))),
        };
        // Who closes without saying who it is was no proxy's dial.
        let Some(sni) = sni else { return };
        let chain = capture.chain().map(<[_]>::to_vec).unwrap_or_default();
        let error = match error {
            None if chain.is_empty() && !resumed => Some("the proxy showed no client certificate".to_owned()),
            other => other,
        };
        let proxy = ProxyId::parse(sni.strip_suffix(HOST).unwrap_or(&sni)).ok();
        let shown = Shown { tls: version.to_owned(), resumed, chain, error };
        let handshake = shown.judged(&self.roots, self.recorder.clock().now(), TlsRole::Outbound);
        self.recorder.record(Source::Outbound, proxy.as_ref(), None, handshake);
        if let Some(stream) = stream {
            // The evidence is taken; what becomes of the answer is the proxy's business.
            let _ = tokio::time::timeout_at(deadline.instant(), answer(stream)).await;
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        capture: &Arc<Capture>,
        sni: &mut Option<String>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        *sni = Some(hello.client_hello().server_name().unwrap_or_default().to_owned());
        let config = self.credentials.config(capture.clone()).map_err(std::io::Error::other)?;
        hello.into_stream(Arc::new(config)).await
    }
}

/// One request, one answer, and the connection ends: the next request must shake hands again.
async fn answer(mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() > 16 << 10 || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n").await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fakes::{self, Authority, FakeProxy};

    const PATIENT: Duration = Duration::from_secs(30);

    fn handshakes(ctx: &ProbeContext) -> Vec<(Option<ProxyId>, Handshake)> {
        let of = |o: &Arc<crate::timeline::Observation>| match &o.fact {
            Fact::Handshake(h) => Some((o.proxy.clone(), h.clone())),
            _ => None,
        };
        ctx.recorder.since(0).iter().filter_map(of).collect()
    }

    #[tokio::test]
    async fn the_client_certificate_is_seen_whatever_it_is() {
        let (authority, other) = (Authority::new("one"), Authority::new("other"));
        let ctx = fakes::context(PATIENT).await;
        ctx.roots().replace([authority.der.clone()]);
        let cases = [
            (authority.svid(60), None),
            (authority.svid(-10), Some("it expired at")),
            (other.svid(60), Some("no authority of the bundle signed it")),
        ];
        for (n, (svid, problem)) in cases.iter().enumerate() {
            let answer = fakes::dial(ctx.outbound.as_ref().unwrap().addr(), "proxy-a", Arc::new(svid.client_config()))
                .await
                .unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            let (proxy, shown) = handshakes(&ctx).remove(n);
            assert_eq!(proxy, Some(ProxyId::parse("proxy-a").unwrap()));
            assert_eq!((shown.chain.as_slice(), shown.resumed), (&[svid.facts()][..], false));
            assert_eq!(shown.verified, Some(problem.is_none()));
            assert!(problem.is_none_or(|p| shown.error.as_deref().is_some_and(|e| e.starts_with(p))), "{shown:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_would_resume_its_session_has_to_show_its_certificate_again() {
        let authority = Authority::new("one");
        let ctx = fakes::context(PATIENT).await;
        // One configuration, so one store of sessions.
        let config = Arc::new(authority.svid(60).client_config());
        for _ in 0..3 {
            fakes::dial(ctx.outbound.as_ref().unwrap().addr(), "a", config.clone()).await.unwrap();
        }
        let seen = handshakes(&ctx);
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|(_, h)| !h.resumed && h.chain.len() == 1), "{seen:?}");
    }

    #[tokio::test]
    async fn a_client_without_certificate_is_recorded_as_such() {
        let ctx = fakes::context(PATIENT).await;
        let config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Capture::default()))
            .with_no_client_auth();
        fakes::dial(ctx.outbound.as_ref().unwrap().addr(), "a", Arc::new(config)).await.unwrap();
        let (_, shown) = handshakes(&ctx).remove(0);
        assert_eq!(shown.error.as_deref(), Some("the proxy showed no client certificate"));
        assert!(shown.chain.is_empty());
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_trust_the_server_is_recorded_and_others_trust_it() {
        let ctx = fakes::context(PATIENT).await;
        let trusting = |pem: &str| {
            let mut roots = rustls::RootCertStore::empty();
            let der = pem::parse(pem).unwrap().into_contents();
            roots.add(CertificateDer::from(der)).unwrap();
            let builder = rustls::ClientConfig::builder_with_provider(tls::provider());
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
        };
        let name = "outbound.rotacheck.invalid";
        fakes::dial(
            ctx.outbound.as_ref().unwrap().addr(),
            name,
            trusting(ctx.outbound.as_ref().unwrap().authority_pem()),
        )
        .await
        .unwrap();

        let stranger = Authority::new("x").pem();
        fakes::dial(ctx.outbound.as_ref().unwrap().addr(), name, trusting(&stranger)).await.unwrap_err();
        let told = ctx.recorder.await_until(
            0,
            Deadline::after(PATIENT),
            |o| matches!(&o.fact, Fact::Handshake(h) if h.error.as_deref().is_some_and(|e| e.contains("UnknownCA"))),
        );
        assert!(told.await, "{:?}", handshakes(&ctx));
    }

    #[tokio::test]
    async fn a_proxy_is_made_to_dial_and_what_it_showed_is_returned() {
        let authority = Arc::new(Authority::new("one"));
        let ctx = fakes::context(PATIENT).await;
        let svid = authority.svid(60);
        let leaf = svid.facts();
        let fake = FakeProxy::start(authority, svid, &ctx).await;
        assert_eq!(outbound(&fake.proxy, &ctx).await.unwrap().chain, [leaf]);
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_dial_leaves_the_layer_unseen() {
        let ctx = fakes::context(PATIENT).await;
        let dial_out = fakes::listen(|stream| fakes::http(stream, async |_| (503, "no cluster".to_owned()))).await;
        let proxy = Proxy { dial_out, ..fakes::unreachable() };
        assert_eq!(outbound(&proxy, &ctx).await, None);
        let Fact::Blind(blind) = fakes::facts(&ctx).remove(0) else { panic!("{:?}", fakes::facts(&ctx)) };
        assert_eq!(blind.layer, Some(Layer::Served));
        assert!(blind.why.ends_with("no cluster"), "{}", blind.why);
    }
}
