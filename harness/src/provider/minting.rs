//! How certificates are made, and which of their content is spoiled.

use std::sync::Arc;
use std::time::Duration;

use super::material::Certificate;
use crate::pki::{Authorities, LeafRequest, PkiError, PrivateKey, San, Validity};
use crate::scenario::{AuthorityAction, Fault, KeyType, ProviderSpec, Serials};
use crate::timeline::{CertFacts, SpiffeId};

/// How long before the present one's life a certificate expired that is made to have done so: nobody who looked at the
/// one before can take it for one that expired meanwhile.
const EXPIRED_SINCE: Duration = Duration::from_secs(60);

/// How long before its time a certificate comes that is made not to be valid yet.
const VALID_IN: Duration = Duration::from_secs(600);

/// The serial number of all certificates, where they are to have one.
const SHARED_SERIAL: [u8; 8] = [0x52, 0x6f, 0x74, 0x61, 0x43, 0x68, 0x65, 0x6b];

/// Makes certificates as the scenario says: the authorities, the keys, the lifetimes, the serial numbers.
pub(super) struct Mint {
    authorities: Authorities,
    ttl: Duration,
    intermediate_ttl: Option<Duration>,
    key_type: KeyType,
    later_key_type: Option<KeyType>,
    serials: Serials,
    /// Whether certificates come with an OCSP response.
    staples: bool,
    /// How many it has made.
    made: u64,
}

/// Whose certificate is to be made, and how it is to be spoiled.
pub(super) struct Wanted {
    pub(super) spiffe_id: SpiffeId,
    /// Somebody else, for certificates that are to name one.
    pub(super) somebody_else: SpiffeId,
    pub(super) renewal: u32,
    pub(super) fault: Option<Fault>,
}

impl Mint {
    pub(super) fn new(spec: &ProviderSpec, staples: bool, now: jiff::Timestamp) -> Result<Self, PkiError> {
        let life = |span: Option<crate::scenario::Span>| span.map(|span| span.duration());
        let mut mint = Self {
            authorities: Authorities::new(now, life(spec.authority_ttl))?,
            ttl: spec.ttl().duration(),
            intermediate_ttl: life(spec.intermediate_ttl),
            key_type: spec.key_type,
            later_key_type: spec.later_key_type,
            serials: spec.serials,
            staples,
            made: 0,
        };
        mint.sign_by_intermediate(now)?;
        Ok(mint)
    }

    pub(super) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// The authorities take a turn. Gives the certificates that it is about, and what they are from now on.
    pub(super) fn turn(
        &mut self,
        action: AuthorityAction,
        now: jiff::Timestamp,
    ) -> Result<(Vec<CertFacts>, &'static str), PkiError> {
        Ok(match action {
            AuthorityAction::Prepare => (vec![self.authorities.prepare(now)?.clone()], "prepared"),
            AuthorityAction::Activate => {
                let active = self.authorities.activate()?.0.clone();
                self.sign_by_intermediate(now)?;
                (vec![active], "active")
            }
            AuthorityAction::Revoke => (self.authorities.revoke(), "retired"),
        })
    }

    fn sign_by_intermediate(&mut self, now: jiff::Timestamp) -> Result<(), PkiError> {
        match self.intermediate_ttl {
            Some(ttl) => self.authorities.sign_by_intermediate(Validity::starting(now, ttl)),
            None => Ok(()),
        }
    }

    /// A new certificate, with the defects that one is minted with; and what it says.
    pub(super) fn mint(
        &mut self,
        wanted: Wanted,
        now: jiff::Timestamp,
    ) -> Result<(Arc<Certificate>, CertFacts), PkiError> {
        let Wanted { spiffe_id, somebody_else, renewal, fault } = wanted;
        let validity = match fault {
            Some(Fault::ExpiredCertificate) => {
                Validity::ending(now.checked_sub(self.ttl + EXPIRED_SINCE).unwrap_or(now), self.ttl)
            }
            Some(Fault::NotYetValid) => Validity::starting(now.checked_add(VALID_IN).unwrap_or(now), self.ttl),
            _ => Validity::starting(now, self.ttl),
        };
        let ids = match fault {
            Some(Fault::WrongIdentity) => vec![somebody_else],
            Some(Fault::SecondIdentity) => vec![spiffe_id, somebody_else],
            _ => vec![spiffe_id],
        };
        let request = LeafRequest {
            names: ids.iter().cloned().map(San::Spiffe).collect(),
            validity,
            key_type: self.later_key_type.filter(|_| renewal > 1).unwrap_or(self.key_type),
            serial: self.serial(),
        };
        self.made += 1;
        let leaf = self.authorities.mint(&request)?;
        let facts = leaf.facts.clone();
        let stapled = self.staples && fault != Some(Fault::NoStaple);
        let staple = stapled.then(|| self.authorities.active().staple(&leaf, validity)).transpose()?;
        let first = ids.into_iter().next().expect("there is one in every case");
        Ok((Certificate::new(first, leaf, staple), facts))
    }

    fn serial(&self) -> Option<Vec<u8>> {
        match self.serials {
            Serials::Random => None,
            Serials::Shared => Some(SHARED_SERIAL.to_vec()),
            Serials::LeadingZeros => {
                // The number of certificates before it makes it unique.
                let begins = if self.made.is_multiple_of(2) { 0x07 } else { 0x9c };
                Some([&[begins], self.made.to_be_bytes().as_slice()].concat())
            }
        }
    }

    /// The certificate as this fault lets it out.
    pub(super) fn spoil(&self, fault: Option<Fault>, whole: Arc<Certificate>) -> Result<Arc<Certificate>, PkiError> {
        Ok(match fault {
            Some(Fault::WrongKey) => {
                let (other, _) = PrivateKey::generate(self.key_type)?;
                whole.with_key(other)
            }
            Some(Fault::BadPem) => whole.with_bad_pem(),
            Some(Fault::LeafLast) => whole.with_leaf_last(self.authorities.active()),
            Some(Fault::ChainInOneBlock) => whole.with_one_block(self.authorities.active()),
            _ => whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Payload;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn mint(spec: serde_json::Value) -> Mint {
        Mint::new(&serde_json::from_value(spec).unwrap(), false, NOW.parse().unwrap()).unwrap()
    }

    fn minted(mint: &mut Mint, fault: Option<Fault>) -> (Arc<Certificate>, CertFacts) {
        let id = |name: &str| SpiffeId::parse(&format!("spiffe://demo.test/{name}")).unwrap();
        let wanted = Wanted { spiffe_id: id("own"), somebody_else: id("other"), renewal: 1, fault };
        mint.mint(wanted, NOW.parse().unwrap()).unwrap()
    }

    #[test]
    fn serial_numbers_are_what_the_scenario_says() {
        let serials = |kind: &str| {
            let mut mint = mint(serde_json::json!({ "serials": kind }));
            [(); 3].map(|()| minted(&mut mint, None).1.serial.to_string())
        };
        assert_eq!(serials("leading-zeros"), ["70000000000000000", "9c0000000000000001", "70000000000000002"]);
        let [one, two, three] = serials("shared");
        assert!(one == two && two == three);
        let [one, two, three] = serials("random");
        assert!(one != two && two != three && one != three);
    }

    #[test]
    fn a_second_identity_stands_behind_its_own() {
        let mut mint = mint(serde_json::json!({}));
        let (certificate, facts) = minted(&mut mint, Some(Fault::SecondIdentity));
        assert_eq!(facts.uris, ["spiffe://demo.test/own", "spiffe://demo.test/other"]);
        assert!(matches!(&certificate.payload, Payload::Certificate { problem: None, key_matches: Some(true), .. }));
    }

    #[test]
    fn only_the_first_authority_ends_early() {
        let mut mint = mint(serde_json::json!({ "authority_ttl": "90s" }));
        let ends = |mint: &Mint| mint.authorities().active().facts().not_after;
        let first = ends(&mint);
        assert_eq!(first.to_string(), "2026-01-01T00:01:30Z");
        for action in [AuthorityAction::Prepare, AuthorityAction::Activate] {
            mint.turn(action, NOW.parse().unwrap()).unwrap();
        }
        assert!(ends(&mint) > first + Duration::from_secs(366 * 86_400));
    }
}
