//! `rotacheck diagnose`.

#[cfg(feature = "kubernetes")]
mod look;
#[cfg(feature = "kubernetes")]
mod page;

use camino::Utf8PathBuf;

use super::{CliError, Exit};
use crate::scenario::Span;

/// Where Envoy's admin API listens beside Istio's agent.
const ADMIN_PORT: u16 = 15000;

/// Of options that change something in the cluster.
const CHANGES: &str = "What changes something in the cluster";

/// Arguments of `rotacheck diagnose`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Nothing is changed in the cluster, unless --witness, --prober or --raise-config-log ask for it. Each proxy's admin API is asked through the API server, for what `pilot-agent request \
GET certs`, config_dump, stats and server_info print; its log is read. Needed: list pods, get and create pods/portforward \
(else pods/exec), get pods/log. What is forbidden is named, and the rest is done without it.

One look tells what has expired, what is overdue, and what contradicts itself. Whether certificates come again under new \
versions shows only after a while: --watch, for longer than the provider's interval.

With --raise-config-log, Envoy's logger `config` is at debug as long as --watch lasts: some lines in the proxy's log for each \
update that it gets, of whatever kind. It is put back at the end, on Ctrl-C and on an error, or you are told what was not. A \
rotacheck that is killed leaves it raised until the proxy is started again, or until somebody says (Istio starts it with warning, unless you set another level):
  kubectl exec -n NAMESPACE POD -c istio-proxy -- pilot-agent request POST 'logging?config=warning'

Examples:
  rotacheck diagnose -n shop
  rotacheck diagnose --context prod -A --watch 30m --renew-every 20m
  rotacheck diagnose -n shop --pod web-6f9c --json
  rotacheck diagnose -n shop --watch 45m --raise-config-log
  rotacheck diagnose -n shop --pod web-6f9c --watch 45m --witness rotacheck:0.1 --prober rotacheck:0.1

Exit codes: 0 every proxy has a certificate that is not overdue, 1 some have not, 4 no proxy was found, 5 some could not be \
looked at, or none was left to look at, or a logger could not be put back.")]
pub struct Args {
    /// A context of your kubeconfig [default: the current one].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The namespace.
    #[arg(long, short = 'n', value_name = "NAME", default_value = "default")]
    namespace: String,
    /// All namespaces.
    #[arg(long, short = 'A', conflicts_with_all = ["namespace", "pod"])]
    all_namespaces: bool,
    /// One pod of the namespace; then no right to list pods is needed.
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Go on looking for so long: 30m, 2h. Ctrl-C ends it earlier, with what was seen.
    #[arg(long, value_name = "TIME")]
    watch: Option<Span>,
    /// Between two looks.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    every: Span,
    /// The interval at which the provider is to renew; without it, half of each certificate's lifetime is taken.
    #[arg(long, value_name = "TIME")]
    renew_every: Option<Span>,
    /// Add an ephemeral container of this image (rotacheck's own) to the pod: a fresh subscriber at its provider's socket,
    /// which also stays for the time of --watch. It ends by itself; in the pod's description it stays until the pod goes.
    #[arg(long, value_name = "IMAGE", requires = "pod", help_heading = CHANGES)]
    witness: Option<String>,
    /// Make a pod of this image (rotacheck's own) outside of the mesh, shake hands with every proxy through it, and delete it at
    /// the end.
    #[arg(long, value_name = "IMAGE", help_heading = CHANGES)]
    prober: Option<String>,
    /// Set Envoy's logger `config` to debug in every proxy that is looked at, and put it back at the end: the proxy's log then
    /// tells of each SDS update whether it brought anything new, or was refused. Nothing else of that log is kept.
    #[arg(long, requires = "watch", help_heading = CHANGES)]
    raise_config_log: bool,
    /// Port of the admin API in the pods.
    #[arg(long, value_name = "PORT", default_value_t = ADMIN_PORT)]
    admin_port: u16,
    /// Keep the recording (NDJSON), for `rotacheck judge` and for whoever is to see it. It holds certificates, never keys.
    #[arg(long, value_name = "FILE")]
    record: Option<Utf8PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "kubernetes")]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    look::run(args).await
}

#[cfg(not(feature = "kubernetes"))]
pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let _ = (args.context, args.namespace, args.all_namespaces, args.pod, args.watch, args.every, args.renew_every);
    let _ = (args.admin_port, args.record, args.json, args.witness, args.prober, args.raise_config_log);
    Err(CliError::with_hint(
        Exit::Usage,
        "cannot ask a cluster: this rotacheck was built without the feature `kubernetes`",
        "build it with `--features kubernetes`",
    ))
}
