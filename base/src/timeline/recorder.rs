//! Everything that is seen, asked for or pushed goes through the recorder into the timeline.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{
    At, Blind, Fact, Footer, Header, Layer, LineTooLong, Observation, ProxyId, SecretName, Source, Timeline,
    write_footer, write_header, write_observation,
};
use crate::clock::{Clock, Deadline};

/// The recording could not be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("write the timeline: {text}")]
pub struct RecordError {
    kind: std::io::ErrorKind,
    text: String,
}

impl RecordError {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self.kind {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "the disk is full: make room, or keep runs elsewhere with --runs DIR"
            }
            _ => "keep runs elsewhere with --runs DIR",
        }
    }
}

impl From<std::io::Error> for RecordError {
    fn from(e: std::io::Error) -> Self {
        Self { kind: e.kind(), text: e.to_string() }
    }
}

/// Appends observations to a timeline, in memory and on disk; cheap to clone, safe to share.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    len: watch::Sender<usize>,
    clock: Clock,
}

struct Inner {
    header: Header,
    observations: Vec<Arc<Observation>>,
    out: Option<BufWriter<File>>,
    error: Option<RecordError>,
    footer: Option<Footer>,
    /// What proxies are called now that have another one's place.
    renamed: HashMap<ProxyId, ProxyId>,
}

impl Recorder {
    /// Begins a recording; `out` is the timeline's file, if it is to be kept.
    pub fn new(header: Header, clock: Clock, out: Option<File>) -> Self {
        let mut out = out.map(BufWriter::new);
        let error = out.as_mut().and_then(|o| write_header(o, &header).err()).map(RecordError::from);
        let inner = Inner { header, observations: Vec::new(), out, error, footer: None, renamed: HashMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)), len: watch::Sender::new(0), clock }
    }

    /// The cell's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Records a fact that was seen just now, in cell time. Returns its `seq`.
    pub fn record(
        &self,
        source: Source,
        proxy: Option<&ProxyId>,
        secret: Option<&SecretName>,
        fact: impl Into<Fact>,
    ) -> u64 {
        self.record_at(None, source, proxy, secret, fact.into())
    }

    /// As `record`, for something seen at `at`.
    pub fn record_at(
        &self,
        at: Option<At>,
        source: Source,
        proxy: Option<&ProxyId>,
        secret: Option<&SecretName>,
        fact: Fact,
    ) -> u64 {
        // Texts of others may quote what they were sent, keys and all.
        let mut fact = match fact.without_private_keys() {
            Ok(None) => fact,
            Ok(Some(fact)) => fact,
            Err(_) => Fact::Blind(Blind {
                layer: None,
                what: fact.kind().to_owned(),
                why: "it holds a private key and was not recorded".to_owned(),
            }),
        };
        let mut inner = self.lock();
        // The moment is taken under the lock, so that seq and time agree in their order.
        let at = at.unwrap_or_else(|| self.clock.at());
        let seq = inner.observations.len() as u64;
        if inner.footer.is_some() {
            return seq;
        }
        let proxy = proxy.map(|id| inner.renamed.get(id).unwrap_or(id).clone());
        if let Fact::Request(request) = &mut fact {
            let now = ProxyId::parse(&request.to).ok().and_then(|to| inner.renamed.get(&to));
            if let Some(now) = now {
                request.to = now.to_string();
            }
        }
        let mut o = Observation { seq, at, source, proxy, secret: secret.cloned(), fact };
        if inner.error.is_none()
            && let Some(out) = inner.out.as_mut()
        {
            let mut written = write_observation(out, &o);
            if let Err(e) = &written
                && let Some(too_long) = e.get_ref().and_then(|e| e.downcast_ref::<LineTooLong>())
            {
                // Whoever judges the run later must see what is seen now.
                o.fact = unrecorded(&o.fact, too_long);
                written = write_observation(out, &o);
            }
            inner.error = written.err().map(RecordError::from);
        }
        inner.observations.push(Arc::new(o));
        let len = inner.observations.len();
        drop(inner);
        self.len.send_replace(len);
        seq
    }

    /// Another proxy has taken the place of the one of this name, and goes by it: from now on, what is recorded of it, or of
    /// requests to it, is `now`'s.
    pub fn rename(&self, name: &ProxyId, now: ProxyId) {
        self.lock().renamed.insert(name.clone(), now);
    }

    /// The recording as far as it has come; it has no end yet.
    pub fn so_far(&self) -> Timeline {
        let inner = self.lock();
        let observations = inner.observations.iter().map(|o| (**o).clone()).collect();
        Timeline { header: inner.header.clone(), observations, footer: None }
    }

    /// Observations so far.
    pub fn len(&self) -> usize {
        self.lock().observations.len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first failure to write, if there was one.
    pub fn error(&self) -> Option<RecordError> {
        self.lock().error.clone()
    }

    /// Shows every observation from `from` on to `done`, those of the past first, until it says true; `false` when
    /// the deadline passed before.
    pub async fn await_until(
        &self,
        from: usize,
        deadline: Deadline,
        mut done: impl FnMut(&Observation) -> bool,
    ) -> bool {
        let mut changes = self.len.subscribe();
        let mut next = from;
        loop {
            let fresh: Vec<_> = {
                let inner = self.lock();
                changes.mark_unchanged();
                inner.observations.get(next..).unwrap_or_default().to_vec()
            };
            next += fresh.len();
            if fresh.iter().any(|o| done(o)) {
                return true;
            }
            // The recorder holds a sender itself, so `changed` cannot fail while we are called.
            if tokio::time::timeout_at(deadline.instant(), changes.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Observations from `from` on.
    pub fn since(&self, from: usize) -> Vec<Arc<Observation>> {
        self.lock().observations.get(from..).unwrap_or_default().to_vec()
    }

    /// Writes what is buffered to disk, so that a harness that is killed leaves what it saw.
    pub fn flush(&self) {
        let mut inner = self.lock();
        if let Some(Err(e)) = inner.out.as_mut().map(Write::flush) {
            inner.error.get_or_insert(e.into());
        }
    }

    /// Ends the recording. `reason` says why it is not complete. What is recorded later is dropped; ending it again
    /// changes nothing.
    pub fn finish(&self, reason: Option<String>) -> Result<Timeline, RecordError> {
        let mut inner = self.lock();
        let observations = inner.observations.len() as u64;
        let footer = inner.footer.get_or_insert(Footer { observations, complete: reason.is_none(), reason }).clone();
        if let Some(mut out) = inner.out.take()
            && inner.error.is_none()
            && let Err(e) = write_footer(&mut out, &footer).and_then(|()| out.flush())
        {
            inner.error = Some(e.into());
        }
        match &inner.error {
            Some(e) => Err(e.clone()),
            None => Ok(Timeline {
                header: inner.header.clone(),
                observations: inner.observations.iter().map(|o| (**o).clone()).collect(),
                footer: Some(footer),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere must not hide the evidence that was gathered before it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the place of a fact for which the timeline has no room.
fn unrecorded(fact: &Fact, why: &LineTooLong) -> Fact {
    let layer = match fact {
        Fact::Issued(_) => Some(Layer::Issued),
        Fact::Sent(_) | Fact::Written(_) => Some(Layer::Sent),
        Fact::ConfigDump(_) => Some(Layer::Dumped),
        Fact::Certs(_) => Some(Layer::Loaded),
        Fact::Handshake(_) => Some(Layer::Served),
        _ => None,
    };
    Blind { layer, what: format!("{} (too large to be recorded)", fact.kind()), why: why.to_string() }.into()
}

#[cfg(test)]
impl Recorder {
    /// Of a recording that is not kept, for tests.
    pub(crate) fn unkept() -> Self {
        let recorded = include_bytes!("../../../fixtures/timelines/rotation.ndjson");
        let header = Timeline::read(&recorded[..]).expect("a fixture").header;
        Self::new(header, Clock::real(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Log, Request, Step};

    #[test]
    fn what_is_too_large_to_be_read_again_is_recorded_as_blindness() {
        let text = include_bytes!("../../../fixtures/timelines/rotation.ndjson");
        let header = Timeline::read(&text[..]).unwrap().header;
        let file = tempfile::NamedTempFile::new().unwrap();
        let recorder = Recorder::new(header, Clock::real(), Some(file.reopen().unwrap()));
        // Six bytes of JSON for each.
        recorder.record(Source::Process, None, None, Log { line: "\u{1}".repeat(3 << 20) });
        recorder.record(Source::Process, None, None, Log { line: "short".into() });
        let recorded = recorder.finish(None).unwrap();
        let read = Timeline::read(std::io::BufReader::new(file.reopen().unwrap())).unwrap();
        assert_eq!(read.observations, recorded.observations);
        let Fact::Blind(blind) = &read.observations[0].fact else { panic!("{:?}", read.observations[0]) };
        assert_eq!(blind.what, "log (too large to be recorded)");
    }

    #[test]
    fn one_that_takes_anothers_place_is_recorded_by_its_own_name() {
        let text = include_bytes!("../../../fixtures/timelines/rotation.ndjson");
        let header = Timeline::read(&text[..]).unwrap().header;
        let recorder = Recorder::new(header, Clock::real(), None);
        let [a, b, second] = ["a", "b", "a.2"].map(|id| ProxyId::parse(id).unwrap());
        let request =
            |to: &str| Request { to: to.to_owned(), fresh: true, status: Some(200), resumed: None, error: None };
        let record = |from: &ProxyId, to: &str| recorder.record(Source::Traffic, Some(from), None, request(to));
        record(&a, "b");
        recorder.rename(&a, second);
        record(&a, "b");
        record(&b, "a");
        recorder.record(Source::Harness, None, None, Step { index: 0, renewal: None, what: "x".into() });
        let all = recorder.since(0);
        let who = all.iter().filter_map(|o| match &o.fact {
            Fact::Request(request) => Some(format!("{} to {}", o.proxy.as_ref()?, request.to)),
            _ => None,
        });
        assert_eq!(who.collect::<Vec<_>>(), ["a to b", "a.2 to b", "b to a.2"]);
        assert_eq!(recorder.so_far().observations.len(), 4);
        assert!(recorder.so_far().footer.is_none());
    }
}
