//! SDS and Workload API streams: where they are served, what is said on them, and the one recorder of it.
//!
//! The server side keeps the protocol (nonces, ACKs, NACKs, subscriptions) and knows nothing of certificates; who
//! serves through it hears [`Event`]s and answers with [`Command`]s. Both can be serialised, so that the sockets may
//! live in another process than the issuer.

mod apart;
mod dial;
mod journal;
mod lds;
mod message;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::allow_attributes_without_reason,
    reason = "generated from the part of Envoy's protos that is spoken here"
)]
#[path = "proto/envoy.rs"]
mod pb;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::allow_attributes_without_reason,
    reason = "generated from workload.proto"
)]
#[path = "proto/workload.rs"]
mod proto;
mod read;
mod sds;
mod second_look;
mod secret;
mod serve;
mod socket;
#[cfg(test)]
mod subset;
mod tap;
mod told;
mod witness;
mod workload;

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use crate::timeline::{ProxyId, SecretName};

pub use apart::{ApartError, OutletApart, serve_apart};
pub use dial::dial;
pub use journal::{Announced, Journal, Subscribers};
pub use lds::{Lds, LdsError};
pub use message::{Command, Content, Event, Push, Rpc, SECRET_TYPE_URL, Secret};
pub use second_look::ask_workload_api;
pub use serve::{Outlet, Sink};
pub use socket::{Socket, SocketError};
pub use tap::{Tap, Way, socket_of};
pub use told::{Listener, TellError, Teller, Told};
pub use witness::{Asked, Question, WitnessError, ask, stay};

/// What a provider hands to a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A Unix socket that serves SDS.
    Socket(Utf8PathBuf),
    /// A directory with the secrets' files of each proxy, laid out as [`secret_file`] and [`watched_directory`] say.
    Files(Utf8PathBuf),
    /// A Unix socket for each proxy: behind it, the proxy's own agent serves SDS.
    Mesh(BTreeMap<ProxyId, Utf8PathBuf>),
}

/// The file by which a proxy learns of a secret (an SDS response, for `path_config_source`), below a [`Delivery::Files`].
pub fn secret_file(files: &Utf8Path, proxy: &ProxyId, secret: &SecretName) -> Utf8PathBuf {
    files.join(proxy.as_str()).join(format!("{secret}.json"))
}

/// The directory in which that secret's own files are put into place, and which the proxy is to watch.
pub fn watched_directory(files: &Utf8Path, proxy: &ProxyId, secret: &SecretName) -> Utf8PathBuf {
    files.join(proxy.as_str()).join(secret.as_str())
}
