//! What can be run at all: combinations that could only flake are `unsupported`, with the reason, never failed.

use std::sync::OnceLock;

use crate::proc::private_mounts;
use crate::scenario::{ClockKind, FleetKind, ProviderKind, Scenario, Span};

/// Shortest lifetime of a leaf that can be told from noise.
struct TtlFloor {
    provider: ProviderKind,
    clock: ClockKind,
    floor: Span,
    why: &'static str,
}

const TTL_FLOORS: &[TtlFloor] = &[
    TtlFloor {
        provider: ProviderKind::Fake,
        clock: ClockKind::Virtual,
        floor: Span::seconds(20),
        why: "samples take real time too, and a busy machine can need seconds for one",
    },
    TtlFloor {
        provider: ProviderKind::Fake,
        clock: ClockKind::Real,
        floor: Span::seconds(6),
        why: "certificates count whole seconds, and Envoy's back-off alone can take one",
    },
    TtlFloor {
        provider: ProviderKind::Files,
        clock: ClockKind::Virtual,
        floor: Span::seconds(20),
        why: "samples take real time too, and a busy machine can need seconds for one",
    },
    TtlFloor {
        provider: ProviderKind::Files,
        clock: ClockKind::Real,
        floor: Span::seconds(6),
        why: "certificates count whole seconds",
    },
    TtlFloor {
        provider: ProviderKind::IstioCa,
        clock: ClockKind::Real,
        floor: Span::seconds(20),
        why: "Istio's agents renew at half of it, and ask again a second and more after a refusal",
    },
    TtlFloor {
        provider: ProviderKind::Spire,
        clock: ClockKind::Real,
        floor: Span::seconds(15),
        why: "SPIRE's agent looks for what is due once a second, at half of a lifetime that begins 10 s early: below \
              it, what it renews is as good as expired when a busy machine gets to it",
    },
    TtlFloor {
        provider: ProviderKind::External,
        clock: ClockKind::Real,
        floor: Span::seconds(6),
        why: "certificates count whole seconds, and Envoy's back-off alone can take one",
    },
];

/// Whose time can't be moved.
const IN_REAL_TIME: &[(ProviderKind, &str)] = &[
    (ProviderKind::External, "an external provider lives"),
    (ProviderKind::IstioCa, "istiod and Istio's agents live"),
    (ProviderKind::Spire, "SPIRE lives"),
];

/// What a scenario may ask for that only an Envoy configured by the harness itself has.
struct OnlyProcess {
    asks: fn(&Scenario) -> bool,
    why: &'static str,
}

const ONLY_PROCESS: &[OnlyProcess] = &[
    OnlyProcess {
        asks: |s| s.provider.kind == ProviderKind::Files,
        why: "Istio's agent subscribes to a workload socket; files it would serve itself",
    },
    OnlyProcess {
        asks: |s| s.fleet.duplicate_subscription,
        why: "istiod writes every ConfigSource alike: there is no second subscription",
    },
    OnlyProcess { asks: |s| s.fleet.resumption, why: "Istio's clusters resume sessions as it is" },
    OnlyProcess { asks: |s| s.fleet.must_staple, why: "Istio's listeners staple no OCSP response" },
    OnlyProcess { asks: |s| s.fleet.foreign_certificate, why: "istiod gives its listeners no certificate from files" },
    OnlyProcess { asks: |s| s.fleet.late_listener.is_some(), why: "listeners come from istiod, all at once" },
    OnlyProcess { asks: |s| s.fleet.socket_file_mounted, why: "Istio's agent sees the socket through its directory" },
];

/// Whether processes can have mounts of their own; tried once.
static MOUNTS: OnceLock<Result<(), String>> = OnceLock::new();

/// Why this scenario makes no sense on this harness; `None` if it does.
pub fn unsupported(scenario: &Scenario) -> Option<String> {
    let (ttl, clock, provider) = (scenario.provider.ttl(), scenario.clock, scenario.provider.kind);
    if clock == ClockKind::Virtual
        && let Some((_, who)) = IN_REAL_TIME.iter().find(|(kind, _)| *kind == provider)
    {
        return Some(format!("{who} in the machine's time, which can't be moved: use a real clock"));
    }
    if provider == ProviderKind::IstioCa && scenario.fleet.kind != FleetKind::Agent {
        return Some(
            "certificates of Istio's own CA reach a proxy through Istio's agent only: --topology agent".into(),
        );
    }
    if scenario.fleet.socket_file_mounted
        && let Err(why) = MOUNTS.get_or_init(private_mounts)
    {
        return Some(format!("proxies can't have mounts of their own here ({why}); that takes CAP_SYS_ADMIN"));
    }
    if scenario.fleet.kind == FleetKind::Agent
        && let Some(row) = ONLY_PROCESS.iter().find(|row| (row.asks)(scenario))
    {
        return Some(row.why.to_owned());
    }
    if scenario.fleet.kind != FleetKind::Agent && (scenario.fleet.agents_first || scenario.fleet.files_socket_blocked) {
        return Some("it is about Istio's agent: --topology agent".to_owned());
    }
    let row = TTL_FLOORS.iter().find(|row| row.provider == provider && row.clock == clock && ttl < row.floor);
    let too_short = row.map(|row| format!("a ttl of {ttl} is below the floor of {}: {}", row.floor, row.why));
    too_short.or_else(|| scenario.too_long_in_real_time())
}
