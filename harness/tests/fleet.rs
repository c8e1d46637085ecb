//! A fleet of real Envoys: the one that `ENVOY_PATH` names, or one from the lock file.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::net::SocketAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rotacheck::artifact::{Lock, Store, StoreOptions};
use rotacheck::clock::{Clock, Deadline, OffsetFile};
use rotacheck::fleet::{Dialled, Fleet, FleetConfig, FleetError, Proxy, expectations};
use rotacheck::probe::{self, LongLived, OutboundServer, ProbeContext, Roots, TlsVersion};
use rotacheck::proc::Guard;
use rotacheck::provider::{Fake, FakeConfig};
use rotacheck::scenario::{FleetSpec, TRUST_DOMAIN};
use rotacheck::timeline::EnvoyRequest;
use rotacheck::timeline::*;
use rotacheck::xds::Delivery;

async fn envoy() -> Utf8PathBuf {
    let request = EnvoyRequest::from_environment().unwrap_or_else(|| "1.38.3".parse().unwrap());
    let store = Store::open(StoreOptions { cache: None, lock: Lock::embedded(), offline: false }).unwrap();
    store.envoy(&request, &|_| {}).await.unwrap().path
}

/// Generous: nothing here is timed.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn authority() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

struct Cell {
    directory: tempfile::TempDir,
    config: FleetConfig,
    recorder: Recorder,
    guard: Guard,
}

impl Cell {
    async fn new(proxies: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let spec = FleetSpec { proxies, ..FleetSpec::default() };
        let config = FleetConfig {
            envoy: envoy().await,
            directory: path.to_owned(),
            delivery: Delivery::Socket(path.join("provider.sock")),
            members: spec.members().into_iter().map(|(id, spiffe_id)| (id, Some(spiffe_id))).collect(),
            identity: None,
            further_contexts: 3,
            duplicate_subscription: false,
            resumption: false,
            must_staple: false,
            foreign: None,
            lds_socket: None,
            socket_mounted_by: None,
            stats: StatsInclusion::All,
            istio: None,
            vessel: None,
            #[cfg(feature = "kubernetes")]
            yard: None,
            dialled: Dialled { server: SocketAddr::from(([127, 0, 0, 1], 1)), authority_pem: authority() },
        };
        let recorder = Recorder::new(header(&config), Clock::real(), None);
        let guard = Guard::start(Utf8Path::new(env!("CARGO_BIN_EXE_rotacheck")), Vec::new()).await.unwrap();
        Self { directory, config, recorder, guard }
    }

    async fn start(&self) -> Result<Fleet, FleetError> {
        Fleet::start(self.config.clone(), &self.guard, &self.recorder).await
    }

    fn exits(&self) -> Vec<Exited> {
        let facts = self.recorder.since(0);
        facts.iter().filter_map(|o| if let Fact::Exited(exit) = &o.fact { Some(exit.clone()) } else { None }).collect()
    }
}

fn header(config: &FleetConfig) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: "test".into(),
        cell: CellId::parse("fleet@envoy").unwrap(),
        scenario: ScenarioName::parse("fleet").unwrap(),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject { version: EnvoyVersion::parse("1.38.3").unwrap(), source: "path".into() },
            istio: None,
            provider: ProviderSubject { kind: "fake".into(), profile: None, version: "test".into() },
            cluster: None,
        },
        clock: ClockKind::Real,
        started: jiff::Timestamp::now(),
        proxies: expectations(&config.members, config.further_contexts),
        criteria: Criteria {
            ttl_s: 120,
            renew_every_s: None,
            lag_bound_ms: 5000,
            margin_floor_s: 12,
            margin_floor_ms: None,
            newer_generations: 2,
            generations_past_first_expiry: 2,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    }
}

/// A provider, the harness's TLS server and a fleet that is ready.
struct Mesh {
    fake: Fake,
    probes: ProbeContext,
    fleet: Fleet,
}

impl Mesh {
    async fn up(cell: &mut Cell, profile: &str) -> Self {
        let spec = serde_json::from_value(serde_json::json!({ "kind": "fake", "profile": profile })).unwrap();
        let Delivery::Socket(socket) = cell.config.delivery.clone() else { panic!("these cells have a socket") };
        let members = cell.config.members.iter().cloned();
        let identities = members.map(|(id, spiffe_id)| (id, spiffe_id.unwrap())).collect();
        let config = FakeConfig {
            socket,
            trust_domain: TRUST_DOMAIN.to_owned(),
            spec,
            identities,
            staples: false,
            by_account: false,
        };
        let fake = Fake::start(config, cell.recorder.clone()).await.unwrap();
        let roots = Roots::default();
        let bundle = fake.bundle();
        roots.replace(bundle.iter().map(|der| der.as_slice().into()));
        let server = OutboundServer::start(cell.recorder.clone(), roots.clone()).await.unwrap();
        cell.config.dialled = Dialled { server: server.addr(), authority_pem: server.authority_pem().to_owned() };
        let fleet = cell.start().await.unwrap();
        fleet.ready(soon()).await.unwrap();
        let probes = ProbeContext::new(cell.recorder.clone(), roots, server).with_patience(Duration::from_secs(30));
        Self { fake, probes, fleet }
    }

    /// Requests from each proxy to the next and to the harness, new and kept connections, all to be answered.
    async fn everybody_is_served(&self) {
        for proxy in self.fleet.proxies() {
            for _ in 0..2 {
                let (fresh, _) = probe::fresh(proxy, false, &self.probes).await;
                assert_eq!((fresh.status, fresh.resumed), (Some(200), Some(false)), "{fresh:?}");
                let kept = LongLived::open(proxy, soon()).await;
                let kept = kept.request(proxy, &self.probes).await;
                assert_eq!(kept.status, Some(200), "{kept:?}");
            }
            let shown = probe::outbound(proxy, &self.probes).await.unwrap();
            assert_eq!(shown.verified, Some(true), "{shown:?}");
            assert_eq!(shown.chain[0].uris, [proxy.spiffe_id.as_ref().unwrap().as_str()]);
            let shown = probe::inbound(proxy, TlsVersion::V1_2, &self.probes).await;
            assert_eq!(shown.chain[0].uris, [proxy.spiffe_id.as_ref().unwrap().as_str()]);
        }
    }
}

async fn contexts_with_a_certificate(proxy: &Proxy) -> usize {
    let (_, body) = proxy.admin("/certs", soon()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let spiffe_id = proxy.spiffe_id.as_ref().unwrap().as_str();
    let own = |entry: &&serde_json::Value| entry["cert_chain"][0]["subject_alt_names"][0]["uri"] == spiffe_id;
    answer["certificates"].as_array().unwrap().iter().filter(own).count()
}

async fn counter(proxy: &Proxy, name: &str) -> u64 {
    let path = format!("/stats?filter=^{}$", name.replace('.', "%5C."));
    let (_, body) = proxy.admin(&path, soon()).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    text.trim().strip_prefix(&format!("{name}: ")).unwrap_or_else(|| panic!("{name}: {text:?}")).parse().unwrap()
}

#[tokio::test]
async fn proxies_serve_each_other_by_the_certificates_of_the_provider() {
    for profile in ["generic", "tbot", "spire", "istio"] {
        let mut cell = Cell::new(2).await;
        let mesh = Mesh::up(&mut cell, profile).await;
        for proxy in mesh.fleet.proxies() {
            assert_eq!(contexts_with_a_certificate(proxy).await, proxy.contexts as usize, "{profile}");
            // The first attempt found the cluster that leads to the provider: nothing backed off.
            assert_eq!(counter(proxy, "sds.default.update_failure").await, 0, "{profile}");
            assert_eq!(counter(proxy, "sds.ROOTCA.update_failure").await, 0, "{profile}");
        }
        mesh.everybody_is_served().await;
        for proxy in mesh.fleet.proxies() {
            // Requests make no contexts; each fresh one makes its connection, those for /long-lived share one.
            assert_eq!(contexts_with_a_certificate(proxy).await, proxy.contexts as usize, "{profile}");
            assert_eq!(counter(proxy, "cluster.outbound.upstream_cx_total").await, 2);
            assert_eq!(counter(proxy, "cluster.outbound-long-lived.upstream_cx_total").await, 1);
            assert_eq!(counter(proxy, "cluster.outbound.ssl.session_reused").await, 0);
            assert_eq!(counter(proxy, "cluster.dial-out.ssl.handshake").await, 1);
        }
        // One stream per secret: every ConfigSource is the same one.
        let facts = cell.recorder.since(0);
        let streams = facts.iter().filter(|o| matches!(o.fact, Fact::StreamOpened(_))).count();
        assert_eq!(streams, 2 * mesh.fleet.proxies().len(), "{profile}");

        let renewal = mesh.fake.renew(1).await.unwrap();
        assert!(mesh.fake.answered(&renewal, soon()).await.is_empty());
        mesh.everybody_is_served().await;
        for proxy in mesh.fleet.proxies() {
            assert_eq!(contexts_with_a_certificate(proxy).await, proxy.contexts as usize, "{profile}");
        }
        mesh.fleet.stop(soon()).await.unwrap();
        assert!(cell.exits().iter().all(|exit| exit.expected));
        cell.guard.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_every_proxy_says_is_kept_without_private_keys() {
    let mut cell = Cell::new(2).await;
    let mesh = Mesh::up(&mut cell, "generic").await;
    let renewal = mesh.fake.renew(1).await.unwrap();
    assert!(mesh.fake.answered(&renewal, soon()).await.is_empty());
    mesh.fleet.collect(&cell.config.directory, soon()).await.unwrap();
    mesh.fleet.stop(soon()).await.unwrap();
    for proxy in mesh.fleet.proxies() {
        let directory = cell.config.directory.join("proxies").join(proxy.id.as_str());
        let mut names: Vec<_> =
            directory.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
        names.sort();
        let files = "bootstrap.json certs.json clusters.json config_dump.json envoy.log listeners.json \
                     server_info.json stats.txt";
        assert_eq!(names.join(" "), files);
        for name in names {
            let bytes = std::fs::read(directory.join(&name)).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            assert!(!text.contains("PRIVATE KEY") && !text.contains("LS0tLS1CRUdJTiBQUklWQVRF"), "{name}");
        }
    }
    // Nothing answers any more: that is said, and what was kept stays.
    let before = cell.recorder.len();
    mesh.fleet.collect(&cell.config.directory, soon()).await.unwrap();
    let blind = cell.recorder.since(before).iter().filter(|o| matches!(o.fact, Fact::Blind(_))).count();
    assert_eq!(blind, 12);
}

#[tokio::test]
async fn proxies_live_in_cell_time() {
    let mut cell = Cell::new(1).await;
    let offset = OffsetFile::create(&cell.config.directory).unwrap();
    cell.recorder = Recorder::new(header(&cell.config), Clock::moved(offset), None);
    let mesh = Mesh::up(&mut cell, "generic").await;
    cell.recorder.clock().advance(Duration::from_secs(7200)).unwrap();
    let info = probe::server_info(&mesh.fleet.proxies()[0], &mesh.probes).await.unwrap();
    assert!((7200..7400).contains(&info.uptime_s), "{info:?}");
    mesh.fleet.stop(soon()).await.unwrap();
}

#[tokio::test]
async fn a_restarted_proxy_is_found_where_it_was() {
    let mut cell = Cell::new(2).await;
    let mut mesh = Mesh::up(&mut cell, "generic").await;
    let before = mesh.fleet.proxies()[0].clone();
    mesh.fleet.restart(&before.id, &cell.guard, soon()).await.unwrap();
    mesh.fleet.ready(soon()).await.unwrap();
    let after = mesh.fleet.proxies()[0].clone();
    assert_ne!(before.pid, after.pid);
    assert_eq!(before, Proxy { pid: before.pid, ..after });
    mesh.everybody_is_served().await;
    let exits = cell.exits();
    assert!(exits.len() == 1 && exits[0].expected, "{exits:?}");
    mesh.fleet.stop(soon()).await.unwrap();
}

#[tokio::test]
async fn without_a_provider_a_proxy_says_which_secrets_it_waits_for() {
    let cell = Cell::new(1).await;
    let fleet = cell.start().await.unwrap();
    let error = fleet.ready(Deadline::after(Duration::from_secs(3))).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FleetError::NotReady { .. }), "{text}");
    assert!(text.contains("PRE_INITIALIZING") && text.contains("ROOTCA, default"), "{text}");
    fleet.stop(soon()).await.unwrap();
    let exits = cell.exits();
    assert!(exits.len() == 1 && exits[0].expected, "{exits:?}");
}

#[tokio::test]
async fn a_proxy_that_exits_at_once_is_an_error_with_its_last_log_lines() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut cell = Cell::new(2).await;
    let script = cell.config.directory.join("envoy");
    std::fs::write(&script, "#!/bin/sh\necho \"error initializing configuration '$2'\" >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    cell.config.envoy = script;
    let fleet = cell.start().await.unwrap();
    let error = fleet.ready(soon()).await.unwrap_err();
    let FleetError::Exited(exit) = &error else { panic!("{error}") };
    assert!(exit.code == Some(3) && !exit.expected, "{exit:?}");
    let bootstrap = format!("proxies/{}/bootstrap.json", exit.id);
    assert!(error.to_string().contains("error initializing") && error.to_string().contains(&bootstrap), "{error}");
    fleet.stop(soon()).await.unwrap();
}

#[tokio::test]
async fn a_crash_is_seen_and_recorded_at_once() {
    let cell = Cell::new(2).await;
    let fleet = cell.start().await.unwrap();
    let exited = fleet.exited();
    let victim = &fleet.proxies()[1];
    let pid = rustix::process::Pid::from_raw(victim.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = tokio::time::timeout_at(soon().instant(), exited).await.unwrap();
    assert_eq!((&exit.id, exit.pid, exit.signal, exit.expected), (&victim.id, victim.pid, Some(9), false));
    let exits = cell.exits();
    assert!(exits.len() == 1 && !exits[0].expected, "{exits:?}");
    // What waits for readiness does not wait on.
    assert!(matches!(fleet.ready(soon()).await, Err(FleetError::Exited(exit)) if exit.id == victim.id));
    fleet.stop(soon()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_before_anything_runs() {
    let mut cell = Cell::new(2).await;
    cell.config.delivery = Delivery::Socket(format!("/tmp/{}.sock", "x".repeat(120)).into());
    assert!(matches!(cell.start().await, Err(FleetError::SocketPath { .. })));

    let mut cell = Cell::new(2).await;
    cell.config.members[1].0 = cell.config.members[0].0.clone();
    assert!(matches!(cell.start().await, Err(FleetError::SameName(_))));

    let mut cell = Cell::new(2).await;
    cell.config.members.clear();
    assert!(matches!(cell.start().await, Err(FleetError::Empty)));

    let mut cell = Cell::new(1).await;
    cell.config.envoy = Utf8Path::from_path(cell.directory.path()).unwrap().join("absent");
    assert!(matches!(cell.start().await, Err(FleetError::Spawn { .. })));
    assert!(cell.recorder.is_empty());
}
