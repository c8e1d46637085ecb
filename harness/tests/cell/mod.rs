//! A cell without a run: a recorder in memory and a fake that serves a socket of its own.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses what it needs"
)]

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rotacheck::clock::{Clock, Deadline};
use rotacheck::provider::{Fake, FakeConfig, ProviderError};
use rotacheck::scenario::ProviderSpec;
use rotacheck::timeline::{
    CellId, ClockKind, Criteria, EnvoySubject, EnvoyVersion, Expectation, ExpectedJudgement, Header, Observation,
    ProviderSubject, ProxyId, Recorder, Role, SCHEMA_VERSION, ScenarioName, SpiffeId, Subject,
};

pub const TRUST_DOMAIN: &str = "demo.test";

pub struct Cell {
    pub fake: Fake,
    pub recorder: Recorder,
    pub socket: Utf8PathBuf,
    dir: tempfile::TempDir,
}

pub fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

pub fn proxy(name: &str) -> ProxyId {
    ProxyId::parse(name).unwrap()
}

pub fn identity(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/ns/demo/sa/{name}")).unwrap()
}

pub fn spec(yaml_like: serde_json::Value) -> ProviderSpec {
    serde_json::from_value(yaml_like).unwrap()
}

impl Cell {
    /// Proxies `a` and `b`; a timeline on disk, so that its bytes can be looked at.
    pub async fn start(spec: ProviderSpec) -> Cell {
        let (dir, recorder, config) = prepare(spec);
        let socket = config.socket.clone();
        let fake = Fake::start(config, recorder.clone()).await.unwrap();
        Cell { fake, recorder, socket, dir }
    }

    /// The same by files, below `private/secrets`; there is no socket.
    pub async fn start_with_files(spec: ProviderSpec) -> Cell {
        let (dir, recorder, config) = prepare(spec);
        let socket = config.socket.with_file_name("secrets");
        let fake = Fake::start_with_files(&socket, config, recorder.clone()).await.unwrap();
        Cell { fake, recorder, socket, dir }
    }

    /// The same, served by a process of `program`.
    pub async fn start_apart(program: &Utf8Path, spec: ProviderSpec) -> Result<Cell, ProviderError> {
        let (dir, recorder, config) = prepare(spec);
        let socket = config.socket.clone();
        let fake = Fake::start_apart(program, config, recorder.clone()).await?;
        Ok(Cell { fake, recorder, socket, dir })
    }

    /// Awaits an observation from `from` on; its number.
    pub async fn seen(&self, from: usize, mut is_it: impl FnMut(&Observation) -> bool) -> Observation {
        let mut found = None;
        self.recorder
            .await_until(from, deadline(), |o| {
                if is_it(o) {
                    found = Some(o.clone());
                }
                found.is_some()
            })
            .await;
        found.expect("it should have been seen within a minute")
    }

    /// The timeline's file, as it is on disk.
    pub fn timeline(&self) -> String {
        self.recorder.flush();
        std::fs::read_to_string(self.dir.path().join("timeline.ndjson")).unwrap()
    }

    /// Every file of the cell's directory.
    pub fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }
}

fn prepare(spec: ProviderSpec) -> (tempfile::TempDir, Recorder, FakeConfig) {
    let dir = tempfile::tempdir().unwrap();
    let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    let out = std::fs::File::create(root.join("timeline.ndjson")).unwrap();
    let recorder = Recorder::new(header(), Clock::real(), Some(out));
    let socket = root.join("private/provider.sock");
    let identities = ["a", "b"].map(|name| (proxy(name), identity(name))).to_vec();
    (
        dir,
        recorder,
        FakeConfig { socket, trust_domain: TRUST_DOMAIN.into(), spec, identities, staples: false, by_account: false },
    )
}

fn header() -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: "0.0.0".into(),
        cell: CellId::parse("provider@test").unwrap(),
        scenario: ScenarioName::parse("provider").unwrap(),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject { version: EnvoyVersion::parse("1.38.3").unwrap(), source: "none".into() },
            istio: None,
            provider: ProviderSubject { kind: "fake".into(), profile: None, version: "0.0.0".into() },
            cluster: None,
        },
        clock: ClockKind::Real,
        started: jiff::Timestamp::now(),
        proxies: Vec::new(),
        criteria: Criteria {
            ttl_s: 120,
            renew_every_s: Some(60),
            lag_bound_ms: 5000,
            margin_floor_s: 12,
            margin_floor_ms: None,
            newer_generations: 1,
            generations_past_first_expiry: 1,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    }
}
