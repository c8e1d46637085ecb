//! A cluster is looked at, through the binary: pods on a Kubernetes API of the test's own, their proxies behind forwarded
//! connections.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod cluster;
mod place;

use std::process::{Command, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use camino::Utf8PathBuf;
use cluster::{FakeCluster, Held};
use place::{Going, until};
use predicates::prelude::{Predicate as _, PredicateBooleanExt as _};
use predicates::str::contains;
use rotacheck::timeline::{CertFacts, Fact, Payload, SecretName, Sent, SentSecret, Subscribed, WITNESS_NODE};
use rotacheck::xds::{SECRET_TYPE_URL, Teller};
use rustix::process::Signal;
use serde_json::{Value, json};

const HOUR: i64 = 3600;
const FRESH: Held = Held { serial: "a0", age: HOUR, left: 23 * HOUR, version_moves: false };
const EXPIRED: Held = Held { serial: "e0", age: 11 * HOUR, left: -10 * HOUR, version_moves: false };
const OVERDUE: Held = Held { serial: "d0", age: 20 * HOUR, left: 4 * HOUR, version_moves: false };

struct Desk {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
    cluster: FakeCluster,
}

impl Desk {
    fn with(pods: &[(&str, Held)], forbidden: Vec<&'static str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let pods = pods.iter().map(|(name, held)| ((*name).to_owned(), held.clone())).collect();
        let cluster = FakeCluster::start(pods, forbidden);
        cluster.kubeconfig(&root.join("config"));
        Self { _dir: dir, root, cluster }
    }

    fn diagnose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
        command.args(["diagnose", "-n", "shop"]).args(arguments).current_dir(&self.root).env_clear();
        command.env("KUBECONFIG", self.root.join("config"));
        command
    }
}

#[test]
fn one_look_tells_what_has_expired_and_what_is_overdue_worst_first() {
    let desk = Desk::with(&[("a-1", FRESH), ("b-1", OVERDUE), ("c-1", EXPIRED)], Vec::new());
    let seen = desk.diagnose(&[]).output().unwrap();
    let text = String::from_utf8(seen.stdout.clone()).unwrap();
    seen.assert().code(1);
    assert!(
        text.starts_with("fake, namespace shop: 3 proxies (Envoy 1.38.3, Istio 1.31.0)\n1 expired, 1 overdue, 1 ok\n"),
        "{text}"
    );
    let lines: Vec<_> = text.lines().map(|line| line.split("  ").next().unwrap()).collect();
    let at = |state: &str| lines.iter().position(|line| *line == state).unwrap();
    assert!(at("expired") < at("overdue") && at("overdue") < at("ok"), "{text}");
    // One of so many is no better founded than another.
    assert!(!text.contains("Lasting fix"), "{text}");
    for said in [
        "c-1.shop: 2 of 2 TLS contexts hold serial e0, expired since",
        "overdue by 8 h",
        "First aid, while it may be any of these",
        "--watch",
    ] {
        assert!(text.contains(said), "{said} is missing in {text}");
    }
}

#[test]
fn nothing_but_forwarded_connections_is_asked_of_the_cluster() {
    let desk = Desk::with(&[("a-1", FRESH)], Vec::new());
    desk.diagnose(&[]).assert().success().stdout(contains("1 ok"));
    let mut asked = desk.cluster.asked();
    asked.sort();
    asked.dedup();
    let pods = "GET /api/v1/namespaces/shop/pods";
    assert_eq!(asked, [pods.to_owned(), format!("{pods}/a-1/log"), format!("{pods}/a-1/portforward")]);
}

#[test]
fn thirty_sidecars_are_looked_at_with_a_connection_each() {
    let names: Vec<_> = (0..30).map(|n| format!("web-{n}")).collect();
    let pods: Vec<_> = names.iter().map(|name| (name.as_str(), FRESH)).collect();
    let desk = Desk::with(&pods, Vec::new());
    desk.diagnose(&[]).assert().success().stdout(contains("30 proxies").and(contains("30 ok")));
    let forwarded = desk.cluster.asked().iter().filter(|asked| asked.ends_with("/portforward")).count();
    assert_eq!(forwarded, 30);
}

#[test]
fn versions_that_move_over_one_certificate_are_seen_by_watching() {
    // Also where it had expired before anybody looked.
    for held in [FRESH, EXPIRED] {
        let desk = Desk::with(&[("a-1", Held { version_moves: true, ..held })], Vec::new());
        let watched = desk.diagnose(&["--watch", "3s", "--every", "1s", "--record", "seen.ndjson"]).assert();
        watched.stdout(
            contains("the version of default moved")
                .and(contains("First aid for resend-cached"))
                .and(contains("Would decide: "))
                .and(contains("Lasting fix"))
                .and(contains("never-renews").not()),
        );
        let mut judge = Command::new(env!("CARGO_BIN_EXE_rotacheck"));
        let judged = judge.args(["judge", "seen.ndjson"]).current_dir(&desk.root).output().unwrap();
        assert!(matches!(judged.status.code(), Some(1 | 5)), "{judged:?}");
    }
}

#[test]
fn what_is_forbidden_is_named_and_the_rest_is_done() {
    let desk = Desk::with(&[("a-1", FRESH)], vec!["/log"]);
    let seen = desk.diagnose(&[]).assert().success();
    seen.stdout(contains("get pods/log in namespace shop: the cluster forbids it").and(contains("1 ok")));
    let desk = Desk::with(&[("a-1", FRESH)], vec!["/portforward", "/exec"]);
    let seen = desk.diagnose(&[]).assert().code(5);
    seen.stdout(contains("pods/portforward in namespace shop: the cluster forbids").and(contains("pods/exec")));
    let desk = Desk::with(&[("a-1", FRESH)], vec!["/pods"]);
    desk.diagnose(&[])
        .assert()
        .code(5)
        .stderr(contains("cannot list pods").and(contains("kubectl auth can-i list pods")));
}

#[test]
fn the_same_is_printed_for_machines() {
    let desk = Desk::with(&[("a-1", FRESH), ("c-1", EXPIRED)], Vec::new());
    let seen = desk.diagnose(&["--json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen.status.code(), Some(1));
    let states: Vec<_> = found["proxies"].as_array().unwrap().iter().map(|p| p["state"].as_str().unwrap()).collect();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&"expired") && states.contains(&"fresh"), "{found}");
    assert_eq!(found["pods"]["c-1.shop"]["node"], "n1");
}

#[test]
fn a_cluster_that_is_not_there_is_said_to_be_that() {
    let desk = Desk::with(&[], Vec::new());
    desk.diagnose(&[]).assert().code(4).stderr(contains("cannot find a proxy in namespace shop of fake"));
    let gone = r#"{"apiVersion":"v1","kind":"Config","current-context":"x","users":[{"name":"u","user":{}}],
        "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],
        "contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}]}"#;
    std::fs::write(desk.root.join("config"), gone).unwrap();
    desk.diagnose(&[]).assert().code(5).stderr(contains("cannot list pods").and(contains("kubectl get --raw")));
    desk.diagnose(&["--context", "other"]).assert().code(2).stderr(contains("use the context \"other\""));
}

/// What a subscriber tells that stayed in the pod, and one that came anew: each was given this certificate, under versions
/// that move.
fn given_again(leaf: &CertFacts) -> String {
    let name = SecretName::default_svid();
    let mut teller = Teller::default();
    let mut text = String::new();
    let mut tell = |fact: Fact| text.push_str(&format!("{}\n", teller.line(&name, fact).unwrap()));
    for (stream, versions) in [(1, &["1", "2", "3"][..]), (2, &["3"])] {
        let (type_url, version_info) = (SECRET_TYPE_URL.to_owned(), String::new());
        let (names, node) = (vec!["default".to_owned()], WITNESS_NODE.to_owned());
        tell(Subscribed { stream, type_url: type_url.clone(), names, version_info, node }.into());
        for version in versions {
            let digest = leaf.fingerprint;
            let payload = Payload::Certificate { chain: vec![leaf.clone()], digest, key_matches: None, problem: None };
            let secrets = vec![SentSecret { name: "default".into(), payload }];
            let (type_url, version_info) = (type_url.clone(), (*version).to_owned());
            tell(Sent { stream, type_url, version_info, nonce: "n".into(), secrets }.into());
        }
    }
    text
}

const WATCHED: [&str; 8] = ["--pod", "a-1", "--witness", "rotacheck:1", "--watch", "3s", "--every", "1s"];

#[test]
fn a_subscriber_in_the_pod_tells_the_providers_cache_from_a_proxy_that_lags() {
    let desk = Desk::with(&[("a-1", Held { version_moves: true, ..EXPIRED })], Vec::new());
    desk.cluster.let_join(given_again(&desk.cluster.leaf("a-1")), json!({"running": {}}));
    let seen = desk.diagnose(&WATCHED).assert().code(1);
    seen.stdout(
        contains(
            "What it may be\n  - resend-cached: The same certificate is re-sent under new versions\n  - resend-stale: A new \
             certificate is minted, the old one is sent\n  Would decide: the issuer's own log",
        )
            .and(contains("a fresh subscriber that stayed was sent serial e0 again under new versions (2 times)"))
            .and(contains("First aid for resend-cached"))
            .and(contains("starved-by-bundle-churn").not()),
    )
    .stderr(contains("adds an ephemeral container (rotacheck:1) to the pod a-1"));
    let joined = desk.cluster.joined();
    assert_eq!(joined.len(), 1);
    let security = &joined[0]["securityContext"];
    assert_eq!((&security["runAsUser"], &security["capabilities"]["drop"][0]), (&json!(1337), &json!("ALL")));
    assert_eq!(joined[0]["volumeMounts"][0]["name"], "workload-socket");
    let seen = desk.diagnose(&[&WATCHED[..], &["--json"]].concat()).output().unwrap();
    let found: Value = serde_json::from_slice(&seen.stdout).unwrap();
    // That none was minted all the same, only the issuer knows.
    let modes = [&found["suspects"][0]["mode"], &found["suspects"][1]["mode"]];
    assert_eq!((&found["diagnosis"], modes), (&Value::Null, [&json!("resend-cached"), &json!("resend-stale")]));
}

#[test]
fn what_keeps_the_subscriber_from_telling_is_said_and_the_rest_is_done() {
    let no_image = json!({"waiting": {"reason": "ErrImagePull", "message": "rotacheck:1: not found"}});
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let running = json!({"running": {}});
    let cases = [
        (Vec::new(), String::new(), &no_image, "does not start: ErrImagePull: rotacheck:1: not found"),
        (Vec::new(), String::new(), &ended, "ended with code 1 (Error), and told nothing"),
        (
            Vec::new(),
            "sh: no such\n\u{1b}[2J{}\n".to_owned(),
            &running,
            "2 lines of it were no facts (the first: \"sh: no such\")",
        ),
        (
            vec!["/ephemeralcontainers"],
            String::new(),
            &running,
            "patch pods/ephemeralcontainers in namespace shop: the cluster forbids",
        ),
    ];
    for (forbidden, log, state, said) in cases {
        let desk = Desk::with(&[("a-1", FRESH)], forbidden);
        desk.cluster.let_join(log, state.clone());
        let seen = desk.diagnose(&WATCHED[..4]).output().unwrap();
        let text = String::from_utf8(seen.stdout.clone()).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("1 ok") && text.contains(said), "{said} is missing in {text}");
        assert!(!text.contains('\u{1b}'));
        seen.assert().success();
    }
}

#[test]
fn a_prober_that_may_not_be_made_is_said_and_the_rest_is_done() {
    let desk = Desk::with(&[("a-1", FRESH)], vec!["/pods"]);
    let seen = desk.diagnose(&["--pod", "a-1", "--prober", "rotacheck:1"]).assert().success();
    seen.stdout(contains("1 ok").and(contains("create the Pod rotacheck-prober-")).and(contains("/pods is")))
        .stderr(contains("makes a pod and a Secret"));
}

#[test]
fn a_subscriber_has_one_pod() {
    let desk = Desk::with(&[], Vec::new());
    desk.diagnose(&["--witness", "rotacheck:1"]).assert().code(2).stderr(contains("--pod"));
}

/// What an Envoy logs that is sent the same again, with what its application and a client wrote into the same log, and with
/// a secret that is quoted.
fn logged() -> String {
    let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let key = "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMG\\n-----END PRIVATE KEY-----";
    let now = jiff::Timestamp::now();
    let line = |message: &str| format!("{now} {now}\tdebug\tenvoy config source/x.cc:89\t{message}\tthread=18\n");
    let mut text = String::new();
    for version in ["41", "42"] {
        text += &line(&format!("Received gRPC message for {secret} at version {version}"));
        text += &line(&format!("Pausing discovery requests for {secret} (previous count 0)"));
        text += &line(&format!("gRPC config for {secret} accepted with 1 resources with version {version}"));
    }
    text += &line(&format!("adding secret {key}"));
    text += &line(&format!("gRPC config for {secret} accepted with 1 resources with version {key}"));
    text += &format!("{now} {key}\n{now} [{now}] \"GET /\" 200 \"Secret is updated.\"\n");
    text
}

const RAISED: [&str; 5] = ["--watch", "2s", "--every", "1s", "--raise-config-log"];

#[test]
fn envoys_own_log_tells_what_came_and_the_logger_is_put_back() {
    let desk = Desk::with(&[("a-1", EXPIRED)], Vec::new());
    desk.cluster.let_log(logged(), None);
    let seen = desk.diagnose(&[&RAISED[..], &["--record", "seen.ndjson"]].concat()).assert().code(1);
    seen.stderr(contains("sets Envoy's logger `config` to debug in every proxy").and(contains("WARNING").not()))
        .stdout(
            contains("Envoy's own log tells of 2 SDS updates")
                .and(contains("version 42): none"))
                .and(contains("First aid for resend-cached"))
                .and(contains("Not put back").not()),
        );
    let logger = desk.cluster.logger();
    assert_eq!((logger.level.as_str(), logger.set.as_slice()), ("warning", &["debug".into(), "warning".into()][..]));
    // Nothing of the log is kept but what is known to be harmless.
    let recorded = std::fs::read_to_string(desk.root.join("seen.ndjson")).unwrap();
    assert!(recorded.contains("at version 42") && recorded.contains("logger config at debug (it was at warning)"));
    for kept_out in ["MIGH", "BEGIN", "Pausing", "adding", "GET /"] {
        assert!(!recorded.contains(kept_out), "{kept_out} is in {recorded}");
    }
}

#[test]
fn a_stream_that_does_not_come_up_is_told_without_a_logger_being_raised() {
    let desk = Desk::with(&[("a-1", EXPIRED)], Vec::new());
    desk.cluster.let_log_always(&[
        "2026-11-27T21:19:12.239170Z\twarning\tenvoy config ./source/x/grpc_stream.h:227\tStreamSecrets gRPC config stream \
         to sds-grpc closed since 131s ago: 14, upstream connect error or disconnect/reset before headers. reset reason: \
         remote connection failure{x|immediate_connect_error:_Connection_refused}\tthread=15",
    ]);
    for arguments in [&[][..], &["--watch", "2s", "--every", "1s"]] {
        let seen = desk.diagnose(arguments).assert().code(1);
        seen.stdout(
            contains("Envoy's own log tells of no stream to the provider for 2 min")
                .and(contains("What it may be\n  - socket-gone: "))
                .and(contains("never-renews").not()),
        );
    }
    assert_eq!(desk.cluster.logger().set, [""; 0]);
}

#[test]
fn a_certificate_of_another_service_account_is_told() {
    let desk = Desk::with(&[("a-1", FRESH), ("foreign-1", FRESH)], Vec::new());
    desk.diagnose(&[]).assert().code(1).stdout(
        contains("foreign-1.shop: its certificate is of spiffe://td/ns/shop/sa/web, and its pod has the service")
            .and(contains("What it may be\n  - wrong-identity: "))
            .and(contains("a-1.shop: its certificate is of").not()),
    );
}

#[test]
fn a_logger_is_put_back_on_an_interrupt_too() {
    let desk = Desk::with(&[("a-1", FRESH)], Vec::new());
    let mut looking = desk.diagnose(&["--watch", "10m", "--every", "1s", "--raise-config-log"]);
    looking.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let looking = Going::start(looking);
    until("the level is raised", || desk.cluster.logger().level == "debug");
    looking.kill(Signal::INT);
    looking.ended().with(0, &["1 ok"]);
    assert_eq!(desk.cluster.logger().level, "warning");
}

#[test]
fn a_logger_that_can_not_be_put_back_is_told_with_the_command_that_does_it() {
    let desk = Desk::with(&[("a-1", FRESH)], Vec::new());
    desk.cluster.let_log("", Some(1));
    let seen = desk.diagnose(&RAISED).assert().code(5);
    let command =
        "kubectl --context fake -n shop exec a-1 -c istio-proxy -- pilot-agent request POST 'logging?config=warning'";
    seen.stderr(contains("WARNING: Envoy's logger `config` of a-1.shop stays at debug").and(contains(command)))
        .stdout(contains("Not put back").and(contains(command)));
}

#[test]
fn a_logger_that_was_at_debug_before_is_left_so_and_that_is_told() {
    let told = contains("Envoy's logger `config` of a-1.shop was at debug before, and is left so");
    for (level, is_told) in [("debug", true), ("warning", false)] {
        let desk = Desk::with(&[("a-1", FRESH)], Vec::new());
        desk.cluster.log_at(level);
        let seen = desk.diagnose(&RAISED).output().unwrap();
        assert_eq!(told.eval(&String::from_utf8(seen.stdout).unwrap()), is_told);
        assert_eq!(desk.cluster.logger().level, level);
    }
}

#[test]
fn a_logger_is_raised_for_a_while_only() {
    let desk = Desk::with(&[], Vec::new());
    desk.diagnose(&["--raise-config-log"]).assert().code(2).stderr(contains("--watch"));
}
