//! One question to a proxy's admin API: plain HTTP/1.1, one connection each, with a deadline and a size limit.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Proxy;
use crate::clock::Deadline;
#[cfg(feature = "kubernetes")]
use crate::cluster::ClusterError;
use crate::timeline::ProxyId;

/// A longer answer is refused: what answers there is no Envoy, or not ours.
const LARGEST_ANSWER: usize = 64 << 20;

/// Why a proxy's admin API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Nobody listens, or the connection broke while it was made.
    #[error("no connection to {addr}: {source}")]
    Connect {
        /// The admin address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It did not answer in time: stopped, frozen, or busy.
    #[error("{addr} gave no whole answer to {path} in time")]
    TimedOut {
        /// The admin address.
        addr: SocketAddr,
        /// What was asked.
        path: String,
    },
    /// What came is no HTTP, or ended too early.
    #[error("{addr} gave no readable answer to {path}: {why}")]
    Http {
        /// The admin address.
        addr: SocketAddr,
        /// What was asked.
        path: String,
        /// In words.
        why: String,
    },
    /// It would not stop answering.
    #[error("the answer of {addr} to {path} is longer than {LARGEST_ANSWER} bytes")]
    TooLarge {
        /// The admin address.
        addr: SocketAddr,
        /// What was asked.
        path: String,
    },
    /// The cluster that it is in did not lead there.
    #[cfg(feature = "kubernetes")]
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The way to it took too long.
    #[cfg(feature = "kubernetes")]
    #[error("{proxy} gave no whole answer to {what} in time")]
    Late {
        /// Who was asked.
        proxy: ProxyId,
        /// What was asked.
        what: String,
    },
}

/// Whoever has an admin API that can be asked, wherever it is.
pub trait Admin: Sync {
    /// Its name.
    fn id(&self) -> &ProxyId;

    /// Another number for each process that it has been.
    fn process(&self) -> i32;

    /// Asks for `path` (with its query), such as `/certs`: status and body, whatever the status.
    fn ask(
        &self,
        path: &str,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(StatusCode, Bytes), ReachError>> + Send;
}

impl Admin for Proxy {
    fn id(&self) -> &ProxyId {
        &self.id
    }

    fn process(&self) -> i32 {
        self.pid
    }

    async fn ask(&self, path: &str, deadline: Deadline) -> Result<(StatusCode, Bytes), ReachError> {
        ask(self.admin, path, deadline).await
    }
}

impl Proxy {
    /// Asks the admin API for `path` (with its query), such as `/certs`: status and body, whatever the status.
    pub async fn admin(&self, path: &str, deadline: Deadline) -> Result<(StatusCode, Bytes), ReachError> {
        ask(self.admin, path, deadline).await
    }
}

pub(super) async fn ask(addr: SocketAddr, path: &str, deadline: Deadline) -> Result<(StatusCode, Bytes), ReachError> {
    tokio::time::timeout_at(deadline.instant(), exchange(addr, path))
        .await
        .unwrap_or_else(|_| Err(ReachError::TimedOut { addr, path: path.to_owned() }))
}

async fn exchange(addr: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), ReachError> {
    let unreadable = |e: &(dyn std::error::Error + 'static)| ReachError::Http {
        addr,
        path: path.to_owned(),
        why: innermost(e).to_string(),
    };
    let stream = TcpStream::connect(addr).await.map_err(|source| ReachError::Connect { addr, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreadable(&e))?;
    let request = Request::get(path)
        .header(header::HOST, addr.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| unreadable(&e))?;

    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| unreadable(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
            Some(_) => ReachError::TooLarge { addr, path: path.to_owned() },
            None => unreadable(e.as_ref()),
        })?;
        Ok((status, body.to_bytes()))
    };
    // The connection may end before its last bytes are read; its own error reaches the answer anyway.
    let driver = async {
        let _ = connection.await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        answer = answer => answer,
        () = driver => unreachable!("the driver never ends"),
    }
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with these bytes, then closes it, or holds it open.
    async fn answers(bytes: Vec<u8>, hold: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&bytes).await;
            if hold {
                std::future::pending::<()>().await;
            }
        });
        addr
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(30))
    }

    #[tokio::test]
    async fn an_answer_is_given_with_its_status_whatever_it_is() {
        let addr = answers(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy".to_vec(), false).await;
        let (status, body) = ask(addr, "/ready", soon()).await.unwrap();
        assert_eq!((status.as_u16(), &body[..]), (503, &b"busy"[..]));
    }

    #[tokio::test]
    async fn nonsense_and_a_truncated_answer_are_errors() {
        for bytes in
            [&b"\x15\x03\x01 this is no HTTP\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{", b""]
        {
            let addr = answers(bytes.to_vec(), false).await;
            let error = ask(addr, "/certs", soon()).await.unwrap_err();
            assert!(matches!(error, ReachError::Http { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let addr = answers(b"HTTP/1.1 200 OK\r\n".to_vec(), true).await;
        let error = ask(addr, "/certs", Deadline::after(Duration::from_millis(50))).await.unwrap_err();
        assert!(matches!(error, ReachError::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_endless_answer_is_refused() {
        let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        bytes.resize(LARGEST_ANSWER + 1024, b'x');
        let addr = answers(bytes, true).await;
        let error = ask(addr, "/stats", soon()).await.unwrap_err();
        assert!(matches!(error, ReachError::TooLarge { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_no_connection() {
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = ask(addr, "/certs", soon()).await.unwrap_err();
        assert!(matches!(error, ReachError::Connect { .. }), "{error}");
    }
}
