//! Where a text begins to be a private key.

use super::LEFT_OUT;

/// So many encodings around a key are undone: JSON in a string of JSON, base64 of base64.
const DEPTH: usize = 4;
/// Letters of a run that may be base64 of a key: its first line alone, which every PEM begins with, has 36.
const RUN: usize = 32;
/// A run that is shorter is none.
const SHORT: usize = 23;
/// Bytes of a value that may be a key.
const VALUE: usize = 40;

/// Whether it is so plain that no key can be in it, in whatever shape: words and numbers, none of them long, nothing escaped.
/// Most lines of most logs are, and whoever writes them waits for us.
fn is_plain(bytes: &[u8]) -> bool {
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' | b'%' | 0x80.. => return false,
            b'p' | b'P' if bytes[at..].get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"priv")) => return false,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' | b'-' | b'_' | b'=' => {
                run += 1;
                if run > SHORT {
                    return false;
                }
            }
            _ => run = 0,
        }
    }
    true
}

/// Offset of the first thing that is a private key, or may be one.
pub(super) fn first(bytes: &[u8]) -> Option<usize> {
    if is_plain(bytes) {
        return None;
    }
    within(bytes, DEPTH)
}

fn within(bytes: &[u8], depth: usize) -> Option<usize> {
    let mut found = look(bytes, depth);
    let mut view = View { bytes: bytes.to_vec(), from: Vec::new() };
    for _ in 0..DEPTH {
        if !view.bytes.iter().any(|b| matches!(b, b'\\' | b'%')) {
            break;
        }
        view = view.unescaped();
        found = earlier(found, look(&view.bytes, depth).map(|at| view.from[at]));
    }
    found
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a.into_iter().chain(b).min()
}

/// In the bytes as they are, and in what runs of their letters stand for.
fn look(bytes: &[u8], depth: usize) -> Option<usize> {
    let mut found = earlier(earlier(pem(bytes), der(bytes)), named(bytes));
    if depth > 0 {
        found = earlier(found, encoded(bytes, depth));
        if bytes.contains(&b'\n') {
            let view = joined(bytes);
            found = earlier(found, encoded(&view.bytes, depth).map(|at| view.from[at]));
        }
    }
    found
}

/// Bytes that others stand for, and where each comes from.
struct View {
    bytes: Vec<u8>,
    /// Empty: from the same place.
    from: Vec<usize>,
}

impl View {
    fn unescaped(&self) -> View {
        let mut view = View { bytes: Vec::new(), from: Vec::new() };
        let mut at = 0;
        while at < self.bytes.len() {
            let (byte, length) = unescape(&self.bytes[at..]);
            view.bytes.push(byte);
            view.from.push(self.from.get(at).copied().unwrap_or(at));
            at += length;
        }
        view
    }
}

/// The first byte as C, JSON, Rust or an URL escape it, and how many were read.
fn unescape(bytes: &[u8]) -> (u8, usize) {
    let number = |from: usize, most: usize, base: u32| {
        let digits = bytes[from..].iter().take(most).take_while(|b| char::from(**b).is_digit(base));
        let digits: Vec<u32> = digits.filter_map(|b| char::from(*b).to_digit(base)).collect();
        let value = digits.iter().fold(0, |value, digit| value * base + digit);
        u8::try_from(value).ok().filter(|_| !digits.is_empty()).map(|value| (value, from + digits.len()))
    };
    let read = match bytes {
        [b'%', ..] => number(1, 2, 16).filter(|(_, length)| *length == 3),
        [b'\\', b'0'..=b'7', ..] => number(1, 3, 8),
        [b'\\', b'x' | b'X', ..] => number(2, 2, 16),
        [b'\\', b'u', b'{', ..] => number(3, 6, 16).map(|(value, length)| (value, length + 1)),
        [b'\\', b'u', ..] => number(2, 4, 16).filter(|(_, length)| *length == 6),
        [b'\\', letter, ..] => match letter {
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'a' => Some(7),
            b'b' => Some(8),
            b'f' => Some(12),
            b'v' => Some(11),
            b'\\' | b'"' | b'\'' | b'?' | b'/' => Some(*letter),
            _ => None,
        }
        .map(|byte| (byte, 2)),
        _ => None,
    };
    read.unwrap_or((bytes[0], 1))
}

/// Without the ends of lines, and what they are indented by.
fn joined(bytes: &[u8]) -> View {
    let mut view = View { bytes: Vec::new(), from: Vec::new() };
    let mut begins = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' | b'\r' => begins = true,
            b' ' | b'\t' if begins => {}
            _ => {
                begins = false;
                view.bytes.push(byte);
                view.from.push(at);
            }
        }
    }
    view
}

/// Places of `part`.
fn places<'a>(bytes: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(part.len()).enumerate().filter(move |(_, window)| *window == part).map(|(at, _)| at)
}

/// RFC 7468, whatever the label; also without its beginning or its end.
fn pem(bytes: &[u8]) -> Option<usize> {
    const LABEL: &[u8] = b"PRIVATE KEY";
    places(bytes, LABEL).find_map(|at| {
        let label = back(bytes, at, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ');
        let begins = places(&bytes[label..at], b"BEGIN ").last().map(|n| label + n);
        let ends = places(&bytes[label..at], b"END ").last().map(|n| label + n);
        match (begins, ends) {
            (Some(begin), _) => Some(back(bytes, begin, |b| b == b'-')),
            // Its lines are before it.
            (_, Some(end)) => {
                let end = back(bytes, end, |b| b == b'-');
                Some(back(bytes, end, |b| letter(b).is_some() || b"=\\\r\n".contains(&b)))
            }
            _ => bytes[at + LABEL.len()..].starts_with(b"--").then_some(label),
        }
    })
}

fn back(bytes: &[u8], from: usize, passes: impl Fn(u8) -> bool) -> usize {
    bytes[..from].iter().rposition(|b| !passes(*b)).map_or(0, |at| at + 1)
}

/// RFC 5958 with the algorithms of public keys (or encrypted, by RFC 8018), RFC 5915, RFC 8017.
fn der(bytes: &[u8]) -> Option<usize> {
    // id-ecPublicKey, rsaEncryption, id-RSASSA-PSS, id-dsa; X25519, X448, Ed25519, Ed448; PBES2.
    const EC: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    const PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    const DSA: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01";
    const EDWARDS: &[u8] = b"\x06\x03\x2b\x65";
    const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
    bytes.windows(5).enumerate().find_map(|(at, window)| {
        let rest = &bytes[at..];
        let is_key = match window {
            [0x06, ..] => rest.starts_with(PBES2),
            // A version, and which algorithm.
            [0x02, 0x01, 0x00 | 0x01, 0x30, length] => {
                let algorithm = &rest[(5 + usize::from(length.saturating_sub(0x80)).min(2)).min(rest.len())..];
                [EC, RSA, PSS, DSA].iter().any(|oid| algorithm.starts_with(oid))
                    || algorithm.starts_with(EDWARDS) && matches!(algorithm.get(4), Some(0x6e..=0x71))
            }
            // A version, and the number of a curve of 224, 256, 384 or 521 bits.
            [0x02, 0x01, 0x01, 0x04, 0x1c | 0x20 | 0x30 | 0x42] => true,
            // A version, and a modulus of 1024 bits or more.
            [0x02, 0x01, 0x00, 0x02, 0x81 | 0x82] => true,
            _ => false,
        };
        is_key.then(|| header(bytes, at))
    })
}

/// The SEQUENCE whose contents begin there, where its head can be seen.
fn header(bytes: &[u8], at: usize) -> usize {
    let behind = |n: usize| at.checked_sub(n).filter(|from| bytes[*from] == 0x30);
    behind(4).or_else(|| behind(3)).or_else(|| behind(2)).unwrap_or(at)
}

/// What a run of the letters of base64 or hexadecimal stands for.
fn encoded(bytes: &[u8], depth: usize) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|b| letter(**b).is_some()).count();
        if length >= RUN && holds_encoded(&bytes[at..at + length], depth - 1) {
            return Some(at);
        }
        // In between there may be hexadecimal, whose letters are among those of base64.
        at += length + 1;
    }
    None
}

fn holds_encoded(run: &[u8], depth: usize) -> bool {
    let hexadecimal = run.split(|b| !b.is_ascii_hexdigit()).filter(|part| part.len() >= RUN).any(|part| {
        (0..2).any(|skip| {
            let nibbles = part[skip..].chunks_exact(2);
            let bytes = nibbles.filter_map(|n| Some(digit(n[0])? << 4 | digit(n[1])?)).collect::<Vec<_>>();
            within(&bytes, depth).is_some()
        })
    });
    // A fingerprint, of which recordings are full.
    let digest = run.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    // What stands before it may shift it.
    hexadecimal || !digest && (0..4).any(|skip| within(&base64(&run[skip..]), depth).is_some())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Of either alphabet of RFC 4648.
pub(super) fn letter(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn base64(run: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(run.len() * 3 / 4);
    for four in run.chunks(4) {
        let all = (0..4).fold(0, |all, n| all << 6 | u32::from(four.get(n).and_then(|b| letter(*b)).unwrap_or(0)));
        bytes.extend_from_slice(&all.to_be_bytes()[1..four.len().max(1)]);
    }
    bytes
}

/// The value of a field `private_key`, where it is long enough to be one: a path or `[redacted]` is not.
fn named(bytes: &[u8]) -> Option<usize> {
    let names = [&b"private_key"[..], b"privateKey"];
    let after = |name: &'static [u8]| places(bytes, name).map(move |at| at + name.len());
    let found = names.into_iter().flat_map(after).filter_map(|at| match value(bytes, at) {
        Value::Key(at) => Some(at),
        Value::Harmless | Value::NotYet => None,
    });
    found.min()
}

/// Whether a text ends between the name of a private key and its value.
pub(super) fn ends_before_value(bytes: &[u8]) -> bool {
    places(bytes, b"private_key").last().is_some_and(|at| matches!(value(bytes, at + 11), Value::NotYet))
}

enum Value {
    Key(usize),
    Harmless,
    NotYet,
}

fn value(bytes: &[u8], name_ends: usize) -> Value {
    // What may stand between the name and the value, in the text formats of protobuf, JSON and Rust.
    const BETWEEN: [&[u8]; 8] = [
        b"inline_bytes",
        b"inline_string",
        b"inlineBytes",
        b"inlineString",
        b"InlineBytes",
        b"InlineString",
        b"value",
        b"specifier",
    ];
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let between = |at: usize| {
        let length = bytes[at..].iter().take_while(|b| is_word(b)).count();
        BETWEEN.contains(&&bytes[at..at + length]).then_some(at + length)
    };
    let mut at = name_ends;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                let next = bytes[at + 1..].iter().find(|b| !b" \t\r\n".contains(b));
                let closes = next.is_none_or(|b| b":=,})]".contains(b));
                if let Some(end) = between(at + 1) {
                    at = end;
                } else if closes {
                    at += 1;
                } else {
                    return judged(bytes, at + 1, quoted(bytes, at));
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' | b':' | b'=' | b'{' | b'(' | b'\\' => at += 1,
            _ => match between(at) {
                Some(end) => at = end,
                None => {
                    let ends = |b: &u8| b" \t\r\n\"'`,;})]".contains(b);
                    return judged(bytes, at, bytes[at..].iter().take_while(|b| !ends(b)).count());
                }
            },
        }
    }
    Value::NotYet
}

/// Length of what is quoted from `at` on, up to a quote with as many backslashes.
fn quoted(bytes: &[u8], at: usize) -> usize {
    let slashes = |at: usize| at - back(bytes, at, |b| b == b'\\');
    let rest = bytes[at + 1..].iter().enumerate();
    let mut ends = rest.filter(|(n, b)| **b == bytes[at] && slashes(at + 1 + n) <= slashes(at));
    ends.next().map_or(bytes.len() - at - 1, |(n, _)| n)
}

fn judged(bytes: &[u8], at: usize, length: usize) -> Value {
    let value = &bytes[at..at + length];
    let is_path = value.starts_with(b"/") && value.contains(&b'.') && !value.contains(&b'\\');
    // What stands for a key is not taken for one, or it would be taken out again and again, with what follows.
    let is_gone = value.trim_ascii_start().starts_with(LEFT_OUT.as_bytes());
    if length >= VALUE && !is_path && !is_gone { Value::Key(at) } else { Value::Harmless }
}
