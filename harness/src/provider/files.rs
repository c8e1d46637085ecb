//! Where files are put into place, as tbot's and spiffe-helper's outputs are used: whole directories, by a symbolic link
//! that is renamed, in a directory that the proxy watches.
//!
//! Private keys lie here for as long as the cell lives: the directory is one that the guard removes, and no part of the run.

use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::sync::{Mutex, MutexGuard, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use super::ProviderError;
use super::material::{bundle_payload, certificate_payload};
use crate::pki::PrivateKey;
use crate::scenario::Fault;
use crate::timeline::{Payload, ProxyId, Recorder, SecretName, SentSecret, Source, Written};
use crate::xds::{Command, Content, Event, Push, Rpc, SECRET_TYPE_URL, secret_file, watched_directory};

const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.pem";
/// The link to the directory that holds the present files.
const LIVE: &str = "live";

/// The files of all proxies.
pub(super) struct Files {
    root: Utf8PathBuf,
    recorder: Recorder,
    places: BTreeMap<u64, Place>,
    state: Mutex<State>,
}

/// One secret of one proxy. To the issuer it is a stream.
struct Place {
    proxy: ProxyId,
    secret: SecretName,
    directory: Utf8PathBuf,
}

#[derive(Default)]
struct State {
    faults: HashMap<ProxyId, Fault>,
    /// Directories made for each secret so far.
    made: HashMap<u64, u32>,
    /// The chain that each secret should hold, and its key.
    due: HashMap<u64, (String, PrivateKey)>,
    /// Whose chain is half there.
    half: Vec<u64>,
    /// What went wrong first.
    failed: Option<ProviderError>,
}

impl Files {
    /// Lays out the directories. `unwatched`: whose secrets name no directory to be watched.
    pub(super) fn lay_out(
        root: &Utf8Path,
        proxies: &[ProxyId],
        unwatched: impl Fn(&ProxyId) -> bool,
        recorder: Recorder,
    ) -> Result<Self, ProviderError> {
        let mut places = BTreeMap::new();
        for proxy in proxies {
            for secret in [SecretName::default_svid(), SecretName::root_ca()] {
                let directory = watched_directory(root, proxy, &secret);
                let failed = |source| ProviderError::Files { path: directory.clone(), source };
                DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
                let response = response(&secret, &directory, !unwatched(proxy));
                write(&secret_file(root, proxy, &secret), response.to_string().as_bytes()).map_err(failed)?;
                let stream = places.len() as u64 + 1;
                places.insert(stream, Place { proxy: proxy.clone(), secret, directory });
            }
        }
        Ok(Self { root: root.to_owned(), recorder, places, state: Mutex::default() })
    }

    /// Where they are.
    pub(super) fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// What makes the issuer give each secret to whom it belongs, now and at each renewal.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = (Event, ProxyId)> {
        self.places.iter().flat_map(|(stream, place)| {
            let subscribed = Event::Subscribed {
                stream: *stream,
                type_url: SECRET_TYPE_URL.to_owned(),
                names: vec![place.secret.to_string()],
                version_info: String::new(),
                node: place.proxy.to_string(),
                spiffe_validator: false,
                istio_path: None,
            };
            let opened = Event::Opened { stream: *stream, rpc: Rpc::Files, peer_pid: None };
            [opened, subscribed].map(|event| (event, place.proxy.clone()))
        })
    }

    /// From now on each proxy's files are put into place as these faults have it. What was left half written before is
    /// completed, with nothing moved.
    pub(super) fn befall(&self, faults: HashMap<ProxyId, Fault>) {
        let mut state = self.lock();
        state.faults = faults;
        for stream in std::mem::take(&mut state.half) {
            let (Some(place), Some((chain, key))) = (self.places.get(&stream), state.due.get(&stream)) else {
                continue;
            };
            let done = write(&place.directory.join(LIVE).join(CHAIN), chain.as_bytes());
            let payload = certificate_payload(chain, key);
            self.settle(&mut state, place, done.map(|()| ("in_place", payload)));
        }
    }

    /// What went wrong since this was asked last.
    pub(super) fn failure(&self) -> Option<ProviderError> {
        self.lock().failed.take()
    }

    /// Puts what is pushed into place. There is nothing to be closed.
    pub(super) fn deliver(&self, command: Command) {
        let Command::Push { stream, push } = command else { return };
        let Some(place) = self.places.get(&stream) else { return };
        let mut state = self.lock();
        for secret in push_contents(push) {
            let done = match secret {
                Content::Bundle { roots, .. } => {
                    let files = [(ROOTS, roots.as_bytes())];
                    self.moved(&mut state, stream, place, &files).map(|()| ("moved", bundle_payload(&roots)))
                }
                Content::Certificate { chain, key, .. } => self.certificate(&mut state, stream, place, chain, key),
            };
            self.settle(&mut state, place, done);
        }
    }

    fn certificate(
        &self,
        state: &mut State,
        stream: u64,
        place: &Place,
        chain: String,
        key: PrivateKey,
    ) -> io::Result<(&'static str, Payload)> {
        let pem = key.to_pem();
        let live = place.directory.join(LIVE);
        let before = state.due.insert(stream, (chain.clone(), key.clone()));
        let whole = [(CHAIN, chain.as_bytes()), (KEY, pem.as_bytes())];
        match (state.faults.get(&place.proxy), before) {
            (Some(Fault::RewriteInPlace), Some(_)) => {
                for (name, bytes) in whole {
                    write(&live.join(name), bytes)?;
                }
                Ok(("in_place", certificate_payload(&chain, &key)))
            }
            (Some(Fault::HalfWritten), Some(_)) => {
                let half = half(&chain);
                write(&live.join(KEY), pem.as_bytes())?;
                write(&live.join(CHAIN), half.as_bytes())?;
                // Something is moved, and the watcher looks.
                self.link(place, &std::fs::read_link(&live)?)?;
                state.half.push(stream);
                Ok(("moved", certificate_payload(half, &key)))
            }
            (Some(Fault::KeyBeforeChain), Some((old, _))) => {
                self.moved(state, stream, place, &[(CHAIN, old.as_bytes()), (KEY, pem.as_bytes())])?;
                Ok(("moved", certificate_payload(&old, &key)))
            }
            (Some(Fault::FileMissing), Some(_)) => {
                self.moved(state, stream, place, &[(KEY, pem.as_bytes())])?;
                Ok(("moved", Payload::Other { what: format!("no {CHAIN}") }))
            }
            _ => {
                self.moved(state, stream, place, &whole)?;
                Ok(("moved", certificate_payload(&chain, &key)))
            }
        }
    }

    /// A new directory with these files takes the place of the one before, at once.
    fn moved(&self, state: &mut State, stream: u64, place: &Place, files: &[(&str, &[u8])]) -> io::Result<()> {
        let made = state.made.entry(stream).or_default();
        let name = format!("generation-{made}");
        let directory = place.directory.join(&name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        for (file, bytes) in files {
            write(&directory.join(file), bytes)?;
        }
        self.link(place, name.as_ref())?;
        // Who has just begun to read the one before may finish.
        if let Some(old) = made.checked_sub(2) {
            std::fs::remove_dir_all(place.directory.join(format!("generation-{old}")))?;
        }
        *made += 1;
        Ok(())
    }

    fn link(&self, place: &Place, target: &std::path::Path) -> io::Result<()> {
        let next = place.directory.join("next");
        symlink(target, &next)?;
        std::fs::rename(next, place.directory.join(LIVE))
    }

    fn settle(&self, state: &mut State, place: &Place, done: io::Result<(&'static str, Payload)>) {
        match done {
            Ok((how, payload)) => {
                let secret = SentSecret { name: place.secret.to_string(), payload };
                let fact = Written { directory: place.directory.to_string(), how: how.to_owned(), secret };
                self.recorder.record(Source::Provider, Some(&place.proxy), Some(&place.secret), fact);
            }
            Err(source) => {
                state.failed.get_or_insert(ProviderError::Files { path: place.directory.clone(), source });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push_contents(push: Push) -> impl Iterator<Item = Content> {
    push.secrets.into_iter().map(|secret| secret.content)
}

/// What `path_config_source` reads: an SDS response whose secret names the files, and what to watch for them.
fn response(secret: &SecretName, directory: &Utf8Path, watched: bool) -> Value {
    let file = |name: &str| json!({ "filename": directory.join(LIVE).join(name).as_str() });
    let (kind, mut content) = match *secret == SecretName::root_ca() {
        true => ("validation_context", json!({ "trusted_ca": file(ROOTS) })),
        false => ("tls_certificate", json!({ "certificate_chain": file(CHAIN), "private_key": file(KEY) })),
    };
    if watched {
        content["watched_directory"] = json!({ "path": directory.as_str() });
    }
    json!({ "resources": [{
        "@type": SECRET_TYPE_URL,
        "name": secret.as_str(),
        kind: content,
    }] })
}

/// As much of it as makes no certificate.
fn half(chain: &str) -> &str {
    chain.get(..chain.len() / 2).unwrap_or_default()
}

/// Over what is there.
fn write(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}
