//! Proxies as pods of a real kind cluster, which is made and deleted here. Docker, kind and istioctl are needed, and the relay's
//! image: this is run by its name, `cargo test --features kubernetes --test kind -- --ignored`. ROTACHECK_NODE_IMAGE,
//! ROTACHECK_ISTIO_HUB, ROTACHECK_ISTIO_TAG, ROTACHECK_ISTIO_MANIFESTS and ROTACHECK_SPIRE_IMAGE name images and charts other
//! than the public ones; ROTACHECK_TEST_TBOT_IMAGE one with a stand-in for tbot, as ci/test-cluster builds it.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod account;
mod hands;
mod onlooker;
mod place;

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use hands::Hands;
use onlooker::Onlooker;
use place::{Going, Place, observed, until};
use serde_json::{Value, json};

/// What names images and charts, for programs that are started with an environment of their own.
const NAMES: [&str; 9] = [
    "ROTACHECK_NODE_IMAGE",
    "ROTACHECK_ISTIO_HUB",
    "ROTACHECK_ISTIO_TAG",
    "ROTACHECK_ISTIO_MANIFESTS",
    "ROTACHECK_RELAY_IMAGE",
    "ROTACHECK_SPIRE_IMAGE",
    "PATH",
    "HOME",
    "DOCKER_HOST",
];

/// One at a time: each looks which clusters there are.
static GATE: Mutex<()> = Mutex::new(());

fn rotacheck(place: &Place, args: &[&str]) -> Command {
    let mut command = place.rotacheck(args);
    command.envs(NAMES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

fn clusters() -> Vec<String> {
    let listed = Command::new("kind").args(["get", "clusters"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cluster that goes with this.
struct Own(String);

impl Own {
    /// As a user has one already.
    fn make() -> Self {
        let own = Self(format!("rotacheck-{}-test", std::process::id()));
        let image = std::env::var("ROTACHECK_NODE_IMAGE").map(|image| ["--image".to_owned(), image]);
        let kubeconfig = std::env::temp_dir().join(&own.0);
        let mut create = Command::new("kind");
        create.args(["create", "cluster", "--wait", "120s", "--name", &own.0]).args(image.into_iter().flatten());
        let made = create.arg("--kubeconfig").arg(&kubeconfig).output().unwrap();
        let _ = std::fs::remove_file(&kubeconfig);
        assert!(made.status.success(), "{}", complaint(&made));
        own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let deleted = Command::new("kind").args(["delete", "cluster", "--name", &self.0]).output();
        assert!(deleted.is_ok_and(|output| output.status.success()) || std::thread::panicking(), "{} is left", self.0);
    }
}

/// No cluster that was made here is left.
fn assert_nothing_new_is_left(before: &[String]) {
    let new: Vec<_> = clusters().into_iter().filter(|name| !before.contains(name)).collect();
    assert!(!new.iter().any(|name| name.starts_with("rotacheck-")), "{new:?}");
}

/// All in one: to make a cluster takes longer than most that is done in it.
#[test]
#[ignore = "needs Docker, kind, istioctl and the relay's image"]
fn in_a_cluster_of_the_users_own_what_is_well_passes_what_is_wrong_is_caught_and_whoever_comes_or_looks_on_sees_it() {
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, before) = (Place::new(), clusters());
    let own = Own::make();
    a_rotation_passes_with_every_provider_and_what_is_wrong_is_caught_at_its_layer(&place, &own.0);
    who_comes_and_goes_meanwhile_is_judged_too(&place, &own.0);
    who_comes_later_is_served_by_whoever_issues_and_judged(&place, &own.0);
    who_only_looks_makes_nothing_and_who_may_do_more_names_the_incident_while_it_lasts(&place, &own.0);
    // It has to be the last: nothing comes up after it.
    certificates_that_istiod_does_not_renew_are_caught_where_the_agents_refuse(&place, &own.0);
    drop(own);
    assert_nothing_new_is_left(&before);
}

fn a_rotation_passes_with_every_provider_and_what_is_wrong_is_caught_at_its_layer(place: &Place, cluster: &str) {
    let report = place.root.join("report.json");
    let to = format!("json={report}");
    let scenarios = ["run", "rotation", "incident", "spire-entry-deleted", "--topology", "kind"];
    let further = ["--cluster", cluster, "--provider", "fake,istio-ca,spire", "--ttl", "20s", "--report", &to];
    let run = rotacheck(place, &[&scenarios[..], &further].concat()).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", complaint(&run));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let cell = |name: &str, provider: &str| {
        let is_it = |cell: &&Value| cell["scenario"] == name && cell["subject"]["provider"]["kind"] == provider;
        report["cells"].as_array().unwrap().iter().find(is_it).unwrap()
    };
    for (provider, clock) in [("fake", "virtual"), ("istio-ca", "real"), ("spire", "real")] {
        let rotation = cell("rotation", provider);
        assert_eq!((&rotation["verdict"], &rotation["clock"]), (&"pass".into(), &clock.into()), "{rotation}");
    }
    // Its server told it, or its image's tag.
    let version = cell("rotation", "spire")["subject"]["provider"]["version"].as_str().unwrap();
    assert!(version.starts_with("1."), "{version}");
    let deleted = cell("spire-entry-deleted", "spire");
    assert_eq!((&deleted["layer"], &deleted["diagnosis"]), (&"sent".into(), &"stream-refused".into()), "{deleted}");
    for provider in ["fake", "spire"] {
        let incident = cell("incident", provider);
        assert_eq!((&incident["layer"], &incident["diagnosis"]), (&"issued".into(), &"resend-cached".into()));
    }
    // Istio's CA can't be brought to it.
    assert_eq!(cell("incident", "istio-ca")["verdict"], "unsupported");
    let incident = cell("incident", "fake");
    // Its version was measured, and its time was moved.
    assert!(incident["subject"]["envoy"]["version"].as_str().unwrap().starts_with("1."), "{incident}");
    assert_eq!(incident["clock"], "virtual");
}

/// While a cell is observed, somebody scales Deployments up: with a relay of their own, without, and a gateway; one of them
/// down again; and deletes a pod, which comes again.
fn who_comes_and_goes_meanwhile_is_judged_too(place: &Place, cluster: &str) {
    let report = place.root.join("meanwhile.json");
    let to = format!("json={report}");
    let real = ["run", "rotation", "--topology", "kind", "--cluster", cluster, "--clock", "real", "--ttl", "16s"];
    let going = Going::start(rotacheck(place, &[&real[..], &["--report", &to]].concat()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let hands = Hands::of_the_cell_in(cluster).await;
        place.observes();
        let (own, other) = (hands.plain("proxy-a").await, hands.plain("proxy-b").await);
        let mut bare = own.clone();
        hands.copy_keys("other-keys").await;
        bare["spec"]["volumes"][0]["secret"]["secretName"] = "other-keys".into();
        let as_gateway = |pod: &Value| {
            let mut gateway = pod.clone();
            gateway["metadata"]["annotations"]["inject.istio.io/templates"] = "gateway,rotacheck-gateway".into();
            // Of the image "auto", Kubernetes would always ask a registry.
            let image = ("auto", "IfNotPresent");
            let proxy = json!({ "name": "istio-proxy", "image": image.0, "imagePullPolicy": image.1 });
            gateway["spec"]["containers"].as_array_mut().unwrap().insert(0, proxy);
            gateway
        };
        let (gate, porch) = (as_gateway(&own), as_gateway(&bare));
        for (name, pod) in [("led", &own), ("bare", &bare), ("brief", &bare), ("gate", &gate), ("porch", &porch)] {
            hands.deploy(name, pod).await;
            hands.scale(name, 1).await;
        }
        hands.replace("proxy-b", &other).await;
        hands.appears("brief").await;
        hands.scale("brief", 0).await;
    });
    let ended = going.ended();
    ended.with(0, &["rotation"]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let cell = &report["cells"][0];
    assert_eq!(cell["verdict"], "pass", "{cell}");
    let verdict: Value = serde_json::from_str(&place.of_the_cell("verdict.json")).unwrap();
    let proxies = verdict["verdict"]["proxies"].as_array().unwrap();
    let served = |name: &str| {
        let of = |p: &&Value| p["id"].as_str().unwrap().starts_with(name);
        proxies.iter().find(of).unwrap_or_else(|| panic!("no {name} in {proxies:#?}"))["generations_served"].as_u64()
    };
    for (name, least) in [("proxy-a", 3), ("proxy-b.2", 3), ("led-", 3), ("bare-", 3), ("gate-", 3), ("porch-", 3)] {
        assert!(served(name) >= Some(least), "{name}: {proxies:#?}");
    }
    // What they serve was looked at, of sidecars and gateways alike.
    let timeline = place.of_the_cell("timeline.ndjson");
    let shown = |name: &str| {
        let of = |line: &&str| line.contains("\"source\":\"inbound\"") && line.contains(&format!("\"proxy\":\"{name}"));
        timeline.lines().filter(of).any(|line| line.contains("\"chain\":[{"))
    };
    for name in ["led-", "bare-", "gate-", "porch-"] {
        assert!(shown(name), "nobody saw what {name} serves");
    }
    let said = verdict.to_string();
    for words in ["proxy-b.2 took its place", "no way leads to its outbound handshakes", "it vanished"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

/// Providers that see from which pod they are asked: a pod that nobody knew is served what is its own.
fn who_comes_later_is_served_by_whoever_issues_and_judged(place: &Place, cluster: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let socket = "/run/vendor/sds.sock";
    runtime.block_on(Hands::provide(cluster, socket));
    // A stand-in; the real tbot takes a Teleport cluster.
    let (tbot, token) = (std::env::var("ROTACHECK_TEST_TBOT_IMAGE").unwrap(), "a-join-token-nobody-shall-see");
    let tbot = ["--tbot-image", &tbot, "--tbot-proxy", "teleport.example.com:443", "--tbot-token", "env=JOIN_TOKEN"];
    let providers = "istio-ca,spire,external,tbot";
    let real = ["run", "rotation", "--topology", "kind", "--cluster", cluster, "--provider", providers, "--jobs", "4"];
    let further = ["--tbot-identity", "proxies", "--socket", socket, "--ttl", "20s"];
    let before = place.latest();
    let mut run = rotacheck(place, &[&real[..], &tbot, &further].concat());
    run.env("JOIN_TOKEN", token);
    let going = Going::start(run);
    until("the run begins", || place.latest() != before);
    // At once: a cell whose renewals have all come does not wait for one of which it does not know.
    let mut met = BTreeSet::new();
    until("each cell is observed, and somebody comes later", || {
        for cell in place.cells() {
            let Some(timeline) = (!met.contains(&cell)).then(|| observed(&cell)).flatten() else { continue };
            met.insert(cell);
            runtime.block_on(async {
                let hands = Hands::of_the_cell_of(cluster, |namespace| timeline.contains(namespace)).await;
                let own = hands.plain("proxy-a").await;
                hands.deploy("later", &own).await;
                hands.scale("later", 1).await;
            });
        }
        met.len() == 4
    });
    going.ended().with(0, &["rotation"]);
    for path in met {
        let verdict: Value =
            serde_json::from_str(&std::fs::read_to_string(path.join("verdict.json")).unwrap()).unwrap();
        let proxies = verdict["verdict"]["proxies"].as_array().unwrap();
        let later = proxies.iter().find(|proxy| proxy["id"].as_str().unwrap().starts_with("later-"));
        let served = later.unwrap_or_else(|| panic!("{path}: {proxies:#?}"))["generations_served"].as_u64();
        assert!(served >= Some(3), "{path}: {proxies:#?}");
        // It was asked for its own: nobody else has its identity.
        let timeline = std::fs::read_to_string(path.join("timeline.ndjson")).unwrap();
        assert!(timeline.contains("/sa/default\""), "{path}");
        for file in path.read_dir_utf8().unwrap().map(|entry| entry.unwrap().path().to_owned()) {
            let said = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(!said.contains(token), "{file} has the join token");
        }
    }
}

/// A control for Istio's own CA, which no scenario can provoke in a cluster, for all cells share it.
fn certificates_that_istiod_does_not_renew_are_caught_where_the_agents_refuse(place: &Place, cluster: &str) {
    let report = place.root.join("without-istiod.json");
    let to = format!("json={report}");
    let real =
        ["run", "rotation", "--topology", "kind", "--cluster", cluster, "--provider", "istio-ca", "--ttl", "20s"];
    let before = place.latest();
    let going = Going::start(rotacheck(place, &[&real[..], &["--report", &to]].concat()));
    until("the run begins", || place.latest() != before);
    place.observes();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Hands::of_the_cell_in(cluster).await.end_istiod().await });
    going.ended().with(1, &["rotation"]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let cell = &report["cells"][0];
    assert_eq!((&cell["layer"], &cell["diagnosis"]), (&"sent".into(), &"stream-refused".into()), "{cell}");
}

fn who_only_looks_makes_nothing_and_who_may_do_more_names_the_incident_while_it_lasts(place: &Place, cluster: &str) {
    let live = [("live-incident.yaml", onlooker::INCIDENT), ("live-rotation.yaml", onlooker::ROTATION)]
        .map(|(name, text)| place.file(name, text));
    let run = ["run", live[0].as_str(), live[1].as_str(), "--topology", "kind", "--cluster", cluster];
    let run = Going::start(rotacheck(place, &run));
    look_on(place, cluster);
    // Whoever looks disturbs nothing.
    run.ended().with(0, &[]);
}

fn with_all(image: &str) -> [&str; 6] {
    ["--pod", "proxy-a", "--witness", image, "--prober", image]
}

/// While proxies are observed by the run that made them, somebody else looks at them; at each as soon as it is there.
fn look_on(place: &Place, cluster: &str) {
    let onlooker = &Onlooker::of(place, cluster);
    std::thread::scope(|scope| {
        let looks = [look_at_the_incident, look_at_the_rotation].map(|look| scope.spawn(move || look(onlooker)));
        for look in looks {
            look.join().unwrap();
        }
    });
}

/// With the rights that it takes, and all that there is to see.
fn watch(onlooker: &Onlooker<'_>, namespace: &str) -> (Option<i32>, Value) {
    let account =
        onlooker.account(namespace, &["rotacheck-diagnose", "rotacheck-diagnose-witness", "rotacheck-diagnose-prober"]);
    let image = image();
    let watched = ["--watch", "30s", "--every", "5s", "--renew-every", "10s", "--raise-config-log"];
    let watched = [&with_all(&image)[..], &watched].concat();
    let seen = onlooker.diagnose(&account, namespace, &watched);
    // The cluster takes the Secret away after its pod.
    until("the prober and its keys are gone", || !onlooker.pods(namespace).contains("prober"));
    assert_eq!(seen.1["left_raised"], json!([]), "{:#}", seen.1);
    let said = seen.1["proxies"][0].to_string();
    for words in ["Envoy has 1 connection to the provider's socket (the same at each of", "Envoy's own log tells of"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    seen
}

fn look_at_the_incident(onlooker: &Onlooker<'_>) {
    let namespace = onlooker.namespace("live-incident");
    let (code, found) = watch(onlooker, &namespace);
    // That none was minted all the same, only the issuer knows.
    let modes = [&found["suspects"][0]["mode"], &found["suspects"][1]["mode"]];
    assert_eq!((code, modes), (Some(1), [&json!("resend-cached"), &json!("resend-stale")]), "{found:#}");
    assert!(found["proxies"][0]["remarks"].to_string().contains("none brought anything new"), "{found:#}");

    // Who looks once sees no counter move, and is not led away from what it is.
    let account = onlooker.account(&namespace, &["rotacheck-diagnose"]);
    let (code, found) = onlooker.diagnose(&account, &namespace, &["--renew-every", "10s"]);
    let suspects = found["suspects"].as_array().unwrap();
    assert_eq!(code, Some(1), "{found:#}");
    assert!(suspects.iter().any(|suspect| suspect["mode"] == "resend-cached"), "{found:#}");
}

fn look_at_the_rotation(onlooker: &Onlooker<'_>) {
    let namespace = onlooker.namespace("live-rotation");
    // With the rights to look alone, everything is seen that can be, and nothing is made.
    let account = onlooker.account(&namespace, &["rotacheck-diagnose"]);
    let there = onlooker.everything(&namespace);
    let (code, found) = onlooker.diagnose(&account, &namespace, &[]);
    assert_eq!((code, &found["forbidden"]), (Some(0), &json!({})), "{found:#}");
    let (code, found) = onlooker.diagnose(&account, &namespace, &with_all(&image()));
    assert_eq!(code, Some(0), "{found:#}");
    assert!(found["forbidden"]["patch pods/ephemeralcontainers"].is_string(), "{found:#}");
    assert_eq!(onlooker.everything(&namespace), there, "nothing was made or changed");

    let (code, found) = watch(onlooker, &namespace);
    assert_eq!((code, &found["suspects"]), (Some(0), &json!([])), "{found:#}");
    for proxy in found["proxies"].as_array().unwrap() {
        assert!(proxy["served"]["serial"].is_string() && proxy["remarks"] == json!([]), "{found:#}");
    }
    assert_ne!(onlooker.everything(&namespace).last(), there.last(), "a container that joined would have been noticed");
}

fn image() -> String {
    std::env::var("ROTACHECK_RELAY_IMAGE").unwrap()
}

#[test]
#[ignore = "needs Docker, kind, istioctl and the relay's image"]
fn a_cluster_is_made_for_each_number_of_nodes_and_all_go_with_the_run() {
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, before) = (Place::new(), clusters());
    let report = place.root.join("report.json");
    let to = format!("json={report}");
    let run = ["run", "rotation", "--topology", "kind", "--nodes", "1,2", "--report", &to];
    let run = rotacheck(&place, &run).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", complaint(&run));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let of = |cell: &Value| (cell["verdict"].clone(), cell["subject"]["cluster"]["nodes"].clone());
    assert_eq!(cells.iter().map(of).collect::<Vec<_>>(), [(json!("pass"), json!(1)), (json!("pass"), json!(2))]);
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(told.contains(", 1 node") && told.contains(", 2 nodes"), "{told}");
    assert_nothing_new_is_left(&before);
}

#[test]
#[ignore = "needs Docker, kind, istioctl and the relay's image"]
fn an_image_that_no_node_can_pull_is_told_with_the_nodes_words_and_the_cluster_goes() {
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, before) = (Place::new(), clusters());
    let hub = "registry.invalid/nobody";
    let run = rotacheck(&place, &["run", "rotation", "--topology", "kind", "--istio-hub", hub]).output().unwrap();
    assert_eq!(run.status.code(), Some(5), "{}", complaint(&run));
    let told = complaint(&run);
    assert!(told.contains("registry.invalid/nobody/proxyv2") && told.contains("Failed to pull image"), "{told}");
    assert_nothing_new_is_left(&before);
}

#[test]
#[ignore = "needs Docker and kind"]
fn what_is_missing_is_said_before_a_cluster_is_made() {
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, before) = (Place::new(), clusters());
    let run = |args: &[&str]| rotacheck(&place, &[&["run", "rotation", "--topology", "kind"], args].concat());
    let no_image = run(&["--relay-image", "rotacheck.invalid/none:0", "--istio-tag", "x"]).output().unwrap();
    assert!(complaint(&no_image).contains("cannot find the relay's image"), "{}", complaint(&no_image));
    let no_docker = run(&["--istio-tag", "x"]).env("DOCKER_HOST", "unix:///nowhere.sock").output().unwrap();
    assert!(complaint(&no_docker).contains("is Docker running"), "{}", complaint(&no_docker));
    let no_program = run(&["--istio-tag", "x"]).env("PATH", "").output().unwrap();
    assert!(complaint(&no_program).contains("has to be on the PATH"), "{}", complaint(&no_program));
    for refused in [no_image, no_docker, no_program] {
        assert_eq!(refused.status.code(), Some(5));
    }
    assert_nothing_new_is_left(&before);
}
