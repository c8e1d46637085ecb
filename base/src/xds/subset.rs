//! What is spoken here, of Envoy's protos, against all of them as another crate has them.

use std::collections::HashSet;
use std::fmt::Debug;

use envoy_types::pb::envoy as whole;
use prost::Message;
use prost_types::Any;

use super::pb::envoy::config::core::v3::{
    Address, BuildVersion, DataSource, Field, Metadata, Node, SocketAddress, TransportSocket, TypedExtensionConfig,
    Value, address, data_source::Specifier, node::UserAgentVersionType, socket_address::PortSpecifier,
    transport_socket,
};
use super::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use super::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, GenericSecret, Secret, SpiffeCertValidatorConfig, TlsCertificate,
    TlsSessionTicketKeys, secret::Type, spiffe_cert_validator_config::TrustDomain,
};
use super::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};
use super::pb::envoy::r#type::v3::SemanticVersion;
use super::pb::google::rpc::Status;

/// The whole type reads every field that is written here, under its own name, and writes it again.
fn is_part_of<Whole: Message + Default + Debug>(part: impl Message + Default + PartialEq + Debug) {
    fn lines(of: &impl Debug) -> HashSet<String> {
        format!("{of:#?}").lines().map(|line| line.trim().to_owned()).collect()
    }
    let (ours, theirs) = (lines(&part), lines(&there_and_back::<Whole, _>(&part)));
    assert!(ours.is_subset(&theirs), "{:?} is missing", ours.difference(&theirs));
}

/// What the whole type does not know, it drops.
fn there_and_back<Whole: Message + Default, Part: Message + Default + PartialEq + Debug>(part: &Part) -> Whole {
    let whole = Whole::decode(part.encode_to_vec().as_slice()).unwrap();
    assert_eq!(&Part::decode(whole.encode_to_vec().as_slice()).unwrap(), part);
    whole
}

fn text(name: &str) -> String {
    name.to_owned()
}

fn any(name: &str) -> Any {
    Any { type_url: text(name), value: b"value".to_vec() }
}

fn source(specifier: Specifier) -> Option<DataSource> {
    Some(DataSource { specifier: Some(specifier) })
}

#[test]
fn discovery_is_spoken_as_envoy_speaks_it() {
    let version = SemanticVersion { major_number: 1, minor_number: 2, patch: 3 };
    for agent in [
        UserAgentVersionType::UserAgentVersion(text("agent")),
        UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version: Some(version) }),
    ] {
        is_part_of::<whole::service::discovery::v3::DiscoveryRequest>(DiscoveryRequest {
            version_info: text("version"),
            node: Some(Node {
                id: text("id"),
                cluster: text("cluster"),
                metadata: None,
                user_agent_version_type: Some(agent),
            }),
            resource_names: vec![text("resource")],
            type_url: text("type"),
            response_nonce: text("nonce"),
            error_detail: Some(Status { code: 13, message: text("message") }),
        });
    }
    // A map is a list of pairs, on the wire only.
    let field = Field { key: text("key"), value: Some(Value { string_value: text("value") }) };
    let node = Node { metadata: Some(Metadata { fields: vec![field] }), ..Node::default() };
    let whole = there_and_back::<whole::config::core::v3::Node, _>(&node);
    assert!(format!("{whole:?}").contains(r#""key": Value { kind: Some(StringValue("value")) }"#), "{whole:?}");
    is_part_of::<whole::service::discovery::v3::DiscoveryResponse>(DiscoveryResponse {
        version_info: text("version"),
        resources: vec![any("resource")],
        type_url: text("type"),
        nonce: text("nonce"),
    });
    is_part_of::<whole::service::discovery::v3::Resource>(Resource {
        resource: Some(any("resource")),
        name: text("name"),
    });
}

#[test]
fn a_secret_is_what_envoy_takes_for_one() {
    for kind in [
        Type::TlsCertificate(TlsCertificate {
            certificate_chain: source(Specifier::InlineBytes(b"chain".to_vec())),
            private_key: source(Specifier::InlineString(text("key"))),
            ocsp_staple: source(Specifier::Filename(text("staple"))),
        }),
        Type::ValidationContext(CertificateValidationContext {
            trusted_ca: source(Specifier::EnvironmentVariable(text("roots"))),
            custom_validator_config: Some(TypedExtensionConfig {
                name: text("validator"),
                typed_config: Some(any("config")),
            }),
        }),
    ] {
        is_part_of::<whole::extensions::transport_sockets::tls::v3::Secret>(Secret {
            name: text("name"),
            r#type: Some(kind),
        });
    }
    for unread in [Type::SessionTicketKeys(TlsSessionTicketKeys {}), Type::GenericSecret(GenericSecret {})] {
        let secret = Secret { name: text("name"), r#type: Some(unread) };
        there_and_back::<whole::extensions::transport_sockets::tls::v3::Secret, _>(&secret);
    }
    is_part_of::<whole::extensions::transport_sockets::tls::v3::SpiffeCertValidatorConfig>(SpiffeCertValidatorConfig {
        trust_domains: vec![TrustDomain {
            name: text("domain"),
            trust_bundle: source(Specifier::InlineString(text("roots"))),
        }],
    });
}

#[test]
fn a_listener_is_what_envoy_takes_for_one() {
    is_part_of::<whole::config::listener::v3::Listener>(Listener {
        name: text("name"),
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: text("127.0.0.1"),
                port_specifier: Some(PortSpecifier::PortValue(15004)),
            })),
        }),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: text("filter"),
                config_type: Some(filter::ConfigType::TypedConfig(any("hcm"))),
            }],
            transport_socket: Some(TransportSocket {
                name: text("tls"),
                config_type: Some(transport_socket::ConfigType::TypedConfig(any("context"))),
            }),
        }],
        stat_prefix: text("prefix"),
    });
}
