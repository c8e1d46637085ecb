//! What can be run at all: combinations that could only flake are `unsupported`, with the reason, never failed.

use std::sync::OnceLock;

use crate::proc::private_mounts;
use crate::scenario::{ClockKind, Fault, NodeAttestation, ProviderAction, ProviderKind, Scenario, Span};

/// Shortest lifetime of a leaf that can be told from noise.
struct TtlFloor {
    provider: ProviderKind,
    clock: ClockKind,
    floor: Span,
    /// The version with which this was measured, of a provider that has one of its own.
    measured: Option<&'static str>,
    why: &'static str,
}

const TTL_FLOORS: &[TtlFloor] = &[
    TtlFloor {
        provider: ProviderKind::Fake,
        clock: ClockKind::Virtual,
        floor: Span::seconds(20),
        measured: None,
        why: "samples take real time too, and a busy machine can need seconds for one",
    },
    TtlFloor {
        provider: ProviderKind::Fake,
        clock: ClockKind::Real,
        floor: Span::seconds(6),
        measured: None,
        why: "certificates count whole seconds, and Envoy's back-off alone can take one",
    },
    TtlFloor {
        provider: ProviderKind::Files,
        clock: ClockKind::Virtual,
        floor: Span::seconds(20),
        measured: None,
        why: "samples take real time too, and a busy machine can need seconds for one",
    },
    TtlFloor {
        provider: ProviderKind::Files,
        clock: ClockKind::Real,
        floor: Span::seconds(6),
        measured: None,
        why: "certificates count whole seconds",
    },
    TtlFloor {
        provider: ProviderKind::IstioCa,
        clock: ClockKind::Real,
        floor: Span::seconds(20),
        measured: Some("Istio 1.31-dev.20260827"),
        why: "its agents renew at half of it, and ask again a second and more after a refusal",
    },
    TtlFloor {
        provider: ProviderKind::Spire,
        clock: ClockKind::Real,
        floor: Span::seconds(15),
        measured: Some("SPIRE 1.13.3"),
        why: "its agent looks for what is due once a second, at half of a lifetime that begins 10 s early; with 12 s, one \
              of two runs on two busy cores saw too few renewals to prove anything",
    },
    TtlFloor {
        provider: ProviderKind::Tbot,
        clock: ClockKind::Real,
        floor: Span::seconds(20),
        measured: None,
        why: "tbot asks its cluster, over the network, for each stream anew; not measured with a real one",
    },
    TtlFloor {
        provider: ProviderKind::External,
        clock: ClockKind::Real,
        floor: Span::seconds(6),
        measured: None,
        why: "certificates count whole seconds, and Envoy's back-off alone can take one",
    },
];

/// Whose time can't be moved.
const IN_REAL_TIME: &[(ProviderKind, &str)] = &[
    (ProviderKind::External, "an external provider lives"),
    (ProviderKind::IstioCa, "istiod and Istio's agents live"),
    (ProviderKind::Spire, "SPIRE lives"),
    (ProviderKind::Tbot, "tbot lives"),
];

/// Something that is known to be wrong in versions of a provider.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownDefect {
    provider: ProviderKind,
    /// Affected from (inclusive), and until before: one pair for each line of releases.
    versions: &'static [(&'static str, &'static str)],
    /// The mode that it shows as.
    pub mode: &'static str,
    /// What happens, and where it is fixed.
    pub what: &'static str,
}

const KNOWN_DEFECTS: &[KnownDefect] = &[KnownDefect {
    provider: ProviderKind::Tbot,
    versions: &[("0.0.0", "17.7.14"), ("18.0.0", "18.6.4")],
    mode: "resend-cached",
    what: "sends Envoy the certificate that it has, under a new version, when a renewal is due; fixed in 17.7.14 and \
           18.6.4 (gravitational/teleport#62813)",
}];

/// What is known to be wrong in this version of the provider, as its own program says the version.
pub fn known_defects(provider: ProviderKind, version: &str) -> Vec<&'static KnownDefect> {
    let Ok(version) = semver::Version::parse(version) else { return Vec::new() };
    let at = |text: &str| semver::Version::parse(text).expect("the versions of the table are versions");
    let affected = |defect: &&KnownDefect| {
        defect.provider == provider
            && defect.versions.iter().any(|(from, until)| version >= at(from) && version < at(until))
    };
    KNOWN_DEFECTS.iter().filter(affected).collect()
}

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

/// Faults of the socket's own, and not of the process behind it.
const SOCKET_ITSELF: [Fault; 3] = [Fault::SocketGone, Fault::SocketReplaced, Fault::SocketUnlinked];

/// What SPIRE's server is told to do, and is not done to its programs.
const TOLD_TO_SPIRE: [ProviderAction; 7] = [
    ProviderAction::DeleteEntry,
    ProviderAction::UpdateEntry,
    ProviderAction::PrepareCa,
    ProviderAction::ActivateCa,
    ProviderAction::TaintCa,
    ProviderAction::RevokeCa,
    ProviderAction::ResendCached,
];

/// What can't be had, or would not be what it says, where the proxies are pods.
const NOT_IN_A_CLUSTER: &[OnlyProcess] = &[
    OnlyProcess {
        asks: |s| s.provider.kind == ProviderKind::Files,
        why: "in a kind cluster, proxies have their certificates from a socket",
    },
    OnlyProcess {
        asks: |s| s.provider.tbot.as_ref().is_some_and(|tbot| tbot.program.is_some()),
        why: "in a kind cluster, tbot is that of an image (--tbot-image), and no program of this machine's",
    },
    OnlyProcess {
        asks: |s| !s.provider.command.is_empty(),
        why: "in a kind cluster, an external provider is one that serves on each node already: nothing is started for it",
    },
    OnlyProcess {
        asks: |s| s.provider.socket.as_ref().is_some_and(|socket| !socket.is_absolute() || socket.parent().is_none()),
        why: "in a kind cluster, --socket is the path of the provider's socket on each node, from / on",
    },
    OnlyProcess {
        asks: |s| s.provider.kind == ProviderKind::Spire && s.provider.attestation == NodeAttestation::JoinToken,
        why: "in a kind cluster, SPIRE's agents prove their node by a token of Kubernetes'",
    },
    OnlyProcess {
        asks: |s| s.provider.kind.is_of_istio() && !s.provider.events.is_empty(),
        why: "in a kind cluster, all cells share one istiod: nothing befalls it",
    },
    OnlyProcess {
        asks: |s| !s.provider.events.iter().all(|event| TOLD_TO_SPIRE.contains(&event.action)),
        why: "in a kind cluster, SPIRE's programs are pods, which Kubernetes starts again: nothing befalls them",
    },
    OnlyProcess {
        asks: |s| s.provider.faults.iter().any(|given| SOCKET_ITSELF.contains(&given.fault)),
        why: "the socket that pods see is that of a relay on their node, and stays as it is",
    },
    OnlyProcess {
        asks: |s| s.fleet.agents_first || s.fleet.files_socket_blocked,
        why: "the pods' agents are started by Kubernetes, and find what is on their node",
    },
];

/// What makes a scenario one of a certain subject only.
struct OnlyThere {
    /// Whether it is, given the scenario as it is written and as it would be run.
    asks: fn(&Scenario, &Scenario) -> bool,
    why: &'static str,
}

const ONLY_THERE: &[OnlyThere] = &[
    OnlyThere {
        asks: |own, here| own.fleet.kind.has_istio() && !here.fleet.kind.has_istio(),
        why: "it is about Istio's agent, and without Istio there is none",
    },
    OnlyThere {
        asks: |own, here| own.fleet.kind.is_cluster() && !here.fleet.kind.is_cluster(),
        why: "it is about pods of a cluster: --topology kind has them",
    },
    OnlyThere {
        asks: |own, here| here.provider.kind != own.provider.kind && !own.provider.events.is_empty(),
        why: "it is about what befalls the provider that it names",
    },
    OnlyThere {
        asks: |own, here| here.provider.kind == ProviderKind::IstioCa && own.fleet.agents_first,
        why: "with Istio's own CA, the agents are to serve the proxies",
    },
];

/// Whether processes can have mounts of their own; tried once.
static MOUNTS: OnceLock<Result<(), String>> = OnceLock::new();

/// Why a scenario, as it would be run `here`, makes no sense; `None` if it does. It may be written for another subject.
pub(super) fn unsupported_here(own: &Scenario, here: &Scenario) -> Option<String> {
    if let Some(row) = ONLY_THERE.iter().find(|row| (row.asks)(own, here)) {
        return Some(row.why.to_owned());
    }
    let kind = here.provider.kind;
    if kind != own.provider.kind
        && let Some(key) = here.unprovoked().next()
    {
        return Some(format!("{key} can't be provoked in a provider of kind `{}`", kind.name()));
    }
    unsupported(here)
}

/// Why this scenario makes no sense on this harness; `None` if it does.
pub fn unsupported(scenario: &Scenario) -> Option<String> {
    let (ttl, clock, provider) = (scenario.provider.ttl(), scenario.clock, scenario.provider.kind);
    if clock == ClockKind::Virtual
        && let Some((_, who)) = IN_REAL_TIME.iter().find(|(kind, _)| *kind == provider)
    {
        return Some(format!("{who} in the machine's time, which can't be moved: use a real clock"));
    }
    if provider == ProviderKind::IstioCa && !scenario.fleet.kind.has_istio() {
        return Some("certificates of Istio's own CA reach a proxy through Istio's agent only: name an Istio".into());
    }
    if scenario.fleet.socket_file_mounted
        && !scenario.fleet.kind.is_container()
        && let Err(why) = MOUNTS.get_or_init(private_mounts)
    {
        return Some(format!("proxies can't have mounts of their own here ({why}); that takes CAP_SYS_ADMIN"));
    }
    if scenario.fleet.kind.is_cluster()
        && let Some(row) = NOT_IN_A_CLUSTER.iter().find(|row| (row.asks)(scenario))
    {
        return Some(row.why.to_owned());
    }
    if scenario.fleet.kind.has_istio()
        && let Some(row) = ONLY_PROCESS.iter().find(|row| (row.asks)(scenario))
    {
        return Some(row.why.to_owned());
    }
    if !scenario.fleet.kind.has_istio() && (scenario.fleet.agents_first || scenario.fleet.files_socket_blocked) {
        return Some("it is about Istio's agent: name an Istio".to_owned());
    }
    let row = TTL_FLOORS.iter().find(|row| row.provider == provider && row.clock == clock && ttl < row.floor);
    row.map(|row| too_short(ttl, row)).or_else(|| scenario.too_long_in_real_time())
}

fn too_short(ttl: Span, TtlFloor { floor, measured, why, .. }: &TtlFloor) -> String {
    let measured = measured.map(|version| format!(" (measured with {version})")).unwrap_or_default();
    format!("a ttl of {ttl} is below the floor of {floor}{measured}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Library;
    use crate::scenario::FleetKind;

    #[test]
    fn versions_of_tbot_with_the_known_bug_are_known() {
        let modes = |version| -> Vec<_> {
            known_defects(ProviderKind::Tbot, version).iter().map(|defect| defect.mode).collect()
        };
        for version in ["16.5.12", "17.7.13", "18.0.0", "18.6.3"] {
            assert_eq!(modes(version), ["resend-cached"], "{version}");
        }
        for version in ["17.7.14", "17.8.0", "18.6.4", "19.0.0", "unknown", ""] {
            assert!(modes(version).is_empty(), "{version}");
        }
        assert!(known_defects(ProviderKind::Spire, "1.13.3").is_empty());
        assert!(KNOWN_DEFECTS.iter().all(|defect| crate::verdict::mode(defect.mode).is_some()));
    }

    #[test]
    fn a_scenario_on_real_parts_makes_sense_as_it_is_written() {
        for scenario in Library::embedded().real().unwrap() {
            assert!(ONLY_THERE.iter().all(|row| !(row.asks)(&scenario, &scenario)), "{}", scenario.name);
            assert_eq!(unsupported(&scenario), None, "{}", scenario.name);
        }
    }

    #[test]
    fn below_its_floor_a_provider_is_refused_and_at_it_it_is_not() {
        let mut scenario = Library::embedded().scenario("rotation").unwrap().unwrap();
        for row in TTL_FLOORS {
            (scenario.provider.kind, scenario.clock) = (row.provider, row.clock);
            if row.provider == ProviderKind::IstioCa {
                scenario.fleet.kind = FleetKind::Agent;
            } else {
                scenario.fleet.kind = FleetKind::Process;
            }
            scenario.provider.renew_every = None;
            scenario.provider.ttl = Some(row.floor);
            assert_eq!(unsupported(&scenario), None, "{:?}", row.provider);
            scenario.provider.ttl = Some(Span::seconds(row.floor.as_secs() - 1));
            let why = unsupported(&scenario).unwrap();
            assert!(why.contains(&format!("is below the floor of {}", row.floor)) && why.ends_with(row.why), "{why}");
            assert!(row.measured.is_none_or(|version| why.contains(version)), "{why}");
        }
    }
}
