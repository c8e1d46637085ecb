//! Samples: everything that is asked of all proxies at one moment, and the wait for a leaf to be served.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use super::context::ProbeContext;
use super::inbound::{TlsVersion, inbound};
use super::receipt::receipt;
use super::{admin, census::census, outbound::outbound, traffic};
use crate::clock::Deadline;
use crate::fleet::Proxy;
use crate::timeline::ledger::is_same;
use crate::timeline::{
    CertFacts, Certs, ConfigDump, DeadlineMissed, Handshake, Listeners, ProxyId, Receipt, Request, ServerInfo, Source,
    Stats,
};

/// How much a sample asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What is loaded and served: `/certs`, and handshakes in both roles.
    Leaf,
    /// Also the dump, counters, clock receipts, traffic, and the peers of the provider's socket.
    Complete,
    /// Also what seldom changes: listeners, secrets that have not arrived, counters that never moved.
    Collect,
}

/// What a sample saw of one proxy. All of it was recorded; what is absent was recorded as blindness.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxySample {
    /// The proxy.
    pub proxy: ProxyId,
    /// One handshake per TLS version.
    pub inbound: Vec<Handshake>,
    /// The handshake that the proxy made with the harness's server.
    pub outbound: Option<Handshake>,
    /// `/certs`.
    pub certs: Option<Certs>,
    /// `/config_dump`.
    pub config_dump: Option<ConfigDump>,
    /// `/stats`.
    pub stats: Option<Stats>,
    /// `/server_info`.
    pub server_info: Option<ServerInfo>,
    /// The clock's receipt; none with the first sample of a process.
    pub receipt: Option<Receipt>,
    /// `/listeners`.
    pub listeners: Option<Listeners>,
    /// A request on fresh connections.
    pub fresh: Option<Request>,
    /// A request on the connection that was kept.
    pub long_lived: Option<Request>,
}

/// The leaf that a proxy is to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedLeaf {
    /// Handshakes show its fingerprint; `/certs` its serial number, which another one may have as well, its validity and
    /// its identity.
    pub cert: CertFacts,
}

impl ProxySample {
    /// Whether the leaf is in every context of this identity that `/certs` lists, and every handshake showed it.
    pub fn serves(&self, leaf: &ExpectedLeaf, proxy: &Proxy) -> bool {
        let shows =
            |h: &Handshake| !h.resumed && h.chain.first().is_some_and(|c| c.fingerprint == leaf.cert.fingerprint);
        let loaded = |certs: &Certs| {
            let is_own = |uris: &[String]| match &proxy.spiffe_id {
                Some(id) => uris.iter().any(|u| u == id.as_str()),
                // The proxy has no other leaves.
                None => true,
            };
            let mut own = certs.leaves.iter().filter(|l| is_own(&l.uris)).peekable();
            own.peek().is_some() && own.all(|l| is_same(l, &leaf.cert))
        };
        (!self.inbound.is_empty() || !proxy.sides.inbound)
            && self.inbound.iter().chain(self.outbound.as_ref()).all(shows)
            && (self.outbound.is_some() || !proxy.sides.dial_out)
            && self.certs.as_ref().is_some_and(loaded)
    }
}

/// Asks all proxies at once, and records what they say.
pub async fn sample(targets: &[Proxy], ctx: &ProbeContext, what: Depth) -> Vec<ProxySample> {
    let peers = async {
        if what >= Depth::Complete {
            census(targets, ctx).await;
        }
    };
    let (samples, ()) = tokio::join!(join_all(targets.iter().map(|proxy| one(proxy, ctx, what))), peers);
    samples
}

async fn one(proxy: &Proxy, ctx: &ProbeContext, what: Depth) -> ProxySample {
    let (complete, collect) = (what >= Depth::Complete, what >= Depth::Collect);
    let versions = TlsVersion::ALL.into_iter().filter(|_| proxy.sides.inbound);
    let inbound = join_all(versions.map(|version| inbound(proxy, version, ctx)));
    let loaded = admin::certs(proxy, ctx);
    let rest = async {
        if !complete {
            return None;
        }
        let told = async {
            let info = admin::server_info(proxy, ctx).await;
            let receipt = info.as_ref().and_then(|info| receipt(proxy, info, ctx.clock().at(), ctx));
            (info, receipt)
        };
        let listeners = async { if collect { admin::listeners(proxy, ctx).await } else { None } };
        Some(tokio::join!(
            admin::config_dump(proxy, collect, ctx),
            told,
            listeners,
            async {
                if !proxy.sides.outbound {
                    return (None, admin::stats(proxy, collect, ctx).await);
                }
                if proxy.resumes {
                    traffic::resuming(proxy, ctx).await;
                }
                let (request, stats) = traffic::fresh(proxy, collect, ctx).await;
                (Some(request), stats)
            },
            async { if proxy.sides.outbound { Some(traffic::long_lived(proxy, ctx).await) } else { None } },
        ))
    };
    let outward = async { if proxy.sides.dial_out { outbound(proxy, ctx).await } else { None } };
    let (inbound, outbound, certs, rest) = tokio::join!(inbound, outward, loaded, rest);
    let mut sample = ProxySample {
        proxy: proxy.id.clone(),
        inbound,
        outbound,
        certs,
        config_dump: None,
        stats: None,
        server_info: None,
        receipt: None,
        listeners: None,
        fresh: None,
        long_lived: None,
    };
    if let Some((config_dump, (info, receipt), listeners, (fresh, stats), long_lived)) = rest {
        sample.config_dump = config_dump;
        sample.stats = stats;
        sample.server_info = info;
        sample.receipt = receipt;
        sample.listeners = listeners;
        sample.fresh = fresh;
        sample.long_lived = long_lived;
        // After the counters: what they count is said by then.
        super::files::files(proxy, ctx);
        super::files::log(proxy, ctx);
        super::files::socket(proxy, collect, ctx);
    }
    sample
}

/// The first wait between two looks, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Looks until every proxy serves the leaf that is expected of it; `false` when the deadline passed before, which is
/// recorded. Proxies of which nothing is expected are not asked.
///
/// Envoy tells nobody when a context has taken a secret: this is the one place that has to look again and again.
pub async fn settle(
    targets: &[Proxy],
    ctx: &ProbeContext,
    expect: &BTreeMap<ProxyId, ExpectedLeaf>,
    deadline: Deadline,
) -> bool {
    let began = tokio::time::Instant::now();
    let mut waiting: Vec<&Proxy> = targets.iter().filter(|p| expect.contains_key(&p.id)).collect();
    let mut wait = FIRST_WAIT;
    loop {
        let samples = join_all(waiting.iter().map(|proxy| one(proxy, ctx, Depth::Leaf))).await;
        let served = samples.iter().zip(&waiting).map(|(s, p)| expect.get(&p.id).is_none_or(|leaf| s.serves(leaf, p)));
        let served: Vec<bool> = served.collect();
        let mut served = served.iter();
        waiting.retain(|_| served.next() == Some(&false));
        if waiting.is_empty() {
            return true;
        }
        if deadline.passed() {
            break;
        }
        tokio::time::sleep(wait.min(deadline.left())).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    for proxy in waiting {
        let what = format!("the leaf with serial {} served everywhere", expect[&proxy.id].cert.serial);
        ctx.recorder.record(Source::Harness, Some(&proxy.id), None, DeadlineMissed { what, waited_ms });
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fleet::Sides;
    use crate::probe::fakes::{self, Authority, FakeProxy};
    use crate::timeline::Fact;

    const PATIENT: Duration = Duration::from_secs(30);

    fn expecting(leaf: &CertFacts) -> BTreeMap<ProxyId, ExpectedLeaf> {
        let leaf = ExpectedLeaf { cert: leaf.clone() };
        BTreeMap::from([(ProxyId::parse("a").unwrap(), leaf)])
    }

    #[tokio::test]
    async fn settling_ends_when_the_leaf_is_served_everywhere() {
        let authority = Arc::new(Authority::new("one"));
        let ctx = fakes::context(PATIENT).await;
        let (old, new) = (authority.svid(60), authority.svid(120));
        let (was, is) = (old.facts(), expecting(&new.facts()));
        let fake = FakeProxy::start(authority, old, &ctx).await;
        let targets = [fake.proxy.clone()];
        let rotate = async {
            // Not before the old one was seen.
            let seen =
                |o: &crate::timeline::Observation| matches!(&o.fact, Fact::Handshake(h) if h.chain == [was.clone()]);
            assert!(ctx.recorder.await_until(0, Deadline::after(PATIENT), seen).await);
            fake.rotate(new);
        };
        let (settled, ()) = tokio::join!(settle(&targets, &ctx, &is, Deadline::after(PATIENT)), rotate);
        assert!(settled);
        assert!(sample(&targets, &ctx, Depth::Leaf).await[0].serves(&is[&fake.proxy.id], &fake.proxy));
    }

    #[tokio::test]
    async fn a_leaf_that_does_not_come_is_a_missed_deadline() {
        let authority = Arc::new(Authority::new("one"));
        let ctx = fakes::context(PATIENT).await;
        let never = authority.svid(120).facts();
        let fake = FakeProxy::start(authority.clone(), authority.svid(60), &ctx).await;
        let deadline = Deadline::after(Duration::from_millis(30));
        assert!(!settle(std::slice::from_ref(&fake.proxy), &ctx, &expecting(&never), deadline).await);
        let missed = fakes::facts(&ctx).into_iter().rev().find_map(|f| match f {
            Fact::DeadlineMissed(missed) => Some(missed.what),
            _ => None,
        });
        assert!(missed.unwrap().contains(never.serial.as_str()));
    }

    #[tokio::test]
    async fn what_nothing_leads_into_is_not_made_to_call_and_serves_all_the_same() {
        let authority = Arc::new(Authority::new("one"));
        let ctx = fakes::context(PATIENT).await;
        let svid = authority.svid(60);
        let expected = expecting(&svid.facts());
        let fake = FakeProxy::start(authority, svid, &ctx).await;
        let proxy = Proxy { sides: Sides::OUTER, ..fake.proxy.clone() };
        let seen = sample(std::slice::from_ref(&proxy), &ctx, Depth::Complete).await.remove(0);
        assert!(seen.serves(&expected[&proxy.id], &proxy));
        assert!(seen.outbound.is_none() && seen.fresh.is_none() && seen.long_lived.is_none());
        let gateway = Proxy { sides: Sides::GATEWAY, ..fake.proxy.clone() };
        let seen_of_it = sample(std::slice::from_ref(&gateway), &ctx, Depth::Complete).await.remove(0);
        assert!(seen_of_it.serves(&expected[&proxy.id], &gateway) && seen_of_it.outbound.is_some());
        assert!(seen_of_it.fresh.is_none() && seen_of_it.long_lived.is_none());
        // The control: where something leads into it, what is missing counts.
        assert!(!seen.serves(&expected[&proxy.id], &fake.proxy));
    }

    #[tokio::test]
    async fn a_proxy_that_is_gone_leaves_evidence_of_that_and_nothing_else() {
        let ctx = fakes::context(PATIENT).await;
        let sample = sample(&[fakes::unreachable()], &ctx, Depth::Collect).await.remove(0);
        assert!(sample.certs.is_none() && sample.outbound.is_none() && sample.server_info.is_none());
        assert!(sample.inbound.iter().all(|h| h.error.as_deref() == Some("connection refused")));
        assert!(sample.fresh.unwrap().error.is_some());
        let blind: Vec<_> = fakes::facts(&ctx)
            .into_iter()
            .filter_map(|f| match f {
                Fact::Blind(blind) => Some(blind.what),
                _ => None,
            })
            .collect();
        for what in ["/certs", "/config_dump", "/stats", "/server_info", "/listeners", "outbound handshake"] {
            assert!(blind.iter().any(|b| b == what), "{what} is missing in {blind:?}");
        }
    }
}
