//! The look at the cluster that a command line asks for.

use std::fs::File;
use std::time::Duration;

use super::super::page::{Page, print_json};
use super::super::stderr::say;
use super::super::{CliError, Exit};
use super::{Args, page};
use crate::cluster::{Cluster, ClusterError, Sidecar};
use crate::run::{AttachError, Attachment, Attended, Probe, Stop, Witness, attend};
use crate::scenario::Span;
use crate::verdict::{Standing, State, judge, standings, suspects};

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let cluster = Cluster::of_context(args.context.as_deref()).await.map_err(|e| refused(&e))?;
    let attachment = Attachment {
        namespace: (!args.all_namespaces).then(|| args.namespace.clone()),
        pod: args.pod.clone(),
        admin_port: args.admin_port,
        watch: args.watch.map(Span::duration),
        every: args.every.duration().max(Duration::from_secs(1)),
        renew_every: args.renew_every.map(Span::duration),
        witness: args.witness.clone().map(|image| Witness { image }),
        prober: args.prober.clone().map(|image| Probe { image, namespace: args.namespace.clone() }),
        raise_config_log: args.raise_config_log,
    };
    announce(&attachment);
    let out = args.record.as_ref().map(|path| {
        File::create(path).map_err(|e| CliError::new(Exit::CouldNotTell, format!("cannot write {path}: {e}")))
    });
    let stop = Stop::default();
    stop.on_signals().map_err(CliError::cannot_listen)?;
    let watching = attachment.watch;
    let tell = |looks: u32, passed: Duration| {
        if let Some(watch) = watching {
            say(format_args!("look {looks}, {} of {} s", passed.as_secs(), watch.as_secs()));
        }
    };
    let attended = attend(&cluster, &attachment, out.transpose()?, &stop, &tell).await;
    let attended = attended.map_err(|e| match &e {
        AttachError::Cluster(e) => refused(e),
        AttachError::NoProxy { .. } => CliError::with_hint(
            Exit::NothingSelected,
            format!("cannot {e} of {}", cluster.context()),
            "-n names the namespace, -A looks in all of them; a proxy is a container istio-proxy, or an Envoy by its image",
        ),
        AttachError::Record(e) => CliError::with_hint(Exit::CouldNotTell, format!("cannot {e}"), "name another --record"),
    })?;
    for left in &attended.left_raised {
        say(format_args!(
            "WARNING: Envoy's logger `config` of {} stays at debug, for it could not be put back ({}). Do it by hand:\n  {}",
            left.proxy, left.why, left.command
        ));
    }
    let mut standings = standings(&attended.timeline);
    standings.retain(|standing| !attended.gone.contains(&standing.proxy));
    for standing in &mut standings {
        if let Some(remark) = attended.pods.get(&standing.proxy).and_then(|sidecar| of_another(standing, sidecar)) {
            standing.remarks.push(remark);
            standing.suspected.push(WRONG_IDENTITY);
        }
    }
    standings.sort_by(|a, b| (a.state, a.left_s, &a.proxy).cmp(&(b.state, b.left_s, &b.proxy)));
    let verdict = judge(&attended.timeline);
    let suspects = suspects(&attended.timeline, &verdict, &standings);
    let found = page::Found {
        context: cluster.context(),
        attachment: &attachment,
        attended: &attended,
        standings: &standings,
        verdict: &verdict,
        suspects: &suspects,
    };
    if args.json {
        if standings.is_empty() {
            say(page::NOBODY);
        }
        print_json(&found.as_json());
    } else {
        let mut page = Page::new();
        found.show(&mut page);
        page.print();
    }
    Ok(exit(&attended, &standings))
}

/// The mode of a certificate that is another one's.
const WRONG_IDENTITY: &str = "wrong-identity";

/// What will be changed is said before it is.
fn announce(attachment: &Attachment) {
    if let (Some(witness), Some(pod)) = (&attachment.witness, &attachment.pod) {
        let ends = match attachment.watch {
            Some(watch) => format!("ends after {} s", watch.as_secs()),
            None => "ends when it was answered".to_owned(),
        };
        say(format_args!(
            "adds an ephemeral container ({}) to the pod {pod}: it {ends}, and stays in the pod's description until the pod goes",
            witness.image
        ));
    }
    if let Some(prober) = &attachment.prober {
        say(format_args!(
            "makes a pod and a Secret (rotacheck-prober-..., {}) in namespace {}, and deletes them at the end",
            prober.image, prober.namespace
        ));
    }
    if attachment.raise_config_log {
        say(format_args!(
            "sets Envoy's logger `config` to debug in every proxy that is looked at, and puts it back at the end; whoever is killed \
             leaves it: --help says how it is put back by hand"
        ));
    }
}

/// A certificate that Istio's naming gives to another service account than the pod's: whoever knows whom it calls refuses it. Of
/// identities of another form, only the provider knows whose they are.
fn of_another(standing: &Standing, sidecar: &Sidecar) -> Option<String> {
    let Sidecar { pod, account, is_istio, .. } = sidecar;
    let of_account = |uri: &String| {
        let (_, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let (namespace, account) = path.strip_prefix("ns/")?.split_once("/sa/")?;
        Some((namespace.to_owned(), account.to_owned())).filter(|(_, account)| !account.contains('/'))
    };
    let uris = &standing.leaf.as_ref()?.uris;
    let named: Vec<_> = uris.iter().filter_map(of_account).collect();
    let own = named.iter().any(|(namespace, name)| (namespace, name) == (&pod.namespace, account));
    (*is_istio && !account.is_empty() && !named.is_empty() && !own).then(|| {
        let identity = uris.join(", ");
        format!("its certificate is of {identity}, and its pod has the service account {account} in {}", pod.namespace)
    })
}

fn exit(attended: &Attended, standings: &[Standing]) -> Exit {
    let in_order = attended.left_raised.is_empty();
    // Of nobody, nothing is as expected.
    let looked_at_all = !standings.is_empty() && standings.len() + attended.gone.len() >= attended.pods.len();
    let any = |states: &[State]| standings.iter().any(|s| states.contains(&s.state));
    let of_others = standings.iter().any(|s| s.suspected.contains(&WRONG_IDENTITY));
    if of_others || any(&[State::Expired, State::NotYetValid, State::Mixed, State::Overdue, State::Empty]) {
        Exit::Failed
    } else if !in_order || !looked_at_all || any(&[State::Unseen]) {
        Exit::CouldNotTell
    } else {
        Exit::AsExpected
    }
}

fn refused(e: &ClusterError) -> CliError {
    let exit = match e {
        ClusterError::Config { .. } => Exit::Usage,
        ClusterError::Missing { .. } => Exit::NothingSelected,
        _ => Exit::CouldNotTell,
    };
    CliError::with_hint(exit, format!("cannot {e}"), e.hint())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::canned::answering;

    fn pods(items: &Value) -> (u16, Value) {
        (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}))
    }

    #[tokio::test]
    async fn where_nobody_is_left_nothing_is_as_expected() {
        let state = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let status = json!({"name": "istio-proxy", "restartCount": 0, "ready": true, "image": "", "imageID": "", "state": state});
        let one = json!([{
            "metadata": {"name": "db-0", "namespace": "ns1", "uid": "u"},
            "spec": {"containers": [{"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"}]},
            "status": {"phase": "Running", "containerStatuses": [status]}}]);
        let (cluster, _) = answering(vec![pods(&one), pods(&json!([]))]);
        let attachment = Attachment {
            namespace: Some("ns1".into()),
            pod: None,
            admin_port: 15000,
            watch: Some(Duration::from_secs(60)),
            every: Duration::from_millis(200),
            renew_every: None,
            witness: None,
            prober: None,
            raise_config_log: false,
        };
        let stop = Stop::default();
        let tell = |looks: u32, _: Duration| {
            if looks == 2 {
                stop.ask();
            }
        };
        let attended = attend(&cluster, &attachment, None, &stop, &tell).await.unwrap();
        assert_eq!((attended.pods.len(), attended.gone.len()), (1, 1));
        assert_eq!(exit(&attended, &[]), Exit::CouldNotTell);
    }
}
