//! As much of the Kubernetes API as istiod needs to start: nothing is in it but a few namespaces, watches are held and
//! never tell anything, and what is created or updated is kept for as long as this lives.
//!
//! What it answers was found by looking at what istiod asks; it is no API server for anything else.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use super::web::{Body, Server};

/// Nothing that istiod writes is longer.
const LARGEST: usize = 4 << 20;

/// A service account, as a token of it is reviewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceAccount {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The API on a loopback port; it ends when this is dropped.
pub(super) struct Kubernetes(Server);

impl Kubernetes {
    /// Serves it. A token stands for the account that it is given here; every other one is refused.
    pub(super) async fn serve(namespaces: &[&str], tokens: HashMap<String, ServiceAccount>) -> io::Result<Self> {
        let api = Arc::new(Api { objects: Mutex::default(), tokens });
        for name in namespaces {
            let path = Path { group: "v1".to_owned(), namespace: None, resource: "namespaces".to_owned(), name: None };
            api.keep(&path, json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name } }));
        }
        let server = Server::start(move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Ok(Self(server.await?))
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.0.addr()
    }
}

struct Api {
    objects: Mutex<HashMap<Path, Value>>,
    tokens: HashMap<String, ServiceAccount>,
}

/// What a request is about: `/apis/apps/v1/namespaces/x/deployments/y`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Path {
    /// `v1`, `apps/v1`.
    group: String,
    namespace: Option<String>,
    /// `deployments`.
    resource: String,
    name: Option<String>,
}

impl Path {
    /// Of what stands behind a group and its version.
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let mut namespace = None;
        if let ["namespaces", name, inner @ ..] = rest
            && !inner.is_empty()
        {
            (namespace, rest) = (Some((*name).to_owned()), inner);
        }
        let resource = (*rest.first()?).to_owned();
        Some(Self { group, namespace, resource, name: rest.get(1).map(|name| (*name).to_owned()) })
    }

    /// Whether this object is in the list.
    fn lists(&self, object: &Self) -> bool {
        (&self.group, &self.resource) == (&object.group, &object.resource)
            && (self.namespace.is_none() || self.namespace == object.namespace)
    }

    /// `Deployment` for `deployments`; a client that knows the type reads it from there, one that doesn't from here.
    fn kind(&self) -> String {
        let known = match self.resource.as_str() {
            "ingresses" => "Ingress",
            "ingressclasses" => "IngressClass",
            "endpoints" => "Endpoints",
            "configmaps" => "ConfigMap",
            "endpointslices" => "EndpointSlice",
            "serviceaccounts" => "ServiceAccount",
            "customresourcedefinitions" => "CustomResourceDefinition",
            "mutatingwebhookconfigurations" => "MutatingWebhookConfiguration",
            "validatingwebhookconfigurations" => "ValidatingWebhookConfiguration",
            other => {
                let singular = other.strip_suffix('s').unwrap_or(other);
                let mut letters = singular.chars();
                return letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
            }
        };
        known.to_owned()
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        match head.uri.path().trim_end_matches('/') {
            "/version" => return reply(json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0" })),
            "/api" => return reply(json!({ "kind": "APIVersions", "versions": ["v1"] })),
            "/apis" => return reply(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] })),
            _ => {}
        }
        let Some(path) = Path::of(head.uri.path()) else {
            return reply(json!({ "kind": "APIResourceList", "apiVersion": "v1", "resources": [] }));
        };
        if head.method == Method::GET {
            let query = head.uri.query().unwrap_or_default();
            let asks = |what: &str| query.split('&').any(|pair| pair == what);
            let metadata_only = head
                .headers
                .get(header::ACCEPT)
                .and_then(|accept| accept.to_str().ok())
                .is_some_and(|accept| accept.contains("PartialObjectMetadata"));
            return match &path.name {
                Some(_) => self.get(&path).map_or_else(not_found, reply),
                None if asks("watch=true") || asks("watch=1") => self.watch(&path, asks("sendInitialEvents=true")),
                None => reply(self.list(&path, metadata_only)),
            };
        }
        let Ok(body) = Limited::new(body, LARGEST).collect().await else { return refused("too long, or cut off") };
        let Ok(object) = serde_json::from_slice::<Value>(&body.to_bytes()) else { return refused("no JSON") };
        match head.method {
            Method::POST if path.resource == "tokenreviews" => created(self.review(object)),
            Method::POST => created(self.keep(&path, object)),
            Method::PUT => reply(self.keep(&path, object)),
            Method::DELETE => reply(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })),
            _ => not_found(),
        }
    }

    fn get(&self, path: &Path) -> Option<Value> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn keep(&self, path: &Path, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let name = path.name.clone().or_else(|| Some(object["metadata"]["name"].as_str()?.to_owned()));
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!((objects.len() + 2).to_string());
        metadata["uid"] = json!(format!("{}-{}", path.resource, name.as_deref().unwrap_or_default()));
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if let Some(namespace) = &path.namespace {
            metadata["namespace"] = json!(namespace);
        }
        objects.insert(Path { name, ..path.clone() }, object.clone());
        object
    }

    fn listed(&self, path: &Path) -> Vec<Value> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.iter().filter(|(at, _)| path.lists(at)).map(|(_, object)| object.clone()).collect()
    }

    fn list(&self, path: &Path, metadata_only: bool) -> Value {
        let (mut items, mut kind, mut version) = (self.listed(path), path.kind() + "List", path.group.clone());
        if metadata_only {
            (kind, version) = ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned());
            for item in &mut items {
                *item = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"],
                });
            }
        }
        json!({ "kind": kind, "apiVersion": version, "metadata": { "resourceVersion": "1" }, "items": items })
    }

    /// What there is, if that is asked for, and then nothing more, for as long as the client stays.
    fn watch(&self, path: &Path, initial: bool) -> Response<Body> {
        let mut lines = String::new();
        if initial {
            for object in self.listed(path) {
                lines += &format!("{}\n", json!({ "type": "ADDED", "object": object }));
            }
            let end = json!({ "type": "BOOKMARK", "object": {
                "kind": path.kind(), "apiVersion": path.group,
                "metadata": { "resourceVersion": "1", "annotations": { "k8s.io/initial-events-end": "true" } },
            } });
            lines += &format!("{end}\n");
        }
        let first = futures::stream::iter([Ok(Frame::data(Bytes::from(lines)))]);
        response(StatusCode::OK, BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending()))))
    }

    fn review(&self, mut review: Value) -> Value {
        let account = review["spec"]["token"].as_str().and_then(|token| self.tokens.get(token));
        review["status"] = match account {
            Some(ServiceAccount { namespace, name }) => json!({
                "authenticated": true,
                "user": {
                    "username": format!("system:serviceaccount:{namespace}:{name}"),
                    "groups": ["system:serviceaccounts"],
                },
                "audiences": review["spec"]["audiences"],
            }),
            None => json!({ "authenticated": false, "error": "no such token" }),
        };
        // It goes back to who sent it, and must not be kept.
        review
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    response(status, Full::new(Bytes::from(value.to_string())).boxed())
}

fn reply(value: Value) -> Response<Body> {
    json_response(StatusCode::OK, &value)
}

fn created(value: Value) -> Response<Body> {
    json_response(StatusCode::CREATED, &value)
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
        "code": code.as_u16(),
    });
    json_response(code, &status)
}

fn not_found() -> Response<Body> {
    failure(StatusCode::NOT_FOUND, "NotFound", "not found")
}

fn refused(why: &str) -> Response<Body> {
    failure(StatusCode::BAD_REQUEST, "BadRequest", why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Deadline;
    use crate::fleet::admin;

    async fn asked(kubernetes: &Kubernetes, path: &str) -> (u16, Value) {
        let deadline = Deadline::after(Duration::from_secs(30));
        let (status, body) = admin::ask(kubernetes.addr(), path, deadline).await.unwrap();
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn there_is_nothing_but_the_namespaces() {
        let kubernetes = Kubernetes::serve(&["default", "demo"], HashMap::new()).await.unwrap();
        assert_eq!(asked(&kubernetes, "/version").await.0, 200);
        let (_, list) = asked(&kubernetes, "/api/v1/namespaces").await;
        assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("NamespaceList"), 2));
        let (_, list) = asked(&kubernetes, "/apis/discovery.k8s.io/v1/endpointslices?limit=500").await;
        assert_eq!(list["kind"], "EndpointSliceList");
        assert_eq!(list["items"], json!([]));
        assert_eq!(asked(&kubernetes, "/api/v1/namespaces/demo").await.1["metadata"]["name"], "demo");
        assert_eq!(asked(&kubernetes, "/api/v1/namespaces/demo/secrets/x").await.0, 404);
    }

    #[tokio::test]
    async fn a_watch_is_held() {
        let kubernetes = Kubernetes::serve(&["default"], HashMap::new()).await.unwrap();
        let watch = "/api/v1/pods?watch=true&sendInitialEvents=true";
        let ended = admin::ask(kubernetes.addr(), watch, Deadline::after(Duration::from_millis(200))).await;
        assert!(matches!(ended, Err(crate::fleet::ReachError::TimedOut { .. })), "{ended:?}");
    }

    #[test]
    fn a_token_stands_for_its_account_only() {
        let account = ServiceAccount { namespace: "demo".to_owned(), name: "a".to_owned() };
        let api = Api { objects: Mutex::default(), tokens: [("secret".to_owned(), account)].into() };
        let review = |token: &str| api.review(json!({ "spec": { "token": token, "audiences": ["istio-ca"] } }));
        let good = review("secret");
        assert_eq!(good["status"]["user"]["username"], "system:serviceaccount:demo:a");
        assert_eq!(good["status"]["audiences"], json!(["istio-ca"]));
        assert_eq!(review("guessed")["status"]["authenticated"], false);
        assert_eq!(api.review(json!({}))["status"]["authenticated"], false);
    }

    #[test]
    fn what_is_created_can_be_read_again() {
        let api = Api { objects: Mutex::default(), tokens: HashMap::new() };
        let path = |text| Path::of(text).unwrap();
        api.keep(
            &path("/api/v1/namespaces/demo/configmaps"),
            json!({ "metadata": { "name": "x" }, "data": { "a": "b" } }),
        );
        let kept = api.get(&path("/api/v1/namespaces/demo/configmaps/x")).unwrap();
        assert_eq!((&kept["data"]["a"], &kept["metadata"]["namespace"]), (&json!("b"), &json!("demo")));
        assert_eq!(api.listed(&path("/api/v1/configmaps")).len(), 1);
        assert_eq!(api.listed(&path("/api/v1/namespaces/other/configmaps")).len(), 0);
    }

    #[test]
    fn strange_paths_are_nothing() {
        for strange in ["", "/", "/healthz", "/api", "/apis/x", "/api/v1", "//api//v1//"] {
            assert_eq!(Path::of(strange), None, "{strange}");
        }
    }
}
