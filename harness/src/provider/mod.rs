//! Who issues certificates: here the fake, which a scenario drives.
//!
//! An issuer decides what is minted and when, and which content is spoiled; the outlet (room `xds`) serves sockets and
//! streams. There is no timer: renewals happen when they are asked for, in cell time.

mod fake;
mod faults;
mod issuer;
mod material;
mod profile;
mod renewal;
mod serving;
mod streams;

pub use fake::{Fake, FakeConfig};
pub use renewal::{Closed, Pushed, Renewal};

use crate::pki::PkiError;
use crate::xds::{ApartError, SocketError};

/// Why a provider does not work.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Its outlet's process.
    #[error(transparent)]
    Apart(#[from] ApartError),
    /// Its certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Its trust domain can't be one.
    #[error("{0:?} is no trust domain")]
    TrustDomain(String),
    /// Its thread could not be started.
    #[error("the issuer can't be started: {0}")]
    Thread(std::io::Error),
    /// Its thread ended.
    #[error("the issuer has stopped")]
    Stopped,
    /// The process that serves its socket could not be frozen or woken.
    #[error("the provider's process {pid} can't be {what}: {source}")]
    Freeze {
        /// Which.
        pid: u32,
        /// `frozen` or `woken`.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
