//! The tap: relays a provider's socket to the proxies and records what passes, as it passes.
//!
//! It mirrors what the provider's socket does: no listener while the provider has none, a connection for a connection,
//! broken ones broken. HTTP/2 frames carry the same bytes on both sides; they are decoded only to be observed.

mod deframe;
mod overhear;
mod relay;
mod way;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use way::{Way, socket_of};

use super::{Journal, Socket, SocketError};

/// Between two looks at the provider's path: nothing tells that somebody begins or ceases to listen.
const LOOK: Duration = Duration::from_millis(100);
/// A provider that is stopped keeps its backlog; one that can't take a connection for so long is treated as silent.
const CONNECT: Duration = Duration::from_secs(5);

/// A running tap. It ends when it is dropped.
pub struct Tap {
    path: Utf8PathBuf,
    ear: Arc<Ear>,
    task: tokio::task::JoinHandle<()>,
}

/// What all streams of a tap tell.
struct Ear {
    journal: Arc<Journal>,
    next_stream: Arc<AtomicU64>,
    roots: watch::Sender<Vec<Vec<u8>>>,
    /// What is overheard now.
    open: Mutex<Vec<Weak<overhear::Conversation>>>,
    /// Facts that may still be recorded, and bytes of them.
    left: AtomicU64,
    left_bytes: AtomicU64,
    flooded: watch::Sender<Option<String>>,
}

/// Facts that are recorded of one tap. More are a flood: what they would show is in what was recorded.
const MOST_FACTS: u64 = 20_000;
/// And bytes that they come to, as JSON.
const MOST_BYTES: u64 = 128 << 20;

impl Tap {
    /// Serves `path`, as what `way` leads to is served. Streams are numbered by `next_stream`; `roots` are the authorities that
    /// are known by now.
    pub fn start(
        path: &Utf8Path,
        way: Way,
        journal: Arc<Journal>,
        next_stream: Arc<AtomicU64>,
        roots: Vec<Vec<u8>>,
    ) -> Result<Self, SocketError> {
        let listener = Listener::bind(path)?;
        let ear = Arc::new(Ear {
            journal,
            next_stream,
            roots: watch::Sender::new(roots),
            open: Mutex::default(),
            left: AtomicU64::new(MOST_FACTS),
            left_bytes: AtomicU64::new(MOST_BYTES),
            flooded: watch::Sender::new(None),
        });
        let mirror = Mirror { path: path.to_owned(), way, ear: ear.clone() };
        Ok(Self { path: path.to_owned(), ear, task: tokio::spawn(mirror.run(listener)) })
    }

    /// Where it serves.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The authorities that were sent last, DER.
    pub fn roots(&self) -> Vec<Vec<u8>> {
        self.ear.roots.borrow().clone()
    }

    /// Tells of every response that was begun and has not ended.
    pub fn tell_unfinished(&self) {
        let open = self.ear.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.iter().filter_map(Weak::upgrade).for_each(|conversation| conversation.tell_unfinished());
    }

    /// Why not all was recorded; pending as long as it is.
    pub async fn flooded(&self) -> String {
        let mut flooded = self.ear.flooded.subscribe();
        let why = flooded.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    fn next_stream(&self) -> u64 {
        self.next_stream.fetch_add(1, Ordering::Relaxed)
    }

    fn opened(&self, conversation: &Arc<overhear::Conversation>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|weak| weak.strong_count() > 0);
        open.push(Arc::downgrade(conversation));
    }

    /// Whether one more fact, of this size, may be recorded.
    fn room(&self, fact: &impl Serialize) -> bool {
        let mut size = Size(0);
        // What can't be written as JSON will not be recorded either.
        let _ = serde_json::to_writer(&mut size, fact);
        let take = |from: &AtomicU64, n: u64| {
            from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(n)).is_ok()
        };
        let too_much = match () {
            () if !take(&self.left, 1) => format!("more than {MOST_FACTS} facts"),
            () if !take(&self.left_bytes, size.0) => format!("facts of more than {} MiB", MOST_BYTES >> 20),
            () => return true,
        };
        self.flooded.send_if_modified(|why| {
            let first = why.is_none();
            why.get_or_insert_with(|| format!("{too_much} came from the streams of the provider"));
            first
        });
        false
    }
}

/// Counts what is written.
struct Size(u64);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Listener {
    /// Its path goes away with it.
    _socket: Socket,
    listener: UnixListener,
}

impl Listener {
    fn bind(path: &Utf8Path) -> Result<Self, SocketError> {
        let mut socket = Socket::bind(path)?;
        let listener =
            socket.take_listener().map_err(|source| SocketError::Io { path: socket.path().to_owned(), source })?;
        Ok(Self { _socket: socket, listener })
    }
}

struct Mirror {
    path: Utf8PathBuf,
    way: Way,
    ear: Arc<Ear>,
}

impl Mirror {
    async fn run(self, first: Listener) {
        let mut listener = Some(first);
        let mut connections = JoinSet::new();
        // A connection that broke is the first sign that nobody listens any more.
        let broken = Arc::new(Mutex::new(false));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Some(open) = &listener else {
                look.tick().await;
                while connections.try_join_next().is_some() {}
                if present(&self.way.upstream) && self.connect().await.is_ok() {
                    match Listener::bind(&self.path) {
                        Ok(bound) => {
                            tracing::debug!("{} is served again", self.way.upstream);
                            listener = Some(bound);
                        }
                        Err(e) => tracing::warn!("the tap can't listen again: {e}"),
                    }
                }
                continue;
            };
            tokio::select! {
                accepted = open.listener.accept() => {
                    let Ok((downstream, _)) = accepted else {
                        // Out of descriptors: let others end.
                        look.tick().await;
                        continue;
                    };
                    // Where the proxy says first who it is, it is led when it has.
                    let there = if self.way.by_node { Ok(None) } else { self.connect().await.map(Some) };
                    match there {
                        Ok(there) => {
                            let pid = downstream.peer_cred().ok().and_then(|c| c.pid());
                            let (way, ear, broken) = (self.way.clone(), self.ear.clone(), broken.clone());
                            connections.spawn(async move {
                                relay::relay(downstream, there, way, pid, ear).await;
                                *broken.lock().unwrap_or_else(PoisonError::into_inner) = true;
                            });
                        }
                        Err(_) => {
                            drop(downstream);
                            listener = None;
                        }
                    }
                }
                _ = look.tick() => {
                    let broke = std::mem::take(&mut *broken.lock().unwrap_or_else(PoisonError::into_inner));
                    if !present(&self.way.upstream) || (broke && self.connect().await.is_err()) {
                        tracing::debug!("{} is no longer served", self.way.upstream);
                        listener = None;
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connect(&self) -> std::io::Result<UnixStream> {
        self.way.dial("").await
    }
}

fn present(path: &Utf8Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket() && meta.ino() != 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::Subscribers;
    use super::super::dial::crowded;
    use super::*;
    use crate::timeline::{Recorder, Source};

    fn ear() -> Arc<Ear> {
        let subscribers = Subscribers { nodes: HashMap::new(), pids: HashMap::new() };
        Arc::new(Ear {
            journal: Arc::new(Journal::new(Recorder::unkept(), Source::Tap, subscribers)),
            next_stream: Arc::default(),
            roots: watch::Sender::new(Vec::new()),
            open: Mutex::default(),
            left: AtomicU64::new(MOST_FACTS),
            left_bytes: AtomicU64::new(MOST_BYTES),
            flooded: watch::Sender::new(None),
        })
    }

    #[test]
    fn a_few_facts_of_many_bytes_are_a_flood_too() {
        let ear = ear();
        let large = "x".repeat(1 << 20);
        let most = usize::try_from(MOST_BYTES >> 20).unwrap();
        let recorded = (0..2 * most).take_while(|_| ear.room(&large)).count();
        assert_eq!(recorded, most - 1);
        assert!(!ear.room(&large));
        assert!(ear.flooded.borrow().as_ref().unwrap().starts_with("facts of more than 128 MiB"));
    }

    #[tokio::test]
    async fn a_provider_with_a_full_queue_of_connections_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let (path, upstream) = (dir.join("tap"), dir.join("provider"));
        let (provider, waiting) = crowded(&upstream);
        let mirror = Mirror { path: path.clone(), way: Way::to(&upstream), ear: ear() };
        let tap = tokio::spawn(mirror.run(Listener::bind(&path).unwrap()));
        let proxy = UnixStream::connect(&path).await.unwrap();
        let turned_away = tokio::time::timeout(3 * LOOK, proxy.readable()).await;
        assert!(turned_away.is_err() && path.exists(), "{turned_away:?}");
        // Behind those that wait there is the tap's own.
        let taken = tokio::task::spawn_blocking(move || {
            for _ in 0..=waiting.len() {
                provider.accept().unwrap();
            }
        });
        tokio::time::timeout(Duration::from_secs(20), taken).await.unwrap().unwrap();
        tap.abort();
    }
}
