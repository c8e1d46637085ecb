//! The TLS contexts in a whole `/config_dump` whose certificates come by no SDS subscription: from a static secret, from a
//! file, or inline (Envoy's `CommonTlsContext`).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config_dump::TlsCertificate;
use super::{AnswerError, object};
use crate::timeline::{CertFacts, StaticContext};

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

/// A listener or cluster shows in several places of the dump; each context of it is given once.
pub(super) fn parse(body: &[u8]) -> Result<Vec<StaticContext>, AnswerError> {
    let dump: Map<String, Value> = object(body)?;
    let configs = dump.get("configs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let secrets = configs.iter().flat_map(|c| c.get("static_secrets").and_then(Value::as_array)).flatten();
    let secrets = secrets.filter_map(|s| NamedSecret::deserialize(s.get("secret")?).ok());
    let secrets = secrets.map(|s| (s.name, s.tls_certificate.chain())).collect();
    let mut found = Found { secrets, contexts: Vec::new() };
    configs.iter().for_each(|config| found.within(config, ""));
    Ok(found.contexts)
}

struct Found {
    secrets: HashMap<String, Vec<CertFacts>>,
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
        for config in context.tls_certificate_sds_secret_configs.into_iter().filter(|c| c.sds_config.is_none()) {
            let chain = self.secrets.get(&config.name).cloned().unwrap_or_default();
            self.add(place, format!("static secret {}", config.name), chain);
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
        assert!(parse(body.to_string().as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_an_error_or_nothing() {
        for body in [&b""[..], b"[]", b"<html>"] {
            assert!(parse(body).is_err());
        }
        for body in [r#"{}"#, r#"{"configs":3}"#, r#"{"configs":[{"common_tls_context":{"tls_certificates":7}}]}"#] {
            assert!(parse(body.as_bytes()).unwrap().is_empty(), "{body}");
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
