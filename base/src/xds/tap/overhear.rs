//! One stream, overheard: its messages become facts before they pass on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::Message as _;

use super::super::message::{Event, Rpc};
use super::super::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use super::super::read;
use super::super::sds::Dialogue;
use super::Ear;
use super::deframe::{Deframer, Found};
use crate::pki::cut;
use crate::timeline::{Sent, UNREADABLE};

/// One RPC that is overheard. Both directions share it; however it ends, its end is told once.
pub(super) struct Conversation {
    stream: u64,
    ear: Arc<Ear>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dialogue: Dialogue,
    asked: Deframer,
    said: Deframer,
    /// When the last piece of a response came.
    came: Option<Instant>,
    closed: bool,
}

/// A response of which nothing came for so long hangs; one of which something did is on its way.
const STILL: Duration = Duration::from_secs(1);

impl Conversation {
    pub(super) fn open(ear: Arc<Ear>, rpc: Rpc, peer_pid: Option<i32>) -> Arc<Self> {
        let stream = ear.next_stream();
        let conversation = Arc::new(Self { stream, ear, state: Mutex::default() });
        conversation.note(Event::Opened { stream, rpc, peer_pid });
        conversation.ear.opened(&conversation);
        conversation
    }

    /// Tells of a response that was begun, has not ended, and goes on no more.
    pub(super) fn tell_unfinished(&self) {
        let state = self.lock();
        let hangs = !state.closed && state.came.is_some_and(|came| came.elapsed() >= STILL);
        if let Some((came, of)) = state.said.unfinished().filter(|_| hangs) {
            self.remark(&format!("the provider began a response and did not end it: {came} of {of} bytes have come"));
        }
    }

    fn hear(&self, direction: Direction, piece: &[u8]) {
        let mut state = self.lock();
        let State { dialogue, asked, said, came, .. } = &mut *state;
        if direction == Direction::Response {
            *came = Some(Instant::now());
        }
        match direction {
            Direction::Request => asked.feed(piece, |found| self.request(dialogue, &found)),
            Direction::Response => said.feed(piece, |found| self.response(dialogue, &found)),
        }
    }

    fn request(&self, dialogue: &mut Dialogue, found: &Found<'_>) {
        let Found::Message(bytes) = found else { return self.opaque("request", found) };
        match DiscoveryRequest::decode(*bytes) {
            Ok(mut request) => {
                request.response_nonce = cut(&request.response_nonce);
                request.version_info = cut(&request.version_info);
                dialogue.hear(self.stream, &request).into_iter().for_each(|event| self.note(event));
            }
            Err(e) => self.remark(&format!("a request that is no DiscoveryRequest: {e}")),
        }
    }

    fn response(&self, dialogue: &mut Dialogue, found: &Found<'_>) {
        let Found::Message(bytes) = found else { return self.opaque("response", found) };
        let response = match DiscoveryResponse::decode(*bytes) {
            Ok(response) => response,
            Err(e) => return self.remark(&format!("{UNREADABLE}: {e}")),
        };
        let contents = read::contents(&response);
        let sent = Sent {
            stream: self.stream,
            type_url: cut(&response.type_url),
            version_info: cut(&response.version_info),
            nonce: cut(&response.nonce),
            secrets: contents.secrets,
        };
        if !self.ear.room(&sent) {
            return;
        }
        dialogue.said(&sent.nonce);
        self.ear.journal.overheard(sent);
        if !contents.roots.is_empty() {
            self.ear.roots.send_replace(contents.roots);
        }
        if contents.uncounted > 0 {
            self.remark(&format!("{} further secrets in that response were not looked into", contents.uncounted));
        }
    }

    fn opaque(&self, what: &str, found: &Found<'_>) {
        if let Found::Opaque(length) = found {
            self.remark(&format!("a {what} of {length} bytes, compressed or too large, was not looked into"));
        }
    }

    /// The provider's last word.
    fn trailers(&self, trailers: &HeaderMap) {
        self.close("provider", &status(trailers));
    }

    /// Tells the end, unless it was told.
    pub(super) fn close(&self, by: &str, status: &str) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        if let Some((came, of)) = state.said.unfinished() {
            self.remark(&format!("the provider ended in the middle of a response, {came} of {of} bytes had come"));
        }
        self.note(Event::Closed { stream: self.stream, by: by.to_owned(), status: cut(status) });
    }

    fn note(&self, event: Event) {
        if self.ear.room(&event) {
            self.ear.journal.note(&event);
        }
    }

    fn remark(&self, words: &str) {
        if self.ear.room(&words) {
            self.ear.journal.remark(self.stream, words);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// gRPC's status in trailers, or in the headers of a response that has nothing else.
pub(super) fn status(trailers: &HeaderMap) -> String {
    let text = |name| trailers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or_default();
    let code = match text("grpc-status").parse() {
        Ok(code) => format!("{:?}", tonic::Code::from_i32(code)),
        Err(_) => "no status".to_owned(),
    };
    match text("grpc-message") {
        "" => code,
        message => format!("{code}: {message}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// A body that passes on unchanged, and is overheard.
pub(super) struct Overheard {
    pub(super) body: Incoming,
    /// What was read of it before.
    pub(super) held: VecDeque<Frame<Bytes>>,
    pub(super) direction: Direction,
    pub(super) conversation: Arc<Conversation>,
}

impl Body for Overheard {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = match self.held.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        let response = self.direction == Direction::Response;
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.conversation.hear(self.direction, data);
                } else if let Some(trailers) = frame.trailers_ref().filter(|_| response) {
                    self.conversation.trailers(trailers);
                }
            }
            Poll::Ready(Some(Err(e))) if response => self.conversation.close("connection", &e.to_string()),
            Poll::Ready(Some(Err(e))) => self.conversation.close("proxy", &e.to_string()),
            Poll::Ready(None) if response => self.conversation.close("provider", "ended without a status"),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It was not even answered.
        self.close("proxy", "the proxy went away");
    }
}

impl Drop for Overheard {
    fn drop(&mut self) {
        // The peer's own end of a response that was still to go on.
        if self.direction == Direction::Response {
            self.conversation.close("proxy", "the proxy went away");
        }
    }
}
