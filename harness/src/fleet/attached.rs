//! Proxies that somebody else runs, in a cluster: asked by its admin API, and by nothing else.

use bytes::Bytes;
use http::StatusCode;

use super::{Admin, ReachError};
use crate::clock::Deadline;
use crate::cluster::{Cluster, ClusterError, Sidecar, Way, process_number};
use crate::timeline::{InvalidId, ProxyId};

/// A proxy in a cluster.
pub struct Attached {
    id: ProxyId,
    port: u16,
    way: Way,
}

impl Attached {
    /// The proxy of a pod, called `pod.namespace`; its admin API has this port. Nothing is asked yet.
    pub fn new(cluster: &Cluster, sidecar: &Sidecar, admin_port: u16) -> Result<Self, InvalidId> {
        let id = ProxyId::parse(&format!("{}.{}", sidecar.pod.name, sidecar.pod.namespace))?;
        Ok(Self { id, port: admin_port, way: cluster.way(sidecar, admin_port) })
    }

    /// The pod that it is in.
    pub fn sidecar(&self) -> &Sidecar {
        self.way.sidecar()
    }

    /// The port of its admin API.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Why it is asked by commands in its container: connections are forbidden.
    pub fn forbidden(&self) -> Option<&ClusterError> {
        self.way.forbidden()
    }

    /// The end of its log, at most of so many seconds, each line with the time at which it was taken.
    pub async fn log(
        &self,
        since_s: Option<i64>,
        deadline: Deadline,
    ) -> Result<Vec<(jiff::Timestamp, String)>, ReachError> {
        self.in_time("the log", self.way.log(since_s), deadline).await
    }

    /// As [`Admin::ask`], by a POST: what may change something.
    pub async fn post(&self, path: &str, deadline: Deadline) -> Result<(StatusCode, Bytes), ReachError> {
        self.in_time(path, self.way.post(path), deadline).await
    }

    async fn in_time<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, ClusterError>>,
        deadline: Deadline,
    ) -> Result<T, ReachError> {
        match tokio::time::timeout_at(deadline.instant(), work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(ReachError::Late { proxy: self.id.clone(), what: what.to_owned() }),
        }
    }
}

impl Admin for Attached {
    fn id(&self) -> &ProxyId {
        &self.id
    }

    /// Another one for each start of its container, and for each pod that has its name later.
    fn process(&self) -> i32 {
        process_number(&self.sidecar().uid, self.sidecar().restarts)
    }

    async fn ask(&self, path: &str, deadline: Deadline) -> Result<(StatusCode, Bytes), ReachError> {
        self.in_time(path, self.way.ask(path), deadline).await
    }
}
