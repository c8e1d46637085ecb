//! Why a fleet can't be had, or went wrong.

use std::fmt;
use std::io::ErrorKind;

use camino::Utf8PathBuf;

use super::call::CallError;
use crate::pki::PkiError;
use crate::proc::{Exit, ProcError};
use crate::timeline::ProxyId;
use crate::xds::{LdsError, SocketError};

/// How the last words begin of a proxy whose pod is no more.
pub(super) const POD: &str = "the pod ";

/// A proxy that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyExit {
    /// Which.
    pub id: ProxyId,
    /// The process that it was.
    pub pid: i32,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Whether the harness asked for it.
    pub expected: bool,
    /// Its last log lines.
    pub log_tail: Vec<String>,
    /// The whole log.
    pub log: Utf8PathBuf,
}

impl ProxyExit {
    /// The last lines of the log that tell about its end: no account of a start that went well, no frames of a stack.
    fn last_words(&self) -> Vec<&str> {
        const MOST: usize = 3;
        // What a crash dumps after this line, the stack and whatever was going on, tells its developers more than us.
        if let Some(crash) = self.log_tail.iter().find(|line| line.contains("][critical]") && line.contains("Caught "))
        {
            return vec![crash.trim()];
        }
        let says_nothing = |line: &&str| {
            line.is_empty()
                || line.contains("][info]")
                || line.contains("][backtrace] ")
                // Every Envoy without an overload manager says so at its start.
                || line.contains("no configured limit to the number of allowed active downstream connections")
        };
        let mut telling: Vec<&str> =
            self.log_tail.iter().map(|line| line.trim()).filter(|line| !says_nothing(line)).rev().take(MOST).collect();
        telling.reverse();
        telling
    }
}

impl fmt::Display for ProxyExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a pod that is no more, nobody saw how its processes ended.
        if let Some(words) = self.log_tail.last().filter(|line| line.starts_with(POD)) {
            return write!(f, "{}: {words}; its log is {}", self.id, self.log);
        }
        write!(f, "{} {}", self.id, Exit { code: self.code, signal: self.signal })?;
        match &self.last_words()[..] {
            [] => write!(f, "; its log is {}", self.log),
            lines => {
                write!(f, "; its log {} says:", self.log)?;
                lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
        }
    }
}

/// Why a fleet can't be had, or went wrong.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Nothing to start.
    #[error("there is no proxy in it")]
    Empty,
    /// Two proxies of one name.
    #[error("two proxies are named {0}")]
    SameName(ProxyId),
    /// There is no such proxy.
    #[error("no proxy is named {0}")]
    NoSuchProxy(ProxyId),
    /// A Unix socket's path has at most 107 bytes.
    #[error("{path}: a Unix socket's path has at most {MAX_SOCKET_PATH} bytes, this one has {}", path.as_str().len())]
    SocketPath {
        /// The path.
        path: Utf8PathBuf,
    },
    /// No LDS.
    #[error("no listeners can be added later: {0}")]
    Lds(#[from] SocketError),
    /// A listener could not be added.
    #[error("no listener can be added: {0}")]
    Listener(#[from] LdsError),
    /// No loopback port was free.
    #[error("no loopback ports for {id}: {source}")]
    Ports {
        /// For whom.
        id: ProxyId,
        /// Why.
        source: std::io::Error,
    },
    /// The run directory does not take it.
    #[error("{path}: {source}")]
    Write {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process could not be started.
    #[error("{source}")]
    Spawn {
        /// Which proxy.
        id: ProxyId,
        /// Why.
        source: ProcError,
    },
    /// It ended: a configuration refused, a port taken, a crash.
    #[error("{0}")]
    Exited(ProxyExit),
    /// A file of Istio's can't be read.
    #[error("{path} can't be read: {source}")]
    Read {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Istio's agent takes certificates from a socket of a certain name only.
    #[error("Istio's agent takes certificates from a workload socket only")]
    AgentWithoutSocket,
    /// Istio's agents are to serve the proxies, and there are none.
    #[error("certificates of Istio's agents reach only proxies that these agents start")]
    AgentsWanted,
    /// Istio's bootstrap template is not as it was known.
    #[error("{path} does not name the workload socket: it is no bootstrap template of an Istio that rotacheck knows")]
    Template {
        /// The template.
        path: Utf8PathBuf,
    },
    /// Nobody serves the provider's socket, as a pod sees it.
    #[error("the provider's socket {socket} can't be reached from a pod on its node: {why}")]
    NoProvider {
        /// Its path on the node.
        socket: Utf8PathBuf,
        /// Why.
        why: String,
    },
    /// Istio's image did not tell its bootstrap template.
    #[error("{path} can't be read in Istio's image")]
    NoTemplate {
        /// Where it is there.
        path: Utf8PathBuf,
    },
    /// Somebody else's certificate, which the proxies were to have beside their own.
    #[error("no certificate of somebody else's can be made: {0}")]
    Foreign(PkiError),
    /// istiod's authority can't be made.
    #[error("istiod can't be given an authority: {0}")]
    Authority(#[from] PkiError),
    /// The stub of the Kubernetes API, or a port for istiod.
    #[error("istiod can't be given a Kubernetes API on loopback: {source}")]
    Kubernetes {
        /// Why.
        source: std::io::Error,
    },
    /// istiod could not be started.
    #[error("istiod can't be started: {source}")]
    Istiod {
        /// Why.
        source: ProcError,
    },
    /// istiod ended before it served.
    #[error("istiod {how} before it served; its log is {log}{}", said(.words))]
    IstiodEnded {
        /// How.
        how: Exit,
        /// The lines of its log that tell of it.
        words: String,
        /// Its log.
        log: Utf8PathBuf,
    },
    /// istiod did not serve in time.
    #[error("istiod did not serve in time; its log is {log}")]
    IstiodSilent {
        /// Its log.
        log: Utf8PathBuf,
    },
    /// Who was to start the proxy did not.
    #[error("{id}: no Envoy was started; the log is {log}")]
    NoEnvoy {
        /// Which proxy.
        id: ProxyId,
        /// The log of who was to start it.
        log: Utf8PathBuf,
    },
    /// It did not become ready in time.
    #[error("{id} was not ready in time: {state}")]
    NotReady {
        /// Which proxy.
        id: ProxyId,
        /// What it says of itself.
        state: String,
    },
    /// What stands in a cluster did not come up.
    #[error("{what} did not come up in namespace {namespace}: {state}{events}")]
    NotUp {
        /// In words.
        what: String,
        /// Where.
        namespace: String,
        /// What keeps it, as its node says.
        state: String,
        /// Warnings, each on a line of its own.
        events: String,
    },
    /// What is to be made in a cluster is no YAML with these names in it.
    #[error("what is made in the namespace can't be read: {why}")]
    Manifest {
        /// Where, and why.
        why: String,
    },
    /// SPIRE's server has no such authority.
    #[error("SPIRE's server tells of no authority that is {place}")]
    NoAuthority {
        /// `prepared`, `old`.
        place: String,
    },
    /// A node's relay did not answer.
    #[error("a node's relay did not answer within {seconds} s")]
    NodeSilent {
        /// That long.
        seconds: u64,
    },
    /// Only processes of ours are started again.
    #[error("the proxies are pods, which Kubernetes starts again")]
    NotOurs,
    /// The API server.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Cluster(#[from] crate::cluster::ClusterError),
    /// A relay in a pod.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Relay(#[from] crate::remote::RemoteError),
    /// A container was not made, or can't be looked at.
    #[error(transparent)]
    Container(CallError),
    /// It did not end in time.
    #[error("{id} did not end in time")]
    StillRunning {
        /// Which proxy.
        id: ProxyId,
    },
}

impl FleetError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::SocketPath { .. } => Some("set TMPDIR to a directory with a shorter path"),
            Self::Ports { .. } => Some("too many loopback ports are in use; run fewer cells at a time"),
            Self::Write { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Some("the disk is full: make room, or keep runs elsewhere with --runs DIR")
            }
            Self::Write { .. } => Some("keep runs elsewhere with --runs DIR"),
            Self::NotUp { events, .. } if events.contains("Insufficient") => {
                Some("the nodes are full: run fewer cells at a time with --jobs, or more --nodes")
            }
            Self::NotUp { .. } => Some("events.txt and the pods' logs tell more; --keep leaves the cluster to look at"),
            #[cfg(feature = "kubernetes")]
            Self::Relay(e) => Some(e.hint()),
            Self::NoProvider { .. } => Some(
                "is it running on each node, and does --socket name the path of its socket there? What one says that is \
                     started for a cell is in the run directory",
            ),
            Self::NoTemplate { .. } => {
                Some("an image without `cat` can't tell it (a distroless one?): --istio-tag names another")
            }
            Self::NotReady { .. } => Some("its log and bootstrap are in the run directory"),
            Self::Exited(exit) if exit.log_tail.iter().any(|line| line.contains("Address already in use")) => {
                Some(PORT_TAKEN)
            }
            Self::IstiodEnded { words, .. } if words.contains("address already in use") => Some(PORT_TAKEN),
            Self::Exited(_) => Some("run the Envoy with --mode validate on the bootstrap in the run directory"),
            _ => None,
        }
    }
}

const PORT_TAKEN: &str = "another process has the port (`ss -ltnp` shows it): run it again";

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(", which says:\n    {words}") }
}

pub(super) const MAX_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(log: &str) -> String {
        let exit = ProxyExit {
            id: ProxyId::parse("proxy-a").unwrap(),
            pid: 1,
            code: None,
            signal: Some(11),
            expected: false,
            log_tail: log.lines().map(str::to_owned).collect(),
            log: "/x/envoy.log".into(),
        };
        exit.to_string()
    }

    #[test]
    fn of_a_pod_that_is_no_more_that_is_said_and_no_exit() {
        let said = crashed("[x][info] fine\nthe pod ns/proxy-a is gone");
        assert_eq!(said, "proxy-a: the pod ns/proxy-a is gone; its log is /x/envoy.log");
    }

    #[test]
    fn the_last_words_are_those_about_the_end() {
        let log = "\
[2026-11-24T19:06:38.946Z][info][config] loading stats configuration
[2026-11-24T19:06:38.952Z][warning][main] There is no configured limit to the number of allowed active downstream connections.
[2026-11-24T20:18:39.291Z][critical][backtrace] Caught Segmentation fault, suspect faulting address 0x5312
[2026-11-24T20:18:39.291Z][critical][backtrace] Backtrace (use tools/stack_decode.py to get line numbers):
[2026-11-24T20:18:39.304Z][critical][backtrace] #0: [0x7f6266441050]
ConnectionImpl 0x1a2b, connecting_: 0, bind_error_: 0, state(): Open
    ListenSocketImpl 0x536b, transport_protocol_: raw_buffer
    connection_info_provider_:
    ConnectionInfoSetterImpl 0x536b, remote_address_: 127.0.0.1:55480";
        insta::assert_snapshot!(crashed(log), @r"
        proxy-a was killed by SIGSEGV; its log /x/envoy.log says:
            [2026-11-24T20:18:39.291Z][critical][backtrace] Caught Segmentation fault, suspect faulting address 0x5312
        ");
        insta::assert_snapshot!(crashed("[x][info] fine\n\n"), @"proxy-a was killed by SIGSEGV; its log is /x/envoy.log");
    }
}
