//! Accounts of a kind cluster that have the rights which a guide lists, and no others.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "part of a test: what is unexpected shall panic")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use camino::Utf8PathBuf;
use serde_json::json;

use super::place::Place;

/// The administrator of a kind cluster.
pub struct Admin {
    cluster: String,
}

impl Admin {
    pub fn of(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned() }
    }

    /// As the administrator, in the node's container.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let node = format!("{}-control-plane", self.cluster);
        let kubectl = ["exec", node.as_str(), "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"];
        Command::new("docker").args(kubectl).args(arguments).output().unwrap()
    }

    /// What kubectl says that succeeds.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes what this says, or changes what is there.
    fn apply(&self, text: &str) {
        let node = format!("{}-control-plane", self.cluster);
        let kubectl = ["exec", "-i", node.as_str(), "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"];
        let mut apply =
            Command::new("docker").args(kubectl).args(["apply", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        apply.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(apply.wait().unwrap().success(), "{text}");
    }

    /// A kubeconfig of a service account that has the rights of these Roles of a guide.
    pub fn account(&self, place: &Place, guide: &str, namespace: &str, roles: &[&str]) -> Utf8PathBuf {
        let name = roles.last().unwrap();
        let exec = |arguments: &[&str]| self.told(&[arguments, &["-n", namespace]].concat());
        exec(&["create", "serviceaccount", name]);
        let account = format!("--serviceaccount={namespace}:{name}");
        for role in roles {
            self.apply(&in_a_guide(guide, role, namespace));
            exec(&["create", "rolebinding", &format!("{name}-{role}"), &format!("--role={role}"), &account]);
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
        place.file(&format!("{name}-{namespace}.json"), &config.to_string())
    }
}

/// The Role of this name, as a guide has it for another namespace.
fn in_a_guide(guide: &str, role: &str, namespace: &str) -> String {
    let blocks = guide.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next());
    let name = format!("name: {role}, namespace: ");
    let found = blocks.flat_map(|block| block.split("---\n")).find_map(|text| {
        let (before, rest) = text.split_once(&name)?;
        Some(format!("{before}{name}{namespace}{}", &rest[rest.find('}')?..]))
    });
    found.unwrap_or_else(|| panic!("the guide has no Role {role}"))
}
