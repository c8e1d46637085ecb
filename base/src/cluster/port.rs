//! A port of the harness's own machine that leads to one of a pod's loopback, by the API server alone.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{Cluster, ClusterError, PodName};

/// A port on 127.0.0.1; it is closed, with its connections, when this is dropped.
pub struct LocalPort {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl LocalPort {
    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for LocalPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Opens one; each connection to it is one that the API server forwards.
    pub async fn local_port(&self, pod: &PodName, port: u16) -> Result<LocalPort, ClusterError> {
        let undone =
            |e: std::io::Error| ClusterError::Undone { what: "open a port of 127.0.0.1".into(), said: e.to_string() };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(undone)?;
        let addr = listener.local_addr().map_err(undone)?;
        let task = tokio::spawn(accept(listener, self.clone(), pod.clone(), port));
        Ok(LocalPort { addr, task })
    }
}

async fn accept(listener: TcpListener, cluster: Cluster, pod: PodName, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (cluster, pod) = (cluster.clone(), pod.clone());
                    connections.spawn(async move { carry(&cluster, &pod, port, stream).await });
                }
                // Out of descriptors, most likely: let others finish first.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whoever asked sees a connection that ends.
async fn carry(cluster: &Cluster, pod: &PodName, port: u16, mut stream: TcpStream) {
    match cluster.forwarded(pod, port).await {
        Ok(mut forwarded) => {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut forwarded.stream).await;
        }
        Err(e) => tracing::debug!("{pod}: {e}"),
    }
}
