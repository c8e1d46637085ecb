//! A port of the harness's own machine that leads to a place in a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::carry::{Conn, PIECES, carry, piece, words};
use super::link::CALL;
use super::pb::Piece;
use super::pb::piece::Content;
use super::{Link, RemoteError, Target};
use crate::clock::Deadline;

/// A port on 127.0.0.1; it is closed, with its connections, when this is dropped.
pub struct Forward {
    addr: SocketAddr,
    target: Target,
    task: JoinHandle<()>,
}

impl Forward {
    pub(super) async fn start(link: Link, target: Target) -> Result<Self, RemoteError> {
        let listen =
            |e: std::io::Error| RemoteError::Listen { place: "a port of 127.0.0.1".into(), why: e.to_string() };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let task = tokio::spawn(accept(listener, link, target.clone()));
        Ok(Self { addr, target, task })
    }

    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it leads to.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, link: Link, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (link, target) = (link.clone(), target.clone());
                    connections.spawn(async move {
                        if let Err(why) = dial(&link, &target, Conn::tcp(stream)).await {
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

/// An error says why it never was a connection; one that breaks later is broken on both sides, and no failure of ours.
pub(super) async fn dial(link: &Link, target: &Target, conn: Conn) -> Result<(), String> {
    match reach(link, target).await {
        Ok((incoming, outgoing)) => {
            if let Err(why) = carry(conn, incoming, outgoing, |piece| piece).await {
                tracing::debug!("{target}: {why}");
            }
            Ok(())
        }
        Err(why) => {
            conn.reset();
            Err(why)
        }
    }
}

/// Has the relay dial. The connection ends when both that are returned are dropped.
pub(super) async fn reach(link: &Link, target: &Target) -> Result<(Streaming<Piece>, mpsc::Sender<Piece>), String> {
    let deadline = Deadline::after(CALL);
    let mut client = link.client(deadline).await.map_err(|e| e.to_string())?;
    let (outgoing, pieces) = mpsc::channel(PIECES);
    let first = piece(Content::Target(target.to_string()));
    outgoing.send(first).await.map_err(|_| "the call has ended".to_owned())?;
    let dialled = client.dial(ReceiverStream::new(pieces));
    match tokio::time::timeout_at(deadline.instant(), dialled).await {
        Ok(Ok(answer)) => Ok((answer.into_inner(), outgoing)),
        Ok(Err(status)) => Err(words(&status)),
        Err(_) => Err("it did not answer in time".into()),
    }
}
