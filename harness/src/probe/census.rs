//! Who is connected to the provider's socket, as the kernel tells it: what `ss -x` shows.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use camino::Utf8Path;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::TCP_ESTABLISHED;
use netlink_packet_sock_diag::unix::nlas::UnixDiagName;
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, UnixResponse};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::context::ProbeContext;
use crate::fleet::Proxy;
use crate::timeline::{Blind, Layer, Peers, Source};

/// How long a provider may take to accept a connection.
const TO_ACCEPT: Duration = Duration::from_secs(2);

/// Why the peers could not be told.
#[derive(Debug, thiserror::Error)]
enum CensusError {
    #[error("the kernel's socket diagnostics don't answer: {0}")]
    Netlink(#[from] io::Error),
    #[error("the kernel's socket diagnostics are unreadable: {0}")]
    Decode(String),
}

/// Records which processes are connected to the provider's socket. Connections whose owner may not be seen are
/// recorded as blindness.
pub async fn census(targets: &[Proxy], ctx: &ProbeContext) -> Option<Peers> {
    let socket = ctx.socket.clone()?;
    let pids: Vec<i32> = targets.iter().map(|p| p.pid).collect();
    let path = socket.clone();
    let found = tokio::task::spawn_blocking(move || connected(&path).map(|inodes| owners(&inodes, &pids))).await;
    let blind = |why: String| {
        let what = format!("peers of {socket}");
        ctx.recorder.record(Source::Census, None, None, Blind { layer: Some(Layer::Sent), what, why });
    };
    match found {
        Ok(Ok(Owners { pids, unseen })) => {
            let peers = Peers { socket: socket.to_string(), pids, sockets: Vec::new() };
            ctx.recorder.record(Source::Census, None, None, peers.clone());
            if unseen > 0 {
                blind(format!("the processes behind {unseen} connections may not be seen"));
            }
            Some(peers)
        }
        Ok(Err(e)) => {
            blind(e.to_string());
            None
        }
        Err(e) => {
            blind(e.to_string());
            None
        }
    }
}

/// Whether a census can be taken at all: kernels can be built without the diagnostics, and sandboxes refuse them.
pub fn census_works() -> Result<(), String> {
    dump(|_| ()).map_err(|e| e.to_string())
}

/// Connections to this socket from the network namespace that this process is in, as from a pod: there the kernel shows both
/// ends, and the far one with the path that the provider bound, which need not be the one that leads to it here. Those of
/// Envoys, where their processes may be seen; else those of everybody else, whose processes are not known then.
pub async fn beside(socket: &Utf8Path) -> Result<Peers, String> {
    let deadline = tokio::time::Instant::now() + TO_ACCEPT;
    let own = loop {
        match tokio::net::UnixStream::connect(socket).await {
            // Its queue is full: nothing tells when there is room.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(TO_ACCEPT / 40).await;
            }
            own => break own,
        }
    };
    let own = own.map_err(|e| format!("{socket} can't be connected to: {e}"))?;
    let inode = own.as_fd().try_clone_to_owned().and_then(|fd| std::fs::File::from(fd).metadata());
    let inode = inode.map_err(|e| e.to_string())?.ino();
    let (name, near) = loop {
        if let Some(found) = connected_as(inode, &ends().map_err(|e| e.to_string())?) {
            break found;
        }
        // Nothing tells when it is: the kernel does not show the far end before.
        if tokio::time::Instant::now() >= deadline {
            let seconds = TO_ACCEPT.as_secs();
            return Err(format!("our own connection to {socket} was not accepted within {seconds} s"));
        }
        tokio::time::sleep(TO_ACCEPT / 40).await;
    };
    let of = |pid: i32| sockets(pid).filter(|inode| near.contains(inode)).map(move |inode| (inode, pid));
    let envoys: Vec<i32> = processes().filter(|pid| is_envoy(*pid)).collect();
    let mut known: Vec<(u64, i32)> = envoys.iter().flat_map(|pid| of(*pid)).collect();
    known.sort_unstable();
    let (sockets, pids) = if envoys.is_empty() {
        let own: HashSet<u64> = of(std::process::id().cast_signed()).map(|(inode, _)| inode).collect();
        let mut others: Vec<u64> = near.difference(&own).copied().collect();
        others.sort_unstable();
        (others, Vec::new())
    } else {
        known.into_iter().unzip()
    };
    Ok(Peers { socket: name, pids, sockets })
}

/// Those of all connections in this network namespace.
fn ends() -> Result<Vec<End>, CensusError> {
    let mut ends = Vec::new();
    dump(|seen| {
        if seen.header.state == TCP_ESTABLISHED {
            let name = match seen.name() {
                Some(UnixDiagName::Pathname(path)) => Some(path.display().to_string()),
                _ => None,
            };
            ends.push(End { peer: seen.peer().unwrap_or_default().into(), name });
        }
    })?;
    Ok(ends)
}

/// One end of a connection.
struct End {
    /// The number of the other one.
    peer: u64,
    /// The path that it was bound to, or accepted at.
    name: Option<String>,
}

/// Where the connection with this near end was accepted, and the near ends of all that were.
fn connected_as(near: u64, ends: &[End]) -> Option<(String, HashSet<u64>)> {
    let name = ends.iter().find(|end| end.peer == near)?.name.clone()?;
    let alike = ends.iter().filter(|end| end.name.as_ref() == Some(&name)).map(|end| end.peer);
    let near = alike.filter(|peer| *peer != 0).collect();
    Some((name, near))
}

fn processes() -> impl Iterator<Item = i32> {
    entries("/proc").filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_envoy(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "envoy")
}

/// The far ends of the established connections to this path: their inodes, one per connection.
fn connected(path: &Utf8Path) -> Result<Vec<u64>, CensusError> {
    // The kernel tells the path as it was bound, which may be the one behind a link.
    let real = std::fs::canonicalize(path).ok();
    let mut peers = Vec::new();
    dump(|socket| {
        let Some(UnixDiagName::Pathname(name)) = socket.name() else { return };
        let named = name == path.as_os_str() || real.as_ref().is_some_and(|real| name == real.as_os_str());
        if socket.header.state == TCP_ESTABLISHED
            && named
            && let Some(peer) = socket.peer().filter(|inode| *inode != 0)
        {
            peers.push(u64::from(peer));
        }
    })?;
    Ok(peers)
}

fn dump(mut each: impl FnMut(&UnixResponse)) -> Result<(), CensusError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = UnixRequest {
        state_flags: StateFlags::ESTABLISHED,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::PEER,
        cookie: [0xff; 8],
    };
    let mut request = NetlinkMessage::new(header, SockDiagMessage::UnixRequest(request).into());
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(|e| CensusError::Decode(e.to_string()))?;
            // Messages are aligned to four bytes; the last one's padding may be left out.
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            if length == 0 {
                return Err(CensusError::Decode("a message of no length".into()));
            }
            rest = &rest[length..];
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(response)) => each(&response),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(e) => return Err(CensusError::Netlink(e.to_io())),
                _ => {}
            }
        }
    }
}

struct Owners {
    pids: Vec<i32>,
    unseen: usize,
}

/// The processes that hold these sockets: the expected ones are looked at first, all others only if that leaves
/// connections unexplained.
fn owners(inodes: &[u64], expected: &[i32]) -> Owners {
    let mut missing: HashSet<u64> = inodes.iter().copied().collect();
    let mut found: HashMap<u64, i32> = HashMap::new();
    let mut look_at = |pid: i32, missing: &mut HashSet<u64>| {
        let mut inodes = sockets(pid);
        // Each look at a descriptor is a call.
        while !missing.is_empty()
            && let Some(inode) = inodes.next()
        {
            if missing.remove(&inode) {
                found.insert(inode, pid);
            }
        }
    };
    for pid in expected {
        look_at(*pid, &mut missing);
    }
    if !missing.is_empty() {
        processes().for_each(|pid| look_at(pid, &mut missing));
    }
    let mut pids: Vec<i32> = inodes.iter().filter_map(|inode| found.get(inode).copied()).collect();
    pids.sort_unstable();
    Owners { unseen: inodes.len() - pids.len(), pids }
}

/// The inodes of a process's sockets, as far as they may be seen (proc_pid_fd(5): links to `socket:[inode]`).
fn sockets(pid: i32) -> impl Iterator<Item = u64> {
    entries(&format!("/proc/{pid}/fd")).filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// What is in a directory; nothing, where it can't be read or is gone.
fn entries(directory: &str) -> impl Iterator<Item = std::fs::DirEntry> + use<> {
    std::fs::read_dir(directory).into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn every_connection_to_a_socket_is_found_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut ends = Vec::new();
        for _ in 0..2 {
            ends.push(UnixStream::connect(&path).unwrap());
            ends.push(listener.accept().unwrap().0);
        }
        let me = i32::try_from(std::process::id()).unwrap();

        let inodes = connected(&path).unwrap();
        assert_eq!(owners(&inodes, &[me]).pids, [me, me]);
        // Found as well when nobody is expected.
        let Owners { pids, unseen } = owners(&inodes, &[]);
        assert_eq!((pids, unseen), (vec![me, me], 0));

        ends.truncate(2);
        assert_eq!(connected(&path).unwrap().len(), 1, "a connection that ended is no peer");
    }

    #[test]
    fn connections_are_counted_by_the_path_that_our_own_leads_to() {
        let end = |peer, name: Option<&str>| End { peer, name: name.map(str::to_owned) };
        let ends = [
            end(2, None),
            end(1, Some("/bound")),
            end(4, None),
            end(3, Some("/bound")),
            end(6, None),
            end(5, Some("/other")),
            end(0, Some("/bound")),
        ];
        assert_eq!(connected_as(1, &ends), Some(("/bound".to_owned(), [1, 3].into())));
        assert_eq!(connected_as(9, &ends), None);
    }

    #[tokio::test]
    async fn the_path_is_the_one_that_was_bound_however_it_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let (path, link) = (root.join("socket"), root.join("link"));
        let listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let unaccepted = beside(&link).await.unwrap_err();
        assert!(unaccepted.contains("was not accepted within 2 s"), "{unaccepted}");
        std::thread::spawn(move || listener.incoming().take(8).collect::<Vec<_>>());
        let near = UnixStream::connect(&path).unwrap();
        let peers = beside(&link).await.unwrap();
        assert_eq!(peers.socket, path.as_str());
        // They are our own, and no Envoy's.
        assert!(peers.pids.is_empty() && peers.sockets.is_empty(), "{peers:?}");
        drop(near);
        let gone = beside(&root.join("gone")).await.unwrap_err();
        assert!(gone.contains("can't be connected to"), "{gone}");
    }

    #[test]
    fn a_socket_without_peers_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(connected(&path).unwrap().is_empty());
    }

    #[test]
    fn connections_whose_process_is_not_to_be_seen_are_counted() {
        let Owners { pids, unseen } = owners(&[u64::MAX], &[]);
        assert_eq!((pids, unseen), (vec![], 1));
    }
}
