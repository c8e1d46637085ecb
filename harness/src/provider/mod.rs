//! Who issues certificates: the fake, which a scenario drives, on a socket or by files; SPIRE or tbot, started for the
//! cell; or an external one. What is not ours stands behind a tap.
//!
//! Of the fake, an issuer decides what is minted and when, and which content is spoiled; the outlet (room `xds`) serves
//! sockets and streams. There is no timer: renewals happen when they are asked for, in cell time.

mod errand;
mod external;
mod fake;
mod faults;
mod files;
mod issuer;
mod material;
mod met;
mod minting;
mod profile;
mod renewal;
mod serving;
mod settled;
mod signed;
mod spire;
mod streams;
mod tbot;
mod telling;

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

pub use external::External;
pub use fake::{Fake, FakeConfig};
pub use met::{Learnt, Met};
pub use renewal::{Closed, Pushed, Renewal};
pub use spire::{Gate as SpireGate, SpireFrom, SpirePrograms, server_log};
pub use tbot::{tbot_files, version as tbot_version};

use signed::SignedLog;

use crate::clock::{Clock, Deadline};
use crate::pki::PkiError;
use crate::proc::{Guard, ProcError};
use crate::scenario::{Fault, ProviderKind, ProviderSpec};
use crate::timeline::{ProxyId, Recorder, SecretName, SpiffeId};
use crate::xds::{ApartError, Delivery, SocketError, WitnessError};

/// Who issues a cell's certificates.
pub enum Provider {
    /// The harness's own.
    Fake(Box<Fake>),
    /// One that is not ours.
    External(Box<External>),
}

/// A provider before its cell is recorded: what can be learnt of it must stand at the recording's head.
pub enum Approached {
    /// There is nothing to learn.
    Fake,
    /// Nor here.
    Files,
    /// It serves, and was asked once.
    External(Box<Met>),
    /// It comes with the proxies, or stands beside them in their cluster.
    There {
        /// What it says that it signed, where it has logs that tell.
        signed: Vec<SignedLog>,
        /// What it gave to a pod that asked before the proxies came.
        met: Option<Box<Met>>,
    },
}

/// Where a provider is started, and by whom.
pub struct Ground<'a> {
    /// The cell's.
    pub clock: &'a Clock,
    /// Ends what is started.
    pub guard: &'a Guard,
    /// Keeps its output.
    pub directory: &'a Utf8Path,
    /// A private directory outside of the run, for what may not stay.
    pub scratch: &'a Utf8Path,
    /// Where a provider that is beside the proxies, in their cluster, is asked from a pod.
    pub witness: Option<&'a Utf8Path>,
    /// Where what is said by one that was put there is kept.
    pub logs: &'a [Utf8PathBuf],
}

impl Approached {
    /// Goes to see the provider; one that is to be started is started.
    pub async fn to(
        spec: &ProviderSpec,
        spire: Option<&SpireFrom>,
        ground: &Ground<'_>,
    ) -> Result<Self, ProviderError> {
        Ok(match spec.kind {
            ProviderKind::Fake => Approached::Fake,
            ProviderKind::Files => Approached::Files,
            ProviderKind::IstioCa => Approached::There { signed: Vec::new(), met: None },
            ProviderKind::External => match ground.witness {
                Some(door) => {
                    let met = Some(Box::new(Met::by_witness(door, ground.clock).await?));
                    Approached::There { signed: Vec::new(), met }
                }
                None => Approached::External(Box::new(Met::meet(spec, ground).await?)),
            },
            ProviderKind::Spire => match spire {
                Some(SpireFrom::Programs(programs)) => {
                    Approached::External(Box::new(Met::spire(spec, programs, ground).await?))
                }
                Some(SpireFrom::Pods) => {
                    let signed = vec![spire::signed_in(&server_log(ground.directory))];
                    Approached::There { signed, met: None }
                }
                None => return Err(ProviderError::NoProgram("spire-server".to_owned())),
            },
            ProviderKind::Tbot => match ground.witness {
                Some(door) => {
                    let met = Some(Box::new(Met::by_witness(door, ground.clock).await?));
                    Approached::There { signed: ground.logs.iter().map(|log| tbot::issued_in(log)).collect(), met }
                }
                None => Approached::External(Box::new(Met::tbot(spec, ground).await?)),
            },
        })
    }

    /// What a fresh subscriber gets from it, where that had to be asked.
    pub fn learnt(&self) -> Option<&Learnt> {
        match self {
            Approached::Fake | Approached::Files | Approached::There { met: None, .. } => None,
            Approached::External(met) | Approached::There { met: Some(met), .. } => Some(met.learnt()),
        }
    }

    /// Serves the socket that the configuration names: the fake, or the tap in front of the external one. Files lie in a
    /// directory beside it.
    /// A fake that is to be frozen is served by a process of its own, which runs `program`. Istio's agents, or SPIRE's
    /// in a cluster, will serve `agents`.
    pub async fn start(
        self,
        config: FakeConfig,
        agents: BTreeMap<ProxyId, Utf8PathBuf>,
        program: Utf8PathBuf,
        recorder: Recorder,
    ) -> Result<Provider, ProviderError> {
        let frozen = config.spec.faults.iter().any(|spec| spec.fault == Fault::Freeze);
        Ok(match self {
            Approached::Fake if frozen => {
                Provider::Fake(Box::new(Fake::start_apart(&program, config, recorder).await?))
            }
            Approached::Fake => Provider::Fake(Box::new(Fake::start(config, recorder).await?)),
            Approached::Files => {
                let directory = config.socket.with_file_name("secrets");
                Provider::Fake(Box::new(Fake::start_with_files(&directory, config, recorder).await?))
            }
            Approached::There { signed, met } => {
                let met = met.map(|met| *met);
                Provider::External(Box::new(External::behind(&agents, &config.socket, signed, met, recorder)?))
            }
            Approached::External(met) => {
                let proxies = config.identities.into_iter().map(|(id, _)| id).collect();
                Provider::External(Box::new(External::start(*met, &config.socket, proxies, recorder)?))
            }
        })
    }
}

/// Writes a new file that is for nobody else's eyes.
fn write_private(path: &Utf8Path, text: &str) -> Result<(), ProviderError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| ProviderError::Files { path: path.to_owned(), source })
}

impl Provider {
    /// Where proxies subscribe.
    pub fn delivery(&self) -> Delivery {
        match self {
            Provider::Fake(fake) => fake.delivery(),
            Provider::External(external) => external.delivery(),
        }
    }

    /// The authorities that are trusted now, as far as they are known, DER.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        match self {
            Provider::Fake(fake) => fake.bundle(),
            Provider::External(external) => external.bundle(),
        }
    }

    /// Awaits that every proxy has answered a first `default` and a first `ROOTCA`; returns what is missing.
    pub async fn settled(&self, deadline: Deadline) -> Vec<(ProxyId, SecretName)> {
        match self {
            Provider::Fake(fake) => fake.settled(deadline).await,
            Provider::External(external) => external.settled(deadline).await,
        }
    }

    /// A proxy is on its way that was not there at the beginning. Whom it is to serve, only the fake has to be told.
    pub fn admit(&self, proxy: ProxyId, spiffe_id: SpiffeId) {
        match self {
            Provider::Fake(fake) => fake.admit(proxy, spiffe_id),
            Provider::External(external) => external.admit(proxy),
        }
    }

    /// Ends all streams and removes the socket.
    pub async fn stop(self) {
        match self {
            Provider::Fake(fake) => fake.stop().await,
            Provider::External(external) => external.stop().await,
        }
    }
}

/// Why a provider does not work.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Its outlet's process.
    #[error(transparent)]
    Apart(#[from] ApartError),
    /// Its certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Its trust domain can't be one.
    #[error("{0:?} is no trust domain")]
    TrustDomain(String),
    /// Its thread could not be started.
    #[error("the issuer can't be started: {0}")]
    Thread(std::io::Error),
    /// Its thread ended.
    #[error("the issuer has stopped")]
    Stopped,
    /// Its files could not be put into place.
    #[error("its files can't be put into {path}: {source}")]
    Files {
        /// Where.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process that serves its socket could not be frozen or woken.
    #[error("the provider's process {pid} can't be {what}: {source}")]
    Freeze {
        /// Which.
        pid: u32,
        /// `frozen` or `woken`.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// What a fresh subscriber gets from an external one.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The command that is to start it.
    #[error(transparent)]
    Command(#[from] ProcError),
    /// The command ended, and nobody serves the socket.
    #[error("{what} {how} before {socket} was served; its log is {log}")]
    CommandEnded {
        /// The program.
        what: String,
        /// How it ended.
        how: crate::proc::Exit,
        /// Where it should have served.
        socket: Utf8PathBuf,
        /// What it said.
        log: Utf8PathBuf,
    },
    /// tbot can't join.
    #[error("tbot's join token can't be read from {from}: {why}")]
    Token {
        /// A file, or a variable; never the token.
        from: String,
        /// Why.
        why: String,
    },
    /// One of the provider's own commands failed.
    #[error("{what} {how}: {said}")]
    Errand {
        /// Which.
        what: String,
        /// How it ended.
        how: crate::proc::Exit,
        /// Its last line.
        said: String,
    },
    /// Or did not say what was asked.
    #[error("SPIRE's server does not say its {what}")]
    NoAnswer {
        /// What.
        what: String,
    },
    /// Or did not end.
    #[error("{what} did not end within {seconds} s")]
    ErrandHangs {
        /// Which.
        what: String,
        /// That long.
        seconds: u64,
    },
    /// There is no port for SPIRE's server.
    #[error("no port of 127.0.0.1 can be had: {0}")]
    Port(std::io::Error),
    /// No program of that name.
    #[error("there is no program {0}")]
    NoProgram(String),
}

impl ProviderError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Socket(SocketError::TooLong { .. }) => Some("set TMPDIR to a directory with a shorter path"),
            Self::Witness(e) => Some(match e {
                WitnessError::Missing(_) => "is the provider running, and is this the path of its socket?",
                WitnessError::NotASocket(_) => "name the provider's Unix socket with --socket",
                WitnessError::Refused { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    "run rotacheck as a user whom the provider's socket admits"
                }
                WitnessError::Refused { .. } => "the socket was left behind: start the provider again",
                WitnessError::NotGrpc { .. } => "is this the provider's SDS socket, and not another one of it?",
                WitnessError::NoSds { .. } => "it must serve envoy.service.secret.v3.SecretDiscoveryService",
                WitnessError::Denied { .. } => {
                    "the provider knows rotacheck by its process: register its user (SPIRE: an entry with -selector \
                     unix:uid:N; tbot: the rules of the WorkloadIdentity), and wait until the agent has it"
                }
            }),
            Self::Errand { .. } | Self::ErrandHangs { .. } => {
                Some("the logs of the provider's programs are in the run directory")
            }
            Self::NoProgram(_) => Some("give its path (tbot: --tbot PATH)"),
            Self::Token { .. } => Some("name a file or a variable that holds it: --tbot-token file=PATH, or env=NAME"),
            Self::CommandEnded { .. } => Some("read its log, which is in the run directory"),
            _ => None,
        }
    }
}
