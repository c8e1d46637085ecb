//! A fleet of real Envoys. Needs `ENVOY_PATH`.

use std::net::SocketAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rotacheck::clock::{Clock, Deadline};
use rotacheck::fleet::{Dialled, Fleet, FleetConfig, FleetError, expectations};
use rotacheck::proc::Guard;
use rotacheck::scenario::FleetSpec;
use rotacheck::timeline::*;
use rotacheck::xds::Delivery;

fn envoy() -> Utf8PathBuf {
    let path = std::env::var("ENVOY_PATH").expect("ENVOY_PATH must name an Envoy executable");
    Utf8PathBuf::from(path)
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
            envoy: envoy(),
            directory: path.to_owned(),
            delivery: Delivery::Socket(path.join("provider.sock")),
            members: spec.members(),
            further_contexts: 3,
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
        },
        clock: ClockKind::Real,
        started: jiff::Timestamp::now(),
        proxies: expectations(&config.members, config.further_contexts),
        criteria: Criteria {
            ttl_s: 120,
            renew_every_s: None,
            lag_bound_ms: 5000,
            margin_floor_s: 12,
            newer_generations: 2,
            generations_past_first_expiry: 2,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None },
    }
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
