//! When something is minted, and to which streams it goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use tonic::Code;

use super::faults::{self, Faults};
use super::material::{Bundle, Certificate};
use super::minting::{Mint, Wanted};
use super::profile::{self, Counters};
use super::renewal::{Closed, Pushed, Renewal};
use super::streams::{Name, Stream, resolve};
use crate::pki::{Authorities, PkiError, PrivateKey};
use crate::scenario::{AuthorityAction, Fault, ProviderSpec};
use crate::timeline::{
    Authority, CertFacts, FaultNote, Fingerprint, Issued, Log, Payload, ProxyId, SecretName, SentSecret, Source,
    SpiffeId,
};
use crate::xds::{Announced, Command, Content, Event, Journal, Push, Rpc, Secret};

/// The type of a response that is made to have another one than `Secret`: that of a cluster.
const OTHER_TYPE_URL: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// Hands a command to the outlet, wherever that lives.
pub(super) type Deliver = Box<dyn Fn(Command) + Send>;

/// The authorities that are trusted, DER, for whoever watches.
pub(super) type Trusted = watch::Receiver<Vec<Vec<u8>>>;

/// Mints, remembers, decides. It has no clock of its own and no timer.
pub(super) struct Issuer {
    spec: ProviderSpec,
    faults: Faults,
    trust_domain: String,
    identities: HashMap<ProxyId, SpiffeId>,
    by_account: bool,
    journal: Arc<Journal>,
    deliver: Deliver,
    mint: Mint,
    trusted: watch::Sender<Vec<Vec<u8>>>,
    bundle: Arc<Bundle>,
    bundle_before: Arc<Bundle>,
    bundle_revision: u64,
    /// Raised whenever something is to be pushed.
    revision: u64,
    renewal: u32,
    counters: Counters,
    held: BTreeMap<Holder, Held>,
    streams: BTreeMap<u64, Stream>,
}

/// Whose a certificate is: a proxy's, or of whoever is not known. Per stream where the provider mints so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    proxy: Option<ProxyId>,
    stream: Option<u64>,
}

/// The certificates of a holder.
#[derive(Debug, Clone, Default)]
struct Held {
    /// Minted last.
    newest: Option<Arc<Certificate>>,
    /// What a subscriber gets, whole or spoiled.
    serving: Option<Arc<Certificate>>,
    revision: u64,
}

/// What a renewal does to a certificate, or to the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Push,
    Withhold,
    Close,
}

impl Issuer {
    pub(super) fn start(
        spec: ProviderSpec,
        staples: bool,
        trust_domain: String,
        identities: HashMap<ProxyId, SpiffeId>,
        by_account: bool,
        journal: Arc<Journal>,
        deliver: Deliver,
    ) -> Result<(Self, Trusted), PkiError> {
        for kind in [Some(spec.key_type), spec.later_key_type].into_iter().flatten() {
            PrivateKey::prepare(kind)?;
        }
        let now = journal.recorder().clock().now();
        let mint = Mint::new(&spec, staples, now)?;
        let bundle = Bundle::new(mint.authorities());
        let (trusted, watching) = watch::channel(roots(mint.authorities()));
        let mut issuer = Self {
            faults: Faults::new(spec.faults.clone()),
            spec,
            trust_domain,
            identities,
            by_account,
            journal,
            deliver,
            mint,
            trusted,
            bundle_before: bundle.clone(),
            bundle,
            bundle_revision: 1,
            revision: 1,
            renewal: 0,
            counters: Counters::default(),
            held: BTreeMap::new(),
            streams: BTreeMap::new(),
        };
        issuer.record_authority(issuer.mint.authorities().active().facts().clone(), "active");
        if !profile::mints_per_stream(issuer.spec.profile) {
            let mut proxies: Vec<_> = issuer.identities.keys().cloned().collect();
            proxies.sort();
            for proxy in proxies {
                issuer.first_certificate(Holder { proxy: Some(proxy), stream: None }, &SecretName::default_svid())?;
            }
        }
        Ok((issuer, watching))
    }

    /// One more that may subscribe. It gets its first certificate when it does.
    pub(super) fn admit(&mut self, proxy: ProxyId, spiffe_id: SpiffeId) {
        self.identities.insert(proxy, spiffe_id);
    }

    /// Something happened on a stream.
    pub(super) fn hear(&mut self, event: Event, proxy: Option<ProxyId>) {
        match event {
            Event::Opened { stream, rpc, .. } => {
                self.streams.insert(stream, Stream::new(rpc, proxy));
            }
            Event::Subscribed { stream, names, spiffe_validator, istio_path, .. } => {
                let proxy = proxy.or_else(|| self.by_account(&istio_path?));
                if let Some(entry) = self.streams.get_mut(&stream) {
                    entry.proxy = proxy;
                }
                if let Err(e) = self.subscribe(stream, &names, spiffe_validator) {
                    self.close(stream, Code::Internal, &format!("cannot issue a certificate: {e}"));
                }
            }
            Event::Closed { stream, .. } => {
                self.streams.remove(&stream);
                self.held.retain(|holder, _| holder.stream != Some(stream));
            }
            Event::Sent { .. } | Event::Acked { .. } | Event::Nacked { .. } | Event::Stale { .. } => {}
        }
    }

    /// Who says to be this, where that is believed.
    fn by_account(&mut self, path: &str) -> Option<ProxyId> {
        let identity = SpiffeId::parse(&format!("spiffe://{}/{path}", self.trust_domain)).ok();
        let proxy = ProxyId::parse(&path.replace('/', ".")).ok();
        let (identity, proxy) = (identity.filter(|_| self.by_account)?, proxy?);
        self.identities.insert(proxy.clone(), identity);
        Some(proxy)
    }

    /// Carries out renewal `number`: first the authorities take their turns, then bundles are pushed, then leaves.
    pub(super) fn renew(&mut self, number: u32) -> Result<Renewal, PkiError> {
        self.renewal = number;
        self.revision += 1;
        let mut renewal = Renewal {
            number,
            from: self.journal.recorder().len(),
            minted: Vec::new(),
            pushes: Vec::new(),
            closed: Vec::new(),
        };
        let bundle_changed = self.turn_authorities(number)?;
        let mut deeds = BTreeMap::new();
        for (holder, secret) in self.due_holders() {
            deeds.insert(holder.clone(), self.renew_certificate(holder, &secret, &mut renewal)?);
        }
        let streams: Vec<u64> = self.streams.iter().filter(|(_, s)| s.names.is_some()).map(|(id, _)| *id).collect();
        let (leaves, bundles): (Vec<u64>, Vec<u64>) = streams.into_iter().partition(|id| self.has_certificate(*id));
        for stream in bundles.into_iter().chain(leaves) {
            match self.deed(stream, bundle_changed, &deeds) {
                Deed::Push => renewal.pushes.extend(self.push(stream)),
                Deed::Withhold => {}
                Deed::Close => {
                    let refused = self.refused(stream);
                    let closed = self.close(stream, Code::Unavailable, "the provider goes away");
                    // Who is refused does not come again.
                    renewal.closed.extend(closed.filter(|_| !refused));
                }
            }
        }
        // Nobody answers on the Workload API.
        renewal.pushes.retain(|p| self.streams.get(&p.stream).is_some_and(|s| s.rpc == Rpc::SdsStream));
        Ok(renewal)
    }

    /// The trust bundle changes between renewals: another authority joins it, and the one that joined before leaves.
    pub(super) fn change_bundle(&mut self) -> Result<Renewal, PkiError> {
        self.revision += 1;
        let mut pushed = Renewal {
            number: self.renewal,
            from: self.journal.recorder().len(),
            minted: Vec::new(),
            pushes: Vec::new(),
            closed: Vec::new(),
        };
        self.turn(AuthorityAction::Prepare)?;
        self.take_bundle();
        let starved = |issuer: &Self, stream: u64| {
            let name = issuer.streams.get(&stream).and_then(|s| s.certificate_name()).map(|n| n.text.clone());
            let fault = name.and_then(|name| issuer.certificate_fault(issuer.proxy(stream).as_ref(), &name));
            fault == Some(Fault::StarvedRenewal)
        };
        let streams: Vec<u64> = self.streams.iter().filter(|(_, s)| s.names.is_some()).map(|(id, _)| *id).collect();
        for stream in streams {
            if starved(self, stream) {
                let holder = self.holder(stream);
                if let Some(held) = self.held.get_mut(&holder) {
                    held.revision = self.revision;
                }
            } else if self.has_certificate(stream) {
                continue;
            }
            pushed.pushes.extend(self.push(stream));
        }
        pushed.pushes.retain(|p| self.streams.get(&p.stream).is_some_and(|s| s.rpc == Rpc::SdsStream));
        Ok(pushed)
    }

    /// The SDS streams that are open and have subscribed.
    pub(super) fn open_streams(&self) -> Vec<Closed> {
        let open = self.streams.iter().filter(|(_, s)| s.rpc == Rpc::SdsStream);
        let of = |(id, s): (&u64, &Stream)| {
            let secrets = s.names.as_ref()?.iter().map(|n| n.text.clone()).collect();
            Some(Closed { stream: *id, proxy: s.proxy.clone(), secrets })
        };
        open.filter_map(of).filter(|closed| closed.proxy.is_some()).collect()
    }

    fn turn_authorities(&mut self, number: u32) -> Result<bool, PkiError> {
        let due = self.spec.authorities.iter().filter(|step| step.at_renewal == number);
        let actions: Vec<_> = due.map(|step| step.action).collect();
        for action in actions {
            self.turn(action)?;
        }
        Ok(self.take_bundle())
    }

    fn turn(&mut self, action: AuthorityAction) -> Result<(), PkiError> {
        let now = self.now();
        let (certs, state) = self.mint.turn(action, now)?;
        for cert in certs {
            self.record_authority(cert, state);
        }
        Ok(())
    }

    /// From now on the bundle is what the authorities make it; whether it has changed.
    fn take_bundle(&mut self) -> bool {
        let fresh = roots(self.mint.authorities());
        let changed = *self.trusted.borrow() != fresh;
        if changed {
            self.trusted.send_replace(fresh);
            self.bundle_before = std::mem::replace(&mut self.bundle, Bundle::new(self.mint.authorities()));
            self.bundle_revision = self.revision;
        }
        changed
    }

    /// Who is due a new certificate, and under which name it is known.
    fn due_holders(&self) -> Vec<(Holder, SecretName)> {
        if !profile::mints_per_stream(self.spec.profile) {
            return self.held.keys().map(|holder| (holder.clone(), SecretName::default_svid())).collect();
        }
        let of_stream = |(id, stream): (&u64, &Stream)| {
            let secret = stream.certificate_name()?.secret_name();
            Some((self.holder(*id), secret))
        };
        self.streams.iter().filter_map(of_stream).collect()
    }

    fn renew_certificate(
        &mut self,
        holder: Holder,
        secret: &SecretName,
        renewal: &mut Renewal,
    ) -> Result<Deed, PkiError> {
        let proxy = holder.proxy.clone();
        let fault = self.certificate_fault(proxy.as_ref(), secret.as_str());
        let ends = self.faults.of_stream(self.renewal, proxy.as_ref(), secret.as_str(), false);
        let before = self.held.get(&holder).cloned().unwrap_or_default();
        let mints = match fault {
            Some(Fault::NoRenewal | Fault::ResendCached | Fault::StarvedRenewal) => false,
            // The stream that it would be minted for is about to end.
            _ => ends.is_none() || holder.stream.is_none(),
        };
        let mut held = before.clone();
        if mints {
            let fresh = self.mint(&holder, secret, fault)?;
            renewal.minted.push((proxy.clone(), fingerprint(&fresh)));
            held.newest = Some(fresh.clone());
            held.serving = match fault {
                Some(Fault::ResendStale) => before.serving,
                _ => Some(self.mint.spoil(fault, fresh)?),
            };
        }
        let deed = match fault {
            _ if ends.is_some() => Deed::Close,
            Some(Fault::NoRenewal | Fault::NoPush | Fault::StarvedRenewal) => Deed::Withhold,
            _ => Deed::Push,
        };
        if deed == Deed::Push || mints {
            held.revision = self.revision;
        }
        self.held.insert(holder, held);
        for fault in fault.into_iter().chain(ends) {
            self.record_fault(proxy.as_ref(), secret, fault);
        }
        Ok(deed)
    }

    fn deed(&self, stream: u64, bundle_changed: bool, deeds: &BTreeMap<Holder, Deed>) -> Deed {
        let proxy = self.proxy(stream);
        let names = self.streams.get(&stream).and_then(|s| s.names.as_deref()).unwrap_or_default();
        let bundle = names.iter().find(|n| n.is_bundle);
        let of_certificate = deeds.get(&self.holder(stream)).or_else(|| {
            // A bundle's stream follows the certificate of its proxy, wherever that is sent.
            deeds.iter().find(|(holder, _)| holder.proxy == proxy).map(|(_, deed)| deed)
        });
        let bundle_fault = bundle.and_then(|n| self.bundle_fault(proxy.as_ref(), &n.text));
        let ends = bundle.and_then(|n| self.faults.of_stream(self.renewal, proxy.as_ref(), &n.text, true));
        if self.has_certificate(stream) {
            let deed = of_certificate.copied().unwrap_or(Deed::Withhold);
            return if deed == Deed::Withhold && bundle.is_some() && bundle_changed { Deed::Push } else { deed };
        }
        match bundle_fault {
            // A closing provider ends all streams of the proxy.
            _ if ends.is_some() => Deed::Close,
            Some(Fault::NoPush | Fault::NoRenewal) => Deed::Withhold,
            Some(_) => Deed::Push,
            None => match of_certificate {
                _ if bundle_changed => Deed::Push,
                Some(Deed::Push) if profile::repeats_bundle(self.spec.profile) => Deed::Push,
                _ => Deed::Withhold,
            },
        }
    }

    fn subscribe(&mut self, stream: u64, names: &[String], spiffe_validator: bool) -> Result<(), PkiError> {
        let Some(rpc) = self.streams.get(&stream).map(|s| s.rpc) else { return Ok(()) };
        let own = self.identity(stream);
        let names = match rpc {
            Rpc::WorkloadSvid => vec![Name::leaf(own.as_str()), Name::bundle(&self.bundle_id())],
            Rpc::WorkloadBundles => vec![Name::bundle(&self.bundle_id())],
            Rpc::SdsStream | Rpc::SdsFetch | Rpc::Files if names.iter().all(String::is_empty) => {
                vec![Name::leaf(own.as_str()), Name::bundle(&self.bundle_id())]
            }
            Rpc::SdsStream | Rpc::SdsFetch | Rpc::Files => {
                match resolve(names, &own, &self.bundle_id(), self.spec.profile) {
                    Ok(names) => names,
                    Err(unknown) => {
                        let text = format!("there is no secret {unknown:?} for {own}");
                        self.journal.recorder().record(
                            Source::Provider,
                            self.proxy(stream).as_ref(),
                            None,
                            Log { line: format!("stream {stream}: {text}") },
                        );
                        self.close(stream, Code::InvalidArgument, &text);
                        return Ok(());
                    }
                }
            }
        };
        let leaf = names.iter().find(|n| !n.is_bundle).map(Name::secret_name);
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.names = Some(names);
            // Later requests carry no node.
            entry.spiffe_validator |= spiffe_validator;
        }
        if self.refused(stream) {
            self.close(stream, Code::Unavailable, "the provider refuses streams");
            return Ok(());
        }
        if let Some(secret) = leaf {
            let holder = self.holder(stream);
            if !self.held.contains_key(&holder) {
                let known_as = if holder.stream.is_some() { secret } else { SecretName::default_svid() };
                self.first_certificate(holder, &known_as)?;
            }
        }
        self.push(stream);
        Ok(())
    }

    /// A holder's first certificate: of the first issue, or of whoever came later.
    fn first_certificate(&mut self, holder: Holder, secret: &SecretName) -> Result<(), PkiError> {
        let fault =
            if self.renewal == 0 { self.certificate_fault(holder.proxy.as_ref(), secret.as_str()) } else { None };
        let mut held = Held { revision: self.revision, ..Held::default() };
        if fault != Some(Fault::NoRenewal) {
            let fresh = self.mint(&holder, secret, fault)?;
            held.newest = Some(fresh.clone());
            if fault != Some(Fault::NoPush) {
                held.serving = Some(self.mint.spoil(fault, fresh)?);
            }
        }
        if let Some(fault) = fault {
            self.record_fault(holder.proxy.as_ref(), secret, fault);
        }
        self.held.insert(holder, held);
        Ok(())
    }

    fn mint(
        &mut self,
        holder: &Holder,
        secret: &SecretName,
        fault: Option<Fault>,
    ) -> Result<Arc<Certificate>, PkiError> {
        let wanted = Wanted {
            spiffe_id: self.identity_of(holder.proxy.as_ref()),
            somebody_else: self.somebody("ns/demo/sa/somebody-else"),
            renewal: self.renewal,
            fault,
        };
        let now = self.now();
        let (certificate, cert) = self.mint.mint(wanted, now)?;
        let fact = Issued { cert, renewal: Some(self.renewal), stream: holder.stream };
        self.journal.recorder().record(Source::Provider, holder.proxy.as_ref(), Some(secret), fact);
        Ok(certificate)
    }

    /// Sends the stream what it subscribed to, as far as there is something to send.
    fn push(&mut self, stream: u64) -> Option<Pushed> {
        let proxy = self.proxy(stream);
        let held = self.held.get(&self.holder(stream)).cloned().unwrap_or_default();
        let entry = self.streams.get(&stream)?;
        let mut revision = 0;
        let (mut empty, mut type_url) = (false, None);
        let (mut secrets, mut sent) = (Vec::new(), Vec::new());
        let mut add = |name: &Name, content: Content, payload: &Payload| {
            secrets.push(Secret { name: name.text.clone(), content });
            sent.push(SentSecret { name: name.text.clone(), payload: payload.clone() });
        };
        for name in entry.names.iter().flatten() {
            if name.is_bundle {
                let Some(bundle) = self.bundle_as_spoiled(proxy.as_ref(), &name.text) else { continue };
                let validator = profile::spiffe_validator(self.spec.profile, entry.spiffe_validator, &name.text);
                add(name, bundle.content(&self.trust_domain, validator), &bundle.payload);
                let repeated = self.bundle_fault(proxy.as_ref(), &name.text).is_some();
                revision = revision.max(if repeated { self.revision } else { self.bundle_revision });
            } else if let Some(certificate) = &held.serving {
                revision = revision.max(held.revision);
                let fault = self.certificate_fault(proxy.as_ref(), &name.text).filter(|_| entry.rpc == Rpc::SdsStream);
                match fault {
                    Some(Fault::EmptyResponse) => empty = true,
                    Some(Fault::WrongName) => {
                        add(&Name::leaf("renewed"), certificate.content(), &certificate.payload);
                    }
                    Some(Fault::WrongKind) => {
                        add(name, self.bundle.content(&self.trust_domain, false), &self.bundle.payload);
                    }
                    other => {
                        add(name, certificate.content(), &certificate.payload);
                        if other == Some(Fault::WrongTypeUrl) {
                            type_url = Some(OTHER_TYPE_URL.to_owned());
                        }
                    }
                }
            }
        }
        if secrets.is_empty() && !empty {
            return None;
        }
        let names = secrets.iter().map(|s| s.name.clone()).collect();
        let of_stream = entry.pushes + 1;
        let nonce = self.counters.nonce(self.spec.profile);
        let version_info = self.counters.version(self.spec.profile, self.now(), revision, of_stream);
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.pushes = of_stream;
        }
        let announced = Announced { version_info: version_info.clone(), type_url: type_url.clone(), secrets: sent };
        self.journal.announce(stream, &nonce, announced);
        let push = Push { version_info, nonce: nonce.clone(), type_url, secrets };
        (self.deliver)(Command::Push { stream, push });
        Some(Pushed { stream, nonce, proxy, secrets: names })
    }

    fn bundle_as_spoiled(&self, proxy: Option<&ProxyId>, name: &str) -> Option<Arc<Bundle>> {
        match self.bundle_fault(proxy, name) {
            Some(Fault::BadPem) => Some(self.bundle.with_bad_pem()),
            Some(Fault::ResendCached | Fault::ResendStale) => Some(self.bundle_before.clone()),
            Some(Fault::NoPush | Fault::NoRenewal) if self.renewal == 0 => None,
            _ => Some(self.bundle.clone()),
        }
    }

    fn close(&mut self, stream: u64, code: Code, message: &str) -> Option<Closed> {
        let entry = self.streams.get_mut(&stream)?;
        let names = entry.names.take().unwrap_or_default();
        let command = Command::Close { stream, code: code as i32, message: message.to_owned() };
        let rpc = entry.rpc;
        (self.deliver)(command);
        let secrets = names.into_iter().map(|n| n.text).collect();
        (rpc == Rpc::SdsStream).then(|| Closed { stream, proxy: self.proxy(stream), secrets })
    }

    fn certificate_fault(&self, proxy: Option<&ProxyId>, name: &str) -> Option<Fault> {
        self.faults.of_certificate(self.renewal, proxy, name)
    }

    fn bundle_fault(&self, proxy: Option<&ProxyId>, name: &str) -> Option<Fault> {
        self.faults.of_bundle(self.renewal, proxy, name)
    }

    /// Whether the stream is one of those that are not served at present.
    fn refused(&self, stream: u64) -> bool {
        let proxy = self.proxy(stream);
        let names = self.streams.get(&stream).and_then(|s| s.names.as_deref()).unwrap_or_default();
        names.iter().any(|name| {
            let fault = self.faults.of_stream(self.renewal, proxy.as_ref(), &name.text, name.is_bundle);
            fault == Some(Fault::RefuseStreams)
        })
    }

    fn has_certificate(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_some_and(|s| s.certificate_name().is_some())
    }

    fn holder(&self, stream: u64) -> Holder {
        let own = profile::mints_per_stream(self.spec.profile).then_some(stream);
        Holder { proxy: self.proxy(stream), stream: own }
    }

    fn proxy(&self, stream: u64) -> Option<ProxyId> {
        self.streams.get(&stream).and_then(|s| s.proxy.clone())
    }

    fn identity(&self, stream: u64) -> SpiffeId {
        self.identity_of(self.proxy(stream).as_ref())
    }

    fn identity_of(&self, proxy: Option<&ProxyId>) -> SpiffeId {
        proxy.and_then(|p| self.identities.get(p)).cloned().unwrap_or_else(|| self.somebody("workload"))
    }

    fn somebody(&self, path: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://{}/{path}", self.trust_domain))
            .expect("the trust domain was checked when the provider was made")
    }

    fn bundle_id(&self) -> String {
        format!("spiffe://{}", self.trust_domain)
    }

    fn now(&self) -> jiff::Timestamp {
        self.journal.recorder().clock().now()
    }

    fn record_authority(&self, cert: CertFacts, state: &str) {
        let fact = Authority { cert, state: state.to_owned() };
        self.journal.recorder().record(Source::Provider, None, Some(&SecretName::root_ca()), fact);
    }

    fn record_fault(&self, proxy: Option<&ProxyId>, secret: &SecretName, fault: Fault) {
        let (name, deed) = faults::words(fault);
        let fact = FaultNote { fault: name.to_owned(), action: format!("renewal {}: {deed}", self.renewal) };
        self.journal.recorder().record(Source::Provider, proxy, Some(secret), fact);
    }
}

fn roots(authorities: &Authorities) -> Vec<Vec<u8>> {
    authorities.bundle().map(|a| a.der().to_vec()).collect()
}

fn fingerprint(certificate: &Certificate) -> Fingerprint {
    match &certificate.payload {
        Payload::Certificate { chain, digest, .. } => chain.first().map_or(*digest, |c| c.fingerprint),
        Payload::Bundle { digest, .. } => *digest,
        Payload::Other { what } => Fingerprint::of_der(what.as_bytes()),
    }
}
