//! One connection to a relay: a stream, TLS, HTTP/2 with many calls on it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::carry::words;
use super::credentials::RELAY;
use super::pb::relay_client::RelayClient;
use super::pb::{HelloRequest, HelloResponse};
use crate::clock::Deadline;

/// Silence for so long is answered by a question.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// No answer for so long, and the other side is gone.
pub(super) const ALIVE_WITHIN: Duration = Duration::from_secs(15);
/// What one connection may have on its way to somebody who does not read; and all of them. One who reads nothing must
/// not stop the others, so the second is many times the first.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
pub(super) const CONNECTION_WINDOW: u32 = 64 << 20;

/// A stream of bytes, whatever is below it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream to a relay that was just opened.
pub struct Opened {
    /// The stream.
    pub io: Box<dyn Io>,
    /// What whoever carries it says when it ends, if it says anything.
    pub said: BoxFuture<'static, Option<String>>,
}

/// Opens a stream to one relay, each time anew; an error in words.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, Result<Opened, String>> + Send + Sync>;

/// To a relay at an address that can be connected to.
pub fn over_tcp(addr: SocketAddr) -> Connector {
    Arc::new(move || {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await.map_err(|e| format!("connect to {addr}: {e}"))?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            Ok(Opened { io: Box::new(stream), said: Box::pin(async { None }) })
        })
    })
}

pub(super) type Client = RelayClient<Calls>;

/// An open connection.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) hello: HelloResponse,
    /// Ends with the connection, and says why. It must be polled.
    pub(super) ended: BoxFuture<'static, String>,
}

/// Opens a connection, and proves that the relay answers.
pub(super) async fn open(
    connector: &Connector,
    tls: Arc<ClientConfig>,
    deadline: Deadline,
) -> Result<Connection, String> {
    let opening = async {
        let Opened { io, said } = connector().await?;
        let name = ServerName::try_from(RELAY).expect("it is a DNS name");
        let secured = TlsConnector::from(tls).connect(name, io);
        // A certificate that is refused shows only in the first answer, which a relay gives before it is spoken to; and
        // whoever speaks to one that has gone may not hear what it said.
        let first = async {
            let mut stream = BufReader::new(secured.await?);
            match stream.fill_buf().await? {
                [] => Err(ErrorKind::UnexpectedEof.into()),
                _ => Ok::<_, io::Error>(stream),
            }
        };
        let stream = match first.await {
            Ok(stream) => stream,
            Err(e) => return Err(explained(format!("TLS: {}", with_sources(&e)), said).await),
        };
        let spoken = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake::<_, Body>(TokioIo::new(stream));
        let (calls, connection) = spoken.await.map_err(|e| with_sources(&e))?;
        let mut ended: BoxFuture<'static, String> = Box::pin(async move {
            let why = match connection.await {
                Ok(()) => CLOSED.to_owned(),
                Err(e) => with_sources(&e),
            };
            explained(why, said).await
        });
        // The authority is for the protocol's sake: the name was checked by TLS.
        let origin = http::Uri::from_static("http://relay.rotacheck.invalid");
        let mut client = RelayClient::with_origin(Calls(calls), origin);
        let hello = tokio::select! {
            hello = client.hello(HelloRequest {}) => hello.map_err(|status| words(&status)),
            why = &mut ended => return Err(why),
        };
        match hello {
            Ok(hello) => Ok(Connection { client, hello: hello.into_inner(), ended }),
            // The connection knows better why it has ended.
            Err(said) => Err(tokio::time::timeout(LAST_WORDS, ended).await.unwrap_or(said)),
        }
    };
    match tokio::time::timeout_at(deadline.instant(), opening).await {
        Ok(opened) => opened,
        Err(_) => Err("it did not answer in time".into()),
    }
}

/// How long whoever carried a stream may take to say why it ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

async fn explained(why: String, said: BoxFuture<'static, Option<String>>) -> String {
    match tokio::time::timeout(LAST_WORDS, said).await {
        Ok(Some(said)) => format!("{why} ({})", said.trim()),
        _ => why,
    }
}

/// A relay that ends, or a way that does.
const CLOSED: &str = "the connection was closed";

fn with_sources(e: &dyn std::error::Error) -> String {
    let mut said = e.to_string();
    let mut source = e.source();
    // The library explains at length what it means in other protocols.
    if said.contains("close_notify") || source.is_some_and(|e| e.to_string().contains("close_notify")) {
        return CLOSED.to_owned();
    }
    while let Some(e) = source {
        let more = e.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = e.source();
    }
    said
}

/// The calls of one connection, for the generated client.
#[derive(Clone)]
pub(super) struct Calls(SendRequest<Body>);

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
