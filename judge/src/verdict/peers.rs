//! Peers that refuse a certificate which is in order: the trust bundles explain it, or nothing that we know.

use std::collections::BTreeMap;

use super::blame::{Stop, one};
use super::evidence::clock_time;
use super::{CheckResult, Confidence, Finding};
use crate::timeline::ledger::{Mark, ProxyLedger, Push};
use crate::timeline::{CertFacts, Layer, Ledger, ProxyId, TlsRole};

/// One stop for each pair of proxies between which requests failed.
pub(super) fn refusals(ledger: &Ledger, findings: &[Finding]) -> Vec<Stop> {
    let failing = findings.iter().filter(|f| f.check == "peers_accept" && f.result == CheckResult::Violated);
    failing.filter_map(|f| refusal(ledger, ledger.proxy(f.proxy.as_ref()?)?, f)).collect()
}

/// One stop for each proxy that refused something else than its own certificate: its bundle, usually. No mode is known
/// for that, the layer is.
pub(super) fn refused_bundles(ledger: &Ledger, findings: &[Finding]) -> Vec<Stop> {
    let refused = findings.iter().filter(|f| f.check == "accepted" && f.result == CheckResult::Violated);
    let others = refused.filter_map(|f| {
        let p = ledger.proxy(f.proxy.as_ref()?)?;
        (f.secret.as_ref() != Some(&p.svid)).then(|| Stop {
            proxy: p.id.clone(),
            layer: Some(Layer::Acked),
            candidates: Vec::new(),
            story: f.message.clone(),
            notes: Vec::new(),
        })
    });
    others.collect()
}

fn refusal(ledger: &Ledger, client: &ProxyLedger, f: &Finding) -> Option<Stop> {
    let failed = client.traffic.iter().find(|t| Some(&t.mark.seq) == f.evidence.first())?;
    let server = ProxyId::parse(failed.to).ok().and_then(|id| ledger.proxy(&id));
    let at = failed.mark;
    let explained = server.and_then(|server| {
        // Each side verifies the other: the client with its bundle, then the server with its own.
        untrusted(ledger, client, server, TlsRole::Inbound, at)
            .or_else(|| untrusted(ledger, server, client, TlsRole::Outbound, at))
    });
    let another = || {
        let keys = [Some(client), server].into_iter().flatten().find_map(|p| another_kind_of_key(p, at));
        keys.map(|keys| format!("{}; {keys}", f.message))
    };
    // What the harness itself said of the certificates that both showed.
    let unverified = || {
        let why = server.and_then(|server| unverified(server, TlsRole::Inbound, at));
        let why = why.or_else(|| unverified(client, TlsRole::Outbound, at))?;
        Some(format!("{}; {why}", f.message))
    };
    Some(explained.unwrap_or_else(|| Stop {
        proxy: client.id.clone(),
        layer: None,
        candidates: Vec::new(),
        story: another().or_else(unverified).unwrap_or_else(|| f.message.clone()),
        notes: Vec::new(),
    }))
}

/// The last certificate that the proxy accepted has a kind of key that none before it had: some peers can't verify it.
fn another_kind_of_key(p: &ProxyLedger, at: Mark) -> Option<String> {
    let accepted = p.pushes_of(&p.svid).filter(|push| push.accepted() && push.mark.seq < at.seq);
    let leaves: Vec<&CertFacts> = accepted.filter_map(|push| push.leaf(&p.svid)).collect();
    let last = leaves.last()?;
    let before = leaves.iter().rfind(|leaf| leaf.fingerprint != last.fingerprint)?;
    let is_new = leaves.iter().all(|leaf| leaf.fingerprint == last.fingerprint || leaf.key_type != last.key_type);
    is_new.then(|| {
        format!(
            "serial {}, which {} had accepted, has a key of another kind ({}) than those before it ({})",
            last.serial.short(),
            p.id,
            last.key_type,
            before.key_type
        )
    })
}

/// Why the last certificate that it showed can't be verified with the newest bundle.
fn unverified(p: &ProxyLedger, role: TlsRole, at: Mark) -> Option<String> {
    let (shown, leaf) = p.full_handshakes(role).rfind(|(s, _)| s.mark.seq <= at.seq)?;
    let why = shown.error.filter(|_| shown.verified == Some(false))?;
    Some(format!("serial {} of {} can't be verified: {why}", leaf.serial.short(), p.id))
}

/// The certificate between its chain and an authority, which the chains that it showed before held.
fn intermediate_left_out<'a>(p: &'a ProxyLedger<'a>, chain: &[CertFacts], at: Mark) -> Option<&'a CertFacts> {
    let wanted = chain.last()?.authority_key_id.as_ref()?;
    let shown = p.served.iter().filter(|s| s.mark.seq < at.seq).flat_map(|s| s.chain.iter().skip(1));
    shown.into_iter().find(|cert| cert.subject_key_id.as_ref() == Some(wanted) && cert.subject != cert.issuer)
}

/// A bundle that the verifier accepted, and whether it holds the authority in question.
struct Held<'a> {
    push: &'a Push<'a>,
    name: &'a str,
    roots: &'a [CertFacts],
    has: bool,
}

/// Whether the verifier's bundle lacks the authority of the leaf that the other side shows.
fn untrusted(ledger: &Ledger, verifier: &ProxyLedger, shower: &ProxyLedger, role: TlsRole, at: Mark) -> Option<Stop> {
    let (shown, leaf) = shower.full_handshakes(role).rfind(|(s, _)| s.mark.seq <= at.seq)?;
    // The leaf's own authority, or with intermediates between them, that of any certificate of the chain.
    let signers: Vec<&String> = shown.chain.iter().filter_map(|c| c.authority_key_id.as_ref()).collect();
    let authority = leaf.authority_key_id.as_ref()?;
    let is_signer = |root: &CertFacts| root.subject_key_id.as_ref().is_some_and(|id| signers.contains(&id));
    let holds = |roots: &[CertFacts]| roots.iter().any(is_signer);
    let known = ledger.authorities.iter().any(|(_, a)| a.cert.subject_key_id.as_ref() == Some(authority))
        || ledger.proxies.iter().flat_map(ProxyLedger::bundles).any(|(_, bundle)| holds(bundle.roots));
    let held: Vec<Held> = verifier
        .bundles()
        .filter(|(push, _)| push.accepted() && push.mark.seq < at.seq)
        .map(|(push, bundle)| Held { push, name: bundle.name, roots: bundle.roots, has: holds(bundle.roots) })
        .collect();
    // What it holds now, under each name.
    let now: BTreeMap<&str, &Held> = held.iter().map(|held| (held.name, held)).collect();
    if let Some(holding) = now.values().find(|held| held.has) {
        let theirs = holding.roots.iter().filter(|root| is_signer(root));
        let ended = theirs.map(|root| root.not_after).max().filter(|end| *end <= at.at.wall)?;
        let story = format!(
            "the bundle sent to {} at {} holds the authority of serial {} only until {}, and {} still serves it",
            verifier.id,
            clock_time(holding.push.mark.at.wall),
            leaf.serial.short(),
            clock_time(ended),
            shower.id
        );
        return Some(Stop {
            proxy: verifier.id.clone(),
            layer: Some(Layer::Issued),
            candidates: one("authority-expires-first", Confidence::Likely, vec![holding.push.mark.seq, at.seq]),
            story,
            notes: Vec::new(),
        });
    }
    let had = held.iter().rev().find(|held| held.has);
    let current = had.map_or(held.last(), |had| now.get(had.name).copied())?.push;
    let evidence = vec![current.mark.seq, at.seq];
    let serial = leaf.serial.short();
    if !known && let Some(left_out) = intermediate_left_out(shower, shown.chain, at) {
        let story = format!(
            "{} serves serial {serial} without the intermediate ({}) that its earlier chains held",
            shower.id, left_out.subject
        );
        let (proxy, layer) = (shower.id.clone(), Some(Layer::Issued));
        return Some(Stop { proxy, layer, candidates: Vec::new(), story, notes: Vec::new() });
    }
    if !known {
        // A new authority whose bundle never came, or one that has no business here: nothing tells them apart.
        let story = format!(
            "{} serves serial {serial} of an authority that no bundle ever held (key {authority}): its bundle never came, \
             or it is not of this trust domain",
            shower.id
        );
        return Some(Stop {
            proxy: verifier.id.clone(),
            layer: None,
            candidates: Vec::new(),
            story,
            notes: Vec::new(),
        });
    }
    let (mode, story) = match had {
        Some(_) => (
            "bundle-drops-old-ca",
            format!(
                "the bundle sent to {} at {} no longer holds the authority of serial {serial}, which {} still serves",
                verifier.id,
                clock_time(current.mark.at.wall),
                shower.id
            ),
        ),
        None => (
            "leaf-before-bundle",
            format!(
                "{} serves serial {serial} of an authority that was not yet in the bundle sent to {}",
                shower.id, verifier.id
            ),
        ),
    };
    Some(Stop {
        proxy: verifier.id.clone(),
        layer: Some(Layer::Sent),
        candidates: one(mode, Confidence::Certain, evidence),
        story,
        notes: Vec::new(),
    })
}
