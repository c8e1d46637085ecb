//! Requests from proxy to proxy: does a peer accept what is served?

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::Mutex;

use super::admin;
use super::context::ProbeContext;
use super::http::{self as plain, Connection};
use crate::clock::Deadline;
use crate::fleet::Proxy;
use crate::timeline::{Request, Source, Stats};

/// A request from `from` to the next proxy of the ring, on connections opened for it; then a look at the counters.
///
/// It counts as evidence only where no TLS session was resumed, which the counters tell, where they show.
/// `whole`: see [`admin::stats`].
pub async fn fresh(from: &Proxy, whole: bool, ctx: &ProbeContext) -> (Request, Option<Stats>) {
    let answer = plain::get(from.outbound, from.next.as_str(), "/", ctx.deadline()).await;
    let stats = admin::stats(from, whole, ctx).await;
    let resumed = stats.as_ref().and_then(|stats| ctx.counters(&from.id, |counters| counters.resumed(stats)));
    // Where the counters are hidden, its own configuration tells.
    let resumed = resumed.or(from.keeps_no_sessions.then_some(false));
    (record(from, true, answer.map(|(status, _)| status), resumed, ctx), stats)
}

/// A request on a fresh connection that resumes the TLS session before it, where the proxy has a cluster for that.
/// What passes so proves nothing: a resumed session shows no certificate.
pub(super) async fn resuming(from: &Proxy, ctx: &ProbeContext) -> Request {
    let answer = plain::get(from.outbound, from.next.as_str(), "/resumed", ctx.deadline()).await;
    let stats = admin::stats(from, false, ctx).await;
    let resumed = stats.as_ref().and_then(|stats| ctx.counters(&from.id, |counters| counters.resuming(stats)));
    record(from, true, answer.map(|(status, _)| status), resumed, ctx)
}

/// One connection to a proxy's outbound listener, kept for as long as it holds.
///
/// What it shows is how long old connections mask a failure: they never shake hands again.
pub struct LongLived {
    connection: Mutex<Result<Connection, String>>,
}

impl LongLived {
    /// Opens it. A connection that could not be opened says so with each request.
    pub async fn open(from: &Proxy, deadline: Deadline) -> Self {
        let connection = Connection::open(from.outbound, deadline).await.map_err(|e| e.to_string());
        Self { connection: Mutex::new(connection) }
    }

    /// One more request on it. It is not opened again: a connection that broke stays broken.
    pub async fn request(&self, from: &Proxy, ctx: &ProbeContext) -> Request {
        let mut connection = self.connection.lock().await;
        let answer = match connection.as_mut() {
            Ok(open) => open.get(from.next.as_str(), "/long-lived", ctx.deadline()).await.map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = &answer
            && connection.is_ok()
        {
            *connection = Err(format!("the connection broke before: {why}"));
        }
        record(from, false, answer.map(|(status, _)| status), None, ctx)
    }
}

/// The long-lived connection of this proxy, opened when it is first asked for.
pub(super) async fn long_lived(from: &Proxy, ctx: &ProbeContext) -> Request {
    let known = ctx.long_lived.lock().await.get(&from.id).cloned();
    let connection = match known {
        Some(connection) => connection,
        None => {
            let opened = Arc::new(LongLived::open(from, ctx.deadline()).await);
            ctx.long_lived.lock().await.entry(from.id.clone()).or_insert(opened).clone()
        }
    };
    connection.request(from, ctx).await
}

fn record<E: ToString>(
    from: &Proxy,
    fresh: bool,
    answer: Result<StatusCode, E>,
    resumed: Option<bool>,
    ctx: &ProbeContext,
) -> Request {
    let (status, error) = match answer {
        Ok(status) => (Some(status.as_u16()), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let request = Request { to: from.next.to_string(), fresh, status, resumed, error };
    ctx.recorder.record(Source::Traffic, Some(&from.id), None, request.clone());
    request
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::probe::fakes;

    const PATIENT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_resumed_session_is_told_by_the_counter_and_unknown_where_it_is_hidden() {
        let outbound = fakes::listen(|stream| fakes::http(stream, async |_| (200, String::new()))).await;
        let counting = |step: u64| async move {
            let count = Arc::new(AtomicU64::new(0));
            fakes::listen(move |stream| {
                let count = count.clone();
                fakes::http(stream, move |_| {
                    let n = count.fetch_add(step, Ordering::Relaxed);
                    async move { (200, format!("cluster.outbound.ssl.session_reused: {n}\n")) }
                })
            })
            .await
        };
        let hidden = fakes::listen(|stream| fakes::http(stream, async |_| (200, String::new()))).await;
        for (admin, resumed) in [(counting(0).await, Some(false)), (counting(1).await, Some(true)), (hidden, None)] {
            let from = Proxy { admin, outbound, ..fakes::unreachable() };
            let ctx = fakes::context(PATIENT).await;
            fresh(&from, false, &ctx).await;
            let (request, _) = fresh(&from, false, &ctx).await;
            assert_eq!((request.status, request.resumed, request.fresh), (Some(200), resumed, true));
        }
    }

    #[tokio::test]
    async fn a_kept_connection_is_never_opened_again() {
        let ctx = fakes::context(PATIENT).await;
        let opened = Arc::new(AtomicU64::new(0));
        let count = opened.clone();
        let outbound = fakes::listen(move |stream| {
            count.fetch_add(1, Ordering::Relaxed);
            let served = AtomicU64::new(0);
            async move {
                let serve = fakes::http(stream, |_| async {
                    if served.fetch_add(1, Ordering::Relaxed) == 2 {
                        std::future::pending::<()>().await;
                    }
                    (200, String::new())
                });
                serve.await;
            }
        })
        .await;
        let from = Proxy { outbound, ..fakes::unreachable() };
        let kept = LongLived::open(&from, ctx.deadline()).await;
        for _ in 0..2 {
            let request = kept.request(&from, &ctx).await;
            assert_eq!((request.status, request.fresh), (Some(200), false));
        }
        let impatient = fakes::context(Duration::from_millis(50)).await;
        assert!(kept.request(&from, &impatient).await.error.unwrap().ends_with("did not answer in time"));
        let after = kept.request(&from, &ctx).await;
        assert!(after.error.unwrap().starts_with("the connection broke before"));
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }
}
