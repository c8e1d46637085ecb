//! An SDS client that does what Envoy does, one stream per name.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses what it needs"
)]

use camino::Utf8Path;
use envoy_types::pb::envoy::config::core::v3::{
    BuildVersion, DataSource, Node, data_source::Specifier, node::UserAgentVersionType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as tls, SpiffeCertValidatorConfig, secret::Type,
};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use prost::Message as _;
use rotacheck::pki::chain_facts;
use rotacheck::timeline::CertFacts;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

pub struct Subscriber {
    names: Vec<String>,
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub version_info: String,
    pub nonce: String,
    pub secrets: Vec<(String, Secret)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Secret {
    Certificate(Box<Certificate>),
    Spoiled { chain: String },
    Bundle { roots: Vec<CertFacts>, spiffe_validator: bool },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    pub facts: CertFacts,
    pub chain_pem: String,
    pub key_pem: String,
}

pub async fn channel(socket: &Utf8Path) -> Channel {
    Endpoint::from_shared(format!("unix:{socket}")).unwrap().connect().await.unwrap()
}

fn node(id: &str) -> Node {
    let version = SemanticVersion { major_number: 1, minor_number: 38, patch: 3 };
    let build = BuildVersion { version: Some(version), ..Default::default() };
    Node {
        id: id.to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        ..Default::default()
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub async fn fetch(socket: &Utf8Path, id: &str, names: &[&str]) -> Answer {
    let request = DiscoveryRequest {
        node: Some(node(id)),
        resource_names: owned(names),
        type_url: SECRET.to_owned(),
        ..Default::default()
    };
    let mut client = SecretDiscoveryServiceClient::new(channel(socket).await);
    Answer::of(client.fetch_secrets(request).await.unwrap().into_inner())
}

impl Subscriber {
    pub async fn open(socket: &Utf8Path, id: &str, names: &[&str], version: &str) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let first = DiscoveryRequest {
            node: Some(node(id)),
            resource_names: owned(names),
            version_info: version.to_owned(),
            type_url: SECRET.to_owned(),
            ..Default::default()
        };
        requests.send(first).await.unwrap();
        let mut client = SecretDiscoveryServiceClient::new(channel(socket).await);
        let responses = client.stream_secrets(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { names: owned(names), requests, responses }
    }

    pub async fn next(&mut self) -> Answer {
        Answer::of(self.message().await.unwrap().expect("the stream should go on"))
    }

    /// The status with which the server ends the stream.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    async fn message(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        let wait = std::time::Duration::from_secs(60);
        tokio::time::timeout(wait, self.responses.message()).await.expect("an answer within a minute")
    }

    pub async fn ack(&mut self, answer: &Answer) {
        let names = self.names.clone();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.answer(&names, &answer.version_info, &answer.nonce, None).await;
    }

    pub async fn nack(&mut self, answer: &Answer, held: &str, error: &str) {
        let names = self.names.clone();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.answer(&names, held, &answer.nonce, Some(error)).await;
    }

    pub async fn answer(&mut self, names: &[&str], version: &str, nonce: &str, error: Option<&str>) {
        let request = DiscoveryRequest {
            resource_names: owned(names),
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            type_url: SECRET.to_owned(),
            error_detail: error.map(|e| RpcStatus { code: 13, message: e.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

impl Answer {
    fn of(response: DiscoveryResponse) -> Self {
        assert_eq!(response.type_url, SECRET);
        let secrets = response.resources.iter().map(|any| {
            assert_eq!(any.type_url, SECRET);
            let secret = tls::Secret::decode(any.value.as_slice()).unwrap();
            (secret.name, Secret::of(secret.r#type.unwrap()))
        });
        Self { version_info: response.version_info, nonce: response.nonce, secrets: secrets.collect() }
    }

    /// The only secret's certificate.
    pub fn certificate(&self) -> Certificate {
        match &self.secrets[..] {
            [(_, Secret::Certificate(certificate))] => (**certificate).clone(),
            other => panic!("no single certificate: {other:?}"),
        }
    }
}

impl Secret {
    fn of(content: Type) -> Self {
        match content {
            Type::TlsCertificate(tls) => {
                let (chain, key) = (text(tls.certificate_chain), text(tls.private_key));
                match chain_facts(chain.as_bytes()) {
                    Ok(facts) => Secret::Certificate(Box::new(Certificate {
                        facts: facts[0].clone(),
                        chain_pem: chain,
                        key_pem: key,
                    })),
                    Err(_) => Secret::Spoiled { chain },
                }
            }
            Type::ValidationContext(context) => match context.custom_validator_config {
                None => Secret::Bundle {
                    roots: chain_facts(text(context.trusted_ca).as_bytes()).unwrap(),
                    spiffe_validator: false,
                },
                Some(custom) => {
                    assert_eq!(custom.name, "envoy.tls.cert_validator.spiffe");
                    let config =
                        SpiffeCertValidatorConfig::decode(custom.typed_config.unwrap().value.as_slice()).unwrap();
                    let domain = config.trust_domains.into_iter().next().unwrap();
                    assert_eq!(domain.name, super::cell::TRUST_DOMAIN);
                    let roots = chain_facts(text(domain.trust_bundle).as_bytes()).unwrap();
                    Secret::Bundle { roots, spiffe_validator: true }
                }
            },
            other => panic!("neither certificate nor bundle: {other:?}"),
        }
    }
}

fn text(source: Option<DataSource>) -> String {
    match source.unwrap().specifier.unwrap() {
        Specifier::InlineBytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("not inline: {other:?}"),
    }
}
