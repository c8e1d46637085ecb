//! Envoy's logger `config`: at debug while somebody looks on, when it tells of each SDS response and of what became of it;
//! put back at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinSet;

use super::witness::seen_at;
use crate::clock::Deadline;
use crate::cluster::{Cluster, ClusterError, Sidecar};
use crate::fleet::{Admin as _, Attached};
use crate::timeline::{
    Blind, CONFIG_AT_DEBUG, CONFIG_PUT_BACK, CONFIG_UNHEARD, Log, ProxyId, Recorder, SdsMessage, Source,
};

/// Of one question, or change.
const PATIENCE: Duration = Duration::from_secs(15);
/// More messages of one proxy are not kept.
const MOST: usize = 20_000;

/// A level of one of Envoy's loggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl Level {
    const ALL: [Self; 7] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off];

    fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    /// The path that sets it.
    fn path(self) -> String {
        format!("/logging?config={}", self.name())
    }

    /// That of the logger `config`, in the list that `/logging` gives.
    fn of_config(list: &str) -> Option<Self> {
        let name = list.lines().find_map(|line| line.trim().strip_prefix("config: "))?;
        Self::ALL.into_iter().find(|level| level.name() == name.trim())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A proxy whose logger could not be put back.
#[derive(Debug, Clone)]
pub struct LeftRaised {
    /// Whose.
    pub proxy: ProxyId,
    /// The command that puts it back.
    pub command: String,
    /// Why it is left.
    pub why: String,
}

/// Loggers that were raised.
#[derive(Default)]
pub(super) struct Loggers {
    /// From which level.
    raised: BTreeMap<ProxyId, Level>,
    /// Processes that were tried, whatever came of it.
    tried: BTreeSet<(ProxyId, i32)>,
    listening: JoinSet<()>,
}

impl Loggers {
    /// Raises those of proxies that were not tried yet, and listens to them. It is not to be broken off: what was raised has to
    /// be known.
    pub(super) async fn raise(&mut self, proxies: &[&Attached], cluster: &Cluster, recorder: &Recorder) {
        let new: Vec<_> = proxies.iter().filter(|attached| attached.sidecar().down.is_none()).collect();
        let new: Vec<_> =
            new.into_iter().filter(|attached| self.tried.insert((attached.id().clone(), attached.process()))).collect();
        let levels = join_all(new.iter().map(|attached| level(attached, "/logging"))).await;
        let blind = |attached: &Attached, why: String| blind(recorder, attached.id(), why);
        let mut known = Vec::new();
        for (attached, level) in new.into_iter().zip(levels) {
            match level {
                Ok(level) => {
                    // Known before it is done, for whatever becomes of it.
                    if !matches!(level, Level::Debug | Level::Trace) {
                        self.raised.insert(attached.id().clone(), level);
                    }
                    known.push((attached, level));
                }
                Err(why) => blind(attached, why),
            }
        }
        let set = join_all(known.iter().map(|(attached, before)| async move {
            let wanted = if *before == Level::Trace { Level::Trace } else { Level::Debug };
            set(attached, wanted).await
        }));
        for ((attached, before), set) in known.iter().zip(set.await) {
            if let Err(why) = set {
                blind(attached, why);
                continue;
            }
            let line = format!("{CONFIG_AT_DEBUG} (it was at {before})");
            recorder.record(Source::Admin, Some(attached.id()), None, Log { line });
            let (cluster, sidecar) = (cluster.clone(), attached.sidecar().clone());
            self.listening.spawn(listen(cluster, sidecar, attached.id().clone(), recorder.clone()));
        }
    }

    /// Puts them all back; those for which that failed.
    pub(super) async fn put_back(
        mut self,
        proxies: &BTreeMap<ProxyId, Attached>,
        cluster: &Cluster,
        recorder: &Recorder,
    ) -> Vec<LeftRaised> {
        let back = self.raised.iter().filter_map(|(id, before)| Some((proxies.get(id)?, *before)));
        let back = join_all(back.map(|(attached, before)| async move {
            let done = put_back(attached, before, cluster).await;
            (attached, before, done)
        }));
        let back = back.await;
        self.listening.shutdown().await;
        let mut left = Vec::new();
        for (attached, before, done) in back {
            let proxy = attached.id().clone();
            match done {
                Ok(how) => {
                    let line = format!("{CONFIG_PUT_BACK}: {how}");
                    recorder.record(Source::Admin, Some(&proxy), None, Log { line });
                }
                Err(why) => {
                    blind(recorder, &proxy, format!("it stays at debug: {why}"));
                    left.push(LeftRaised { command: by_hand(attached, before, cluster), proxy, why });
                }
            }
        }
        left
    }
}

fn blind(recorder: &Recorder, proxy: &ProxyId, why: String) {
    let blind = Blind { layer: None, what: CONFIG_UNHEARD.to_owned(), why };
    recorder.record(Source::Admin, Some(proxy), None, blind);
}

/// What the list of loggers says of `config` after this request.
async fn level(attached: &Attached, path: &str) -> Result<Level, String> {
    let (status, body) = attached.post(path, Deadline::after(PATIENCE)).await.map_err(|e| e.to_string())?;
    let list = String::from_utf8_lossy(&body);
    let level = Level::of_config(&list).filter(|_| status.is_success());
    level.ok_or_else(|| format!("its admin API lists no level of the logger config (status {})", status.as_u16()))
}

async fn set(attached: &Attached, wanted: Level) -> Result<(), String> {
    let is = level(attached, &wanted.path()).await?;
    if is == wanted { Ok(()) } else { Err(format!("it is at {is} although {wanted} was set")) }
}

/// How it is back; why it is not.
async fn put_back(attached: &Attached, before: Level, cluster: &Cluster) -> Result<String, String> {
    let set = async {
        match level(attached, "/logging").await? {
            // Its Envoy was started again, or somebody else set it.
            other if other != Level::Debug => Ok(format!("it is at {other}")),
            _ => set(attached, before).await.map(|()| format!("at {before}")),
        }
    };
    match set.await {
        Ok(how) => Ok(how),
        Err(why) => match cluster.sidecar(&attached.sidecar().pod.namespace, &attached.sidecar().pod.name).await {
            Err(ClusterError::Missing { .. }) => Ok("its pod is gone".to_owned()),
            Ok(now) if now.uid != attached.sidecar().uid => Ok("its pod is another one".to_owned()),
            _ => Err(why),
        },
    }
}

/// The command that does it.
fn by_hand(attached: &Attached, before: Level, cluster: &Cluster) -> String {
    let Sidecar { pod, container, is_istio, .. } = attached.sidecar();
    let kubectl = format!("kubectl --context {} -n {}", cluster.context(), pod.namespace);
    let path = before.path();
    if *is_istio {
        format!("{kubectl} exec {} -c {container} -- pilot-agent request POST '{}'", pod.name, &path[1..])
    } else {
        let port = attached.port();
        format!("{kubectl} port-forward {} {port} & curl -X POST 'http://127.0.0.1:{port}{path}'", pod.name)
    }
}

/// Records what its Envoy's log says of SDS, and nothing else of it.
async fn listen(cluster: Cluster, sidecar: Sidecar, id: ProxyId, recorder: Recorder) {
    let mut heard = 0;
    let ended = cluster.listen(&sidecar.pod, &sidecar.container, |time, line| {
        let Some(message) = SdsMessage::of_line(line) else { return Ok(()) };
        heard += 1;
        if heard > MOST {
            return Err(std::io::Error::other(format!("it was not heard further than {MOST} messages")));
        }
        let log = Log { line: message.to_string() };
        recorder.record_at(Some(seen_at(&recorder, time)), Source::Process, Some(&id), None, log.into());
        Ok(())
    });
    let why = match ended.await {
        Ok(()) => "its log ended".to_owned(),
        Err(e) => e.to_string(),
    };
    blind(&recorder, &id, why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_one_logger_is_found_in_the_list_of_all() {
        let list = "active loggers:\n  admin: warning\n  config: info\n  config_validation: debug\n\n";
        assert_eq!(Level::of_config(list), Some(Level::Info));
        for unknown in ["", "active loggers:\n  admin: info\n", "  config: loud\n", "{\"config\": \"info\"}"] {
            assert_eq!(Level::of_config(unknown), None, "{unknown}");
        }
        for level in Level::ALL {
            assert_eq!(Level::of_config(&format!("  config: {level}")), Some(level));
        }
    }
}
