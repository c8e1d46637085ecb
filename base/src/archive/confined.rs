//! Reading inside of a directory that somebody else may have filled: no symbolic link is followed, no pipe is waited
//! for, nothing is read beyond a bound.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::ArchiveError;

/// More entries than any run has cells.
const MOST_ENTRIES: usize = 10_000;

#[derive(Debug)]
pub(super) struct Confined {
    root: OwnedFd,
    path: Utf8PathBuf,
}

impl Confined {
    /// The user named this path, so links in it are followed; below it, none is.
    pub(super) fn open(path: &Utf8Path) -> Result<Self, ArchiveError> {
        let path = path.canonicalize_utf8().map_err(ArchiveError::io("open", path))?;
        let root = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| ArchiveError::io("open", &path)(e.into()))?;
        Ok(Self { root, path })
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Opens a regular file of at most `limit` bytes.
    pub(super) fn file(&self, relative: &Utf8Path, limit: u64) -> Result<std::io::Take<File>, ArchiveError> {
        let path = self.path.join(relative);
        // NONBLOCK: opening a pipe must not wait for its writer.
        let fd = self.walk(relative, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| ArchiveError::io("read", &path)(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ArchiveError::NotAFile { path });
        }
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > limit {
            return Err(ArchiveError::TooLarge { path, limit });
        }
        // It may grow while it is read.
        Ok(File::from(fd).take(limit))
    }

    pub(super) fn read(&self, relative: &Utf8Path, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        let mut file = self.file(relative, limit)?;
        file.read_to_end(&mut bytes).map_err(ArchiveError::io("read", self.path.join(relative)))?;
        Ok(bytes)
    }

    /// Whether a regular file is there.
    pub(super) fn has_file(&self, relative: &Utf8Path) -> bool {
        self.file(relative, u64::MAX).is_ok()
    }

    /// Whether it is a directory; what is there must be one, or a file, or something else that can be opened.
    pub(super) fn is_directory(&self, relative: &Utf8Path) -> Result<bool, ArchiveError> {
        let fd = self.walk(relative, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| ArchiveError::io("read", self.path.join(relative))(e.into()))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Names in a directory, sorted; those that are not UTF-8 cannot be ours.
    pub(super) fn names(&self, relative: &Utf8Path) -> Result<Vec<String>, ArchiveError> {
        let path = self.path.join(relative);
        let fd = self.walk(relative, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        let failed = |e: rustix::io::Errno| ArchiveError::io("list", &path)(e.into());
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == MOST_ENTRIES {
                return Err(ArchiveError::Malformed { path, why: format!("it has more than {MOST_ENTRIES} entries") });
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn walk(&self, relative: &Utf8Path, last: OFlags) -> Result<OwnedFd, ArchiveError> {
        let mut at: Option<OwnedFd> = None;
        let mut path = self.path.clone();
        let mut components = relative.components().peekable();
        while let Some(component) = components.next() {
            path.push(component.as_str());
            let flags = if components.peek().is_some() { OFlags::RDONLY | OFlags::DIRECTORY } else { last };
            let parent = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(open_here(parent, component.as_str(), flags, &path)?);
        }
        match at {
            Some(fd) => Ok(fd),
            None => self.root.try_clone().map_err(ArchiveError::io("open", path)),
        }
    }
}

fn open_here(parent: BorrowedFd<'_>, name: &str, flags: OFlags, path: &Utf8Path) -> Result<OwnedFd, ArchiveError> {
    rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        // A refused link shows as ELOOP or ENOTDIR, depending on the flags: look at what is there.
        let link = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if link { ArchiveError::Symlink { path: path.to_owned() } } else { ArchiveError::io("open", path)(e.into()) }
    })
}
