//! Handshakes with proxies of a cluster, through a pod outside of the mesh.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::Mutex;

use super::{AT_A_TIME, Stop};
use crate::cluster::Cluster;
use crate::fleet::{Admin as _, Attached, Prober, WayThrough};
use crate::probe::{self, Door, ProbeContext, TlsVersion};
use crate::timeline::{Blind, Layer, ProxyId, Recorder, Source};

/// A prober that is wished for.
#[derive(Debug, Clone)]
pub struct Probe {
    /// An image of rotacheck, from where the cluster pulls.
    pub image: String,
    /// Where its pod is to be.
    pub namespace: String,
}

/// The prober, and the ways through it, each as long as its pod has that address.
pub(super) struct Probing {
    prober: Prober,
    ways: Mutex<BTreeMap<ProxyId, Arc<Path>>>,
}

struct Path {
    ip: String,
    forward: WayThrough,
    server_name: String,
}

impl Probing {
    /// None where it did not come about, and why is recorded; or until `stop`.
    pub(super) async fn start(cluster: &Cluster, wish: &Probe, stop: &Stop, recorder: &Recorder) -> Option<Self> {
        let note = |what: &str, why: String| {
            recorder.record(Source::Inbound, None, None, blind(what, why));
        };
        let tell = {
            let recorder = recorder.clone();
            move |why| {
                recorder.record(Source::Inbound, None, None, blind("the prober", why));
            }
        };
        let mut prober = match Prober::make(cluster, &wish.namespace, &wish.image).await {
            Ok(prober) => prober,
            Err(e) => {
                note("the prober", e.to_string());
                return None;
            }
        };
        let up = tokio::select! {
            up = prober.come_up(tell) => up.map_err(|e| e.to_string()),
            () = stop.requested() => Err("it was not waited for".to_owned()),
        };
        let probing = Self { prober, ways: Mutex::default() };
        if let Err(why) = up {
            note("the prober", why);
            probing.clear(recorder).await;
            return None;
        }
        Some(probing)
    }

    /// Full handshakes with all of them, in both versions of TLS.
    pub(super) async fn shake_hands(&self, proxies: &[&Attached], ctx: &ProbeContext, recorder: &Recorder) {
        futures::stream::iter(proxies)
            .for_each_concurrent(AT_A_TIME, async |attached| {
                let id = attached.id();
                match self.path(attached, ctx).await {
                    Ok(path) => {
                        for version in TlsVersion::ALL {
                            probe::inbound_at(id, path.forward.addr(), &path.server_name, version, ctx).await;
                        }
                    }
                    Err(why) => {
                        recorder.record(Source::Inbound, Some(id), None, blind("a handshake", why));
                    }
                }
            })
            .await;
    }

    async fn path(&self, attached: &Attached, ctx: &ProbeContext) -> Result<Arc<Path>, String> {
        let sidecar = attached.sidecar();
        if let Some(why) = &sidecar.down {
            return Err(why.clone());
        }
        let ip = sidecar.ip.clone().ok_or("its pod has no address")?;
        if let Some(path) = self.ways.lock().await.get(attached.id()).filter(|path| path.ip == ip) {
            return Ok(path.clone());
        }
        let Door { port, server_name } = probe::mtls_door(attached, ctx).await?;
        let forward = self.prober.way_to(&ip, port).await.map_err(|e| e.to_string())?;
        // As Istio's clients ask for a port of a service.
        let as_peer = || format!("outbound_.{port}_._.{}.svc.cluster.local", attached.id());
        let server_name = server_name.unwrap_or_else(as_peer);
        let path = Arc::new(Path { ip, forward, server_name });
        self.ways.lock().await.insert(attached.id().clone(), path.clone());
        Ok(path)
    }

    /// Takes the pod away; that it stays is recorded.
    pub(super) async fn clear(&self, recorder: &Recorder) {
        if let Err(e) = self.prober.clear().await {
            let why = format!("{} stays: {e}; `rotacheck sweep` finds it", self.prober.pod());
            recorder.record(Source::Inbound, None, None, blind("the prober", why));
        }
    }
}

fn blind(what: &str, why: String) -> Blind {
    Blind { layer: Some(Layer::Served), what: what.to_owned(), why }
}
