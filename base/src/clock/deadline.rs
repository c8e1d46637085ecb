//! A moment by which something must have come.

use std::time::Duration;

use tokio::time::Instant;

/// A moment on the monotonic clock by which something must have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// From now on.
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// The earlier of both.
    pub fn min(self, other: Deadline) -> Self {
        Self(self.0.min(other.0))
    }

    /// As the runtime counts it.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// What is left.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}
