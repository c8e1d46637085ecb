//! Questions to a proxy's admin API, and their answers as facts.
//!
//! Parsers are pure, take what they know, and tolerate what comes and goes between Envoy versions; an answer that
//! makes no sense is recorded as blindness of the layer that it would have shown.

mod certs;
mod config_dump;
mod contexts;
#[cfg(test)]
mod golden;
mod ports;
mod server;
mod stats;

pub use ports::Door;
pub use server::version_of;
pub(super) use stats::Counters;
pub use stats::STATS_PATH;

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::context::ProbeContext;
use crate::fleet::Admin;
use crate::timeline::{Certs, ConfigDump, Fact, Layer, Listeners, ServerInfo, Source, Stats};

/// Why an answer is no fact.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the answer is no JSON of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the answer is no JSON object")]
    NoObject,
    #[error("the answer is neither text nor JSON of the expected form")]
    Text,
    #[error("{what} is unreadable: {why}")]
    Field { what: &'static str, why: String },
}

impl AnswerError {
    fn field(what: &'static str, why: impl ToString) -> Self {
        Self::Field { what, why: why.to_string() }
    }
}

/// Reads a JSON object. An array is refused: derived readers would take it for an object without fields.
fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, AnswerError> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(AnswerError::NoObject);
    }
    Ok(serde_json::from_slice(body)?)
}

/// Asks `/certs`: the leaves of all live TLS contexts.
pub async fn certs(proxy: &impl Admin, ctx: &ProbeContext) -> Option<Certs> {
    ask(proxy, "/certs", Some(Layer::Loaded), certs::parse, ctx).await
}

/// Asks `/config_dump` for the active secrets; `whole`: also for those that have not arrived, and for TLS contexts that
/// have their certificate from elsewhere.
pub async fn config_dump(proxy: &impl Admin, whole: bool, ctx: &ProbeContext) -> Option<ConfigDump> {
    let deadline = ctx.deadline();
    let part = async |state: &str| {
        let path = format!("/config_dump?resource=dynamic_{state}_secrets");
        let answer = proxy.ask(&path, deadline).await.map_err(|e| e.to_string())?;
        config_dump::parse(expect_ok(answer)?.as_ref(), state).map_err(|e| format!("{path}: {e}"))
    };
    let dump = async {
        let mut dump = part("active").await?;
        if whole {
            dump.secrets.extend(part("warming").await?.secrets);
            let answer = proxy.ask("/config_dump", deadline).await.map_err(|e| e.to_string())?;
            let body = expect_ok(answer)?;
            let contexts = contexts::parse(&body).map_err(|e| format!("/config_dump: {e}"))?;
            (dump.static_contexts, dump.subscriptions) = (contexts.fixed, contexts.subscriptions);
        }
        Ok(dump)
    };
    record(proxy, "/config_dump", Some(Layer::Dumped), dump.await, ctx)
}

/// Asks `/stats` for the counters of secrets, their streams, and TLS. `whole`: also for those that are known to have
/// been at zero.
pub async fn stats(proxy: &impl Admin, whole: bool, ctx: &ProbeContext) -> Option<Stats> {
    let path = ctx.counters(proxy.id(), |counters| counters.path(proxy.process(), whole));
    let answer = proxy.ask(&path, ctx.deadline()).await.map_err(|e| e.to_string());
    let stats = answer.and_then(expect_ok).and_then(|body| stats::parse(&body).map_err(|e| e.to_string()));
    let stats = stats.map(|mut stats| {
        ctx.counters(proxy.id(), |counters| counters.take(proxy.process(), &path, &mut stats));
        stats
    });
    record(proxy, "/stats", None, stats, ctx)
}

/// Asks `/server_info`: version, state, uptime.
pub async fn server_info(proxy: &impl Admin, ctx: &ProbeContext) -> Option<ServerInfo> {
    ask(proxy, "/server_info", None, server::parse_info, ctx).await
}

/// Asks which port of a pod leads to a listener of its proxy that shows its own certificate; why none does, otherwise.
pub async fn mtls_door(proxy: &impl Admin, ctx: &ProbeContext) -> Result<Door, String> {
    let mut why = String::new();
    for kind in ["dynamic_listeners", "static_listeners"] {
        let path = format!("/config_dump?resource={kind}");
        let answer = proxy.ask(&path, ctx.deadline()).await.map_err(|e| e.to_string()).and_then(expect_ok);
        match answer.and_then(|body| ports::parse(&body).map_err(|e| format!("{path}: {e}"))) {
            Ok(Some(door)) => return Ok(door),
            Ok(None) => {}
            Err(e) => why = e,
        }
    }
    Err(if why.is_empty() {
        "no listener of it terminates TLS with its own certificate (a gateway's does in mode ISTIO_MUTUAL)".to_owned()
    } else {
        why
    })
}

/// Asks `/listeners`: those that really listen.
pub async fn listeners(proxy: &impl Admin, ctx: &ProbeContext) -> Option<Listeners> {
    ask(proxy, "/listeners?format=json", None, server::parse_listeners, ctx).await
}

async fn ask<T: Into<Fact> + Clone>(
    proxy: &impl Admin,
    path: &str,
    layer: Option<Layer>,
    parse: fn(&[u8]) -> Result<T, AnswerError>,
    ctx: &ProbeContext,
) -> Option<T> {
    let answer = proxy.ask(path, ctx.deadline()).await.map_err(|e| e.to_string());
    let fact = answer.and_then(expect_ok).and_then(|body| parse(&body).map_err(|e| e.to_string()));
    let what = path.split('?').next().unwrap_or(path);
    record(proxy, what, layer, fact, ctx)
}

fn record<T: Into<Fact> + Clone>(
    proxy: &impl Admin,
    what: &str,
    layer: Option<Layer>,
    fact: Result<T, String>,
    ctx: &ProbeContext,
) -> Option<T> {
    match fact {
        Ok(fact) => {
            ctx.recorder.record(Source::Admin, Some(proxy.id()), None, fact.clone());
            Some(fact)
        }
        Err(why) => {
            ctx.blind(Source::Admin, proxy.id(), layer, what, why);
            None
        }
    }
}

fn expect_ok((status, body): (StatusCode, Bytes)) -> Result<Bytes, String> {
    if status == StatusCode::OK {
        return Ok(body);
    }
    let body: String = String::from_utf8_lossy(&body).chars().take(200).collect();
    Err(format!("the proxy answered {status}: {}", body.trim()))
}
