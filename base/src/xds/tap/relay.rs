//! One connection: requests of the proxy's, made again on a connection to the provider.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::sync::{OnceCell, watch};

use super::super::message::Rpc;
use super::super::pb::envoy::service::discovery::v3::DiscoveryRequest;
use super::Ear;
use super::deframe::{Deframer, Found};
use super::overhear::{Conversation, Direction, Overheard, status};
use super::way::Way;

/// Of an RPC that is overheard, or of another one.
type Relayed = Either<Overheard, Incoming>;

/// How long streams may take to end once the provider's connection has.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// An Envoy has a stream per secret, hyper would allow 200.
const MOST_STREAMS: u32 = 100_000;

/// What is held of a first message, to know who asks: an Istio proxy says some kB of itself.
const MOST_HELD: usize = 1 << 20;

/// Relays until one of both sides ends. Where `there` is none yet, who asks first on this connection decides whither it leads.
pub(super) async fn relay(
    downstream: UnixStream,
    there: Option<UnixStream>,
    way: Way,
    pid: Option<i32>,
    ear: Arc<Ear>,
) {
    let (ended, mut end) = watch::channel(false);
    let provider = Arc::new(OnceCell::new());
    if let Some(upstream) = there {
        let Ok(requests) = connected(upstream, ended.clone()).await else { return };
        let _ = provider.set(requests);
    }
    let ended = Arc::new(ended);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (provider, way, ended, ear) = (provider.clone(), way.clone(), ended.clone(), ear.clone());
        async move {
            let rpc = overheard(request.uri().path());
            let (head, mut body) = request.into_parts();
            let mut held = VecDeque::new();
            let connect = async {
                let node = match rpc {
                    Some(_) => node(&mut body, &mut held).await,
                    None => String::new(),
                };
                connected(way.dial(&node).await?, (*ended).clone()).await.map_err(std::io::Error::other)
            };
            let mut requests = provider.get_or_try_init(|| connect).await?.clone();
            let conversation = rpc.map(|rpc| Conversation::open(ear, rpc, pid));
            let request = Request::from_parts(head, wrapped(body, held, Direction::Request, conversation.as_ref()));
            match requests.send_request(request).await {
                Ok(response) => Ok(relayed(response, conversation.as_ref())),
                Err(e) => {
                    if let Some(conversation) = conversation {
                        conversation.close("connection", &e.to_string());
                    }
                    Err(std::io::Error::other(e))
                }
            }
        }
    });
    let mut proxy = pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(MOST_STREAMS)
            .serve_connection(TokioIo::new(downstream), service)
    );
    tokio::select! {
        _ = &mut proxy => return,
        // Also when it is ended in order.
        _ = end.wait_for(|ended| *ended) => {}
    }
    proxy.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_WORDS, proxy).await;
}

/// Who makes requests of a provider on this connection, whose end is told.
async fn connected(upstream: UnixStream, ended: watch::Sender<bool>) -> hyper::Result<SendRequest<Relayed>> {
    let (requests, connection) =
        hyper::client::conn::http2::handshake::<_, _, Relayed>(TokioExecutor::new(), TokioIo::new(upstream)).await?;
    tokio::spawn(async move {
        tokio::select! {
            _ = connection => {}
            // Whoever relays has gone.
            () = ended.closed() => {}
        }
        ended.send_replace(true);
    });
    Ok(requests)
}

/// Which node asks, by the first message of a request; what was read of it is held.
async fn node(body: &mut Incoming, held: &mut VecDeque<Frame<Bytes>>) -> String {
    let (mut deframer, mut node, mut came) = (Deframer::default(), None, 0);
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            came += data.len();
            deframer.feed(data, |found| {
                let request = match found {
                    Found::Message(bytes) => DiscoveryRequest::decode(bytes).unwrap_or_default(),
                    Found::Opaque(_) => DiscoveryRequest::default(),
                };
                node.get_or_insert_with(|| request.node.unwrap_or_default().id);
            });
        }
        let last = frame.is_trailers();
        held.push_back(frame);
        if node.is_some() || last || came > MOST_HELD {
            break;
        }
    }
    node.unwrap_or_default()
}

/// The RPCs that are looked into; all others pass.
fn overheard(path: &str) -> Option<Rpc> {
    match path {
        "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets" => Some(Rpc::SdsStream),
        "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets" => Some(Rpc::SdsFetch),
        _ => None,
    }
}

fn relayed(response: Response<Incoming>, conversation: Option<&Arc<Conversation>>) -> Response<Relayed> {
    let (head, body) = response.into_parts();
    if let Some(conversation) = conversation.filter(|_| body.is_end_stream()) {
        // gRPC's "trailers only".
        conversation.close("provider", &status(&head.headers));
    }
    Response::from_parts(head, wrapped(body, VecDeque::new(), Direction::Response, conversation))
}

fn wrapped(
    body: Incoming,
    held: VecDeque<Frame<Bytes>>,
    direction: Direction,
    conversation: Option<&Arc<Conversation>>,
) -> Relayed {
    match conversation {
        Some(conversation) => Either::Left(Overheard { body, held, direction, conversation: conversation.clone() }),
        None => Either::Right(body),
    }
}
