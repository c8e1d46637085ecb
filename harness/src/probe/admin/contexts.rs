//! Where the TLS contexts in a whole `/config_dump` have their certificates from (Envoy's `CommonTlsContext`): from a
//! static secret, from a file, inline; or by a subscription, and from whom (its `ConfigSource`).

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config_dump::TlsCertificate;
use super::{AnswerError, object};
use crate::timeline::{CertFacts, SecretSource, SourceKind, StaticContext};

/// Private keys are not even looked at: no field here takes one.
#[derive(Deserialize)]
struct CommonTlsContext {
    #[serde(default)]
    tls_certificates: Vec<TlsCertificate>,
    #[serde(default)]
    tls_certificate_sds_secret_configs: Vec<SecretConfig>,
}

#[derive(Deserialize)]
struct SecretConfig {
    #[serde(default)]
    name: String,
    /// Absent: a secret of the bootstrap is meant.
    #[serde(default)]
    sds_config: Option<Value>,
}

#[derive(Deserialize)]
struct NamedSecret {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tls_certificate: TlsCertificate,
}

/// As far as the dump shows them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Contexts {
    /// Those whose certificate no update reaches. A listener or cluster shows in several places of the dump; each context
    /// of it is given once.
    pub(super) fixed: Vec<StaticContext>,
    /// Where the others get theirs.
    pub(super) subscriptions: Vec<SecretSource>,
}

pub(super) fn parse(body: &[u8]) -> Result<Contexts, AnswerError> {
    let dump: Map<String, Value> = object(body)?;
    let configs = dump.get("configs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let secrets = configs.iter().flat_map(|c| c.get("static_secrets").and_then(Value::as_array)).flatten();
    let secrets = secrets.filter_map(|s| NamedSecret::deserialize(s.get("secret")?).ok());
    let secrets = secrets.map(|s| (s.name, s.tls_certificate.chain())).collect();
    let mut addresses = HashMap::new();
    configs.iter().for_each(|config| addresses_of(config, &mut addresses));
    let mut found = Found { secrets, addresses, contexts: Vec::new(), subscriptions: Vec::new() };
    configs.iter().for_each(|config| found.within(config, ""));
    let counted = |(source, places): (SecretSource, HashSet<String>)| SecretSource {
        places: u32::try_from(places.len()).unwrap_or(u32::MAX),
        ..source
    };
    let mut subscriptions: Vec<_> = found.subscriptions.into_iter().map(counted).collect();
    subscriptions.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Contexts { fixed: found.contexts, subscriptions })
}

/// The first address of each cluster, by its name.
fn addresses_of(value: &Value, all: &mut HashMap<String, String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| addresses_of(item, all)),
        Value::Object(map) => {
            let name = map.get("name").and_then(Value::as_str);
            let address = map.get("load_assignment").and_then(|assignment| {
                let address = assignment.pointer("/endpoints/0/lb_endpoints/0/endpoint/address")?;
                let pipe = address.pointer("/pipe/path").and_then(Value::as_str).map(|path| format!("unix:{path}"));
                pipe.or_else(|| {
                    let socket = address.get("socket_address")?;
                    Some(format!("{}:{}", socket.get("address")?.as_str()?, socket.get("port_value")?))
                })
            });
            if let Some((name, address)) = name.zip(address) {
                all.insert(name.to_owned(), address);
            }
            map.values().for_each(|value| addresses_of(value, all));
        }
        _ => {}
    }
}

struct Found {
    secrets: HashMap<String, Vec<CertFacts>>,
    addresses: HashMap<String, String>,
    /// With the places that say so: one may show several times in the dump.
    subscriptions: Vec<(SecretSource, HashSet<String>)>,
    contexts: Vec<StaticContext>,
}

impl Found {
    /// JSON is nested as deep as its reader allows, no deeper.
    fn within(&mut self, value: &Value, place: &str) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.within(item, place)),
            Value::Object(map) => {
                if let Some(context) = map.get("common_tls_context").map(CommonTlsContext::deserialize) {
                    // What has another form than this one is none that we know.
                    context.into_iter().for_each(|context| self.take(context, place));
                }
                for (key, value) in map {
                    let kind = key.strip_suffix('s').unwrap_or(key);
                    if !matches!(kind, "listener" | "cluster") {
                        self.within(value, place);
                        continue;
                    }
                    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                    for item in items {
                        let name = item.get("name").and_then(Value::as_str);
                        self.within(item, &name.map_or(place.to_owned(), |name| format!("{kind} {name}")));
                    }
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, context: CommonTlsContext, place: &str) {
        for certificate in context.tls_certificates {
            let from = certificate.file().map_or("inline".to_owned(), |path| format!("file {path}"));
            self.add(place, from, certificate.chain());
        }
        for config in context.tls_certificate_sds_secret_configs {
            match &config.sds_config {
                None => {
                    let chain = self.secrets.get(&config.name).cloned().unwrap_or_default();
                    self.add(place, format!("static secret {}", config.name), chain);
                }
                Some(source) => {
                    let (by, from) = self.source(source);
                    self.subscribe(SecretSource { name: config.name, by, from, places: 0 }, place);
                }
            }
        }
    }

    /// What a `ConfigSource` says.
    fn source(&self, source: &Value) -> (SourceKind, String) {
        let path = source.pointer("/path_config_source/path").or_else(|| source.get("path")).and_then(Value::as_str);
        if let Some(path) = path {
            return (SourceKind::File, path.to_owned());
        }
        if source.get("ads").is_some() {
            return (SourceKind::Stream, "ADS".to_owned());
        }
        let api = source.get("api_config_source");
        let kind = api.and_then(|api| api.get("api_type")).and_then(Value::as_str).unwrap_or_default();
        let service = api.and_then(|api| api.pointer("/grpc_services/0"));
        let cluster = service.and_then(|s| s.pointer("/envoy_grpc/cluster_name")).and_then(Value::as_str);
        let uri = service.and_then(|s| s.pointer("/google_grpc/target_uri")).and_then(Value::as_str);
        match (kind, cluster, uri) {
            ("GRPC" | "DELTA_GRPC", Some(cluster), _) => {
                let at = self.addresses.get(cluster).map(|at| format!(" ({at})")).unwrap_or_default();
                (SourceKind::Stream, format!("cluster {cluster}{at}"))
            }
            ("GRPC" | "DELTA_GRPC", None, Some(uri)) => (SourceKind::Stream, uri.to_owned()),
            (kind, ..) => (SourceKind::Other, if kind.is_empty() { "elsewhere" } else { kind }.to_owned()),
        }
    }

    fn subscribe(&mut self, source: SecretSource, place: &str) {
        match self.subscriptions.iter_mut().find(|(known, _)| *known == source) {
            Some((_, places)) => drop(places.insert(place.to_owned())),
            None => self.subscriptions.push((source, HashSet::from([place.to_owned()]))),
        }
    }

    fn add(&mut self, place: &str, from: String, chain: Vec<CertFacts>) {
        let context = StaticContext { place: place.to_owned(), from, chain };
        if !self.contexts.contains(&context) {
            self.contexts.push(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_by_a_subscription_is_not_static() {
        let body = serde_json::json!({"configs": [{"static_listeners": [{"listener": {"name": "a", "filter_chains": [
            {"transport_socket": {"typed_config": {"common_tls_context": {
                "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {"ads": {}}}]}}}}]}}]}]});
        assert!(parse(body.to_string().as_bytes()).unwrap().fixed.is_empty());
    }

    #[test]
    fn where_a_secret_comes_from_is_told_with_the_socket() {
        let context = |config: Value| {
            serde_json::json!({"common_tls_context": {"tls_certificate_sds_secret_configs": [
                {"name": "default", "sds_config": config}]}})
        };
        let grpc = |cluster: &str| {
            serde_json::json!({"api_config_source": {"api_type": "GRPC", "grpc_services": [
                {"envoy_grpc": {"cluster_name": cluster}}]}})
        };
        let body = serde_json::json!({"configs": [
            {"bootstrap": {"static_resources": {"clusters": [{"name": "sds-grpc", "load_assignment": {"endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "./socket"}}}}]}]}}]}}},
            {"dynamic_listeners": [
                {"listener": {"name": "a", "filter_chains": [context(grpc("sds-grpc")), context(grpc("sds-grpc"))]}},
                {"listener": {"name": "b", "filter_chains": [context(grpc("sds-grpc")), context(grpc("other"))]}},
            ]},
            {"x": [context(serde_json::json!({"path_config_source": {"path": "/certs/sds.yaml"}})),
                context(serde_json::json!({"ads": {}})), context(serde_json::json!({}))]},
        ]});
        let told: Vec<_> = parse(body.to_string().as_bytes())
            .unwrap()
            .subscriptions
            .into_iter()
            .map(|s| (s.by, s.from, s.places))
            .collect();
        let expected = [
            (SourceKind::Stream, "cluster sds-grpc (unix:./socket)", 2),
            (SourceKind::Stream, "cluster other", 1),
            (SourceKind::File, "/certs/sds.yaml", 1),
            (SourceKind::Stream, "ADS", 1),
            (SourceKind::Other, "elsewhere", 1),
        ];
        assert_eq!(told, expected.map(|(by, from, n)| (by, from.to_owned(), n)));
    }

    #[test]
    fn nonsense_is_an_error_or_nothing() {
        for body in [&b""[..], b"[]", b"<html>"] {
            assert!(parse(body).is_err());
        }
        for body in [r#"{}"#, r#"{"configs":3}"#, r#"{"configs":[{"common_tls_context":{"tls_certificates":7}}]}"#] {
            assert_eq!(parse(body.as_bytes()).unwrap(), Contexts::default(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,40}") {
            let _ = parse(&body);
            let dump = serde_json::json!({"configs": [{"listeners": [{"name": &text, "common_tls_context": {
                "tls_certificates": [{"certificate_chain": {"inline_bytes": &text}}]}}]}]});
            prop_assert!(parse(dump.to_string().as_bytes()).is_ok());
        }
    }
}
