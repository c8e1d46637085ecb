//! What differs here from a pod, so that a reader of a report knows: said beside the code that makes it so.

use crate::artifact::IstioLine;
use crate::timeline::{Disclosure, EnvoyVersion};

/// istiod's settings that switch off the filters of Istio's own build of Envoy, and what they are called.
pub(super) const FILTERS: [(&str, &str); 2] =
    [("PILOT_ENABLE_METADATA_EXCHANGE", "metadata exchange"), ("PILOT_ENABLE_ALPN_FILTER", "ALPN")];

/// How the proxies of an agent fleet differ from those of a pod. `own_build`: the Envoy is Istio's own build; `tapped`: a
/// tap stands between each agent and its Envoy.
pub fn disclosures(envoy: &EnvoyVersion, line: Option<IstioLine>, own_build: bool, tapped: bool) -> Vec<Disclosure> {
    let mut all = Vec::new();
    match line {
        Some(line) if line.ships(envoy) => {}
        Some(line) => {
            let text = format!("off-pair: Istio {line} ships Envoy {}, and this one is {envoy}", line.envoy());
            all.push(disclosure("off-pair", text));
        }
        None => {
            let text = "it is not known which Envoy this Istio ships".to_owned();
            all.push(disclosure("pair-unknown", text));
        }
    }
    all.extend((!own_build).then(filters_off));
    let tap = if tapped { ", and the workload's socket is the tap's" } else { "" };
    let text = format!("in Istio's bootstrap template, listeners for metrics and health checks are on loopback{tap}");
    all.push(disclosure("template-changed", text));
    all.push(filter_added());
    all
}

/// How the proxies of a cluster differ from those of others. `own_build` as above.
#[cfg(feature = "kubernetes")]
pub(in crate::fleet) fn in_pods(own_build: bool) -> Vec<Disclosure> {
    let text = "the provider's socket is that of a relay on the pod's node, which carries what is said to the harness";
    let relayed = disclosure("relayed", text.to_owned());
    (!own_build).then(filters_off).into_iter().chain([relayed, filter_added()]).collect()
}

pub(in crate::fleet) fn disclosure(name: &str, text: String) -> Disclosure {
    Disclosure { name: name.to_owned(), text }
}

fn filters_off() -> Disclosure {
    let off: Vec<String> = FILTERS.iter().map(|(setting, filter)| format!("{filter} ({setting}=false)")).collect();
    let text = format!("filters that only Istio's build of Envoy has are switched off in istiod: {}", off.join(", "));
    disclosure("filters-off", text)
}

fn filter_added() -> Disclosure {
    let text = "EnvoyFilters of rotacheck's add a cluster and a listener through which it has itself dialled, and keep the \
                cluster for fresh requests from resuming TLS sessions";
    disclosure("envoyfilter-added", text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(envoy: &str, line: Option<&str>, own_build: bool) -> Vec<String> {
        let envoy = EnvoyVersion::parse(envoy).unwrap();
        let all = disclosures(&envoy, line.map(|line| line.parse().unwrap()), own_build, false);
        all.into_iter().map(|d| d.name).collect()
    }

    #[test]
    fn istios_own_envoy_needs_no_words_about_pairs_and_filters() {
        let always = ["template-changed", "envoyfilter-added"];
        assert_eq!(names("1.39.3", Some("1.31"), true), always);
        assert_eq!(names("1.39.3", Some("1.31"), false), [&["filters-off"], &always[..]].concat());
        assert_eq!(names("1.38.3", Some("1.31"), false), [&["off-pair", "filters-off"], &always[..]].concat());
        assert_eq!(names("1.38.3", None, true), [&["pair-unknown"], &always[..]].concat());
    }

    #[test]
    fn what_is_switched_off_is_named_with_its_setting() {
        let all = disclosures(&EnvoyVersion::parse("1.36.4").unwrap(), "1.31".parse().ok(), false, true);
        insta::assert_snapshot!(all.iter().map(|d| d.text.as_str()).collect::<Vec<_>>().join("\n"));
    }
}
