//! Files below one directory, and nowhere else.

use std::fs::{File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use camino::{Utf8Component, Utf8Path};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::pb::PutRequest;

/// Writes a file in place: a mapping of it, a clock for instance, sees the new content. An error in words.
pub(super) fn put(files: &Utf8Path, request: &PutRequest) -> Result<(), String> {
    let path = Utf8Path::new(&request.path);
    let below = path.components().all(|part| matches!(part, Utf8Component::Normal(_)));
    let (Some(name), true) = (path.file_name(), below && !request.path.contains('\0')) else {
        return Err(
            "the path must lead below the relay's directory: names only, no `..` and no `/` at its start".into()
        );
    };
    let failed = |what: &Utf8Path, e: &dyn std::fmt::Display| format!("{what}: {e}");
    let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, files.as_str(), directory, Mode::empty()).map_err(|e| failed(files, &e))?;
    for part in path.parent().into_iter().flat_map(Utf8Path::components) {
        match mkdirat(&at, part.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(path, &e)),
        }
        at = inside(&at, part.as_str(), directory, Mode::empty()).map_err(|e| failed(path, &e))?;
    }
    // Neither emptied first nor replaced: whoever has mapped it would die of the one and not see the other.
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = inside(&at, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(path, &e))?;
    let file = File::from(file);
    let write = || {
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is no file"));
        }
        file.write_all_at(&request.content, 0)?;
        file.set_len(request.content.len() as u64)?;
        file.set_permissions(Permissions::from_mode(request.mode & 0o777))
    };
    write().map_err(|e| failed(path, &e))
}

/// What is inside of a directory itself: no link leads out of it.
fn inside(at: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    openat2(at, name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, content: &'static [u8]) -> PutRequest {
        PutRequest { path: path.to_owned(), content: content.into(), mode: 0o644 }
    }

    #[test]
    fn a_file_is_written_in_place_with_its_directories_and_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        put(root, &asked("a/b/clock", b"longer")).unwrap();
        let held = File::open(root.join("a/b/clock")).unwrap();
        put(root, &asked("a/b/clock", b"short")).unwrap();
        let mut seen = [0; 8];
        let read = held.read_at(&mut seen, 0).unwrap();
        assert_eq!(&seen[..read], b"short");
        assert_eq!(held.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn nothing_is_written_outside_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), root.join("file")).unwrap();
        let absolute = outside.path().join("x").to_str().unwrap().to_owned();
        for path in ["", "..", "../x", "a/../../x", "/", &absolute, ".", "link/x", "file", "a\0b"] {
            let error = put(root, &asked(path, b"x")).unwrap_err();
            assert!(!error.is_empty(), "{path}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(put(root, &asked("x", b"x")).is_ok());
    }
}
