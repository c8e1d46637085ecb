//! A log as it comes, line by line.

use super::LEFT_OUT;
use super::find::{ends_before_value, first, letter};

/// More of a line is not kept.
const LONGEST_LINE: usize = 256 << 10;
/// Lines among which the rest of a key may be: RSA's with 8192 bits has 100.
const LINES_OF_A_KEY: usize = 128;
/// Letters of a word that may belong to a key, to which somebody adds words of their own.
const WORD: usize = 16;

/// Lets a log pass without its private keys. What is no whole line yet waits for its end.
#[derive(Debug, Default)]
pub struct LogFilter {
    line: Vec<u8>,
    /// The rest of this line is not kept.
    passed_over: bool,
    /// In so many lines there may be more of a key that has begun.
    of_key: usize,
    /// The last line ended between the name of a key and its value.
    named: bool,
}

impl LogFilter {
    /// Takes a piece of the log; what may be kept is appended to `out`.
    pub fn hear(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for part in piece.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            if !self.passed_over {
                let room = LONGEST_LINE - self.line.len();
                self.line.extend_from_slice(&text[..text.len().min(room)]);
                if text.len() > room {
                    self.passed_over = true;
                }
            }
            if ended {
                self.end(out, b"\n");
            }
        }
    }

    /// The log has ended: a last line without an end is one too.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.end(out, b"");
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, newline: &[u8]) {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.passed_over);
        let (kept, all) = self.kept(&line);
        let Some(kept) = kept else { return };
        out.extend_from_slice(kept);
        if !all {
            if !kept.is_empty() && !kept.ends_with(b" ") {
                out.push(b' ');
            }
            out.extend_from_slice(LEFT_OUT.as_bytes());
        } else if cut {
            out.extend_from_slice(b" (the rest of this line was left out here)");
        }
        out.extend_from_slice(newline);
    }

    /// What is kept of a line, and whether that is all of it; `None`: it is nothing but a part of a key.
    fn kept<'a>(&mut self, line: &'a [u8]) -> (Option<&'a [u8]>, bool) {
        if self.of_key > 0 {
            self.of_key -= 1;
            if is_end(line) {
                self.of_key = 0;
                return (None, false);
            }
            if may_be_of_key(line) {
                return (None, false);
            }
        }
        // As if the name were still before it.
        const NAME: &[u8] = b"private_key ";
        let with_name: Vec<u8> = if self.named { [NAME, line].concat() } else { line.to_vec() };
        self.named = ends_before_value(&with_name);
        let before = with_name.len() - line.len();
        match first(&with_name) {
            None => (Some(line), true),
            Some(at) => {
                let at = at.saturating_sub(before);
                self.of_key = if is_end(&line[at..]) { 0 } else { LINES_OF_A_KEY };
                (Some(&line[..at]), false)
            }
        }
    }
}

fn is_end(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    text.rfind("-END ").is_some_and(|at| text[at..].contains("PRIVATE KEY"))
}

fn may_be_of_key(line: &[u8]) -> bool {
    let is_letter = |b: &u8| letter(*b).is_some() || b"=\\".contains(b);
    let line = line.trim_ascii();
    let mut words = line.split(|b| !is_letter(b));
    !line.is_empty() && (line.iter().all(is_letter) || words.any(|word| word.len() >= WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAbBfO2Zr9Zq7Fv3Dq4GkXrGxU8hFfGJ0iWw1n5fQx0ToAoGCCqGSM49\n\
        AwEHoUQDQgAE\n-----END EC PRIVATE KEY-----\n";

    fn kept(log: &str, size: usize) -> String {
        let (mut filter, mut out) = (LogFilter::default(), Vec::new());
        log.as_bytes().chunks(size).for_each(|piece| filter.hear(piece, &mut out));
        filter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_key_of_several_lines_goes_however_the_log_comes_in_pieces() {
        let log = format!("[info] before\n[warning] it is {KEY}[info] after\nunfinished");
        for size in [1, 7, 64, 100_000] {
            let expected = format!("[info] before\n[warning] it is {LEFT_OUT}\n[info] after\nunfinished");
            assert_eq!(kept(&log, size), expected);
        }
    }

    #[test]
    fn lines_that_others_say_in_between_stay() {
        let [begin, first, second, end] = KEY.lines().collect::<Vec<_>>()[..] else { panic!() };
        let log = format!("{begin}\n12:00 {first}\n[info] a stream ended\n{second}\n{end}\nlater\n");
        assert_eq!(kept(&log, 9), format!("{LEFT_OUT}\n[info] a stream ended\nlater\n"));
    }

    #[test]
    fn the_value_may_be_on_the_line_after_its_name() {
        let log =
            "  private_key {\n    inline_bytes: \"0\\201\\207\\002\\001\\000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n  }\n";
        assert_eq!(kept(log, 5), format!("  private_key {{\n    inline_bytes: \" {LEFT_OUT}\n  }}\n"));
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let kept = kept(&format!("{}\nnext\n", "x y ".repeat(1 << 20)), 4096);
        assert!(kept.len() < 300_000 && kept.ends_with(" (the rest of this line was left out here)\nnext\n"));
    }
}
