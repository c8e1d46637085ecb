//! The user's wish to stop: once to collect and clean up, twice to kill.

use std::sync::Arc;

use tokio::sync::watch;

/// Cheap to clone; all clones hear the same.
#[derive(Clone)]
pub struct Stop(Arc<watch::Sender<Wish>>);

#[derive(Default)]
struct Wish {
    asked: u8,
    /// Something is kept for the user to look at, until the next interrupt.
    held: bool,
}

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Wish::default())))
    }
}

impl Stop {
    /// Asks once more: the first time to stop in good order, the second to kill.
    pub fn ask(&self) {
        self.0.send_modify(|wish| wish.asked = wish.asked.saturating_add(1));
    }

    /// Ctrl-C: lets go of what is held, and asks only where nothing is.
    pub fn interrupt(&self) {
        self.0.send_modify(|wish| {
            if !std::mem::take(&mut wish.held) {
                wish.asked = wish.asked.saturating_add(1);
            }
        });
    }

    /// Waits for an interrupt, which then means to go on, or for somebody who asks.
    pub async fn hold(&self) {
        self.0.send_modify(|wish| wish.held = true);
        self.until(|wish| !wish.held || wish.asked > 0).await;
        self.0.send_modify(|wish| wish.held = false);
    }

    /// Whether anybody asked.
    pub fn asked(&self) -> bool {
        self.0.borrow().asked > 0
    }

    /// Resolves when somebody asks.
    pub async fn requested(&self) {
        self.until(|wish| wish.asked > 0).await;
    }

    /// Resolves when somebody asks a second time.
    pub async fn forced(&self) {
        self.until(|wish| wish.asked > 1).await;
    }

    async fn until(&self, reached: impl FnMut(&Wish) -> bool) {
        // The sender lives as long as we do, so this cannot fail.
        let _ = self.0.subscribe().wait_for(reached).await;
    }

    /// Interrupts on SIGINT, asks on SIGTERM and SIGHUP, as long as the runtime lives.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind)?;
            let stop = self.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if kind == SignalKind::interrupt() {
                        stop.interrupt();
                    } else {
                        stop.ask();
                    }
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interrupt_lets_go_of_what_is_held_and_stops_only_where_nothing_is() {
        let stop = Stop::default();
        let held = tokio::spawn({
            let stop = stop.clone();
            async move { stop.hold().await }
        });
        while !stop.0.borrow().held {
            tokio::task::yield_now().await;
        }
        stop.interrupt();
        held.await.unwrap();
        assert!(!stop.asked());
        stop.interrupt();
        assert!(stop.asked());
        // Nothing is held any more once somebody wants the run to end.
        stop.hold().await;
        stop.interrupt();
        stop.forced().await;
    }
}
