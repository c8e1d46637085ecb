//! One proxy's container: made once, then started as often as the proxy is.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::docker::call;
use super::{Docker, EnvoyImage};
use crate::fleet::FleetError;
use crate::fleet::call::CallError;
use crate::proc::{Guard, Spawn};
use crate::timeline::{CellId, ProxyId};

const TO_ANSWER: Duration = Duration::from_secs(60);

/// What the containers of a cell are made of.
#[derive(Debug, Clone)]
pub struct Vessel {
    /// Who makes them.
    pub docker: Docker,
    /// The image.
    pub image: EnvoyImage,
    /// Whose they are.
    pub cell: CellId,
}

/// What a container sees of this machine, and where; it can't write there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: Utf8PathBuf,
    pub(crate) target: Utf8PathBuf,
}

impl Mount {
    /// Under the same path.
    pub(crate) fn same(path: impl Into<Utf8PathBuf>) -> Self {
        let source = path.into();
        Self { target: source.clone(), source }
    }

    /// A line of comma-separated values, of which a path may hold a comma, as `--mount` takes it.
    fn argument(&self) -> String {
        let quoted = |name: &str, path: &Utf8Path| format!("\"{name}={}\"", path.as_str().replace('"', "\"\""));
        format!("type=bind,{},{},readonly", quoted("source", &self.source), quoted("target", &self.target))
    }
}

/// One proxy's container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    name: String,
    create: Vec<String>,
    /// Its output goes to the proxy's log, that of Docker's program at the end too.
    spawn: Spawn,
}

impl Container {
    /// One that is to run this process of the image's, which sees these places.
    pub(crate) fn of(vessel: &Vessel, id: &ProxyId, process: &Spawn, mounts: &[Mount]) -> Self {
        let Vessel { docker, image, cell } = vessel;
        // Another cell of the run has proxies of the same names.
        let name = format!("rotacheck-{}-{}-{id}", docker.run, cell.as_str().replace(['@', '+'], "-"));
        let user = format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mut create = vec!["create".to_owned(), "--name".to_owned(), name.clone()];
        create.extend(docker.labels(Some(cell.as_str())));
        // Ports are those of a local process: on loopback, as the bootstrap has them, and nowhere else. As this user it
        // reads what is private to the run; nothing else of what root may is needed. A policy that labels files would
        // keep it from the mounts. What it prints is read as it is printed, and kept once.
        let fixed = "--network host --restart no --pull never --log-driver none --cap-drop ALL \
                     --security-opt no-new-privileges --security-opt label=disable --user";
        create.extend(fixed.split(' ').map(str::to_owned));
        create.push(user);
        create.extend(process.env.iter().flat_map(|(name, value)| ["--env".to_owned(), format!("{name}={value}")]));
        create.extend(mounts.iter().flat_map(|mount| ["--mount".to_owned(), mount.argument()]));
        create.extend(["--entrypoint".to_owned(), process.program.to_string(), image.id.clone()]);
        create.extend(process.args.iter().cloned());
        let spawn = Spawn {
            what: process.what.clone(),
            program: docker.program.clone(),
            args: ["start", "--attach", &name].map(str::to_owned).to_vec(),
            env: docker.environment.clone(),
            cwd: None,
            log: process.log.clone(),
        };
        Self { name, create, spawn }
    }

    /// What starts it, and ends when it does, with its code.
    pub(crate) fn spawn(&self) -> Spawn {
        self.spawn.clone()
    }

    /// Makes it. The guard knows of it before it exists, and takes it away at the end.
    pub(crate) async fn make(&self, id: &ProxyId, guard: &Guard) -> Result<(), FleetError> {
        let removal = Spawn {
            what: format!("the container {}", self.name),
            args: ["rm", "--force", "--volumes", &self.name].map(str::to_owned).to_vec(),
            log: self.spawn.log.with_file_name("docker.log"),
            ..self.spawn.clone()
        };
        let noted = guard.at_end(removal).await;
        noted.map_err(|source| FleetError::Spawn { id: id.clone(), source })?;
        let create: Vec<&str> = self.create.iter().map(String::as_str).collect();
        self.call("make", &create).await.map(|_| ())
    }

    /// Its process, as this machine numbers it; `None` while it has none.
    pub(crate) async fn pid(&self) -> Result<Option<i32>, FleetError> {
        let told = self.call("look at", &["inspect", "--format", "{{.State.Pid}}", &self.name]).await?;
        Ok(told.trim().parse().ok().filter(|pid| *pid > 0))
    }

    /// Ends it at once.
    pub(crate) async fn kill(&self) -> Result<(), FleetError> {
        self.call("kill", &["kill", &self.name]).await.map(|_| ())
    }

    async fn call(&self, doing: &str, args: &[&str]) -> Result<String, FleetError> {
        let called: Result<String, CallError> =
            call(&format!("{doing} the container {}", self.name), TO_ANSWER, args).await;
        called.map_err(FleetError::Container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(mounts: &[Mount]) -> Container {
        let docker = Docker { program: "/usr/bin/docker".into(), environment: Vec::new(), run: "7-00ab".into() };
        let image = EnvoyImage {
            reference: "envoyproxy/envoy:v1.38.3".parse().unwrap(),
            version: "1.38.3".parse().unwrap(),
            digest: "sha256:2".into(),
            id: "sha256:1".into(),
        };
        let cell = CellId::parse("rotation@envoy-1.38.3+container").unwrap();
        let process = Spawn {
            what: "envoy proxy-a".into(),
            program: super::super::ENVOY.into(),
            args: vec!["--config-path".into(), "/r/bootstrap.json".into()],
            env: vec![("TZ".into(), "UTC0".into())],
            cwd: None,
            log: "/r/envoy.log".into(),
        };
        Container::of(&Vessel { docker, image, cell }, &ProxyId::parse("proxy-a").unwrap(), &process, mounts)
    }

    #[test]
    fn a_container_is_of_the_measured_image_labelled_and_starts_by_nobody_elses_doing() {
        let container = container(&[Mount::same("/r")]);
        let words = container.create.join(" ");
        for part in [
            "create --name rotacheck-7-00ab-rotation-envoy-1.38.3-container-proxy-a --label rotacheck.dev/run=7-00ab",
            "--label rotacheck.dev/cell=rotation@envoy-1.38.3+container",
            "--restart no",
            "--env TZ=UTC0",
            "--mount type=bind,\"source=/r\",\"target=/r\",readonly",
        ] {
            assert!(words.contains(part), "{words}");
        }
        assert!(
            words.ends_with("--entrypoint /usr/local/bin/envoy sha256:1 --config-path /r/bootstrap.json"),
            "{words}"
        );
        let spawn = container.spawn();
        assert_eq!((spawn.args[2].as_str(), spawn.log.as_str()), (container.name.as_str(), "/r/envoy.log"));
    }

    #[test]
    fn a_path_with_commas_and_quotes_is_one_path() {
        let mount = Mount { source: "/a,b\"c".into(), target: "/d".into() };
        assert_eq!(mount.argument(), "type=bind,\"source=/a,b\"\"c\",\"target=/d\",readonly");
    }
}
