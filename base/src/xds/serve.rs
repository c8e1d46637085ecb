//! One socket that serves SDS and the Workload API.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use http::{Request, Response};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Status};

use super::message::{Command, Event, Push, Rpc};
use super::pb::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use super::proto::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use super::sds::Sds;
use super::socket::{Socket, SocketError};
use super::workload::WorkloadApi;
use crate::timeline::said;

/// Hears what happens, in order per stream, before the peer can react to it. It must not block.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// How long connections may take to end once all their streams have.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Until it is tried again to accept a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(20);

/// A socket that is being served. It can be closed and opened again: a provider that goes and comes.
pub struct Outlet {
    hub: Arc<Hub>,
    path: Utf8PathBuf,
    listening: Option<Listening>,
}

/// While there is a socket.
struct Listening {
    socket: Socket,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Outlet {
    /// Serves the socket; streams are numbered from `first_stream` on.
    pub fn serve(socket: Socket, first_stream: u64, sink: Sink) -> Result<Self, SocketError> {
        let hub = Arc::new(Hub { next: AtomicU64::new(first_stream), streams: Mutex::default(), sink });
        let path = socket.path().to_owned();
        let listening = Some(Listening::start(socket, &hub)?);
        Ok(Self { hub, path, listening })
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// What carries out commands.
    pub fn hub(&self) -> Arc<Hub> {
        self.hub.clone()
    }

    /// Removes the path, and goes on serving whoever is connected.
    pub fn unlink(&self) {
        if let Some(listening) = &self.listening {
            listening.socket.unlink();
        }
    }

    /// Ends all streams and connections, and removes the socket.
    pub async fn close(&mut self) {
        let Some(mut listening) = self.listening.take() else { return };
        listening.socket.unlink();
        // First of all nothing new: then no stream can come between.
        if let Some(shutdown) = listening.shutdown.take() {
            let _ = shutdown.send(());
        }
        self.hub.close_all();
        let _ = tokio::time::timeout(LAST_WORDS, &mut listening.task).await;
    }

    /// Binds the same path again, and serves it.
    pub fn reopen(&mut self) -> Result<(), SocketError> {
        if self.listening.is_none() {
            self.listening = Some(Listening::start(Socket::bind(&self.path)?, &self.hub)?);
        }
        Ok(())
    }

    /// Ends all streams and connections, and removes the socket.
    pub async fn stop(mut self) {
        self.close().await;
    }
}

impl Listening {
    fn start(mut socket: Socket, hub: &Arc<Hub>) -> Result<Self, SocketError> {
        let listener =
            socket.take_listener().map_err(|source| SocketError::Io { path: socket.path().to_owned(), source })?;
        let (shutdown, stopped) = oneshot::channel::<()>();
        let both = Both {
            sds: SecretDiscoveryServiceServer::new(Sds { hub: hub.clone() }),
            workload: SpiffeWorkloadApiServer::new(WorkloadApi { hub: hub.clone() }),
        };
        let task = tokio::spawn(serve_until(both, listener, stopped));
        Ok(Self { socket, shutdown: Some(shutdown), task })
    }
}

/// Both services behind one socket. tonic's own router is axum's, three crates for these two names.
#[derive(Clone)]
struct Both {
    sds: SecretDiscoveryServiceServer<Sds>,
    workload: SpiffeWorkloadApiServer<WorkloadApi>,
}

impl Service<Request<Body>> for Both {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A path is `/service/Method`. What neither knows, either refuses as unimplemented.
        match request.uri().path().split('/').nth(1) {
            Some(SPIFFE_WORKLOAD_API) => self.workload.call(request),
            _ => self.sds.call(request),
        }
    }
}

const SPIFFE_WORKLOAD_API: &str = <SpiffeWorkloadApiServer<WorkloadApi> as NamedService>::NAME;

/// Serves until it is told to stop, or until whoever would tell is gone.
pub(super) async fn serve_until<S>(service: S, listener: UnixListener, stopped: oneshot::Receiver<()>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let stop = async {
        let _ = stopped.await;
    };
    // hyper allows 200 streams to a connection; an Envoy has one per secret.
    let server = tonic::transport::Server::builder().max_concurrent_streams(Some(100_000));
    let incoming = rested(UnixListenerStream::new(listener));
    if let Err(e) = server.serve_with_incoming_shutdown(service, incoming, stop).await {
        tracing::error!("a socket is no longer served: {e}");
    }
}

/// With a pause after each error, for tonic asks again at once: out of descriptors, it would keep a processor from those that
/// could end.
fn rested<C>(incoming: impl Stream<Item = std::io::Result<C>>) -> impl Stream<Item = std::io::Result<C>> {
    incoming.then(|connection| async move {
        if connection.is_err() {
            tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
        }
        connection
    })
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.hub.close_all();
    }
}

/// The open streams.
pub struct Hub {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, mpsc::UnboundedSender<Order>>>,
    sink: Sink,
}

/// A command, as its stream hears it.
pub(super) enum Order {
    Push(Push),
    Close(Status),
}

impl Hub {
    /// Carries out a command. A stream that has ended meanwhile has said so.
    pub fn deliver(&self, command: Command) {
        let (stream, order) = match command {
            Command::Push { stream, push } => (stream, Order::Push(push)),
            Command::Close { stream, code, message } => {
                (stream, Order::Close(Status::new(Code::from_i32(code), message)))
            }
        };
        if let Some(orders) = self.lock().get(&stream) {
            let _ = orders.send(order);
        }
    }

    pub(super) fn open<T>(self: &Arc<Self>, rpc: Rpc, request: &tonic::Request<T>) -> (Open, Orders) {
        let peer_pid = request.extensions().get::<UdsConnectInfo>().and_then(|i| i.peer_cred).and_then(|c| c.pid());
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, orders) = mpsc::unbounded_channel();
        self.lock().insert(stream, sender);
        let open = Open { stream, hub: self.clone(), closed: false };
        open.emit(Event::Opened { stream, rpc, peer_pid });
        (open, orders)
    }

    fn close_all(&self) {
        for orders in self.lock().values() {
            let _ = orders.send(Order::Close(Status::unavailable("the provider stops")));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Order>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) type Orders = mpsc::UnboundedReceiver<Order>;

/// An open stream. However it ends, its end is reported once.
pub(super) struct Open {
    pub(super) stream: u64,
    hub: Arc<Hub>,
    closed: bool,
}

impl Open {
    pub(super) fn emit(&self, event: Event) {
        (self.hub.sink)(event);
    }

    pub(super) fn close(mut self, by: &str, status: impl Into<String>) {
        self.report_closed(by, status.into());
    }

    fn report_closed(&mut self, by: &str, status: String) {
        if !std::mem::replace(&mut self.closed, true) {
            self.hub.lock().remove(&self.stream);
            self.emit(Event::Closed { stream: self.stream, by: by.to_owned(), status });
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.report_closed("connection", "the call was dropped".to_owned());
    }
}

/// `UNAVAILABLE: words`.
pub(super) fn status_text(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => said(&format!("{:?}: {message}", status.code())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_can_accept_nobody_rests_before_it_tries_again() {
        let began = tokio::time::Instant::now();
        let failing = std::iter::repeat_with(|| Err::<(), _>(std::io::Error::other("too many open files")));
        let errors = rested(tokio_stream::iter(failing.take(5))).filter(Result::is_err).collect::<Vec<_>>().await;
        assert_eq!(errors.len(), 5);
        assert!(began.elapsed() >= 5 * OUT_OF_DESCRIPTORS, "{:?}", began.elapsed());
    }
}
