//! When every proxy has answered its first secrets.

use crate::clock::Deadline;
use crate::timeline::{Fact, ProxyId, Recorder, SecretName, Source};

/// Awaits that every proxy has answered a first `default` and a first `ROOTCA`, as `source` saw it; returns what is
/// missing.
pub(super) async fn settled(
    recorder: &Recorder,
    source: Source,
    proxies: &[ProxyId],
    deadline: Deadline,
) -> Vec<(ProxyId, SecretName)> {
    let names = [SecretName::default_svid(), SecretName::root_ca()];
    let mut missing: Vec<_> =
        proxies.iter().flat_map(|proxy| names.iter().map(|name| (proxy.clone(), name.clone()))).collect();
    if missing.is_empty() {
        return missing;
    }
    recorder
        .await_until(0, deadline, |o| {
            if matches!(o.fact, Fact::Acked(_) | Fact::Nacked(_)) && o.source == source {
                missing.retain(|(proxy, name)| o.proxy.as_ref() != Some(proxy) || o.secret.as_ref() != Some(name));
            }
            missing.is_empty()
        })
        .await;
    missing
}
