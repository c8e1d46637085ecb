//! The user's wish to stop: once to collect and clean up, twice to kill.

use std::sync::Arc;

use tokio::sync::watch;

/// Cheap to clone; all clones hear the same.
#[derive(Clone)]
pub struct Stop(Arc<watch::Sender<u8>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Stop {
    /// Asks once more: the first time to stop in good order, the second to kill.
    pub fn ask(&self) {
        self.0.send_modify(|n| *n = n.saturating_add(1));
    }

    /// Whether anybody asked.
    pub fn asked(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Resolves when somebody asks.
    pub async fn requested(&self) {
        self.at_least(1).await;
    }

    /// Resolves when somebody asks a second time.
    pub async fn forced(&self) {
        self.at_least(2).await;
    }

    async fn at_least(&self, times: u8) {
        // The sender lives as long as we do, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|n| *n >= times).await;
    }

    /// Asks on SIGINT, SIGTERM and SIGHUP, as long as the runtime lives.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind)?;
            let stop = self.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    stop.ask();
                }
            });
        }
        Ok(())
    }
}
