//! Where a cell's proxies are to be: on this machine, or in a namespace of a cluster that is theirs alone.

use super::{CellJob, RunError, Stop};
use crate::clock::Clock;
use crate::fleet::FleetConfig;

/// Where a cell's proxies are to be.
#[derive(Default)]
pub(super) struct Site {
    #[cfg(feature = "kubernetes")]
    yard: Option<std::sync::Arc<crate::fleet::Yard>>,
}

#[cfg(feature = "kubernetes")]
impl Site {
    /// Makes what has to be there before the provider is: certificates age from their first issue on.
    pub(super) async fn prepare(job: &CellJob, clock: &Clock, stop: &Stop) -> Result<Self, RunError> {
        use crate::fleet::Yard;
        let Some(place) = &job.place else { return Ok(Self::default()) };
        let namespace = Yard::namespace(job.scenario.name.as_str());
        let yard = tokio::select! {
            biased;
            () = stop.requested() => return Err(RunError::Interrupted),
            yard = Yard::prepare(place, &namespace, &job.id, clock) => yard?,
        };
        Ok(Self { yard: Some(yard) })
    }

    /// The namespace that the proxies' identities name, where it is a real one.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.yard.as_ref().map(|yard| yard.name())
    }

    /// With the proxies there.
    pub(super) fn settle(&self, config: FleetConfig) -> FleetConfig {
        FleetConfig { yard: self.yard.clone(), ..config }
    }

    /// Takes away what was made.
    pub(super) async fn clear(&self) -> Result<(), RunError> {
        match &self.yard {
            Some(yard) => Ok(yard.clear().await?),
            None => Ok(()),
        }
    }
}

#[cfg(not(feature = "kubernetes"))]
impl Site {
    pub(super) async fn prepare(_: &CellJob, _: &Clock, _: &Stop) -> Result<Self, RunError> {
        Ok(Self::default())
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn namespace(&self) -> Option<&str> {
        None
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn settle(&self, config: FleetConfig) -> FleetConfig {
        config
    }

    pub(super) async fn clear(&self) -> Result<(), RunError> {
        Ok(())
    }
}
