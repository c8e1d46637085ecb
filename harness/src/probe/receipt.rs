//! Receipts for moved time: has the proxy's own clock followed?

use std::sync::PoisonError;
use std::time::Duration;

use super::context::ProbeContext;
use crate::fleet::Proxy;
use crate::timeline::{At, Receipt, ServerInfo, Source};

/// Uptime is told in whole seconds, and asked for a moment after it was true.
const TOLERANCE_S: f64 = 2.0;

/// A proxy's uptime at a known moment: what later receipts are measured from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    pid: i32,
    uptime_s: i64,
    mono: Duration,
    offset_s: i64,
}

impl Baseline {
    /// The process `pid` said `uptime_s` at `at`.
    pub fn new(pid: i32, uptime_s: i64, at: At) -> Self {
        Self { pid, uptime_s, mono: at.mono, offset_s: at.offset_s }
    }

    /// Uptime follows the wall clock: what it grew by, less the real time that passed, is how far time was moved.
    pub fn receipt(&self, uptime_s: i64, at: At) -> Receipt {
        let real = at.mono.saturating_sub(self.mono).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "an uptime beyond 2^52 seconds would not agree with anything")]
        let measured = self.offset_s as f64 + (uptime_s as f64 - self.uptime_s as f64) - real;
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let followed = (measured - at.offset_s as f64).abs() <= TOLERANCE_S;
        #[expect(clippy::cast_possible_truncation, reason = "it saturates; `followed` was judged before")]
        let measured_offset_s = measured.round() as i64;
        Receipt { expected_offset_s: at.offset_s, measured_offset_s, followed }
    }
}

/// Records whether the proxy's clock followed, from its uptime of just now. The first uptime of each process is the
/// baseline, and gives no receipt by itself.
pub(super) fn receipt(proxy: &Proxy, info: &ServerInfo, at: At, ctx: &ProbeContext) -> Option<Receipt> {
    let baseline = {
        let mut baselines = ctx.baselines.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Baseline::new(proxy.pid, info.uptime_s, at);
        let known = baselines.entry(proxy.id.clone()).or_insert(now);
        if known.pid != proxy.pid {
            *known = now;
        }
        *known
    };
    if baseline == Baseline::new(proxy.pid, info.uptime_s, at) {
        return None;
    }
    let receipt = baseline.receipt(info.uptime_s, at);
    ctx.recorder.record(Source::Clock, Some(&proxy.id), None, receipt.clone());
    Some(receipt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_s: f64, offset_s: i64) -> At {
        At { mono: Duration::from_secs_f64(mono_s), wall: jiff::Timestamp::UNIX_EPOCH, offset_s }
    }

    #[test]
    fn a_clock_that_followed_is_told_from_one_that_did_not() {
        let baseline = Baseline::new(1, 4, at(10.5, 0));
        let followed = baseline.receipt(4 + 1200 + 3, at(13.2, 1200));
        assert_eq!((followed.expected_offset_s, followed.measured_offset_s, followed.followed), (1200, 1200, true));
        let stayed = baseline.receipt(4 + 3, at(13.2, 1200));
        assert_eq!((stayed.measured_offset_s, stayed.followed), (0, false));
    }

    #[test]
    fn a_process_that_started_in_moved_time_is_measured_from_there() {
        let baseline = Baseline::new(1, 0, at(20.0, 3600));
        assert_eq!(
            baseline.receipt(1201, at(21.0, 4800)),
            Receipt { expected_offset_s: 4800, measured_offset_s: 4800, followed: true }
        );
    }

    #[test]
    fn absurd_uptimes_are_no_receipt() {
        for uptime in [i64::MIN, i64::MAX] {
            assert!(!Baseline::new(1, 0, at(0.0, 0)).receipt(uptime, at(1.0, 60)).followed);
        }
    }
}
