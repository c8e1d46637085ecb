//! Proxies as containers: the Envoy of an image, configured as a local process is, in this machine's network. Everything is
//! asked of the program `docker`, which the guard can run too; so a container ends with the run, however that ends.

mod docker;
mod error;
mod make;
mod sweep;

pub use docker::{Docker, EnvoyImage};
pub use error::ContainerError;
pub use make::Vessel;
pub(super) use make::{Container, Mount};
pub(super) use sweep::{containers_left_behind, sweep_container};

/// Where an Envoy is in images of it, and in Istio's.
pub const ENVOY: &str = "/usr/local/bin/envoy";
