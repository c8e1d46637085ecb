//! Executables, shared by all harnesses of a user: Envoys under their digest, programs under what they were built from,
//! what was taken from an image under its digest.
//!
//! `sha256/<digest>/envoy`, `go/<program>@<version>-<sums>/` and `image/<digest of its manifest>/` appear by a rename, complete or not at all, and never
//! change. Whoever adds one holds the lock of its name meanwhile, and works in a new directory below `staging/<name>`; what a killed process left there is
//! removed by the next one to hold the lock.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::{ArtifactError, Digest};

/// A cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: Utf8PathBuf,
}

impl Cache {
    /// The cache at `root`, else at `$ROTACHECK_CACHE`, `$XDG_CACHE_HOME/rotacheck` or `~/.cache/rotacheck`. Nothing is
    /// written yet.
    pub fn locate(root: Option<&Utf8Path>) -> Result<Self, ArtifactError> {
        // The XDG base directory specification has relative paths ignored.
        let absolute = |name| std::env::var(name).ok().map(Utf8PathBuf::from).filter(|path| path.is_absolute());
        let root = match root {
            Some(root) => camino::absolute_utf8(root).map_err(|e| ArtifactError::io("found", root, e))?,
            None => absolute("ROTACHECK_CACHE")
                .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("rotacheck")))
                .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/rotacheck")))
                .ok_or(ArtifactError::NoCacheDir)?,
        };
        Ok(Self { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Where the executable with this digest is, or would be.
    pub fn envoy(&self, digest: &Digest) -> Utf8PathBuf {
        self.entry(digest).join("envoy")
    }

    /// Where the program with this name, its record and what it needs beside it are, or would be.
    pub(super) fn program(&self, key: &str) -> Utf8PathBuf {
        self.root.join("go").join(key)
    }

    /// Where what was taken from the image with this manifest is, or would be.
    pub(super) fn image(&self, manifest: &Digest) -> Utf8PathBuf {
        self.root.join("image").join(manifest.as_str())
    }

    fn entry(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join("sha256").join(digest.as_str())
    }

    /// Makes sure that it can be written to, as [`Self::stage`] will.
    pub fn check_writable(&self) -> Result<(), ArtifactError> {
        let dir = self.directory("staging")?;
        tempfile::tempfile_in(&dir).map_err(|e| ArtifactError::io("written", &dir, e))?;
        Ok(())
    }

    /// An empty directory that nobody else works in. Waits for whoever does, after a call of `on_wait`.
    pub(super) async fn stage(&self, name: &str, on_wait: impl FnOnce()) -> Result<Staging, ArtifactError> {
        let path = self.directory("locks")?.join(name);
        let io = |e| ArtifactError::io("locked", &path, e);
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        let lock = match lock.try_lock() {
            Ok(()) => lock,
            Err(TryLockError::Error(e)) => return Err(io(e)),
            Err(TryLockError::WouldBlock) => {
                on_wait();
                let wait = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
                wait.await.expect("locking does not panic").map_err(io)?
            }
        };
        let parent = self.directory("staging")?.join(name);
        match fs::remove_dir_all(&parent) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ArtifactError::io("removed", &parent, e)),
            _ => (),
        }
        // Never the same name twice: a pip or a compiler that outlived its harness may still be writing where that one was.
        let made = |e| ArtifactError::io("made", &parent, e);
        fs::create_dir(&parent).map_err(made)?;
        let dir = tempfile::Builder::new().disable_cleanup(true).tempdir_in(&parent).map_err(made)?;
        let dir = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("the parent and the random name are UTF-8");
        Ok(Staging { parent, dir, _lock: lock })
    }

    /// Takes the staged file `envoy` in under its digest.
    pub(super) fn admit(&self, staging: &Staging, digest: &Digest) -> Result<Utf8PathBuf, ArtifactError> {
        self.directory("sha256")?;
        let entry = self.entry(digest);
        // A directory of its own, so that one rename brings the file and whatever will lie beside it.
        let ready = staging.dir.join("ready");
        fs::create_dir(&ready).map_err(|e| ArtifactError::io("made", &ready, e))?;
        let staged = staging.dir.join("envoy");
        fs::rename(&staged, ready.join("envoy")).map_err(|e| ArtifactError::io("moved", &staged, e))?;
        fs::rename(&ready, &entry).map_err(|e| ArtifactError::io("written", &entry, e))?;
        Ok(entry.join("envoy"))
    }

    /// Takes a directory in staging in as that of a program.
    pub(super) fn admit_program(&self, ready: &Utf8Path, key: &str) -> Result<(), ArtifactError> {
        self.directory("go")?;
        let entry = self.program(key);
        fs::rename(ready, &entry).map_err(|e| ArtifactError::io("written", &entry, e))
    }

    /// Takes a directory in staging in as that of an image.
    #[cfg(feature = "oci")]
    pub(super) fn admit_image(&self, ready: &Utf8Path, manifest: &Digest) -> Result<(), ArtifactError> {
        self.directory("image")?;
        let entry = self.image(manifest);
        fs::rename(ready, &entry).map_err(|e| ArtifactError::io("written", &entry, e))
    }

    fn directory(&self, name: &str) -> Result<Utf8PathBuf, ArtifactError> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).map_err(|e| ArtifactError::io("made", &dir, e))?;
        Ok(dir)
    }
}

/// Makes a file read-only, and has it on the disk: after a power cut its name must not stand for half of the bytes.
pub(super) fn make_permanent(path: &Utf8Path) -> Result<(), ArtifactError> {
    let io = |e| ArtifactError::io("written", path, e);
    let file = File::open(path).map_err(io)?;
    let executable = file.metadata().map_err(io)?.permissions().mode() & 0o111;
    file.set_permissions(PermissionsExt::from_mode(0o444 | executable)).map_err(io)?;
    file.sync_all().map_err(io)
}

/// A directory of one's own within the cache, removed when it is dropped.
pub(super) struct Staging {
    parent: Utf8PathBuf,
    dir: Utf8PathBuf,
    _lock: File,
}

impl Staging {
    pub(super) fn dir(&self) -> &Utf8Path {
        &self.dir
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Under the lock still: fields are dropped afterwards. What can't be removed now, the next holder removes.
        let _ = fs::remove_dir_all(&self.parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::locate(Utf8Path::from_path(dir.path())).unwrap();
        (dir, cache)
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_gone_when_work_begins_again() {
        let (_dir, cache) = cache();
        fs::create_dir_all(cache.root().join("staging/x/deep")).unwrap();
        let staging = cache.stage("x", || panic!("nobody holds the lock")).await.unwrap();
        assert_eq!(staging.dir().read_dir_utf8().unwrap().count(), 0);
        let staged: Vec<_> =
            cache.root().join("staging/x").read_dir_utf8().unwrap().map(|e| e.unwrap().into_path()).collect();
        assert_eq!(staged, [staging.dir()]);
        drop(staging);
        assert_eq!(cache.root().join("staging").read_dir_utf8().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_second_one_waits_for_the_first() {
        let (_dir, cache) = cache();
        let first = cache.stage("x", || ()).await.unwrap();
        let (waits, waiting) = tokio::sync::oneshot::channel();
        let second = tokio::spawn({
            let cache = cache.clone();
            async move { cache.stage("x", || waits.send(()).unwrap()).await.unwrap() }
        });
        waiting.await.unwrap();
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap();
    }

    #[test]
    fn a_cache_below_a_file_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let root = Utf8Path::from_path(file.path()).unwrap().join("cache");
        let e = Cache::locate(Some(&root)).unwrap().check_writable().unwrap_err();
        assert!(e.to_string().starts_with(root.as_str()), "{e}");
    }
}
