//! Work that is spread over the cores where there is enough of it.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Observations from which on the start of threads costs less than they save.
const WORTH: u64 = 20_000;

/// What `f` gives for each item, in their order. `observations` says how much work that is, and decides who does it.
pub(crate) fn spread<T: Sync, R: Send>(items: &[T], observations: u64, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = match observations {
        ..WORTH => 1,
        _ => thread::available_parallelism().map_or(1, NonZero::get).min(items.len()),
    };
    if threads < 2 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        taken.map_while(|i| Some((i, f(items.get(i)?)))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_their_items() {
        let items: Vec<u64> = (0..1000).collect();
        let doubled: Vec<u64> = items.iter().map(|n| 2 * n).collect();
        for observations in [0, WORTH] {
            assert_eq!(spread(&items, observations, |n| 2 * n), doubled);
        }
        assert!(spread(&[0_u8; 0], WORTH, |n| *n).is_empty());
    }

    #[test]
    fn a_panic_is_not_swallowed() {
        let caught = std::panic::catch_unwind(|| spread(&[1, 2, 3], WORTH, |n| assert!(*n < 3)));
        assert!(caught.is_err());
    }
}
