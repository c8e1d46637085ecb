//! What containers say, kept as they say it.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::pods::AGAIN;
use super::yard::Yard;
use crate::timeline::LogFilter;

/// Until the log of a container that did not run is asked for again: nothing else tells that it does.
const SOON: Duration = Duration::from_millis(300);
/// By so many bytes of its beginning the log of one start is told from that of another: what logs, tells the time.
const BEGINNING: usize = 4 << 10;

/// Keeps what a container logs, as it logs it, from one start to the next.
pub(super) async fn log(yard: Arc<Yard>, pod: String, container: &'static str, path: Utf8PathBuf) {
    // Where the disk takes nothing, the recording fails as well, and says so.
    let Ok(file) = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path) else { return };
    let mut kept = Kept::new(Filtered { filter: LogFilter::default(), into: file });
    loop {
        kept.begin();
        let follow = yard.place.cluster.follow_log(&yard.ground.namespace, &pod, container, |piece| kept.hear(piece));
        // It does not run yet, or the API server does not answer: the pods' watch tells.
        let _ = follow.await;
        tokio::time::sleep(if kept.at == 0 { SOON } else { AGAIN }).await;
    }
}

/// A log that is told from its beginning, each time that somebody asks, and is to be kept once.
struct Kept<W> {
    into: W,
    /// The first bytes of the start that was told last, and how many were kept of it.
    beginning: Vec<u8>,
    known: usize,
    /// How far it was told this time.
    at: usize,
}

impl<W: Write> Kept<W> {
    fn new(into: W) -> Self {
        Self { into, beginning: Vec::new(), known: 0, at: 0 }
    }

    /// It is told from its beginning.
    fn begin(&mut self) {
        self.at = 0;
    }

    fn hear(&mut self, piece: &[u8]) -> io::Result<()> {
        let known = &self.beginning[self.at.min(self.beginning.len())..];
        let compared = known.len().min(piece.len());
        if known[..compared] != piece[..compared] {
            // What was taken for known is the beginning of another start.
            let same = self.beginning[..self.at].to_vec();
            (self.beginning, self.known, self.at) = (Vec::new(), 0, 0);
            self.keep(&same)?;
        }
        self.keep(piece)
    }

    fn keep(&mut self, piece: &[u8]) -> io::Result<()> {
        let unknown = &piece[self.known.saturating_sub(self.at).min(piece.len())..];
        self.at += piece.len();
        self.into.write_all(unknown)?;
        self.known += unknown.len();
        let room = BEGINNING.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&unknown[..room.min(unknown.len())]);
        Ok(())
    }
}

/// Without private keys, in whole lines.
struct Filtered<W: Write> {
    filter: LogFilter,
    into: W,
}

impl<W: Write> Write for Filtered<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let mut kept = Vec::new();
        self.filter.hear(piece, &mut kept);
        self.into.write_all(&kept)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

impl<W: Write> Drop for Filtered<W> {
    fn drop(&mut self) {
        let mut kept = Vec::new();
        self.filter.finish(&mut kept);
        let _ = self.into.write_all(&kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of tellings, each in pieces of this size.
    fn kept(tellings: &[&str], size: usize) -> String {
        let mut kept = Kept::new(Vec::new());
        for told in tellings {
            kept.begin();
            told.as_bytes().chunks(size).for_each(|piece| kept.hear(piece).unwrap());
        }
        String::from_utf8(kept.into).unwrap()
    }

    #[test]
    fn what_is_told_again_is_kept_once_and_another_start_is_kept_too() {
        let long = format!("12:00 begins\n{}", "12:01 signed\n".repeat(1000));
        for size in [1, 7, 4096, 100_000] {
            assert_eq!(kept(&["12:00 a\n", "12:00 a\n", "12:00 a\n12:01 b\n"], size), "12:00 a\n12:01 b\n");
            assert_eq!(kept(&["12:00 a\n", "12:05 a\n", "12:05 a\nb\n"], size), "12:00 a\n12:05 a\nb\n");
            assert_eq!(kept(&["12:00 a\nb\n", "", "12:0"], size), "12:00 a\nb\n");
            // The first telling breaks off; the second goes on where it did.
            assert_eq!(kept(&[&long[..9000], &long, &long], size), long);
        }
    }

    #[test]
    fn a_private_key_that_comes_in_pieces_is_not_kept() {
        let mut file = Vec::new();
        let mut kept = Kept::new(Filtered { filter: LogFilter::default(), into: &mut file });
        let log =
            b"a\n-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49\n-----END PRIVATE KEY-----\nunfinished";
        log.chunks(7).for_each(|piece| kept.hear(piece).unwrap());
        drop(kept);
        assert_eq!(String::from_utf8(file).unwrap(), "a\n(a private key was left out here)\nunfinished");
    }
}
