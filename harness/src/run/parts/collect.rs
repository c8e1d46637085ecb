//! In the harness: a part's run directory, from its pod to here.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::time::Duration;

use camino::Utf8Path;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::TO_HAND_OVER;
use super::wire::{Frame, THANKS};
use crate::archive::unpack;

/// Several beats: who says nothing for so long is not there.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// More bytes than any run directory has.
const MOST_BYTES: u64 = 16 << 30;

/// A part that is here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collected {
    /// The exit code of its run.
    pub(super) code: u8,
}

/// Why a pod could not be asked.
#[derive(Debug)]
pub(super) enum Shut {
    /// It may be answered later.
    Now(String),
    /// However often it is tried.
    Ever(String),
}

/// Asks a pod for its part, again and again as long as it runs, and unpacks it into `directory`. An error says why it is
/// lost. `ended` tells when there is nobody to be asked any more.
pub(super) async fn collect<S: AsyncRead + AsyncWrite + Unpin>(
    open: impl Fn() -> BoxFuture<'static, Result<S, Shut>>,
    mut ended: watch::Receiver<Option<String>>,
    directory: &Utf8Path,
) -> Result<Collected, String> {
    let mut parcel = tempfile::tempfile().map_err(|e| format!("no room for it: {e}"))?;
    let asked = async {
        loop {
            let why = match open().await {
                Ok(mut stream) => match receive(&mut stream, &mut parcel).await {
                    Ok(code) => return Ok((code, stream)),
                    Err(e) if e.kind() == io::ErrorKind::StorageFull => return Err(format!("no room for it: {e}")),
                    Err(e) => e.to_string(),
                },
                Err(Shut::Now(why)) => why,
                Err(Shut::Ever(why)) => return Err(why),
            };
            tracing::debug!("a part is asked for again: {why}");
            tokio::time::sleep(PAUSE).await;
        }
    };
    let gone = async {
        let why = match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "nobody waits for it".to_owned(),
        };
        // It may just be handing it over.
        tokio::time::sleep(TO_HAND_OVER).await;
        why
    };
    let (code, mut stream) = tokio::select! {
        received = asked => received?,
        why = gone => return Err(why),
    };
    let target = directory.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || {
        std::fs::create_dir(&target).map_err(|e| e.to_string())?;
        unpack(io::BufReader::new(parcel), &target).map_err(|e| e.to_string())
    });
    unpacked.await.map_err(|e| e.to_string())??;
    // It need not wait any longer; if it does not hear that, it ends by itself.
    let _ = stream.write_u8(THANKS).await;
    let _ = stream.flush().await;
    Ok(Collected { code })
}

/// The exit code; the parcel is then ready to be read.
async fn receive(stream: &mut (impl AsyncRead + Unpin), parcel: &mut File) -> io::Result<u8> {
    let mut code = None;
    let mut bytes = 0u64;
    loop {
        match (timeout(SILENCE, Frame::read(stream)).await??, code) {
            (Frame::Beat, None) => {}
            (Frame::Ended(ended), None) => {
                code = Some(ended);
                parcel.set_len(0)?;
                parcel.rewind()?;
            }
            (Frame::Piece(piece), Some(_)) => {
                bytes = bytes.saturating_add(piece.len() as u64);
                if bytes > MOST_BYTES {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                parcel.write_all(&piece)?;
            }
            (Frame::Whole, Some(code)) => {
                parcel.rewind()?;
                return Ok(code);
            }
            (frame, _) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("out of turn: {frame:?}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use camino::Utf8PathBuf;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::super::serve::{Carried, serve};
    use super::*;

    struct Scene {
        _dir: tempfile::TempDir,
        root: Utf8PathBuf,
    }

    impl Scene {
        /// A run directory, with a file larger than a frame.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
            std::fs::create_dir_all(root.join("run/cells")).unwrap();
            std::fs::write(root.join("run/cells/large"), vec![7; 3 << 20]).unwrap();
            Self { _dir: dir, root }
        }

        fn carried(&self) -> Carried {
            Carried { code: 1, directory: Some(self.root.join("run")) }
        }

        fn target(&self) -> Utf8PathBuf {
            self.root.join("here")
        }
    }

    fn dial(at: SocketAddr) -> BoxFuture<'static, Result<TcpStream, Shut>> {
        Box::pin(async move { TcpStream::connect(at).await.map_err(|e| Shut::Now(e.to_string())) })
    }

    fn refused(why: Shut) -> BoxFuture<'static, Result<TcpStream, Shut>> {
        Box::pin(async { Err(why) })
    }

    #[tokio::test]
    async fn a_run_directory_comes_over_also_when_the_way_is_cut_before() {
        let scene = Scene::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (end, ends) = oneshot::channel();
        let carried = scene.carried();
        let work = async move {
            ends.await.unwrap();
            carried
        };
        let serving = tokio::spawn(serve(listener, work, Duration::from_secs(60)));
        // The first connection hears a beat, and breaks.
        let mut first = TcpStream::connect(at).await.unwrap();
        assert_eq!(Frame::read(&mut first).await.unwrap(), Frame::Beat);
        drop(first);
        end.send(()).unwrap();
        let open = || dial(at);
        let (_ended, hears) = watch::channel(None);
        assert_eq!(collect(open, hears, &scene.target()).await, Ok(Collected { code: 1 }));
        assert_eq!(std::fs::read(scene.target().join("cells/large")).unwrap(), vec![7; 3 << 20]);
        assert!(serving.await.unwrap(), "it was told that it is done");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_whose_pod_is_gone_is_lost_with_the_reason() {
        let scene = Scene::new();
        let (_ended, hears) = watch::channel(Some("its pod was taken away".to_owned()));
        let open = || refused(Shut::Now("no way".to_owned()));
        assert_eq!(collect(open, hears, &scene.target()).await, Err("its pod was taken away".to_owned()));
        assert!(!scene.target().exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_nobody_may_ask_is_not_asked_for_ever() {
        let scene = Scene::new();
        let (_ended, hears) = watch::channel(None);
        let open = || refused(Shut::Ever("forbidden".to_owned()));
        assert_eq!(collect(open, hears, &scene.target()).await, Err("forbidden".to_owned()));
    }

    #[tokio::test]
    async fn a_run_without_a_directory_has_a_code_and_one_that_nobody_takes_is_told() {
        let scene = Scene::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let work = async { Carried { code: 2, directory: None } };
        let serving = tokio::spawn(serve(listener, work, Duration::from_secs(60)));
        let open = || dial(at);
        let (_ended, hears) = watch::channel(None);
        assert_eq!(collect(open, hears, &scene.target()).await, Ok(Collected { code: 2 }));
        assert!(serving.await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(!serve(listener, async { scene.carried() }, Duration::from_millis(10)).await);
    }
}
