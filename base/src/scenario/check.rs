//! What the types cannot say: values that contradict each other, or scenarios from which nothing could be learnt.

use crate::timeline::{Layer, ProxyId, SecretName};

use super::error::Problem;
use super::real::Part;
use super::{
    AuthorityAction, ClockKind, ExpectedJudgement, Fault, FaultPlace, FaultSpec, NodeAttestation, Profile,
    ProviderAction, ProviderKind, Role, Scenario, Serials, Span,
};

/// Longest observation in real time.
const LONGEST_REAL: Span = Span::seconds(3600);
/// Longest observation in cell time: what the harness's authorities outlive.
const LONGEST: Span = Span::seconds(366 * 86_400);
/// Most renewals in one cell.
const MOST_RENEWALS: u32 = 5_000;
/// Most proxies in one cell.
pub(super) const MOST_PROXIES: u32 = 64;
/// Most further contexts per proxy.
const MOST_CONTEXTS: u32 = 1_000;

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) -> &mut Problem {
        self.0.push(Problem { path: path.into(), message: message.into(), help: None });
        self.0.last_mut().expect("just pushed")
    }
}

impl Problem {
    fn hint(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

impl Scenario {
    /// What is wrong with it, beside its shape; empty if nothing.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        self.check_summary(&mut found);
        self.check_lifetimes(&mut found);
        self.check_provider(&mut found);
        if found.0.is_empty() {
            // What follows counts renewals, which needs sound lifetimes.
            self.check_observation(&mut found);
        }
        if found.0.is_empty() {
            self.check_faults(&mut found);
            self.check_authorities(&mut found);
            self.check_events(&mut found);
        }
        self.check_fleet(&mut found);
        self.check_expectation(&mut found);
        found.0
    }

    fn check_summary(&self, found: &mut Problems) {
        let summary = &self.summary;
        if summary.trim().is_empty() || summary.chars().any(char::is_control) || summary.chars().count() > 120 {
            found.add("summary", "the summary must be one line of 1 to 120 characters");
        }
    }

    fn check_lifetimes(&self, found: &mut Problems) {
        let ttl = self.provider.ttl();
        if !whole_seconds(ttl) || ttl.as_secs() == 0 {
            found
                .add("provider.ttl", format!("the ttl is {ttl}; it must be a whole number of seconds, at least 1s"))
                .hint("a certificate's times have no fractions of a second (RFC 5280, 4.1.2.5)");
            return;
        }
        if ttl > LONGEST {
            found.add("provider.ttl", format!("the ttl is {ttl}; it may be at most a year"));
            return;
        }
        let authorities =
            [("intermediate_ttl", self.provider.intermediate_ttl), ("authority_ttl", self.provider.authority_ttl)];
        for (key, life) in authorities.into_iter().filter_map(|(key, life)| Some((key, life?))) {
            if !whole_seconds(life) || life.as_secs() == 0 {
                let message = format!("{key} is {life}; it must be a whole number of seconds, at least 1s");
                found.add(format!("provider.{key}"), message);
            }
        }
        let interval = self.provider.interval();
        let at = if self.provider.renew_every.is_some() { "provider.renew_every" } else { "provider.ttl" };
        if !whole_seconds(interval) || interval.as_secs() == 0 {
            found.add(at, format!("renew_every is {interval}; it must be a whole number of seconds, at least 1s"));
            return;
        }
        if interval >= ttl {
            found
                .add(at, format!("renew_every ({interval}) is not shorter than the ttl ({ttl}): every certificate expires before it is renewed"))
                .hint("usual are a half or a third of the ttl; a provider that renews too late is a fault, not an interval");
            return;
        }
        let floor = self.criteria.margin_floor.of(ttl);
        let left = Span::seconds(ttl.as_secs() - interval.as_secs());
        if floor >= left {
            found
                .add(
                    "criteria.margin_floor",
                    format!("no run could pass: a margin of {floor} is asked for, and a renewal in time leaves {left}"),
                )
                .hint("the margin is what is left of the old certificate when the new one is served: less than ttl - renew_every");
        }
        if self.criteria.lag_bound.duration().is_zero() {
            found.add("criteria.lag_bound", "the lag bound must be longer than 0s");
        }
    }

    fn check_provider(&self, found: &mut Problems) {
        let provider = &self.provider;
        if provider.kind == ProviderKind::IstioCa && (provider.socket.is_some() || !provider.command.is_empty()) {
            found.add(
                "provider",
                "Istio's agents have their sockets where Istio puts them, and istiod is started with the cell",
            );
        }
        if provider.kind == ProviderKind::Spire && (provider.socket.is_some() || !provider.command.is_empty()) {
            found
                .add("provider", "SPIRE's server and agent are started with the cell, in a place of their own")
                .hint("one that runs already is `kind: external` (--provider external)");
        }
        if provider.attestation != NodeAttestation::default() && provider.kind != ProviderKind::Spire {
            found.add("provider.attestation", "only the agent of a SPIRE attests");
        }
        self.check_tbot(found);
        if matches!(provider.kind, ProviderKind::Fake | ProviderKind::Files) {
            if provider.socket.is_some() {
                found
                    .add("provider.socket", "the harness's own provider has a place of its own in every cell")
                    .hint("a provider that serves elsewhere is `kind: external` (--provider external)");
            }
            if !provider.command.is_empty() {
                found.add("provider.command", "this provider is the harness's own");
            }
            if provider.kind == ProviderKind::Files && provider.profile != Profile::Generic {
                found.add("provider.profile", "profiles differ in what is said on streams, and files have none");
            }
            return;
        }
        match &provider.socket {
            _ if provider.kind != ProviderKind::External => {}
            None => {
                found
                    .add("provider", "an external provider needs a `socket`")
                    .hint("the path of the Unix socket on which it serves SDS v3 (--socket PATH)");
            }
            Some(path) if path.as_str().is_empty() => {
                found.add("provider.socket", "the path is empty");
            }
            Some(_) => {}
        }
        for key in self.unprovoked() {
            found
                .add(
                    format!("provider.{key}"),
                    format!("{key} can't be provoked in a provider of kind `{}`", provider.kind.name()),
                )
                .hint("choose a scenario without them, such as `rotation`; or the fake");
        }
    }

    /// What only the harness's own provider could do, and this one is another: keys of the provider.
    pub fn unprovoked(&self) -> impl Iterator<Item = &'static str> {
        let provider = &self.provider;
        let ours = matches!(provider.kind, ProviderKind::Fake | ProviderKind::Files);
        let asked = [
            ("faults", !provider.faults.is_empty()),
            ("authorities", !provider.authorities.is_empty()),
            ("later_key_type", provider.later_key_type.is_some()),
            ("intermediate_ttl", provider.intermediate_ttl.is_some()),
            ("authority_ttl", provider.authority_ttl.is_some()),
            ("serials", provider.serials != Serials::Random),
            ("bundle_every", provider.bundle_every.is_some()),
        ];
        asked.into_iter().filter_map(move |(key, asked)| (asked && !ours).then_some(key))
    }

    fn check_tbot(&self, found: &mut Problems) {
        let provider = &self.provider;
        if provider.kind != ProviderKind::Tbot {
            if provider.tbot.is_some() {
                found.add("provider.tbot", "no tbot is started").hint("it is for `kind: tbot`");
            }
            return;
        }
        if provider.socket.is_some() || !provider.command.is_empty() {
            found
                .add("provider", "tbot is started with the cell, and serves in a place of its own")
                .hint("one that runs already is `kind: external` (--provider external)");
        }
        let tbot = provider.tbot.clone().unwrap_or_default();
        let missing = [
            (tbot.proxy.is_none(), "`proxy`, the address of the Teleport cluster's Proxy Service (--tbot-proxy)"),
            (tbot.token.is_none(), "`token`, where its join token is to be read (--tbot-token)"),
            (
                tbot.workload_identity.is_none() == tbot.svid_path.is_none(),
                "either `workload_identity` (--tbot-identity) or, for an older tbot, `svid_path`",
            ),
        ];
        let missing: Vec<&str> = missing.into_iter().filter(|(missing, _)| *missing).map(|(_, what)| what).collect();
        if !missing.is_empty() {
            found
                .add("provider", format!("a tbot needs {}", missing.join("; ")))
                .hint("they are keys of `provider.tbot`; the program itself is `program` (--tbot PATH)");
        }
        let texts = [
            ("proxy", tbot.proxy.as_deref()),
            ("workload_identity", tbot.workload_identity.as_deref()),
            ("svid_path", tbot.svid_path.as_deref()),
        ];
        for (key, text) in texts {
            if text.is_some_and(|text| text.trim().is_empty() || text.chars().any(char::is_control)) {
                found.add(format!("provider.tbot.{key}"), format!("{key} is no text that tbot could use"));
            }
        }
    }

    fn check_observation(&self, found: &mut Problems) {
        let observe = &self.observe;
        if observe.ready_within.is_some_and(|span| span.duration().is_zero()) {
            found.add("observe.ready_within", "proxies need some time to become ready");
        }
        let ttl = self.provider.ttl();
        let (at, given) = match (observe.duration, observe.generations_past_first_expiry) {
            (Some(_), Some(_)) => {
                found
                    .add(
                        "observe.generations_past_first_expiry",
                        "both a duration and a number of generations are given",
                    )
                    .hint("leave one of them out; the number of generations follows the ttl");
                return;
            }
            (None, Some(0)) => {
                found
                    .add(
                        "observe.generations_past_first_expiry",
                        "at least one renewal must come after the first expiry",
                    )
                    .hint("until the first certificate has expired, a proxy that never renews looks healthy");
                return;
            }
            (Some(duration), None) if !whole_seconds(duration) => {
                found.add("observe.duration", "the duration must be a whole number of seconds");
                return;
            }
            (Some(duration), None) => ("observe.duration", duration),
            (None, Some(_)) => ("observe.generations_past_first_expiry", self.observed()),
            (None, None) => ("provider.ttl", self.observed()),
        };
        if observe.duration.is_some() && self.criteria().generations_past_first_expiry == 0 {
            let interval = self.provider.interval();
            found
                .add(
                    at,
                    format!("in {given} no renewal comes after the first expiry (ttl {ttl}, renewed every {interval})"),
                )
                .hint("until the first certificate has expired, a proxy that never renews looks healthy");
        }
        if self.renewals() > MOST_RENEWALS || given > LONGEST {
            found.add(
                at,
                format!("{} renewals in {given}: at most {MOST_RENEWALS} in a year can be observed", self.renewals()),
            );
        } else if let Some(reason) = self.too_long_in_real_time() {
            found.add(at, reason).hint("use `clock: virtual`, or a ttl of some seconds");
        }
    }

    /// Why it cannot be observed in the machine's own time, if that is what it asks for.
    pub fn too_long_in_real_time(&self) -> Option<String> {
        let observed = self.observed();
        (self.clock == ClockKind::Real && observed > LONGEST_REAL)
            .then(|| format!("it would take {observed} of real time; at most {LONGEST_REAL} is sensible"))
    }

    fn check_faults(&self, found: &mut Problems) {
        let last = self.renewals();
        let proxies = self.fleet.proxy_ids();
        for (n, fault) in self.provider.faults.iter().enumerate() {
            let at = |key: &str| format!("provider.faults[{n}].{key}");
            let never_first = fault.fault == Fault::NoPush && fault.secret == Some(SecretName::root_ca());
            if fault.from_renewal == 0 && !never_first {
                found
                    .add(at("from_renewal"), "the first issue (renewal 0) cannot be spoiled")
                    .hint("a rotation begins with a certificate that works; spoil renewal 1 or a later one");
            } else if fault.from_renewal > last {
                found.add(at("from_renewal"), format!("the fault never comes: the last renewal observed is {last}"));
            }
            if fault.once && fault.until_renewal.is_some() {
                found.add(at("until_renewal"), "a fault that comes once ends by itself: leave `until_renewal` out");
            } else if let Some(until) = fault.until_renewal
                && until <= fault.from_renewal
            {
                let from = fault.from_renewal;
                found.add(
                    at("until_renewal"),
                    format!("until_renewal ({until}) must be greater than from_renewal ({from})"),
                );
            }
            if let Some(proxy) = &fault.proxy
                && !proxies.contains(proxy)
            {
                let names: Vec<&str> = proxies.iter().map(ProxyId::as_str).take(8).collect();
                let more = if proxies.len() > names.len() { ", ..." } else { "" };
                found.add(at("proxy"), format!("there is no proxy `{proxy}` in this fleet")).hint(format!(
                    "with `proxies: {}` they are {}{more}",
                    self.fleet.proxies,
                    names.join(", ")
                ));
            }
            if let Some(secret) = &fault.secret
                && !fault.fault.can_spoil(secret)
            {
                found
                    .add(at("secret"), format!("this fault cannot spoil the secret `{secret}`"))
                    .hint("`default` is the certificate, `ROOTCA` the trust bundle");
            }
            if self.role == Role::Conformance && fault.ends().is_none() && !fault.fault.passes_by_itself() {
                found
                    .add(at("fault"), "a conformance scenario must recover, and this fault never ends")
                    .hint("give `until_renewal` or `once`, or make it `role: control` with what must be found");
            }
            if fault.fault.place() == FaultPlace::Socket && (fault.proxy.is_some() || fault.secret.is_some()) {
                let key = if fault.proxy.is_some() { "proxy" } else { "secret" };
                found.add(at(key), "there is one socket, for all proxies and all secrets");
            }
            let apart = self.provider.faults.iter().any(|other| other.fault == Fault::Freeze);
            if fault.fault.place() == FaultPlace::Socket && fault.fault != Fault::Freeze && apart {
                found.add(
                    at("fault"),
                    "a socket that is served by a process to be frozen has no other faults of its own",
                );
            }
            if let Some((message, help)) = self.out_of_place(fault) {
                found.add(at("fault"), message).hint(help);
            }
            if let Some(earlier) = self.provider.faults[..n].iter().position(|other| collide(other, fault)) {
                found.add(at("fault"), format!("faults[{earlier}] spoils the same renewals of the same proxy"));
            }
        }
    }

    fn check_events(&self, found: &mut Problems) {
        let events = &self.provider.events;
        let kind = self.provider.kind;
        if !matches!(kind, ProviderKind::Spire | ProviderKind::IstioCa) && !events.is_empty() {
            found
                .add("provider.events", "only a SPIRE or an istiod that is started for the cell has events")
                .hint("`kind: spire` or `istio-ca`; what goes wrong in the harness's own provider are `faults`");
            return;
        }
        for (n, event) in events.iter().enumerate() {
            let at = |key: &str| format!("provider.events[{n}].{key}");
            let earlier = &events[..n];
            if earlier.last().is_some_and(|before| before.at > event.at) {
                found.add(at("at"), "events must be given in their order");
            }
            if event.at >= self.observed() {
                found.add(at("at"), format!("it never comes: the observation ends after {}", self.observed()));
            }
            let last = |part| earlier.iter().rev().map(|event| event.action).find(|action| action.part() == part);
            let before = last(event.action.part());
            if !event.action.fits(kind) {
                found.add(at("action"), format!("`{}` can't be done to `{}`", event.action.name(), kind.name()));
            } else if !event.action.follows(kind).contains(&before) {
                let name = event.action.name();
                let wanted: Vec<&str> =
                    event.action.follows(kind).iter().flatten().map(|action| action.name()).collect();
                let message = match before {
                    Some(before) => format!("`{name}` can't follow `{}`", before.name()),
                    None => format!("`{name}` comes after `{}`", wanted.join("` or `")),
                };
                found.add(at("action"), message);
            }
            let by_server = matches!(event.action.part(), Part::Entry | Part::Authority | Part::Signing);
            if by_server && last(Part::Server) == Some(ProviderAction::StopServer) {
                found.add(at("action"), format!("`{}` is asked of the server, which is down", event.action.name()));
            }
        }
    }

    fn check_authorities(&self, found: &mut Problems) {
        let last = self.renewals();
        if let Some(every) = self.provider.bundle_every {
            let at = "provider.bundle_every";
            if !whole_seconds(every) || every.as_secs() == 0 {
                found.add(at, format!("bundle_every is {every}; it must be a whole number of seconds, at least 1s"));
            } else if self.observed().as_secs() / every.as_secs() > u64::from(MOST_RENEWALS) {
                found.add(at, format!("at most {MOST_RENEWALS} changes of the bundle can be observed"));
            }
            if !self.provider.authorities.is_empty() {
                found.add(at, "the bundle is changed by `authorities` already");
            }
        } else if let Some(n) = self.provider.faults.iter().position(|f| f.fault == Fault::StarvedRenewal) {
            found
                .add(format!("provider.faults[{n}].fault"), "without bundles nothing starves the renewals")
                .hint("give `bundle_every`, shorter than `renew_every`");
        }
        let mut before: Option<&super::AuthorityStep> = None;
        for (n, step) in self.provider.authorities.iter().enumerate() {
            let at = |key: &str| format!("provider.authorities[{n}].{key}");
            if step.at_renewal == 0 || step.at_renewal > last {
                found.add(at("at_renewal"), format!("must be one of the renewals observed, 1 to {last}"));
            }
            if before.is_some_and(|before| before.at_renewal > step.at_renewal) {
                found.add(at("at_renewal"), "the steps must be given in the order of their renewals");
            }
            let expected = match before.map(|step| step.action) {
                None | Some(AuthorityAction::Revoke) => AuthorityAction::Prepare,
                Some(AuthorityAction::Prepare) => AuthorityAction::Activate,
                Some(AuthorityAction::Activate) => AuthorityAction::Revoke,
            };
            if step.action != expected {
                found
                    .add(at("action"), format!("`{}` must come here", expected.name()))
                    .hint("an authority is prepared, then activated; then the old one is revoked");
            } else if self.role == Role::Conformance && before.is_some_and(|b| b.at_renewal == step.at_renewal) {
                found
                    .add(
                        at("at_renewal"),
                        "each step needs a renewal of its own, or peers that have not caught up refuse each other",
                    )
                    .hint("an abrupt change is a `role: control`");
            }
            before = Some(step);
        }
    }

    fn check_fleet(&self, found: &mut Problems) {
        if !(1..=MOST_PROXIES).contains(&self.fleet.proxies) {
            found.add("fleet.proxies", format!("there can be 1 to {MOST_PROXIES} proxies"));
        }
        let by_socket = self.provider.kind == ProviderKind::Fake;
        for (key, given) in [
            ("duplicate_subscription", self.fleet.duplicate_subscription && self.provider.kind == ProviderKind::Files),
            ("must_staple", self.fleet.must_staple && !by_socket),
            ("socket_file_mounted", self.fleet.socket_file_mounted && !by_socket),
        ] {
            if given {
                let message =
                    format!("it needs the harness's own socket: `kind: fake`, not `{}`", self.provider.kind.name());
                found.add(format!("fleet.{key}"), message);
            }
        }
        if let Some(renewal) = self.fleet.late_listener
            && !(1..=self.renewals()).contains(&renewal)
        {
            let last = self.renewals();
            found.add("fleet.late_listener", format!("must be one of the renewals observed, 1 to {last}"));
        }
        if self.fleet.contexts > MOST_CONTEXTS {
            found.add("fleet.contexts", format!("there can be at most {MOST_CONTEXTS} further contexts per proxy"));
        }
    }

    fn check_expectation(&self, found: &mut Problems) {
        let expect = &self.expect;
        match (self.role, expect.judgement) {
            (Role::Conformance, ExpectedJudgement::Pass) => {}
            (Role::Conformance, _) => found
                .add("expect.judgement", "a conformance scenario is expected to pass")
                .hint("a scenario whose fault must be caught is `role: control`"),
            (Role::Control, ExpectedJudgement::Pass) if expect.noted.is_empty() => found
                .add("expect", "a control must be caught: `judgement: fail` with its `layer`, or `inconclusive`")
                .hint("one that recovers by itself must be `noted`; a scenario that must only pass is `role: conformance`"),
            // Where nobody sees what is minted, there may be several candidates, and no layer.
            (Role::Control, ExpectedJudgement::Fail)
                if expect.layer.is_none() && !self.provider.kind.has_own_timer() =>
            {
                let names: Vec<&str> = Layer::ALL.into_iter().map(Layer::name).collect();
                found
                    .add("expect", "a control must say which `layer` is to blame")
                    .hint(format!("possible are {}", names.join(", ")));
            }
            (Role::Control, _) => {}
        }
        if expect.judgement != ExpectedJudgement::Fail {
            for (key, given) in [("layer", expect.layer.is_some()), ("diagnosis", expect.diagnosis.is_some())] {
                if given {
                    found.add(format!("expect.{key}"), format!("there is no {key} unless the judgement is `fail`"));
                }
            }
        }
        // Of a provider that is not started in a place of its own, or not of a known version, the fault is its own.
        let own = matches!(self.provider.kind, ProviderKind::External | ProviderKind::Tbot);
        if self.role == Role::Control && !own && !self.seeds_a_fault() {
            found.add("role", "a control seeds a fault, and there is none in `provider.faults`");
        }
    }
}

impl Scenario {
    fn seeds_a_fault(&self) -> bool {
        if self.fleet.agents_first || self.fleet.files_socket_blocked {
            return true;
        }
        // An authority that does not outlive its leaves is one.
        let lives = [self.provider.intermediate_ttl, self.provider.authority_ttl];
        let ends = lives
            .into_iter()
            .flatten()
            .any(|life| life.duration() < self.observed().duration() + self.provider.ttl().duration());
        ends || !self.provider.faults.is_empty()
            || !self.provider.events.is_empty()
            || !self.provider.authorities.is_empty()
            || self.fleet.duplicate_subscription
    }
}

impl Scenario {
    /// Why this provider, or these proxies, can't have this fault; and what could be done.
    fn out_of_place(&self, spec: &FaultSpec) -> Option<(&'static str, &'static str)> {
        let by_files = self.provider.kind == ProviderKind::Files;
        let of_files = spec.fault.place() == FaultPlace::Files;
        if of_files && !by_files {
            return Some(("there are no files", "certificates come by files with `kind: files`"));
        }
        if by_files && !of_files && !spec.fault.fits_files() {
            return Some(("this fault needs a stream or a socket, and files have neither", "use `kind: fake`"));
        }
        if spec.fault == Fault::NotWatched && (spec.from_renewal != 1 || spec.ends().is_some()) {
            return Some(("what is watched does not change", "leave out from when and until when"));
        }
        if spec.fault == Fault::NoStaple && !self.fleet.must_staple {
            return Some(("nothing has to be stapled", "give `fleet.must_staple: true`"));
        }
        None
    }
}

impl Fault {
    /// Whether files can be spoiled in this way too.
    fn fits_files(self) -> bool {
        matches!(
            self,
            Fault::NoRenewal
                | Fault::NoPush
                | Fault::ResendCached
                | Fault::ResendStale
                | Fault::ExpiredCertificate
                | Fault::WrongIdentity
                | Fault::SecondIdentity
                | Fault::NotYetValid
        )
    }

    /// Whether the fault can be about this secret.
    fn can_spoil(self, secret: &SecretName) -> bool {
        let about_streams = self == Fault::NoPush || self.place() == FaultPlace::Streams;
        *secret == SecretName::default_svid() || (about_streams && *secret == SecretName::root_ca())
    }

    /// Whether the provider makes up for it without being told to.
    fn passes_by_itself(self) -> bool {
        matches!(self, Fault::CloseStream | Fault::SocketReplaced | Fault::SocketUnlinked)
    }
}

impl AuthorityAction {
    fn name(self) -> &'static str {
        match self {
            AuthorityAction::Prepare => "prepare",
            AuthorityAction::Activate => "activate",
            AuthorityAction::Revoke => "revoke",
        }
    }
}

/// Whether two faults of one place want to spoil one renewal for one proxy and secret in different ways.
fn collide(a: &FaultSpec, b: &FaultSpec) -> bool {
    if a.fault.place() != b.fault.place() {
        return false;
    }
    let before = |x: &FaultSpec, y: &FaultSpec| x.ends().is_some_and(|until| until <= y.from_renewal);
    let overlap = !before(a, b) && !before(b, a);
    let differ = |x: bool, y: bool, same: bool| x && y && !same;
    let apart = differ(a.proxy.is_some(), b.proxy.is_some(), a.proxy == b.proxy) || a.secret != b.secret;
    overlap && !apart
}

fn whole_seconds(span: Span) -> bool {
    span.duration().subsec_nanos() == 0
}
