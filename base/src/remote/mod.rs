//! The harness's foot in a cluster: a relay in a pod that carries bytes, as `ssh -L` and `ssh -R` do. What is said is said
//! by the harness and by proxies; no key of a provider or a probe ever comes into a pod.
//!
//! [`Relay`] runs in the pod and listens on its loopback only; a [`Link`] reaches it through whatever stream its
//! connector opens (a forwarded connection), over TLS that authenticates both by [`Keys`] made for one run.

mod carry;
mod connection;
mod credentials;
mod door;
mod echo;
mod error;
mod forward;
mod link;
mod listening;
#[rustfmt::skip]
#[allow(
    missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::allow_attributes_without_reason,
    reason = "generated from relay.proto"
)]
#[path = "proto/relay.rs"]
mod proto;
mod put;
mod relay;
mod serving;
mod target;
#[cfg(test)]
mod tests;

use proto::rotacheck::relay::v1 as pb;

pub use connection::{Connector, Io, Opened, over_tcp};
pub use credentials::{Credentials, Keys};
pub use door::Door;
pub use echo::Echo;
pub use error::RemoteError;
pub use forward::Forward;
pub use link::{Event, Link, Tell};
pub use relay::Relay;
pub use serving::{Local, Serving};
pub use target::Target;
