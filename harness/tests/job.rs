//! A plan in the pods of a Job, in a kind cluster that is made and deleted here but is nobody's in the eyes of rotacheck; and
//! what killed runs leave in such a cluster. Docker, kind and istioctl are needed, and images: this is run by its name,
//! `cargo test --features kubernetes --test job -- --ignored`. Beside what the tests in `kind.rs` read, ROTACHECK_TEST_JOB_IMAGE
//! names the image that `ci/image/build-job` makes.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod account;
mod place;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use account::Admin;
use camino::{Utf8Path, Utf8PathBuf};
use place::{Ended, Going, Place, until};
use rotacheck::clock::Deadline;
use rotacheck::cluster::{Cluster, PodSeen};
use rustix::process::Signal;
use serde_json::Value;

const GUIDE: &str = include_str!("../../docs/guide/in-ci.md");
const NAMES: [&str; 8] = [
    "ROTACHECK_ISTIO_HUB",
    "ROTACHECK_ISTIO_TAG",
    "ROTACHECK_ISTIO_MANIFESTS",
    "ROTACHECK_RELAY_IMAGE",
    "PATH",
    "HOME",
    "DOCKER_HOST",
    "ROTACHECK_CACHE",
];
const SELECTED: [&str; 6] = ["rotation", "incident", "never-renews", "issues-never-pushes", "--envoy", "1.38.3"];

/// In real time each of these takes seconds, in which its pod can be taken away; the others take little more than a blink.
const LASTING: [&str; 10] = [
    "rotation",
    "rotation-serials",
    "never-renews",
    "issues-never-pushes",
    "--envoy",
    "1.38.3",
    "--clock",
    "real",
    "--ttl",
    "10s",
];

/// A kind cluster, deleted when it is dropped.
struct Stays {
    name: String,
    place: Place,
}

impl Stays {
    fn make() -> Self {
        let stays = Self { name: format!("stays-{}", std::process::id()), place: Place::new() };
        let mut args = vec!["create", "cluster", "--name", &stays.name, "--wait", "120s", "--kubeconfig"];
        let kubeconfig = stays.kubeconfig();
        args.push(kubeconfig.as_str());
        let image = std::env::var("ROTACHECK_NODE_IMAGE").ok();
        if let Some(image) = &image {
            args.extend(["--image", image]);
        }
        stays.kind(&args);
        stays.kind(&["load", "docker-image", &job_image(), "--name", &stays.name]);
        stays
    }

    fn kubeconfig(&self) -> Utf8PathBuf {
        self.place.root.join("kubeconfig")
    }

    fn kind(&self, args: &[&str]) {
        let output = Command::new("kind").args(args).output().unwrap();
        assert!(output.status.success(), "kind {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn rotacheck(&self, args: &[&str]) -> Going {
        self.rotacheck_as(&self.kubeconfig(), args)
    }

    fn rotacheck_as(&self, kubeconfig: &Utf8Path, args: &[&str]) -> Going {
        let mut command = self.place.rotacheck(args);
        command.envs(NAMES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("KUBECONFIG", kubeconfig);
        Going::start(command)
    }

    fn job(&self, selected: &[&str], report: &Utf8Path) -> Going {
        self.job_as(&self.kubeconfig(), selected, report)
    }

    fn job_as(&self, kubeconfig: &Utf8Path, selected: &[&str], report: &Utf8Path) -> Going {
        let (report, image) = (format!("json={report}"), job_image());
        let on = ["--on", "kubernetes", "--job-image", &image, "--shards", "4", "--offline", "--report", &report];
        self.rotacheck_as(kubeconfig, &[&["run"], selected, &on].concat())
    }

    /// Awaits that the pods are so.
    fn pods(&self, what: &str, mut so: impl FnMut(&BTreeMap<String, PodSeen>) -> bool) -> BTreeMap<String, PodSeen> {
        self.on_cluster(async |cluster| {
            let mut watch = cluster.watch_pods("default", "batch.kubernetes.io/job-name");
            let pods = watch.until(Deadline::after(Duration::from_secs(120)), &mut so).await.unwrap();
            pods.unwrap_or_else(|| panic!("in vain: {what}: {:?}", watch.known()))
        })
    }

    fn on_cluster<T>(&self, work: impl AsyncFnOnce(&Cluster) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { work(&Cluster::of_file(&self.kubeconfig()).await.unwrap()).await })
    }

    /// What is left in this cluster, and with `--yes` was.
    fn sweep(&self, args: &[&str]) -> Vec<String> {
        let ended: Ended = self.rotacheck(&[&["sweep"], args].concat()).ended();
        let here = format!(" in the cluster {}", self.name);
        ended.stdout.lines().filter_map(|line| Some(line.strip_suffix(&here)?.to_owned())).collect()
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        let kubeconfig = self.kubeconfig();
        let args = ["delete", "cluster", "--name", &self.name, "--kubeconfig", kubeconfig.as_str()];
        let _ = Command::new("kind").args(args).output();
    }
}

fn job_image() -> String {
    std::env::var("ROTACHECK_TEST_JOB_IMAGE").unwrap_or_else(|_| "rotacheck-envoys:test".to_owned())
}

/// Cell to verdict, layer and diagnosis.
fn verdicts(report: &Utf8Path) -> BTreeMap<String, String> {
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let verdict = |c: &Value| format!("{} {} {}", c["verdict"], c["layer"], c["diagnosis"]);
    let cells = report["cells"].as_array().unwrap().iter();
    cells.map(|c| (c["id"].as_str().unwrap().to_owned(), verdict(c))).collect()
}

#[test]
#[ignore = "needs Docker, kind, istioctl and images"]
fn in_a_cluster_that_stays_a_job_says_what_one_machine_says_and_what_killed_runs_left_is_swept() {
    let stays = Stays::make();
    a_job_of_four_pods_says_what_one_local_run_says(&stays);
    who_may_not_is_told_all_that_he_lacks_and_nothing_is_made(&stays);
    a_part_whose_pod_is_taken_away_is_lost_and_not_run(&stays);
    an_image_without_the_envoy_is_told(&stays);
    a_job_and_a_namespace_of_killed_harnesses_are_found_and_deleted(&stays);
}

fn a_job_of_four_pods_says_what_one_local_run_says(stays: &Stays) {
    let [local, job] = ["local.json", "job.json"].map(|name| stays.place.root.join(name));
    let report = format!("json={local}");
    stays.rotacheck(&[&["run"], &SELECTED[..], &["--offline", "--report", &report]].concat()).ended().with(0, &[]);
    // As one who may do what the guide says, and nothing else.
    let account = Admin::of(&stays.name).account(&stays.place, GUIDE, "default", &["rotacheck-run"]);
    stays.job_as(&account, &SELECTED, &job).ended().with(0, &["part 1/4 is here", "part 4/4 is here", "4 cells"]);
    assert_eq!(verdicts(&local).len(), 4);
    assert_eq!(verdicts(&job), verdicts(&local));
    // The evidence came along: what is joined can be judged again.
    let again = stays.place.root.join("again.json");
    let latest = stays.place.latest().unwrap();
    let report = format!("json={again}");
    stays.rotacheck(&["judge", latest.as_str(), "--report", &report]).ended().with(0, &[]);
    assert_eq!(verdicts(&again), verdicts(&local));
    stays.pods("the pods to be gone", BTreeMap::is_empty);
}

fn who_may_not_is_told_all_that_he_lacks_and_nothing_is_made(stays: &Stays) {
    let guide = include_str!("../../docs/guide/in-your-cluster.md");
    let account = Admin::of(&stays.name).account(&stays.place, guide, "default", &["rotacheck-diagnose"]);
    let lacks = "may not, in the namespace default: create jobs.batch, delete jobs.batch, watch pods, list events";
    stays.job_as(&account, &SELECTED, &stays.place.root.join("none.json")).ended().with(5, &[lacks]);
    stays.pods("no pods", BTreeMap::is_empty);
}

fn a_part_whose_pod_is_taken_away_is_lost_and_not_run(stays: &Stays) {
    let report = stays.place.root.join("lost.json");
    let going = stays.job(&LASTING, &report);
    let is_second = |name: &String| name.rsplit('-').nth(1) == Some("1");
    let runs = |pod: &PodSeen| pod.containers.values().any(|container| container.running);
    let pods = stays.pods("the second pod", |pods| pods.iter().any(|(name, pod)| is_second(name) && runs(pod)));
    let pod = pods.keys().find(|name| is_second(name)).unwrap();
    stays.on_cluster(async |cluster| cluster.delete_pod("default", pod).await.unwrap());
    going.ended().with(5, &["part 2/4 is lost: its pod was taken away", "no run of the part 2/4 was given"]);
    let verdicts = verdicts(&report);
    let lost: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict.starts_with("\"not_run\"")).collect();
    assert_eq!((verdicts.len(), lost.len()), (4, 1), "{verdicts:?}");
}

fn an_image_without_the_envoy_is_told(stays: &Stays) {
    let args = ["--on", "kubernetes", "--shards", "1", "--job-image"];
    let run = |envoy: &str| {
        let image = job_image();
        stays.rotacheck(&[&["run", "rotation", "--envoy", envoy, "--offline"], &args[..], &[&image]].concat()).ended()
    };
    // Its cache has another one: what its log says is told here.
    run("1.37.0").with(5, &["part 1/1 is lost: its run made nothing", "1.37.0", "no part of the plan came back"]);
    stays.pods("the pods to be gone", BTreeMap::is_empty);
}

fn a_job_and_a_namespace_of_killed_harnesses_are_found_and_deleted(stays: &Stays) {
    let going = stays.job(&LASTING, &stays.place.root.join("killed.json"));
    stays.pods("a pod", |pods| !pods.is_empty());
    // As long as a harness runs, what it made is nobody else's affair.
    assert_eq!(stays.sweep(&["--yes"]), [""; 0]);
    going.kill(Signal::KILL);
    going.ended();
    let kind = ["run", "rotation", "--topology", "kind", "--cluster", &stays.name, "--keep"];
    let mut going = stays.rotacheck(&kind);
    going.says("is kept");
    going.kill(Signal::KILL);
    going.ended();
    let left = stays.sweep(&[]);
    let is = |kind: &str| left.iter().filter(|what| what.starts_with(kind)).count();
    assert_eq!((is("Job default/rotacheck-"), is("Namespace rotacheck-rotation-"), left.len()), (1, 1, 2), "{left:?}");
    assert_eq!(stays.sweep(&["--yes"]), left.iter().map(|what| format!("deleted the {what}")).collect::<Vec<_>>());
    until("all of it to be gone", || stays.sweep(&[]).is_empty());
    stays.pods("the pods to be gone", BTreeMap::is_empty);
}
