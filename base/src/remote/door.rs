//! A Unix socket of the harness's own machine that leads to a place in a cluster, as soon as there is a way.

use std::time::Duration;

use camino::Utf8Path;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::carry::Conn;
use super::forward::dial;
use super::{Link, RemoteError, Target};
use crate::xds::Socket;

/// How long a connection waits for a way before it is closed: a pod may have to be started first.
const WAITS: Duration = Duration::from_secs(120);

/// A Unix socket that is there before its way is: who connects meanwhile waits. It goes, with its connections, when this is
/// dropped.
pub struct Door {
    /// Its path goes with it.
    socket: Socket,
    way: watch::Sender<Option<Link>>,
    task: JoinHandle<()>,
}

impl Door {
    /// Listens at `path`; each connection is one that a relay, once it is known, dials to `target`.
    pub fn open(path: &Utf8Path, target: Target) -> Result<Self, RemoteError> {
        let mut socket = Socket::bind(path)?;
        let listen = |e: std::io::Error| RemoteError::Listen { place: path.to_string(), why: e.to_string() };
        let listener = socket.take_listener().map_err(listen)?;
        let way = watch::Sender::new(None);
        let task = tokio::spawn(accept(listener, way.subscribe(), target));
        Ok(Self { socket, way, task })
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        self.socket.path()
    }

    /// From now on this relay dials.
    pub fn lead_by(&self, link: &Link) {
        self.way.send_replace(Some(link.clone()));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, way: watch::Receiver<Option<Link>>, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (mut way, target) = (way.clone(), target.clone());
                    connections.spawn(async move {
                        let known = tokio::time::timeout(WAITS, way.wait_for(Option::is_some)).await;
                        let link = known.ok().and_then(|known| known.ok()?.clone());
                        let Some(link) = link else { return };
                        if let Err(why) = dial(&link, &target, Conn::Unix(stream)).await {
                            link.tell_failed(format!("dial {target}"), why);
                        }
                    });
                }
                // Out of descriptors, most likely: let others finish first.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
