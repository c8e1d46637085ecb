//! The authorities of a trust domain, and how they take turns.

use std::time::Duration;

use super::{Authority, Leaf, LeafRequest, PkiError, Validity};
use crate::timeline::CertFacts;

/// Ten years: an authority must never be what expires in a scenario, unless that is what it is about.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Certificates that are made to have expired already must not be older than their authority.
const BACKDATED: Duration = Duration::from_secs(400 * 86_400);

/// The authorities of one trust domain: one signs, another may be prepared, former ones may still be trusted.
/// The words are those of SPIRE's `localauthority`.
pub struct Authorities {
    active: Authority,
    prepared: Option<Authority>,
    retired: Vec<Authority>,
    /// What signs in place of the active one, below it.
    intermediate: Option<Authority>,
    made: u32,
}

impl Authorities {
    /// One that signs, for so long from now on; by default, longer than any scenario takes. Those that come after it
    /// always outlive that.
    pub fn new(now: jiff::Timestamp, lasting: Option<Duration>) -> Result<Self, PkiError> {
        let active = make(1, now, lasting.unwrap_or(LIFETIME))?;
        Ok(Self { active, prepared: None, retired: Vec::new(), intermediate: None, made: 1 })
    }

    /// The one that signs.
    pub fn active(&self) -> &Authority {
        &self.active
    }

    /// A new authority joins the bundle; the old one goes on signing. One that was prepared before gives way.
    pub fn prepare(&mut self, now: jiff::Timestamp) -> Result<&CertFacts, PkiError> {
        let next = make(self.made + 1, now, LIFETIME)?;
        self.made += 1;
        Ok(self.prepared.insert(next).facts())
    }

    /// The prepared authority signs from now on; both stay in the bundle. Returns the new and the old one.
    pub fn activate(&mut self) -> Result<(&CertFacts, &CertFacts), PkiError> {
        let next = self.prepared.take().ok_or(PkiError::NothingPrepared)?;
        let old = std::mem::replace(&mut self.active, next);
        self.intermediate = None;
        self.retired.push(old);
        let old = self.retired.last().expect("it was pushed just now");
        Ok((self.active.facts(), old.facts()))
    }

    /// The authorities that no longer sign leave the bundle. Returns them.
    pub fn revoke(&mut self) -> Vec<CertFacts> {
        self.retired.drain(..).map(|a| a.facts().clone()).collect()
    }

    /// All that are trusted, the oldest first.
    pub fn bundle(&self) -> impl Iterator<Item = &Authority> {
        self.retired.iter().chain([&self.active]).chain(&self.prepared)
    }

    /// From now on, and until another authority is active, leaves are signed by an intermediate below this one.
    pub fn sign_by_intermediate(&mut self, validity: Validity) -> Result<(), PkiError> {
        self.intermediate = Some(self.active.intermediate("rotacheck intermediate", validity)?);
        Ok(())
    }

    /// A leaf, signed by the active authority or its intermediate.
    pub fn mint(&self, request: &LeafRequest) -> Result<Leaf, PkiError> {
        self.intermediate.as_ref().unwrap_or(&self.active).mint(request)
    }
}

fn make(number: u32, now: jiff::Timestamp, lasting: Duration) -> Result<Authority, PkiError> {
    let start = now.checked_sub(BACKDATED).unwrap_or(now);
    Authority::new(&format!("rotacheck authority {number}"), Validity::starting(start, BACKDATED + lasting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_trusted_before_it_signs_and_as_long_as_its_leaves_live() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut authorities = Authorities::new(now, None).unwrap();
        let first = authorities.active().facts().clone();
        let trusted = |a: &Authorities| a.bundle().map(|a| a.facts().clone()).collect::<Vec<_>>();

        let second = authorities.prepare(now).unwrap().clone();
        assert_eq!(authorities.active().facts(), &first);
        assert_eq!(trusted(&authorities), [first.clone(), second.clone()]);

        authorities.activate().unwrap();
        assert_eq!(authorities.active().facts(), &second);
        assert_eq!(trusted(&authorities), [first.clone(), second.clone()]);

        assert_eq!(authorities.revoke(), [first]);
        assert_eq!(trusted(&authorities), [second]);
        assert!(matches!(authorities.activate(), Err(PkiError::NothingPrepared)));
    }

    #[test]
    fn only_the_first_authority_can_be_made_to_end_early() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut authorities = Authorities::new(now, Some(Duration::from_secs(90))).unwrap();
        assert_eq!(authorities.active().facts().not_after, now + Duration::from_secs(90));
        assert!(authorities.prepare(now).unwrap().not_after > now + Duration::from_secs(366 * 86_400));
    }
}
