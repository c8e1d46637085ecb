//! The one recorder of what is sent on streams and how it is answered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::message::{Event, Rpc};
use super::workload::type_url;
use crate::pki::{cut, cut_error, cut_name};
use crate::timeline::{
    Acked, Fact, Log, Nacked, ProxyId, Recorder, SecretName, Sent, SentSecret, Source, StreamClosed, StreamOpened,
    Subscribed, istio_workload,
};

/// Who may subscribe, and how they are told apart.
#[derive(Debug, Clone, Default)]
pub struct Subscribers {
    /// By `node.id` of the first request, or the workload's name in that of an Istio sidecar.
    pub nodes: HashMap<String, ProxyId>,
    /// By the process that opened the connection.
    pub pids: HashMap<i32, ProxyId>,
}

impl Subscribers {
    /// Who says to be this node.
    fn of_node(&self, node: &str) -> Option<&ProxyId> {
        self.nodes.get(node).or_else(|| self.nodes.get(istio_workload(node)?))
    }
}

/// More names of one subscription are only counted: a stream asks for one.
const MOST_NAMES: usize = 64;

/// Turns events of streams into observations. Texts of subscribers are cut: they may be anything.
pub struct Journal {
    recorder: Recorder,
    source: Source,
    state: Mutex<State>,
}

struct State {
    subscribers: Subscribers,
    streams: HashMap<u64, Entry>,
}

struct Entry {
    rpc: Rpc,
    proxy: Option<ProxyId>,
    secret: Option<SecretName>,
    /// What was announced and not yet reported as sent, by nonce.
    announced: HashMap<String, Announced>,
}

/// What a push will hold.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    /// Its version.
    pub version_info: String,
    /// The type that it claims, where that is not its API's.
    pub type_url: Option<String>,
    /// What is in it.
    pub secrets: Vec<SentSecret>,
}

impl Journal {
    /// Records as `source`.
    pub fn new(recorder: Recorder, source: Source, subscribers: Subscribers) -> Self {
        Self { recorder, source, state: Mutex::new(State { subscribers, streams: HashMap::new() }) }
    }

    /// Where it records.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Connections of this process are this proxy's.
    pub fn attest(&self, pid: i32, proxy: ProxyId) {
        self.lock().subscribers.pids.insert(pid, proxy);
    }

    /// From now on, streams of the node of this name are this proxy's.
    pub fn admit(&self, proxy: ProxyId) {
        self.lock().subscribers.nodes.insert(proxy.to_string(), proxy);
    }

    /// What the push with this nonce will hold; recorded once the push is reported as sent.
    pub fn announce(&self, stream: u64, nonce: &str, push: Announced) {
        if let Some(entry) = self.lock().streams.get_mut(&stream) {
            entry.announced.insert(nonce.to_owned(), push);
        }
    }

    /// Records a response that was overheard on its way to the stream's peer.
    pub fn overheard(&self, sent: Sent) {
        self.record(&self.lock(), sent.stream, sent);
    }

    /// Records what else there is to say about a stream.
    pub fn remark(&self, stream: u64, words: &str) {
        self.record(&self.lock(), stream, Log { line: format!("stream {stream}: {words}") });
    }

    /// Records an event. Returns whose stream it is, as far as it is known.
    pub fn note(&self, event: &Event) -> Option<ProxyId> {
        let mut state = self.lock();
        let stream = event.stream();
        match event {
            Event::Opened { stream, rpc, peer_pid } => {
                let proxy = peer_pid.and_then(|pid| state.subscribers.pids.get(&pid).cloned());
                let entry = Entry { rpc: *rpc, proxy, secret: None, announced: HashMap::new() };
                state.streams.insert(*stream, entry);
                let fact = StreamOpened { stream: *stream, rpc: rpc.name().to_owned(), peer_pid: *peer_pid };
                self.record(&state, *stream, fact);
            }
            Event::Subscribed { stream, type_url, names, version_info, node, .. } => {
                let known = state.subscribers.of_node(node).cloned();
                if let Some(entry) = state.streams.get_mut(stream) {
                    if known.is_some() {
                        entry.proxy = known;
                    }
                    entry.secret = match &names[..] {
                        [name] => SecretName::parse(name).ok(),
                        _ => None,
                    };
                }
                let fact = Subscribed {
                    stream: *stream,
                    type_url: cut(type_url),
                    names: bounded_names(names),
                    version_info: cut(version_info),
                    node: cut(node),
                };
                self.record(&state, *stream, fact);
            }
            Event::Sent { stream, nonce } => {
                let entry = state.streams.get_mut(stream)?;
                let Announced { version_info, type_url: claimed, secrets } =
                    entry.announced.remove(nonce).unwrap_or_default();
                let fact = Sent {
                    stream: *stream,
                    type_url: claimed.unwrap_or_else(|| type_url(entry.rpc).to_owned()),
                    version_info,
                    nonce: nonce.clone(),
                    secrets,
                };
                self.record(&state, *stream, fact);
            }
            Event::Acked { stream, nonce, version_info } => {
                let fact = Acked { stream: *stream, nonce: cut(nonce), version_info: cut(version_info) };
                self.record(&state, *stream, fact);
            }
            Event::Nacked { stream, nonce, version_info, error } => {
                let fact = Nacked {
                    stream: *stream,
                    nonce: cut(nonce),
                    version_info: cut(version_info),
                    error: cut_error(error),
                };
                self.record(&state, *stream, fact);
            }
            Event::Stale { stream, nonce } => {
                let nonce = cut(nonce);
                let line = format!("stream {stream}: ignored an answer to nonce {nonce:?}, which was never sent on it");
                self.record(&state, *stream, Log { line });
            }
            Event::Closed { stream, by, status } => {
                let fact = StreamClosed { stream: *stream, by: by.clone(), status: cut(status) };
                self.record(&state, *stream, fact);
                return state.streams.remove(stream).and_then(|entry| entry.proxy);
            }
        }
        state.streams.get(&stream).and_then(|entry| entry.proxy.clone())
    }

    fn record(&self, state: &State, stream: u64, fact: impl Into<Fact>) {
        let entry = state.streams.get(&stream);
        let (proxy, secret) = (entry.and_then(|e| e.proxy.as_ref()), entry.and_then(|e| e.secret.as_ref()));
        self.recorder.record(self.source, proxy, secret, fact);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded_names(names: &[String]) -> Vec<String> {
    let mut bounded: Vec<String> = names.iter().take(MOST_NAMES).map(|name| cut_name(name)).collect();
    if let Some(more) = names.len().checked_sub(MOST_NAMES).filter(|more| *more > 0) {
        bounded.push(format!("... {more} more"));
    }
    bounded
}
