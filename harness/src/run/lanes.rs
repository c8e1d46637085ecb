//! How many cells run at a time: those whose time is moved compute, those in real time mostly wait.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{CellJob, RunOptions};
use crate::scenario::ClockKind;

/// Where cells queue, each kind in its own order.
pub(super) struct Lanes {
    moved: Arc<Semaphore>,
    real: Arc<Semaphore>,
    /// Those in real time that are not up yet: many at once would disturb each other, and all the rest. One for each two
    /// that compute, for those go on meanwhile.
    starting: Arc<Semaphore>,
}

/// A cell's leave to run.
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    starting: Mutex<Option<OwnedSemaphorePermit>>,
}

/// Whether a cell waits most of its time.
pub(super) fn waits(job: &CellJob) -> bool {
    job.scenario.clock == ClockKind::Real
}

impl Lanes {
    pub(super) fn new(options: &RunOptions) -> Self {
        let places = |n: u32| Arc::new(Semaphore::new(n as usize));
        let moved = places(options.jobs);
        // Who holds a cell to look at it wants to look at one.
        let real = if options.keep { moved.clone() } else { places(options.waiting) };
        Self { moved, real, starting: places((options.jobs / 2).max(1)) }
    }

    /// Comes when it is the cell's turn; in the order in which it was first asked.
    pub(super) fn turn(&self, job: &CellJob) -> impl Future<Output = Turn> + Send + use<> {
        let (lane, starting) = match waits(job) {
            true => (self.real.clone(), Some(self.starting.clone())),
            false => (self.moved.clone(), None),
        };
        async move {
            let place = permit(lane).await;
            let starting = match starting {
                Some(lane) => Some(permit(lane).await),
                None => None,
            };
            Turn { _place: place, starting: Mutex::new(starting) }
        }
    }
}

async fn permit(lane: Arc<Semaphore>) -> OwnedSemaphorePermit {
    lane.acquire_owned().await.expect("nobody closes a lane")
}

impl Turn {
    /// The cell is up: if it mostly waits from now on, the next one may start.
    pub(super) fn is_up(&self) {
        drop(self.starting.lock().unwrap_or_else(|e| e.into_inner()).take());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::super::tests::{job, options};
    use super::*;

    #[test]
    fn a_cell_that_waits_lets_the_next_one_start_and_keeps_its_place() {
        let scratch = tempfile::tempdir().unwrap();
        let base = camino::Utf8PathBuf::from_path_buf(scratch.path().to_owned()).unwrap();
        let options = RunOptions { jobs: 1, waiting: 2, timeout: Duration::from_secs(60), ..options(base) };
        let mut waiting = job(&crate::archive::sample::every_outcome()[0]);
        let moved = waiting.clone();
        waiting.scenario.clock = ClockKind::Real;
        let lanes = Lanes::new(&options);
        let now = |job: &CellJob| lanes.turn(job).now_or_never();

        let first = now(&waiting).unwrap();
        assert!(now(&waiting).is_none(), "the first one still starts");
        let other = now(&moved).unwrap();
        assert!(now(&moved).is_none(), "one job");
        first.is_up();
        let second = now(&waiting).unwrap();
        second.is_up();
        assert!(now(&waiting).is_none(), "two places");
        drop((first, other));
        assert!(now(&waiting).is_some() && now(&moved).is_some());
    }
}
