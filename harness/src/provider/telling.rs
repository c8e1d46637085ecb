//! What a provider's log says that it signed, on its way into the recording.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::signed::SignedLog;
use crate::clock::Deadline;
use crate::timeline::{Observation, Recorder, Source};

/// It may write a moment after it has sent.
const LOOK: Duration = Duration::from_millis(50);
/// Longer than any cell lives.
const FOREVER: Duration = Duration::from_secs(30 * 86_400);

/// Reads such a log, and records what it says. It goes on until this is dropped.
pub(super) struct Telling {
    log: Arc<Mutex<SignedLog>>,
    recorder: Recorder,
    task: AbortHandle,
}

impl Telling {
    /// Whenever something moves on the provider's streams, its log is read: what is signed is signed for them.
    pub(super) fn start(log: SignedLog, recorder: &Recorder) -> Self {
        let log = Arc::new(Mutex::new(log));
        record_signed(&log, recorder);
        let task = tokio::spawn({
            let (log, recorder) = (log.clone(), recorder.clone());
            async move {
                loop {
                    let from = recorder.len();
                    let moved = |o: &Observation| matches!(o.source, Source::Tap | Source::Witness);
                    recorder.await_until(from, Deadline::after(FOREVER), moved).await;
                    tokio::time::sleep(LOOK).await;
                    record_signed(&log, &recorder);
                }
            }
        });
        Self { log, recorder: recorder.clone(), task: task.abort_handle() }
    }

    pub(super) fn tell(&self) {
        record_signed(&self.log, &self.recorder);
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn record_signed(log: &Mutex<SignedLog>, recorder: &Recorder) {
    // Held until all is recorded, so that it is recorded in its order.
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    for signed in log.news() {
        recorder.record(Source::Provider, None, None, signed);
    }
}
