//! What to alert on: for each failure mode the Prometheus rules that would have warned, where there are any.
//!
//! Names are matched both as Istio's bootstrap has them (no default tags, so that a secret's name stands in the
//! metric's) and as a plain Envoy has them. Never asked are the liars: versions and `last_updated`, `/ready`, ACKs.

mod table;

pub use table::{ALERTS, WITHOUT_ALERT};

use super::{Mode, mode};

/// A Prometheus alerting rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// What has to be so, in PromQL.
    pub expr: &'static str,
    /// For how long.
    pub hold: &'static str,
    /// `critical` where connections fail by now.
    pub severity: &'static str,
    /// A sentence for whoever is woken.
    pub summary: &'static str,
    /// What must be known of it: its bounds, and what it does not see.
    pub mind: &'static str,
    /// Statistics that Istio hides by default, for `proxyStatsMatcher`; none: it works as Istio comes.
    pub needs: Option<Inclusion>,
    /// The modes of which it warns before a certificate that is in use expires.
    pub warns: &'static [&'static str],
    /// The modes that it tells once they do harm, because they do so at once.
    pub tells: &'static [&'static str],
}

/// What `proxyStatsMatcher` has to include.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inclusion {
    /// `inclusionPrefixes`.
    pub prefixes: &'static [&'static str],
    /// `inclusionSuffixes`.
    pub suffixes: &'static [&'static str],
}

impl Alert {
    /// Whether it tells of the mode at all.
    pub fn covers(&self, mode: &str) -> bool {
        self.warns.contains(&mode) || self.tells.contains(&mode)
    }

    /// The modes that it tells of.
    pub fn modes(&self) -> impl Iterator<Item = &'static Mode> {
        self.warns.iter().chain(self.tells).filter_map(|name| mode(name))
    }
}

/// The rules that tell of a mode, those before it does harm first.
pub fn alerts_of(mode: &str) -> Vec<&'static Alert> {
    let mut alerts: Vec<_> = ALERTS.iter().filter(|alert| alert.covers(mode)).collect();
    alerts.sort_by_key(|alert| !alert.warns.contains(&mode));
    alerts
}

/// Why no rule tells of a mode.
pub fn why_no_alert(mode: &str) -> Option<&'static str> {
    WITHOUT_ALERT.iter().find(|(name, _)| *name == mode).map(|(_, why)| *why)
}

/// Rules as a file that Prometheus loads.
pub fn rule_file(alerts: &[&Alert]) -> String {
    let mut text = String::from("groups:\n  - name: rotacheck\n");
    if alerts.is_empty() {
        text.push_str("    rules: []\n");
        return text;
    }
    text.push_str("    rules:\n");
    for alert in alerts {
        let modes: Vec<_> = alert.warns.iter().chain(alert.tells).copied().collect();
        let stats = match alert.needs {
            None => "Istio shows these statistics by default.".to_owned(),
            Some(inclusion) => format!("Istio hides these statistics by default. {}", inclusion.sentence()),
        };
        text.push_str(&format!(
            "      # {stats}\n      # {}\n      - alert: {}\n        expr: >-\n          {}\n        for: {}\n        \
             labels:\n          severity: {}\n        annotations:\n          summary: {}\n          modes: {}\n",
            alert.mind,
            alert.name,
            alert.expr,
            alert.hold,
            alert.severity,
            quoted(alert.summary),
            quoted(&modes.join(", ")),
        ));
    }
    text
}

impl Inclusion {
    /// How to have them shown.
    pub fn sentence(&self) -> String {
        let list = |what: &str, all: &[&str]| (!all.is_empty()).then(|| format!("{what}: [{}]", all.join(", ")));
        let parts = [list("inclusionPrefixes", self.prefixes), list("inclusionSuffixes", self.suffixes)];
        format!("proxyStatsMatcher: {{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// A YAML scalar that stays text whatever is in it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::MODES;

    #[test]
    fn each_mode_has_a_rule_or_a_reason_why_not() {
        for mode in MODES {
            let (rules, reason) = (alerts_of(mode.name).len(), why_no_alert(mode.name));
            assert_eq!(rules == 0, reason.is_some(), "{}: {rules} rules, {reason:?}", mode.name);
        }
        let named =
            ALERTS.iter().flat_map(|a| a.warns.iter().chain(a.tells)).chain(WITHOUT_ALERT.iter().map(|(m, _)| m));
        for name in named {
            assert!(mode(name).is_some(), "{name} is no mode");
        }
    }

    #[test]
    fn the_rules_are_yaml_that_says_what_it_should() {
        let all: Vec<_> = ALERTS.iter().collect();
        let file: serde_json::Value = serde_saphyr::from_str(&rule_file(&all)).unwrap();
        let rules = file["groups"][0]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), ALERTS.len());
        for (rule, alert) in rules.iter().zip(ALERTS) {
            assert_eq!((&rule["alert"], &rule["expr"]), (&alert.name.into(), &alert.expr.into()));
            assert_eq!((&rule["for"], &rule["annotations"]["summary"]), (&alert.hold.into(), &alert.summary.into()));
        }
        let none: serde_json::Value = serde_saphyr::from_str(&rule_file(&[])).unwrap();
        assert_eq!(none["groups"][0]["rules"], serde_json::json!([]));
    }
}
