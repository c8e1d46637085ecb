//! A subscription of the harness's own: what does a fresh subscriber get?

use std::os::unix::fs::FileTypeExt as _;
use std::task::{Context, Poll};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codegen::Service;
use tonic::transport::Endpoint;

use super::dial::dial;
use super::message::{Rpc, SECRET_TYPE_URL};
use super::pb::envoy::config::core::v3::Node;
use super::pb::envoy::service::discovery::v3::DiscoveryRequest;
use super::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use super::read;
use super::serve::status_text;
use crate::pki::cut;
use crate::timeline::{
    Acked, Blind, CertFacts, Fact, Layer, Payload, SecretName, Sent, StreamClosed, StreamOpened, Subscribed, UNREACHED,
    WITNESS_NODE,
};

/// Larger responses are refused, as what they are: nothing that a proxy could want.
const LARGEST: usize = 16 << 20;

/// Why a fresh subscriber gets nothing, and never will.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// There is nothing.
    #[error("there is no {0}")]
    Missing(Utf8PathBuf),
    /// Something else.
    #[error("{0} is no socket")]
    NotASocket(Utf8PathBuf),
    /// Nobody listens, or not to us.
    #[error("{path} can't be connected to: {source}")]
    Refused {
        /// The socket.
        path: Utf8PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody listens, who is no gRPC server.
    #[error("what listens on {path} does not speak gRPC: {why}")]
    NotGrpc {
        /// The socket.
        path: Utf8PathBuf,
        /// What it did.
        why: String,
    },
    /// A gRPC server, of other services.
    #[error("what listens on {path} serves no SDS v3 (StreamSecrets): {why}")]
    NoSds {
        /// The socket.
        path: Utf8PathBuf,
        /// Its status.
        why: String,
    },
    /// It knows us, and gives us nothing.
    #[error("the provider on {path} denies us {name}: {why}")]
    Denied {
        /// The socket.
        path: Utf8PathBuf,
        /// What was asked for.
        name: SecretName,
        /// Its status.
        why: String,
    },
}

impl WitnessError {
    /// What the harness could not see because of it. That nobody could be connected to is told apart.
    pub fn blind(&self) -> Blind {
        let what = match self {
            Self::Missing(_) | Self::NotASocket(_) | Self::Refused { .. } => UNREACHED,
            Self::NotGrpc { .. } | Self::NoSds { .. } | Self::Denied { .. } => "a fresh subscription",
        };
        Blind { layer: Some(Layer::Sent), what: what.to_owned(), why: self.to_string() }
    }
}

/// What came of a question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// Whether there was a response.
    pub answered: bool,
    /// The leaf under the name asked for.
    pub leaf: Option<CertFacts>,
    /// The authorities in the response, DER.
    pub roots: Vec<Vec<u8>>,
}

/// What is asked for, where, and as whom.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where somebody serves.
    pub socket: &'a Utf8Path,
    /// What is subscribed to.
    pub name: &'a SecretName,
    /// `node.id`: [`WITNESS_NODE`], or what begins with it.
    pub node: &'a str,
}

impl<'a> Question<'a> {
    /// As nobody in particular.
    pub fn of(socket: &'a Utf8Path, name: &'a SecretName) -> Self {
        Self { socket, name, node: WITNESS_NODE }
    }
}

/// When a subscription is over that nobody ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    FirstResponse,
    Time,
}

/// Subscribes to one name on a connection of its own, takes the first response, accepts it, and goes away. `note`
/// hears every fact as it comes. Silence, or a stream that ends, is an answer too: only what will never get better is
/// an error.
pub async fn ask(
    question: Question<'_>,
    stream: u64,
    patience: Duration,
    note: impl FnMut(Fact),
) -> Result<Asked, WitnessError> {
    subscribe(question, stream, Until::FirstResponse, patience, note).await
}

/// As [`ask`], but stays for so long, and accepts whatever comes.
pub async fn stay(
    question: Question<'_>,
    stream: u64,
    time: Duration,
    note: impl FnMut(Fact),
) -> Result<Asked, WitnessError> {
    subscribe(question, stream, Until::Time, time, note).await
}

async fn subscribe(
    question: Question<'_>,
    stream: u64,
    until: Until,
    time: Duration,
    mut note: impl FnMut(Fact),
) -> Result<Asked, WitnessError> {
    let name = question.name;
    note(StreamOpened { stream, rpc: Rpc::SdsStream.name().to_owned(), peer_pid: None }.into());
    note(subscribed(stream, question));
    let mut asked = Asked::default();
    let mut heard = |fact: Fact| {
        if let Fact::Sent(sent) = &fact {
            asked.answered = true;
            asked.leaf = sent.secrets.iter().find(|s| s.name == name.as_str()).and_then(|s| match &s.payload {
                Payload::Certificate { chain, .. } => chain.first().cloned(),
                _ => None,
            });
        }
        note(fact);
    };
    let mut roots = Vec::new();
    let began = std::time::Instant::now();
    let talked = match connection(question.socket, time).await {
        Ok(connected) => {
            let talk = talk(question, connected, stream, until, &mut heard, &mut roots);
            tokio::time::timeout(time.saturating_sub(began.elapsed()), talk).await
        }
        Err(e) => Ok(Err(Ended::For(e))),
    };
    let (by, status) = match &talked {
        Ok(Ok(())) => ("proxy", "Ok".to_owned()),
        Ok(Err(Ended::Status(status))) => ("provider", status.clone()),
        Ok(Err(Ended::For(e))) => ("connection", e.to_string()),
        Err(_) if until == Until::Time => ("proxy", "Ok".to_owned()),
        Err(_) => ("proxy", format!("no answer within {} s", time.as_secs())),
    };
    heard(StreamClosed { stream, by: by.to_owned(), status }.into());
    asked.roots = roots;
    match talked {
        Ok(Err(Ended::For(e))) => Err(e),
        _ => Ok(asked),
    }
}

fn subscribed(stream: u64, Question { name, node, .. }: Question<'_>) -> Fact {
    Subscribed {
        stream,
        type_url: SECRET_TYPE_URL.to_owned(),
        names: vec![name.to_string()],
        version_info: String::new(),
        node: node.to_owned(),
    }
    .into()
}

enum Ended {
    /// With a status that may be another one the next time.
    Status(String),
    /// Whatever is tried.
    For(WitnessError),
}

async fn talk(
    Question { socket, name, node }: Question<'_>,
    connected: UnixStream,
    stream: u64,
    until: Until,
    note: &mut impl FnMut(Fact),
    roots: &mut Vec<Vec<u8>>,
) -> Result<(), Ended> {
    let not_grpc = |why: String| Ended::For(WitnessError::NotGrpc { path: socket.to_owned(), why });
    let endpoint = Endpoint::from_shared(format!("unix:{socket}")).map_err(|e| not_grpc(e.to_string()))?;
    let channel =
        endpoint.connect_with_connector(Connected(Some(connected))).await.map_err(|e| not_grpc(root_cause(&e)))?;
    let mut client = SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST);
    let (requests, outgoing) = mpsc::channel(2);
    let first = DiscoveryRequest {
        node: Some(Node { id: node.to_owned(), cluster: "rotacheck".to_owned(), ..Node::default() }),
        resource_names: vec![name.to_string()],
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    };
    // The receiver lives in the call.
    let _ = requests.send(first.clone()).await;
    let ended = |status: tonic::Status| end(socket, name, &status);
    let mut responses = client.stream_secrets(ReceiverStream::new(outgoing)).await.map_err(ended)?.into_inner();
    loop {
        let Some(response) = responses.message().await.map_err(ended)? else {
            return Err(Ended::Status("Ok".to_owned()));
        };
        let contents = read::contents(&response);
        let (version_info, nonce) = (cut(&response.version_info), cut(&response.nonce));
        *roots = contents.roots;
        note(
            Sent {
                stream,
                type_url: cut(&response.type_url),
                version_info: version_info.clone(),
                nonce: nonce.clone(),
                secrets: contents.secrets,
            }
            .into(),
        );
        let ack = DiscoveryRequest {
            node: None,
            version_info: response.version_info,
            response_nonce: response.nonce,
            ..first.clone()
        };
        if requests.send(ack).await.is_ok() {
            note(Acked { stream, nonce, version_info }.into());
        }
        if until == Until::FirstResponse {
            break;
        }
    }
    // Half-closed first, so that a provider may end the stream in peace; none is waited for long.
    drop(requests);
    let _ = tokio::time::timeout(Duration::from_millis(200), responses.message()).await;
    Ok(())
}

/// A connection to whoever listens there, who may have many to take in before.
async fn connection(socket: &Utf8Path, patience: Duration) -> Result<UnixStream, WitnessError> {
    let refused = |source| WitnessError::Refused { path: socket.to_owned(), source };
    match std::fs::metadata(socket) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(WitnessError::Missing(socket.to_owned())),
        Err(e) => return Err(refused(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(WitnessError::NotASocket(socket.to_owned())),
        Ok(_) => {}
    }
    dial(socket, patience).await.map_err(refused)
}

/// The one connection there is: a channel that lost it gets no other.
struct Connected(Option<UnixStream>);

impl Service<http::Uri> for Connected {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<TokioIo<UnixStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connected = self.0.take().map(TokioIo::new);
        std::future::ready(connected.ok_or_else(|| std::io::ErrorKind::NotConnected.into()))
    }
}

fn end(socket: &Utf8Path, name: &SecretName, status: &tonic::Status) -> Ended {
    let path = socket.to_owned();
    let why = cut(&status_text(status));
    // What the transport itself complains about is no gRPC server's word.
    if let Some(source) = std::error::Error::source(status) {
        return Ended::For(WitnessError::NotGrpc { path, why: root_cause(source) });
    }
    // SPIRE's agent says so of who has other identities than the one asked for, or none any more.
    let denied = status.code() == Code::InvalidArgument && why.contains("not authorized");
    match status.code() {
        Code::Unimplemented => Ended::For(WitnessError::NoSds { path, why }),
        Code::PermissionDenied | Code::Unauthenticated => {
            Ended::For(WitnessError::Denied { path, name: name.clone(), why })
        }
        _ if denied => Ended::For(WitnessError::Denied { path, name: name.clone(), why }),
        _ => Ended::Status(why),
    }
}

fn root_cause(e: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = e;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::dial::crowded;
    use super::*;

    #[tokio::test]
    async fn a_provider_with_a_full_queue_of_connections_is_reached_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("s");
        let (provider, waiting) = crowded(&path);
        let name = SecretName::default_svid();
        let in_vain = ask(Question::of(&path, &name), 1, Duration::ZERO, |_| ()).await.unwrap_err();
        assert!(in_vain.to_string().contains("stayed full") && in_vain.blind().what == UNREACHED, "{in_vain}");
        let asked = tokio::spawn({
            let path = path.clone();
            async move { ask(Question::of(&path, &SecretName::default_svid()), 2, Duration::from_secs(60), |_| ()).await }
        });
        tokio::task::yield_now().await;
        // Everybody is taken in, and sent away.
        tokio::task::spawn_blocking(move || (0..=waiting.len()).for_each(|_| drop(provider.accept().unwrap())));
        let answer = asked.await.unwrap().unwrap_err();
        assert!(matches!(answer, WitnessError::NotGrpc { .. }), "{answer}");
    }
}
