//! A run with one cell of every outcome, for tests of whatever reads runs.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod night;

pub use night::{Night, recording};

use std::collections::BTreeMap;

use super::{Host, RunRecord};
use crate::plan::{CellReport, Outcome};
use crate::timeline::*;
use crate::verdict::*;

/// The Envoys of the run.
pub const VERSIONS: [&str; 5] = ["1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0"];

/// What is known of it as a whole.
pub fn record() -> RunRecord {
    RunRecord {
        id: "20261124T173555Z-3f9c".into(),
        directory: "/home/ada/rotacheck-runs/20261124T173555Z-3f9c".into(),
        started: "2026-11-24T17:35:55Z".parse().unwrap(),
        duration_ms: Some(9_420),
        rotacheck: "0.1.0".into(),
        command_line: vec!["rotacheck".into(), "run".into()],
        jobs: 2,
        interrupted: false,
        require_controls: false,
        host: Host { os: "Linux 6.1".into(), arch: "x86_64".into(), cpus: 2, memory_bytes: 24 << 30 },
        digests: BTreeMap::from([("envoy 1.38.3".into(), "ab".repeat(32))]),
        parts: Vec::new(),
        harness_cpu_ms: Some(2_100),
        children_cpu_ms: Some(14_800),
    }
}

/// This Envoy, with the fake as its provider.
pub fn subject(envoy: &str) -> Subject {
    Subject {
        envoy: EnvoySubject { version: EnvoyVersion::parse(envoy).unwrap(), source: "pip".into() },
        istio: None,
        provider: ProviderSubject { kind: "fake".into(), profile: Some("generic".into()), version: "0.1.0".into() },
        cluster: None,
    }
}

/// A cell that ended like this.
pub fn cell(scenario: &str, envoy: &str, role: Role, outcome: Outcome, as_expected: bool) -> CellReport {
    let fails = role == Role::Control;
    let judged = match outcome {
        Outcome::Pass | Outcome::UnexpectedPass => Some(Judgement::Pass),
        Outcome::Fail | Outcome::Known => Some(Judgement::Fail),
        Outcome::Inconclusive => Some(Judgement::Inconclusive),
        Outcome::Unsupported | Outcome::Error | Outcome::NotRun => None,
    };
    CellReport {
        id: CellId::parse(&format!("{scenario}@envoy-{envoy}")).unwrap(),
        scenario: ScenarioName::parse(scenario).unwrap(),
        summary: format!("what {scenario} shows"),
        role,
        subject: subject(envoy),
        disclosed: Vec::new(),
        clock: ClockKind::Virtual,
        expect: Expectation {
            judgement: if fails { ExpectedJudgement::Fail } else { ExpectedJudgement::Pass },
            layer: fails.then_some(Layer::Issued),
            diagnosis: fails.then(|| "resend-cached".to_owned()),
            noted: Vec::new(),
        },
        outcome,
        as_expected,
        reason: match outcome {
            Outcome::Unsupported => Some("the kernel has no such socket".into()),
            Outcome::Error => Some("envoy exited with code 1 before it was live".into()),
            Outcome::NotRun => Some("the run was interrupted before it was begun".into()),
            _ => None,
        },
        verdict: judged.map(verdict),
        duration_ms: 640,
        cell_time_s: 39_600,
        command: format!("rotacheck run {scenario} --envoy {envoy}"),
    }
}

/// What a cell that was judged like this proves.
pub fn verdict(judgement: Judgement) -> Verdict {
    let served = |role| {
        let leaf = ServedLeaf {
            fingerprint: Fingerprint::of_der(b"first"),
            serial: Serial::parse("4a77000000000000000000000000cde1").unwrap(),
            not_after: "2026-11-25T04:10:05Z".parse().unwrap(),
            expired: judgement == Judgement::Fail,
        };
        (role, leaf)
    };
    let mut verdict = Verdict {
        judgement,
        layer: None,
        diagnosis: None,
        candidates: Vec::new(),
        headline: "33 generations served by both proxies in both roles".into(),
        findings: vec![Finding {
            check: "renewed-past-first-expiry".into(),
            result: CheckResult::Holds,
            proxy: Some(ProxyId::parse("a").unwrap()),
            secret: Some(SecretName::default_svid()),
            message: "32 newer generations served".into(),
            evidence: vec![40, 52],
        }],
        contradictions: Vec::new(),
        hypotheses: Vec::new(),
        missing: Vec::new(),
        proxies: vec![ProxySummary {
            id: ProxyId::parse("a").unwrap(),
            spiffe_id: Some("spiffe://lab.example/ns/demo/sa/a".into()),
            generations_served: 33,
            generations_issued: Some(33),
            last_served: BTreeMap::from([served(TlsRole::Inbound), served(TlsRole::Outbound)]),
            contexts: Some((48, 48)),
            restarts: 0,
        }],
        lag_ms: BTreeMap::from([(Layer::Served, LagSummary { count: 66, median: 3.2, max: 11.0 })]),
        margin_ms: Some(2_399_000),
    };
    match judgement {
        Judgement::Pass => {}
        Judgement::Inconclusive => {
            verdict.headline = "no handshake past the first expiry".into();
            verdict.missing = vec!["a full handshake after 04:10:05".into()];
            verdict.findings[0].result = CheckResult::Undecided;
        }
        Judgement::Fail => {
            verdict.layer = Some(Layer::Issued);
            verdict.diagnosis = Some("resend-cached".into());
            verdict.candidates = vec![Candidate {
                mode: "resend-cached".into(),
                confidence: Confidence::Certain,
                evidence: vec![12, 30, 31],
                would_decide: None,
            }];
            verdict.headline = "provider re-sent serial 4a77..cde1 (31 times) under new versions; config_dump said \
                                14:10:56, every handshake served a certificate expired since 04:10:05"
                .into();
            verdict.findings[0].result = CheckResult::Violated;
            verdict.findings[0].message = "no newer generation was served".into();
            verdict.contradictions = vec![Contradiction {
                claim: "config_dump: updated at 14:10:56".into(),
                against: "31 handshakes: expired since 04:10:05".into(),
                evidence: vec![30, 31],
            }];
            let answers = [
                (YesNo::No, "a subscribed to default at 03:10:05"),
                (YesNo::No, "the stream of a for default, opened at 03:10:05, was open when it failed"),
                (YesNo::Unseen, "nothing tells where the TLS contexts of a have their certificate from"),
                (YesNo::No, "no agent of Istio takes part: a asks the provider itself"),
            ];
            verdict.hypotheses = Suspicion::ALL
                .into_iter()
                .zip(answers)
                .map(|(suspicion, (answer, observation))| Hypothesis {
                    suspicion,
                    answer,
                    observation: observation.into(),
                    evidence: vec![12],
                })
                .collect();
            verdict.proxies[0].generations_served = 1;
            verdict.proxies[0].generations_issued = Some(1);
            verdict.margin_ms = None;
        }
    }
    verdict
}

/// Each way in which a cell can end, once; then two more that pass.
pub fn every_outcome() -> Vec<CellReport> {
    use Outcome::*;
    use Role::*;
    let mut cells = vec![
        cell("rotation", "1.36.4", Conformance, Pass, true),
        cell("rotation", "1.37.0", Conformance, Pass, true),
        cell("rotation", "1.38.3", Conformance, Fail, false),
        cell("rotation", "1.39.3", Conformance, Inconclusive, false),
        cell("rotation", "1.40.0", Conformance, Known, true),
        cell("incident", "1.36.4", Control, Fail, true),
        cell("incident", "1.37.0", Control, Pass, false),
        cell("incident", "1.38.3", Control, Fail, false),
        cell("incident", "1.39.3", Control, Error, false),
        cell("incident", "1.40.0", Control, NotRun, false),
        cell("stream-closed-once", "1.36.4", Conformance, UnexpectedPass, false),
        cell("stream-closed-once", "1.37.0", Conformance, Unsupported, false),
        cell("stream-closed-once", "1.38.3", Conformance, Pass, true),
    ];
    let misblamed = cells[7].verdict.as_mut().unwrap();
    (misblamed.layer, misblamed.diagnosis) = (Some(Layer::Sent), Some("issues-never-pushes".into()));
    cells
}

/// A matrix of three Envoys, two Istios and none, three providers; and the incident, which one Envoy tells otherwise.
pub fn agents() -> Vec<CellReport> {
    let istio = |day: &str| IstioSubject {
        version: format!("v0.0.0-{day}124520-eed52ebb66ad"),
        source: "go".into(),
        name: Some(format!("1.31-dev.{day}")),
    };
    let istios = [None, Some(istio("20260423")), Some(istio("20260827"))];
    let mut cells = Vec::new();
    for envoy in ["1.36.4", "1.38.3", "1.40.0"] {
        for istio in &istios {
            for kind in ["fake", "istio-ca", "spire"] {
                let alone = istio.is_none() && kind == "istio-ca";
                let outcome = if alone { Outcome::Unsupported } else { Outcome::Pass };
                let mut cell = cell("rotation", envoy, Role::Conformance, outcome, true);
                cell.subject.provider = ProviderSubject { kind: kind.into(), profile: None, version: "1".into() };
                cells.push(behind(istio.as_ref(), cell));
            }
            let name = if istio.is_some() { "agent-incident" } else { "incident" };
            let mut incident = cell(name, envoy, Role::Control, Outcome::Fail, true);
            incident.subject.provider.profile = Some("tbot".into());
            if envoy != "1.36.4" {
                incident.verdict.as_mut().unwrap().contradictions.clear();
            }
            cells.push(behind(istio.as_ref(), incident));
        }
    }
    cells
}

fn behind(istio: Option<&IstioSubject>, mut cell: CellReport) -> CellReport {
    cell.subject.istio = istio.cloned();
    if istio.is_some() {
        let disclosure = |name: &str, text: &str| Disclosure { name: name.into(), text: text.into() };
        cell.disclosed = vec![
            disclosure(
                "off-pair",
                &format!("off-pair: Istio 1.31 ships Envoy 1.39, and this one is {}", cell.subject.envoy.version),
            ),
            disclosure("filters-off", "filters that only Istio's build of Envoy has are switched off"),
        ];
    }
    cell
}
