//! Connecting to a Unix socket that somebody else serves. A full queue of connections (listen(2)) is a sign of life: whoever
//! can't wait for room in it hears EAGAIN at once, and has to try again.

use std::io;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;

/// Between two tries: nothing tells when there is room.
const AGAIN: Duration = Duration::from_millis(20);

/// Connects. Where the queue is full, it is tried again for so long; then the error is one of time.
pub async fn dial(path: &Utf8Path, patience: Duration) -> io::Result<UnixStream> {
    let began = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && began.elapsed() >= patience => {
                let why = format!("its queue of connections stayed full for {} s", patience.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            connected => return connected,
        }
    }
}

/// Who is behind a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// There is no path any more.
    Nothing,
    /// A socket on which nobody listens.
    Nobody,
    /// Somebody, or nobody can tell.
    Somebody,
}

/// Asks without waiting for an answer.
pub(super) fn behind(path: &Utf8Path) -> io::Result<Behind> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path.as_str())?;
    Ok(match rustix::net::connect(&socket, &address) {
        Err(Errno::CONNREFUSED) => Behind::Nobody,
        Err(Errno::NOENT) => Behind::Nothing,
        _ => Behind::Somebody,
    })
}

/// A listener without room in its queue, and what fills it.
#[cfg(test)]
pub(super) fn crowded(path: &Utf8Path) -> (std::os::unix::net::UnixListener, Vec<rustix::fd::OwnedFd>) {
    let address = SocketAddrUnix::new(path.as_str()).unwrap();
    let socket = |flags| rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listener = socket(SocketFlags::CLOEXEC);
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        match rustix::net::connect(&one, &address) {
            Ok(()) => waiting.push(one),
            Err(Errno::AGAIN) => return (listener.into(), waiting),
            Err(e) => panic!("{e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("s");
        let (listener, _waiting) = crowded(&path);
        let full = dial(&path, Duration::ZERO).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
        let soon = tokio::spawn({
            let path = path.clone();
            async move { dial(&path, Duration::from_secs(60)).await }
        });
        // Once it has begun to try.
        tokio::task::yield_now().await;
        listener.accept().unwrap();
        soon.await.unwrap().unwrap();
    }
}
