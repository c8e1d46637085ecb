//! The part of a command line that says on which machines a plan is run, and what is done there.

use camino::{Utf8Path, Utf8PathBuf};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _};

use super::merge::join;
use super::stderr::say;
use super::{Cli, CliError, Exit};
use crate::archive::Archive;
use crate::cluster::{Cluster, ClusterError};
use crate::fleet::{RUN, run_labels};
use crate::plan::{Plan, Shard};
use crate::report::ReportSpec;
use crate::run::{Part, Parts, RIGHTS, Stop, delete_parts, run_parts};

const HEADING: &str = "On other machines";

/// On which machines.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OnArgs {
    /// Where the plan is run. `kubernetes`: as an Indexed Job in an existing cluster, a part of the plan in each pod; the run
    /// directories are collected and joined here, and a part that got lost is not run, visibly.
    #[arg(long, value_enum, value_name = "WHERE", help_heading = HEADING, requires = "job_image",
        conflicts_with_all = ["shard", "require_controls", "keep", "lock", "directory", "socket"])]
    on: Option<OnArg>,
    /// The context of the kubeconfig whose cluster it is [default: the current one].
    #[arg(long, value_name = "CONTEXT", requires = "on", help_heading = HEADING)]
    context: Option<String>,
    /// The namespace of the Job; it has to be there.
    #[arg(short, long, value_name = "NAMESPACE", requires = "on", default_value = "default", help_heading = HEADING)]
    namespace: String,
    /// The image of the Job's pods: rotacheck on its PATH, and the Envoys that are to be run, or what fetches them.
    #[arg(long, value_name = "IMAGE", requires = "on", help_heading = HEADING)]
    job_image: Option<String>,
    /// Parts that the plan is dealt out into, a pod each; never more than it has cells.
    #[arg(long, value_name = "N", requires = "on", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(Shard::MOST)), help_heading = HEADING)]
    shards: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnArg {
    /// An existing Kubernetes cluster.
    Kubernetes,
}

/// Options that are about this machine, or say where the others are: no pod is told them.
const HERE: [&str; 7] = ["on", "context", "namespace", "job_image", "shards", "reports", "runs"];

impl OnArgs {
    /// Whether the plan is to be run on other machines.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.on.is_some()
    }

    /// Runs the plan there, joins what comes back under `base`, and reports it.
    pub(super) async fn carry_out(
        &self,
        plan: &Plan,
        base: &Utf8Path,
        reports: &[ReportSpec],
        stop: &Stop,
    ) -> Result<Exit, CliError> {
        let words = words(&Cli::command().get_matches())?;
        for cell in &plan.cells {
            let kind = cell.scenario.fleet.kind;
            if kind.is_cluster() || kind.is_container() {
                let hint = "leave out --topology: in a pod, proxies are processes";
                return Err(CliError::with_hint(
                    Exit::Usage,
                    "a pod of a Job has no Docker, and makes no cluster",
                    hint,
                ));
            }
        }
        stop.on_signals().map_err(CliError::cannot_listen)?;
        let unable = |e: ClusterError| CliError::with_hint(Exit::CouldNotTell, format!("cannot {e}"), e.hint());
        let cluster = Cluster::of_context(self.context.as_deref()).await.map_err(unable)?;
        let labels = run_labels();
        let cells = u32::try_from(plan.cells.len()).unwrap_or(u32::MAX);
        let parts = Parts {
            namespace: self.namespace.clone(),
            name: format!("rotacheck-{}", labels[RUN]),
            labels,
            image: self.job_image.clone().unwrap_or_default(),
            of: self.shards.min(cells),
            words,
        };
        let lacking = cluster.lacking(&self.namespace, &RIGHTS).await;
        if !lacking.is_empty() {
            let (namespace, context) = (&self.namespace, cluster.context());
            let what = format!("the user of {context} may not, in the namespace {namespace}: {}", lacking.join(", "));
            let hint = "docs/guide/in-ci.md has the Role with all that is needed";
            return Err(CliError::with_hint(Exit::CouldNotTell, what, hint));
        }
        let scratch =
            tempfile::tempdir().map_err(|e| CliError::new(Exit::CouldNotTell, format!("cannot collect: {e}")))?;
        let into = Utf8PathBuf::from(scratch.path().to_string_lossy().as_ref());
        say(format_args!(
            "{cells} cells in {} parts, in the Job {}/{} of {}",
            parts.of,
            parts.namespace,
            parts.name,
            cluster.context()
        ));
        let told = |part: u32, what: &str| say(format_args!("part {part}/{} {what}", parts.of));
        let done = tokio::select! {
            biased;
            () = stop.requested() => None,
            done = run_parts(&cluster, &parts, &into, &told) => Some(done),
        };
        // Whatever it came to, nothing of it stays in the cluster.
        let deleted = delete_parts(&cluster, &parts).await;
        let Some(done) = done else {
            deleted.map_err(unable)?;
            return Ok(Exit::Interrupted);
        };
        let done = done.map_err(unable)?;
        deleted.map_err(unable)?;
        let here = done.iter().filter_map(|part| match part {
            Part::Here { directory, .. } => Some(Archive::open(directory)),
            Part::Lost { .. } => None,
        });
        let runs = here.collect::<Result<Vec<_>, _>>().map_err(|e| CliError::archive(&e))?;
        if runs.is_empty() {
            let hint = "docs/guide/in-ci.md says what the image of the Job has to hold";
            return Err(CliError::with_hint(Exit::CouldNotTell, "no part of the plan came back", hint));
        }
        let exit = join(&runs, base, reports)?;
        // A pod that found a bug of ours says so in its exit code only.
        let bug = done.iter().any(|part| matches!(part, Part::Here { code, .. } if *code == Exit::Bug as u8));
        Ok(if bug { Exit::Bug } else { exit })
    }
}

/// What was typed behind `rotacheck run`, as far as it is for whoever runs a part.
fn words(matches: &ArgMatches) -> Result<Vec<String>, CliError> {
    let command = Cli::command();
    let (Some(("run", matches)), Some(command)) = (matches.subcommand(), command.find_subcommand("run")) else {
        return Err(CliError::new(Exit::Bug, "cannot find what was typed"));
    };
    let (mut options, mut plain) = (Vec::new(), Vec::new());
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        if HERE.contains(&id) || matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let values = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        match argument.get_long() {
            Some(long) if argument.get_action().takes_values() => {
                options.extend(values.map(|value| format!("--{long}={value}")));
            }
            Some(long) => options.push(format!("--{long}")),
            None => plain.extend(values),
        }
    }
    if let Some(file) =
        plain.iter().find(|word| word.contains('/') || word.ends_with(".yaml") || word.ends_with(".yml"))
    {
        let hint = "put it into the image, in `scenarios/` of its working directory, and name the scenario";
        return Err(CliError::with_hint(Exit::Usage, format!("{file} is a file of this machine, and of no pod"), hint));
    }
    options.push("--".to_owned());
    options.extend(plain);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Vec<String>, CliError> {
        words(&Cli::command().try_get_matches_from(line.split(' ')).unwrap())
    }

    #[test]
    fn pods_are_told_what_is_to_be_run_and_not_where() {
        let line = "rotacheck run rotation -j2 incident --envoy 1.38.3 --envoy 1.39.3 --on kubernetes --context c -n ns \
                    --job-image i:1 --shards 3 --provider fake,files --ttl 20s --offline --report json=x --runs /r";
        assert_eq!(
            typed(line).unwrap().join(" "),
            "--envoy=1.38.3 --envoy=1.39.3 --provider=fake --provider=files --ttl=20s --jobs=2 --offline -- rotation incident"
        );
        assert_eq!(typed("rotacheck run --on kubernetes --job-image i:1").unwrap(), ["--"]);
        assert!(typed("rotacheck run ./mine.yaml --on kubernetes --job-image i:1").is_err());
    }

    #[test]
    fn a_job_needs_an_image_and_what_belongs_to_one_machine_is_refused() {
        let refused = |line: &str| Cli::command().try_get_matches_from(line.split(' ')).unwrap_err().to_string();
        assert!(refused("rotacheck run --on kubernetes").contains("--job-image"));
        for option in ["--shard 1/2", "--keep", "--require-controls", "--lock x", "--scenarios x"] {
            let e = refused(&format!("rotacheck run --on kubernetes --job-image i:1 {option}"));
            assert!(e.contains("cannot be used with"), "{e}");
        }
    }
}
