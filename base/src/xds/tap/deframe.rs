//! gRPC's length-prefixed messages, cut out of a body that comes in pieces.

use zeroize::Zeroize as _;

/// Larger messages are not looked into. They pass all the same.
const LARGEST: usize = 16 << 20;

/// What was found in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A message.
    Message(&'a [u8]),
    /// One that is compressed, or larger than anything that makes sense: its length.
    Opaque(usize),
}

/// Finds messages; keeps at most one.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    head: Vec<u8>,
    body: Vec<u8>,
    /// What is still to come of the message, once its head is complete.
    missing: Option<usize>,
    opaque: bool,
}

impl Deframer {
    /// Takes the next piece in.
    pub(super) fn feed(&mut self, mut piece: &[u8], mut found: impl FnMut(Found<'_>)) {
        while !piece.is_empty() {
            let Some(missing) = self.missing else {
                let (head, rest) = piece.split_at(piece.len().min(5 - self.head.len()));
                self.head.extend_from_slice(head);
                piece = rest;
                if let [compressed, a, b, c, d] = self.head[..] {
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.opaque = compressed != 0 || length > LARGEST;
                    self.missing = Some(length);
                    if length == 0 {
                        self.whole(&mut found);
                    }
                }
                continue;
            };
            let (part, rest) = piece.split_at(piece.len().min(missing));
            if !self.opaque {
                self.body.extend_from_slice(part);
            }
            piece = rest;
            self.missing = Some(missing - part.len());
            if missing == part.len() {
                self.whole(&mut found);
            }
        }
    }

    /// Bytes of a message that was begun and has not ended, and how many were announced.
    pub(super) fn unfinished(&self) -> Option<(usize, usize)> {
        let announced = match self.head[..] {
            [] => return None,
            [_, a, b, c, d] => u32::from_be_bytes([a, b, c, d]) as usize,
            _ => return Some((0, 0)),
        };
        Some((announced - self.missing.unwrap_or(0), announced))
    }

    fn whole(&mut self, found: &mut impl FnMut(Found<'_>)) {
        if self.opaque {
            let length = match self.head[..] {
                [_, a, b, c, d] => u32::from_be_bytes([a, b, c, d]) as usize,
                _ => 0,
            };
            found(Found::Opaque(length));
        } else {
            found(Found::Message(&self.body));
        }
        // It held a key.
        self.body.zeroize();
        self.head.clear();
        (self.missing, self.opaque) = (None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(compressed: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[compressed][..], &length, body].concat()
    }

    fn found(bytes: &[u8], pieces: usize) -> (Vec<String>, Option<(usize, usize)>) {
        let mut deframer = Deframer::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(pieces) {
            deframer.feed(piece, |found| {
                all.push(match found {
                    Found::Message(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                    Found::Opaque(n) => format!("opaque {n}"),
                });
            });
        }
        (all, deframer.unfinished())
    }

    #[test]
    fn messages_are_found_however_the_body_is_cut() {
        let bytes = [frame(0, b"one"), frame(0, b""), frame(1, b"zip"), frame(0, b"four")].concat();
        for pieces in 1..=bytes.len() {
            let all = ["one", "", "opaque 3", "four"].map(str::to_owned).to_vec();
            assert_eq!(found(&bytes, pieces), (all, None));
        }
    }

    #[test]
    fn half_a_message_is_told() {
        let bytes = frame(0, b"message");
        assert_eq!(found(&bytes[..8], 3), (vec![], Some((3, 7))));
        assert_eq!(found(&bytes[..4], 3), (vec![], Some((0, 0))));
    }

    #[test]
    fn a_message_that_claims_to_be_huge_is_passed_over_without_being_kept() {
        let mut deframer = Deframer::default();
        deframer.feed(&[0, 0xff, 0xff, 0xff, 0xff], |_| panic!("there is no message yet"));
        deframer.feed(&[7; 100_000], |_| panic!("there is no message yet"));
        assert_eq!(deframer.body.capacity(), 0);
        assert_eq!(deframer.unfinished(), Some((100_000, u32::MAX as usize)));
    }
}
