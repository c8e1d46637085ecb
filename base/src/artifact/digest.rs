//! SHA-256 of what is run, computed while it is read.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use camino::Utf8Path;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Large enough that an unoptimised build spends its time in the hash function, not between the calls.
const CHUNK: usize = 256 * 1024;

/// SHA-256 of a file: 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 has 64 hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of bytes at hand.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(sha2::Sha256::digest(bytes)))
    }

    /// Reads the whole file; blocks (about 50 ms for an Envoy where the processor has SHA instructions).
    pub(super) fn of_file(path: &Utf8Path) -> io::Result<Self> {
        let mut sink = Hashing::new(io::sink());
        match copy(&mut std::fs::File::open(path)?, &mut sink, &mut |_| ()) {
            Ok(_) => Ok(sink.finish().0),
            Err(CopyError::Read(e) | CopyError::Write(e)) => Err(e),
        }
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if digits { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidDigest) }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A writer that knows the digest and the length of what went through it.
pub(super) struct Hashing<W> {
    inner: W,
    hash: sha2::Sha256,
    length: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hash: sha2::Sha256::new(), length: 0 }
    }

    pub(super) fn finish(self) -> (Digest, u64, W) {
        (Digest(hex::encode(self.hash.finalize())), self.length, self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Which side of a copy failed.
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies all, in large pieces, and tells how far it came.
pub(super) fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    on_progress: &mut dyn FnMut(u64),
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyError::Read(e)),
        };
        to.write_all(&buffer[..read]).map_err(CopyError::Write)?;
        done += read as u64;
        on_progress(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_file_is_that_of_fips_180() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let digest = Digest::of_file(Utf8Path::from_path(file.path()).unwrap()).unwrap();
        assert_eq!(digest.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_path_is_no_digest() {
        assert!("../../../../../../../../../../../../../../../../../../../../etc/pw".parse::<Digest>().is_err());
        assert!("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD".parse::<Digest>().is_ok());
    }
}
