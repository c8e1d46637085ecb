//! Docker on this machine, and the images that it has or gets.

use std::time::Duration;

use camino::Utf8PathBuf;

use super::{ContainerError, ENVOY};
use crate::artifact::version_told;
use crate::fleet::call::{Call, CallError};
use crate::fleet::owner;
use crate::timeline::{EnvoyRequest, EnvoyVersion, ImageReference};

/// How long Docker may take to answer, and for an image.
const TO_ANSWER: Duration = Duration::from_secs(60);
const TO_PULL: Duration = Duration::from_secs(600);
/// What the program reads of its user's environment.
const ENVIRONMENT: [&str; 9] = [
    "PATH",
    "HOME",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "XDG_RUNTIME_DIR",
];

/// Docker on this machine, for one run.
#[derive(Debug, Clone)]
pub struct Docker {
    /// The program, for the guard, which searches for nothing.
    pub(super) program: Utf8PathBuf,
    pub(super) environment: Vec<(String, String)>,
    /// What is made is labelled with this.
    pub(super) run: String,
}

/// The Envoy of an image, measured.
#[derive(Debug, Clone)]
pub struct EnvoyImage {
    /// Its name.
    pub reference: ImageReference,
    /// The version, as it says itself.
    pub version: EnvoyVersion,
    /// What the name stood for: the digest of its manifest; of an image that was made here, that of its configuration.
    pub digest: String,
    /// What containers are made of: the name may stand for something else by then.
    pub id: String,
}

impl Docker {
    /// Finds Docker, and sees that its containers can be in this machine's network.
    pub async fn find() -> Result<Self, ContainerError> {
        let system = call("ask Docker", TO_ANSWER, &["info", "--format", "{{.OSType}}\t{{.OperatingSystem}}"]).await?;
        match system.trim().split_once('\t') {
            Some(("linux", name)) if !name.contains("Docker Desktop") => {}
            Some((_, name)) => return Err(ContainerError::Elsewhere { system: name.to_owned() }),
            None => return Err(ContainerError::Elsewhere { system: system.trim().to_owned() }),
        }
        let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let program = on_path("docker").ok_or_else(|| CallError::Start {
            what: "ask Docker".into(),
            program: "docker",
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        Ok(Self { program, environment: ENVIRONMENT.into_iter().filter_map(variable).collect(), run: owner::run() })
    }

    /// The image that is meant: of a version, that of Envoy's makers. `None` for an executable of this machine.
    pub fn image_of(envoy: &EnvoyRequest) -> Option<ImageReference> {
        match envoy {
            EnvoyRequest::Version(version) => format!("envoyproxy/envoy:v{version}").parse().ok(),
            EnvoyRequest::Image(image) => Some(image.clone()),
            EnvoyRequest::Path(_) => None,
        }
    }

    /// The Envoy of an image, which is pulled if it is not here and `pull` allows it. `talk` hears of that.
    pub async fn envoy(
        &self,
        reference: ImageReference,
        pull: bool,
        talk: &dyn Fn(&str),
    ) -> Result<EnvoyImage, ContainerError> {
        let name = reference.to_string();
        let inspected = match inspect(&name).await? {
            Some(inspected) => inspected,
            None if !pull => return Err(ContainerError::Absent(reference)),
            None => {
                talk(&format!("pulling {name}"));
                let pulled = call(&format!("pull {name}"), TO_PULL, &["pull", "--quiet", &name]).await;
                match pulled {
                    Err(why) => return Err(ContainerError::Pull { image: reference, why }),
                    Ok(_) => inspect(&name).await?.ok_or_else(|| ContainerError::Absent(reference.clone()))?,
                }
            }
        };
        let (id, digest) = inspected;
        talk(&format!("looking which Envoy {name} has"));
        let container = format!("rotacheck-{}-measure", self.run);
        let mut args = self.labels(None);
        args.extend(["--network", "none", "--pull", "never", "--name", &container].map(str::to_owned));
        args.extend(["--entrypoint", ENVOY, &id, "--version"].map(str::to_owned));
        args.splice(0..0, ["run", "--rm"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let unmeasured = |why: String| ContainerError::Unmeasured { image: reference.clone(), why };
        let said = call("ask its Envoy", TO_ANSWER, &args).await.map_err(|e| unmeasured(e.to_string()))?;
        let version = version_told(&said).ok_or_else(|| unmeasured(format!("its program says {:?}", said.trim())))?;
        Ok(EnvoyImage { reference, version, digest, id })
    }

    /// The labels of a container.
    pub(super) fn labels(&self, cell: Option<&str>) -> Vec<String> {
        let labels = [(owner::RUN, Some(self.run.clone())), (owner::MACHINE, Some(owner::machine()))];
        let labels = labels.into_iter().chain([(owner::CELL, cell.map(str::to_owned))]);
        labels
            .filter_map(|(name, value)| Some(["--label".to_owned(), format!("{name}={}", value?)]))
            .flatten()
            .collect()
    }
}

pub(super) async fn call(what: &str, patience: Duration, args: &[&str]) -> Result<String, CallError> {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Call { what: what.to_owned(), program: "docker", args, kubeconfig: None, patience }.run().await
}

/// Id and digest of an image that is here.
async fn inspect(name: &str) -> Result<Option<(String, String)>, ContainerError> {
    let format = "{{.Id}}{{range .RepoDigests}}\t{{.}}{{end}}";
    let what = format!("look for the image {name}");
    match call(&what, TO_ANSWER, &["image", "inspect", "--format", format, name]).await {
        Err(CallError::Failed { said, .. }) if said.to_lowercase().contains("no such image") => Ok(None),
        asked => Ok(Some(identity(asked?.trim()))),
    }
}

fn identity(told: &str) -> (String, String) {
    let (id, digests) = told.split_once('\t').unwrap_or((told, ""));
    let digest = digests.split('\t').find_map(|digest| digest.split_once('@')).map_or(id, |(_, digest)| digest);
    (id.to_owned(), digest.to_owned())
}

/// The first executable of this name on the PATH.
fn on_path(name: &str) -> Option<Utf8PathBuf> {
    let path = std::env::var_os("PATH")?;
    let executable = |path: &Utf8PathBuf| {
        path.is_file() && rustix::fs::access(path.as_std_path(), rustix::fs::Access::EXEC_OK).is_ok()
    };
    let candidates = std::env::split_paths(&path).filter_map(|dir| Utf8PathBuf::from_path_buf(dir.join(name)).ok());
    candidates.filter_map(|path| camino::absolute_utf8(path).ok()).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_image_of_its_makers_and_a_path_is_none() {
        let image = |text: &str| Docker::image_of(&text.parse().unwrap()).map(|image| image.to_string());
        assert_eq!(image("1.38.3").as_deref(), Some("docker.io/envoyproxy/envoy:v1.38.3"));
        assert_eq!(image("image=istio/proxyv2:1.29.0").as_deref(), Some("docker.io/istio/proxyv2:1.29.0"));
        assert_eq!(image("path=/usr/bin/envoy"), None);
    }

    #[test]
    fn an_image_is_known_by_its_manifest_and_one_made_here_by_its_configuration() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(identity("sha256:1\tdocker.io/x/y@sha256:2\tz@sha256:3"), pair("sha256:1", "sha256:2"));
        assert_eq!(identity("sha256:1"), pair("sha256:1", "sha256:1"));
        assert_eq!(identity(""), pair("", ""));
    }

    #[test]
    fn programs_are_found_along_the_path() {
        assert!(on_path("sh").unwrap().is_absolute());
        assert_eq!(on_path("rotacheck-no-such-program"), None);
    }
}
