//! The offset that moved processes share: eight bytes in a file that all of them map.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use memmap2::MmapMut;
use rustix::fs::StatVfsMountFlags;

/// Built from `preload/preload.rs` by `build.rs`.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/preload.so"));
const LIBRARY_NAME: &str = "rotacheck-clock.so";
const OFFSET_NAME: &str = "clock-offset";
const NANOS: i64 = 1_000_000_000;

/// Why time could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The scenario asks for it, but the clock is the machine's.
    #[error("the cell lives in real time")]
    Real,
    /// The offset file or the library could not be made.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// LD_PRELOAD can't name it.
    #[error("{path}: LD_PRELOAD can't name a path that holds white space, a colon or a dollar sign")]
    Path {
        /// Which.
        path: Utf8PathBuf,
    },
    /// The loader takes no library from there.
    #[error("{dir} is mounted noexec: no library can be loaded from there")]
    NoExec {
        /// Which.
        dir: Utf8PathBuf,
    },
    /// A process started with the library stayed in the machine's time.
    #[error("a process does not live in moved time: {why}")]
    NotTaken {
        /// What was seen.
        why: String,
    },
    /// Moved processes count whole seconds.
    #[error("time is moved by whole seconds, not by {0:?}")]
    Fraction(Duration),
    /// The sum does not fit.
    #[error("time can't be moved that far")]
    Range,
}

/// A private file that holds the offset, and beside it the preload library that reads it.
///
/// Both live as long as their directory does: the processes that map them may outlive this value.
pub struct OffsetFile {
    mapping: MmapMut,
    path: Utf8PathBuf,
    library: Utf8PathBuf,
}

impl OffsetFile {
    /// The library, for processes that can't share this machine's files.
    pub const LIBRARY: &[u8] = LIBRARY;
    /// The names of both files.
    pub const LIBRARY_NAME: &str = LIBRARY_NAME;
    /// As above.
    pub const NAME: &str = OFFSET_NAME;

    /// What the offset's file holds, on a machine of the same byte order.
    pub fn content(seconds: i64) -> [u8; 8] {
        seconds.saturating_mul(NANOS).to_ne_bytes()
    }

    /// Makes the file (0600, offset 0) and the library in `dir`, which must hold neither.
    pub fn create(dir: &Utf8Path) -> Result<Self, ClockError> {
        let failed = |path: &Utf8Path| {
            let path = path.to_owned();
            move |source| ClockError::File { path, source }
        };
        // The processes run elsewhere, so the path must be absolute; what LD_PRELOAD sees is what has to be fit for it.
        let dir = dir.canonicalize_utf8().map_err(failed(dir))?;
        // The loader splits at colons and white space (glibc at the space only), and glibc expands `$ORIGIN`.
        if dir.as_str().contains(|c: char| c.is_whitespace() || matches!(c, ':' | '$')) {
            return Err(ClockError::Path { path: dir });
        }
        let mount = rustix::fs::statvfs(dir.as_std_path()).map_err(io::Error::from).map_err(failed(&dir))?;
        if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            return Err(ClockError::NoExec { dir });
        }
        let library = dir.join(LIBRARY_NAME);
        create(&library, LIBRARY).map_err(failed(&library))?;
        let path = dir.join(OFFSET_NAME);
        let file = create(&path, &0i64.to_ne_bytes()).map_err(failed(&path))?;
        let mapping = map(&file).map_err(failed(&path))?;
        Ok(Self { mapping, path, library })
    }

    /// Checks that moved time works on this machine, with a `date` that lives 400 days ahead: a loader that knows no
    /// LD_PRELOAD, a mandatory access policy or a foreign architecture are silent otherwise. Whether a certain process
    /// took it is for [`OffsetFile::taken_by`] to say.
    pub fn prove(dir: &Utf8Path) -> Result<(), ClockError> {
        const AHEAD: Duration = Duration::from_secs(400 * 86_400);
        let failed = |source| ClockError::File { path: dir.to_owned(), source };
        let dir = tempfile::Builder::new().prefix("clock-").tempdir_in(dir).map_err(failed)?;
        let dir = Utf8Path::from_path(dir.path())
            .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "is no UTF-8")))?
            .to_owned();
        let offset = Self::create(&dir)?;
        offset.advance(AHEAD)?;
        let not_taken = |why: String| ClockError::NotTaken { why };
        let date = Command::new("date")
            .arg("+%s")
            .envs(offset.environment())
            .output()
            .map_err(|e| not_taken(format!("`date` can't be started: {e}")))?;
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let complaint = String::from_utf8_lossy(&date.stderr);
        let shown: Option<u64> = String::from_utf8_lossy(&date.stdout).trim().parse().ok();
        match shown {
            // Half of the way leaves room for a slow machine, and none for a clock that was not moved.
            Some(shown) if shown > (real + AHEAD / 2).as_secs() => Ok(()),
            Some(_) => Err(not_taken(format!("`date` ignored LD_PRELOAD; {}", complaint.trim()))),
            None => Err(not_taken(format!("`date +%s` ended with {}; {}", date.status, complaint.trim()))),
        }
    }

    /// Checks that a running process has loaded the library and mapped the offset: a static executable, or one that
    /// gained privileges by its start, ignores LD_PRELOAD silently. Only after its `main` began is the answer final.
    pub fn taken_by(&self, pid: i32) -> Result<(), ClockError> {
        let path = Utf8PathBuf::from(format!("/proc/{pid}/maps"));
        let maps = std::fs::read_to_string(&path).map_err(|source| ClockError::File { path, source })?;
        let mapped = |path: &Utf8Path| maps.lines().any(|line| line.ends_with(path.as_str()));
        for path in [&self.library, &self.path] {
            if !mapped(path) {
                return Err(ClockError::NotTaken { why: format!("process {pid} has not mapped {path}") });
            }
        }
        Ok(())
    }

    /// The offset, whole seconds.
    pub fn seconds(&self) -> i64 {
        self.offset().load(Ordering::Acquire) / NANOS
    }

    /// Moves it ahead, for all who map it at once; offsets before and after, in seconds.
    pub fn advance(&self, by: Duration) -> Result<(i64, i64), ClockError> {
        if by.subsec_nanos() != 0 {
            return Err(ClockError::Fraction(by));
        }
        let by = i64::try_from(by.as_nanos()).map_err(|_| ClockError::Range)?;
        let before = self
            .offset()
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| before.checked_add(by))
            .map_err(|_| ClockError::Range)?;
        Ok((before / NANOS, (before + by) / NANOS))
    }

    /// The library, and the file with the offset.
    pub fn files(&self) -> Vec<Utf8PathBuf> {
        vec![self.library.clone(), self.path.clone()]
    }

    /// What makes a child process live in moved time. A library that is preloaded into the harness stays preloaded.
    pub fn environment(&self) -> Vec<(String, String)> {
        let preload = match std::env::var("LD_PRELOAD") {
            Ok(others) if !others.is_empty() => format!("{}:{others}", self.library),
            _ => self.library.to_string(),
        };
        vec![("LD_PRELOAD".into(), preload), ("ROTACHECK_OFFSET_FILE".into(), self.path.to_string())]
    }

    fn offset(&self) -> &AtomicI64 {
        #[expect(unsafe_code, reason = "an atomic in a shared mapping")]
        // SAFETY: a mapping is page-aligned and holds eight bytes for as long as `self` lives; inside this process
        // nothing else than this atomic touches them.
        unsafe {
            AtomicI64::from_ptr(self.mapping.as_ptr().cast_mut().cast())
        }
    }
}

fn create(path: &Utf8Path, content: &[u8]) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    Ok(file)
}

fn map(file: &File) -> io::Result<MmapMut> {
    #[expect(unsafe_code, reason = "memmap2 leaves it to the caller that the file stays as it is")]
    // SAFETY: the file is 0600, just made by us and never truncated; it is only looked at as an atomic.
    unsafe {
        MmapMut::map_mut(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    /// What a fresh process takes for the present time, in seconds since 1970.
    fn seconds_in_child(offset: &OffsetFile, environment: Vec<(String, String)>) -> i64 {
        let date = Command::new("date").arg("+%s").envs(environment).output().unwrap();
        assert!(date.stderr.is_empty(), "{}", String::from_utf8_lossy(&date.stderr));
        assert!(offset.path.exists());
        String::from_utf8(date.stdout).unwrap().trim().parse().unwrap()
    }

    fn real_seconds() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    #[test]
    fn a_child_lives_ahead_by_the_offset() {
        let (_dir, path) = scratch();
        let offset = OffsetFile::create(&path).unwrap();
        let early = real_seconds();
        assert_eq!(offset.advance(Duration::from_secs(1_000_000)).unwrap(), (0, 1_000_000));
        assert_eq!(offset.advance(Duration::from_secs(234_567)).unwrap(), (1_000_000, 1_234_567));
        let shown = seconds_in_child(&offset, offset.environment());
        assert!((early..=real_seconds()).contains(&(shown - 1_234_567)), "{shown}");
        assert_eq!(offset.seconds(), 1_234_567);
    }

    #[test]
    fn a_missing_or_short_offset_file_leaves_a_child_in_real_time() {
        let (_dir, path) = scratch();
        let offset = OffsetFile::create(&path).unwrap();
        offset.advance(Duration::from_secs(1_000_000)).unwrap();
        std::fs::write(path.join("short"), b"1234567").unwrap();
        for name in ["nothing", "short"] {
            let mut environment = offset.environment();
            environment[1].1 = path.join(name).to_string();
            let early = real_seconds();
            let shown = seconds_in_child(&offset, environment);
            assert!((early..=real_seconds()).contains(&shown), "{name}: {shown}");
        }
    }

    #[test]
    fn a_running_process_is_moved_and_shows_that_it_took_the_library() {
        let (_dir, path) = scratch();
        let offset = OffsetFile::create(&path).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", "echo; read line; date +%s; read line"])
            .envs(offset.environment())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        let mut output = io::BufRead::lines(io::BufReader::new(shell.stdout.take().unwrap()));
        output.next().unwrap().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        offset.taken_by(pid).unwrap();
        let early = real_seconds();
        offset.advance(Duration::from_secs(500_000)).unwrap();
        input.write_all(b"\n").unwrap();
        let shown: i64 = output.next().unwrap().unwrap().parse().unwrap();
        assert!((early..=real_seconds()).contains(&(shown - 500_000)), "{shown}");
        drop(input);
        shell.wait().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(offset.taken_by(own), Err(ClockError::NotTaken { .. })));
    }

    #[test]
    fn moved_time_works_here() {
        let (_dir, path) = scratch();
        OffsetFile::prove(&path).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "the proof leaves nothing behind");
    }

    #[test]
    fn a_path_that_ld_preload_would_split_is_refused() {
        let (_dir, path) = scratch();
        for name in ["a b", "a:b", "a\tb", "$ORIGIN"] {
            std::fs::create_dir(path.join(name)).unwrap();
            let refused = OffsetFile::create(&path.join(name));
            assert!(matches!(refused, Err(ClockError::Path { .. })), "{name}");
        }
    }

    #[test]
    fn a_noexec_mount_is_refused() {
        // Nothing is written before the refusal, so any such mount will do. Where there is none, nothing can be shown.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let noexec = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .find(|dir| rustix::fs::statvfs(*dir).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC)));
        if let Some(dir) = noexec {
            assert!(matches!(OffsetFile::create(Utf8Path::new(dir)), Err(ClockError::NoExec { .. })), "{dir}");
        }
    }

    #[test]
    fn fractions_and_overflow_are_refused_and_change_nothing() {
        let (_dir, path) = scratch();
        let offset = OffsetFile::create(&path).unwrap();
        offset.advance(Duration::from_secs(60)).unwrap();
        assert!(matches!(offset.advance(Duration::from_millis(1500)), Err(ClockError::Fraction(_))));
        assert!(matches!(offset.advance(Duration::from_secs(u64::MAX)), Err(ClockError::Range)));
        assert!(matches!(offset.advance(Duration::from_secs(9_223_372_030)), Err(ClockError::Range)));
        assert_eq!(offset.seconds(), 60);
    }

    #[test]
    fn a_second_offset_file_in_the_same_directory_is_refused() {
        let (_dir, path) = scratch();
        let _first = OffsetFile::create(&path).unwrap();
        assert!(matches!(OffsetFile::create(&path), Err(ClockError::File { .. })));
    }
}
