//! The table itself.

use super::{LooksLike, Mode};
use crate::timeline::Layer;

const fn like(mode: &'static str, decided_by: &'static str) -> LooksLike {
    LooksLike { mode, decided_by }
}

/// What decides between modes that only the provider's side tells apart.
const PROVIDERS_SIDE: &str =
    "the provider's side: what it issued and sent (its ledger, its log, or a tap on the socket)";

/// All modes, in the order of the reference.
pub const MODES: &[Mode] = &[
    Mode {
        name: "never-renews",
        number: "1",
        layer: Some(Layer::Issued),
        title: "The provider never renews",
        meaning: "Every proxy gets its first certificate, and then the provider mints nothing and pushes nothing. The \
            stream stays open and silent.",
        why_it_matters: "Nothing is red until the certificate expires; then every new connection of every proxy fails \
            within the same minutes.",
        evidence: "Provider: no certificate minted and nothing sent after the first. Envoy: `update_success` and \
            `ssl_context_update_by_sds` flat, `connected_state` 1, handshakes and /certs on the first serial until it has \
            expired. It shows before that: a renewal is overdue.",
        looks_like: &[
            like("issues-never-pushes", "whether the provider minted a newer certificate (its own ledger or log)"),
            like("provider-frozen", "a fresh stream to the socket: a frozen provider does not answer it"),
            like("wrong-name", "a tap, or Envoy's `config` logger at debug: something does arrive there"),
            like("wrong-type-url", "a tap, or Envoy's `config` logger at debug: something does arrive there"),
        ],
        first_aid: "Restart the provider: reconnecting proxies get a certificate minted for the new stream. Start with \
            the nodes whose certificates expire first. The proxies need no restart.",
        lasting_fix: "Find out why the renewal timer does not fire: a blocked loop, an error that is retried for ever, \
            an expired credential of the provider's own. Alert on the age of the served certificate, not on stream state.",
        seen_in: &[],
    },
    Mode {
        name: "issues-never-pushes",
        number: "2",
        layer: Some(Layer::Sent),
        title: "The provider renews and does not push",
        meaning: "New certificates are minted in time and reach no stream.",
        why_it_matters: "The provider's log and metrics say that all is well, so the search begins at the wrong end.",
        evidence: "Provider: new serials issued, nothing sent. Envoy: as if the provider never renewed: all counters \
            flat, `connected_state` 1, the old serial in handshakes and in /certs.",
        looks_like: &[
            like("never-renews", PROVIDERS_SIDE),
            like("provider-frozen", "a fresh stream to the socket: a frozen provider does not answer it"),
        ],
        first_aid: "Make the proxies subscribe again, for a new stream gets what was minted: restart the provider (one \
            per node) rather than the workloads. It lasts until the certificate handed out then expires.",
        lasting_fix: "Repair the notification between the provider's issuer and its SDS streams, and let the provider \
            count pushes and acknowledgements per renewal.",
        seen_in: &[],
    },
    Mode {
        name: "resend-cached",
        number: "3",
        layer: Some(Layer::Issued),
        title: "The same certificate is re-sent under new versions",
        meaning: "At each renewal the provider sends the certificate that it has cached for the stream, with a new \
            version. Envoy acknowledges it, finds its bytes unchanged, and rebuilds nothing. A SPIRE agent does so \
            whenever a bundle changes, while its server signs nothing.",
        why_it_matters: "Every light is green. On Envoy 1.36 and older, config_dump says \"updated minutes ago\" while \
            all handshakes show a certificate that expired hours before.",
        evidence: "Provider: the same serial sent again and again. Envoy: `update_success` climbs and `version_text` \
            moves, `ssl_context_update_by_sds` stays flat, handshakes show the old serial. config_dump's version and \
            last_updated move up to Envoy 1.36 and stay from 1.37 on.",
        looks_like: &[
            like(
                "resend-stale",
                "whether the provider minted newer certificates that it did not send (its own ledger)",
            ),
            like("starved-by-bundle-churn", "whether trust bundle pushes come more often than the renewal interval"),
            like("never-renews", "`update_success`: it moves here, and is flat when nothing is sent"),
        ],
        first_aid: "Look into the provider's log whether it could renew. If it could not (SPIRE's agent: \"Failed to batch \
            new X509 SVID\"), mend what signs for it, and do not restart it: it would come back with nothing. If \
            it never tried, reset the SDS streams: restart the provider (tbot), once per node, rather than all the \
            deployments behind it. Each proxy reconnects by itself and gets a certificate minted for its new stream. \
            It lasts one TTL, so repeat it within that time until the provider is upgraded.",
        lasting_fix: "Teleport tbot later than 18.6.3 or 17.7.13; SPIRE: alert on its agent's sync errors. Watch the serial in a full handshake, or \
            `ssl_context_update_by_sds`; never version or last_updated.",
        seen_in: &["gravitational/teleport#62813"],
    },
    Mode {
        name: "expired-on-arrival",
        number: "4",
        layer: Some(Layer::Issued),
        title: "The certificate has expired when it is pushed",
        meaning: "The provider pushes a certificate whose notAfter is in the past. Envoy does not look at validity: it \
            accepts, loads and serves it.",
        why_it_matters: "A working certificate is replaced by one that every peer refuses; each layer reports success.",
        evidence: "`update_success` and `ssl_context_update_by_sds` climb; handshakes and /certs show the new serial, \
            expired. Peers: 503 and `ssl.fail_verify_error`.",
        looks_like: &[
            like("never-renews", "the serial in a handshake: here it is a new one, and expired"),
            like("not-yet-valid", "notBefore and notAfter of the leaf against the proxy's clock"),
        ],
        first_aid: "Compare the clocks of the issuer and of the nodes first, and the issuing authority's own notAfter. \
            Then restart the provider so that it mints afresh.",
        lasting_fix: "The provider must not hand out what it would refuse itself: check the validity before each push, \
            and do not serve from a cache past notAfter. Keep clocks synchronised.",
        seen_in: &[],
    },
    Mode {
        name: "nack-key-mismatch",
        number: "5",
        layer: Some(Layer::Acked),
        title: "Envoy refuses the certificate: its key does not match",
        meaning: "Chain and private key of the pushed secret do not belong together. Envoy answers with a NACK and goes \
            on serving the old certificate.",
        why_it_matters: "It looks healthy until the old certificate expires, and config_dump shows the refused \
            certificate as if it were in use.",
        evidence: "A NACK with error_detail (\"key values mismatch\") under the old version_info. `update_rejected` \
            climbs, `ssl_context_update_by_sds` stays flat; handshakes and /certs keep the old serial; config_dump holds \
            the refused one.",
        looks_like: &[
            like("nack-bad-pem", "the text of the NACK"),
            like("nack-then-same-bytes", "whether the same bytes are acknowledged when they come again"),
            like("partial-subscribers", "whether /certs holds the old serial only, or a mixture"),
        ],
        first_aid: "Read the NACK (the provider's log, or Envoy's warning \"gRPC config ... rejected\"). Restart the \
            provider so that it makes key and certificate anew. Do not restart Envoy: it would lose the certificate that \
            still works.",
        lasting_fix: "Publish key and chain in one step (two files that are replaced one after the other are the usual \
            cause), and alert on `sds.<name>.update_rejected`.",
        seen_in: &[],
    },
    Mode {
        name: "nack-bad-pem",
        number: "5",
        layer: Some(Layer::Acked),
        title: "Envoy refuses the certificate: it is no PEM",
        meaning: "The pushed chain cannot be parsed. Envoy answers with a NACK and goes on serving the old certificate.",
        why_it_matters: "It looks healthy until the old certificate expires; a restarted proxy has none at all.",
        evidence: "A NACK with error_detail (\"Failed to load certificate chain from <inline>\"). `update_rejected` \
            climbs, contexts stay flat, handshakes keep the old serial.",
        looks_like: &[
            like("nack-chain-one-block", "the PEM itself: one block that holds more bytes than its first certificate"),
            like("nack-key-mismatch", "the text of the NACK"),
        ],
        first_aid: "Take the bytes from config_dump (it holds the refused chain) and read them with `openssl x509`: \
            truncated, a missing line break between two blocks, DER instead of PEM. Do not restart Envoy.",
        lasting_fix: "Let the provider parse what it is about to push, as Envoy will. A file must be replaced by rename, \
            never rewritten in place.",
        seen_in: &["istio/istio#22530"],
    },
    Mode {
        name: "nack-chain-one-block",
        number: "5",
        layer: Some(Layer::Acked),
        title: "Envoy refuses the certificate: a whole chain in one PEM block",
        meaning: "The provider puts leaf and intermediates as one run of DER into a single PEM block. Envoy refuses it \
            with a NACK and goes on serving the old certificate.",
        why_it_matters: "It begins on the day on which an intermediate authority is introduced, far from any rotation.",
        evidence: "A NACK with error_detail (\"Failed to load certificate chain from <inline>\"); one PEM block whose \
            DER goes on after the first certificate. `update_rejected` climbs, contexts stay flat.",
        looks_like: &[like(
            "nack-bad-pem",
            "the PEM itself: one block that holds more bytes than its first certificate",
        )],
        first_aid: "Take the issuer override (the intermediate) back where that is possible, or serve the proxies from \
            files, which tbot writes correctly. Do not restart Envoy: it would lose the certificate that still works.",
        lasting_fix: "A tbot with gravitational/teleport#68867 (backported to v18 by #68914): one PEM block for each \
            certificate.",
        seen_in: &["gravitational/teleport#68853", "gravitational/teleport#68914"],
    },
    Mode {
        name: "nack-leaf-not-first",
        number: "5",
        layer: Some(Layer::Acked),
        title: "Envoy refuses the certificate: the leaf is not the first of its chain",
        meaning: "The pushed chain has an authority before the leaf. Envoy takes the first certificate for the leaf, \
            answers with a NACK and goes on serving the old one.",
        why_it_matters: "Each certificate of the chain is right, and so is the key; tools that look for the leaf find it. It \
            looks healthy until the old certificate expires.",
        evidence: "A NACK with error_detail (\"Failed to load certificate chain from <inline>\", all of Envoy 1.36 to \
            1.40). The first certificate of the chain that was sent is an authority. `update_rejected` climbs, contexts \
            stay flat.",
        looks_like: &[
            like("nack-bad-pem", "the chain that was sent: every certificate of it can be read"),
            like("nack-key-mismatch", "whose the first certificate of the chain is"),
        ],
        first_aid: "Put the leaf first where the chain is put together, and restart the provider. Do not restart Envoy: it \
            would lose the certificate that still works.",
        lasting_fix: "The order of RFC 8446, 4.4.2: the leaf, then each certificate that certifies the one before. Read the \
            chain back before it is pushed.",
        seen_in: &[],
    },
    Mode {
        name: "nack-then-same-bytes",
        number: "6",
        layer: Some(Layer::Acked),
        title: "Refused once, acknowledged when sent again",
        meaning: "After a NACK the provider sends the same bytes again. Envoy compares them with what it last received, \
            finds no change, and acknowledges them without loading anything.",
        why_it_matters: "The last answer on the stream is an ACK, so a provider that retries believes that it has healed.",
        evidence: "A NACK, then an ACK for the same chain. `update_rejected` stays, `update_success` climbs; the dumped \
            serial is in no context of /certs and in no handshake.",
        looks_like: &[
            like(
                "resend-cached",
                "whether the re-sent certificate had been refused before: any NACK in the stream's past",
            ),
            like("nack-key-mismatch", "whether an ACK follows the NACK"),
        ],
        first_aid: "Make the provider mint a new certificate; different bytes are judged afresh. Repeating the old ones \
            cannot help.",
        lasting_fix: "After a NACK a provider must change what it sends, and must not count a later ACK of the same bytes \
            as success. Alert on `update_rejected` ever having moved.",
        seen_in: &[],
    },
    Mode {
        name: "wrong-name",
        number: "7",
        layer: Some(Layer::Sent),
        title: "The secret comes under another name",
        meaning: "The response holds a good certificate under a name that nobody subscribed to on this stream. Envoy \
            acknowledges the response and ignores what is in it.",
        why_it_matters: "The provider sees an ACK with the new version; at Envoy no counter moves at all.",
        evidence: "Sent name differs from the subscribed one; ACK with the new version; `update_success`, \
            `update_rejected` and `version_text` flat; handshakes keep the old serial.",
        looks_like: &[
            like("never-renews", "a tap, or Envoy's `config` logger at debug: a message at a new version was received"),
            like("empty-response", "a tap: whether the response holds a secret"),
        ],
        first_aid: "Compare the subscribed names (config_dump, the bootstrap: `default`, `ROOTCA`) with those that the \
            provider is configured to serve, and set the provider's names.",
        lasting_fix: "The provider answers a name that it does not know with an error, not with another secret. Pin the \
            names in one place for both sides.",
        seen_in: &[],
    },
    Mode {
        name: "empty-response",
        number: "7",
        layer: Some(Layer::Sent),
        title: "The response holds no secret",
        meaning: "The provider answers with an empty list of resources. Envoy acknowledges it and keeps what it has.",
        why_it_matters: "The provider sees an ACK with the new version; at Envoy no counter moves at all.",
        evidence: "A response without resources; ACK with the new version; all counters flat; handshakes keep the old \
            serial.",
        looks_like: &[
            like("never-renews", "a tap, or Envoy's `config` logger at debug: a message at a new version was received"),
            like("wrong-name", "a tap: whether the response holds a secret"),
        ],
        first_aid: "Ask the provider why it has nothing for this workload: an entry that was deleted, selectors that no \
            longer match, an attestation that failed after the start.",
        lasting_fix: "A provider that has lost an identity should end the stream with an error, which shows as \
            `update_failure`.",
        seen_in: &[],
    },
    Mode {
        name: "wrong-secret-kind",
        number: "8",
        layer: Some(Layer::Sent),
        title: "A validation context under the certificate's name",
        meaning: "The secret has the right name and holds something else: a trust bundle where a certificate is \
            expected. Envoy refuses it.",
        why_it_matters: "No certificate was delivered at all; the NACK invites a search for a broken certificate.",
        evidence: "`update_rejected` climbs; the dumped secret of that name has no certificate; handshakes keep the old \
            serial.",
        looks_like: &[like("nack-bad-pem", "what the sent secret holds: a tls_certificate or a validation_context")],
        first_aid: "Check the provider's mapping of names to certificate and bundle (`default` and `ROOTCA` swapped is \
            the usual slip), and correct it; a new push heals the proxies.",
        lasting_fix: "Generate both sides' names from one source; test a provider with one subscription of each kind.",
        seen_in: &[],
    },
    Mode {
        name: "wrong-type-url",
        number: "8b",
        layer: Some(Layer::Sent),
        title: "The response has another type_url",
        meaning: "The DiscoveryResponse carries a type_url that the stream did not ask for. Envoy drops it without a word.",
        why_it_matters: "There is no NACK, no ACK and no counter: from outside it is silence.",
        evidence: "A tap shows responses, and none of them is answered. All counters flat; handshakes keep the old serial.",
        looks_like: &[
            like("never-renews", "a tap, or Envoy's `config` logger at debug"),
            like("provider-frozen", "a tap: whether responses arrive"),
        ],
        first_aid: "Compare the response's type_url with type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret \
            (a proxy or a middleware of another xDS version in between?), and roll the provider back.",
        lasting_fix: "Build the response from the request's type_url, and let the provider notice responses that are \
            never answered.",
        seen_in: &[],
    },
    Mode {
        name: "stream-closed-once",
        number: "9",
        layer: None,
        title: "The provider ended the stream; Envoy came back",
        meaning: "The stream ends and Envoy opens a new one after a back-off; its first request carries the last accepted \
            version and an empty nonce. It recovers by itself.",
        why_it_matters: "No failure, only a lag. It even heals a provider that re-sends what it cached per stream, and so \
            can hide that one for a TTL.",
        evidence: "`update_failure` moves, `connected_state` 0 and then 1; a new stream with the last version_info and an \
            empty nonce; newer serials in handshakes afterwards.",
        looks_like: &[
            like("stream-refused", "whether a later stream lives"),
            like("socket-replaced", "whether the connection was lost as well (`upstream_cx_total`)"),
        ],
        first_aid: "None is needed if `connected_state` is 1 and a handshake shows a newer serial.",
        lasting_fix: "Nothing to fix if it is rare; the lag must stay below what is left of the certificate.",
        seen_in: &[],
    },
    Mode {
        name: "stream-refused",
        number: "10",
        layer: Some(Layer::Sent),
        title: "Each reconnect is refused by the provider",
        meaning: "The socket accepts connections, and every stream ends at once with an error, for instance because \
            attestation fails.",
        why_it_matters: "The proxies run on what they have until it expires; a restarted one does not come up.",
        evidence: "`update_failure` climbs, `connected_state` 0, connect failures of the SDS cluster flat.",
        looks_like: &[
            like("socket-gone", "`cluster.sds-grpc.upstream_cx_connect_fail`: it climbs only if nothing listens"),
            like("stream-closed-once", "whether a later stream lives"),
        ],
        first_aid: "Read the gRPC status in the provider's log: PERMISSION_DENIED is attestation or a deleted entry, \
            UNAVAILABLE is its upstream. Repair that; Envoy retries by itself (back-off up to some 30 s).",
        lasting_fix: "Alert on `connected_state` 0 for longer than the back-off, well before a certificate's last third.",
        seen_in: &[],
    },
    Mode {
        name: "socket-gone",
        number: "11",
        layer: Some(Layer::Sent),
        title: "Nothing listens on the provider's socket",
        meaning: "The provider is gone, and its socket with it (or the file is there and nobody accepts).",
        why_it_matters: "The proxies run on what they have until it expires; a restarted one does not come up.",
        evidence: "`cluster.sds-grpc.upstream_cx_connect_fail` climbs, `connected_state` 0.",
        looks_like: &[
            like("stale-bind-mount", "the socket's inode inside the proxy's mount and outside: they differ"),
            like("stream-refused", "`cluster.sds-grpc.upstream_cx_connect_fail`: flat if streams are refused"),
        ],
        first_aid: "Start the provider again at the same path; Envoy reconnects within its back-off and needs no restart.",
        lasting_fix: "Supervise the provider; mount its directory, never the socket file; alert on connect failures.",
        seen_in: &[],
    },
    Mode {
        name: "socket-replaced",
        number: "12",
        layer: None,
        title: "The provider restarted on a new socket; Envoy followed",
        meaning: "A new provider process bound a new socket at the same path. Envoy opens a new connection to it within \
            its back-off.",
        why_it_matters: "No failure, only a lag: this is how an upgrade of the provider should look.",
        evidence: "`upstream_cx_total` + 1, a new stream within the back-off, another inode at the path; newer serials in \
            handshakes afterwards.",
        looks_like: &[like(
            "stale-bind-mount",
            "whether a new stream comes: a proxy that mounts the file never sees the new one",
        )],
        first_aid: "None is needed if a handshake shows a newer serial.",
        lasting_fix: "Nothing to fix.",
        seen_in: &[],
    },
    Mode {
        name: "socket-unlinked-alive",
        number: "13",
        layer: None,
        title: "The socket's path is gone, the old stream lives",
        meaning: "The path was removed under a living provider. The stream that is open goes on renewing; nobody can \
            connect afresh.",
        why_it_matters: "It lies in wait: the next restart of a proxy, or the next loss of the stream, finds no socket.",
        evidence: "No file at the path, or a fresh dial fails, while the existing stream still gets renewals.",
        looks_like: &[like("socket-gone", "whether the proxy's existing stream still gets renewals")],
        first_aid: "Restart the provider so that it binds its path again, at a time of your choosing.",
        lasting_fix: "Find what deletes the path: a clean-up of /run or /tmp, a second instance of the provider, or an \
            agent that removes a socket which did not answer it at once.",
        seen_in: &[],
    },
    Mode {
        name: "stale-bind-mount",
        number: "14",
        layer: Some(Layer::Sent),
        title: "The proxy's mount holds the old socket",
        meaning: "The socket file itself was mounted into the proxy's container, not its directory. A restarted provider \
            binds a new inode, which that mount never shows.",
        why_it_matters: "Everything works until the provider's first restart; from outside the socket looks healthy.",
        evidence: "Connect failures as if nothing listened; the inode inside the container differs from the one outside.",
        looks_like: &[like("socket-gone", "the socket's inode inside the proxy's mount and outside: they differ")],
        first_aid: "Restart the affected pods, so that the new socket is mounted; the oldest certificates first.",
        lasting_fix: "Mount the directory (hostPath of the directory, or a CSI driver), never the socket file.",
        seen_in: &[],
    },
    Mode {
        name: "provider-frozen",
        number: "15",
        layer: Some(Layer::Sent),
        title: "The provider is stopped and holds its connections",
        meaning: "The provider's process does not run (stopped, deadlocked, out of CPU) and its connections stay open. \
            Istio's sds-grpc cluster has no keepalive that would notice.",
        why_it_matters: "`connected_state` says 1 to the end.",
        evidence: "`connected_state` 1, all counters flat, and a fresh stream to the socket is not answered.",
        looks_like: &[
            like("never-renews", "a fresh stream to the socket: a frozen provider does not answer it"),
            like("issues-never-pushes", "a fresh stream to the socket: a frozen provider does not answer it"),
        ],
        first_aid: "Look at the provider's process state (T, D, throttled), take a stack dump for later, then restart it.",
        lasting_fix: "A liveness probe that asks for a certificate over the socket; HTTP/2 keepalive on the SDS cluster.",
        seen_in: &[],
    },
    Mode {
        name: "bundle-only",
        number: "16",
        layer: Some(Layer::Issued),
        title: "Only the trust bundle rotates",
        meaning: "ROOTCA is pushed again and again, the certificate never. Contexts are rebuilt each time, with the old \
            leaf.",
        why_it_matters: "Counters of contexts move, so that dashboards built on them show a healthy rotation.",
        evidence: "`sds.ROOTCA.update_success` and `ssl_context_update_by_sds` climb, `sds.default.update_success` is \
            flat; handshakes keep the old serial.",
        looks_like: &[
            like(
                "starved-by-bundle-churn",
                "whether the certificate is re-sent, and bundle pushes come faster than the interval",
            ),
            like("never-renews", "`sds.ROOTCA.update_success`"),
        ],
        first_aid: "Treat it as a provider that never renews: restart the provider, the oldest certificates first.",
        lasting_fix: "Watch each secret by its own name; find out why the certificate's renewal does not fire.",
        seen_in: &[],
    },
    Mode {
        name: "leaf-before-bundle",
        number: "17",
        layer: Some(Layer::Sent),
        title: "A new authority's certificate before its bundle",
        meaning: "Certificates of a new authority are served before peers have got the bundle that contains it.",
        why_it_matters: "An outage of exactly the lag between two pushes, in the middle of a change that was meant to be \
            smooth.",
        evidence: "Handshakes show the new serial; peers count `fail_verify_error` and answer 503 until ROOTCA arrives.",
        looks_like: &[
            like("bundle-drops-old-ca", "whose certificates are refused: those of the new or of the old authority"),
            like("wrong-identity", "`fail_verify_error` (chain) against `fail_verify_san` (name)"),
        ],
        first_aid: "Push the bundle with both authorities now. If that is not possible, let the old authority sign again.",
        lasting_fix: "Three steps, each long enough for every proxy: prepare (bundle: old, new), activate (the new one \
            signs), revoke (bundle: new) when no certificate of the old one lives.",
        seen_in: &[],
    },
    Mode {
        name: "bundle-drops-old-ca",
        number: "18",
        layer: Some(Layer::Sent),
        title: "The old authority is dropped too early",
        meaning: "The bundle loses an authority while certificates that it signed are still served.",
        why_it_matters: "The proxies that have not renewed yet are cut off, while their own certificates are perfectly \
            valid.",
        evidence: "Peers refuse certificates of the old authority (`fail_verify_error`). /certs shows only the first \
            authority of a bundle, so read the bundle in config_dump.",
        looks_like: &[
            like("leaf-before-bundle", "whose certificates are refused: those of the new or of the old authority"),
            like("expired-on-arrival", "notAfter of the refused leaf"),
        ],
        first_aid: "Put the old authority back into the bundle; it takes effect with one push and no restart.",
        lasting_fix: "Revoke only when the last certificate of the old authority has expired or was replaced: at least \
            one TTL after the new one began to sign.",
        seen_in: &[],
    },
    Mode {
        name: "wrong-identity",
        number: "19",
        layer: Some(Layer::Issued),
        title: "The certificate carries another SPIFFE ID",
        meaning: "A renewed certificate names another identity than the one before; Envoy loads and serves it.",
        why_it_matters: "Peers refuse it by its name. Or, worse, they accept it for somebody else.",
        evidence: "`update_success` and contexts climb, handshakes show the new serial with another URI SAN; \
            `fail_verify_san` at peers.",
        looks_like: &[like("leaf-before-bundle", "`fail_verify_san` (name) against `fail_verify_error` (chain)")],
        first_aid: "Find the provider's entry or template that changed, set it back and renew. Treat it as a security \
            matter until it is clear who else got that identity.",
        lasting_fix: "Check the SPIFFE ID of each renewed certificate against the one before, at the provider.",
        seen_in: &[],
    },
    Mode {
        name: "several-identities",
        number: "19",
        layer: Some(Layer::Issued),
        title: "The certificate carries several SPIFFE IDs",
        meaning: "A renewed certificate has another URI beside its own SPIFFE ID. An SVID has exactly one (X.509-SVID, 2), and \
            who follows the standard refuses it. Envoy does not: a name that is looked for has to be one of them.",
        why_it_matters: "Requests between Envoys go on, so nothing is red; and whoever holds it passes for both. Libraries of \
            SPIFFE refuse it.",
        evidence: "Full handshakes and /certs show a leaf with two URI SANs; `fail_verify_san` stays, requests succeed.",
        looks_like: &[like("wrong-identity", "whether the leaf names the proxy's own identity as well")],
        first_aid: "Find the provider's entry or template that adds the name, set it back and renew. Treat it as a security \
            matter: peers accept this proxy under the other name too.",
        lasting_fix: "One workload, one identity. Count the URI SANs of each certificate before it is handed out.",
        seen_in: &[],
    },
    Mode {
        name: "not-yet-valid",
        number: "20",
        layer: Some(Layer::Issued),
        title: "The certificate is not valid yet",
        meaning: "notBefore lies ahead of the proxies' clocks: clock skew, or an issuer that dates ahead.",
        why_it_matters: "A working certificate is replaced by one that peers refuse, until time has caught up; by then \
            the traces are gone.",
        evidence: "Handshakes show the new serial, `valid_from` in the future; `fail_verify_error` at peers.",
        looks_like: &[like("expired-on-arrival", "notBefore and notAfter of the leaf against the proxy's clock")],
        first_aid: "Compare the clocks of issuer and nodes; correct the one that is off. Waiting helps too, by as much as \
            they differ.",
        lasting_fix: "Synchronised clocks, and an issuer that dates notBefore some seconds back (SPIRE: 10 s).",
        seen_in: &[],
    },
    Mode {
        name: "thin-margin",
        number: "21",
        layer: Some(Layer::Sent),
        title: "Renewed too close to the expiry",
        meaning: "New certificates arrive, shortly before or after the old ones expire.",
        why_it_matters: "It works until something takes a minute longer than usual: a restart, a busy authority, a \
            back-off of 30 s.",
        evidence: "Margin: notAfter of the old certificate less the first full handshake with the new one, against the \
            floor (10 % of the TTL unless the scenario says otherwise).",
        looks_like: &[
            like("never-renews", "wait: here the renewal does come"),
            like("stream-refused", "`update_failure`: whether the lag comes from lost streams"),
        ],
        first_aid: "Raise the TTL, which takes effect with the next certificate and buys time at once.",
        lasting_fix: "Renew at half or a third of the TTL, measured at the proxies and not at the issuer.",
        seen_in: &[],
    },
    Mode {
        name: "masked-by-pool",
        number: "22",
        layer: None,
        title: "Long-lived connections hide the failure",
        meaning: "An overlay on another mode: established connections are not cut when a certificate expires, so traffic \
            that reuses them goes on.",
        why_it_matters: "Dashboards stay green until a deployment, a scale-out or a network blip forces new connections.",
        evidence: "A request over the pool: 200. A request over a fresh connection: 503. `upstream_cx_total` flat.",
        looks_like: &[like(
            "masked-by-resumption",
            "whether fresh connections fail: with resumed sessions they pass too",
        )],
        first_aid: "Do not restart or scale anything that still works. Find the mode beneath and heal that first.",
        lasting_fix: "Probe with fresh connections and full handshakes; bound the age of connections \
            (max_connection_duration).",
        seen_in: &["istio/istio#7630"],
    },
    Mode {
        name: "partial-subscribers",
        number: "23",
        layer: Some(Layer::Acked),
        title: "Some contexts took the certificate, others did not",
        meaning: "One of the listeners or clusters that share the secret cannot use it, for instance because it must \
            staple OCSP and the new certificate has no staple. The update is refused, after some had taken it.",
        why_it_matters: "One proxy serves two generations at once; which listener got which depends on the order of \
            callbacks.",
        evidence: "`update_rejected` climbs and /certs holds mixed serials for one identity.",
        looks_like: &[
            like("nack-key-mismatch", "whether /certs holds the old serial only, or a mixture"),
            like("late-listener-poisoned", "whether the stale context is older than the refusal"),
        ],
        first_aid: "Find the context that refuses (the text of the NACK), and push a certificate that suits all; a later \
            good one healed every context in our measurements.",
        lasting_fix: "Give contexts with special needs (stapling, private key methods) a secret of their own. \
            envoyproxy/envoy#42438 is open.",
        seen_in: &["envoyproxy/envoy#42438"],
    },
    Mode {
        name: "late-listener-poisoned",
        number: "24",
        layer: Some(Layer::Loaded),
        title: "A listener added while a refused secret is held",
        meaning: "After a NACK Envoy still holds the refused secret. A listener that is added then is built with it and \
            is refused; it stays away even when a good certificate comes.",
        why_it_matters: "Existing ports recover and the new one never does, long after the cause is gone.",
        evidence: "`listener_manager.lds.update_rejected` climbs; connections to the port are refused, also after the fix.",
        looks_like: &[like("nack-key-mismatch", "whether only listeners added after the NACK are affected")],
        first_aid: "Heal the secret first, then make the control plane send the listener again (touch its resource, or \
            restart that one proxy).",
        lasting_fix: "Alert on rejected listeners as on rejected secrets; do not roll out listeners while \
            `update_rejected` moves.",
        seen_in: &["envoyproxy/envoy#42438"],
    },
    Mode {
        name: "duplicate-subscription",
        number: "25",
        layer: None,
        title: "Two subscriptions for one secret",
        meaning: "Two ConfigSources that differ in a byte (one without initial_fetch_timeout, say) make Envoy subscribe \
            twice to the same name.",
        why_it_matters: "No failure by itself; but counters are shared, and a provider that counts streams or mints per \
            stream sees double.",
        evidence: "Two streams per name; config_dump lists the name twice.",
        looks_like: &[like("partial-subscribers", "whether each stream's own contexts hold what was sent on it")],
        first_aid: "None is needed while both streams are served.",
        lasting_fix: "Generate every SdsSecretConfig from one template, identical to the byte.",
        seen_in: &[],
    },
    Mode {
        name: "never-arrives",
        number: "26",
        layer: Some(Layer::Sent),
        title: "The first secret never comes",
        meaning: "Envoy subscribed and got no answer. Listeners and clusters that need the secret stay in warming.",
        why_it_matters: "The proxy is up, its port is not; with Istio the pod never becomes ready.",
        evidence: "/ready 503 PRE_INITIALIZING; `dynamic_warming_secrets` in config_dump at version \"uninitialized\".",
        looks_like: &[
            like("stream-refused", "`update_failure`"),
            like("wrong-name", "a tap: whether something comes under another name"),
        ],
        first_aid: "See which secret is warming. Ask the provider with a fresh stream for that name as the same workload: \
            an unknown name, an identity without entry, a bundle that is never pushed.",
        lasting_fix: "A provider that has no answer should refuse with a reason. Set initial_fetch_timeout where starting \
            without the secret is safe.",
        seen_in: &[],
    },
    Mode {
        name: "starved-by-bundle-churn",
        number: "27",
        layer: Some(Layer::Issued),
        title: "Frequent bundle pushes starve the renewal",
        meaning: "Each push of a trust bundle (or revocation list) restarts the provider's renewal timer. If they come \
            more often than the renewal interval, the renewal never comes.",
        why_it_matters: "It appears when somebody adds a federated trust domain or shortens a bundle's refresh, and \
            disappears in quiet test systems.",
        evidence: "Provider: sends often, the certificate's serial repeats. `sds.ROOTCA.update_success` climbs faster \
            than the interval; handshakes keep the old serial.",
        looks_like: &[
            like("resend-cached", "whether bundle pushes come more often than the renewal interval"),
            like("bundle-only", "whether the certificate is re-sent with each bundle"),
        ],
        first_aid: "Make bundle pushes rarer than the renewal interval, or the renewal interval shorter; else restart the \
            provider once per TTL.",
        lasting_fix: "A timer that bundle updates do not touch. Teleport repaired it in tbot's Workload API in \
            gravitational/teleport#56626; the same flaw remains in its SDS handler (read in its source).",
        seen_in: &["gravitational/teleport#56626"],
    },
    Mode {
        name: "agent-owns-socket",
        number: "28",
        layer: Some(Layer::Issued),
        title: "Istio's agent serves its own certificates",
        meaning: "The agent looked for the external provider's socket once, at start, did not find it, and opened its own \
            at the same path. Its certificates come from Istio's CA.",
        why_it_matters: "The workload runs with an identity of another authority, and its peers may not trust it. The \
            provider sees nothing: nobody ever calls.",
        evidence: "Versions of the form \"RFC 3339/N\", another issuer in handshakes, no stream at the provider; the \
            agent's log says that it starts its own SDS server.",
        looks_like: &[like("socket-gone", "the issuer in a handshake, and who listens on the path (`ss -xlp`)")],
        first_aid: "Restart the affected pods, now that the provider's socket is there.",
        lasting_fix: "Start order: the provider's socket before the agent (an init container that waits for it, a CSI \
            driver, or WORKLOAD_IDENTITY_SOCKET_FILE, with which the agent does not fall back).",
        seen_in: &["istio/istio#41308"],
    },
    Mode {
        name: "files-socket-red-herring",
        number: "29",
        layer: None,
        title: "\"failed to set up UDS\" that means nothing",
        meaning: "With an external provider, Istio's agent (1.26 and later) runs an SDS server for files only. If that one \
            cannot bind, the agent logs an error which does not concern the workload's certificate.",
        why_it_matters: "It is the only red line in the log, and so is taken for the cause of whatever else is wrong.",
        evidence: "`default` and `ROOTCA` are healthy; only secrets named file-cert: and file-root: are missing.",
        looks_like: &[like("agent-owns-socket", "the issuer in a handshake")],
        first_aid: "Ignore it, unless gateways or DestinationRules use certificates from files. Look elsewhere.",
        lasting_fix: "Mount a writable directory for the agent's files socket (credential-uds).",
        seen_in: &[],
    },
    Mode {
        name: "watched-file-missing",
        number: "30",
        layer: Some(Layer::Sent),
        title: "A watched certificate file is gone",
        meaning: "Certificates come from files that Envoy watches, and one was removed or cannot be read at the moment of \
            the change.",
        why_it_matters: "Envoy keeps the old certificate and tries again only at the next change of the directory.",
        evidence: "`sds.<name>.key_rotation_failed` climbs, and Envoy warns \"Failed to reload certificates: Invalid path: \
            ...\"; `update_rejected` stays, contexts are flat, handshakes keep the old serial.",
        looks_like: &[
            like("never-renews", "`sds.<name>.key_rotation_failed`, and the files' times"),
            like("files-half-written", "the reason in Envoy's warning \"Failed to reload certificates\""),
            like("files-key-before-chain", "the reason in Envoy's warning \"Failed to reload certificates\""),
        ],
        first_aid: "Write the files again, complete, then move them into the watched directory by rename.",
        lasting_fix: "Replace directories atomically (a symbolic link as kubelet does it) and set watched_directory to \
            its parent.",
        seen_in: &[],
    },
    Mode {
        name: "masked-by-resumption",
        number: "31",
        layer: None,
        title: "Resumed TLS sessions hide an expired certificate",
        meaning: "An overlay on another mode: Envoy's clients resume TLS sessions by default, and a resumed session shows \
            no certificate. With an expired client certificate, fresh connections go on working.",
        why_it_matters: "Even a test with fresh connections is green, until the peer rotates or restarts; then all fail \
            at once.",
        evidence: "A fresh TCP connection, 200, `session_reused` climbs. With `max_session_keys: 0` the same request \
            gets 503.",
        looks_like: &[like("masked-by-pool", "`upstream_cx_total`: it climbs here")],
        first_aid: "Do not restart peers that still answer: their restart ends the sessions. Find the mode beneath and \
            heal that first.",
        lasting_fix: "Test with full handshakes only. Where expiry must bite, set max_session_keys: 0 on clients or \
            disable resumption on servers.",
        seen_in: &["envoyproxy/envoy#28758"],
    },
    Mode {
        name: "resend-stale",
        number: "32",
        layer: Some(Layer::Sent),
        title: "A new certificate is minted, the old one is sent",
        meaning: "The provider renews in its own store and sends the certificate from before under a new version.",
        why_it_matters: "The provider's log proves the renewal, and at Envoy all looks like `resend-cached`.",
        evidence: "Provider: new serials issued, an older one sent. Envoy: `update_success` climbs, contexts flat, \
            handshakes keep the old serial.",
        looks_like: &[
            like(
                "resend-cached",
                "whether the provider minted newer certificates (its own ledger); without it, name both",
            ),
            like("issues-never-pushes", "`update_success`: it moves here"),
        ],
        first_aid: "Reset the SDS streams by restarting the provider: a new stream gets what the store holds now. It \
            lasts one TTL.",
        lasting_fix: "The stream must read the store at the time of sending. Compare the sent serial with the issued one \
            in the provider's own tests.",
        seen_in: &[],
    },
    Mode {
        name: "files-not-watched",
        number: "33",
        layer: Some(Layer::Loaded),
        title: "New files are moved where Envoy does not look",
        meaning: "Certificates come from files, and the secret names no watched_directory. Envoy then watches the directory \
            that each path leads to when it is read: behind a symbolic link that is replaced (as kubelet and most writers do \
            it), that is the old directory. The new files are never read.",
        why_it_matters: "The files on disk are new and right, whoever looks at them; Envoy counts nothing at all.",
        evidence: "The files are whole and newer; `ssl_context_update_by_sds`, `key_rotation_failed` and `update_success` \
            are flat, handshakes keep the old serial. The process has no inotify watch on the directory \
            (/proc/PID/fdinfo, \"inotify ... ino:\").",
        looks_like: &[
            like("files-rewritten-in-place", "whether the process has an inotify watch on the directory"),
            like("never-renews", "the files' times, and what is in them"),
        ],
        first_aid: "Add watched_directory to the secret in the file that `path_config_source` names, and move that file into \
            place by a rename: it is watched itself, and since the secret differs its files are read again. The same secret \
            moved once more counts as an update (`update_success`) and changes nothing.",
        lasting_fix: "Name the directory in which the link is renamed as watched_directory, in every secret with files. Alert \
            on the expiry of the served certificate, not on that of the file.",
        seen_in: &[],
    },
    Mode {
        name: "files-rewritten-in-place",
        number: "34",
        layer: Some(Layer::Loaded),
        title: "The files are written over, and nothing is moved",
        meaning: "The writer opens the old files and writes the new content over it. Envoy looks only when something is \
            moved into the directory that it watches, so it never looks.",
        why_it_matters: "The files on disk are new and right. Should something else be moved there at the wrong moment, Envoy \
            reads a half-written file.",
        evidence: "The files have the inodes that they had, with new content; the directory is watched; \
            `ssl_context_update_by_sds` and `key_rotation_failed` are flat, handshakes keep the old serial.",
        looks_like: &[
            like("files-not-watched", "whether the process has an inotify watch on the directory"),
            like("never-renews", "the files' times, and what is in them"),
        ],
        first_aid: "Move something into the watched directory (`touch x && mv x y`, there): Envoy reads the files again.",
        lasting_fix: "Let the writer write beside the old files and rename; both files in one step, by a directory behind a \
            symbolic link.",
        seen_in: &[],
    },
    Mode {
        name: "files-half-written",
        number: "35",
        layer: Some(Layer::Acked),
        title: "Envoy reads a file that is half written",
        meaning: "Something is moved into the watched directory while a file there is still being written. Envoy reads, cannot \
            parse it and keeps the old certificate. When the rest is written nothing is moved, so it does not look again.",
        why_it_matters: "A moment's race is kept until the next renewal, which may lose it again.",
        evidence: "`sds.<name>.key_rotation_failed` climbs, and Envoy warns \"Failed to reload certificates: Failed to load \
            certificate chain\" (or \"incomplete certificate\", for an empty file); `update_rejected` stays; the files are \
            whole by the time somebody looks.",
        looks_like: &[
            like("watched-file-missing", "the reason in Envoy's warning \"Failed to reload certificates\""),
            like("files-key-before-chain", "the reason in Envoy's warning \"Failed to reload certificates\""),
        ],
        first_aid: "Move something into the watched directory, now that the files are whole: Envoy reads them again.",
        lasting_fix: "Replace files by rename only. Alert on `sds.<name>.key_rotation_failed`.",
        seen_in: &["istio/istio#22530"],
    },
    Mode {
        name: "files-key-before-chain",
        number: "36",
        layer: Some(Layer::Acked),
        title: "A new key beside the old chain",
        meaning: "Key and chain are two files that are replaced one after the other. Envoy reads after the first, finds a key \
            that is not the chain's, and keeps the old certificate. If the second is moved into the watched directory too, the \
            next look heals it; if not, it stays.",
        why_it_matters: "It comes and goes with timing, and leaves files that fit each other for whoever looks later.",
        evidence: "`sds.<name>.key_rotation_failed` climbs, and Envoy warns \"Failed to reload certificates: ... \
            KEY_VALUES_MISMATCH\"; `update_rejected` stays; handshakes keep the old serial, while config_dump shows the chain \
            that was refused.",
        looks_like: &[
            like("files-half-written", "the reason in Envoy's warning \"Failed to reload certificates\""),
            like("watched-file-missing", "the reason in Envoy's warning \"Failed to reload certificates\""),
            like("nack-key-mismatch", "`update_rejected`: it moves where the pair came over a stream"),
        ],
        first_aid: "Compare the public keys of the two files. If they fit by now, move something into the watched directory.",
        lasting_fix: "Publish key and chain in one step: one directory for both, behind a symbolic link that is renamed.",
        seen_in: &[],
    },
    Mode {
        name: "intermediate-expires-first",
        number: "37",
        layer: Some(Layer::Issued),
        title: "The intermediate above the certificate expires before it",
        meaning: "The provider goes on signing with an intermediate that ends before its leaves do. The leaf that is \
            served is valid, and the chain that it is served with is not.",
        why_it_matters: "Everything that looks at leaves stays green: /certs, Envoy's expiry gauges, config_dump and the \
            dates that people compare. All peers refuse the chain from one second to the next, and a renewal does not help.",
        evidence: "Full handshakes show a leaf that is valid with an intermediate whose notAfter has passed. Peers: 503 and \
            `ssl.fail_verify_error`; counters of secrets and contexts as in health. /certs lists leaves only.",
        looks_like: &[
            like("bundle-drops-old-ca", "the notAfter of each certificate of the chain in a handshake"),
            like("expired-on-arrival", "the notAfter of the leaf: here it is in the future"),
        ],
        first_aid: "Have the provider sign with an intermediate that lives (SPIRE: `localauthority x509 prepare` and \
            `activate` at the server, or a new intermediate of its upstream authority), and make the proxies subscribe \
            again: restart the provider.",
        lasting_fix: "No leaf may outlive what signs it: cut its notAfter to the earliest of its chain, and renew the \
            intermediate before that. Alert on the whole chain of a handshake.",
        seen_in: &[],
    },
    Mode {
        name: "authority-expires-first",
        number: "38",
        layer: Some(Layer::Issued),
        title: "The authority expires before its certificates",
        meaning: "The provider goes on signing with an authority that ends before its leaves do. The bundles hold it, the \
            leaves that are served are valid, and what all of it hangs on is not.",
        why_it_matters: "It ends everything at once: every peer refuses every certificate of that authority from one second \
            to the next, whatever is renewed. Many a verifier never looks at the dates of a root; Envoy does.",
        evidence: "Full handshakes show a leaf that is valid, of an authority whose notAfter has passed (`ca_cert` in \
            /certs, if it is the first of its bundle; config_dump shows all). Peers: 503 and `ssl.fail_verify_error`; \
            counters of secrets and contexts as in health. An expired authority beside a living one that signs is no \
            failure.",
        looks_like: &[
            like("bundle-drops-old-ca", "whether the bundle holds the authority of the refused leaf: here it does"),
            like("expired-on-arrival", "the notAfter of the leaf: here it is in the future"),
            like("intermediate-expires-first", "which certificate above the leaf has expired"),
        ],
        first_aid: "Make a new authority now (SPIRE: `localauthority x509 prepare`, `activate`), push the bundle with both, \
            and renew every leaf: restart the provider. Pushing the old authority again helps nobody.",
        lasting_fix: "Prepare the next authority so early that one TTL is left when it begins to sign, and cut the notAfter of \
            leaves to that of what signs them. Alert on the authority's own end: \
            `server.days_until_first_cert_expiring` counts it too.",
        seen_in: &[],
    },
];
