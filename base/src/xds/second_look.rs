//! A second look at a provider, through another API and by a client that is not ours: what does the SPIFFE Workload API
//! give to whoever asks now?

use std::time::Duration;

use camino::Utf8Path;
use spiffe::WorkloadApiClient;

use super::message::Rpc;
use crate::pki::{cut, facts};
use crate::timeline::{
    Fact, Fingerprint, Payload, SecretName, Sent, SentSecret, StreamClosed, StreamOpened, Subscribed, WITNESS_NODE,
};

/// Asks once; `note` hears every fact as it comes. Who does not answer, or serves no such API, is only said to: that it
/// serves SDS is asked elsewhere.
pub async fn ask_workload_api(socket: &Utf8Path, stream: u64, patience: Duration, mut note: impl FnMut(Fact)) {
    let rpc = Rpc::WorkloadSvid.name().to_owned();
    note(StreamOpened { stream, rpc, peer_pid: None }.into());
    let asked = async {
        let client = WorkloadApiClient::connect_to(format!("unix:{socket}")).await?;
        client.fetch_x509_svid().await
    };
    let (by, status) = match tokio::time::timeout(patience, asked).await {
        Ok(Ok(svid)) => {
            // Its key goes with it, at the end of this block.
            let der: Vec<&[u8]> = svid.cert_chain().iter().map(|certificate| certificate.as_bytes()).collect();
            let name = SecretName::default_svid().to_string();
            let names = vec![name.clone()];
            let (type_url, version_info, node) = (String::new(), String::new(), WITNESS_NODE.to_owned());
            note(Subscribed { stream, type_url: type_url.clone(), names, version_info, node }.into());
            let payload = certificate(&der);
            let secrets = vec![SentSecret { name, payload }];
            note(Sent { stream, type_url, version_info: String::new(), nonce: String::new(), secrets }.into());
            ("proxy", "Ok".to_owned())
        }
        Ok(Err(e)) => ("provider", cut(&e.to_string())),
        Err(_) => ("proxy", format!("no answer within {} s", patience.as_secs())),
    };
    note(StreamClosed { stream, by: by.to_owned(), status }.into());
}

fn certificate(chain: &[&[u8]]) -> Payload {
    let digest = Fingerprint::of_der(&chain.concat());
    match chain.iter().map(|der| facts(der)).collect() {
        // The client has compared key and certificate itself.
        Ok(chain) => Payload::Certificate { chain, digest, key_matches: None, problem: None },
        Err(e) => Payload::Certificate { chain: Vec::new(), digest, key_matches: None, problem: Some(e.to_string()) },
    }
}
