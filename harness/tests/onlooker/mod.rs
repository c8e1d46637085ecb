//! Somebody who looks at proxies that a run has in a kind cluster, with the rights that the guide lists and no others.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "part of a test: what is unexpected shall panic")]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::place::Place;

/// Generous: it ends tests that would hang.
const PATIENCE: Duration = Duration::from_secs(240);
const GUIDE: &str = include_str!("../../../docs/guide/in-your-cluster.md");

/// Scenarios in real time, that last as long as somebody looks: what goes wrong in them, the fake alone can be made to do, so
/// that they run with no other provider.
pub const INCIDENT: &str = "name: live-incident\nsummary: It is looked at while it lasts.\nrole: control\nprovider:\n  \
    profile: tbot\n  ttl: 40s\n  renew_every: 10s\n  faults:\n    - fault: resend-cached\n      from_renewal: 1\n\
    clock: real\nobserve:\n  duration: 90s\n\
    expect:\n  judgement: fail\n  layer: issued\n  diagnosis: resend-cached\n";
pub const ROTATION: &str = "name: live-rotation\nsummary: It is looked at, and is well.\nprovider:\n  \
    profile: tbot\n  ttl: 40s\n  renew_every: 10s\n  faults:\n    - fault: close-stream\n      from_renewal: 9\n      once: true\n\
    clock: real\nobserve:\n  duration: 90s\nexpect:\n  judgement: pass\n";

/// The cluster of a run.
pub struct Onlooker<'a> {
    place: &'a Place,
    cluster: String,
}

impl<'a> Onlooker<'a> {
    pub fn of(place: &'a Place, cluster: &str) -> Self {
        Self { place, cluster: cluster.to_owned() }
    }

    /// As the administrator, in the node's container.
    fn kubectl(&self, arguments: &[&str]) -> Output {
        let node = format!("{}-control-plane", self.cluster);
        let kubectl = ["exec", node.as_str(), "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"];
        Command::new("docker").args(kubectl).args(arguments).output().unwrap()
    }

    fn told(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The namespace of a scenario's cell, once both proxies are ready.
    pub fn namespace(&self, scenario: &str) -> String {
        let prefix = format!("rotacheck-{scenario}-");
        await_some("both proxies", || {
            let namespaces = String::from_utf8(self.kubectl(&["get", "namespaces", "-o", "name"]).stdout).unwrap();
            let name = namespaces.lines().find_map(|line| {
                line.strip_prefix("namespace/").filter(|name| name.starts_with(&prefix)).map(str::to_owned)
            })?;
            let ready =
                ["wait", "pod/proxy-a", "pod/proxy-b", "--for=condition=Ready", "--timeout=1s", "-n", name.as_str()];
            self.kubectl(&ready).status.success().then_some(name)
        })
    }

    /// A kubeconfig of a service account that has the rights of these Roles of the guide.
    pub fn account(&self, namespace: &str, roles: &[&str]) -> String {
        let name = roles.last().unwrap();
        let exec = |arguments: &[&str]| self.told(&[arguments, &["-n", namespace]].concat());
        exec(&["create", "serviceaccount", name]);
        let account = format!("--serviceaccount={namespace}:{name}");
        for (n, (verbs, resources)) in roles.iter().flat_map(|role| rules(role)).enumerate() {
            let (verbs, resources) = (format!("--verb={verbs}"), format!("--resource={resources}"));
            let own = format!("{name}-{n}");
            exec(&["create", "role", &own, &verbs, &resources]);
            exec(&["create", "rolebinding", &own, &format!("--role={own}"), &account]);
        }
        let token = exec(&["create", "token", name]).trim().to_owned();
        let admin = Command::new("kind").args(["get", "kubeconfig", "--name", &self.cluster]).output().unwrap();
        let admin = String::from_utf8(admin.stdout).unwrap();
        let of = |key: &str| {
            let line = admin.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
            line.trim().to_owned()
        };
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": of("server:"),
                "certificate-authority-data": of("certificate-authority-data:")}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]});
        self.place.file(&format!("{name}-{namespace}.json"), &config.to_string()).into()
    }

    /// `rotacheck diagnose --json`, as that account.
    pub fn diagnose(&self, kubeconfig: &str, namespace: &str, arguments: &[&str]) -> (Option<i32>, Value) {
        let all = [&["diagnose", "-n", namespace, "--json"], arguments].concat();
        let output = self.place.rotacheck(&all).env("KUBECONFIG", kubeconfig).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {complaint}"));
        (output.status.code(), found)
    }

    /// Everything in a namespace that somebody could have made there or changed, and what pods are to be.
    pub fn everything(&self, namespace: &str) -> Vec<String> {
        let kinds = self.told(&["api-resources", "--verbs=list", "--namespaced", "-o", "name"]);
        // What the cluster itself writes all the time.
        let passing = |kind: &&str| !kind.starts_with("events") && !kind.contains("metrics.k8s.io");
        let kinds: Vec<&str> = kinds.lines().filter(passing).collect();
        let mut all: Vec<String> =
            self.told(&["get", &kinds.join(","), "-n", namespace, "-o", "name"]).lines().map(str::to_owned).collect();
        all.sort();
        all.push(self.told(&["get", "pods", "-n", namespace, "-o", "jsonpath={.items[*].spec}"]));
        all
    }

    /// The names of a namespace's pods and Secrets.
    pub fn pods(&self, namespace: &str) -> String {
        self.told(&["get", "pods,secrets", "-n", namespace, "-o", "name"])
    }
}

/// Verbs and resources of a Role in the guide.
fn rules(role: &str) -> Vec<(String, String)> {
    let from = GUIDE.find(&format!("name: {role},")).unwrap_or_else(|| panic!("the guide has no Role {role}"));
    let of = |line: &str, key: &str| {
        let list = line.split_once(&format!("{key}: [")).and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
        list.replace(' ', "")
    };
    let lines = GUIDE[from..].lines().skip(1).take_while(|line| !line.starts_with("```") && *line != "---");
    let rules: Vec<_> =
        lines.filter(|line| line.contains("verbs:")).map(|l| (of(l, "verbs"), of(l, "resources"))).collect();
    assert!(!rules.is_empty());
    rules
}

fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        // Nothing tells a test when another program's cluster is made.
        std::thread::sleep(Duration::from_millis(500));
    }
}
