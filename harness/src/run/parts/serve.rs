//! In a pod: a part of the plan is carried out, and handed over to who asks for it.

use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::wire::{Frame, LONGEST, THANKS};
use crate::archive::pack;

/// So often it says that it goes on.
const BEAT: Duration = Duration::from_secs(5);
/// Who has all of it says so at once.
const TO_THANK: Duration = Duration::from_secs(60);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Carried {
    /// Its exit code.
    pub code: u8,
    /// Its directory, if it made one.
    pub directory: Option<Utf8PathBuf>,
}

/// Carries out `work`, and hands over what came of it to who connects, then or before. Whether somebody took it within
/// `patience` from its end.
pub async fn serve(listener: TcpListener, work: impl Future<Output = Carried>, patience: Duration) -> bool {
    let carried = watch::Sender::new(None);
    let (took, mut taken) = mpsc::channel::<()>(1);
    let hears = carried.subscribe();
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                // Too many open files: one of them will be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (hears, took) = (hears.clone(), took.clone());
            tokio::spawn(async move {
                // A connection that broke is made again by who needs it.
                if hand_over(&mut stream, hears).await.is_ok() {
                    let _ = took.try_send(());
                }
            });
        }
    });
    carried.send_replace(Some(work.await));
    let was_taken = matches!(timeout(patience, taken.recv()).await, Ok(Some(())));
    accepting.abort();
    was_taken
}

async fn hand_over(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    mut hears: watch::Receiver<Option<Carried>>,
) -> io::Result<()> {
    let Carried { code, directory } = loop {
        if let Some(carried) = hears.borrow_and_update().clone() {
            break carried;
        }
        Frame::Beat.write(stream).await?;
        if let Ok(Err(_)) = timeout(BEAT, hears.changed()).await {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    };
    Frame::Ended(code).write(stream).await?;
    if let Some(directory) = directory {
        let (pieces, mut packed) = mpsc::channel(4);
        let packing = tokio::task::spawn_blocking(move || {
            pack(&directory, io::BufWriter::with_capacity(LONGEST / 4, Pieces(pieces)))
        });
        while let Some(piece) = packed.recv().await {
            Frame::Piece(piece).write(stream).await?;
        }
        packing.await.map_err(io::Error::other)??;
    }
    Frame::Whole.write(stream).await?;
    match timeout(TO_THANK, stream.read_u8()).await?? {
        THANKS => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What is written goes on in pieces.
struct Pieces(mpsc::Sender<Vec<u8>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(LONGEST)];
        self.0.blocking_send(piece.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
