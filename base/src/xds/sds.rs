//! SDS v3 (envoy/service/secret/v3/sds.proto), state of the world: the xDS protocol's rules of versions and nonces.

use std::collections::{BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::message::{Event, Rpc, SECRET_TYPE_URL};
use super::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use super::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use super::pb::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use super::serve::{Hub, Open, Order, Orders, status_text};
use crate::timeline::said;

pub(super) struct Sds {
    pub(super) hub: Arc<Hub>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type StreamSecretsStream = Responses;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (open, orders) = self.hub.open(Rpc::SdsStream, &request);
        let (responses, stream) = mpsc::channel(16);
        tokio::spawn(converse(open, request.into_inner(), orders, responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let (open, mut orders) = self.hub.open(Rpc::SdsFetch, &request);
        let request = request.into_inner();
        if let Err(status) = check(&request) {
            open.close("provider", status_text(&status));
            return Err(status);
        }
        open.emit(subscription(open.stream, &request));
        match orders.recv().await {
            Some(Order::Push(push)) => {
                open.emit(Event::Sent { stream: open.stream, nonce: push.nonce.clone() });
                open.close("provider", "Ok");
                Ok(Response::new(push.to_discovery_response()))
            }
            Some(Order::Close(status)) => {
                open.close("provider", status_text(&status));
                Err(status)
            }
            None => Err(Status::unavailable("the provider stops")),
        }
    }
}

/// One StreamSecrets RPC, from its first request to its end.
async fn converse(
    open: Open,
    mut requests: Streaming<DiscoveryRequest>,
    mut orders: Orders,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    let mut dialogue = Dialogue::default();
    loop {
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => {
                    if let Err(status) = check(&request) {
                        open.close("provider", status_text(&status));
                        let _ = responses.send(Err(status)).await;
                        return;
                    }
                    dialogue.hear(open.stream, &request).into_iter().for_each(|event| open.emit(event));
                }
                Ok(None) => return open.close("proxy", "Ok"),
                Err(status) => {
                    let by = if status.code() == Code::Cancelled { "proxy" } else { "connection" };
                    return open.close(by, status_text(&status));
                }
            },
            order = orders.recv() => match order {
                Some(Order::Push(push)) => {
                    dialogue.said(&push.nonce);
                    // Reported first: the peer's answer must not come before it.
                    open.emit(Event::Sent { stream: open.stream, nonce: push.nonce.clone() });
                    if responses.send(Ok(push.to_discovery_response())).await.is_err() {
                        return open.close("connection", "the response could not be written");
                    }
                }
                Some(Order::Close(status)) => {
                    open.close("provider", status_text(&status));
                    let _ = responses.send(Err(status)).await;
                    return;
                }
                None => return open.close("provider", "the provider stops"),
            },
            () = responses.closed() => return open.close("connection", "the peer went away"),
        }
    }
}

fn check(request: &DiscoveryRequest) -> Result<(), Status> {
    if request.type_url.is_empty() || request.type_url == SECRET_TYPE_URL {
        Ok(())
    } else {
        Err(Status::invalid_argument(format!("this server has no resources of type {:?}", request.type_url)))
    }
}

/// What was said on a stream so far.
#[derive(Default)]
pub(super) struct Dialogue {
    names: Option<BTreeSet<String>>,
    last_nonce: String,
    nonces: HashSet<String>,
}

impl Dialogue {
    pub(super) fn said(&mut self, nonce: &str) {
        nonce.clone_into(&mut self.last_nonce);
        self.nonces.insert(nonce.to_owned());
    }

    /// What a request means. An answer to an earlier push of this stream is still an answer to it, but only one to the
    /// last push may change the subscription.
    pub(super) fn hear(&mut self, stream: u64, request: &DiscoveryRequest) -> Vec<Event> {
        let nonce = request.response_nonce.clone();
        let version_info = request.version_info.clone();
        let mut events = Vec::new();
        if self.nonces.contains(&nonce) {
            events.push(match &request.error_detail {
                None => Event::Acked { stream, nonce: nonce.clone(), version_info },
                Some(e) => Event::Nacked { stream, nonce: nonce.clone(), version_info, error: said(&e.message) },
            });
        } else if self.names.is_some() && !nonce.is_empty() {
            return vec![Event::Stale { stream, nonce }];
        }
        let names: BTreeSet<_> = request.resource_names.iter().cloned().collect();
        // Before the first push there is no nonce that could be stale.
        let current = nonce == self.last_nonce || self.names.is_none();
        if current && self.names.as_ref() != Some(&names) {
            self.names = Some(names);
            events.push(subscription(stream, request));
        }
        events
    }
}

fn subscription(stream: u64, request: &DiscoveryRequest) -> Event {
    Event::Subscribed {
        stream,
        type_url: request.type_url.clone(),
        names: request.resource_names.clone(),
        version_info: request.version_info.clone(),
        node: request.node.as_ref().map(|n| n.id.clone()).unwrap_or_default(),
        spiffe_validator: request.node.as_ref().is_some_and(has_spiffe_validator),
        istio_path: request.node.as_ref().and_then(istio_path),
    }
}

/// Envoy has had its SPIFFE validator since 1.18.
fn has_spiffe_validator(node: &Node) -> bool {
    let Some(UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type else { return false };
    build.version.as_ref().is_some_and(|v| (v.major_number, v.minor_number) >= (1, 18))
}

/// Istio's proxies say of which namespace and service account they are (pkg/model, `NodeMetadata`).
fn istio_path(node: &Node) -> Option<String> {
    let fields = &node.metadata.as_ref()?.fields;
    let said = |key: &str| Some(fields.iter().find(|field| field.key == key)?.value.as_ref()?.string_value.as_str());
    Some(format!("ns/{}/sa/{}", said("NAMESPACE")?, said("SERVICE_ACCOUNT")?))
}

#[cfg(test)]
mod tests {
    use super::super::pb::envoy::config::core::v3::{Field, Metadata, Value};
    use super::super::pb::google::rpc::Status as RpcStatus;

    use super::*;

    fn request(names: &[&str], version: &str, nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        }
    }

    fn kinds(events: &[Event]) -> Vec<&'static str> {
        let kind = |event: &Event| match event {
            Event::Subscribed { .. } => "subscribed",
            Event::Acked { .. } => "acked",
            Event::Nacked { .. } => "nacked",
            Event::Stale { .. } => "stale",
            _ => "other",
        };
        events.iter().map(kind).collect()
    }

    #[test]
    fn a_first_request_subscribes_whatever_version_it_brings() {
        for version in ["", "17"] {
            let events = Dialogue::default().hear(1, &request(&["default"], version, ""));
            assert!(matches!(&events[..], [Event::Subscribed { version_info, .. }] if version_info == version));
        }
    }

    #[test]
    fn an_answer_is_an_ack_without_and_a_nack_with_error_detail() {
        let mut dialogue = Dialogue::default();
        dialogue.hear(1, &request(&["default"], "", ""));
        dialogue.said("n1");
        assert_eq!(kinds(&dialogue.hear(1, &request(&["default"], "1", "n1"))), ["acked"]);
        dialogue.said("n2");
        let mut refusal = request(&["default"], "1", "n2");
        refusal.error_detail = Some(RpcStatus { message: "key mismatch".into(), ..Default::default() });
        let events = dialogue.hear(1, &refusal);
        assert!(matches!(&events[..], [Event::Nacked { error, version_info, .. }]
            if error == "key mismatch" && version_info == "1"));
    }

    #[test]
    fn a_nonce_that_was_never_sent_is_stale_and_changes_nothing() {
        let mut dialogue = Dialogue::default();
        dialogue.hear(1, &request(&["default"], "", ""));
        dialogue.said("n1");
        assert_eq!(kinds(&dialogue.hear(1, &request(&["other"], "1", "nx"))), ["stale"]);
    }

    #[test]
    fn an_answer_to_a_superseded_push_counts_but_does_not_resubscribe() {
        let mut dialogue = Dialogue::default();
        dialogue.hear(1, &request(&["default"], "", ""));
        dialogue.said("n1");
        dialogue.said("n2");
        assert_eq!(kinds(&dialogue.hear(1, &request(&["default", "more"], "1", "n1"))), ["acked"]);
        assert_eq!(kinds(&dialogue.hear(1, &request(&["default", "more"], "2", "n2"))), ["acked", "subscribed"]);
    }

    #[test]
    fn other_names_are_a_new_subscription_and_another_order_is_not() {
        let mut dialogue = Dialogue::default();
        dialogue.hear(1, &request(&["a", "b"], "", ""));
        dialogue.said("n1");
        assert_eq!(kinds(&dialogue.hear(1, &request(&["b", "a"], "1", "n1"))), ["acked"]);
        assert_eq!(kinds(&dialogue.hear(1, &request(&["b"], "1", "n1"))), ["acked", "subscribed"]);
    }

    #[test]
    fn an_istio_proxy_is_of_the_account_that_it_says() {
        let node = |fields: &[(&str, &str)]| {
            let field = |(key, value): &(&str, &str)| {
                let value = Some(Value { string_value: (*value).to_owned() });
                Field { key: (*key).to_owned(), value }
            };
            Node { metadata: Some(Metadata { fields: fields.iter().map(field).collect() }), ..Node::default() }
        };
        let said = [("CLUSTER_ID", "Kubernetes"), ("NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "cart")];
        assert_eq!(istio_path(&node(&said)).as_deref(), Some("ns/shop/sa/cart"));
        assert_eq!(istio_path(&node(&said[..2])), None);
        assert_eq!(istio_path(&Node::default()), None);
    }
}
