//! Private keys: in memory only, wiped when dropped, invisible to Debug.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use rcgen::{KeyPair, PublicKeyData as _};
use rsa::pkcs8::EncodePrivateKey as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::PkiError;
use crate::scenario::KeyType;

/// How many RSA keys leaves take turns at. To make one takes longer than all else that a renewal does.
const RSA_KEYS: usize = 3;
static RSA: Mutex<VecDeque<PrivateKey>> = Mutex::new(VecDeque::new());

/// A private key, PKCS #8. There is deliberately no `Display` and no `Serialize`.
#[derive(Clone)]
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl PrivateKey {
    /// The key from its PKCS #8 DER.
    pub fn from_pkcs8(der: Vec<u8>) -> Result<Self, PkiError> {
        let pkcs8 = Zeroizing::new(der);
        let pair = key_pair(&pkcs8)?;
        Ok(Self { public: pair.der_bytes().to_vec(), pkcs8 })
    }

    /// PKCS #8 DER, for those who must have it: TLS and the wire to a workload.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// PKCS #8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode_config(
            &pem::Pem::new("PRIVATE KEY", self.pkcs8.to_vec()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        ))
    }

    /// The public key, as subjectPublicKey holds it.
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// As rustls wants it.
    pub fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()).into()
    }

    /// Makes the keys that leaves take turns at, if they are not there yet: seconds, where the machine is slow. Who does
    /// so first does not issue certificates that have aged before they are signed.
    pub fn prepare(kind: KeyType) -> Result<(), PkiError> {
        match kind {
            KeyType::EcdsaP256 => Ok(()),
            KeyType::Rsa2048 => fill(&mut RSA.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// A leaf's key. An RSA key may be that of another leaf of this process, three mints ago or more.
    pub(super) fn of_leaf(kind: KeyType) -> Result<(Self, KeyPair), PkiError> {
        if kind != KeyType::Rsa2048 {
            return Self::generate(kind);
        }
        let mut keys = RSA.lock().unwrap_or_else(PoisonError::into_inner);
        fill(&mut keys)?;
        let key = keys.pop_front().expect("it is full");
        let pair = key_pair(&key.pkcs8)?;
        keys.push_back(key.clone());
        Ok((key, pair))
    }

    /// A new one, which is nobody else's.
    pub fn generate(kind: KeyType) -> Result<(Self, KeyPair), PkiError> {
        let pair = match kind {
            KeyType::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|e| PkiError::Key { kind: "ECDSA P-256", why: e.to_string() })?,
            KeyType::Rsa2048 => {
                // ring signs with RSA keys but makes none.
                let why = |e: String| PkiError::Key { kind: "RSA 2048", why: e };
                let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).map_err(|e| why(e.to_string()))?;
                key_pair(key.to_pkcs8_der().map_err(|e| why(e.to_string()))?.as_bytes())?
            }
        };
        let key = Self { pkcs8: Zeroizing::new(pair.serialize_der()), public: pair.der_bytes().to_vec() };
        Ok((key, pair))
    }
}

fn fill(keys: &mut VecDeque<PrivateKey>) -> Result<(), PkiError> {
    while keys.len() < RSA_KEYS {
        keys.push_back(PrivateKey::generate(KeyType::Rsa2048)?.0);
    }
    Ok(())
}

fn key_pair(pkcs8: &[u8]) -> Result<KeyPair, PkiError> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8))
        .map_err(|e| PkiError::Key { kind: "PKCS #8", why: e.to_string() })
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn debug_output_shows_nothing_of_the_key() {
        let (key, _) = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
    }

    #[test]
    fn a_key_survives_its_own_encoding() {
        let (key, _) = PrivateKey::generate(KeyType::Rsa2048).unwrap();
        let again = PrivateKey::from_pkcs8(key.pkcs8_der().to_vec()).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        assert!(PrivateKey::from_pkcs8(b"nonsense".to_vec()).is_err());
    }

    #[test]
    fn leaves_take_turns_at_a_few_rsa_keys_and_a_new_one_is_none_of_them() {
        let public = |(key, _): (PrivateKey, KeyPair)| key.public_key().to_vec();
        let of_leaves: BTreeSet<_> =
            (0..3 * RSA_KEYS).map(|_| public(PrivateKey::of_leaf(KeyType::Rsa2048).unwrap())).collect();
        assert_eq!(of_leaves.len(), RSA_KEYS);
        assert!(!of_leaves.contains(&public(PrivateKey::generate(KeyType::Rsa2048).unwrap())));
        let other: BTreeSet<_> = (0..3).map(|_| public(PrivateKey::of_leaf(KeyType::EcdsaP256).unwrap())).collect();
        assert_eq!(other.len(), 3);
    }
}
