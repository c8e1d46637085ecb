//! Probes on real Envoys: the one that `ENVOY_PATH` names, or one from the lock file.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rotacheck::artifact::{Lock, Store, StoreOptions};
use rotacheck::clock::{Clock, Deadline, OffsetFile};
use rotacheck::fleet::{Dialled, Fleet, FleetConfig, Proxy, expectations};
use rotacheck::probe::{self, Depth, ExpectedLeaf, OutboundServer, ProbeContext, ProxySample, Roots};
use rotacheck::proc::Guard;
use rotacheck::provider::{Fake, FakeConfig};
use rotacheck::scenario::{FleetSpec, ProviderSpec, TRUST_DOMAIN};
use rotacheck::timeline::EnvoyRequest;
use rotacheck::timeline::*;
use rotacheck::xds::Delivery;

const TTL: Duration = Duration::from_secs(120);

/// Generous: nothing here is timed.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A pair of Envoys in moved time, with a provider and all probes. Ends with its guard.
struct Mesh {
    _directory: tempfile::TempDir,
    _guard: Guard,
    fake: Fake,
    fleet: Fleet,
    probes: ProbeContext,
    recorder: Recorder,
}

impl Mesh {
    async fn up(profile: &str) -> Self {
        let request = EnvoyRequest::from_environment().unwrap_or_else(|| "1.38.3".parse().unwrap());
        let store = Store::open(StoreOptions { cache: None, lock: Lock::embedded(), offline: false }).unwrap();
        let envoy = store.envoy(&request, &|_| {}).await.unwrap().path;
        Self::with(envoy, profile).await
    }

    async fn with(envoy: Utf8PathBuf, profile: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        let members = FleetSpec::default().members();
        let clock = Clock::moved(OffsetFile::create(&path).unwrap());
        let known: Vec<_> = members.iter().cloned().map(|(id, spiffe_id)| (id, Some(spiffe_id))).collect();
        let recorder = Recorder::new(header(&known), clock, None);
        let socket = path.join("provider.sock");
        let spec: ProviderSpec =
            serde_json::from_value(serde_json::json!({ "kind": "fake", "profile": profile, "ttl": "2m" })).unwrap();
        let config = FakeConfig {
            socket: socket.clone(),
            trust_domain: TRUST_DOMAIN.to_owned(),
            spec,
            identities: members.clone(),
            staples: false,
            by_account: false,
        };
        let fake = Fake::start(config, recorder.clone()).await.unwrap();
        let roots = Roots::default();
        roots.replace(fake.bundle().iter().map(|der| der.as_slice().into()));
        let server = OutboundServer::start(recorder.clone(), roots.clone()).await.unwrap();
        let config = FleetConfig {
            envoy,
            directory: path,
            delivery: Delivery::Socket(socket.clone()),
            members: known,
            identity: None,
            further_contexts: 2,
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
            dialled: Dialled { server: server.addr(), authority_pem: server.authority_pem().to_owned() },
        };
        let guard = Guard::start(Utf8Path::new(env!("CARGO_BIN_EXE_rotacheck")), Vec::new()).await.unwrap();
        let fleet = Fleet::start(config, &guard, &recorder).await.unwrap();
        let probes = ProbeContext::new(recorder.clone(), roots, server)
            .with_socket(socket)
            .with_patience(Duration::from_secs(30));
        Self { _directory: directory, _guard: guard, fake, fleet, probes, recorder }
    }

    async fn ready(self) -> Self {
        self.fleet.ready(soon()).await.unwrap();
        assert!(self.fake.settled(soon()).await.is_empty());
        self
    }

    fn proxies(&self) -> &[Proxy] {
        self.fleet.proxies()
    }

    async fn sample(&self) -> Vec<ProxySample> {
        probe::sample(self.proxies(), &self.probes, Depth::Collect).await
    }

    fn pass(&self, time: Duration) {
        self.recorder.clock().advance(time).unwrap();
    }

    async fn renew(&self, number: u32) {
        let renewal = self.fake.renew(number).await.unwrap();
        assert!(self.fake.answered(&renewal, soon()).await.is_empty());
    }

    /// The leaf that was sent last to each proxy.
    fn sent(&self) -> BTreeMap<ProxyId, ExpectedLeaf> {
        let mut sent = BTreeMap::new();
        for o in self.recorder.since(0) {
            let (Fact::Sent(response), Some(proxy)) = (&o.fact, &o.proxy) else { continue };
            for secret in &response.secrets {
                if let Payload::Certificate { chain, .. } = &secret.payload {
                    sent.insert(proxy.clone(), ExpectedLeaf { cert: chain[0].clone() });
                }
            }
        }
        sent
    }

    fn blind(&self) -> Vec<Blind> {
        let all = self.recorder.since(0);
        all.iter().filter_map(|o| if let Fact::Blind(blind) = &o.fact { Some(blind.clone()) } else { None }).collect()
    }
}

fn header(members: &[(ProxyId, Option<SpiffeId>)]) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: "test".into(),
        cell: CellId::parse("probe@envoy").unwrap(),
        scenario: ScenarioName::parse("probe").unwrap(),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject { version: EnvoyVersion::parse("1.38.3").unwrap(), source: "path".into() },
            istio: None,
            provider: ProviderSubject { kind: "fake".into(), profile: None, version: "test".into() },
            cluster: None,
        },
        clock: ClockKind::Virtual,
        started: jiff::Timestamp::now(),
        proxies: expectations(members, 2),
        criteria: Criteria {
            ttl_s: TTL.as_secs(),
            renew_every_s: Some(60),
            lag_bound_ms: 5000,
            margin_floor_s: 12,
            margin_floor_ms: None,
            newer_generations: 2,
            generations_past_first_expiry: 2,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    }
}

/// The sample shows this leaf wherever a healthy proxy shows it.
fn healthy(sample: &ProxySample, proxy: &Proxy, leaf: &ExpectedLeaf) {
    assert!(sample.serves(leaf, proxy), "{sample:#?}");
    for shown in sample.inbound.iter().chain(&sample.outbound) {
        assert_eq!((shown.verified, &shown.error, shown.resumed), (Some(true), &None, false));
    }
    let versions: Vec<_> = sample.inbound.iter().map(|h| h.tls.as_str()).collect();
    assert_eq!(versions, ["TLSv1_2", "TLSv1_3"]);

    let certs = sample.certs.as_ref().unwrap();
    let own: Vec<_> = certs.leaves.iter().filter(|l| l.uris == [proxy.spiffe_id.as_ref().unwrap().as_str()]).collect();
    assert_eq!((own.len(), own[0].contexts), (1, proxy.contexts), "{certs:?}");
    // The authority by which the harness's server is trusted, and the provider's.
    assert_eq!(certs.authorities.len(), 2);

    let dump = &sample.config_dump.as_ref().unwrap().secrets;
    let svid = dump.iter().find(|s| s.name == SecretName::default_svid()).unwrap();
    assert_eq!(svid.chain[0].fingerprint, leaf.cert.fingerprint);
    let bundle = dump.iter().find(|s| s.name == SecretName::root_ca()).unwrap();
    assert_eq!((bundle.state.as_str(), bundle.roots.len()), ("active", 1));

    assert_eq!(sample.server_info.as_ref().unwrap().state, "LIVE");
    assert_eq!(sample.listeners.as_ref().unwrap().listeners.len(), 3);
    let (fresh, kept) = (sample.fresh.as_ref().unwrap(), sample.long_lived.as_ref().unwrap());
    assert_eq!((fresh.status, fresh.resumed, kept.status), (Some(200), Some(false), Some(200)));
}

#[tokio::test]
async fn a_sample_shows_every_layer_before_and_after_a_rotation() {
    for profile in ["generic", "tbot"] {
        let mesh = Mesh::up(profile).await.ready().await;
        let first = mesh.sent();
        assert!(probe::settle(mesh.proxies(), &mesh.probes, &first, soon()).await);
        for (sample, proxy) in mesh.sample().await.iter().zip(mesh.proxies()) {
            healthy(sample, proxy, &first[&proxy.id]);
            assert_eq!(sample.receipt, None, "the first uptime is the baseline");
        }

        mesh.pass(TTL / 2);
        mesh.renew(1).await;
        let second = mesh.sent();
        assert_ne!(first, second);
        assert!(probe::settle(mesh.proxies(), &mesh.probes, &second, soon()).await);
        for (sample, proxy) in mesh.sample().await.iter().zip(mesh.proxies()) {
            healthy(sample, proxy, &second[&proxy.id]);
            assert!(!sample.serves(&first[&proxy.id], proxy));
            let receipt = sample.receipt.as_ref().unwrap();
            assert!(receipt.followed && receipt.expected_offset_s == 60, "{receipt:?}");
            let stats = &sample.stats.as_ref().unwrap().values;
            assert_eq!(stats["sds.default.update_success"], 2, "{profile}");
            assert_eq!(stats["sds.default.control_plane.connected_state"], 1, "{profile}");
            assert_eq!(stats["sds.default.update_rejected"], 0, "{profile}");
        }
        // One connection of each proxy, all its streams on it.
        let peers = probe::census(mesh.proxies(), &mesh.probes).await.unwrap();
        let mut pids: Vec<_> = mesh.proxies().iter().map(|p| p.pid).collect();
        pids.sort_unstable();
        assert_eq!(peers.pids, pids);
        assert_eq!(mesh.blind(), [], "{profile}");
        mesh.fleet.stop(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn an_expired_leaf_goes_on_being_seen_while_kept_connections_mask_it() {
    let mesh = Mesh::up("generic").await.ready().await;
    let leaf = mesh.sent();
    mesh.sample().await;
    mesh.pass(TTL + Duration::from_secs(5));
    for (sample, proxy) in mesh.sample().await.iter().zip(mesh.proxies()) {
        assert!(sample.serves(&leaf[&proxy.id], proxy), "{sample:#?}");
        for shown in sample.inbound.iter().chain(&sample.outbound) {
            assert_eq!(shown.verified, Some(false));
            assert!(shown.error.as_ref().unwrap().starts_with("it expired at"), "{shown:?}");
        }
        assert_eq!(sample.fresh.as_ref().unwrap().status, Some(503));
        assert_eq!(sample.long_lived.as_ref().unwrap().status, Some(200));
        assert!(sample.receipt.as_ref().unwrap().followed);
        let refused = &sample.stats.as_ref().unwrap().values["listener.inbound.ssl.fail_verify_error"];
        assert!(*refused > 0 || sample.stats.as_ref().unwrap().values["cluster.outbound.ssl.fail_verify_error"] > 0);
    }
    mesh.fleet.stop(soon()).await.unwrap();
}

#[tokio::test]
async fn a_frozen_proxy_is_given_up_at_the_deadline_everywhere() {
    let mesh = Mesh::up("generic").await.ready().await;
    let frozen = &mesh.proxies()[0];
    let pid = rustix::process::Pid::from_raw(frozen.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // A group stop is complete when its last thread has taken it.
    let deadline = soon();
    let tasks = || procfs::process::Process::new(frozen.pid).unwrap().tasks().unwrap();
    while tasks().any(|task| task.unwrap().stat().unwrap().state != 'T') {
        assert!(!deadline.passed());
        tokio::task::yield_now().await;
    }

    let server = OutboundServer::start(mesh.recorder.clone(), Roots::default()).await.unwrap();
    let impatient =
        ProbeContext::new(mesh.recorder.clone(), Roots::default(), server).with_patience(Duration::from_millis(200));
    let sample = probe::sample(std::slice::from_ref(frozen), &impatient, Depth::Collect).await.remove(0);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();

    for shown in &sample.inbound {
        assert!(shown.chain.is_empty() && shown.error.as_ref().unwrap().starts_with("no answer within"), "{shown:?}");
    }
    assert!(sample.certs.is_none() && sample.outbound.is_none() && sample.config_dump.is_none());
    let layers: Vec<_> = mesh.blind().iter().filter_map(|b| b.layer).collect();
    for layer in [Layer::Loaded, Layer::Dumped, Layer::Served] {
        assert!(layers.contains(&layer), "{layer} is missing in {layers:?}");
    }
    mesh.fleet.stop(soon()).await.unwrap();
}

/// Not a check: records what the Envoy of `ENVOY_PATH` answers, for the parsers' golden tests.
#[tokio::test]
#[ignore = "writes fixtures/; run it for a new Envoy version"]
async fn record_the_answers_of_an_envoy() {
    let mesh = Mesh::up("generic").await.ready().await;
    mesh.renew(1).await;
    mesh.sample().await;
    let proxy = &mesh.proxies()[0];
    let ask = async |proxy: &Proxy, path: &str| {
        let (status, body) = proxy.admin(path, soon()).await.unwrap();
        assert_eq!(status.as_u16(), 200, "{path}");
        String::from_utf8(body.to_vec()).unwrap()
    };
    let mut info: serde_json::Value = serde_json::from_str(&ask(proxy, "/server_info").await).unwrap();
    // A hundred kilobytes that say which extensions are linked in.
    info["node"]["extensions"].as_array_mut().unwrap().truncate(1);
    info["command_line_options"] = serde_json::json!({ "concurrency": 1 });
    let version = info["version"].as_str().unwrap().split('/').nth(1).unwrap().to_owned();
    let fixtures = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(format!("envoy-{version}"));
    std::fs::create_dir_all(&fixtures).unwrap();
    let keep = |name: &str, text: &str| std::fs::write(fixtures.join(name), text).unwrap();

    keep("server_info.json", &(serde_json::to_string_pretty(&info).unwrap() + "\n"));
    keep("certs.json", &ask(proxy, "/certs").await);
    keep("listeners.json", &ask(proxy, "/listeners?format=json").await);
    keep("config_dump.json", &ask(proxy, "/config_dump?resource=dynamic_active_secrets").await);
    keep("stats.txt", &ask(proxy, probe::STATS_PATH).await);
    keep("stats_used.txt", &ask(proxy, &format!("{}&usedonly", probe::STATS_PATH)).await);
    keep("stats.json", &ask(proxy, &format!("{}&format=json", probe::STATS_PATH)).await);
    mesh.fleet.stop(soon()).await.unwrap();

    let mesh = Mesh::up("tbot").await.ready().await;
    let dump = ask(&mesh.proxies()[0], "/config_dump?resource=dynamic_active_secrets").await;
    keep("config_dump_spiffe.json", &dump);
    mesh.fleet.stop(soon()).await.unwrap();
}
