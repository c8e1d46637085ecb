//! The part of a command line that names a tbot and its cluster.

use camino::Utf8PathBuf;

use crate::scenario::{TbotSpec, TokenFrom};

/// With `--provider tbot`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "With --provider tbot")]
pub(super) struct TbotArgs {
    /// The executable [default: tbot, as a shell finds it].
    #[arg(long = "tbot", value_name = "PATH")]
    program: Option<Utf8PathBuf>,
    /// The address of the Teleport cluster's Proxy Service: teleport.example.com:443.
    #[arg(long = "tbot-proxy", value_name = "ADDRESS")]
    proxy: Option<String>,
    /// Where its join token is read: a file, or an environment variable. It is in no argument and no evidence.
    #[arg(long = "tbot-token", value_name = "file=PATH|env=NAME", hide_possible_values = true)]
    token: Option<TokenFrom>,
    /// The name of the WorkloadIdentity that the proxies get.
    #[arg(long = "tbot-identity", value_name = "NAME")]
    identity: Option<String>,
}

impl TbotArgs {
    /// What is given of it.
    pub(super) fn spec(&self) -> TbotSpec {
        TbotSpec {
            program: self.program.clone(),
            proxy: self.proxy.clone(),
            token: self.token.clone(),
            workload_identity: self.identity.clone(),
            svid_path: None,
        }
    }
}
