//! One connection: requests of the proxy's, made again on a connection to the provider.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Either;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

use super::super::message::Rpc;
use super::Ear;
use super::overhear::{Conversation, Direction, Overheard, status};

/// Of an RPC that is overheard, or of another one.
type Relayed = Either<Overheard, Incoming>;

/// How long streams may take to end once the provider's connection has.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// An Envoy has a stream per secret, hyper would allow 200.
const MOST_STREAMS: u32 = 100_000;

/// Relays until one of both sides ends.
pub(super) async fn relay(downstream: UnixStream, upstream: UnixStream, pid: Option<i32>, ear: Arc<Ear>) {
    let Ok((requests, provider)) =
        hyper::client::conn::http2::handshake::<_, _, Relayed>(TokioExecutor::new(), TokioIo::new(upstream)).await
    else {
        return;
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut requests, ear) = (requests.clone(), ear.clone());
        async move {
            let conversation = overheard(request.uri().path()).map(|rpc| Conversation::open(ear, rpc, pid));
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, wrapped(body, Direction::Request, conversation.as_ref()));
            match requests.send_request(request).await {
                Ok(response) => Ok(relayed(response, conversation.as_ref())),
                Err(e) => {
                    if let Some(conversation) = conversation {
                        conversation.close("connection", &e.to_string());
                    }
                    Err(e)
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
        _ = provider => {}
    }
    proxy.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_WORDS, proxy).await;
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
    Response::from_parts(head, wrapped(body, Direction::Response, conversation))
}

fn wrapped(body: Incoming, direction: Direction, conversation: Option<&Arc<Conversation>>) -> Relayed {
    match conversation {
        Some(conversation) => Either::Left(Overheard { body, direction, conversation: conversation.clone() }),
        None => Either::Right(body),
    }
}
