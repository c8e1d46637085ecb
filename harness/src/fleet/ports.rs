//! Loopback ports that nobody else can take between the choice and the proxy's own bind.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// Where one proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) admin: SocketAddr,
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    pub(super) dial_out: SocketAddr,
    pub(super) stapled: SocketAddr,
    pub(super) late: SocketAddr,
    pub(super) foreign: SocketAddr,
}

/// The ports of one proxy, held as long as this lives.
///
/// Each is bound here with SO_REUSEPORT but does not listen, so that no connection ever comes to it. The kernel gives
/// such a port to nobody who asks for any (also not as the source of a connection), and lets only a process of the
/// same user that sets SO_REUSEPORT as well bind it: the proxy, at its start and at each restart.
#[derive(Debug)]
pub(super) struct Reserved {
    addresses: Addresses,
    _held: [TcpSocket; 7],
}

impl Reserved {
    /// What peers connect to is at this address, the rest at 127.0.0.1.
    pub(super) fn at(address: Ipv4Addr) -> std::io::Result<Self> {
        let own = || reserve(Ipv4Addr::LOCALHOST);
        let held = [own()?, reserve(address)?, own()?, own()?, reserve(address)?, reserve(address)?, own()?];
        let [admin, inbound, outbound, dial_out, stapled, late, foreign] = &held;
        let addresses = Addresses {
            admin: admin.local_addr()?,
            inbound: inbound.local_addr()?,
            outbound: outbound.local_addr()?,
            dial_out: dial_out.local_addr()?,
            stapled: stapled.local_addr()?,
            late: late.local_addr()?,
            foreign: foreign.local_addr()?,
        };
        Ok(Self { addresses, _held: held })
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }
}

fn reserve(address: Ipv4Addr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((address, 0).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_held_port_is_refused_to_others_and_given_to_the_proxy() {
        let reserved = Reserved::at(Ipv4Addr::LOCALHOST).unwrap();
        let at = reserved.addresses().inbound;
        let stranger = TcpListener::bind(at).await.unwrap_err();
        assert_eq!(stranger.kind(), std::io::ErrorKind::AddrInUse);

        // Twice, one after the other, as at a restart.
        for _ in 0..2 {
            let proxy = TcpSocket::new_v4().unwrap();
            proxy.set_reuseport(true).unwrap();
            proxy.bind(at).unwrap();
            let proxy = proxy.listen(8).unwrap();
            // Every connection goes to the one who listens, none to the one who holds.
            for _ in 0..16 {
                let (connected, accepted) = tokio::join!(TcpStream::connect(at), proxy.accept());
                connected.unwrap();
                accepted.unwrap();
            }
        }
        let nobody = TcpStream::connect(at).await.unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
