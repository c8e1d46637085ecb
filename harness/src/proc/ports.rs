//! Loopback ports for programs that choose none themselves.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// Ports that nobody has now, for programs that share none: they can't be held. Each is given out once only.
pub(crate) fn free_ports<const N: usize>() -> std::io::Result<[SocketAddr; N]> {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Held until all are found, so that they differ; a port that was given out before may be about to be bound.
    let (mut held, mut found) = (Vec::new(), Vec::new());
    while found.len() < N {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let at = listener.local_addr()?;
        held.push(listener);
        if given.insert(at) {
            found.push(at);
        }
    }
    <[SocketAddr; N]>::try_from(found).map_err(|_| std::io::ErrorKind::AddrNotAvailable.into())
}
