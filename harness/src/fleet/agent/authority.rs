//! The authorities by which istiod signs, in the files that it watches (Istio: plug in CA certificates). It takes a new
//! root without a restart where the old bundle and the new one contain each other, and several roots are allowed
//! (`ISTIO_MULTIROOT_MESH`).

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::fleet::{FleetError, keep};
use crate::pki::{Authority, PrivateKey, Validity};

/// Where istiod reads them, from its working directory.
pub(super) const DIRECTORY: &str = "cacerts";
/// Their lifetime, which begins a little before their own start.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const BEFORE: Duration = Duration::from_secs(3600);

/// The authorities of one istiod.
pub(super) struct Authorities {
    directory: Utf8PathBuf,
    /// Where agents read by whom istiod is known.
    readers: Vec<Utf8PathBuf>,
    /// The one that signs, PEM.
    active: String,
    /// The one that is to sign next.
    prepared: Option<(String, PrivateKey)>,
    /// The one that signed before, and is still trusted, PEM.
    old: Option<String>,
    made: u32,
}

impl Authorities {
    /// A first one, in place.
    pub(super) fn make(istiod: &Utf8Path, now: jiff::Timestamp) -> Result<Self, FleetError> {
        let directory = istiod.join(DIRECTORY);
        let (active, key) = authority(1, now)?;
        let all = Self { directory, readers: Vec::new(), active, prepared: None, old: None, made: 1 };
        all.write("root-cert.pem", &all.bundle())?;
        all.sign_by(&key)?;
        Ok(all)
    }

    /// Agents that read the bundle from here, and get each new one.
    pub(super) fn read_by(&mut self, file: Utf8PathBuf) -> Result<(), FleetError> {
        write(&file, &self.bundle())?;
        self.readers.push(file);
        Ok(())
    }

    /// A further one joins the bundle.
    pub(super) fn prepare(&mut self, now: jiff::Timestamp) -> Result<(), FleetError> {
        self.made += 1;
        self.prepared = Some(authority(self.made, now)?);
        self.publish()
    }

    /// The prepared one signs from now on.
    pub(super) fn activate(&mut self) -> Result<(), FleetError> {
        let Some((next, key)) = self.prepared.take() else { return Ok(()) };
        self.old = Some(std::mem::replace(&mut self.active, next));
        self.sign_by(&key)
    }

    /// The one that signed before leaves the bundle.
    pub(super) fn revoke(&mut self) -> Result<(), FleetError> {
        self.old = None;
        self.publish()
    }

    /// All that are trusted, PEM.
    fn bundle(&self) -> String {
        let prepared = self.prepared.as_ref().map(|(certificate, _)| certificate);
        self.old.iter().chain([&self.active]).chain(prepared).map(String::as_str).collect()
    }

    fn publish(&self) -> Result<(), FleetError> {
        let bundle = self.bundle();
        // Who is to trust the new one shall know it first.
        self.readers.iter().try_for_each(|file| write(file, &bundle))?;
        self.write("root-cert.pem", &bundle)
    }

    /// istiod waits for a tenth of a second after the first file that changes.
    fn sign_by(&self, key: &PrivateKey) -> Result<(), FleetError> {
        self.write("ca-key.pem", &key.to_pem())?;
        self.write("cert-chain.pem", &self.active)?;
        self.write("ca-cert.pem", &self.active)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FleetError> {
        write(&self.directory.join(name), text)
    }
}

fn authority(n: u32, now: jiff::Timestamp) -> Result<(String, PrivateKey), FleetError> {
    let start = now.checked_sub(BEFORE).unwrap_or(now);
    let name = format!("rotacheck Istio authority {n}");
    let (authority, key) = Authority::with_key(&name, Validity::starting(start, LIFETIME))?;
    Ok((authority.pem(), key))
}

/// Writes the file, in a directory that is made if need be.
pub(super) fn write(path: &Utf8Path, text: &str) -> Result<(), FleetError> {
    let made = path.parent().map_or(Ok(()), keep::directory);
    made.and_then(|()| keep::file(path, text.as_bytes()))
        .map_err(|source| FleetError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_holds_who_signs_who_will_and_who_did() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(dir.path()).unwrap();
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut all = Authorities::make(directory, now).unwrap();
        let agent = directory.join("agent/root-cert.pem");
        all.read_by(agent.clone()).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.join(DIRECTORY).join(name)).unwrap();
        let first = read("ca-cert.pem");
        assert_eq!((read("root-cert.pem"), read("cert-chain.pem")), (first.clone(), first.clone()));
        let key = read("ca-key.pem");

        all.prepare(now).unwrap();
        let both = read("root-cert.pem");
        assert!(both.starts_with(&first) && both.len() > first.len());
        assert_eq!((read("ca-cert.pem"), std::fs::read_to_string(&agent).unwrap()), (first.clone(), both.clone()));

        all.activate().unwrap();
        let second = read("ca-cert.pem");
        assert_eq!(both, format!("{first}{second}"));
        assert_eq!((read("root-cert.pem"), read("cert-chain.pem")), (both, second.clone()));
        assert_ne!(read("ca-key.pem"), key);

        all.revoke().unwrap();
        assert_eq!((read("root-cert.pem"), std::fs::read_to_string(&agent).unwrap()), (second.clone(), second));
    }
}
