//! `rotacheck witness`.

use std::cell::RefCell;
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::stdout::print;
use super::{CliError, Exit};
use crate::probe::beside;
use crate::scenario::Span;
use crate::timeline::{Blind, Fact, Layer, SecretName, UNCOUNTED, WITNESS_NODE};
use crate::xds::{Question, Teller, WitnessError, ask, stay};

/// How long a newcomer waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `rotacheck witness`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A subscriber of its own, beside the proxies: what is given to whoever comes now? With --for, one subscriber comes every so \
often, is answered and goes, and another one stays, and hears what is pushed. A provider that re-sends what it has cached \
sends the one who stays the same serial under new versions.

Each line of stdout is one fact, in the form of a timeline (docs/reference/timeline.md): serials, validity, identities, \
versions. The private key that SDS gives to whoever subscribes is compared with its certificate, and forgotten: it is in no \
line. `rotacheck diagnose --witness IMAGE` runs this in a pod. Before each newcomer it counts the connections to \
that socket which Envoys have in the same network namespace, where it sees their processes, else those of everybody; the kernel tells \
each by a number, which stays as long as the connection.

Examples:
  rotacheck witness --socket /run/spire/sockets/agent.sock
  rotacheck witness --socket ./sds.sock --for 30m --every 1m > seen.ndjson

Exit codes: 0 somebody was answered with a certificate, 5 nobody was.")]
pub struct Args {
    /// The socket at which the provider serves SDS.
    #[arg(long, value_name = "PATH")]
    socket: Utf8PathBuf,
    /// The secret to subscribe to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: SecretName,
    /// Between two newcomers.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    every: Span,
    /// For how long; without it, one newcomer is answered.
    #[arg(long = "for", value_name = "TIME")]
    time: Option<Span>,
    /// Whose neighbour it is, for a provider that tells subscribers apart by what they say of themselves.
    #[arg(long, value_name = "POD.NAMESPACE")]
    workload: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    // The first process of a container has no default for them.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::cannot_listen)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::cannot_listen)?;
    let node = node(args.workload.as_deref());
    let desk = Desk {
        question: Question { socket: &args.socket, name: &args.name, node: &node },
        every: args.every.duration().max(Duration::from_secs(1)),
        told: RefCell::default(),
    };
    let time = args.time.map(Span::duration);
    tokio::select! {
        () = desk.work(time) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let told = desk.told.into_inner();
    match told.failed {
        Some(e) => Err(e),
        None if told.answered => Ok(Exit::AsExpected),
        // Why, its last line says.
        None => Ok(Exit::CouldNotTell),
    }
}

/// In the form of an Istio sidecar's, where a provider reads names of workloads in it.
fn node(workload: Option<&str>) -> String {
    let of = |workload: &str| {
        let namespace = workload.rsplit('.').next().unwrap_or_default();
        format!("{WITNESS_NODE}~0.0.0.0~{workload}~{namespace}.svc.cluster.local")
    };
    workload.map_or_else(|| WITNESS_NODE.to_owned(), of)
}

struct Desk<'a> {
    question: Question<'a>,
    every: Duration,
    told: RefCell<Said>,
}

#[derive(Default)]
struct Said {
    teller: Teller,
    answered: bool,
    streams: u64,
    failed: Option<CliError>,
}

impl Desk<'_> {
    async fn work(&self, time: Option<Duration>) {
        let Some(time) = time else {
            self.count().await;
            self.ask().await;
            return;
        };
        let end = Instant::now() + time;
        // Whoever reads may have gone.
        let _ = timeout(time + PATIENCE, async { tokio::join!(self.newcomers(end), self.one_who_stays(end)) }).await;
    }

    async fn newcomers(&self, end: Instant) {
        loop {
            let next = Instant::now() + self.every;
            self.count().await;
            self.ask().await;
            if next >= end || self.told.borrow().failed.is_some() {
                return;
            }
            sleep_until(next).await;
        }
    }

    /// One whose stream ends comes again as often as newcomers come.
    async fn one_who_stays(&self, end: Instant) {
        loop {
            let next = Instant::now() + self.every;
            let left = end.saturating_duration_since(Instant::now());
            let stream = self.stream();
            let stayed = stay(self.question, stream, left, |fact| self.tell(fact)).await;
            self.tell_why_not(stayed.err());
            if next.max(Instant::now()) >= end || self.told.borrow().failed.is_some() {
                return;
            }
            sleep_until(next).await;
        }
    }

    async fn ask(&self) {
        let asked = ask(self.question, self.stream(), PATIENCE, |fact| self.tell(fact)).await;
        match asked {
            Ok(asked) => self.told.borrow_mut().answered |= asked.leaf.is_some(),
            Err(e) => self.tell_why_not(Some(e)),
        }
    }

    /// Who is connected beside it.
    async fn count(&self) {
        let counted = beside(self.question.socket).await;
        self.tell(
            counted.map_or_else(
                |why| Blind { layer: Some(Layer::Sent), what: UNCOUNTED.to_owned(), why }.into(),
                Into::into,
            ),
        );
    }

    fn stream(&self) -> u64 {
        let mut told = self.told.borrow_mut();
        told.streams += 1;
        told.streams
    }

    fn tell_why_not(&self, e: Option<WitnessError>) {
        if let Some(e) = e {
            self.tell(e.blind().into());
        }
    }

    fn tell(&self, fact: Fact) {
        let mut told = self.told.borrow_mut();
        let line = told.teller.line(self.question.name, fact);
        let line = line.map_err(|e| CliError::new(Exit::CouldNotTell, format!("cannot {e}")));
        if let Err(e) = line.and_then(print) {
            told.failed.get_or_insert(e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::is_witness;

    #[test]
    fn its_node_names_the_workload_and_is_known_as_ours() {
        assert_eq!(node(None), WITNESS_NODE);
        let named = node(Some("proxy-a.shop"));
        assert_eq!(named, "rotacheck-witness~0.0.0.0~proxy-a.shop~shop.svc.cluster.local");
        assert!(is_witness(&named));
    }
}
