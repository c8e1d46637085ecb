//! Where a cell's proxies are to be: on this machine, or in a namespace of a cluster that is theirs alone.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::{CellJob, RunError, Stop};
use crate::clock::Clock;
use crate::fleet::FleetConfig;
use crate::timeline::{ProxyId, SpiffeId};

/// Where a cell's proxies are to be.
#[derive(Default)]
pub(super) struct Site {
    #[cfg(feature = "kubernetes")]
    yard: Option<std::sync::Arc<crate::fleet::Yard>>,
    /// What issues there, if it was made for the cell.
    #[cfg(feature = "kubernetes")]
    issuer: Option<crate::fleet::IssuerThere>,
    /// Who is asked for certificates there, if somebody is.
    #[cfg(feature = "kubernetes")]
    asked: Option<crate::fleet::Asked>,
    /// Where one whose lifetimes are not known beforehand is asked from a pod.
    #[cfg(feature = "kubernetes")]
    witness: Option<Utf8PathBuf>,
}

#[cfg(feature = "kubernetes")]
impl Site {
    /// Makes what has to be there before the provider is: certificates age from their first issue on. A provider that is
    /// pods is made here as well; what it says is kept in `directory`. Sockets are made in `scratch`.
    pub(super) async fn prepare(
        job: &CellJob,
        directory: &Utf8Path,
        scratch: &Utf8Path,
        clock: &Clock,
        stop: &Stop,
    ) -> Result<Self, RunError> {
        use crate::fleet::{Asked, Gated, Yard};
        use crate::provider::{SpireGate, server_log, tbot_files, tbot_version};
        let Some(place) = &job.place else { return Ok(Self::default()) };
        let namespace = Yard::namespace(job.scenario.name.as_str());
        let prepare = async {
            let members = job.identities(Some(&namespace));
            let proxies: Vec<ProxyId> = members.iter().map(|(id, _)| id.clone()).collect();
            let yard = Yard::prepare(place, &namespace, &job.id, clock, &proxies).await?;
            let spec = &job.scenario.provider;
            let issuer = match &job.asked {
                Some(Asked::Spire) => {
                    let (conf, counts) = Yard::spire_server();
                    let gate = SpireGate::of(spec, conf, counts, clock.now())?;
                    let gated = gate.map_or_else(Gated::default, |SpireGate { conf, files }| Gated { conf, files });
                    Some(yard.with_spire(&members, spec.ttl(), gated, &server_log(directory)).await?)
                }
                Some(Asked::Tbot) => {
                    let (token, socket) = (Yard::tbot_token(), Yard::tbot_socket());
                    let (configuration, token) = tbot_files(spec, Utf8Path::new(&token), Utf8Path::new(&socket))?;
                    Some(yard.with_tbot((&configuration, &token), tbot_version, directory).await?)
                }
                _ => None,
            };
            let met = job.asked.as_ref().and_then(|asked| Some((asked, asked.is_to_be_met()?)));
            let witness = match (met, proxies.first()) {
                (Some((asked, patience)), Some(first)) => Some(yard.witness(asked, first, patience, scratch).await?),
                _ => None,
            };
            Ok::<_, RunError>(Self { yard: Some(yard), issuer, asked: job.asked.clone(), witness })
        };
        tokio::select! {
            biased;
            () = stop.requested() => Err(RunError::Interrupted),
            prepared = prepare => prepared,
        }
    }

    /// Where the provider is asked from a pod, if it is to be.
    pub(super) fn witness(&self) -> Option<&Utf8Path> {
        self.witness.as_deref()
    }

    /// Where what is said by one that was made there is kept.
    pub(super) fn logs(&self) -> &[Utf8PathBuf] {
        self.issuer.as_ref().map_or(&[], |issuer| &issuer.logs)
    }

    /// The namespace that the proxies' identities name, where it is a real one.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.yard.as_ref().map(|yard| yard.name())
    }

    /// The job, with the version that the provider there told.
    pub(super) fn with_what_is_learnt(&self, job: &CellJob) -> CellJob {
        let mut job = job.clone();
        if let Some(issuer) = &self.issuer {
            job.subject.provider.version.clone_from(&issuer.version);
        }
        job
    }

    /// Where what issues there serves each proxy, if something does. The sockets are made in `scratch`.
    pub(super) fn agents(
        &self,
        members: &[(ProxyId, Option<SpiffeId>)],
        scratch: &Utf8Path,
    ) -> Result<Option<BTreeMap<ProxyId, Utf8PathBuf>>, RunError> {
        let (Some(yard), Some(asked)) = (&self.yard, &self.asked) else { return Ok(None) };
        let proxies: Vec<ProxyId> = members.iter().map(|(id, _)| id.clone()).collect();
        Ok(Some(yard.open_doors(asked.clone(), &proxies, &scratch.join("doors"))?))
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
    pub(super) async fn prepare(
        _: &CellJob,
        _: &Utf8Path,
        _: &Utf8Path,
        _: &Clock,
        _: &Stop,
    ) -> Result<Self, RunError> {
        Ok(Self::default())
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn witness(&self) -> Option<&Utf8Path> {
        None
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn logs(&self) -> &[Utf8PathBuf] {
        &[]
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn namespace(&self) -> Option<&str> {
        None
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn with_what_is_learnt(&self, job: &CellJob) -> CellJob {
        job.clone()
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with clusters")]
    pub(super) fn agents(
        &self,
        _: &[(ProxyId, Option<SpiffeId>)],
        _: &Utf8Path,
    ) -> Result<Option<BTreeMap<ProxyId, Utf8PathBuf>>, RunError> {
        Ok(None)
    }

    #[expect(clippy::unused_self, reason = "as with clusters")]
    pub(super) fn settle(&self, config: FleetConfig) -> FleetConfig {
        config
    }

    pub(super) async fn clear(&self) -> Result<(), RunError> {
        Ok(())
    }
}
