//! What a provider's own log says that it signed, read as it grows.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use camino::{Utf8Path, Utf8PathBuf};

use crate::timeline::Signed;

/// Longer lines are none that tell of anything.
const LONGEST: usize = 64 << 10;
/// More of a log is not looked through.
const LOG_AT_MOST: u64 = 64 << 20;

/// A log of which one line tells of one certificate.
pub struct SignedLog {
    path: Utf8PathBuf,
    /// As far as it was read: the beginning of a line.
    read: u64,
    tells: fn(&str) -> Option<Signed>,
}

impl SignedLog {
    pub(super) fn new(path: &Utf8Path, tells: fn(&str) -> Option<Signed>) -> Self {
        Self { path: path.to_owned(), read: 0, tells }
    }

    /// What was said since it was asked last, in whole lines. What can't be read says nothing.
    pub(super) fn news(&mut self) -> Vec<Signed> {
        let mut news = Vec::new();
        let Ok(mut file) = File::open(&self.path) else { return news };
        if file.seek(SeekFrom::Start(self.read)).is_err() {
            return news;
        }
        let mut lines = BufReader::new(file.take(LOG_AT_MOST.saturating_sub(self.read)));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) && line.ends_with(b"\n") {
            self.read += line.len() as u64;
            if line.len() <= LONGEST {
                news.extend((self.tells)(&String::from_utf8_lossy(&line)));
            }
            line.clear();
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::timeline::Serial;

    fn number(line: &str) -> Option<Signed> {
        let serial = Serial::parse(line.trim()).ok()?;
        Some(Signed { serial, spiffe_id: "spiffe://x/y".to_owned(), not_after: None })
    }

    #[test]
    fn only_whole_lines_are_read_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("log");
        let mut log = SignedLog::new(&path, number);
        let mut serials = || -> Vec<String> { log.news().iter().map(|s| s.serial.to_string()).collect() };
        assert!(serials().is_empty(), "there is no log yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"1\nother\n2").unwrap();
        assert_eq!(serials(), ["1"]);
        file.write_all(b"3\n").unwrap();
        file.write_all(&[b'9'; LONGEST + 1]).unwrap();
        file.write_all(b"\n\xff\xfe\n4\n").unwrap();
        assert_eq!(serials(), ["23", "4"]);
        assert!(serials().is_empty());
    }
}
