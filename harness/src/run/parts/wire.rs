//! What a pod says of its part of the plan: frames of a byte that tells what it is, a length, and so many bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// No frame is longer.
pub(super) const LONGEST: usize = 1 << 20;
/// What the harness says when it has all.
pub(super) const THANKS: u8 = b'K';

/// One thing that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The run goes on.
    Beat,
    /// The run ended, with this exit code; pieces follow.
    Ended(u8),
    /// A piece of the parcel.
    Piece(Vec<u8>),
    /// That was all of it.
    Whole,
}

impl Frame {
    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (tag, bytes): (u8, &[u8]) = match self {
            Self::Beat => (b'B', &[]),
            Self::Ended(code) => (b'E', std::slice::from_ref(code)),
            Self::Piece(bytes) => (b'P', bytes),
            Self::Whole => (b'W', &[]),
        };
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        to.write_u8(tag).await?;
        to.write_u32(length).await?;
        to.write_all(bytes).await?;
        to.flush().await
    }

    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let malformed = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let tag = from.read_u8().await?;
        let length = from.read_u32().await? as usize;
        if length > LONGEST {
            return Err(malformed(format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).await?;
        match (tag, bytes.as_slice()) {
            (b'B', []) => Ok(Self::Beat),
            (b'E', [code]) => Ok(Self::Ended(*code)),
            (b'P', _) => Ok(Self::Piece(bytes)),
            (b'W', []) => Ok(Self::Whole),
            _ => Err(malformed(format!("a frame {tag:#04x} of {length} bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_what_is_none_is_refused() {
        for frame in [Frame::Beat, Frame::Ended(5), Frame::Piece(vec![1, 2]), Frame::Whole] {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).await.unwrap();
            assert_eq!(Frame::read(&mut bytes.as_slice()).await.unwrap(), frame);
            bytes.pop();
            Frame::read(&mut bytes.as_slice()).await.unwrap_err();
        }
        for hostile in [&b"X\0\0\0\0"[..], b"P\xff\xff\xff\xff", b"E\0\0\0\0", b"B\0\0\0\x01x"] {
            let e = Frame::read(&mut { hostile }).await.unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{hostile:?}");
        }
    }
}
