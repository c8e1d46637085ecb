//! The record beside a program in the cache: what it was built from, and which bytes came of it.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::cache::make_permanent;
use super::store::verify;
use super::{ArtifactError, Digest, LockedModule, ModuleSum, Program};
use crate::timeline::ProgramVersion;

const FILE_NAME: &str = "record.json";
/// The name of a module's file in the cache, whatever it is called in the module.
pub(super) const TEMPLATE: &str = "envoy_bootstrap.json";

/// What is known of a program that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    package: String,
    version: ProgramVersion,
    sum: ModuleSum,
    mod_sum: ModuleSum,
    /// Version of the compiler.
    go: String,
    /// SHA-256 of the executable.
    pub(super) sha256: Digest,
    /// SHA-256 of the bootstrap template, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template_sha256: Option<Digest>,
}

impl Record {
    pub(super) fn new(
        program: Program,
        module: &LockedModule,
        go: String,
        sha256: Digest,
        template_sha256: Option<Digest>,
    ) -> Self {
        let LockedModule { version, sum, mod_sum, .. } = module.clone();
        Self { package: program.package(), version, sum, mod_sum, go, sha256, template_sha256 }
    }

    pub(super) fn write(&self, dir: &Utf8Path) -> Result<(), ArtifactError> {
        let path = dir.join(FILE_NAME);
        let text = serde_json::to_string_pretty(self).expect("plain texts");
        fs::write(&path, text + "\n").map_err(|e| ArtifactError::io("written", &path, e))?;
        make_permanent(&path)
    }

    /// The record in `dir`, of a program of this module.
    pub(super) fn read(dir: &Utf8Path, program: Program, module: &LockedModule) -> Result<Self, ArtifactError> {
        let path = dir.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|e| ArtifactError::io("read", &path, e))?;
        let bad = |why: String| ArtifactError::BadRecord { path: path.clone(), why };
        let record: Self = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let same = (&record.version, &record.sum, &record.mod_sum) == (&module.version, &module.sum, &module.mod_sum);
        if same && record.package == program.package() {
            Ok(record)
        } else {
            Err(bad("it is of something else".into()))
        }
    }

    /// Computes the digests of what lies in `dir`, and gives the path of the template, if there is one.
    pub(super) async fn verify(&self, dir: &Utf8Path, program: Program) -> Result<Option<Utf8PathBuf>, ArtifactError> {
        verify(&dir.join(program.name()), &self.sha256).await?;
        let Some(digest) = &self.template_sha256 else { return Ok(None) };
        let template = dir.join(TEMPLATE);
        verify(&template, digest).await?;
        Ok(Some(template))
    }
}
