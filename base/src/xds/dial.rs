//! Connecting to a Unix socket that somebody else serves. A full queue of connections (listen(2)) is a sign of life: whoever
//! does not wait for room in it hears EAGAIN at once.

use std::io;

use camino::Utf8Path;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

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
