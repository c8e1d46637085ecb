//! `rotacheck run`.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;

use super::container::Containers;
use super::fetch::Talk;
#[cfg(feature = "kubernetes")]
use super::on::OnArgs;
use super::selection::SelectionArgs;
use super::{CliError, Exit};
use crate::archive::{ArchiveError, DEFAULT_BASE};
use crate::artifact::{EnvoyBinary, Lock, Program, ProgramBinary, Store, StoreOptions, has_istio_filters};
#[cfg(feature = "kubernetes")]
use crate::fleet::{Asked, Issuers, Kind};
use crate::fleet::{ENVOY, IstioPrograms, disclosures};
use crate::plan::{Cell, Plan, Shard};
use crate::provider::{SpireFrom, SpirePrograms};
use crate::report::{ReportSpec, Reporter};
use crate::run::{CellJob, Ran, RunOptions, Stop, Told};
use crate::scenario::Span;
use crate::timeline::{Disclosure, EnvoyRequest, EnvoySubject, IstioSubject, ProgramRequest, Subject};

/// Arguments of `rotacheck run`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    how: HowArgs,
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    on: OnArgs,
    /// Only a part of the plan: `2/4` is the second of four, dealt out like cards. `rotacheck merge` joins the runs of
    /// all parts, and misses one that got lost.
    #[arg(long, value_name = "N/OF", conflicts_with = "require_controls")]
    shard: Option<Shard>,
    /// Run all controls too, on every Envoy selected, and refuse the pass of a check whose control was missed there, or
    /// did not run: it becomes inconclusive, with exit code 5.
    #[arg(long)]
    require_controls: bool,
}

/// How cells are run; `selfcheck` shares it.
#[derive(Debug, clap::Args)]
pub(super) struct HowArgs {
    /// A report to write when the run is over: json=FILE, html=FILE, junit=FILE, markdown=FILE; `-` is standard output,
    /// and the matrix then goes to stderr. Repeatable.
    #[arg(long = "report", value_name = "FORMAT=FILE")]
    reports: Vec<ReportSpec>,
    /// Cells at a time [default: one per processor, as far as half of the memory holds their Envoys].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    jobs: Option<u32>,
    /// Longest real time for a cell, beyond what its scenario takes by itself: 90s, 2m. A cell that takes longer is
    /// an error; what it has recorded is kept.
    #[arg(long, value_name = "TIME", default_value = "2m")]
    timeout: Span,
    /// Hold every cell at its end, with its processes, until Ctrl-C; prints where each proxy can be reached.
    #[arg(long)]
    keep: bool,
    /// Where runs are kept; `latest` in it points to the newest.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BASE)]
    runs: Utf8PathBuf,
    /// Download nothing: use the Envoys that are cached.
    #[arg(long)]
    offline: bool,
    /// The lock file to use [default: artifacts.lock in the working directory, else the one in the binary].
    #[arg(long, value_name = "FILE")]
    lock: Option<Utf8PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  rotacheck run                                        every scenario on every Envoy of the matrix
  rotacheck run incident                               one scenario, every Envoy
  rotacheck run 'rotation*' --envoy 1.38.3             scenarios by pattern, one Envoy
  rotacheck run rotation --clock real --ttl 10s        without moving time
  rotacheck run ./mine.yaml --envoy path=/usr/local/bin/envoy
  rotacheck run incident --topology container          Envoys in containers of their makers' images
  rotacheck run rotation --provider external --socket /run/spire/agent.sock
  rotacheck run --on kubernetes --context ci --job-image registry.example/rotacheck-envoys:1 --shards 8
  rotacheck run --report html=matrix.html --report junit=rotacheck.xml

The matrix goes to stdout, what happens meanwhile to stderr. A control seeds a fault: `caught` is how it should end.

Exit codes: 0 all as expected; 1 a conformance failure, or a control that was missed or misblamed; 2 usage;
3 an invalid scenario or configuration; 4 nothing selected, or nothing that is supported; 5 it could not be told;
70 a bug; 130 interrupted.";

/// Memory, in bytes, that a proxy takes with its share of the harness; Istio's agent beside it; istiod; SPIRE.
const PER_PROXY: u64 = 100 << 20;
const PER_AGENT: u64 = 40 << 20;
const PER_ISTIOD: u64 = 110 << 20;
const PER_SPIRE: u64 = 180 << 20;
/// A cell in real time waits most of the time: at most so many of them go beside each one whose time is moved.
const WAITING_PER_JOB: u32 = 6;

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let stop = Stop::default();
    let mut plan = args.selection.plan()?;
    #[cfg(feature = "kubernetes")]
    if args.on.is_elsewhere() {
        return args.on.carry_out(&plan, &args.how.runs, &args.how.reports, &stop).await;
    }
    if args.require_controls {
        plan = args.selection.with_controls(plan)?;
    }
    #[cfg(feature = "kubernetes")]
    let wanted = args.selection.clusters(args.how.keep)?;
    #[cfg(not(feature = "kubernetes"))]
    let wanted = Vec::new();
    let (_, exit) = carry_out(plan, args.how, args.shard, args.require_controls, wanted, &stop).await?;
    Ok(exit)
}

/// Runs the cells of a plan and reports them. No [`Ran`]: interrupted before anything was begun.
pub(super) async fn carry_out(
    plan: Plan,
    args: HowArgs,
    shard: Option<Shard>,
    require_controls: bool,
    clusters: Vec<ClusterWanted>,
    stop: &Stop,
) -> Result<(Option<Ran>, Exit), CliError> {
    stop.on_signals().map_err(CliError::cannot_listen)?;
    let executables = tokio::select! {
        biased;
        () = stop.requested() => return Ok((None, Exit::Interrupted)),
        executables = provide(&plan, &args, clusters) => executables?,
    };
    let exe = std::env::current_exe().ok().and_then(|p| Utf8PathBuf::from_path_buf(p).ok()).ok_or_else(|| {
        CliError::new(Exit::CouldNotTell, "cannot find the path of this program, which the guard is started from")
    })?;
    let mut jobs = plan.cells.iter().map(|cell| job(cell, &executables)).collect::<Result<Vec<_>, _>>()?;
    let whole: Vec<_> = jobs.iter().map(CellJob::planned).collect();
    if let Some(shard) = shard {
        let mut places = 0..;
        jobs.retain(|_| places.next().is_some_and(|place| shard.has(place)));
        if jobs.is_empty() {
            return Err(CliError::new(
                Exit::NothingSelected,
                format!("there is nothing in the part {shard} of a plan of {} cells", whole.len()),
            ));
        }
    }
    let at_a_time = if args.keep { 1 } else { args.jobs.unwrap_or_else(|| default_jobs(&jobs)) };
    let options = RunOptions {
        base: args.runs.clone(),
        jobs: at_a_time,
        waiting: as_many_as_fit(&jobs, at_a_time.saturating_mul(WAITING_PER_JOB)),
        timeout: args.timeout.duration(),
        keep: args.keep,
        require_controls,
        exe,
        shard: shard.map(|shard| (shard, whole)),
        // Where the program lies is the machine's affair, and of no use to whoever repeats the run.
        command_line: std::iter::once("rotacheck".to_owned()).chain(std::env::args().skip(1)).collect(),
        digests: executables.digests(),
    };
    let mut reporters = ReportSpec::reporters(&args.reports);
    let mut trouble = Vec::new();
    let ran = crate::run::run(jobs, options, stop.clone(), |told| tell(&mut reporters, &told, &mut trouble)).await;
    let ran = ran.map_err(|e| cannot_keep(&e))?;
    // The run was worth more than a report of it that could not be written; it is said at the end, and counts.
    let untold = !trouble.is_empty() || ran.unkept.is_some();
    for e in trouble {
        CliError::new(Exit::CouldNotTell, e).render();
    }
    if let Some(e) = &ran.unkept {
        cannot_keep(e).render();
    }
    let exit = exit(&ran, stop.asked(), untold);
    #[cfg(feature = "kubernetes")]
    for kind in executables.kinds.iter().filter(|kind| kind.is_left()) {
        super::stderr::say(format_args!(
            "the kind cluster {0} is left: `kind delete cluster --name {0}` removes it",
            kind.name()
        ));
    }
    Ok((Some(ran), exit))
}

/// Where several apply, an interrupt comes first, then a bug.
fn exit(ran: &Ran, interrupted: bool, untold: bool) -> Exit {
    match Exit::of(&ran.reports) {
        _ if interrupted => Exit::Interrupted,
        _ if ran.bug => Exit::Bug,
        Exit::AsExpected | Exit::NothingSelected if untold => Exit::CouldNotTell,
        exit => exit,
    }
}

fn cannot_keep(e: &ArchiveError) -> CliError {
    CliError::with_hint(Exit::CouldNotTell, format!("cannot keep the run: {e}"), e.advice())
}

fn tell(reporters: &mut [Box<dyn Reporter>], told: &Told<'_>, trouble: &mut Vec<String>) {
    for reporter in reporters {
        let result = match told {
            Told::Event(event) => reporter.event(event),
            Told::Tick => reporter.tick(),
        };
        if let Err(e) = result {
            let text = format!("cannot {e}");
            if !trouble.contains(&text) {
                trouble.push(text);
            }
        }
    }
}

/// A cluster that is to be there for the run.
#[cfg(feature = "kubernetes")]
type ClusterWanted = crate::fleet::KindConfig;
/// There are none.
#[cfg(not(feature = "kubernetes"))]
pub(super) enum ClusterWanted {}

/// What the cells of a plan run, verified.
#[derive(Default)]
struct Executables {
    envoys: BTreeMap<EnvoyRequest, EnvoyBinary>,
    /// Those that are Istio's own build, where that counts.
    own_envoys: BTreeSet<EnvoyRequest>,
    istios: BTreeMap<ProgramRequest, [ProgramBinary; 2]>,
    spires: BTreeMap<ProgramRequest, [ProgramBinary; 2]>,
    /// The images, where the proxies are to be in containers.
    containers: Option<Containers>,
    /// The clusters that hold them, where the proxies are to be there; what was made ends with this.
    #[cfg(feature = "kubernetes")]
    kinds: Vec<Kind>,
}

/// Makes the clusters. All that is run is in their images.
#[cfg(feature = "kubernetes")]
async fn in_clusters(plan: &Plan, configs: Vec<ClusterWanted>) -> Result<Executables, CliError> {
    use crate::scenario::ProviderKind;
    let (mut kinds, all) = (Vec::new(), configs.len());
    let issues = |is: fn(ProviderKind) -> bool| plan.cells.iter().any(|cell| is(cell.scenario.provider.kind));
    let issuers = Issuers { spire: issues(ProviderKind::has_spire), tbot: issues(ProviderKind::has_tbot) };
    for (n, config) in (1..).zip(configs) {
        let config = ClusterWanted { issuers, ..config };
        let line = Talk::new().line();
        let which = if all > 1 { format!(" (cluster {n} of {all})") } else { String::new() };
        let kind = Kind::up(config, &|doing| line.tell(&format!("{doing}{which}"))).await;
        line.clear();
        kinds.push(kind.map_err(|e| CliError::kind(&e))?);
    }
    Ok(Executables { kinds, ..Executables::default() })
}

#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "as with clusters")]
async fn in_clusters(_: &Plan, _: Vec<ClusterWanted>) -> Result<Executables, CliError> {
    Ok(Executables::default())
}

async fn provide(plan: &Plan, args: &HowArgs, clusters: Vec<ClusterWanted>) -> Result<Executables, CliError> {
    if !clusters.is_empty() {
        return in_clusters(plan, clusters).await;
    }
    let lock = Lock::discover(args.lock.as_deref()).map_err(|e| CliError::artifact("use the lock file", &e))?;
    let store = Store::open(StoreOptions { cache: None, lock, offline: args.offline })
        .map_err(|e| CliError::artifact("use the cache", &e))?;
    let containers = Containers::provide(&plan.cells, args.offline).await?;
    let talk = Talk::new();
    let mut envoys = BTreeMap::new();
    let local = plan.cells.iter().filter(|cell| !cell.scenario.fleet.kind.is_container());
    for request in local.map(|cell| &cell.envoy) {
        if envoys.contains_key(request) {
            continue;
        }
        let line = talk.line();
        let what = format!("Envoy {request}");
        let binary = store.envoy(request, &|progress| line.show(&what, &progress)).await;
        line.clear();
        envoys.insert(request.clone(), binary.map_err(|e| CliError::artifact(format!("provide {what}"), &e))?);
    }
    let program = async |program: Program, request: &ProgramRequest| {
        let line = talk.line();
        let what = format!("{program} {request}");
        let binary = store.program(program, request, &|progress| line.show(&what, &progress)).await;
        line.clear();
        binary.map_err(|e| CliError::artifact(format!("provide {what}"), &e))
    };
    let mut istios = BTreeMap::new();
    for request in plan.istios() {
        let binaries =
            [program(Program::PilotAgent, &request).await?, program(Program::PilotDiscovery, &request).await?];
        istios.insert(request, binaries);
    }
    let mut spires = BTreeMap::new();
    for request in plan.spires() {
        let binaries = [program(Program::SpireServer, &request).await?, program(Program::SpireAgent, &request).await?];
        spires.insert(request, binaries);
    }
    let behind_istio: BTreeSet<_> =
        plan.cells.iter().filter(|cell| cell.istio.is_some()).map(|cell| &cell.envoy).collect();
    let mut own_envoys = BTreeSet::new();
    for request in behind_istio {
        let told = has_istio_filters(&envoys[request].path).await;
        if told.map_err(|e| CliError::artifact(format!("read Envoy {request}"), &e))? {
            own_envoys.insert(request.clone());
        }
    }
    Ok(Executables {
        envoys,
        own_envoys,
        istios,
        spires,
        containers,
        #[cfg(feature = "kubernetes")]
        kinds: Vec::new(),
    })
}

impl Executables {
    /// SHA-256 by program and version.
    fn digests(&self) -> BTreeMap<String, String> {
        let envoys = self.envoys.values().map(|b| (format!("envoy {}", b.version), b.digest.to_string()));
        let programs = self.istios.values().chain(self.spires.values()).flatten();
        let programs = programs.map(|b| (format!("{} {}", b.program, b.version), b.digest.to_string()));
        #[cfg(feature = "kubernetes")]
        let images = self.kinds.iter().flat_map(|kind| kind.digests.clone());
        #[cfg(not(feature = "kubernetes"))]
        let images = std::iter::empty();
        let containers = self.containers.iter().flat_map(Containers::digests);
        envoys.chain(programs).chain(containers).chain(images).collect()
    }

    /// A job whose proxies are to be pods.
    #[cfg(feature = "kubernetes")]
    fn pods(kind: &Kind, cell: &Cell) -> Result<CellJob, CliError> {
        let source = format!("image {}", cell.envoy);
        let of_istio = cell.istio.as_ref().map_or_else(|| source.clone(), |image| format!("image {image}"));
        let istio = IstioSubject { version: kind.istio.clone(), source: of_istio, name: None };
        let subject = Subject {
            envoy: EnvoySubject { version: kind.envoy.clone(), source },
            provider: cell.scenario.provider.subject(Some(&istio.version), None),
            istio: Some(istio),
            cluster: Some(kind.subject.clone()),
        };
        let asked = Asked::of(&cell.scenario.provider);
        let disclosed = if cell.unsupported.is_none() { kind.disclosures(asked.as_ref()) } else { Vec::new() };
        let spire = cell.spire.as_ref().map(|_| SpireFrom::Pods);
        Ok(CellJob { place: Some(kind.place()), asked, spire, ..new_job(cell, subject, disclosed, ENVOY.into())? })
    }

    fn istio(&self, request: &ProgramRequest, envoy: &EnvoyRequest) -> (IstioSubject, IstioPrograms) {
        let [agent, discovery] = &self.istios[request];
        let name = Some(agent.name.clone()).filter(|name| *name != agent.version);
        let subject = IstioSubject { version: agent.version.clone(), source: agent.source.clone(), name };
        let template = agent.bootstrap_template.clone().unwrap_or_default();
        let own_envoy = self.own_envoys.contains(envoy);
        (subject, IstioPrograms { agent: agent.path.clone(), discovery: discovery.path.clone(), template, own_envoy })
    }

    /// Where the subject of a cell is not as its makers ship it.
    fn disclosed(&self, cell: &Cell) -> Vec<Disclosure> {
        let Some([agent, _]) = cell.istio.as_ref().map(|request| &self.istios[request]) else { return Vec::new() };
        let envoy = &self.envoys[&cell.envoy].version;
        let tapped = cell.scenario.provider.kind.is_of_istio();
        disclosures(envoy, agent.line, self.own_envoys.contains(&cell.envoy), tapped)
    }
}

/// SPIRE's version, and its programs.
fn spire([server, agent]: &[ProgramBinary; 2]) -> (String, SpirePrograms) {
    (server.version.clone(), SpirePrograms { server: server.path.clone(), agent: agent.path.clone() })
}

fn job(cell: &Cell, executables: &Executables) -> Result<CellJob, CliError> {
    #[cfg(feature = "kubernetes")]
    if let Some(kind) = cell.cluster.and_then(|nth| executables.kinds.get(nth)) {
        return Executables::pods(kind, cell);
    }
    let containers = executables.containers.as_ref().filter(|_| cell.scenario.fleet.kind.is_container());
    let (envoy, path) = match containers {
        Some(containers) => (containers.subject(cell), ENVOY.into()),
        None => {
            let binary = &executables.envoys[&cell.envoy];
            (EnvoySubject { version: binary.version.clone(), source: binary.source.clone() }, binary.path.clone())
        }
    };
    let istio = cell.istio.as_ref().map(|request| executables.istio(request, &cell.envoy));
    let spire = cell.spire.as_ref().map(|request| spire(&executables.spires[request]));
    let subject = Subject {
        envoy,
        istio: istio.as_ref().map(|(subject, _)| subject.clone()),
        provider: cell.scenario.provider.subject(
            istio.as_ref().map(|(subject, _)| subject.version.as_str()),
            spire.as_ref().map(|(version, _)| version.as_str()),
        ),
        cluster: None,
    };
    let disclosed = if cell.unsupported.is_none() { executables.disclosed(cell) } else { Vec::new() };
    let job = new_job(cell, subject, disclosed, path)?;
    Ok(CellJob {
        vessel: containers.map(|containers| containers.vessel(cell, &job.id)),
        istio: istio.map(|(_, programs)| programs),
        spire: spire.map(|(_, programs)| SpireFrom::Programs(programs)),
        ..job
    })
}

fn new_job(cell: &Cell, subject: Subject, disclosed: Vec<Disclosure>, envoy: Utf8PathBuf) -> Result<CellJob, CliError> {
    Ok(CellJob {
        id: cell.id(&subject.envoy.version),
        yaml: cell.yaml().map_err(|e| CliError::new(Exit::Bug, format!("cannot write down the scenario: {e}")))?,
        scenario: cell.scenario.clone(),
        subject,
        envoy,
        istio: None,
        spire: None,
        vessel: None,
        #[cfg(feature = "kubernetes")]
        place: None,
        #[cfg(feature = "kubernetes")]
        asked: None,
        disclosed,
        command: cell.command(),
        unsupported: cell.unsupported.clone(),
        unproven: Vec::new(),
    })
}

/// A job for each processor, as far as the memory goes.
fn default_jobs(jobs: &[CellJob]) -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    as_many_as_fit(jobs, processors)
}

/// So many cells at a time, if half of the memory holds as many of the largest.
fn as_many_as_fit(jobs: &[CellJob], wanted: u32) -> u32 {
    let largest = jobs.iter().map(memory).max().unwrap_or(PER_PROXY);
    let machine = rustix::system::sysinfo();
    let half = machine.totalram.saturating_mul(u64::from(machine.mem_unit)) / 2;
    wanted.min(u32::try_from(half / largest).unwrap_or(u32::MAX)).max(1)
}

fn memory(job: &CellJob) -> u64 {
    let proxies = u64::from(job.scenario.fleet.proxies.max(1));
    let mesh = job.istio.as_ref().map_or(0, |_| PER_ISTIOD + proxies * PER_AGENT);
    let issuer = job.spire.as_ref().map_or(0, |_| PER_SPIRE);
    proxies * PER_PROXY + mesh + issuer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;
    use crate::plan::Outcome::{Error, Fail, Inconclusive, Pass, Unsupported};
    use crate::scenario::Role::Conformance;

    #[test]
    fn the_gravest_end_gives_the_exit_code() {
        let cell = |outcome, as_expected| sample::cell("rotation", "1.38.3", Conformance, outcome, as_expected);
        let cells = [cell(Pass, true), cell(Inconclusive, false), cell(Error, false), cell(Fail, false)];
        let code = |cells: &[_], bug, interrupted, untold| {
            exit(&Ran { reports: cells.to_vec(), directory: "/x".into(), bug, unkept: None }, interrupted, untold)
        };
        assert_eq!(code(&cells[..1], false, false, false), Exit::AsExpected);
        assert_eq!(code(&cells[..1], false, false, true), Exit::CouldNotTell);
        let unsupported = [cell(Unsupported, false)];
        assert_eq!(code(&unsupported, false, false, false), Exit::NothingSelected);
        assert_eq!(code(&cells[..3], false, false, false), Exit::CouldNotTell);
        assert_eq!(code(&cells, false, false, true), Exit::Failed);
        assert_eq!(code(&cells, true, false, true), Exit::Bug);
        assert_eq!(code(&cells, true, true, true), Exit::Interrupted);
    }
}
