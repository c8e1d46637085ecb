//! Whether Istio's and SPIRE's programs are there, or can be built here.

use camino::Utf8Path;

use super::{Check, Status};
use crate::artifact::{ArtifactError, Component, Go, Lock, LockedModule, PULLS_IMAGES, Store};
use crate::timeline::{ProgramRequest, ProgramVersion};

/// Modules, what is compiled of them, and scratch files, for one version of Istio.
const DISK_FLOOR: u64 = 4 << 30;

/// Go, and each version of the lock file. The default plan needs none of them.
pub(super) async fn checks(store: &Store, lock: &Lock) -> Vec<Check> {
    let go = Go::find(&std::env::var_os("PATH").unwrap_or_default()).await;
    let mut checks = vec![match &go {
        Ok(go) => Check::ok("Go", go.version()),
        Err(e) => Check::warn("Go", e, e.hint().unwrap_or_default()),
    }];
    for component in Component::ALL {
        for name in lock.names(component) {
            let name = name.clone();
            let Some((_, module)) = lock.module(component, &name) else { continue };
            checks.push(check(store, go.as_ref(), component, &name, module).await);
        }
    }
    checks.push(images(store, lock));
    checks
}

/// Whether images can be pulled, and which of the lock file are there.
fn images(store: &Store, lock: &Lock) -> Check {
    let here: Vec<_> = lock.images().filter_map(|(image, _)| store.has_image(image)).collect();
    let cached = here.iter().filter(|cached| **cached).count();
    let found = match here.len() {
        0 => "none is locked for this machine".to_owned(),
        n => format!("{cached} of {n} that are locked for this machine are cached"),
    };
    match (PULLS_IMAGES, cached == here.len()) {
        (true, _) => Check::ok("OCI images", found),
        (false, true) => Check::ok("OCI images", format!("{found}; this build pulls no other (feature oci)")),
        (false, false) => {
            let hint = "build rotacheck with --features oci, or give the programs with path=";
            Check::warn("OCI images", format!("{found}, and this build can't pull the others"), hint)
        }
    }
}

async fn check(
    store: &Store,
    go: Result<&Go, &ArtifactError>,
    component: Component,
    name: &ProgramVersion,
    module: &LockedModule,
) -> Check {
    let title = format!("{component} {name}");
    let programs = component.programs();
    if programs.iter().all(|program| store.has_program(*program, name)) {
        for program in programs {
            if let Err(e) = store.program(program, &ProgramRequest::Version(name.clone()), &|_| ()).await {
                return Check::warn(title, &e, e.hint().unwrap_or_default());
            }
        }
        return Check::ok(title, "cached, verified");
    }
    let own = format!("programs of your own need none of it: --{} path=/x/directory", component.key());
    let not_here = |why: String, hint: &str| Check::warn(title.clone(), format!("not built yet, and {why}"), hint);
    let Ok(go) = go else { return not_here("there is no Go".into(), &own) };
    if !go.is_as_new_as(&module.go) && !go.may_fetch_a_newer() {
        let why = format!("it needs Go {}, while this is {} and GOTOOLCHAIN is local", module.go, go.version());
        return not_here(why, "install a newer Go, or let it fetch one: GOTOOLCHAIN=auto");
    }
    if component.needs_c() && go.c_compiler().is_none() {
        return not_here("there is no C compiler".into(), "install one (Debian: apt-get install gcc libc6-dev)");
    }
    if !go.may_download() {
        return not_here("GOPROXY is off".into(), "set GOPROXY to a module proxy, unless Go's cache has the modules");
    }
    if let Some(free) = free_space(go.build_cache()).filter(|free| *free < DISK_FLOOR) {
        let why = format!("{} has {} MB left, of some {}", go.build_cache(), free >> 20, DISK_FLOOR >> 20);
        return not_here(why, "make room, or set GOCACHE and GOMODCACHE to directories on another disk");
    }
    Check::ok(title, "not built yet, built on first use, in minutes")
}

/// Bytes that may be written where this directory is, or will be.
fn free_space(dir: &Utf8Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let disk = rustix::fs::statvfs(there.as_std_path()).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

impl Check {
    fn warn(name: impl Into<String>, found: impl ToString, hint: impl Into<String>) -> Self {
        Self { status: Status::Warn, ..Self::missing(name, found, hint) }
    }
}
