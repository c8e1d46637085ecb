//! The last lines of a process's log, for messages.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use camino::Utf8Path;

use crate::timeline::log_without_private_keys;

/// However long the lines are, no more is read than this.
const AT_MOST: u64 = 64 * 1024;

/// The last `lines` lines of a log, of at most its last 64 KiB, fit for a terminal: control characters (colours,
/// cursor movements) are replaced, private keys left out.
pub fn log_tail(log: &Utf8Path, lines: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(AT_MOST);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(AT_MOST).read_to_end(&mut bytes)?;
    let kept = log_without_private_keys(&bytes);
    let text = String::from_utf8_lossy(&kept);
    let mut tail: Vec<String> = text.lines().rev().take(lines).map(printable).collect();
    tail.reverse();
    Ok(tail)
}

fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(content: &[u8], lines: usize) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log = Utf8Path::from_path(dir.path()).unwrap().join("log");
        std::fs::write(&log, content).unwrap();
        log_tail(&log, lines).unwrap()
    }

    #[test]
    fn the_last_lines_come_in_their_order() {
        assert_eq!(tail_of(b"a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail_of(b"a\nunfinished", 5), ["a", "unfinished"]);
        assert!(tail_of(b"", 5).is_empty());
    }

    #[test]
    fn a_huge_line_is_cut_and_hostile_bytes_are_made_harmless() {
        let huge = tail_of(&vec![b'x'; 1 << 20], 3);
        assert_eq!(huge.iter().map(String::len).collect::<Vec<_>>(), [64 * 1024]);
        assert_eq!(tail_of(b"\x1b[31mred\x07\xff\n", 1), ["\u{fffd}[31mred\u{fffd}\u{fffd}"]);
    }
}
