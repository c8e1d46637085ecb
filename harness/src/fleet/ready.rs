//! When a proxy is ready: LIVE, with all of its listeners where they should be.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{FleetError, Proxy, ReachError};
use crate::clock::Deadline;
use crate::timeline::ProxyId;

/// Between two questions: nothing tells when the admin API begins to listen, nor when the state changes. Envoy takes
/// 50 ms and more to become LIVE, an answer takes a fraction of a millisecond; who waits long may wait a little longer.
fn pause(since: Instant) -> Duration {
    (since.elapsed() / 20).clamp(Duration::from_millis(5), Duration::from_millis(50))
}

/// A proxy that became ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Which.
    pub id: ProxyId,
    /// How long it took from the start of its process.
    pub after: Duration,
}

/// `calls`: clusters of its configuration that must have an endpoint, where that is for a control plane to tell: it learns of
/// a pod only after that is ready.
pub(super) async fn ready(
    proxy: &Proxy,
    calls: &[String],
    since: Instant,
    deadline: Deadline,
) -> Result<Live, FleetError> {
    // The last state that it told itself says more than the time-out of the last question.
    let mut state = "it did not answer".to_owned();
    loop {
        match missing(proxy, calls, deadline).await {
            Ok(None) => return Ok(Live { id: proxy.id.clone(), after: since.elapsed() }),
            Ok(Some(what)) => state = what,
            Err(ReachError::TimedOut { .. }) => {}
            Err(e) => state = e.to_string(),
        }
        if tokio::time::timeout_at(deadline.instant(), tokio::time::sleep(pause(since))).await.is_err() {
            // It had its time; what it waits for deserves a moment more.
            let waits_for = warming(proxy, Deadline::after(Duration::from_secs(1))).await;
            return Err(FleetError::NotReady { id: proxy.id.clone(), state: state + &waits_for });
        }
    }
}

/// What is still missing, in words.
async fn missing(proxy: &Proxy, calls: &[String], deadline: Deadline) -> Result<Option<String>, ReachError> {
    let (status, body) = proxy.admin("/ready", deadline).await?;
    if !status.is_success() {
        let state = String::from_utf8_lossy(&body);
        return Ok(Some(format!("its state is {}", state.trim().chars().take(80).collect::<String>())));
    }
    // LIVE alone is not enough: a listener can have been refused.
    let (_, body) = proxy.admin("/listeners?format=json", deadline).await?;
    let answer = serde_json::from_slice(&body).unwrap_or_default();
    // By address: what they are called is for whoever configures the proxy.
    let reached = || vec![("inbound", proxy.inbound), ("outbound", proxy.outbound), ("dial_out", proxy.dial_out)];
    let wanted = proxy.listens.clone().unwrap_or_else(reached);
    let stapled = proxy.stapled.map(|at| ("stapled", at));
    let absent: Vec<_> = wanted
        .iter()
        .chain(&stapled)
        .filter(|(_, at)| !listens(&answer, *at))
        .map(|(name, at)| format!("{name} at {at}"))
        .collect();
    if !absent.is_empty() {
        return Ok(Some(format!("it is LIVE without its listener {}", absent.join(" and "))));
    }
    if calls.is_empty() {
        return Ok(None);
    }
    let (_, body) = proxy.admin("/clusters?format=json", deadline).await?;
    let answer = serde_json::from_slice(&body).unwrap_or_default();
    let without: Vec<_> = calls.iter().filter(|name| !has_endpoint(&answer, name)).map(String::as_str).collect();
    Ok((!without.is_empty()).then(|| format!("it is LIVE without an endpoint of {}", without.join(" and "))))
}

/// One that Envoy would send a request to.
fn has_endpoint(answer: &Value, cluster: &str) -> bool {
    let well = |host: &Value| host["health_status"]["eds_health_status"].as_str().is_none_or(|s| s == "HEALTHY");
    let mut named = items(&answer["cluster_statuses"]).iter().filter(|status| status["name"].as_str() == Some(cluster));
    named.any(|status| items(&status["host_statuses"]).iter().any(well))
}

/// Of a list; none of anything else.
fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn listens(answer: &Value, at: SocketAddr) -> bool {
    items(&answer["listener_statuses"]).iter().any(|status| {
        let socket = &status["local_address"]["socket_address"];
        socket["address"].as_str() == Some(&at.ip().to_string())
            && socket["port_value"].as_u64() == Some(u64::from(at.port()))
    })
}

/// The secrets that it waits for.
async fn warming(proxy: &Proxy, deadline: Deadline) -> String {
    let Ok((_, body)) = proxy.admin("/config_dump?resource=dynamic_warming_secrets", deadline).await else {
        return String::new();
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut names: Vec<_> = items(&answer["configs"]).iter().filter_map(|config| config["name"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match &names[..] {
        [] => String::new(),
        names => format!("; it waits for the secrets {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_there_only_at_its_address() {
        let answer = serde_json::json!({ "listener_statuses": [{
            "name": "inbound",
            "local_address": { "socket_address": { "address": "127.0.0.1", "port_value": 15006 } },
        }] });
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(listens(&answer, at(15006)));
        assert!(!listens(&answer, at(15007)));
        assert!(!listens(&Value::Null, at(15006)));
    }

    #[test]
    fn a_cluster_without_a_healthy_host_leads_nowhere() {
        let host = |health: &str| serde_json::json!({ "health_status": { "eds_health_status": health } });
        let answer = serde_json::json!({ "cluster_statuses": [
            { "name": "known", "host_statuses": [host("DRAINING"), host("HEALTHY")] },
            { "name": "draining", "host_statuses": [host("DRAINING")] },
            { "name": "none_yet" },
        ] });
        assert!(has_endpoint(&answer, "known"));
        for name in ["draining", "none_yet", "absent"] {
            assert!(!has_endpoint(&answer, name), "{name}");
        }
        assert!(!has_endpoint(&Value::Null, "known"));
    }
}
