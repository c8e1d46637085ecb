//! Where a relay listens, and who has connected and waits to be taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tonic::Status;

use super::carry::{Conn, PIECES};
use super::pb::listen_event::Event;
use super::pb::{Accepted, ListenEvent};
use super::{RemoteError, Target};
use crate::xds::Socket;

/// How long a connection waits to be taken; longer than the harness tries.
const WAITS: Duration = Duration::from_secs(20);
/// How many may wait; the others wait in the kernel's queue.
const MOST: usize = 1024;

type Events = mpsc::Receiver<Result<ListenEvent, Status>>;

/// All listeners of a relay.
pub(super) struct Listening {
    waiting: Arc<Waiting>,
    /// The latest listener of each place, as it is bound.
    places: tokio::sync::Mutex<HashMap<String, JoinHandle<()>>>,
}

impl Default for Listening {
    fn default() -> Self {
        let waiting =
            Waiting { next: AtomicU64::new(1), conns: Mutex::default(), room: Arc::new(Semaphore::new(MOST)) };
        Self { waiting: Arc::new(waiting), places: tokio::sync::Mutex::default() }
    }
}

impl Listening {
    /// Listens until nobody hears the events any more, or somebody asks for the same place.
    pub(super) async fn listen(&self, target: Target, mode: u32) -> Result<Events, String> {
        let mut places = self.places.lock().await;
        places.retain(|_, task| !task.is_finished());
        // A harness whose way was cut comes back before this side has noticed.
        if let Some(before) = places.remove(&target.to_string()) {
            before.abort();
            let _ = before.await;
        }
        let listener = Listener::bind(&target, mode).await.map_err(|e| format!("cannot {e}"))?;
        let (tell, events) = mpsc::channel(PIECES);
        let bound = listener.bound().unwrap_or_else(|| target.to_string());
        let first = ListenEvent { event: Some(Event::Bound(bound.clone())) };
        tell.send(Ok(first)).await.map_err(|e| e.to_string())?;
        places.insert(bound, tokio::spawn(accept(listener, self.waiting.clone(), tell)));
        Ok(events)
    }

    /// A connection that waits, once.
    pub(super) fn take(&self, id: u64) -> Option<Conn> {
        self.waiting.lock().remove(&id).map(|(conn, _)| conn)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.places.get_mut().values().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: Listener, waiting: Arc<Waiting>, tell: mpsc::Sender<Result<ListenEvent, Status>>) {
    let mut ids = Vec::new();
    loop {
        let Ok(room) = waiting.room.clone().acquire_owned().await else { return };
        let (conn, pid) = tokio::select! {
            () = tell.closed() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of descriptors, most likely: let others finish first.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let id = waiting.keep(conn, room);
        ids.push(id);
        let event = ListenEvent { event: Some(Event::Accepted(Accepted { id, pid: pid.unwrap_or(0) })) };
        if tell.send(Ok(event)).await.is_err() {
            break;
        }
        ids.retain(|id| waiting.lock().contains_key(id));
    }
    // Nobody will take them.
    ids.iter().for_each(|id| drop(waiting.lock().remove(id)));
}

struct Waiting {
    next: AtomicU64,
    conns: Mutex<HashMap<u64, (Conn, OwnedSemaphorePermit)>>,
    room: Arc<Semaphore>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Conn, OwnedSemaphorePermit)>> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(self: &Arc<Self>, conn: Conn, room: OwnedSemaphorePermit) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, (conn, room));
        let waiting = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(WAITS).await;
            if let Some(waiting) = waiting.upgrade()
                && let Some((conn, _)) = waiting.lock().remove(&id)
            {
                conn.reset();
            }
        });
        id
    }
}

enum Listener {
    Tcp(TcpListener),
    /// With what removes its path at the end.
    Unix(UnixListener, #[expect(dead_code, reason = "held for its end")] Socket),
}

impl Listener {
    async fn bind(target: &Target, mode: u32) -> Result<Self, RemoteError> {
        let failed = |e: std::io::Error| RemoteError::Listen { place: target.to_string(), why: e.to_string() };
        match target {
            Target::Tcp(host, port) => TcpListener::bind((host.as_str(), *port)).await.map(Self::Tcp).map_err(failed),
            Target::Unix(path) => {
                let mut socket = Socket::bind_with_mode(path, mode)?;
                let listener = socket.take_listener().map_err(failed)?;
                Ok(Self::Unix(listener, socket))
            }
        }
    }

    /// Where, if that is not as it was asked for.
    fn bound(&self) -> Option<String> {
        match self {
            Self::Tcp(listener) => {
                let addr = listener.local_addr().ok()?;
                Some(Target::tcp(addr.ip(), addr.port()).to_string())
            }
            Self::Unix(..) => None,
        }
    }

    async fn accept(&self) -> std::io::Result<(Conn, Option<i32>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| (Conn::tcp(stream), None)),
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
                Ok((Conn::Unix(stream), pid))
            }
        }
    }
}
