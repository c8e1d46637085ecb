//! What a renewal did, so that its answers can be awaited.

use std::collections::{HashMap, HashSet};

use crate::clock::Deadline;
use crate::timeline::{Fact, Fingerprint, Observation, ProxyId, Recorder};

/// A push that an answer is expected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// To which stream.
    pub stream: u64,
    /// Its nonce.
    pub nonce: String,
    /// To whom, where that is known.
    pub proxy: Option<ProxyId>,
    /// Names in it.
    pub secrets: Vec<String>,
}

/// A stream that the renewal ended, and that is expected to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Which.
    pub stream: u64,
    /// Whose, where that is known.
    pub proxy: Option<ProxyId>,
    /// Names that it subscribed to.
    pub secrets: Vec<String>,
}

/// What a renewal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Its number.
    pub number: u32,
    /// Everything that it caused is in the timeline from here on.
    pub from: usize,
    /// Leaves minted.
    pub minted: Vec<(Option<ProxyId>, Fingerprint)>,
    /// SDS pushes, in their order. Workload API pushes are not in it: nobody answers them.
    pub pushes: Vec<Pushed>,
    /// SDS streams ended.
    pub closed: Vec<Closed>,
}

impl Renewal {
    /// Awaits an ACK, a NACK or the stream's end for each push; returns those that had none of them in time.
    pub(super) async fn answered(&self, recorder: &Recorder, deadline: Deadline) -> Vec<Pushed> {
        let mut open: HashMap<u64, HashSet<&str>> = HashMap::new();
        for push in &self.pushes {
            open.entry(push.stream).or_default().insert(&push.nonce);
        }
        let unanswered = |open: &HashMap<u64, HashSet<&str>>| {
            let is_open = |p: &&Pushed| open.get(&p.stream).is_some_and(|nonces| nonces.contains(p.nonce.as_str()));
            self.pushes.iter().filter(is_open).cloned().collect()
        };
        if open.is_empty() {
            return Vec::new();
        }
        recorder
            .await_until(self.from, deadline, |o| {
                match &o.fact {
                    Fact::Acked(a) => settle(&mut open, a.stream, &a.nonce),
                    Fact::Nacked(n) => settle(&mut open, n.stream, &n.nonce),
                    Fact::StreamClosed(c) => {
                        open.remove(&c.stream);
                    }
                    _ => {}
                }
                open.is_empty()
            })
            .await;
        unanswered(&open)
    }

    /// Awaits that every ended stream was opened again and its first push answered; returns those that were not.
    pub(super) async fn reconnected(&self, recorder: &Recorder, deadline: Deadline) -> Vec<Closed> {
        let mut missing = self.closed.clone();
        if missing.is_empty() {
            return missing;
        }
        let mut names: HashMap<u64, (Option<ProxyId>, Vec<String>)> = HashMap::new();
        let ended: HashSet<u64> = self.closed.iter().map(|c| c.stream).collect();
        recorder
            .await_until(self.from, deadline, |o| {
                match &o.fact {
                    Fact::Subscribed(s) if !ended.contains(&s.stream) => {
                        names.insert(s.stream, (o.proxy.clone(), s.names.clone()));
                    }
                    _ => {
                        if let Some(answered) = answered_stream(o).and_then(|stream| names.get(&stream)) {
                            let is_it = |c: &Closed| c.proxy == answered.0 && c.secrets == answered.1;
                            missing.iter().position(is_it).map(|at| missing.swap_remove(at));
                        }
                    }
                }
                missing.is_empty()
            })
            .await;
        missing
    }
}

fn answered_stream(o: &Observation) -> Option<u64> {
    match &o.fact {
        Fact::Acked(a) => Some(a.stream),
        Fact::Nacked(n) => Some(n.stream),
        _ => None,
    }
}

fn settle(open: &mut HashMap<u64, HashSet<&str>>, stream: u64, nonce: &str) {
    if let Some(nonces) = open.get_mut(&stream) {
        nonces.remove(nonce);
        if nonces.is_empty() {
            open.remove(&stream);
        }
    }
}
