//! From a request to a verified program of Istio's or SPIRE's.

use camino::Utf8Path;

use super::buildinfo::BuildInfo;
use super::go::Go;
use super::program::name_of;
use super::record::{Record, TEMPLATE};
use super::store::{OnProgress, Progress, Store, digest_of};
use super::{
    ArtifactError, Component, Digest, IstioLine, LockedModule, ModuleSource, Program, ProgramBinary, binary, build,
};
use crate::timeline::{ProgramRequest, ProgramVersion};

/// Raised when the same module, built in another way, shall be built anew.
const RECIPE: u32 = 1;

impl Store {
    /// The executable for a request; built if need be, which can take minutes. Each is verified once in a process.
    pub async fn program(
        &self,
        program: Program,
        request: &ProgramRequest,
        progress: OnProgress<'_>,
    ) -> Result<ProgramBinary, ArtifactError> {
        let cell = {
            let mut programs = self.programs.lock().unwrap_or_else(|e| e.into_inner());
            programs.entry((program, request.clone())).or_default().clone()
        };
        let find = async || match request {
            ProgramRequest::Version(version) => self.locked_program(program, version, progress).await,
            ProgramRequest::Path(dir) => own(program, dir, "path").await,
            ProgramRequest::Image(image) => {
                let path = self.image_program(program, image, progress).await?;
                own(program, path.parent().unwrap_or(&path), "image").await
            }
        };
        cell.get_or_try_init(find).await.cloned()
    }

    /// Whether a program of a version is in the cache, unverified.
    pub fn has_program(&self, program: Program, version: &ProgramVersion) -> bool {
        let module = self.lock.module(program.component(), version);
        module.is_some_and(|(_, module)| self.cache.program(&key(program, module)).exists())
    }

    async fn locked_program(
        &self,
        program: Program,
        version: &ProgramVersion,
        progress: OnProgress<'_>,
    ) -> Result<ProgramBinary, ArtifactError> {
        let (name, module) = self.locked_module(program.component(), version)?;
        let key = key(program, module);
        let dir = self.cache.program(&key);
        if dir.exists() {
            progress(Progress::Verifying);
        } else if self.offline {
            return Err(ArtifactError::Offline {
                what: format!("{program} {name}"),
                component: program.component().key(),
                version: name.to_string(),
            });
        } else {
            self.build(program, module, &key, progress).await?;
        }
        let record = Record::read(&dir, program, module)?;
        let bootstrap_template = record.verify(&dir, program).await?;
        let ModuleSource::Go = module.source;
        Ok(ProgramBinary {
            program,
            path: dir.join(program.name()),
            name: name.to_string(),
            version: module.version.to_string(),
            source: "go".into(),
            digest: record.sha256,
            line: module.line,
            bootstrap_template,
        })
    }

    fn locked_module(
        &self,
        component: Component,
        version: &ProgramVersion,
    ) -> Result<(&ProgramVersion, &LockedModule), ArtifactError> {
        self.lock.module(component, version).ok_or_else(|| {
            let known: Vec<_> = self.lock.names(component).map(ProgramVersion::as_str).collect();
            ArtifactError::NotLocked {
                what: format!("{component} {version}"),
                known: if known.is_empty() { "none".into() } else { known.join(", ") },
                component: component.key(),
                version: version.to_string(),
            }
        })
    }

    async fn build(
        &self,
        program: Program,
        module: &LockedModule,
        key: &str,
        progress: OnProgress<'_>,
    ) -> Result<(), ArtifactError> {
        let staging = self.cache.stage(key, || progress(Progress::Waiting)).await?;
        if self.cache.program(key).exists() {
            // Somebody else was quicker.
            return Ok(());
        }
        let go = Go::find(&self.search_path).await?;
        let ready = build::build(&go, program, module, staging.dir(), progress).await?;
        self.cache.admit_program(&ready, key)
    }

    /// Has Go look up a version that is not locked yet, and gives its name and its entry for the lock file. Nothing is
    /// built.
    pub async fn module_entry(
        &self,
        component: Component,
        query: &str,
        progress: OnProgress<'_>,
    ) -> Result<(ProgramVersion, LockedModule), ArtifactError> {
        let staging = self.cache.stage(&format!("lock-{}", component.key()), || progress(Progress::Waiting)).await?;
        let go = Go::find(&self.search_path).await?;
        progress(Progress::Downloading);
        let module = build::examine(&go, component, query, staging.dir()).await?;
        Ok((name_of(&module.version, module.line), module))
    }
}

/// What a program of a module is called in the cache: one name for whatever leads to the same build.
fn key(program: Program, module: &LockedModule) -> String {
    let LockedModule { version, sum, mod_sum, .. } = module;
    let arch = std::env::consts::ARCH;
    let digest = Digest::of_bytes(format!("{RECIPE} {arch} {sum} {mod_sum}").as_bytes());
    format!("{program}@{version}-{}", &digest.as_str()[..16])
}

/// A program of the user's own, or out of an image: it is what it was built from, and has the version that it reports.
async fn own(program: Program, dir: &Utf8Path, source: &str) -> Result<ProgramBinary, ArtifactError> {
    let find = |name: &str| {
        let path = dir.join(name);
        let found = path.canonicalize_utf8().map_err(|e| ArtifactError::io("found", &path, e))?;
        if found.is_file() { Ok(found) } else { Err(ArtifactError::NotAFile { path: found }) }
    };
    let path = find(program.name())?;
    let bootstrap_template = program.template().map(|_| find(TEMPLATE)).transpose()?;
    let reported = binary::reported(&path, program).await?;
    let info = BuildInfo::of_file(&path).await?.filter(|info| info.package == program.package());
    let info = info.ok_or_else(|| ArtifactError::WrongProgram {
        path: path.clone(),
        wanted: program.to_string(),
        found: "another program".into(),
    })?;
    let built_from = info.module(program.component().module()).map(|module| module.version.clone());
    let version = reported.or(built_from).unwrap_or_else(|| "unknown".into());
    Ok(ProgramBinary {
        program,
        digest: digest_of(&path).await?,
        path,
        name: version.clone(),
        source: source.into(),
        line: IstioLine::of_version(&version).filter(|_| program.component() == Component::Istio),
        version,
        bootstrap_template,
    })
}
