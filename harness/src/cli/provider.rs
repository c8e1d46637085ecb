//! `rotacheck provider`: the fake in real time, for proxies of one's own.

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use super::stderr::say;
use super::{CliError, Exit};
use crate::clock::{Clock, Deadline};
use crate::provider::{Fake, FakeConfig, ProviderError};
use crate::scenario::{FaultSpec, KeyType, NodeAttestation, Profile, ProviderKind, ProviderSpec, Serials, Span};
use crate::timeline::{
    CellId, ClockKind, Criteria, EnvoySubject, EnvoyVersion, Expectation, ExpectedJudgement, Fact, Header, Observation,
    Payload, ProviderSubject, Recorder, Role, SCHEMA_VERSION, ScenarioName, SentSecret, Subject,
};
use crate::xds::{SocketError, serve_apart};

/// Arguments of `rotacheck provider`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Where to serve: a Unix socket, for SDS (`default`, `ROOTCA`, `ALL`) and the SPIFFE Workload API.
    #[arg(long, value_name = "PATH")]
    socket: Utf8PathBuf,
    /// Lifetime of a certificate: 20s, 2m, 1h; 1s or more.
    #[arg(long, value_name = "TIME", default_value = "2m")]
    ttl: Span,
    /// Interval of the renewals: 10s, 1m, 20m; 1s or more [default: half the lifetime].
    #[arg(long, value_name = "TIME")]
    renew_every: Option<Span>,
    /// Which provider to imitate, in versions, nonces, validators and when it mints: generic, tbot, spire, istio.
    #[arg(long, default_value = "generic", value_parser = named::<Profile>)]
    profile: Profile,
    /// Key type of the certificates: ecdsa-p256, rsa-2048.
    #[arg(long, value_name = "TYPE", default_value = "ecdsa-p256", value_parser = named::<KeyType>)]
    key_type: KeyType,
    /// The trust domain; everybody is spiffe://DOMAIN/workload.
    #[arg(long, value_name = "DOMAIN", default_value = "demo.test")]
    trust_domain: String,
    /// An Istio proxy is spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT, as it says itself: it is believed.
    #[arg(long)]
    istio: bool,
    /// What goes wrong, from which renewal on (default 1), until before which: `resend-cached@1`, `no-push@2..4`.
    /// Repeatable. Faults: no-renewal, no-push, resend-cached, resend-stale, expired-certificate, wrong-key, bad-pem,
    /// close-stream.
    #[arg(long, value_name = "FAULT[@FROM[..UNTIL]]", value_parser = fault)]
    fault: Vec<FaultSpec>,
    /// Only serve, and let standard input say what; for the harness itself.
    #[arg(long, hide = true)]
    control: bool,
}

const EXAMPLES: &str = "\
Everything that is issued, sent, accepted or refused is told on stderr, until Ctrl-C. Private keys exist in memory only,
in this process and in those that fetch them; the authority is made anew at each start.

Examples:
  rotacheck provider --socket /run/user/1000/sds.sock
  rotacheck provider --socket ./sds.sock --profile tbot --ttl 1m --renew-every 20s --fault resend-cached@3
  rotacheck provider --socket ./sds.sock --fault wrong-key@2..3        refused once, then healthy again
  rotacheck provider --socket /run/vendor/sds.sock --istio --trust-domain cluster.local     in a mesh, on its only node

An Envoy's ConfigSource for it is that of any SDS server on a Unix socket: api_config_source with api_type GRPC and
transport_api_version V3, and a static HTTP/2 cluster whose endpoint is a pipe with this path.";

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    if args.control {
        return match serve_apart(&args.socket).await {
            Ok(()) => Ok(Exit::AsExpected),
            Err(e) => Err(CliError::new(Exit::CouldNotTell, format!("cannot talk to the harness: {e}"))),
        };
    }
    let spec = ProviderSpec {
        kind: ProviderKind::Fake,
        profile: args.profile,
        socket: None,
        command: Vec::new(),
        attestation: NodeAttestation::default(),
        tbot: None,
        ttl: Some(args.ttl),
        renew_every: args.renew_every,
        key_type: args.key_type,
        faults: args.fault,
        authorities: Vec::new(),
        later_key_type: None,
        serials: Serials::Random,
        intermediate_ttl: None,
        authority_ttl: None,
        bundle_every: None,
        events: Vec::new(),
    };
    let every = spec.interval();
    if every.duration() < Duration::from_secs(1) || spec.ttl().duration() < Duration::from_secs(1) {
        return Err(CliError::new(
            Exit::Usage,
            "certificates count whole seconds: --ttl and --renew-every need 1s or more",
        ));
    }
    let recorder = Recorder::new(header(&spec), Clock::real(), None);
    let config = FakeConfig {
        socket: args.socket.clone(),
        trust_domain: args.trust_domain.clone(),
        spec,
        identities: Vec::new(),
        staples: false,
        by_account: args.istio,
    };
    // Before the socket exists, so that no signal can leave it behind.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::cannot_listen)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::cannot_listen)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(CliError::cannot_listen)?;
    let talk = tokio::spawn(talk(recorder.clone()));
    let fake = Fake::start(config, recorder).await.map_err(cannot_serve)?;
    say(format_args!(
        "serving SDS and the SPIFFE Workload API on {}\n  trust domain {}, certificates live {}, renewed every {every}; stop with Ctrl-C",
        args.socket, args.trust_domain, args.ttl
    ));
    let mut timer = tokio::time::interval(every.duration());
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    timer.tick().await;
    let mut number = 0;
    let result = loop {
        tokio::select! {
            _ = timer.tick() => {
                number += 1;
                if let Err(e) = fake.renew(number).await {
                    break Err(CliError::new(Exit::Bug, format!("cannot renew: {e}")));
                }
            }
            _ = interrupt.recv() => break Ok(Exit::AsExpected),
            _ = terminate.recv() => break Ok(Exit::AsExpected),
            _ = hang_up.recv() => break Ok(Exit::AsExpected),
        }
    };
    fake.stop().await;
    talk.abort();
    say(format_args!("stopped; {} is gone", args.socket));
    result
}

fn cannot_serve(e: ProviderError) -> CliError {
    let message = format!("cannot serve: {e}");
    match e {
        ProviderError::Socket(SocketError::TooLong { .. }) => {
            CliError::with_hint(Exit::Usage, message, "choose a shorter path, such as one below /run or /tmp")
        }
        ProviderError::Socket(SocketError::Alive { .. }) => {
            CliError::with_hint(Exit::Usage, message, "stop the other process, or choose another path")
        }
        ProviderError::Socket(SocketError::NotASocket { .. }) => {
            CliError::with_hint(Exit::Usage, message, "choose another path; nothing was removed")
        }
        ProviderError::TrustDomain(_) => {
            CliError::with_hint(Exit::Usage, message, "it may hold only a-z, 0-9, '-', '.' and '_'")
        }
        _ => CliError::new(Exit::CouldNotTell, message),
    }
}

fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

fn fault(text: &str) -> Result<FaultSpec, String> {
    let (name, when) = text.split_once('@').unwrap_or((text, "1"));
    let number =
        |n: &str| n.parse::<u32>().map_err(|_| format!("{n:?} is no renewal; write resend-cached@1 or no-push@2..4"));
    let (from, until) = match when.split_once("..") {
        Some((from, until)) => (number(from)?, Some(number(until)?)),
        None => (number(when)?, None),
    };
    if until.is_some_and(|until| until <= from) {
        return Err(format!("{when:?} spoils nothing"));
    }
    Ok(FaultSpec {
        fault: named(name)?,
        from_renewal: from,
        until_renewal: until,
        once: false,
        proxy: None,
        secret: None,
    })
}

/// Says on stderr what happens.
async fn talk(recorder: Recorder) {
    let never = Deadline::after(Duration::from_secs(100 * 366 * 86_400));
    recorder
        .await_until(0, never, |o| {
            if let Some(line) = line(o) {
                say(format_args!("{}  {line}", o.at.wall.strftime("%H:%M:%SZ")));
            }
            false
        })
        .await;
}

fn line(o: &Observation) -> Option<String> {
    Some(match &o.fact {
        Fact::Authority(a) => format!("authority {} is {}", a.cert.serial.short(), a.state),
        Fact::Issued(i) => {
            let stream = i.stream.map(|s| format!(" for stream {s}")).unwrap_or_default();
            let whose = i.cert.uris.join(" ");
            // In full: it is what other logs are searched for.
            format!("issued {} for {whose}{stream}, valid until {}", i.cert.serial, i.cert.not_after)
        }
        Fact::FaultNote(f) => format!("fault {}: {}", f.fault, f.action),
        Fact::StreamOpened(s) => {
            let pid = s.peer_pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
            format!("stream {} opened{pid} ({})", s.stream, s.rpc)
        }
        Fact::Subscribed(s) if s.names.is_empty() => format!("stream {} wants everything", s.stream),
        Fact::Subscribed(s) => {
            let held =
                if s.version_info.is_empty() { String::new() } else { format!(", holds version {}", s.version_info) };
            format!("stream {} wants {}{held}", s.stream, s.names.join(", "))
        }
        Fact::Sent(s) => {
            let what: Vec<_> = s.secrets.iter().map(content).collect();
            format!("stream {} was sent {} as version {:?}", s.stream, what.join(", "), s.version_info)
        }
        Fact::Acked(a) => format!("stream {} accepted version {:?}", a.stream, a.version_info),
        Fact::Nacked(n) => format!("stream {} REFUSED it, holds version {:?}: {}", n.stream, n.version_info, n.error),
        Fact::StreamClosed(s) => format!("stream {} ended by {}: {}", s.stream, s.by, s.status),
        Fact::Log(log) => log.line.clone(),
        _ => return None,
    })
}

fn content(secret: &SentSecret) -> String {
    match &secret.payload {
        Payload::Certificate { chain, .. } => {
            let serial = chain.first().map_or("unreadable".to_owned(), |leaf| leaf.serial.short());
            format!("{} (certificate {serial})", secret.name)
        }
        Payload::Bundle { roots, .. } => format!("{} ({} authorities)", secret.name, roots.len()),
        Payload::Other { what } => format!("{} ({what})", secret.name),
    }
}

/// The recording stays in memory and is never judged: it only has to have a header.
fn header(spec: &ProviderSpec) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        rotacheck: env!("CARGO_PKG_VERSION").to_owned(),
        cell: CellId::parse("provider@none").expect("a literal of the right form"),
        scenario: ScenarioName::parse("provider").expect("a literal of the right form"),
        role: Role::Conformance,
        subject: Subject {
            envoy: EnvoySubject {
                version: EnvoyVersion::parse("0.0.0").expect("a literal of the right form"),
                source: "none".to_owned(),
            },
            istio: None,
            provider: ProviderSubject {
                kind: "fake".to_owned(),
                profile: None,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            cluster: None,
        },
        clock: ClockKind::Real,
        started: jiff::Timestamp::now(),
        proxies: Vec::new(),
        criteria: Criteria {
            ttl_s: spec.ttl().as_secs(),
            renew_every_s: Some(spec.interval().as_secs()),
            lag_bound_ms: 0,
            margin_floor_s: 0,
            margin_floor_ms: None,
            newer_generations: 0,
            generations_past_first_expiry: 0,
        },
        expect: Expectation { judgement: ExpectedJudgement::Pass, layer: None, diagnosis: None, noted: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Fault;

    #[test]
    fn faults_are_scheduled_by_renewal() {
        let parsed = fault("resend-cached@1").unwrap();
        assert_eq!((parsed.fault, parsed.from_renewal, parsed.until_renewal), (Fault::ResendCached, 1, None));
        let parsed = fault("no-push@2..4").unwrap();
        assert_eq!((parsed.from_renewal, parsed.until_renewal), (2, Some(4)));
        assert!(fault("no-such-thing").unwrap_err().contains("expected one of"));
        assert!(fault("no-push@4..2").is_err());
        assert!(fault("no-push@x").is_err());
    }
}
