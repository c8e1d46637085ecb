//! A place in a cluster that leads to one of the harness's own.

use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::carry::{Conn, PIECES, carry, piece, words};
use super::link::CALL;
use super::pb::listen_event::Event as Heard;
use super::pb::piece::Content;
use super::pb::{ListenEvent, ListenRequest};
use super::{Link, RemoteError, Target};
use crate::clock::Deadline;

/// Between two looks at the local socket: nothing tells that somebody begins or ceases to listen.
const LOOK: Duration = Duration::from_millis(100);

/// A place of the harness's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// An address.
    Tcp(SocketAddr),
    /// A socket; while there is none, the relay has none either.
    Unix(Utf8PathBuf),
}

impl Local {
    fn target(&self) -> Target {
        match self {
            Self::Tcp(addr) => Target::tcp(addr.ip(), addr.port()),
            Self::Unix(path) => Target::Unix(path.clone()),
        }
    }

    fn is_present(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Unix(path) => std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket()),
        }
    }
}

/// A listener in the pod; it ends, with its connections, when this is dropped.
pub struct Serving {
    bound: String,
    task: JoinHandle<()>,
}

impl Serving {
    pub(super) async fn start(link: Link, at: Target, mode: u32, local: Local) -> Result<Self, RemoteError> {
        let served = Served { link, at, mode, local };
        let (bound, events) = served.listen().await?;
        let task = tokio::spawn(served.run(events));
        Ok(Self { bound, task })
    }

    /// Where the relay listens, with the port where one was left to it: `unix:PATH`, `tcp:ADDRESS:PORT`.
    pub fn bound(&self) -> &str {
        &self.bound
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    link: Link,
    at: Target,
    mode: u32,
    local: Local,
}

impl Served {
    /// Listens, and listens again when the way was cut, until the relay is given up.
    async fn run(self, first: Streaming<ListenEvent>) {
        let mut events = Some(first);
        let mut connections = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            let Some(heard) = &mut events else {
                look.tick().await;
                while connections.try_join_next().is_some() {}
                if self.link.is_gone() {
                    return;
                }
                if self.local.is_present() {
                    match self.listen().await {
                        Ok((_, again)) => {
                            events = Some(again);
                            failures = 0;
                        }
                        Err(e) => {
                            failures += 1;
                            // The first may be that of a way of which nobody has noticed yet that it was cut.
                            if failures == 2 {
                                self.link.tell_failed(format!("listen at {}", self.at), e.to_string());
                            }
                        }
                    }
                }
                continue;
            };
            tokio::select! {
                event = heard.message() => match event {
                    Ok(Some(ListenEvent { event: Some(Heard::Accepted(accepted)) })) => {
                        let (link, local) = (self.link.clone(), self.local.target());
                        let at = self.at.to_string();
                        connections.spawn(async move {
                            if let Err(why) = take(&link, accepted.id, &local).await {
                                link.tell_failed(format!("take a connection to {at}"), why);
                            }
                        });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => events = None,
                },
                _ = look.tick() => {
                    // The relay ceases to listen when the call ends.
                    if !self.local.is_present() {
                        events = None;
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn listen(&self) -> Result<(String, Streaming<ListenEvent>), RemoteError> {
        let deadline = Deadline::after(CALL);
        let refused = |why: String| self.link.refused(format!("listen at {}", self.at), why);
        let mut client = self.link.client(deadline).await?;
        let listening = async {
            let request = ListenRequest { target: self.at.to_string(), mode: self.mode };
            let mut events = client.listen(request).await.map_err(|status| words(&status))?.into_inner();
            match events.message().await.map_err(|status| words(&status))?.and_then(|event| event.event) {
                Some(Heard::Bound(bound)) => Ok((bound, events)),
                _ => Err("it did not say where it listens".to_owned()),
            }
        };
        match tokio::time::timeout_at(deadline.instant(), listening).await {
            Ok(listening) => listening.map_err(refused),
            Err(_) => Err(refused("it did not answer in time".into())),
        }
    }
}

/// An error says why it never was a connection.
async fn take(link: &Link, id: u64, local: &Target) -> Result<(), String> {
    // Whoever is not taken sees his connection break, as with a local provider that has just gone.
    let conn = Conn::to(local).await.map_err(|e| format!("{local}: {e}"));
    let deadline = Deadline::after(CALL);
    let mut client = link.client(deadline).await.map_err(|e| e.to_string())?;
    let (outgoing, pieces) = mpsc::channel(PIECES);
    let first = piece(Content::Accepted(id));
    outgoing.send(first).await.map_err(|_| "the call has ended".to_owned())?;
    let taken = client.take(ReceiverStream::new(pieces));
    let answer = match tokio::time::timeout_at(deadline.instant(), taken).await {
        Ok(answer) => answer.map_err(|status| words(&status))?,
        Err(_) => return Err("it did not answer in time".into()),
    };
    // Taken all the same where nobody is here, and broken at once: the pod's side does not wait for its deadline.
    if let Err(why) = carry(conn?, answer.into_inner(), outgoing, |piece| piece).await {
        tracing::debug!("{local}: {why}");
    }
    Ok(())
}
