//! Plain HTTP/1.1 requests through a proxy, on connections whose life is known.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::clock::Deadline;

/// What the harness asks for is short; a longer answer is none of ours.
const LARGEST_ANSWER: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("no connection to {addr}: {source}")]
    Connect { addr: SocketAddr, source: std::io::Error },
    #[error("{addr} did not answer in time")]
    TimedOut { addr: SocketAddr },
    #[error("{addr} gave no readable answer: {why}")]
    Unreadable { addr: SocketAddr, why: String },
}

/// One connection, closed when dropped.
pub(super) struct Connection {
    addr: SocketAddr,
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    pub(super) async fn open(addr: SocketAddr, deadline: Deadline) -> Result<Self, HttpError> {
        within(addr, deadline, async {
            let stream = TcpStream::connect(addr).await.map_err(|source| HttpError::Connect { addr, source })?;
            let _ = stream.set_nodelay(true);
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreadable(addr, &e))?;
            let driver = tokio::spawn(async move {
                // Its error reaches the request that it spoils.
                let _ = connection.await;
            });
            Ok(Self { addr, sender, driver })
        })
        .await
    }

    pub(super) async fn get(
        &mut self,
        host: &str,
        path: &str,
        deadline: Deadline,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        let addr = self.addr;
        within(addr, deadline, async {
            let request =
                Request::get(path).header(header::HOST, host).body(Empty::new()).map_err(|e| unreadable(addr, &e))?;
            self.sender.ready().await.map_err(|e| unreadable(addr, &e))?;
            let response = self.sender.send_request(request).await.map_err(|e| unreadable(addr, &e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            let body = body.map_err(|e| unreadable(addr, e.as_ref()))?.to_bytes();
            Ok((status, body))
        })
        .await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One request on a connection of its own.
pub(super) async fn get(
    addr: SocketAddr,
    host: &str,
    path: &str,
    deadline: Deadline,
) -> Result<(StatusCode, Bytes), HttpError> {
    Connection::open(addr, deadline).await?.get(host, path, deadline).await
}

async fn within<T>(
    addr: SocketAddr,
    deadline: Deadline,
    work: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    tokio::time::timeout_at(deadline.instant(), work).await.unwrap_or(Err(HttpError::TimedOut { addr }))
}

fn unreadable(addr: SocketAddr, mut e: &(dyn std::error::Error + 'static)) -> HttpError {
    while let Some(source) = e.source() {
        e = source;
    }
    HttpError::Unreadable { addr, why: e.to_string() }
}
