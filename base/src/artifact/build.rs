//! From a pinned Go module to an executable, in a scratch module that takes nothing but what the module itself names.
//!
//! The scratch module has the module's own `go.mod` and `go.sum`, and the module itself added to both. So the
//! dependencies are those that its makers built and tested it with, each with a checksum that the module's own covers,
//! and Go, told to change nothing (`-mod=readonly`), refuses whatever is not listed.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use super::buildinfo::BuildInfo;
use super::cache::make_permanent;
use super::go::{Downloaded, Go};
use super::record::{Record, TEMPLATE};
use super::store::{OnProgress, Progress, digest_of};
use super::{ArtifactError, Component, Digest, IstioLine, LockedModule, ModuleSource, Program, binary};

/// No module of this name can be published (RFC 2606).
const SCRATCH: &str = "rotacheck.invalid/build";

/// Builds a program within the empty directory `dir`; what shall be kept is in the directory that is returned.
pub(super) async fn build(
    go: &Go,
    program: Program,
    module: &LockedModule,
    dir: &Utf8Path,
    progress: OnProgress<'_>,
) -> Result<Utf8PathBuf, ArtifactError> {
    let (scratch, ready) = (dir.join("module"), dir.join("ready"));
    for made in [&scratch, &ready] {
        fs::create_dir(made).map_err(|e| ArtifactError::io("made", made, e))?;
    }
    progress(Progress::Downloading);
    let sources = pinned(go, program.component(), module, &scratch).await?;
    requirements(go, program.component(), module, &sources.dir, &scratch).await?;
    let executable = ready.join(program.name());
    compile(go, program, &scratch, &executable, progress).await?;
    let info = BuildInfo::of_file(&executable).await?.filter(|info| is_of(info, program, module));
    let info = info.ok_or_else(|| ArtifactError::WrongProgram {
        path: executable.clone(),
        wanted: format!("{program} of {} with the checksum {}", module.version, module.sum),
        found: "something else".into(),
    })?;
    // It runs here: an executable that the loader refuses is of no use to anybody.
    binary::reported(&executable, program).await?;
    let template = match program.template() {
        Some(file) => Some(keep_template(&sources.dir.join(file), &ready).await?),
        None => None,
    };
    make_permanent(&executable)?;
    let digest = digest_of(&executable).await?;
    Record::new(program, module, info.go, digest, template).write(&ready)?;
    Ok(ready)
}

/// What is to be locked for a version of a component: `query` is a version, or what Go resolves to one.
pub(super) async fn examine(
    go: &Go,
    component: Component,
    query: &str,
    dir: &Utf8Path,
) -> Result<LockedModule, ArtifactError> {
    // Go shall find no go.mod above.
    write(&dir.join("go.mod"), &format!("module {SCRATCH}\n"))?;
    let Downloaded { version, sum, go_mod_sum, dir } = go.download(dir, component.module(), query).await?;
    let unfit = |why: String| ArtifactError::BadModule { module: format!("{}@{version}", component.module()), why };
    let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|e| unfit(format!("{name}: {e}")));
    let directive = read("go.mod")?.lines().find_map(|line| line.strip_prefix("go ")).map(|v| v.trim().to_owned());
    let line = match component {
        Component::Spire => None,
        Component::Istio => {
            let said = read("VERSION")?;
            let line = IstioLine::of_version(said.trim());
            Some(line.ok_or_else(|| unfit(format!("its VERSION is {:?}, no version of Istio", said.trim())))?)
        }
    };
    let go = directive.ok_or_else(|| unfit("its go.mod does not say which Go it needs".into()))?;
    Ok(LockedModule { source: ModuleSource::Go, version, sum, mod_sum: go_mod_sum, go, line })
}

/// The module, its sums those of the lock file.
async fn pinned(
    go: &Go,
    component: Component,
    module: &LockedModule,
    scratch: &Utf8Path,
) -> Result<Downloaded, ArtifactError> {
    write(&scratch.join("go.mod"), &format!("module {SCRATCH}\n"))?;
    write(&scratch.join("go.sum"), &sums(component, module))?;
    let sources = go.download(scratch, component.module(), module.version.as_str()).await?;
    if (&sources.version, &sources.sum, &sources.go_mod_sum) != (&module.version, &module.sum, &module.mod_sum) {
        let name = format!("{}@{}", component.module(), module.version);
        return Err(ArtifactError::WrongSum { name, expected: module.sum.clone(), found: sources.sum });
    }
    Ok(sources)
}

fn sums(component: Component, module: &LockedModule) -> String {
    let (path, version) = (component.module(), &module.version);
    format!("{path} {version} {}\n{path} {version}/go.mod {}\n", module.sum, module.mod_sum)
}

/// Makes `scratch` a module with the requirements of the one in `sources`, and that one itself.
async fn requirements(
    go: &Go,
    component: Component,
    module: &LockedModule,
    sources: &Utf8Path,
    scratch: &Utf8Path,
) -> Result<(), ArtifactError> {
    let read = |name: &str| {
        let path = sources.join(name);
        match fs::read_to_string(&path) {
            // What depends on nothing has none.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && name == "go.sum" => Ok(String::new()),
            read => read.map_err(|e| ArtifactError::io("read", &path, e)),
        }
    };
    write(&scratch.join("go.mod"), &read("go.mod")?)?;
    let mut own_sums = read("go.sum")?;
    if !own_sums.is_empty() && !own_sums.ends_with('\n') {
        own_sums.push('\n');
    }
    write(&scratch.join("go.sum"), &(own_sums + &sums(component, module)))?;
    let require = format!("-require={}@{}", component.module(), module.version);
    go.run(Some(scratch), &["mod", "edit", "-module", SCRATCH, &require], "write a go.mod", &mut |_| ()).await?;
    Ok(())
}

async fn compile(
    go: &Go,
    program: Program,
    scratch: &Utf8Path,
    executable: &Utf8Path,
    progress: OnProgress<'_>,
) -> Result<(), ArtifactError> {
    let package = program.package();
    let doing = format!("build {program}");
    let go = go.with_c(program.component().needs_c());
    // Downloads what is needed.
    let list = go.run(Some(scratch), &["list", "-deps", &package], &doing, &mut |_| ()).await?;
    let total = list.stdout.lines().count() as u64;
    let mut done = 0;
    progress(Progress::Building { done, total });
    let arguments =
        ["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", executable.as_str(), &package];
    let mut on_line = |line: &str| {
        // -v names each package on a line of its own.
        if !line.contains(' ') {
            done = total.min(done + 1);
            progress(Progress::Building { done, total });
        }
    };
    go.run(Some(scratch), &arguments, &doing, &mut on_line).await?;
    Ok(())
}

/// Whether an executable is what was asked for, by its own account.
fn is_of(info: &BuildInfo, program: Program, module: &LockedModule) -> bool {
    info.package == program.package()
        && info
            .module(program.component().module())
            .is_some_and(|made_of| made_of.version == module.version.as_str() && made_of.sum == module.sum.as_str())
}

/// Copies a file of the module beside the executable, and gives its digest.
async fn keep_template(file: &Utf8Path, ready: &Utf8Path) -> Result<Digest, ArtifactError> {
    let kept = ready.join(TEMPLATE);
    fs::copy(file, &kept).map_err(|e| ArtifactError::io("read", file, e))?;
    make_permanent(&kept)?;
    digest_of(&kept).await
}

fn write(path: &Utf8Path, text: &str) -> Result<(), ArtifactError> {
    fs::write(path, text).map_err(|e| ArtifactError::io("written", path, e))
}
