//! One layer of an image (OCI image specification, "Image Layer Filesystem Changeset"): which of the wanted files it
//! brings, and which it takes away from the layers below.
//!
//! Nothing is unpacked but these files, to names of ours. Links are never followed: a layer decides where they point.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::Utf8Path;
use tar::EntryType;

use super::super::ArtifactError;
use super::super::digest::{CopyError, Hashing, copy};
use super::{ImageFile, LockedFile};

/// Of what is unpacked of a layer, files that nobody wants included.
const LARGEST_LAYER: u64 = 16 << 30;
/// Prefix of a name that removes another, and the name that hides all below a directory.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What a layer does to the wanted files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) files: BTreeMap<ImageFile, LockedFile>,
    /// Whatever the layers below have.
    pub(super) gone: BTreeSet<ImageFile>,
}

/// Reads the layer, and writes what is wanted of it, each file with no more bytes than it may have, into `to`. Blocks.
/// What is wrong with the layer, rather than with this machine, is a text.
pub(super) fn read(
    layer: &Utf8Path,
    wanted: &BTreeMap<ImageFile, u64>,
    to: &Utf8Path,
) -> Result<Result<Found, String>, ArtifactError> {
    let file = File::open(layer).map_err(|e| ArtifactError::io("read", layer, e))?;
    match scan(BufReader::with_capacity(1 << 16, file), wanted, to) {
        Ok(found) => Ok(Ok(found)),
        Err(Trouble::Layer(why)) => Ok(Err(why)),
        Err(Trouble::Here(e)) => Err(e),
    }
}

enum Trouble {
    Layer(String),
    Here(ArtifactError),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Layer(format!("it can't be unpacked: {e}"))
    }
}

fn scan(mut file: impl io::BufRead, wanted: &BTreeMap<ImageFile, u64>, to: &Utf8Path) -> Result<Found, Trouble> {
    let start = file.fill_buf()?;
    let reader: Box<dyn Read> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err(Trouble::Layer("it is compressed with zstd, which can't be read here, only gzip".into()));
    } else {
        Box::new(file)
    };
    let mut archive = tar::Archive::new(Bounded { inner: reader, left: LARGEST_LAYER });
    let mut found = Found::default();
    // Raw: a long name or an extended header, which may be of any length, is passed over and never held. Names that
    // matter here are short.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions()
            || kind.is_pax_local_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink()
        {
            continue;
        }
        let Some(path) = plain(&entry.path_bytes())? else { continue };
        for (file, limit) in wanted {
            match effect(&path, kind, file.path()) {
                Effect::None => (),
                Effect::Removes => {
                    found.gone.insert(*file);
                }
                Effect::Blocks(why) => return Err(Trouble::Layer(format!("in it /{path} {why}"))),
                Effect::Brings => {
                    if found.files.contains_key(file) {
                        return Err(Trouble::Layer(format!("/{path} is in it twice")));
                    }
                    let locked = write(&mut entry, *limit, &path, &to.join(file.name()), *file)?;
                    found.files.insert(*file, locked);
                }
            }
        }
    }
    // What follows the archive's end counts for the compression's own check.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    // A whiteout concerns the layers below, never its own.
    Ok(found)
}

/// A member's name without what means nothing; `None` if it is too strange to be that of anything wanted.
fn plain(name: &[u8]) -> Result<Option<String>, Trouble> {
    let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
    let parts: Vec<_> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(Trouble::Layer(format!("the name {name:?} in it leads out of the image")));
    }
    Ok(Some(parts.join("/")))
}

enum Effect {
    None,
    Brings,
    Removes,
    Blocks(&'static str),
}

/// What a member does to a wanted file.
fn effect(member: &str, kind: EntryType, wanted: &str) -> Effect {
    if member == wanted {
        return match kind {
            EntryType::Regular | EntryType::Continuous => Effect::Brings,
            EntryType::Symlink | EntryType::Link => Effect::Blocks("is a link, and links are not followed"),
            _ => Effect::Blocks("is no ordinary file"),
        };
    }
    let below = |directory: &str| wanted.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    let (directory, name) = member.rsplit_once('/').unwrap_or(("", member));
    if name == OPAQUE {
        return if directory.is_empty() || below(directory) { Effect::Removes } else { Effect::None };
    }
    if let Some(name) = name.strip_prefix(WHITEOUT) {
        let removed = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        return if removed == wanted || below(&removed) { Effect::Removes } else { Effect::None };
    }
    if below(member) && kind != EntryType::Directory {
        return Effect::Blocks("is no directory, though a program should be below it");
    }
    Effect::None
}

fn write(entry: &mut impl Read, limit: u64, path: &str, to: &Utf8Path, file: ImageFile) -> Result<LockedFile, Trouble> {
    let here = |e| Trouble::Here(ArtifactError::io("written", to, e));
    let mode = if file == ImageFile::BootstrapTemplate { 0o444 } else { 0o555 };
    let target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to).map_err(here)?;
    let mut target = Hashing::new(target);
    match copy(&mut entry.take(limit.saturating_add(1)), &mut target, &mut |_| ()) {
        Ok(length) if length > limit => {
            return Err(Trouble::Layer(format!("/{path} in it is larger than the {limit} bytes it may be")));
        }
        Ok(_) => (),
        Err(CopyError::Read(e)) => return Err(e.into()),
        Err(CopyError::Write(e)) => return Err(here(e)),
    }
    let (sha256, size, target) = target.finish();
    // Renamed into the cache afterwards: after a power cut the name must not stand for half of the bytes.
    target.sync_all().map_err(here)?;
    Ok(LockedFile { sha256, size })
}

/// An error, rather than an end, after so many bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(format!("unpacked, it is larger than {LARGEST_LAYER} bytes")))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const ENVOY: &str = "usr/local/bin/envoy";

    enum Member<'a> {
        File(&'a str, &'a [u8]),
        Link(&'a str, &'a str),
        Directory(&'a str),
    }
    use Member::{Directory, File, Link};

    fn tarred(members: &[Member<'_>]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for member in members {
            let mut header = tar::Header::new_gnu();
            let (name, kind, bytes) = match member {
                File(name, bytes) => (*name, EntryType::Regular, *bytes),
                Link(name, to) => {
                    header.set_link_name(to).unwrap();
                    (*name, EntryType::Symlink, &b""[..])
                }
                Directory(name) => (*name, EntryType::Directory, &b""[..]),
            };
            // The builder refuses the names that a hostile image would have.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append(&header, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    fn read_layer(bytes: &[u8]) -> (tempfile::TempDir, Result<Found, String>) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(root.join("layer"), bytes).unwrap();
        std::fs::create_dir(root.join("to")).unwrap();
        let wanted = [(ImageFile::Envoy, 10), (ImageFile::PilotAgent, 10)].into();
        let found = read(&root.join("layer"), &wanted, &root.join("to")).unwrap();
        (dir, found)
    }

    fn effect_of(members: &[Member<'_>]) -> Result<(bool, bool), String> {
        let found = read_layer(&gzipped(&tarred(members))).1?;
        Ok((found.files.contains_key(&ImageFile::Envoy), found.gone.contains(&ImageFile::Envoy)))
    }

    #[test]
    fn a_wanted_file_is_unpacked_under_its_own_name_and_nothing_else_is() {
        for compress in [gzipped, |bytes: &[u8]| bytes.to_vec()] {
            let layer =
                tarred(&[Directory("usr/local/"), File("./usr/local/bin/envoy", b"envoy"), File("etc/x", b"x")]);
            let (dir, found) = read_layer(&compress(&layer));
            let found = found.unwrap();
            assert_eq!(found.files[&ImageFile::Envoy].size, 5);
            assert!(found.gone.is_empty());
            let names: Vec<_> = dir.path().join("to").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["envoy"]);
        }
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_never_what_is_beside() {
        for whiteout in
            ["usr/local/bin/.wh.envoy", "usr/.wh.local", ".wh.usr", "usr/local/.wh..wh..opq", ".wh..wh..opq"]
        {
            assert_eq!(effect_of(&[File(whiteout, b"")]), Ok((false, true)), "{whiteout}");
            assert_eq!(effect_of(&[File(ENVOY, b"x"), File(whiteout, b"")]), Ok((true, true)), "{whiteout}");
        }
        for other in ["usr/local/bin/.wh.env", "usr/local/bin/envoy/.wh.x", "usr/loc/.wh..wh..opq", "opt/.wh.local"] {
            assert_eq!(effect_of(&[File(other, b"")]), Ok((false, false)), "{other}");
        }
    }

    #[test]
    fn a_path_that_leads_out_a_link_or_a_device_is_an_error() {
        for (members, why) in [
            (&[File("../evil", b"x")][..], "leads out of the image"),
            (&[File("/usr/local/bin/../../../../evil", b"x")], "leads out of the image"),
            (&[Link(ENVOY, "/bin/sh")], "is a link"),
            (&[Link("usr/local", "/etc"), File(ENVOY, b"x")], "is no directory"),
            (&[File("usr", b"x")], "is no directory"),
            (&[Directory(ENVOY)], "is no ordinary file"),
            (&[File(ENVOY, b"x"), File(ENVOY, b"y")], "twice"),
            (&[File(ENVOY, b"12345678901")], "larger than the 10 bytes"),
        ] {
            let e = effect_of(members).unwrap_err();
            assert!(e.contains(why), "{e}");
        }
        assert_eq!(effect_of(&[Link("etc/evil", "../../../..")]), Ok((false, false)));
    }

    #[test]
    fn what_is_no_archive_is_an_error() {
        let whole = gzipped(&tarred(&[File(ENVOY, b"x")]));
        for bytes in [b"<html>".repeat(200), whole[..whole.len() - 12].to_vec(), gzipped(&b"no tar".repeat(200)), {
            let mut changed = whole.clone();
            changed[20] ^= 0xff;
            changed
        }] {
            assert!(read_layer(&bytes).1.unwrap_err().starts_with("it can't be unpacked"));
        }
        assert!(read_layer(&[0x28, 0xb5, 0x2f, 0xfd, 0]).1.unwrap_err().contains("zstd"));
    }

    #[test]
    fn a_header_that_declares_gigabytes_of_a_name_is_passed_over() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(u64::MAX >> 16);
        header.set_cksum();
        assert!(read_layer(header.as_bytes()).1.is_err());
    }
}
