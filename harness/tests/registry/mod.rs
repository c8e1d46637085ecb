//! A registry on loopback: what it serves, the test puts in, true or false.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "part of a test: what is unexpected shall panic")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use sha2::Digest as _;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What lies below `/v2/`, by path: media type and bytes.
type Contents = Mutex<HashMap<String, (String, Vec<u8>)>>;

#[derive(Default)]
struct Shared {
    contents: Contents,
    asked: Mutex<Vec<String>>,
    /// While it is closed, blobs wait.
    closed: Mutex<bool>,
    opened: Condvar,
}

/// It gives nothing without a token, and a token to everybody, as public registries do. Its thread ends with the test.
pub struct Registry {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let (shared, address) = (registry.shared.clone(), registry.address);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || drop(serve(&stream.unwrap(), address, &shared)));
            }
        });
        registry
    }

    /// Puts in an image for both platforms, below a tag.
    pub fn publish(&self, name: &str, tag: &str, layers: &[Vec<u8>]) {
        let manifest = self.manifest(name, layers);
        let entry = |arch: &str, manifest: &[u8]| {
            json!({"mediaType": MANIFEST, "digest": digest(manifest), "size": manifest.len(),
                   "platform": {"os": "linux", "architecture": arch}})
        };
        // What buildkit adds beside the platforms: nothing to run.
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            entry("unknown", b"{}"), entry("arm64", &manifest), entry("amd64", &manifest)]});
        self.put(&format!("{name}/manifests/{tag}"), INDEX, &serde_json::to_vec(&index).unwrap());
    }

    /// Puts in an image without an index, made for this processor.
    pub fn publish_alone(&self, name: &str, tag: &str, layers: &[Vec<u8>], arch: &str) {
        let config = serde_json::to_vec(&json!({"os": "linux", "architecture": arch})).unwrap();
        let manifest = self.manifest_with(name, layers, &config);
        self.put(&format!("{name}/manifests/{tag}"), MANIFEST, &manifest);
    }

    fn manifest(&self, name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
        self.manifest_with(name, layers, b"{}")
    }

    fn manifest_with(&self, name: &str, layers: &[Vec<u8>], config: &[u8]) -> Vec<u8> {
        let blob = |bytes: &[u8], kind: &str| {
            self.put(&format!("{name}/blobs/{}", digest(bytes)), "application/octet-stream", bytes);
            json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
        };
        let layers: Vec<Value> =
            layers.iter().map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
        let config = blob(config, "application/vnd.oci.image.config.v1+json");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        self.put(&format!("{name}/manifests/{}", digest(&manifest)), MANIFEST, &manifest);
        manifest
    }

    pub fn put(&self, path: &str, kind: &str, bytes: &[u8]) {
        self.shared.contents.lock().unwrap().insert(path.to_owned(), (kind.to_owned(), bytes.to_owned()));
    }

    /// Changes what it serves, below the names that it has for the true bytes.
    pub fn falsify(&self, part_of_path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut contents = self.shared.contents.lock().unwrap();
        let mut changed = 0;
        for (_, (_, bytes)) in contents.iter_mut().filter(|(path, _)| path.contains(part_of_path)) {
            change(bytes);
            changed += 1;
        }
        assert!(changed > 0, "{part_of_path}");
    }

    pub fn remove(&self, part_of_path: &str) {
        self.shared.contents.lock().unwrap().retain(|path, _| !path.contains(part_of_path));
    }

    /// The paths that were asked for, tokens apart.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many blobs were asked for.
    pub fn blobs(&self) -> usize {
        self.asked().iter().filter(|path| path.contains("/blobs/")).count()
    }

    /// From now on blobs wait, or no longer.
    pub fn hold_blobs(&self, hold: bool) {
        *self.shared.closed.lock().unwrap() = hold;
        self.shared.opened.notify_all();
    }
}

fn serve(stream: &TcpStream, address: SocketAddr, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let answer = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    };
    let Some(first) = lines.next().transpose()? else { return Ok(()) };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorized = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        authorized |= line.eq_ignore_ascii_case("authorization: Bearer everybody");
    }
    if path.starts_with("/token") {
        return answer("200 OK", "Content-Type: application/json\r\n", br#"{"token": "everybody"}"#);
    }
    if !authorized {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"test\"\r\n");
        return answer("401 Unauthorized", &challenge, b"");
    }
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    shared.asked.lock().unwrap().push(path.to_owned());
    if path.contains("/blobs/") {
        drop(shared.opened.wait_while(shared.closed.lock().unwrap(), |closed| *closed).unwrap());
    }
    let found = shared.contents.lock().unwrap().get(path).cloned();
    match found {
        Some((kind, bytes)) => answer("200 OK", &format!("Content-Type: {kind}\r\n"), &bytes),
        None => {
            let body = br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}"#;
            answer("404 Not Found", "Content-Type: application/json\r\n", body)
        }
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}
