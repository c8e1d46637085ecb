//! A private Unix socket that is bound without a moment of openness and never steals a living one's place.

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::dial::{Behind, behind};

/// `sun_path` has 108 bytes, one of them for the NUL (unix(7)).
const LONGEST_PATH: usize = 107;
/// Others hold a directory for as long as a look takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// A socket of another program is bound for a moment before it listens.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// Why a socket can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel has no room for the path.
    #[error("the socket path {path} has {length} bytes; the kernel allows {LONGEST_PATH}")]
    TooLong {
        /// The path.
        path: Utf8PathBuf,
        /// Its length.
        length: usize,
    },
    /// A provider lives there.
    #[error("another process already serves {path}")]
    Alive {
        /// The path.
        path: Utf8PathBuf,
    },
    /// Something else lies there.
    #[error("{path} exists and is no socket")]
    NotASocket {
        /// The path.
        path: Utf8PathBuf,
    },
    /// The system refused.
    #[error("the socket {path} can't be bound: {source}")]
    Io {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A bound, listening socket; its path goes away with it.
#[derive(Debug)]
pub struct Socket {
    path: Utf8PathBuf,
    /// Device and inode: what is removed at the end must still be ours.
    identity: (u64, u64),
    listener: Option<UnixListener>,
}

impl Socket {
    /// Binds `path`, mode 0600; its directory is made with mode 0700 where it is missing. A dead socket left behind is
    /// replaced, a living one is not.
    pub fn bind(path: &Utf8Path) -> Result<Self, SocketError> {
        Self::bind_with_mode(path, 0o600)
    }

    /// The same with another mode; where it lets others in, so does a directory that is made.
    pub fn bind_with_mode(path: &Utf8Path, mode: u32) -> Result<Self, SocketError> {
        let directory_mode = if mode & 0o077 == 0 { 0o700 } else { 0o755 };
        let length = path.as_str().len();
        if length > LONGEST_PATH {
            return Err(SocketError::TooLong { path: path.to_owned(), length });
        }
        let io = |source: std::io::Error| SocketError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(directory_mode).create(dir).map_err(io)?;
        }
        let held = hold(path).map_err(io)?;
        make_way(path)?;
        let socket = listen(path, mode).map_err(|e| match e.kind() {
            // Of a program that holds no directory.
            std::io::ErrorKind::AddrInUse => SocketError::Alive { path: path.to_owned() },
            _ => io(e),
        })?;
        let meta = std::fs::symlink_metadata(path).map_err(io)?;
        drop(held);
        let listener = Some(UnixListener::from(socket));
        Ok(Self { path: path.to_owned(), identity: (meta.dev(), meta.ino()), listener })
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// What listens, once; the path stays this value's.
    pub fn take_listener(&mut self) -> std::io::Result<tokio::net::UnixListener> {
        let listener = self.listener.take().ok_or_else(|| std::io::Error::other("it is served already"))?;
        tokio::net::UnixListener::from_std(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.unlink();
    }
}

impl Socket {
    /// Removes the path, if it is still ours. The listener stays.
    pub(super) fn unlink(&self) {
        // Without it, what is ours is removed all the same.
        let _held = hold(&self.path);
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket that lies there if nobody listens on it.
pub(super) fn remove_dead(path: &Utf8Path) {
    let _held = hold(path);
    // What is none, or lives, stays.
    let _ = make_way(path);
}

/// Holds the directory of a path, until it is dropped: between the look whether a socket is dead and the moment when
/// another one listens in its place, nobody else may look. The directory itself is locked, so nothing is left behind.
/// Nothing is held where the system can't.
fn hold(path: &Utf8Path) -> std::io::Result<Option<OwnedFd>> {
    let directory = path.parent().filter(|dir| !dir.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(directory.as_str(), flags, Mode::empty()) else { return Ok(None) };
    let began = Instant::now();
    loop {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(directory)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            Err(Errno::WOULDBLOCK) => {
                return Err(std::io::Error::other("another process keeps its directory locked (flock)"));
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Who holds the directory makes way in it.
fn make_way(path: &Utf8Path) -> Result<(), SocketError> {
    let io = |source: std::io::Error| SocketError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    let mut found = behind(path).map_err(io)?;
    if found == Behind::Nobody {
        std::thread::sleep(SECOND_LOOK);
        found = behind(path).map_err(io)?;
    }
    match found {
        Behind::Nothing => Ok(()),
        Behind::Nobody => std::fs::remove_file(path).map_err(io),
        Behind::Somebody => Err(SocketError::Alive { path: path.to_owned() }),
    }
}

/// Binds and listens. What fails leaves no path.
fn listen(path: &Utf8Path, mode: u32) -> std::io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path.as_str())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // On Linux the path inherits the mode that the unbound socket has: there is no moment with another one.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode & 0o777))?;
    rustix::net::bind(&socket, &address)?;
    let open = || {
        if mode & 0o077 != 0 {
            // The umask has taken from it what was meant for others.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))?;
        }
        rustix::net::listen(&socket, 1024).map_err(std::io::Error::from)
    };
    if let Err(e) = open() {
        let _ = std::fs::remove_file(path);
        return Err(e);
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::dial::crowded;
    use super::*;

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn the_socket_and_its_new_directory_are_private_and_go_away() {
        let (_keep, dir) = directory();
        let path = dir.join("new/provider.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = |p: &Utf8Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_for_others_is_open_to_them_and_so_is_its_new_directory() {
        let (_keep, dir) = directory();
        let path = dir.join("new/provider.sock");
        let _socket = Socket::bind_with_mode(&path, 0o666).unwrap();
        let mode = |p: &Utf8Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        // The directory's mode is subject to the umask, which may only take away.
        assert_eq!((mode(&path), mode(path.parent().unwrap()) & 0o711), (0o666, 0o711));
    }

    #[test]
    fn a_living_socket_is_not_replaced_and_a_dead_one_is() {
        let (_keep, dir) = directory();
        let path = dir.join("s");
        let living = UnixListener::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::Alive { .. })));
        drop(living);
        assert!(path.exists());
        Socket::bind(&path).unwrap();
    }

    #[test]
    fn of_many_that_find_a_dead_socket_at_once_one_gets_its_place() {
        let (_keep, dir) = directory();
        let path = dir.join("s");
        for round in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(8);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let bind = || {
                    start.wait();
                    Socket::bind(&path)
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(bind)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|one| one.is_ok()).count(), 1, "in round {round}: {bound:?}");
            assert!(bound.iter().flatten().all(|one| UnixStream::connect(one.path()).is_ok()), "in round {round}");
            drop(bound);
            assert_eq!(dir.read_dir_utf8().unwrap().count(), 0, "something was left");
        }
    }

    #[test]
    fn a_full_queue_of_connections_is_a_sign_of_life_that_is_not_waited_for() {
        let (_keep, dir) = directory();
        let path = dir.join("s");
        let (_listener, _waiting) = crowded(&path);
        let (told, tells) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(Socket::bind(&path)));
        let bound = tells.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(bound, Err(SocketError::Alive { .. })), "{bound:?}");
    }

    #[test]
    fn a_file_of_somebody_is_not_removed() {
        let (_keep, dir) = directory();
        let path = dir.join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_the_kernel_has_no_room_for_is_said_to_be_too_long() {
        let (_keep, dir) = directory();
        let error = Socket::bind(&dir.join("x".repeat(120))).unwrap_err().to_string();
        assert!(error.contains("the kernel allows 107"), "{error}");
    }

    #[test]
    fn what_took_our_place_stays() {
        let (_keep, dir) = directory();
        let path = dir.join("s");
        let socket = Socket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists() || path.is_symlink());
    }
}
