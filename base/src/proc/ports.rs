//! Loopback ports for programs that choose none themselves.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Those that are given out begin here: below, many have a use.
const LOWEST: u16 = 10_000;
/// So many must be left, or others are taken.
const ENOUGH: u16 = 2_000;

/// Ports that nobody has now, for programs that share none: they can't be held. Each is given out once only.
pub fn free_ports<const N: usize>() -> std::io::Result<[SocketAddr; N]> {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let range = range.and_then(|text| unasked(&text));
    // Held until all are found, so that they differ; a port that was given out before may be about to be bound.
    let (mut held, mut found) = (Vec::new(), Vec::new());
    while found.len() < N {
        let listener = free(range.clone())?;
        let at = listener.local_addr()?;
        held.push(listener);
        if given.insert(at) {
            found.push(at);
        }
    }
    <[SocketAddr; N]>::try_from(found).map_err(|_| std::io::ErrorKind::AddrNotAvailable.into())
}

/// The ports that the kernel gives to nobody by itself, neither to who asks for any nor as the source of a connection
/// (ip-sysctl, `ip_local_port_range`): until the program binds it, such a port stays free.
fn unasked(range: &str) -> Option<Range<u16>> {
    let first: u16 = range.split_whitespace().next()?.parse().ok()?;
    (first >= LOWEST + ENOUGH).then_some(LOWEST..first)
}

fn free(range: Option<Range<u16>>) -> std::io::Result<TcpListener> {
    const TRIES: usize = 200;
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    // The standard library seeds it from the system: two harnesses begin at different places.
    let random = |range: &Range<u16>| {
        let offset = RandomState::new().hash_one(0u8) % u64::from(range.end - range.start);
        range.start + u16::try_from(offset).unwrap_or(0)
    };
    let one = range.and_then(|range| (0..TRIES).find_map(|_| at(random(&range)).ok()));
    one.map_or_else(|| at(0), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_none_that_the_kernel_gives_away() {
        assert_eq!(unasked("32768\t60999\n"), Some(LOWEST..32_768));
        for few in ["1024 65535", "", "x 2"] {
            assert_eq!(unasked(few), None);
        }
        for range in [Some(20_000..20_100), None] {
            let at = free(range.clone()).unwrap().local_addr().unwrap();
            assert!(range.is_none_or(|range| range.contains(&at.port())), "{at}");
        }
    }

    #[test]
    fn no_port_is_given_out_twice() {
        let all: BTreeSet<SocketAddr> = (0..50).flat_map(|_| free_ports::<4>().unwrap()).collect();
        assert_eq!(all.len(), 200);
    }
}
