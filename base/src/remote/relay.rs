//! The pod's side: does what the harness asks, and understands nothing of what it carries.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Service as _, http};
use tonic::{Request, Response, Status, Streaming};

use super::carry::{Conn, PIECES, carry};
use super::connection::{ALIVE_EVERY, ALIVE_WITHIN, CONNECTION_WINDOW, STREAM_WINDOW};
use super::echo::host_name;
use super::listening::Listening;
use super::pb::piece::Content;
use super::pb::relay_server::{Relay as Calls, RelayServer};
use super::pb::{HelloRequest, HelloResponse, ListenEvent, ListenRequest, Piece, PutRequest, PutResponse};
use super::put::put;
use super::{Credentials, RemoteError, Target};

/// What a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What a dial may take; less than the harness waits for it.
const DIAL: Duration = Duration::from_secs(10);
/// Connections and listeners that one harness may have.
const STREAMS: u32 = 10_000;

/// A relay that runs. It ends, with all that it carries, when it is dropped.
pub struct Relay {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Serves at an address; `files` is the directory below which files may be put.
    pub async fn start(
        listen: SocketAddr,
        credentials: &Credentials,
        files: Option<Utf8PathBuf>,
    ) -> Result<Self, RemoteError> {
        let failed = |e: io::Error| RemoteError::Listen { place: listen.to_string(), why: e.to_string() };
        let tls = credentials.server()?;
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let calls = Answering { listening: Listening::default(), files };
        let task = tokio::spawn(accept(listener, tls, RelayServer::new(calls)));
        Ok(Self { addr, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, calls: RelayServer<Answering>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, tls.clone(), calls.clone()));
                }
                // Out of descriptors, most likely: let others finish first.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, tls: Arc<ServerConfig>, calls: RelayServer<Answering>) {
    // It fails only where the peer has gone.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return tracing::warn!("a connection was refused: {e}"),
        Err(_) => return tracing::warn!("a connection was refused: no handshake within {} s", HANDSHAKE.as_secs()),
    };
    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut calls = calls.clone();
        async move { Ok::<_, Infallible>(calls.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_WITHIN)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(e) = served {
        tracing::debug!("a connection has ended: {e}");
    }
}

/// What is answered.
struct Answering {
    listening: Listening,
    files: Option<Utf8PathBuf>,
}

type Pieces = ReceiverStream<Result<Piece, Status>>;

#[tonic::async_trait]
impl Calls for Answering {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Ok(Response::new(HelloResponse { version: env!("CARGO_PKG_VERSION").to_owned(), host: host_name() }))
    }

    type DialStream = Pieces;

    async fn dial(&self, request: Request<Streaming<Piece>>) -> Result<Response<Pieces>, Status> {
        let mut pieces = request.into_inner();
        let Some(Content::Target(target)) = first(&mut pieces).await? else {
            return Err(Status::invalid_argument("the first piece of a dial is its target"));
        };
        let target = target.parse::<Target>().map_err(|e| Status::invalid_argument(format!("cannot {e}")))?;
        match tokio::time::timeout(DIAL, Conn::to(&target)).await {
            Ok(Ok(conn)) => Ok(carried(conn, pieces)),
            Ok(Err(e)) => Err(Status::unavailable(e.to_string())),
            Err(_) => Err(Status::deadline_exceeded(format!("no connection within {} s", DIAL.as_secs()))),
        }
    }

    type ListenStream = ReceiverStream<Result<ListenEvent, Status>>;

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let ListenRequest { target, mode } = request.into_inner();
        let target = target.parse::<Target>().map_err(|e| Status::invalid_argument(format!("cannot {e}")))?;
        let events = self.listening.listen(target, mode).await;
        events.map(|events| Response::new(ReceiverStream::new(events))).map_err(Status::failed_precondition)
    }

    type TakeStream = Pieces;

    async fn take(&self, request: Request<Streaming<Piece>>) -> Result<Response<Pieces>, Status> {
        let mut pieces = request.into_inner();
        let Some(Content::Accepted(id)) = first(&mut pieces).await? else {
            return Err(Status::invalid_argument("the first piece of a take is the number of a connection"));
        };
        match self.listening.take(id) {
            Some(conn) => Ok(carried(conn, pieces)),
            None => Err(Status::not_found(format!("no connection {id} waits: it was taken, or has waited too long"))),
        }
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let Some(files) = self.files.clone() else {
            return Err(Status::failed_precondition("this relay was given no directory for files (--files)"));
        };
        let written = tokio::task::spawn_blocking(move || put(&files, request.get_ref())).await;
        match written.map_err(|e| Status::internal(e.to_string()))? {
            Ok(()) => Ok(Response::new(PutResponse {})),
            Err(why) => Err(Status::permission_denied(why)),
        }
    }
}

async fn first(pieces: &mut Streaming<Piece>) -> Result<Option<Content>, Status> {
    Ok(pieces.message().await?.and_then(|piece| piece.content))
}

/// Answers with what the connection says, for as long as the call lasts.
fn carried(conn: Conn, pieces: Streaming<Piece>) -> Response<Pieces> {
    let (outgoing, answers) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let carried = tokio::select! {
            carried = carry(conn, pieces, outgoing.clone(), Ok) => carried,
            // The harness takes no more answers: a writer that waits for a peer would wait for ever.
            () = outgoing.closed() => Ok(()),
        };
        if let Err(why) = carried {
            let _ = outgoing.send(Err(Status::aborted(why))).await;
        }
    });
    Response::new(ReceiverStream::new(answers))
}
