//! The part of a command line that selects cells; `run` and `plan` share it.

use camino::Utf8PathBuf;

#[cfg(feature = "kubernetes")]
use super::kind::KindArgs;
use super::tbot::TbotArgs;
use super::{CliError, Exit};
use crate::plan::{Library, Overrides, Plan, PlanError, Selection};
use crate::scenario::{ClockKind, FleetKind, ProviderKind, Span, StatsInclusion};
use crate::timeline::{EnvoyRequest, IstioRequest, ProgramRequest};

/// What is to be run, and on what.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SelectionArgs {
    /// Scenarios: names, patterns such as `nack-*`, or paths of scenario files [default: all that `rotacheck list` shows
    /// first; with `--topology agent`, those that matrix.yaml lists for it].
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    #[command(flatten)]
    library: LibraryArgs,
    /// An Envoy: a version of the lock file, `image=NAME:TAG` for the one in an image of the lock file, or `path=FILE` for
    /// an executable of your own. With `--topology kind`, `image=NAME:TAG` is one that has Istio's agent too, in place of
    /// proxyv2. Repeatable [default: those of matrix.yaml; ENVOY_PATH, if it is set, names an
    /// executable instead].
    #[arg(long = "envoy", value_name = "VERSION|image=NAME|path=FILE")]
    envoys: Vec<EnvoyRequest>,
    /// An Istio whose agent starts the proxies: a version of the lock file, `image=NAME:TAG` for those in the images
    /// proxyv2 and pilot, `path=DIR` for programs of your own (pilot-agent, pilot-discovery, envoy_bootstrap.json), or
    /// `none` for Envoys without Istio. With `--topology kind`, a version is the tag of its images. Repeatable; every scenario meets each [default: as the scenario says, with those
    /// of matrix.yaml].
    #[arg(long = "istio", value_name = "VERSION|image=NAME|path=DIR|none")]
    istios: Vec<IstioRequest>,
    /// Who issues the certificates. Repeatable, or a list with commas; every scenario meets each [default: as the
    /// scenario says].
    #[arg(long = "provider", value_enum, value_name = "PROVIDER", value_delimiter = ',')]
    providers: Vec<ProviderArg>,
    /// A SPIRE, where it issues: a version of the lock file, `image=NAME:TAG` for those in the images spire-server and
    /// spire-agent, or `path=DIR` for programs of your own. Repeatable [default: those of matrix.yaml].
    #[arg(long = "spire", value_name = "VERSION|image=NAME|path=DIR")]
    spires: Vec<ProgramRequest>,
    /// How the proxies are run, in every cell. `agent` without a scenario: what matrix.yaml lists for it, which may
    /// compare with Envoys without Istio.
    #[arg(long, value_enum)]
    topology: Option<TopologyArg>,
    /// An Envoy executable to use where `--envoy` is not given.
    #[arg(long, env = "ENVOY_PATH", hide = true, value_name = "FILE")]
    envoy_path: Option<Utf8PathBuf>,
    /// The Unix socket on which an external provider serves SDS v3 (StreamSecrets); with `--topology kind`, its path on each
    /// node.
    #[arg(long, value_name = "PATH", help_heading = CHANGES)]
    socket: Option<Utf8PathBuf>,
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    kind: KindArgs,
    #[command(flatten)]
    tbot: TbotArgs,
    /// Whose time the proxies live in.
    #[arg(long, value_enum, help_heading = CHANGES)]
    clock: Option<ClockArg>,
    /// Lifetime of a certificate: 20s, 2m, 1h. Renewals, a margin floor in seconds and the duration keep their share
    /// of it.
    #[arg(long, value_name = "TIME", help_heading = CHANGES)]
    ttl: Option<Span>,
    /// Interval of the renewals: 10s, 1m, 20m.
    #[arg(long, value_name = "TIME", help_heading = CHANGES)]
    renew_every: Option<Span>,
    /// Proxies per cell; each calls the next, the last one the first.
    #[arg(long, value_name = "N", help_heading = CHANGES)]
    proxies: Option<u32>,
    /// Further TLS contexts per proxy that hold its certificate, beside its own four.
    #[arg(long, value_name = "N", help_heading = CHANGES)]
    contexts: Option<u32>,
    /// Which statistics each proxy keeps: `istio-default` hides those of SDS and TLS, as Istio's sidecars do.
    #[arg(long, value_enum, help_heading = CHANGES)]
    stats: Option<StatsArg>,
}

const CHANGES: &str = "Changes to the selected scenarios";

/// Where scenarios come from.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LibraryArgs {
    /// A directory of scenario files, instead of those in the binary and in `scenarios/`.
    #[arg(long = "scenarios", value_name = "DIR")]
    directory: Option<Utf8PathBuf>,
}

impl LibraryArgs {
    pub(super) fn open(&self) -> Result<Library, CliError> {
        Ok(Library::open(self.directory.as_deref())?)
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TopologyArg {
    /// An Envoy each, configured by rotacheck as Istio configures a sidecar.
    Process,
    /// An Envoy of an image each, in a container in this machine's network: Docker is needed. A version is the image
    /// envoyproxy/envoy:vVERSION, `--envoy image=NAME:TAG` names another, such as istio/proxyv2.
    Container,
    /// Istio's real agent each, which starts its Envoy, and a real istiod that configures them.
    Agent,
    /// Pods of a kind cluster, with the sidecars that Istio injects there.
    #[cfg(feature = "kubernetes")]
    Kind,
}

impl TopologyArg {
    fn kind(self) -> FleetKind {
        match self {
            TopologyArg::Process => FleetKind::Process,
            TopologyArg::Container => FleetKind::Container,
            TopologyArg::Agent => FleetKind::Agent,
            #[cfg(feature = "kubernetes")]
            TopologyArg::Kind => FleetKind::Kind,
        }
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ClockArg {
    /// Moved by the harness: hours pass in milliseconds.
    Virtual,
    /// The machine's.
    Real,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum StatsArg {
    /// All of them.
    All,
    /// Those that Istio's sidecars keep by default.
    IstioDefault,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ProviderArg {
    /// The harness's own, which scenarios drive.
    Fake,
    /// The harness's own, by files that the proxies watch instead of a socket.
    Files,
    /// One that is not ours: whatever serves SDS v3 on the socket given with --socket.
    External,
    /// Istio's own: its agents get certificates from istiod.
    IstioCa,
    /// A SPIRE server and agent, started for each cell.
    Spire,
    /// Teleport's tbot, started for each cell; the cluster that it joins is yours.
    Tbot,
}

impl ProviderArg {
    fn kind(self) -> ProviderKind {
        match self {
            ProviderArg::Fake => ProviderKind::Fake,
            ProviderArg::Files => ProviderKind::Files,
            ProviderArg::External => ProviderKind::External,
            ProviderArg::IstioCa => ProviderKind::IstioCa,
            ProviderArg::Spire => ProviderKind::Spire,
            ProviderArg::Tbot => ProviderKind::Tbot,
        }
    }
}

impl SelectionArgs {
    /// The cells selected; an error if there are none.
    pub(super) fn plan(&self) -> Result<Plan, CliError> {
        let from_environment = self.envoy_path.iter().filter(|_| self.envoys.is_empty());
        let envoys = self.envoys.iter().cloned().chain(from_environment.cloned().map(EnvoyRequest::Path));
        let selection = Selection {
            scenarios: self.scenarios.clone(),
            envoys: envoys.collect(),
            topology: self.topology.map(TopologyArg::kind),
            clusters: Vec::new(),
            istios: self.istios.clone(),
            providers: self.providers.iter().map(|provider| provider.kind()).collect(),
            spires: self.spires.clone(),
            overrides: Overrides {
                socket: self.socket.clone(),
                tbot: self.tbot.spec(),
                clock: self.clock.map(|clock| match clock {
                    ClockArg::Virtual => ClockKind::Virtual,
                    ClockArg::Real => ClockKind::Real,
                }),
                ttl: self.ttl,
                renew_every: self.renew_every,
                proxies: self.proxies,
                contexts: self.contexts,
                stats: self.stats.map(|stats| match stats {
                    StatsArg::All => StatsInclusion::All,
                    StatsArg::IstioDefault => StatsInclusion::IstioDefault,
                }),
            },
        };
        let selection = self.in_cluster(selection)?;
        Ok(Plan::select(&self.library.open()?, &selection)?)
    }

    /// Where the proxies are to be in a cluster, what is tested is what Istio's image there holds.
    #[cfg(feature = "kubernetes")]
    fn in_cluster(&self, selection: Selection) -> Result<Selection, CliError> {
        if !selection.topology.is_some_and(FleetKind::is_cluster) {
            return Ok(selection);
        }
        if !self.spires.is_empty() {
            let hint = "--spire-image names it; leave out --spire";
            return Err(CliError::with_hint(Exit::Usage, "in a cluster, SPIRE is that of an image", hint));
        }
        let own = |provider: &ProviderArg| provider.kind().has_own_trust_domain();
        let all_do = !self.providers.is_empty() && self.providers.iter().all(own);
        if self.kind.own_trust_domain().is_some() && !all_do {
            let hint = "name --provider external or --provider tbot; all others issue for cluster.local";
            return Err(CliError::with_hint(Exit::Usage, "--trust-domain is that of a provider of yours", hint));
        }
        let wanted = self.kind.wanted(&self.envoys, &self.istios)?;
        let clusters = wanted.iter().map(|cluster| self.kind.place(cluster)).collect::<Result<_, _>>()?;
        Ok(Selection { spires: vec![self.kind.spire()], clusters, ..selection })
    }

    #[cfg(not(feature = "kubernetes"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with clusters")]
    fn in_cluster(&self, selection: Selection) -> Result<Selection, CliError> {
        Ok(selection)
    }

    /// The clusters that are wanted, in the order in which cells count them.
    #[cfg(feature = "kubernetes")]
    pub(super) fn clusters(&self, keep: bool) -> Result<Vec<crate::fleet::KindConfig>, CliError> {
        match self.topology {
            Some(TopologyArg::Kind) => {
                let wanted = self.kind.wanted(&self.envoys, &self.istios)?;
                Ok(wanted.iter().map(|cluster| self.kind.config(cluster, keep)).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The plan, with every control on every Envoy of it; as they are, whatever the command line changes.
    pub(super) fn with_controls(&self, mut plan: Plan) -> Result<Plan, CliError> {
        let library = self.library.open()?;
        let scenarios = library.every_control()?.iter().map(|control| control.name.to_string()).collect();
        // A check is proven where it is used: in containers, if these are tested.
        let topology = self.topology.map(TopologyArg::kind).filter(|kind| kind.is_container());
        let controls = Selection { scenarios, topology, envoys: plan.envoys(), ..Selection::default() };
        let controls = Plan::select(&library, &controls)?.cells;
        let known = |cell: &crate::plan::Cell| {
            plan.cells.iter().any(|c| c.scenario.name == cell.scenario.name && c.envoy == cell.envoy)
        };
        let new: Vec<_> = controls.into_iter().filter(|cell| !known(cell)).collect();
        plan.cells.extend(new);
        Ok(plan)
    }
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Invalid(error) => CliError::diagnostic(Exit::Invalid, error),
            PlanError::Unreadable { .. } => {
                let hint =
                    "a scenario is a name that `rotacheck list` shows, a glob of these, or the path of a YAML file";
                CliError::with_hint(Exit::Invalid, format!("cannot {error}"), hint)
            }
            PlanError::Overridden { ref problems, .. } => {
                let helps: Vec<&str> = problems.iter().filter_map(|problem| problem.help.as_deref()).collect();
                match helps.as_slice() {
                    [] => CliError::new(Exit::Invalid, error),
                    helps => CliError::with_hint(Exit::Invalid, &error, helps.join("\n")),
                }
            }
            PlanError::NothingMatches { ref near, ref names, .. } => {
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`? `rotacheck list` shows them all"),
                    None => format!("there are: {}", names.join(", ")),
                };
                CliError::with_hint(Exit::NothingSelected, &error, hint)
            }
            PlanError::IstioWithoutAgent => {
                CliError::with_hint(Exit::Usage, error, "leave out --topology process, or say --istio none")
            }
            PlanError::NoIstio { .. } => CliError::with_hint(
                Exit::Usage,
                &error,
                "name one with --istio; `rotacheck fetch` says which there are",
            ),
            PlanError::NoSpire { .. } => {
                CliError::with_hint(Exit::Usage, &error, "name one with --spire VERSION, or --spire path=DIR")
            }
            PlanError::Empty { .. } => CliError::new(Exit::NothingSelected, error),
        }
    }
}
