//! The checks: named rules over the ledger.

mod certificate;
mod recording;
mod renewal;
mod transport;

use super::{CheckResult, Finding};
use crate::timeline::ledger::ProxyLedger;
use crate::timeline::{Ledger, SecretName};

/// A named rule over the ledger.
pub struct Check {
    /// Its name in reports.
    pub name: &'static str,
    /// What it demands, in a sentence.
    pub rule: &'static str,
    /// The sources that it can't do without.
    pub needs: &'static [&'static str],
    /// Scenarios whose seeded fault it must find: where one was missed, its pass means nothing.
    pub controls: &'static [&'static str],
    /// Looks at the ledger; at least one finding.
    pub evaluate: fn(&Ledger) -> Vec<Finding>,
}

/// All checks, in the order in which reports show them.
pub const CHECKS: &[Check] = &[
    Check {
        name: "recording_complete",
        rule: "the recording has all its observations and came to its planned end",
        needs: &["footer"],
        controls: &[],
        evaluate: recording::complete,
    },
    Check {
        name: "clock_receipts",
        rule: "every proxy's own clock followed each move of time",
        needs: &["clock"],
        controls: &[],
        evaluate: recording::receipts,
    },
    Check {
        name: "process_alive",
        rule: "no proxy ended by itself",
        needs: &["process"],
        controls: &[],
        evaluate: recording::alive,
    },
    Check {
        name: "secrets_arrived",
        rule: "every secret that a proxy subscribed to was sent to it at least once",
        needs: &["provider or tap"],
        controls: &["never-arrives"],
        evaluate: transport::arrived,
    },
    Check {
        name: "full_handshakes",
        rule: "full handshakes past the first expiry show every proxy in both roles",
        needs: &["inbound", "outbound"],
        controls: &[],
        evaluate: recording::handshakes,
    },
    Check {
        name: "renewed_past_first_expiry",
        rule: "every proxy serves newer generations, also after the first one has expired",
        needs: &["inbound", "outbound"],
        controls: &["never-renews"],
        evaluate: renewal::renewed,
    },
    Check {
        name: "both_roles_fresh",
        rule: "no full handshake, in either role, shows a certificate that is not valid at that time, or what it hangs on is not",
        needs: &["inbound", "outbound"],
        controls: &["expired-on-arrival"],
        evaluate: certificate::fresh,
    },
    Check {
        name: "every_context_fresh",
        rule: "every TLS context of the identity, as many as there should be, holds a certificate that is still valid",
        needs: &["admin"],
        controls: &["expired-on-arrival"],
        evaluate: certificate::contexts,
    },
    Check {
        name: "newest_or_previous",
        rule: "what is served is the newest generation meant for the proxy, or the one before",
        needs: &["inbound", "outbound", "provider or tap"],
        controls: &["issues-never-pushes"],
        evaluate: renewal::newest_or_previous,
    },
    Check {
        name: "accepted",
        rule: "the proxy refuses nothing that its provider sends",
        needs: &["provider or tap"],
        controls: &["nack-key-mismatch"],
        evaluate: transport::accepted,
    },
    Check {
        name: "identity_unchanged",
        rule: "every leaf carries the one SPIFFE ID that the proxy is to have",
        needs: &["inbound", "outbound"],
        controls: &["wrong-identity"],
        evaluate: certificate::identity,
    },
    Check {
        name: "peers_accept",
        rule: "requests from proxy to proxy succeed on fresh connections with full handshakes",
        needs: &["traffic"],
        controls: &["leaf-before-bundle", "bundle-drops-old-ca"],
        evaluate: transport::peers_accept,
    },
    Check {
        name: "renewal_margin",
        rule: "a new certificate is served before the old one's last share of life begins",
        needs: &["inbound", "outbound"],
        controls: &["thin-margin"],
        evaluate: renewal::margin,
    },
    Check {
        name: "renewal_overdue",
        rule: "no renewal is left out: a certificate that works longer is served before the renewal after the next is due",
        needs: &["inbound"],
        controls: &["incident"],
        evaluate: renewal::overdue,
    },
    Check {
        name: "lag_bound",
        rule: "what was sent and accepted is served within the bound",
        needs: &["provider or tap", "inbound"],
        controls: &[],
        evaluate: renewal::lag,
    },
    Check {
        name: "listeners_accepted",
        rule: "every listener that was added to a proxy is accepted, and listens",
        needs: &["harness"],
        controls: &["late-listener-poisoned"],
        evaluate: transport::listeners,
    },
    Check {
        name: "stream_alive",
        rule: "every proxy's stream for its certificate is open at the end",
        needs: &["provider or tap"],
        controls: &[],
        evaluate: transport::alive,
    },
];

fn finding(check: &str, result: CheckResult, message: impl Into<String>, evidence: Vec<u64>) -> Finding {
    Finding { check: check.to_owned(), result, proxy: None, secret: None, message: message.into(), evidence }
}

impl Finding {
    fn of(mut self, p: &ProxyLedger) -> Self {
        self.proxy = Some(p.id.clone());
        self
    }
    fn about(mut self, secret: &SecretName) -> Self {
        self.secret = Some(secret.clone());
        self
    }
}

/// What was found, or one finding that says that all holds.
fn or_holds(found: Vec<Finding>, check: &str, message: impl Into<String>) -> Vec<Finding> {
    if found.is_empty() { vec![finding(check, CheckResult::Holds, message, Vec::new())] } else { found }
}

/// As `or_holds`, for rules about what handshakes show: without any, nothing holds.
fn or_holds_if_shown(ledger: &Ledger, found: Vec<Finding>, check: &str, message: impl Into<String>) -> Vec<Finding> {
    let shown = ledger.proxies.iter().flat_map(|p| &p.served).any(|s| s.leaf().is_some());
    if found.is_empty() && !shown {
        return vec![finding(check, CheckResult::Noted, "no full handshake was seen", Vec::new())];
    }
    or_holds(found, check, message)
}
