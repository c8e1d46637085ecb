//! Why a cluster did not answer, and what its administrator could do about it.

use std::fmt;

/// A right that is needed, in the words of a Role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Which pods have a proxy.
    ListPods,
    /// What one pod is.
    GetPods,
    /// To the admin API of a proxy.
    Forward,
    /// The same by a command in the proxy's container, where connections are not forwarded.
    Exec,
    /// What a proxy logged.
    Logs,
    /// A container that joins a pod.
    Join,
}

impl Right {
    /// Verb and resource. A connection is upgraded from a GET; newer API servers ask for `create` as well.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ListPods => ("list", "pods"),
            Self::GetPods => ("get", "pods"),
            Self::Forward => ("get", "pods/portforward"),
            Self::Exec => ("get", "pods/exec"),
            Self::Logs => ("get", "pods/log"),
            Self::Join => ("patch", "pods/ephemeralcontainers"),
        }
    }

    /// What it means that it is missing.
    pub fn without(self) -> &'static str {
        match self {
            Self::ListPods | Self::GetPods => "proxies are not found without it; --pod names one",
            Self::Forward => "proxies of Istio's were asked by commands (pods/exec) instead, others not at all",
            Self::Exec => "it takes this or pods/portforward to ask a proxy anything",
            Self::Logs => "what Istio's agent said of the provider's socket, and what a witness saw, is unknown",
            Self::Join => "what a fresh subscriber gets is unknown",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, resource) = self.words();
        write!(f, "{verb} {resource}")
    }
}

/// Why a cluster did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig, or the context in it.
    #[error("use the {}: {why}", context.as_ref().map_or("kubeconfig".to_owned(), |name| format!("context {name:?}")))]
    Config {
        /// As it was asked for.
        context: Option<String>,
        /// In words.
        why: String,
    },
    /// The user may not.
    #[error("{right} in {place}: the cluster forbids it ({said})")]
    Forbidden {
        /// What it would take.
        right: Right,
        /// The namespace, or all of them.
        place: String,
        /// What the API server said.
        said: String,
    },
    /// The user is unknown.
    #[error("{right} in {place}: the cluster does not know the user ({said})")]
    Unauthorized {
        /// What was tried.
        right: Right,
        /// The namespace, or all of them.
        place: String,
        /// What the API server said.
        said: String,
    },
    /// There is no such pod.
    #[error("find {what} in the cluster")]
    Missing {
        /// In words.
        what: String,
    },
    /// Something was not made, read or taken away as it was to be.
    #[error("{what}: {said}")]
    Undone {
        /// What was tried: `create the Pod ns/name`.
        what: String,
        /// In words.
        said: String,
    },
    /// The API server, or the node behind it, did not do it.
    #[error("{right} in {place}: {said}")]
    Failed {
        /// What was tried.
        right: Right,
        /// The namespace, or all of them.
        place: String,
        /// In words.
        said: String,
    },
}

impl ClusterError {
    /// What an error of the client says of a request.
    pub(super) fn of(e: &kube::Error, right: Right, place: &str) -> Self {
        let place = place.to_owned();
        match e {
            kube::Error::Api(status) if status.code == 403 => {
                Self::Forbidden { right, place, said: shortened(&status.message) }
            }
            kube::Error::Api(status) if status.code == 401 => {
                Self::Unauthorized { right, place, said: shortened(&status.message) }
            }
            kube::Error::Api(status) => Self::Failed { right, place, said: shortened(&status.message) },
            e => Self::Failed { right, place, said: with_sources(e) },
        }
    }

    /// Something that was not done.
    pub(super) fn undone(what: impl Into<String>, e: &kube::Error) -> Self {
        let said = match e {
            kube::Error::Api(status) => shortened(&status.message),
            e => with_sources(e),
        };
        Self::Undone { what: what.into(), said }
    }

    /// The right that is missing, if that is what is wrong.
    pub fn missing_right(&self) -> Option<Right> {
        match self {
            Self::Forbidden { right, .. } => Some(*right),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Config { .. } => "`kubectl config get-contexts` lists the contexts; --context names one, KUBECONFIG \
                 another file"
                .into(),
            Self::Forbidden { right, place, .. } => {
                let (verb, resource) = right.words();
                let place = match place.strip_prefix("namespace ") {
                    Some(namespace) => format!("-n {namespace}"),
                    None => "--all-namespaces".into(),
                };
                format!(
                    "`kubectl auth can-i {verb} {resource} {place}` asks for it; docs/guide/in-your-cluster.md has the \
                     Role with all that is needed"
                )
            }
            Self::Unauthorized { .. } => "log in to the cluster again: `kubectl auth whoami` says as whom".into(),
            Self::Missing { .. } => "-n names the namespace, -A looks in all of them, --pod names one pod".into(),
            Self::Undone { .. } | Self::Failed { .. } => {
                "`kubectl get --raw /readyz?verbose` says how the cluster is".into()
            }
        }
    }
}

/// An error with those that led to it, each once.
pub(super) fn with_sources(e: &dyn std::error::Error) -> String {
    let mut said = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = e.source();
    }
    shortened(&said)
}

/// On one line, without what could disturb a terminal.
pub(super) fn shortened(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    text.trim().to_owned()
}
