//! A fresh subscriber of the harness's own: what would a proxy get that asked now?

use camino::Utf8Path;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::message::SECRET_TYPE_URL;
use crate::timeline::{Blind, Recorder, SecretName, Sent, Source, Subscribed};

/// Numbers of the witness's streams: far from those of the proxies.
const STREAM: u64 = 1 << 40;

/// Subscribes to the certificate on a connection of its own, and waits for the first response for as long as the
/// caller does. What is in the response stays unread.
pub(crate) async fn ask(socket: &Utf8Path, recorder: &Recorder) {
    let stream = STREAM + recorder.len() as u64;
    let name = SecretName::default_svid();
    let node = "rotacheck-witness".to_owned();
    let subscribed = Subscribed {
        stream,
        type_url: SECRET_TYPE_URL.to_owned(),
        names: vec![name.as_str().to_owned()],
        version_info: String::new(),
        node: node.clone(),
    };
    let request = DiscoveryRequest {
        node: Some(Node { id: node, ..Default::default() }),
        resource_names: subscribed.names.clone(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..Default::default()
    };
    let blind = |why: String| {
        let what = "a fresh subscription".to_owned();
        recorder.record(Source::Witness, None, Some(&name), Blind { layer: None, what, why });
    };
    // A listener that nobody serves takes connections too, as many as its backlog holds: dialled before it is told.
    let dialled = match UnixStream::connect(socket).await {
        Ok(dialled) => dialled,
        Err(e) => return blind(format!("the provider's socket can't be dialled: {e}")),
    };
    recorder.record(Source::Witness, None, Some(&name), subscribed);
    match first(dialled, request).await {
        Ok(version_info) => {
            let type_url = SECRET_TYPE_URL.to_owned();
            let sent = Sent { stream, type_url, version_info, nonce: String::new(), secrets: Vec::new() };
            recorder.record(Source::Witness, None, Some(&name), sent);
        }
        Err(why) => blind(why),
    }
}

/// The version of the first response.
async fn first(dialled: UnixStream, request: DiscoveryRequest) -> Result<String, String> {
    let mut dialled = Some(hyper_util::rt::TokioIo::new(dialled));
    let connector = tower::service_fn(move |_: Uri| {
        let dialled = dialled.take().ok_or_else(|| std::io::Error::other("the connection is lost"));
        async move { dialled }
    });
    let channel: Channel =
        Endpoint::from_static("http://sds").connect_with_connector(connector).await.map_err(|e| e.to_string())?;
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut responses = client.stream_secrets(requests).await.map_err(|e| e.to_string())?.into_inner();
    match responses.message().await {
        Ok(Some(response)) => Ok(response.version_info),
        Ok(None) => Err("the stream ended without a response".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}
