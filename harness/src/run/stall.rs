//! Notices when the harness itself did not run: what it missed meanwhile proves nothing.

use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::timeline::{Recorder, Source, Stall};

const BEAT: Duration = Duration::from_millis(250);
/// A busy machine delays a timer by less than this.
const WORTH_SAYING: Duration = Duration::from_millis(1000);

/// Watches for gaps until it is dropped.
pub(super) struct StallWatch(AbortHandle);

impl StallWatch {
    pub(super) fn start(recorder: Recorder) -> Self {
        let task = tokio::spawn(async move {
            loop {
                let before = Instant::now();
                tokio::time::sleep(BEAT).await;
                let gap = before.elapsed().saturating_sub(BEAT);
                if gap > WORTH_SAYING {
                    let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
                    recorder.record(Source::Harness, None, None, Stall { gap_ms });
                }
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
