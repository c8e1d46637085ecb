//! Peers that refuse a certificate which is in order: the trust bundles explain it, or nothing that we know.

use super::blame::{Stop, one};
use super::evidence::clock_time;
use super::{CheckResult, Confidence, Finding};
use crate::timeline::ledger::{Mark, ProxyLedger, Push};
use crate::timeline::{CertFacts, Layer, Ledger, ProxyId, SecretName, TlsRole};

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
    Some(explained.unwrap_or_else(|| Stop {
        proxy: client.id.clone(),
        layer: None,
        candidates: Vec::new(),
        story: another().unwrap_or_else(|| f.message.clone()),
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

/// Whether the verifier's bundle lacks the authority of the leaf that the other side shows.
fn untrusted(ledger: &Ledger, verifier: &ProxyLedger, shower: &ProxyLedger, role: TlsRole, at: Mark) -> Option<Stop> {
    let (shown, leaf) = shower.full_handshakes(role).rfind(|(s, _)| s.mark.seq <= at.seq)?;
    // The leaf's own authority, or with intermediates between them, that of any certificate of the chain.
    let signers: Vec<&String> = shown.chain.iter().filter_map(|c| c.authority_key_id.as_ref()).collect();
    let authority = leaf.authority_key_id.as_ref()?;
    let root = SecretName::root_ca();
    let holds =
        |roots: &[CertFacts]| roots.iter().any(|r| r.subject_key_id.as_ref().is_some_and(|id| signers.contains(&id)));
    let known = ledger.authorities.iter().any(|(_, a)| a.cert.subject_key_id.as_ref() == Some(authority))
        || ledger
            .proxies
            .iter()
            .flat_map(|p| p.pushes_of(&root))
            .any(|push| push.bundle(&root).is_some_and(|(roots, _)| holds(roots)));
    let held: Vec<(&Push, bool)> = verifier
        .pushes_of(&root)
        .filter(|push| push.accepted() && push.mark.seq < at.seq)
        .filter_map(|push| push.bundle(&root).map(|(roots, _)| (push, holds(roots))))
        .collect();
    let (current, has) = held.last()?;
    if *has {
        return None;
    }
    let evidence = vec![current.mark.seq, at.seq];
    let serial = leaf.serial.short();
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
    let (mode, story) = match held.iter().rev().find(|(_, has)| *has) {
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
