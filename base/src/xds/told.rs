//! What a subscription tells that is made elsewhere: a line for each fact, as a timeline has it. Whoever reads the lines has
//! them from a log that anybody may have written.

use std::time::Instant;

use crate::pki::{bounded, cut, cut_name};
use crate::timeline::{
    At, Blind, CertFacts, Fact, Layer, Observation, Payload, SecretName, Source, UNCOUNTED, UNREACHED,
    read_observation, write_observation,
};

/// A longer line is passed over: a chain of twenty has some 20 KB.
const LONGEST_LINE: usize = 256 << 10;
/// Nothing is read beyond so many lines, or bytes.
const MOST_LINES: usize = 50_000;
const MOST_BYTES: usize = 64 << 20;
/// More certificates of one secret are left out, and more secrets of one response.
const MOST_CERTIFICATES: usize = 16;
const MOST_SECRETS: usize = 16;
/// And more connections.
const MOST_CONNECTIONS: usize = 64;

/// Why a fact can't be told.
#[derive(Debug, thiserror::Error)]
#[error("write what was seen: {0}")]
pub struct TellError(#[from] std::io::Error);

/// Puts facts into lines.
#[derive(Debug)]
pub struct Teller {
    began: Instant,
    next: u64,
}

impl Default for Teller {
    fn default() -> Self {
        Self { began: Instant::now(), next: 0 }
    }
}

impl Teller {
    /// A fact that was seen just now, of the subscription to this name.
    pub fn line(&mut self, name: &SecretName, fact: Fact) -> Result<String, TellError> {
        let at = At { mono: self.began.elapsed(), wall: jiff::Timestamp::now(), offset_s: 0 };
        let seq = self.next;
        self.next += 1;
        let seen = Observation { seq, at, source: Source::Witness, proxy: None, secret: Some(name.clone()), fact };
        let mut line = Vec::new();
        write_observation(&mut line, &seen)?;
        // serde_json writes UTF-8, and a line feed at its end.
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// A fact that was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// When it was seen, by the clock of whoever saw it.
    pub at: jiff::Timestamp,
    /// What it is about.
    pub secret: Option<SecretName>,
    /// It.
    pub fact: Fact,
}

/// Takes in a log piece by piece, and gives the facts in it.
#[derive(Debug, Default)]
pub struct Listener {
    line: Vec<u8>,
    too_long: bool,
    bytes: usize,
    lines: usize,
    refused: usize,
    first_refused: Option<String>,
}

impl Listener {
    /// A piece of the log; `each` hears what is told by the lines that it ends.
    pub fn hear(&mut self, piece: &[u8], mut each: impl FnMut(Told)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.bytes = self.bytes.saturating_add(part.len());
            if self.is_full() {
                return;
            }
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            self.too_long |= self.line.len() + text.len() > LONGEST_LINE;
            if !self.too_long {
                self.line.extend_from_slice(text);
            }
            if ends {
                self.end_line(&mut each);
            }
        }
    }

    /// The log has ended; a last line without an end counts.
    pub fn end(&mut self, mut each: impl FnMut(Told)) {
        if !self.is_full() && (self.too_long || !self.line.is_empty()) {
            self.end_line(&mut each);
        }
    }

    fn end_line(&mut self, each: &mut impl FnMut(Told)) {
        self.lines += 1;
        let line = std::mem::take(&mut self.line);
        let was_long = std::mem::take(&mut self.too_long);
        let told = if was_long { Err(format!("a line of more than {LONGEST_LINE} bytes")) } else { told(&line) };
        match told {
            Ok(told) => each(told),
            // A line without anything says nothing.
            Err(_) if line.is_empty() && !was_long => {}
            Err(why) => {
                self.refused += 1;
                self.first_refused.get_or_insert(why);
            }
        }
    }

    /// Whether it is more than anybody would tell: nothing further is read.
    pub fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES || self.lines >= MOST_LINES
    }

    /// What was no fact, in words.
    pub fn complaint(&self) -> Option<String> {
        let first = self.first_refused.as_ref();
        let refused = first.map(|why| match self.refused {
            1 => format!("a line of it was no fact ({why})"),
            n => format!("{n} lines of it were no facts (the first: {why})"),
        });
        let full =
            self.is_full().then(|| format!("it was not read further than {MOST_LINES} lines or {MOST_BYTES} bytes"));
        let all: Vec<String> = refused.into_iter().chain(full).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// What one line tells; why it tells nothing, otherwise.
fn told(line: &[u8]) -> Result<Told, String> {
    let shown = || clean(&String::from_utf8_lossy(&line[..line.len().min(120)]));
    let text = std::str::from_utf8(line).map_err(|_| format!("no UTF-8: {:?}", shown()))?;
    let seen = read_observation(text).map_err(|_| format!("{:?}", shown()))?;
    if seen.source != Source::Witness {
        return Err(format!("from another source: {:?}", shown()));
    }
    let fact = tame(seen.fact).ok_or_else(|| format!("of another kind: {:?}", shown()))?;
    Ok(Told { at: seen.at.wall, secret: seen.secret, fact })
}

/// As a subscription tells it: other kinds are none of its facts, texts and lists have an end.
fn tame(fact: Fact) -> Option<Fact> {
    let short = |text: &mut String| *text = clean(text);
    let name = |text: &mut String| *text = cut_name(&harmless(text));
    Some(match fact {
        Fact::StreamOpened(mut opened) => {
            short(&mut opened.rpc);
            opened.peer_pid = None;
            opened.into()
        }
        Fact::Subscribed(mut subscribed) => {
            subscribed.names.truncate(MOST_SECRETS);
            subscribed.names.iter_mut().for_each(name);
            [&mut subscribed.type_url, &mut subscribed.version_info, &mut subscribed.node].into_iter().for_each(short);
            subscribed.into()
        }
        Fact::Sent(mut sent) => {
            sent.secrets.truncate(MOST_SECRETS);
            for secret in &mut sent.secrets {
                name(&mut secret.name);
                tame_payload(&mut secret.payload);
            }
            [&mut sent.type_url, &mut sent.version_info, &mut sent.nonce].into_iter().for_each(short);
            sent.into()
        }
        Fact::Acked(mut acked) => {
            [&mut acked.nonce, &mut acked.version_info].into_iter().for_each(short);
            acked.into()
        }
        Fact::StreamClosed(mut closed) => {
            [&mut closed.by, &mut closed.status].into_iter().for_each(short);
            closed.into()
        }
        Fact::Peers(mut peers) => {
            short(&mut peers.socket);
            peers.pids.truncate(MOST_CONNECTIONS);
            peers.sockets.truncate(MOST_CONNECTIONS);
            peers.into()
        }
        Fact::Blind(blind) => {
            let known = [UNREACHED, UNCOUNTED].into_iter().find(|known| blind.what == *known);
            let what = known.unwrap_or("a fresh subscription");
            Blind { layer: Some(Layer::Sent), what: what.to_owned(), why: clean(&blind.why) }.into()
        }
        _ => return None,
    })
}

fn tame_payload(payload: &mut Payload) {
    let problem = match payload {
        Payload::Certificate { chain, problem, .. } | Payload::Bundle { roots: chain, problem, .. } => {
            chain.truncate(MOST_CERTIFICATES);
            chain.iter_mut().for_each(tame_certificate);
            problem.as_mut()
        }
        Payload::Other { what } => Some(what),
    };
    if let Some(problem) = problem {
        *problem = clean(problem);
    }
}

fn tame_certificate(cert: &mut CertFacts) {
    let texts = [&mut cert.subject, &mut cert.issuer, &mut cert.key_type].into_iter();
    let optional = [cert.subject_key_id.as_mut(), cert.authority_key_id.as_mut()].into_iter().flatten();
    for text in texts.chain(optional).chain(&mut cert.uris) {
        *text = harmless(text);
    }
    *cert = bounded(cert.clone());
}

/// Without what could disturb a terminal, cut to a length that can be kept.
fn clean(text: &str) -> String {
    cut(&harmless(text))
}

fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::{Certs, StreamClosed};

    fn closed(status: &str) -> Fact {
        StreamClosed { stream: 1, by: "proxy".into(), status: status.into() }.into()
    }

    fn heard(pieces: &[&[u8]]) -> (Vec<Fact>, Option<String>) {
        let (mut listener, mut facts) = (Listener::default(), Vec::new());
        for piece in pieces {
            listener.hear(piece, |told| facts.push(told.fact));
        }
        listener.end(|told| facts.push(told.fact));
        (facts, listener.complaint())
    }

    #[test]
    fn what_is_told_is_heard_however_the_log_is_cut() {
        let mut teller = Teller::default();
        let name = SecretName::default_svid();
        let lines: Vec<String> = ["a", "b"].map(|status| teller.line(&name, closed(status)).unwrap()).into();
        let text = lines.join("\n");
        for size in [1, 7, 64, text.len()] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(heard(&pieces), (vec![closed("a"), closed("b")], None), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_fact_is_counted_and_the_rest_is_heard() {
        let mut teller = Teller::default();
        let name = SecretName::default_svid();
        let good = teller.line(&name, closed("a")).unwrap();
        let other =
            teller.line(&name, Certs { leaves: Vec::new(), authorities: Vec::new(), contexts: 0 }.into()).unwrap();
        let elsewhere = good.replace("\"witness\"", "\"inbound\"");
        let long = format!("{}\n", "x".repeat(LONGEST_LINE + 1));
        let log = format!("panic: \u{1b}[31mno\n{other}\n{elsewhere}\n{long}{good}\n");
        let (facts, complaint) = heard(&[log.as_bytes(), b"\xff\xfe\n", b"{\"seq\":"]);
        assert_eq!(facts, [closed("a")]);
        let complaint = complaint.unwrap();
        assert!(complaint.starts_with("6 lines of it were no facts (the first: \"panic:  [31mno\")"), "{complaint}");
    }

    #[test]
    fn texts_have_an_end_and_control_nothing() {
        let line = Teller::default().line(&SecretName::default_svid(), closed(&format!("\u{7}{}", "y".repeat(5000))));
        let (facts, _) = heard(&[line.unwrap().as_bytes()]);
        let Fact::StreamClosed(closed) = &facts[0] else { panic!("{facts:?}") };
        assert!(closed.status.starts_with(" yyy") && closed.status.len() < 600, "{}", closed.status);
    }

    #[test]
    fn a_log_without_end_is_not_read_to_its_end() {
        let mut listener = Listener::default();
        let piece = vec![b'\n'; 1 << 16];
        for _ in 0..2000 {
            listener.hear(&piece, |_| ());
        }
        assert!(listener.is_full());
        assert!(listener.complaint().unwrap().contains("was not read further"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = heard(&pieces);
        }
    }
}
