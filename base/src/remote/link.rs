//! The harness's side: a connection to one relay that is made again when it is cut, and what goes through it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::carry::words;
use super::connection::{self, Client, Connection, Connector};
use super::forward::reach;
use super::pb::{HelloResponse, PutRequest};
use super::{Credentials, Forward, Local, RemoteError, Serving, Target};
use crate::clock::Deadline;

/// What one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Between two attempts, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a cut way is tried again before the relay is given up.
const GIVE_UP: Duration = Duration::from_secs(60);
/// What one call may wait, for the way and for the answer.
pub(super) const CALL: Duration = Duration::from_secs(15);
/// The largest file that is put.
const LARGEST: usize = 3 << 20;

/// What happens on a link, beside what was asked for: nothing of it is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The way was cut: every connection through it is broken. It is being made again.
    Cut {
        /// In words.
        why: String,
    },
    /// There is a way again.
    Restored {
        /// How long there was none.
        after: Duration,
    },
    /// There was no way for so long that it is given up.
    Gone {
        /// In words.
        why: String,
    },
    /// One connection, or one listener, did not come about.
    Failed {
        /// In words: "dial tcp:...".
        asked: String,
        /// In words.
        why: String,
    },
}

/// Hears what happens. It must not block.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// A link to the relay of one pod. Cheap to clone; it ends with its last clone, forward and serving.
#[derive(Clone)]
pub struct Link {
    held: Arc<Held>,
}

struct Held {
    course: Arc<Course>,
    hello: HelloResponse,
    task: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Course {
    relay: String,
    connector: Connector,
    tls: Arc<rustls::ClientConfig>,
    tell: Tell,
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    Up(Client),
    Down(String),
    Gone(String),
}

impl Link {
    /// Connects, and tries again until the deadline. `relay` is whose relay it is, for words; `tell` hears what happens
    /// later.
    pub async fn connect(
        relay: impl Into<String>,
        connector: Connector,
        credentials: &Credentials,
        tell: Tell,
        deadline: Deadline,
    ) -> Result<Self, RemoteError> {
        let state = watch::Sender::new(State::Down("it was not reached yet".into()));
        let course = Course { relay: relay.into(), connector, tls: credentials.client()?, tell, state };
        let first = course.open_until(deadline).await.map_err(|why| course.unreachable(why))?;
        let hello = first.hello.clone();
        let course = Arc::new(course);
        course.state.send_replace(State::Up(first.client.clone()));
        let task = tokio::spawn(course.clone().keep(first));
        Ok(Self { held: Arc::new(Held { course, hello, task }) })
    }

    /// The version of the program in the pod.
    pub fn version(&self) -> &str {
        &self.held.hello.version
    }

    /// The pod's own name for itself.
    pub fn host(&self) -> &str {
        &self.held.hello.host
    }

    /// Whose relay it is.
    pub fn relay(&self) -> &str {
        &self.held.course.relay
    }

    /// A port on 127.0.0.1; each connection to it is one that the relay dials to `target`.
    pub async fn forward(&self, target: Target) -> Result<Forward, RemoteError> {
        Forward::start(self.clone(), target).await
    }

    /// Whether somebody listens at `target`; an error says why not.
    pub async fn reaches(&self, target: &Target) -> Result<(), RemoteError> {
        let reached = reach(self, target).await;
        reached.map(drop).map_err(|why| self.refused(format!("dial {target}"), why))
    }

    /// Lets the relay listen at `at`; each connection to it is connected to `local`. A Unix socket has the permissions
    /// `mode`, and exists only while a local one does.
    pub async fn serve(&self, at: Target, mode: u32, local: Local) -> Result<Serving, RemoteError> {
        Serving::start(self.clone(), at, mode, local).await
    }

    /// Writes a file below the relay's directory, in place, so that whoever has mapped it sees it change; its
    /// directories are made. At most 3 MB.
    pub async fn put(&self, path: &str, content: impl Into<Bytes>, mode: u32) -> Result<(), RemoteError> {
        let content = content.into();
        let asked = || format!("put {path:?}");
        if content.len() > LARGEST {
            return Err(self.refused(asked(), format!("it has {} bytes, and may have {LARGEST}", content.len())));
        }
        let deadline = Deadline::after(CALL);
        let mut client = self.client(deadline).await?;
        let put = client.put(PutRequest { path: path.to_owned(), content, mode });
        match tokio::time::timeout_at(deadline.instant(), put).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(self.refused(asked(), words(&status))),
            Err(_) => Err(self.refused(asked(), "it did not answer in time".into())),
        }
    }

    /// What calls are made with, as soon as there is a way.
    pub(super) async fn client(&self, deadline: Deadline) -> Result<Client, RemoteError> {
        let course = &self.held.course;
        let mut state = course.state.subscribe();
        let there = state.wait_for(|state| !matches!(state, State::Down(_)));
        let now = match tokio::time::timeout_at(deadline.instant(), there).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => State::Gone("the link has ended".into()),
            Err(_) => course.state.borrow().clone(),
        };
        match now {
            State::Up(client) => Ok(client),
            State::Down(why) | State::Gone(why) => Err(course.unreachable(why)),
        }
    }

    /// Whether the relay was given up.
    pub(super) fn is_gone(&self) -> bool {
        matches!(*self.held.course.state.borrow(), State::Gone(_))
    }

    pub(super) fn tell_failed(&self, asked: String, why: String) {
        (self.held.course.tell)(Event::Failed { asked, why });
    }

    pub(super) fn refused(&self, asked: String, why: String) -> RemoteError {
        RemoteError::Refused { relay: self.held.course.relay.clone(), asked, why }
    }
}

impl Course {
    /// Watches the connection, and makes a new one when it has ended.
    async fn keep(self: Arc<Self>, first: Connection) {
        let mut ended = first.ended;
        loop {
            let why = ended.await;
            let cut = Instant::now();
            self.state.send_replace(State::Down(why.clone()));
            (self.tell)(Event::Cut { why });
            match self.open_until(Deadline::after(GIVE_UP)).await {
                Ok(connection) => {
                    // Told first: what comes through it was seen after that.
                    (self.tell)(Event::Restored { after: cut.elapsed() });
                    self.state.send_replace(State::Up(connection.client));
                    ended = connection.ended;
                }
                Err(why) => {
                    (self.tell)(Event::Gone { why: why.clone() });
                    self.state.send_replace(State::Gone(why));
                    return;
                }
            }
        }
    }

    async fn open_until(&self, deadline: Deadline) -> Result<Connection, String> {
        let mut pause = BACK_OFF.0;
        loop {
            let attempt = deadline.min(Deadline::after(ATTEMPT));
            let why = match connection::open(&self.connector, self.tls.clone(), attempt).await {
                Ok(connection) => return Ok(connection),
                Err(why) => why,
            };
            tracing::debug!("the relay of {}: {why}", self.relay);
            if deadline.left() <= pause {
                return Err(why);
            }
            // Nothing tells when a relay begins to listen.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    fn unreachable(&self, why: String) -> RemoteError {
        RemoteError::Unreachable { relay: self.relay.clone(), why }
    }
}
