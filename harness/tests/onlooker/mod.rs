//! Somebody who looks at proxies that a run has in a kind cluster, with the rights that the guide lists and no others.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "part of a test: what is unexpected shall panic")]

use std::time::{Duration, Instant};

use serde_json::Value;

use super::account::Admin;
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
    admin: Admin,
}

impl<'a> Onlooker<'a> {
    pub fn of(place: &'a Place, cluster: &str) -> Self {
        Self { place, admin: Admin::of(cluster) }
    }

    /// The namespace of a scenario's cell, once both proxies are ready.
    pub fn namespace(&self, scenario: &str) -> String {
        let prefix = format!("rotacheck-{scenario}-");
        await_some("both proxies", || {
            let namespaces =
                String::from_utf8(self.admin.kubectl(&["get", "namespaces", "-o", "name"]).stdout).unwrap();
            let name = namespaces.lines().find_map(|line| {
                line.strip_prefix("namespace/").filter(|name| name.starts_with(&prefix)).map(str::to_owned)
            })?;
            let ready =
                ["wait", "pod/proxy-a", "pod/proxy-b", "--for=condition=Ready", "--timeout=1s", "-n", name.as_str()];
            self.admin.kubectl(&ready).status.success().then_some(name)
        })
    }

    /// A kubeconfig of a service account that has the rights of these Roles of the guide.
    pub fn account(&self, namespace: &str, roles: &[&str]) -> String {
        self.admin.account(self.place, GUIDE, namespace, roles).into()
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
        let kinds = self.admin.told(&["api-resources", "--verbs=list", "--namespaced", "-o", "name"]);
        // What the cluster itself writes all the time.
        let passing = |kind: &&str| !kind.starts_with("events") && !kind.contains("metrics.k8s.io");
        let kinds: Vec<&str> = kinds.lines().filter(passing).collect();
        let mut all: Vec<String> = self
            .admin
            .told(&["get", &kinds.join(","), "-n", namespace, "-o", "name"])
            .lines()
            .map(str::to_owned)
            .collect();
        all.sort();
        all.push(self.admin.told(&["get", "pods", "-n", namespace, "-o", "jsonpath={.items[*].spec}"]));
        all
    }

    /// The names of a namespace's pods and Secrets.
    pub fn pods(&self, namespace: &str) -> String {
        self.admin.told(&["get", "pods,secrets", "-n", namespace, "-o", "name"])
    }
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
