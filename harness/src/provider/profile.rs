//! What differs between providers on the wire: versions, nonces, validators.

use rsa::rand_core::{OsRng, RngCore as _};

use crate::scenario::Profile;

/// Counters from which versions and nonces are made.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pushes: u64,
}

impl Counters {
    /// The nonce of the next push, unique within the cell.
    pub(super) fn nonce(&mut self, profile: Profile) -> String {
        self.pushes += 1;
        match profile {
            Profile::Generic => self.pushes.to_string(),
            // Four random bytes; here the first two are counted, so that no two of a cell are the same.
            Profile::Tbot | Profile::Spire => format!("{:04x}{}", self.pushes & 0xffff, random_hex::<2>()),
            Profile::Istio => {
                let hex = random_hex::<16>();
                format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    }

    /// The version of a push. `revision` counts changes of the content, `of_stream` the pushes of this stream.
    pub(super) fn version(&self, profile: Profile, now: jiff::Timestamp, revision: u64, of_stream: u64) -> String {
        match profile {
            Profile::Generic => revision.to_string(),
            // Go's RFC3339Nano.
            Profile::Tbot => now.to_string(),
            Profile::Spire => of_stream.to_string(),
            Profile::Istio => format!("{}/{}", now.strftime("%Y-%m-%dT%H:%M:%SZ"), self.pushes),
        }
    }
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Whether bundles go to Envoy's SPIFFE validator. SPIRE's agent does so where the Envoy says that it has it, under
/// the name `ALL` in any case: there is no other form for several trust domains.
pub(super) fn spiffe_validator(profile: Profile, peer_has_it: bool, name: &str) -> bool {
    match profile {
        Profile::Tbot => true,
        Profile::Spire => peer_has_it || name == ALL_BUNDLES,
        Profile::Istio | Profile::Generic => name == ALL_BUNDLES,
    }
}

/// Whether each renewal of a certificate sends the bundle again, changed or not.
pub(super) fn repeats_bundle(profile: Profile) -> bool {
    matches!(profile, Profile::Tbot | Profile::Spire)
}

/// Whether each stream gets a certificate of its own.
pub(super) fn mints_per_stream(profile: Profile) -> bool {
    matches!(profile, Profile::Tbot)
}

/// Whether an unknown name is passed over in silence; the others end the stream with INVALID_ARGUMENT.
pub(super) fn ignores_unknown_names(profile: Profile) -> bool {
    matches!(profile, Profile::Istio)
}

/// The name of all bundles together.
pub(super) const ALL_BUNDLES: &str = "ALL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_nonces_look_like_the_originals() {
        let now = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
        let mut counters = Counters::default();
        let mut both = |profile| (counters.nonce(profile), counters.version(profile, now, 7, 3));
        assert_eq!(both(Profile::Generic), ("1".to_owned(), "7".to_owned()));
        let (nonce, version) = both(Profile::Tbot);
        assert_eq!(version, "2026-01-02T03:04:05.123456789Z");
        assert!(nonce.len() == 8 && hex::decode(&nonce).is_ok(), "{nonce}");
        assert_eq!(both(Profile::Spire).1, "3");
        let (nonce, version) = both(Profile::Istio);
        assert_eq!(version, "2026-01-02T03:04:05Z/4");
        assert_eq!(nonce.len(), 36);
    }
}
