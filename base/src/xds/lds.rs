//! A small LDS server (envoy/service/listener/v3/lds.proto, state of the world): listeners that a proxy is given later.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::Utf8Path;
use futures::Stream;
use prost::Message as _;
use prost_types::{Any, ListValue, Struct, Value as ProtoValue, value::Kind};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::pb::envoy::config::core::v3::{
    Address, SocketAddress, TransportSocket, address, socket_address, transport_socket,
};
use super::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use super::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use super::pb::envoy::service::listener::v3::listener_discovery_service_server::{
    ListenerDiscoveryService, ListenerDiscoveryServiceServer,
};
use super::serve::serve_until;
use super::socket::{Socket, SocketError};
use crate::timeline::{ListenerAnswered, ListenerSent, ProxyId, Recorder, Source, said};

const TYPE_URL: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// A served socket; it goes away with this value.
pub struct Lds {
    desk: Arc<Desk>,
    task: JoinHandle<()>,
    _stop: oneshot::Sender<()>,
    _socket: Socket,
}

impl Lds {
    /// Serves `path` to these proxies, which it knows by their `node.id`. Nobody has a listener yet.
    pub fn serve(path: &Utf8Path, proxies: &[ProxyId], recorder: Recorder) -> Result<Self, SocketError> {
        let mut socket = Socket::bind(path)?;
        let io = |source| SocketError::Io { path: path.to_owned(), source };
        let listener = socket.take_listener().map_err(io)?;
        let offers = proxies.iter().map(|id| (id.to_string(), (id.clone(), watch::Sender::new(Offer::default()))));
        let desk = Arc::new(Desk { offers: Mutex::new(offers.collect()), recorder });
        let service = ListenerDiscoveryServiceServer::new(Service { desk: desk.clone() });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve_until(service, listener, stopped));
        Ok(Self { desk, task, _stop: stop, _socket: socket })
    }

    /// Gives the proxy one listener more, in the form of Envoy's JSON; what it answers is recorded.
    pub fn add(&self, proxy: &ProxyId, listener: &Value) -> Result<(), LdsError> {
        let (name, address, resource) = to_listener(listener).ok_or(LdsError::NoListener)?;
        let offers = self.desk.lock();
        let (_, offer) = offers.get(proxy.as_str()).ok_or_else(|| LdsError::NoSuchProxy(proxy.clone()))?;
        let sent = ListenerSent { name: name.clone(), address };
        self.desk.recorder.record(Source::Harness, Some(proxy), None, sent);
        offer.send_modify(|offer| {
            offer.version += 1;
            offer.listeners.push((name, resource));
        });
        Ok(())
    }
}

impl Drop for Lds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a listener can't be given.
#[derive(Debug, thiserror::Error)]
pub enum LdsError {
    /// It has not the form that this server knows: a name, an address, one chain with one filter.
    #[error("this is no listener of the known form")]
    NoListener,
    /// Nobody of that name.
    #[error("there is no proxy {0}")]
    NoSuchProxy(ProxyId),
}

/// What a proxy is to have.
#[derive(Debug, Clone, Default)]
struct Offer {
    version: u64,
    listeners: Vec<(String, Any)>,
}

struct Desk {
    offers: Mutex<HashMap<String, (ProxyId, watch::Sender<Offer>)>>,
    recorder: Recorder,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (ProxyId, watch::Sender<Offer>)>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Service {
    desk: Arc<Desk>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ListenerDiscoveryService for Service {
    type StreamListenersStream = Responses;

    async fn stream_listeners(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamListenersStream>, Status> {
        let (responses, stream) = mpsc::channel(4);
        tokio::spawn(converse(self.desk.clone(), request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// One stream, from its first request to its end.
async fn converse(
    desk: Arc<Desk>,
    mut requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    let Ok(Some(first)) = requests.message().await else { return };
    let node = first.node.map(|node| node.id).unwrap_or_default();
    let known = desk.lock().get(&node).map(|(id, offer)| (id.clone(), offer.subscribe()));
    let Some((proxy, mut offer)) = known else {
        let _ = responses.send(Err(Status::not_found(format!("there is no proxy {node:?}")))).await;
        return;
    };
    loop {
        let now = offer.borrow_and_update().clone();
        let response = DiscoveryResponse {
            version_info: now.version.to_string(),
            nonce: now.version.to_string(),
            type_url: TYPE_URL.to_owned(),
            resources: now.listeners.iter().map(|(_, listener)| listener.clone()).collect(),
        };
        if responses.send(Ok(response)).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                changed = offer.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                request = requests.message() => {
                    let Ok(Some(request)) = request else { return };
                    if request.response_nonce == now.version.to_string()
                        && let Some((name, _)) = now.listeners.last()
                    {
                        let error = request.error_detail.map(|e| said(&e.message));
                        let answered = ListenerAnswered { name: name.clone(), error };
                        desk.recorder.record(Source::Harness, Some(&proxy), None, answered);
                    }
                }
            }
        }
    }
}

/// From Envoy's JSON: the name, the address in words, and the resource. Filters and TLS travel as `TypedStruct`, which
/// Envoy takes for any extension: they stay in the form in which bootstraps have them.
fn to_listener(json: &Value) -> Option<(String, String, Any)> {
    let name = json["name"].as_str()?.to_owned();
    let socket = &json["address"]["socket_address"];
    let (host, port) = (socket["address"].as_str()?, u32::try_from(socket["port_value"].as_u64()?).ok()?);
    let chain = &json["filter_chains"][0];
    let filter = &chain["filters"][0];
    let listener = Listener {
        name: name.clone(),
        stat_prefix: json["stat_prefix"].as_str().unwrap_or_default().to_owned(),
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: host.to_owned(),
                port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
            })),
        }),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: filter["name"].as_str()?.to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(typed_struct(&filter["typed_config"])?)),
            }],
            transport_socket: match chain.get("transport_socket") {
                None => None,
                Some(tls) => Some(TransportSocket {
                    name: tls["name"].as_str()?.to_owned(),
                    config_type: Some(transport_socket::ConfigType::TypedConfig(typed_struct(&tls["typed_config"])?)),
                }),
            },
        }],
    };
    let listener = Any { type_url: TYPE_URL.to_owned(), value: listener.encode_to_vec() };
    Some((name, format!("{host}:{port}"), listener))
}

/// xds/type/v3/typed_struct.proto
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

fn typed_struct(config: &Value) -> Option<Any> {
    let mut fields = config.as_object()?.clone();
    let type_url = fields.remove("@type")?.as_str()?.to_owned();
    let fields = fields.iter().map(|(key, value)| (key.clone(), proto(value))).collect();
    let typed = TypedStruct { type_url, value: Some(Struct { fields }) };
    Some(Any { type_url: "type.googleapis.com/xds.type.v3.TypedStruct".to_owned(), value: typed.encode_to_vec() })
}

fn proto(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(proto).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), proto(value))).collect(),
        }),
    };
    ProtoValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listener_keeps_its_name_its_address_and_its_tls() {
        let tls = json!({ "@type": "type.googleapis.com/x.Tls", "require_client_certificate": true });
        let (name, at, any) = to_listener(&json!({
            "name": "late",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 15004 } },
            "filter_chains": [{
                "filters": [{ "name": "hcm", "typed_config": { "@type": "type.googleapis.com/x.Hcm", "n": [1, null] } }],
                "transport_socket": { "name": "tls", "typed_config": tls },
            }],
        }))
        .unwrap();
        assert_eq!((name.as_str(), at.as_str(), any.type_url.as_str()), ("late", "127.0.0.1:15004", TYPE_URL));
        let listener = Listener::decode(any.value.as_slice()).unwrap();
        let socket = listener.filter_chains[0].transport_socket.clone().unwrap();
        let Some(transport_socket::ConfigType::TypedConfig(typed)) = socket.config_type else { panic!("no config") };
        let typed = TypedStruct::decode(typed.value.as_slice()).unwrap();
        assert_eq!(typed.type_url, "type.googleapis.com/x.Tls");
        assert_eq!(typed.value.unwrap().fields["require_client_certificate"], proto(&json!(true)));
    }

    #[test]
    fn what_is_no_listener_is_refused() {
        for json in [json!(null), json!([]), json!({ "name": "late" }), json!({ "name": 1, "address": {} })] {
            assert!(to_listener(&json).is_none(), "{json}");
        }
    }
}
