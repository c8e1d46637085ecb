//! What Go wrote into an executable about its making (Go's package `debug/buildinfo` has the format).

use camino::Utf8Path;
use memchr::memmem;

use super::ArtifactError;
use super::store::blocking;

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Magic, size of a pointer, flags, and two pointers that the present format leaves empty.
const HEADER: usize = 32;
const FLAGS: usize = 15;
const STRINGS_FOLLOW: u8 = 2;
/// Marks around the second string, to be found in memory.
const SENTINEL: usize = 16;

/// The making of a Go program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BuildInfo {
    /// Version of the compiler: `go1.26.8`.
    pub(super) go: String,
    /// Import path of the main package.
    pub(super) package: String,
    modules: Vec<Module>,
}

/// A module that went into a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    path: String,
    /// `(devel)` for what was built in its own working tree.
    pub(super) version: String,
    /// `h1:...`; empty for what was built in its own working tree.
    pub(super) sum: String,
}

impl BuildInfo {
    /// Of an executable; `None` as with [`Self::of`].
    pub(super) async fn of_file(path: &Utf8Path) -> Result<Option<Self>, ArtifactError> {
        let path = path.to_owned();
        let read = move || std::fs::read(&path).map_err(|e| ArtifactError::io("read", &path, e));
        blocking(move || read().map(|bytes| Self::of(&bytes))).await
    }

    /// From the bytes of an executable; `None` if it is no Go program, or older than Go 1.18.
    fn of(executable: &[u8]) -> Option<Self> {
        // The magic can occur elsewhere, in a program that reads build information itself.
        memmem::find_iter(executable, MAGIC).find_map(|at| Self::at(&executable[at..]))
    }

    fn at(bytes: &[u8]) -> Option<Self> {
        if bytes.get(FLAGS)? & STRINGS_FOLLOW == 0 {
            return None;
        }
        let (go, rest) = text(bytes.get(HEADER..)?)?;
        let (modules, _) = text(rest)?;
        let modules = modules.get(SENTINEL..modules.len().checked_sub(SENTINEL)?)?;
        let (go, modules) = (std::str::from_utf8(go).ok()?, std::str::from_utf8(modules).ok()?);
        let package = modules.lines().find_map(|line| line.strip_prefix("path\t"))?;
        let modules = modules.lines().filter_map(Module::of_line).collect();
        Some(Self { go: go.to_owned(), package: package.to_owned(), modules })
    }

    pub(super) fn module(&self, path: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.path == path)
    }
}

impl Module {
    fn of_line(line: &str) -> Option<Self> {
        let mut parts = line.split('\t');
        if !matches!(parts.next()?, "mod" | "dep") {
            return None;
        }
        let mut part = || parts.next().map(str::to_owned);
        Some(Self { path: part()?, version: part()?, sum: part().unwrap_or_default() })
    }
}

/// A string with its length before it, seven bits a byte, and what follows.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (n, &byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return bytes.get(n + 1..)?.split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The section of a program that Go built from `package`, with one line for each module.
    fn section(package: &str, modules: &str) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[FLAGS] = STRINGS_FOLLOW;
        let modules = format!("{0}path\t{package}\n{modules}{0}", "s".repeat(SENTINEL));
        for text in ["go1.26.8", &modules] {
            let length = text.len();
            assert!(length < 1 << 14);
            bytes.extend([length as u8 | 0x80, (length >> 7) as u8]);
            bytes.extend(text.bytes());
        }
        bytes
    }

    #[test]
    fn the_package_and_its_modules_are_read() {
        let modules = "mod\tscratch\t(devel)\t\ndep\tistio.io/istio\tv0.0.0-1\th1:x=\nbuild\t-trimpath=true\n";
        let program = [b"\x7fELF \xff Go buildinf: of a reader", &section("istio.io/x", modules)[..], b"more"].concat();
        let info = BuildInfo::of(&program).unwrap();
        assert_eq!((info.go.as_str(), info.package.as_str()), ("go1.26.8", "istio.io/x"));
        let istio = info.module("istio.io/istio").unwrap();
        assert_eq!((istio.version.as_str(), istio.sum.as_str()), ("v0.0.0-1", "h1:x="));
        assert_eq!(info.module("scratch").unwrap().version, "(devel)");
        assert_eq!(info.module("build"), None);
    }

    #[test]
    fn a_section_that_was_cut_or_lies_about_its_length_is_none() {
        let whole = section("x", "mod\tx\tv1\n");
        for length in 0..whole.len() - 1 {
            assert_eq!(BuildInfo::of(&whole[..length]), None, "{length}");
        }
        let mut lying = whole;
        lying[HEADER..HEADER + 5].fill(0xff);
        assert_eq!(BuildInfo::of(&lying), None);
        assert_eq!(BuildInfo::of(b"#!/bin/sh\n"), None);
    }
}
