//! What a scenario says of real providers that are started for it: how SPIRE attests, which tbot joins which cluster, and
//! what is done to them.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::{Fault, FaultSpec, ProviderKind, Scenario, Span};

/// The other trust domain that SPIRE's workloads federate with, where one is needed.
pub const FEDERATED_DOMAIN: &str = "others.test";

/// How SPIRE's agent proves to the server which node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeAttestation {
    /// By a certificate that it keeps, with its keys on disk: one that is started again is who it was.
    #[default]
    X509pop,
    /// By a join token, which is good for once, with its keys in memory: one that is started again is nobody.
    JoinToken,
}

impl NodeAttestation {
    pub(super) fn is_default(&self) -> bool {
        *self == NodeAttestation::X509pop
    }
}

/// A tbot: its program, and how it joins which cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TbotSpec {
    /// The executable. Default: `tbot`, as a shell finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(any(test, feature = "testing"), schemars(with = "Option<String>"))]
    pub program: Option<Utf8PathBuf>,
    /// The address of the cluster's Proxy Service, such as `teleport.example.com:443`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Where the join token is to be read: never the token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenFrom>,
    /// The name of the cluster's WorkloadIdentity that the proxies get (service `workload-identity-api`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<String>,
    /// The path of the proxies' SPIFFE ID, such as `/svc/proxies`: the older service `spiffe-workload-api`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid_path: Option<String>,
}

/// Where a secret is read when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TokenFrom {
    /// A file.
    File(#[cfg_attr(any(test, feature = "testing"), schemars(with = "String"))] Utf8PathBuf),
    /// An environment variable of rotacheck's own.
    Env(String),
}

impl std::fmt::Display for TokenFrom {
    /// As on the command line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenFrom::File(path) => write!(f, "file={path}"),
            TokenFrom::Env(name) => write!(f, "env={name}"),
        }
    }
}

impl std::str::FromStr for TokenFrom {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some(("file", path)) if !path.is_empty() => Ok(TokenFrom::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Ok(TokenFrom::Env(name.to_owned())),
            // Who gives the token itself shall not see it repeated.
            _ => Err("write where the token is: file=PATH or env=NAME"),
        }
    }
}

/// Something that is done to a real provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProviderEvent {
    /// How long after the first secrets.
    pub at: Span,
    /// What is done.
    pub action: ProviderAction,
}

/// What can be done to SPIRE; to istiod, as far as it has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "testing"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProviderAction {
    /// Its agent is killed. What it keeps on disk stays.
    KillAgent,
    /// Its agent is started again.
    StartAgent,
    /// Its agent is stopped by SIGSTOP: it neither answers nor closes anything.
    FreezeAgent,
    /// Its agent goes on.
    WakeAgent,
    /// Its server is ended. What it keeps on disk stays.
    StopServer,
    /// Its server is started again, at the same place.
    StartServer,
    /// The registration entry of the proxies is deleted.
    DeleteEntry,
    /// The registration entry of the proxies changes its lifetime by a second: a renewal on demand.
    UpdateEntry,
    /// A further signing authority joins the bundle.
    PrepareCa,
    /// The prepared authority signs from now on; both stay in the bundle.
    ActivateCa,
    /// What the old authority signed is to be issued anew.
    TaintCa,
    /// The tainted authority leaves the bundle.
    RevokeCa,
    /// Its server signs nothing any more, and its agent sends the certificate that it has, under a new version: a bundle of
    /// a trust domain that it federates with has changed.
    ResendCached,
}

impl ProviderAction {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            ProviderAction::KillAgent => "kill-agent",
            ProviderAction::StartAgent => "start-agent",
            ProviderAction::FreezeAgent => "freeze-agent",
            ProviderAction::WakeAgent => "wake-agent",
            ProviderAction::StopServer => "stop-server",
            ProviderAction::StartServer => "start-server",
            ProviderAction::DeleteEntry => "delete-entry",
            ProviderAction::UpdateEntry => "update-entry",
            ProviderAction::PrepareCa => "prepare-ca",
            ProviderAction::ActivateCa => "activate-ca",
            ProviderAction::TaintCa => "taint-ca",
            ProviderAction::RevokeCa => "revoke-ca",
            ProviderAction::ResendCached => "resend-cached",
        }
    }

    /// Whether it can be done to this provider: of Istio's CA, only istiod is there to have something done to it.
    pub(super) fn fits(self, kind: ProviderKind) -> bool {
        use ProviderAction::*;
        match kind {
            ProviderKind::Spire => true,
            ProviderKind::IstioCa => matches!(self, StopServer | StartServer | PrepareCa | ActivateCa | RevokeCa),
            _ => false,
        }
    }

    /// The part of the provider that it is done to.
    pub(super) fn part(self) -> Part {
        use ProviderAction::*;
        match self {
            KillAgent | StartAgent | FreezeAgent | WakeAgent => Part::Agent,
            StopServer | StartServer => Part::Server,
            DeleteEntry | UpdateEntry => Part::Entry,
            PrepareCa | ActivateCa | TaintCa | RevokeCa => Part::Authority,
            ResendCached => Part::Signing,
        }
    }

    /// What must have been done to the same part before, and was not undone since: nothing, or one of these.
    pub(super) fn follows(self, kind: ProviderKind) -> &'static [Option<ProviderAction>] {
        use ProviderAction::*;
        match self {
            // Istio taints nothing: what the old authority signed is issued anew when its time comes.
            RevokeCa if kind == ProviderKind::IstioCa => &[Some(ActivateCa)],
            KillAgent | FreezeAgent => &[None, Some(StartAgent), Some(WakeAgent)],
            StartAgent => &[Some(KillAgent)],
            WakeAgent => &[Some(FreezeAgent)],
            StopServer => &[None, Some(StartServer)],
            StartServer => &[Some(StopServer)],
            DeleteEntry | UpdateEntry => &[None, Some(UpdateEntry)],
            PrepareCa => &[None, Some(RevokeCa)],
            ActivateCa => &[Some(PrepareCa)],
            TaintCa => &[Some(ActivateCa)],
            RevokeCa => &[Some(TaintCa)],
            ResendCached => &[None, Some(ResendCached)],
        }
    }
}

/// A part of a provider, to which one thing can be done after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Agent,
    Server,
    Entry,
    Authority,
    Signing,
}

impl Scenario {
    /// What is asked of the fake and a SPIRE can be brought to do, is done to it: then it is no fault that it can't have.
    pub fn bring_about(&mut self) {
        let [
            FaultSpec {
                fault: Fault::ResendCached,
                from_renewal,
                until_renewal: None,
                once: false,
                proxy: None,
                secret: None,
            },
        ] = self.provider.faults[..]
        else {
            return;
        };
        if !ProviderAction::ResendCached.fits(self.provider.kind) {
            return;
        }
        self.provider.faults.clear();
        // How long that is watched was reckoned in the fake's lifetimes.
        self.observe.duration = None;
        let (every, end) = (self.provider.interval().as_secs().max(1), self.observed().as_secs());
        let at = (u64::from(from_renewal)..).map(|n| n.saturating_mul(every)).take_while(|at| *at < end);
        let resent = at.map(|at| ProviderEvent { at: Span::seconds(at), action: ProviderAction::ResendCached });
        self.provider.events = resent.collect();
    }
}
