//! tbot in a cell's namespace: one on each node, which knows workloads by the pods that they are of. The Teleport cluster that
//! they join is the user's.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use tokio::task::JoinSet;

use super::asked::TBOT_SOCKET;
use super::issuer::IssuerThere;
use super::log::log;
use super::yard::Yard;
use crate::clock::Deadline;
use crate::cluster::PodName;
use crate::fleet::FleetError;

const MANIFEST: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-config/tbot.yaml"));
/// As in this file: what all its pods are labelled with, the container in them, and the Secret.
const TBOT: &str = "tbot";
/// Where it reads, and where it serves.
const FILES: &str = "/run/tbot-conf";
const SOCKETS: &str = "/run/tbot-sockets";
const CONFIGURATION: &str = "tbot.yaml";
const TOKEN: &str = "token";
/// How long it may take until it runs: its image may have to be pulled.
const TO_START: Duration = Duration::from_secs(120);

impl Yard {
    /// Where such a tbot finds its join token.
    pub fn tbot_token() -> String {
        format!("{FILES}/{TOKEN}")
    }

    /// Where such a tbot is to serve.
    pub fn tbot_socket() -> String {
        format!("{SOCKETS}/{TBOT_SOCKET}")
    }

    /// Starts a tbot on each node, with this configuration and join token. What each says is kept in `directory`; `told` finds
    /// the version in what its program says.
    pub async fn with_tbot(
        self: &Arc<Self>,
        (configuration, token): (&str, &str),
        told: fn(&str) -> Option<String>,
        directory: &Utf8Path,
    ) -> Result<IssuerThere, FleetError> {
        let image = &self.place.tbot;
        let files = self.ground.secret(TBOT, &[(CONFIGURATION, configuration), (TOKEN, token)]);
        self.place.cluster.create(&files).await?;
        let sockets = self.ground.tbot_sockets();
        self.create_in_order(&self.filled(MANIFEST, image, &[("{sockets}", &sockets)])?).await?;
        let selector = format!("app={TBOT}");
        let pods = self.wait_for("tbot", &selector, self.nodes.len(), Deadline::after(TO_START)).await?;
        let (mut logs, mut following, mut version) = (Vec::new(), JoinSet::new(), None);
        for (name, _) in pods {
            let path = directory.join(format!("{name}.log"));
            following.spawn(log(self.clone(), name.clone(), TBOT, path.clone()));
            logs.push(path);
            let pod = PodName { namespace: self.name().to_owned(), name };
            // An image may have it elsewhere; then its tag tells.
            let said = self.place.cluster.run(&pod, TBOT, &[TBOT, "version"]).await.unwrap_or_default();
            version = version.or_else(|| said.lines().find_map(told));
        }
        let version = version.unwrap_or_else(|| image.short_version().to_owned());
        Ok(IssuerThere { version, logs, _following: following })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_manifest_mounts_is_what_tbot_is_told() {
        for place in [FILES, SOCKETS] {
            assert!(MANIFEST.contains(&format!("mountPath: {place}")), "{place}");
        }
        assert!(MANIFEST.contains(&format!("{FILES}/{CONFIGURATION}")) && MANIFEST.contains("secretName: tbot"));
        assert!(Yard::tbot_socket().starts_with(SOCKETS) && Yard::tbot_token().starts_with(FILES));
    }
}
