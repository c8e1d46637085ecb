//! A run directory as one stream of bytes (tar), on its way from where it was made to where it is wanted.

use std::io::{self, Read, Write};
use std::path::Component;

use camino::{Utf8Path, Utf8PathBuf};

use super::ArchiveError;
use super::directory::{private, private_file};

/// More files than any run has, and more bytes.
const MOST_ENTRIES: usize = 200_000;
const MOST_BYTES: u64 = 16 << 30;
const DEEPEST: usize = 12;
/// Of a name, which GNU tar keeps in an entry of its own where it is long (PATH_MAX).
const LONGEST_NAME: u64 = 4096;

/// Writes a run directory, without what in it is no file and no directory.
pub fn pack(run: &Utf8Path, to: impl Write) -> io::Result<()> {
    let mut parcel = tar::Builder::new(to);
    parcel.mode(tar::HeaderMode::Deterministic);
    parcel.follow_symlinks(false);
    parcel.append_dir_all(".", run)?;
    parcel.into_inner()?.flush()
}

/// Writes what was packed into a directory, which must be empty. Nothing in the parcel is trusted: names stay inside, what
/// is written is private, and there is an end to it.
pub fn unpack(from: impl Read, into: &Utf8Path) -> Result<(), ArchiveError> {
    let malformed = |why: String| ArchiveError::Malformed { path: into.to_owned(), why };
    let unreadable = |e: io::Error| malformed(format!("it is no parcel: {e}"));
    let mut bytes = 0u64;
    let mut long_name = None;
    // Raw: else a long name or an extended header, which may be of any length, would be held whole before it is seen here.
    for (n, entry) in tar::Archive::new(from).entries().map_err(unreadable)?.raw(true).enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        if entry.header().entry_type().is_gnu_longname() {
            if entry.size() > LONGEST_NAME || n >= MOST_ENTRIES {
                return Err(malformed("a name in it is longer than any".to_owned()));
            }
            let mut name = Vec::new();
            entry.read_to_end(&mut name).map_err(unreadable)?;
            long_name = Some(name);
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let name = String::from_utf8(name).map_err(|_| malformed("a name in it is no UTF-8".to_owned()))?;
        let name = name.trim_end_matches('\0');
        let path = inside(name.as_ref()).ok_or_else(|| malformed(format!("a name in it leads elsewhere: {name:?}")))?;
        bytes = bytes.saturating_add(entry.size());
        if n >= MOST_ENTRIES || bytes > MOST_BYTES {
            return Err(malformed("there is more in it than in any run".to_owned()));
        }
        let target = into.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                private().recursive(true).create(&target).map_err(ArchiveError::io("make the directory", &target))?;
            }
            tar::EntryType::Regular => {
                let file = private_file(&target).map_err(ArchiveError::io("write", &target));
                io::copy(&mut entry, &mut file?).map_err(ArchiveError::io("write", &target))?;
            }
            other => return Err(malformed(format!("{path} in it is neither file nor directory ({other:?})"))),
        }
    }
    Ok(())
}

/// A name that stays where it is unpacked.
fn inside(name: &std::path::Path) -> Option<Utf8PathBuf> {
    let mut path = Utf8PathBuf::new();
    for component in name.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => path.push(part.to_str()?),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (path.components().count() <= DEEPEST).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_packed_is_unpacked_without_links() {
        let ((_a, from), (_b, to)) = (scratch(), scratch());
        std::fs::create_dir_all(from.join("cells/x")).unwrap();
        std::fs::write(from.join("cells/x/timeline.ndjson"), "{}\n").unwrap();
        let mut bytes = Vec::new();
        pack(&from, &mut bytes).unwrap();
        unpack(bytes.as_slice(), &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("cells/x/timeline.ndjson")).unwrap(), "{}\n");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| std::fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("cells/x"), mode("cells/x/timeline.ndjson")), (0o700, 0o600));
        // Whatever is there is not written over.
        unpack(bytes.as_slice(), &to).unwrap_err();
    }

    /// A parcel with one entry that tar itself would not make.
    fn hostile(name: &str, kind: tar::EntryType) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o777);
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        let mut parcel = tar::Builder::new(Vec::new());
        parcel.append(&header, io::empty()).unwrap();
        parcel.into_inner().unwrap()
    }

    #[test]
    fn a_long_name_is_kept_and_one_without_end_is_not_read() {
        let ((_a, from), (_b, to)) = (scratch(), scratch());
        let long = Utf8PathBuf::from("d".repeat(120)).join("f".repeat(120));
        std::fs::create_dir_all(from.join(&long).parent().unwrap()).unwrap();
        std::fs::write(from.join(&long), "x").unwrap();
        let mut bytes = Vec::new();
        pack(&from, &mut bytes).unwrap();
        unpack(bytes.as_slice(), &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join(long)).unwrap(), "x");
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(MOST_BYTES - 1);
            header.set_cksum();
            let read = std::cell::Cell::new(0);
            let endless = Counted { inner: header.as_bytes().as_slice().chain(io::repeat(b'x')), read: &read };
            unpack(endless, &scratch().1).unwrap_err();
            assert!(read.get() < 1 << 20, "{kind:?}: {} bytes were read", read.get());
        }
    }

    struct Counted<'a, R> {
        inner: R,
        read: &'a std::cell::Cell<u64>,
    }

    impl<R: Read> Read for Counted<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // Whoever goes on has failed already.
            if self.read.get() > 1 << 24 {
                return Err(io::Error::other("too much was read"));
            }
            let read = self.inner.read(buffer)?;
            self.read.set(self.read.get() + read as u64);
            Ok(read)
        }
    }

    #[test]
    fn what_leads_elsewhere_or_is_no_file_is_refused() {
        let (_dir, to) = scratch();
        let refused = |bytes: Vec<u8>| unpack(bytes.as_slice(), &to).unwrap_err().to_string();
        for name in ["../x", "/x", "a/../../x", "a/b/c/d/e/f/g/h/i/j/k/l/m"] {
            let e = refused(hostile(name, tar::EntryType::Regular));
            assert!(e.contains("leads elsewhere"), "{name}: {e}");
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo, tar::EntryType::Char] {
            assert!(refused(hostile("x", kind)).contains("neither file nor directory"), "{kind:?}");
        }
        assert!(refused(vec![7; 2000]).contains("no parcel"));
        assert_eq!(to.read_dir_utf8().unwrap().count(), 0);
    }
}
