//! What a look at a cluster says, on a page.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::super::page::Page;
use crate::run::{Attachment, Attended, UNKNOWN_VERSION as UNKNOWN};
use crate::timeline::{CONFIG_AT_DEBUG, CONFIG_UNHEARD, Fact, ProxyId, Source};
use crate::verdict::{Standing, State, Suspects, Verdict};

/// As long as there are no more modes that it may be, the first of them is explained on the page; the others are named.
const FEW: usize = 3;
/// What helps in most modes and harms in none, while any of many may be the one.
const WHATEVER_IT_IS: &str = "Read the provider's log on one node, from its last renewal on. If it could not renew, mend that first: \
    a provider that is restarted then comes back with nothing. Otherwise restart the provider on that node alone: its proxies connect \
    again by themselves, and keep what they hold until they are given something else. Have they new certificates then, go on with \
    the next node, the oldest certificates first; that lasts for one lifetime. If not, the fault is at the proxies or on the way to \
    the socket.";
/// Proxies that are named where the same is said of many.
const NAMED: usize = 4;

/// Where no proxy is left that could be spoken of.
pub(super) const NOBODY: &str = "no proxy was left to be looked at: how its certificate stands could not be told";

pub(super) struct Found<'a> {
    pub(super) context: &'a str,
    pub(super) attachment: &'a Attachment,
    pub(super) attended: &'a Attended,
    pub(super) standings: &'a [Standing],
    pub(super) verdict: &'a Verdict,
    pub(super) suspects: &'a [Suspects],
}

impl Found<'_> {
    pub(super) fn show(&self, page: &mut Page) {
        self.head(page);
        self.left(page);
        self.table(page);
        self.remarks(page);
        self.ways(page);
        self.modes(page);
        self.blindness(page);
    }

    fn head(&self, page: &mut Page) {
        let place = match &self.attachment.namespace {
            Some(namespace) => format!("namespace {namespace}"),
            None => "all namespaces".to_owned(),
        };
        let gone = match self.attended.gone.len() {
            0 => String::new(),
            n => format!(", {n} of them gone meanwhile"),
        };
        let header = &self.attended.timeline.header;
        let istio = header.subject.istio.as_ref().map(|istio| format!(", Istio {}", istio.version)).unwrap_or_default();
        let envoy = match header.subject.envoy.version.as_str() {
            UNKNOWN => "an Envoy that nobody could ask".to_owned(),
            version => format!("Envoy {version}"),
        };
        let pods = self.attended.pods.len();
        page.heading(&format!("{}, {place}: {pods} proxies{gone} ({envoy}{istio})", self.context));
        let counts = self.standings.iter().fold(BTreeMap::<State, usize>::new(), |mut counts, s| {
            *counts.entry(s.state).or_default() += 1;
            counts
        });
        let counts: Vec<_> = counts.iter().map(|(state, n)| format!("{n} {}", state.words())).collect();
        let counts = if counts.is_empty() { NOBODY.to_owned() } else { counts.join(", ") };
        page.paragraph(0, &counts);
        if self.attachment.prober.is_some() {
            page.paragraph(0, &self.handshakes());
        }
        page.line("");
    }

    /// What was changed, and stays so.
    fn left(&self, page: &mut Page) {
        let raised_before = self.raised_before();
        if !raised_before.is_empty() {
            let names = names(&raised_before.into_iter().collect::<Vec<_>>());
            let text = format!(
                "Envoy's logger `config` of {names} was at debug before, and is left so: somebody raised it, or a run of this that was \
                 killed. POST /logging?config=warning to the admin API lowers it."
            );
            page.paragraph(0, &text);
            page.line("");
        }
        let Some(first) = self.attended.left_raised.first() else { return };
        page.heading("Not put back");
        for left in &self.attended.left_raised {
            page.item("  - ", &format!("{}: Envoy's logger `config` stays at debug: {}", left.proxy, left.why));
        }
        page.paragraph(2, "By hand, for the first:");
        page.line(&format!("    {}", first.command));
        page.line("");
    }

    /// Whose logger was at debug already.
    fn raised_before(&self) -> BTreeSet<&ProxyId> {
        let observations = self.attended.timeline.observations.iter();
        let raised = observations.filter_map(|o| match &o.fact {
            Fact::Log(log) if log.line.starts_with(CONFIG_AT_DEBUG) && log.line.ends_with("(it was at debug)") => {
                o.proxy.as_ref()
            }
            _ => None,
        });
        raised.collect()
    }

    /// What handshakes show, beside what is loaded.
    fn handshakes(&self) -> String {
        let shown = self.standings.iter().filter_map(|s| Some((s.served.as_ref()?, s.leaf.as_ref()?)));
        let (same, other): (Vec<_>, Vec<_>) = shown.partition(|(served, leaf)| served.serial == leaf.serial);
        let others = if other.is_empty() { String::new() } else { format!(", {} another one", other.len()) };
        let all = self.standings.len();
        if same.is_empty() && other.is_empty() {
            return "No full handshake was made.".to_owned();
        }
        format!(
            "In full handshakes, {} of {all} show the certificate that their TLS contexts hold{others}.",
            same.len()
        )
    }

    fn table(&self, page: &mut Page) {
        if self.standings.is_empty() {
            return;
        }
        let rows: Vec<_> = self
            .standings
            .iter()
            .map(|s| {
                let serial = s.leaf.as_ref().map_or("-".into(), |leaf| leaf.serial.short());
                let expires = s.left_s.map_or("-".into(), countdown);
                let renewal = match (s.overdue_s, s.due, s.read) {
                    (Some(seconds), ..) => format!("overdue {}", span(seconds)),
                    (None, Some(due), Some(read)) => {
                        let left = due.duration_since(read).as_secs();
                        if left > 0 { format!("due in {}", span(left)) } else { "due".into() }
                    }
                    _ => "-".into(),
                };
                [s.state.words().to_owned(), expires, renewal, serial, s.proxy.to_string()]
            })
            .collect();
        page.table(["STATE", "EXPIRES", "RENEWAL", "SERIAL", "PROXY"], &rows);
    }

    /// What was found.
    fn remarks(&self, page: &mut Page) {
        self.said(page, "What was found", |s| &s.remarks);
    }

    /// By which way certificates come.
    fn ways(&self, page: &mut Page) {
        self.said(page, "How the certificates come", |s| &s.comes);
    }

    /// Sentences, the same of several proxies once.
    fn said(&self, page: &mut Page, heading: &str, of: fn(&Standing) -> &Vec<String>) {
        let mut said: Vec<(String, Vec<&ProxyId>)> = Vec::new();
        let remarks = self.standings.iter().flat_map(|s| of(s).iter().map(move |remark| (&s.proxy, remark)));
        for (proxy, remark) in remarks {
            match said.iter_mut().find(|(known, _)| known == remark) {
                Some((_, proxies)) => proxies.push(proxy),
                None => said.push((remark.clone(), vec![proxy])),
            }
        }
        if said.is_empty() {
            return;
        }
        page.line("");
        page.heading(heading);
        for (remark, proxies) in said {
            page.item("  - ", &format!("{}: {remark}", names(&proxies)));
        }
    }

    /// What it is, first aid, the lasting fix; for each set of proxies of which it is the same.
    fn modes(&self, page: &mut Page) {
        let mut aided = false;
        for some in self.suspects {
            self.suspected(some, page, &mut aided);
        }
    }

    fn suspected(&self, some: &Suspects, page: &mut Page, aided: &mut bool) {
        let Suspects { proxies, modes, certain, stories } = some;
        let Some((first, _)) = modes.first() else { return };
        page.line("");
        let what = if *certain { "What it is" } else { "What it may be" };
        // Of whom, where it is not the same of all.
        let of = match self.suspects.len() {
            1 => String::new(),
            _ => format!(" of {}", names(&proxies.iter().collect::<Vec<_>>())),
        };
        page.heading(&format!("{what}{of}"));
        for (mode, _) in modes {
            page.item("  - ", &format!("{}: {}", mode.name, mode.title));
        }
        if *certain {
            for story in stories.iter().take(NAMED) {
                page.item("  ", story);
            }
        }
        let decides: BTreeSet<_> = modes.iter().filter_map(|(_, decides)| decides.as_ref()).collect();
        for decides in decides {
            page.item("  ", &format!("Would decide: {decides}"));
        }
        // Once is enough.
        if modes.len() > FEW && std::mem::replace(aided, true) {
            return;
        }
        page.line("");
        if modes.len() > FEW {
            page.heading("First aid, while it may be any of these");
            page.paragraph(2, WHATEVER_IT_IS);
            page.line("");
            page.paragraph(0, "More of each: rotacheck explain NAME");
            return;
        }
        page.heading(&format!("First aid for {}", first.name));
        page.paragraph(2, first.first_aid);
        page.line("");
        page.heading("Lasting fix");
        page.paragraph(2, first.lasting_fix);
        page.line("");
        page.paragraph(0, &format!("More: rotacheck explain {}", first.name));
    }

    /// What could not be seen, and how to let it.
    fn blindness(&self, page: &mut Page) {
        let mut lines = Vec::new();
        for (right, said) in &self.attended.forbidden {
            lines.push(format!("{said}: {}", right.without()));
        }
        // The same of many, but for their own names.
        let mut unseen: BTreeMap<String, (&str, Vec<&ProxyId>)> = BTreeMap::new();
        for s in self.standings {
            // Said of the right already.
            let known = |what: &&String| !self.attended.forbidden.values().any(|said| what.contains(said.as_str()));
            for what in s.unseen.iter().filter(known) {
                let pod = self.attended.pods.get(&s.proxy).map_or("", |sidecar| sidecar.pod.name.as_str());
                let alike = if pod.is_empty() { what.clone() } else { what.replace(pod, "") };
                unseen.entry(alike).or_insert((what, Vec::new())).1.push(&s.proxy);
            }
        }
        lines.extend(unseen.values().map(|(what, proxies)| format!("{}: {what}", names(proxies))));
        lines.extend(self.beside_in_vain());
        if self.standings.iter().any(|s| s.read.is_some()) {
            let hiding = self.hiding_statistics();
            if !hiding.is_empty() {
                lines.push(format!(
                    "{}: statistics of SDS are hidden, as Istio does by default: the annotation proxy.istio.io/config with \
                     proxyStatsMatcher.inclusionRegexps [\"sds\\\\..*\", \".*ssl_context_update_by_sds\"] shows them after a restart",
                    names(&hiding)
                ));
            }
            if self.attachment.watch.is_none() {
                lines.push(
                    "whether certificates come again under new versions: --watch, for longer than the provider's interval".into(),
                );
            }
            if !self.attachment.raise_config_log {
                lines.push(
                    "what becomes of each SDS update: --watch TIME --raise-config-log, which sets a logger of Envoy's to debug \
                     meanwhile"
                        .into(),
                );
            }
            if self.attachment.prober.is_none() {
                lines.push("what a handshake shows: --prober IMAGE, which makes a pod outside of the mesh".into());
            }
            if self.attachment.witness.is_none() {
                lines.push(
                    "what the provider gives to whoever subscribes now: --pod NAME --witness IMAGE, which adds a container to \
                     that pod"
                        .into(),
                );
            }
        }
        if lines.is_empty() {
            return;
        }
        page.line("");
        page.heading("What was not seen");
        lines.iter().for_each(|line| page.item("  - ", line));
    }

    /// What witness and prober could not see.
    fn beside_in_vain(&self) -> Vec<String> {
        let observations = &self.attended.timeline.observations;
        let known = |why: &str| self.attended.forbidden.values().any(|said| why.contains(said.as_str()));
        let mut lines: Vec<String> = Vec::new();
        for o in observations {
            if let Fact::Blind(blind) = &o.fact
                && (matches!(o.source, Source::Witness | Source::Inbound) || blind.what == CONFIG_UNHEARD)
                && !known(&blind.why)
            {
                let whose = o.proxy.as_ref().map(|proxy| format!("{proxy}: ")).unwrap_or_default();
                let line = format!("{whose}{}: {}", blind.what, blind.why);
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        let mut last: BTreeMap<&ProxyId, Option<&String>> = BTreeMap::new();
        for o in observations.iter().filter(|o| o.source == Source::Inbound) {
            if let (Some(proxy), Fact::Handshake(shown)) = (&o.proxy, &o.fact) {
                last.insert(proxy, shown.error.as_ref().filter(|_| shown.chain.is_empty()));
            }
        }
        let mut failed: BTreeMap<&String, Vec<&ProxyId>> = BTreeMap::new();
        for (proxy, why) in last {
            if let Some(why) = why {
                failed.entry(why).or_default().push(proxy);
            }
        }
        let failed = failed.iter();
        lines.extend(failed.map(|(why, proxies)| format!("{}: a handshake: {why}", names(proxies))));
        lines
    }

    /// Proxies that gave statistics, and none of SDS.
    fn hiding_statistics(&self) -> Vec<&ProxyId> {
        let mut shows: BTreeMap<&ProxyId, bool> = BTreeMap::new();
        for o in &self.attended.timeline.observations {
            if let (Some(proxy), Fact::Stats(stats)) = (&o.proxy, &o.fact) {
                *shows.entry(proxy).or_default() |= stats.values.keys().any(|name| name.starts_with("sds."));
            }
        }
        shows.into_iter().filter(|(_, shows)| !shows).map(|(proxy, _)| proxy).collect()
    }

    pub(super) fn as_json(&self) -> serde_json::Value {
        let suspects: Vec<_> = self
            .suspects
            .iter()
            .flat_map(|some| {
                some.modes.iter().map(|(mode, decides)| {
                    json!({"mode": mode.name, "title": mode.title, "would_decide": decides, "proxies": some.proxies,
                    "first_aid": mode.first_aid, "lasting_fix": mode.lasting_fix})
                })
            })
            .collect();
        let pods: BTreeMap<_, _> = self
            .attended
            .pods
            .iter()
            .map(|(id, s)| {
                let pod = json!({"namespace": s.pod.namespace, "pod": s.pod.name, "node": s.node, "image": s.image,
                    "restarts": s.restarts, "gone": self.attended.gone.contains(id)});
                (id.to_string(), pod)
            })
            .collect();
        let forbidden: BTreeMap<_, _> =
            self.attended.forbidden.iter().map(|(right, said)| (right.to_string(), said)).collect();
        let left = self.attended.left_raised.iter();
        let left: Vec<_> = left.map(|l| json!({"proxy": l.proxy, "command": l.command, "why": l.why})).collect();
        json!({"context": self.context, "namespace": self.attachment.namespace, "proxies": self.standings,
            "pods": pods, "suspects": suspects, "diagnosis": self.verdict.diagnosis, "layer": self.verdict.layer,
            "forbidden": forbidden, "left_raised": left})
    }
}

fn names(proxies: &[&ProxyId]) -> String {
    let named: Vec<_> = proxies.iter().take(NAMED).map(ToString::to_string).collect();
    match proxies.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// `in 12 min`, `10 h 08 min ago`.
fn countdown(seconds: i64) -> String {
    if seconds > 0 { format!("in {}", span(seconds)) } else { format!("{} ago", span(seconds)) }
}

fn span(seconds: i64) -> String {
    let s = seconds.saturating_abs();
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d", s / 86400),
    }
}
