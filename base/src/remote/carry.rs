//! One connection, carried both ways as pieces of a call.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Target;
use super::pb::piece::Content;
use super::pb::{End, Piece};
use crate::xds::dial;

/// As much is read at once.
const CHUNK: usize = 32 << 10;
/// Pieces that may wait to be sent; whoever reads slowly slows down who writes.
pub(super) const PIECES: usize = 4;

/// For room in the queue of whoever listens on a Unix socket.
const ROOM: Duration = Duration::from_secs(5);

/// A connection of either kind.
pub(super) enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Conn {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        // Handshakes are short messages, each of which is waited for. It fails only where the peer has gone.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(super) async fn to(target: &Target) -> io::Result<Self> {
        match target {
            Target::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).await.map(Self::tcp),
            Target::Unix(path) => dial(path, ROOM).await.map(Self::Unix),
        }
    }

    /// Ends it so that the peer sees a connection that broke, not one that was ended; a Unix socket has no such end.
    pub(super) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            let _ = stream.set_zero_linger();
        }
    }

    fn split(&mut self) -> (Box<dyn AsyncRead + Send + Unpin + '_>, Box<dyn AsyncWrite + Send + Unpin + '_>) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
            Self::Unix(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
        }
    }
}

/// A first piece, as the relay is told what is meant.
pub(super) fn piece(content: Content) -> Piece {
    Piece { content: Some(content) }
}

/// Carries both ways until both have ended; then the connection is closed. If it breaks on either side, it is broken
/// on the other. `wrap` makes of a piece what the call takes.
pub(super) async fn carry<T>(
    mut conn: Conn,
    incoming: Streaming<Piece>,
    outgoing: mpsc::Sender<T>,
    wrap: fn(Piece) -> T,
) -> Result<(), String> {
    let (reader, writer) = conn.split();
    let carried = tokio::try_join!(read(reader, outgoing, wrap), write(writer, incoming));
    let result = match carried {
        Ok(((), None)) => Ok(()),
        Ok(((), Some(why))) | Err(why) => Err(why),
    };
    if result.is_err() {
        conn.reset();
    }
    result
}

async fn read<T>(
    mut reader: Box<dyn AsyncRead + Send + Unpin + '_>,
    outgoing: mpsc::Sender<T>,
    wrap: fn(Piece) -> T,
) -> Result<(), String> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let read = reader.read_buf(&mut buffer).await.map_err(|e| e.to_string())?;
        let content = if read == 0 { Content::End(End {}) } else { Content::Bytes(buffer.split().freeze()) };
        outgoing.send(wrap(piece(content))).await.map_err(|_| "the call has ended".to_owned())?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Until the call ends. That nobody takes what is written is no reason not to read what he said before: it is returned.
async fn write(
    mut writer: Box<dyn AsyncWrite + Send + Unpin + '_>,
    mut incoming: Streaming<Piece>,
) -> Result<Option<String>, String> {
    let mut ended = false;
    loop {
        let heard = incoming.message().await.map_err(|status| words(&status))?;
        let written = match heard.and_then(|piece| piece.content) {
            Some(Content::Bytes(bytes)) if !ended => writer.write_all(&bytes).await,
            Some(Content::End(_)) if !ended => {
                ended = true;
                match writer.shutdown().await {
                    // The peer has closed already: nothing is lost.
                    Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
                    other => other,
                }
            }
            None if ended => return Ok(None),
            None => return Err("it broke on the other side".into()),
            Some(_) => return Err("a piece came that does not belong here".into()),
        };
        if let Err(e) = written {
            return Ok(Some(e.to_string()));
        }
    }
}

/// What a status says, without its code where it has words.
pub(super) fn words(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect(),
    }
}
