//! Which proxies there are, one after the other: what the pods tell of the starts and ends of their sidecars.

use std::collections::BTreeMap;

use super::mesh::{SIDECAR, SOCKETS};
use crate::cluster::PodSeen;
use crate::timeline::ProxyId;

/// Something that the pods tell of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// A pod that nobody knew will have one, which the provider is to serve.
    Announced {
        /// What it will be called.
        id: ProxyId,
        /// The service account of its pod.
        account: String,
    },
    /// It runs.
    Began {
        /// What it is called: as its pod, and from the second one on with a number.
        id: ProxyId,
        /// The one before it in that pod, or in one of that name.
        after: Option<ProxyId>,
        /// Its pod's name.
        pod: String,
    },
    /// It runs no more.
    Ended {
        /// Which.
        id: ProxyId,
        /// Its pod's name.
        pod: String,
    },
}

/// The proxies of all pods that there were.
pub(super) struct Lives(BTreeMap<String, Life>);

#[derive(Default)]
struct Life {
    /// How many there were.
    number: u32,
    /// What tells its present one from all others; none while there is none.
    process: Option<i32>,
}

impl Lives {
    /// At the beginning: pods, and the processes of their proxies.
    pub(super) fn of<'a>(pods: impl Iterator<Item = (&'a str, i32)>) -> Self {
        let life = |(pod, process): (&str, i32)| (pod.to_owned(), Life { number: 1, process: Some(process) });
        Self(pods.map(life).collect())
    }

    /// What the pods tell that they did not tell before.
    pub(super) fn take(&mut self, pods: &BTreeMap<String, PodSeen>) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (name, life) in &mut self.0 {
            let now = pods.get(name).and_then(running);
            if life.process.is_some() && life.process != now {
                life.process = None;
                turns.extend(id(name, life.number).map(|id| Turn::Ended { id, pod: name.clone() }));
            }
        }
        for (name, pod) in pods {
            // Names of pods are DNS subdomains (RFC 1123), which is what proxies may be called.
            let known = self.0.contains_key(name);
            if !known && !pod.ending && pod.annotations.contains_key(SOCKETS) {
                let account = pod.account.clone();
                turns.extend(id(name, 1).map(|id| Turn::Announced { id, account }));
            }
            let now = running(pod);
            if !known && now.is_none() && !pod.annotations.contains_key(SOCKETS) {
                continue;
            }
            let life = self.0.entry(name.clone()).or_default();
            if now.is_some() && life.process != now {
                let after = id(name, life.number).filter(|_| life.number > 0);
                life.number += 1;
                life.process = now;
                turns.extend(id(name, life.number).map(|id| Turn::Began { id, after, pod: name.clone() }));
            }
        }
        turns
    }
}

fn running(pod: &PodSeen) -> Option<i32> {
    let runs = pod.containers.get(SIDECAR).is_some_and(|c| c.running);
    (runs && !pod.ending).then(|| pod.process(SIDECAR))
}

fn id(pod: &str, number: u32) -> Option<ProxyId> {
    let text = if number < 2 { pod.to_owned() } else { format!("{pod}.{number}") };
    ProxyId::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ContainerSeen;

    fn pod(uid: &str, running: bool, restarts: i32) -> PodSeen {
        let sidecar = ContainerSeen { running, restarts, ..ContainerSeen::default() };
        PodSeen {
            uid: uid.into(),
            account: "shop".into(),
            annotations: [(SOCKETS.to_owned(), "/x".to_owned())].into(),
            containers: [(SIDECAR.to_owned(), sidecar)].into(),
            ..PodSeen::default()
        }
    }

    fn told(lives: &mut Lives, pods: &[(&str, PodSeen)]) -> Vec<String> {
        let pods = pods.iter().map(|(name, pod)| ((*name).to_owned(), pod.clone())).collect();
        let words = |turn: Turn| match turn {
            Turn::Announced { id, account } => format!("{id} of {account} is announced"),
            Turn::Began { id, after, .. } => {
                format!("{id} began{}", after.map_or(String::new(), |a| format!(" after {a}")))
            }
            Turn::Ended { id, .. } => format!("{id} ended"),
        };
        lives.take(&pods).into_iter().map(words).collect()
    }

    fn lives() -> Lives {
        Lives::of([("a", pod("1", true, 0).process(SIDECAR))].into_iter())
    }

    #[test]
    fn a_container_that_is_started_again_is_another_proxy() {
        let mut lives = lives();
        assert!(told(&mut lives, &[("a", pod("1", true, 0))]).is_empty());
        assert_eq!(told(&mut lives, &[("a", pod("1", false, 0))]), ["a ended"]);
        assert_eq!(told(&mut lives, &[("a", pod("1", true, 1))]), ["a.2 began after a"]);
        // Nobody saw it down.
        assert_eq!(told(&mut lives, &[("a", pod("1", true, 2))]), ["a.2 ended", "a.3 began after a.2"]);
    }

    #[test]
    fn a_pod_of_the_same_name_is_another_one_and_one_that_is_gone_is_gone() {
        let mut lives = lives();
        let ending = PodSeen { ending: true, ..pod("1", true, 0) };
        assert_eq!(told(&mut lives, &[("a", ending.clone())]), ["a ended"]);
        assert!(told(&mut lives, &[("a", ending)]).is_empty() && told(&mut lives, &[]).is_empty());
        assert!(told(&mut lives, &[("a", pod("2", false, 0))]).is_empty());
        assert_eq!(told(&mut lives, &[("a", pod("2", true, 0))]), ["a.2 began after a"]);
        assert_eq!(told(&mut lives, &[]), ["a.2 ended"]);
    }

    #[test]
    fn one_that_comes_later_is_announced_before_it_runs() {
        let mut lives = lives();
        let with_a = |pod: PodSeen| [("a", self::pod("1", true, 0)), ("late", pod)];
        assert_eq!(told(&mut lives, &with_a(pod("3", false, 0))), ["late of shop is announced"]);
        assert!(told(&mut lives, &with_a(pod("3", false, 0))).is_empty());
        assert_eq!(told(&mut lives, &with_a(pod("3", true, 0))), ["late began"]);
        // Whose sidecar asks somebody else is none to announce; that it is there is told.
        let other = PodSeen { annotations: BTreeMap::new(), ..pod("4", false, 0) };
        assert!(told(&mut self::lives(), &with_a(other.clone())).is_empty());
        let other = PodSeen { annotations: BTreeMap::new(), ..pod("4", true, 0) };
        assert_eq!(told(&mut self::lives(), &with_a(other)), ["late began"]);
        // What has no sidecar is none.
        let none = PodSeen { annotations: BTreeMap::new(), containers: BTreeMap::new(), ..PodSeen::default() };
        assert!(told(&mut self::lives(), &with_a(none)).is_empty());
    }
}
