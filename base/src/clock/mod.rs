//! Cell time: the machine's clock, or one that is moved ahead together with the proxies'.

mod deadline;
mod mapping;

use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
pub use deadline::Deadline;
pub use mapping::{ClockError, OffsetFile};

use crate::timeline::At;

/// The clock of a cell; cheap to clone. All clones move together.
#[derive(Clone)]
pub struct Clock {
    began: Instant,
    offset: Option<Arc<OffsetFile>>,
}

impl Clock {
    /// The machine's own time.
    pub fn real() -> Self {
        Self { began: Instant::now(), offset: None }
    }

    /// Time that `advance` moves; processes that map the same file live in it too.
    pub fn moved(offset: OffsetFile) -> Self {
        Self { began: Instant::now(), offset: Some(Arc::new(offset)) }
    }

    /// Seconds by which cell time is ahead of the machine's clock.
    pub fn offset(&self) -> i64 {
        self.offset.as_ref().map_or(0, |o| o.seconds())
    }

    /// Whether `advance` moves it.
    pub fn is_moved(&self) -> bool {
        self.offset.is_some()
    }

    /// Cell time.
    pub fn now(&self) -> jiff::Timestamp {
        let real = jiff::Timestamp::now();
        real.checked_add(jiff::SignedDuration::from_secs(self.offset())).unwrap_or(real)
    }

    /// Cell time and monotonic time.
    pub fn at(&self) -> At {
        At { mono: self.began.elapsed(), wall: self.now(), offset_s: self.offset() }
    }

    /// Moves cell time ahead, for every process that maps the offset file. Whole seconds only. Returns the offsets
    /// before and after. A real clock can't be moved.
    pub fn advance(&self, by: Duration) -> Result<(i64, i64), ClockError> {
        self.offset.as_ref().ok_or(ClockError::Real)?.advance(by)
    }

    /// Checks that a running process lives in cell time as far as its memory map shows; see [`OffsetFile::taken_by`].
    /// In real time there is nothing to take.
    pub fn taken_by(&self, pid: i32) -> Result<(), ClockError> {
        self.offset.as_ref().map_or(Ok(()), |offset| offset.taken_by(pid))
    }

    /// The files that a process has to see to live in cell time (none for a real clock).
    pub fn files(&self) -> Vec<Utf8PathBuf> {
        self.offset.as_ref().map(|o| o.files()).unwrap_or_default()
    }

    /// The environment that makes a child process live in cell time (empty for a real clock).
    pub fn environment(&self) -> Vec<(String, String)> {
        self.offset.as_ref().map(|o| o.environment()).unwrap_or_default()
    }
}
