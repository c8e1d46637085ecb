//! Links and relays on loopback: what goes in comes out, and what breaks is seen to be broken.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::Utf8PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::*;
use crate::clock::Deadline;
use crate::xds::Socket;

/// For whatever is awaited; nothing here takes a tenth of it.
const GENEROUS: Duration = Duration::from_secs(60);

async fn soon<F: Future>(awaited: F) -> F::Output {
    tokio::time::timeout(GENEROUS, awaited).await.expect("it comes within a minute")
}

/// A relay, and the harness's link to it through a way that can be cut.
struct Scene {
    dir: tempfile::TempDir,
    keys: Keys,
    relay: Relay,
    link: Link,
    events: mpsc::UnboundedReceiver<Event>,
    way: Way,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new().unwrap();
        let files = Utf8PathBuf::from_path_buf(dir.path().join("files")).unwrap();
        std::fs::create_dir(&files).unwrap();
        let relay = Relay::start(loopback(), &keys.relay().unwrap(), Some(files)).await.unwrap();
        let (tell, events) = mpsc::unbounded_channel();
        let tell: Tell = Arc::new(move |event| drop(tell.send(event)));
        let way = Way::to(relay.addr());
        let deadline = Deadline::after(GENEROUS);
        let link = Link::connect("a pod", way.connector(), &keys.harness().unwrap(), tell, deadline).await.unwrap();
        Self { dir, keys, relay, link, events, way }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join(name)).unwrap()
    }

    async fn event(&mut self) -> Event {
        soon(self.events.recv()).await.unwrap()
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A way that breaks when it is told to.
#[derive(Clone)]
struct Way {
    addr: SocketAddr,
    open: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
}

impl Way {
    fn to(addr: SocketAddr) -> Self {
        Self { addr, open: Arc::default() }
    }

    fn connector(&self) -> Connector {
        let way = self.clone();
        Arc::new(move || {
            let way = way.clone();
            Box::pin(async move {
                let mut there = TcpStream::connect(way.addr).await.map_err(|e| e.to_string())?;
                let (near, mut far) = tokio::io::duplex(64 << 10);
                let task = tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut far, &mut there).await;
                });
                way.open.lock().unwrap().push(task.abort_handle());
                Ok(Opened { io: Box::new(near), said: Box::pin(async { Some("the way was cut".into()) }) })
            })
        })
    }

    fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

/// A server that reads all, and then says how much it was and what its last byte.
async fn counting() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(format!("{} {:?}", all.len(), all.last()).as_bytes()).await.unwrap();
            });
        }
    });
    addr
}

async fn forwarded(link: &Link, addr: SocketAddr) -> (Forward, TcpStream) {
    let forward = link.forward(Target::tcp(addr.ip(), addr.port())).await.unwrap();
    let stream = TcpStream::connect(forward.addr()).await.unwrap();
    (forward, stream)
}

#[tokio::test]
async fn ten_megabytes_go_in_and_the_answer_comes_after_the_end_of_what_was_said() {
    let scene = Scene::new().await;
    let (_forward, mut stream) = forwarded(&scene.link, counting().await).await;
    let mut said = vec![7; 10 << 20];
    *said.last_mut().unwrap() = 9;
    soon(stream.write_all(&said)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "10485760 Some(9)");
    assert_eq!(scene.link.version(), env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn what_a_server_says_after_which_it_ends_comes_whole_and_our_side_may_go_on() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let (_forward, mut stream) = forwarded(&scene.link, listener.local_addr().unwrap()).await;
    let (mut served, _) = soon(listener.accept()).await.unwrap();
    let said = vec![1; 10 << 20];
    let mut heard = Vec::new();
    let (wrote, read) = soon(async {
        tokio::join!(
            async {
                served.write_all(&said).await?;
                served.shutdown().await
            },
            stream.read_to_end(&mut heard)
        )
    })
    .await;
    wrote.unwrap();
    assert_eq!((read.unwrap(), heard.iter().all(|byte| *byte == 1)), (10 << 20, true));
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut last = String::new();
    soon(served.read_to_string(&mut last)).await.unwrap();
    assert_eq!(last, "still here");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_pod_is_broken_here_and_not_merely_ended() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let (_forward, mut stream) = forwarded(&scene.link, listener.local_addr().unwrap()).await;
    let (mut served, _) = soon(listener.accept()).await.unwrap();
    served.write_all(b"last words").await.unwrap();
    let mut heard = [0; 10];
    soon(stream.read_exact(&mut heard)).await.unwrap();
    served.set_zero_linger().unwrap();
    drop(served);
    assert_eq!(soon(stream.read(&mut heard)).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_reads_nothing_stops_himself_and_nobody_else() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let forward = scene.link.forward(Target::tcp("127.0.0.1", listener.local_addr().unwrap().port())).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(forward.addr()).await.unwrap();
        let (served, _) = soon(listener.accept()).await.unwrap();
        // Until nothing moves any more: the buffers on the way are full, and bounded.
        let mut sent = 0;
        let chunk = vec![0; 64 << 10];
        while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(200), stream.write(&chunk)).await {
            sent += wrote.unwrap();
            assert!(sent < 64 << 20, "it took {sent} bytes that nobody reads");
        }
        held.push((stream, served));
    }
    let (_forward, mut stream) = forwarded(&scene.link, counting().await).await;
    stream.write_all(&[3; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "100000 Some(3)");
}

#[tokio::test]
async fn a_place_where_nobody_is_breaks_the_connection_and_is_told() {
    let mut scene = Scene::new().await;
    let nobody = TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    let (_forward, mut stream) = forwarded(&scene.link, nobody).await;
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let Event::Failed { asked, why } = scene.event().await else { panic!("something else was told") };
    assert_eq!(asked, format!("dial tcp:{nobody}"));
    assert!(why.contains("refused"), "{why}");
    let missing = Target::Unix(scene.path("nobody"));
    let _forward = scene.link.forward(missing.clone()).await.unwrap();
    let mut stream = TcpStream::connect(_forward.addr()).await.unwrap();
    assert!(soon(stream.read(&mut [0])).await.is_err());
    let Event::Failed { asked, why } = scene.event().await else { panic!("something else was told") };
    assert!(asked == format!("dial {missing}") && why.contains("No such file"), "{asked}: {why}");
}

#[tokio::test]
async fn a_socket_in_the_pod_leads_to_one_here_and_exists_as_long_as_that() {
    let scene = Scene::new().await;
    let (near, far) = (scene.path("near"), scene.path("far"));
    let here = Socket::bind(&near).unwrap();
    let serving = scene.link.serve(Target::Unix(far.clone()), 0o666, Local::Unix(near.clone())).await.unwrap();
    assert_eq!(serving.bound(), format!("unix:{far}"));
    assert_eq!(std::fs::metadata(&far).unwrap().permissions().mode() & 0o777, 0o666);
    drop(here);
    soon(until(|| !far.exists())).await;
    let listener = UnixListener::bind(&near).unwrap();
    soon(until(|| far.exists())).await;
    let mut there = soon(UnixStream::connect(&far)).await.unwrap();
    let (mut here, _) = soon(listener.accept()).await.unwrap();
    there.write_all(b"asked").await.unwrap();
    there.shutdown().await.unwrap();
    let mut heard = String::new();
    soon(here.read_to_string(&mut heard)).await.unwrap();
    here.write_all(b"answered").await.unwrap();
    drop(here);
    let mut answer = String::new();
    soon(there.read_to_string(&mut answer)).await.unwrap();
    assert_eq!((heard.as_str(), answer.as_str()), ("asked", "answered"));
    drop(serving);
    soon(until(|| !far.exists())).await;
}

/// Looks until it is so: a file's existence is no event.
async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_way_that_was_cut_is_made_again_and_both_is_told() {
    let mut scene = Scene::new().await;
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let there = scene.link.serve(Target::tcp("127.0.0.1", 0), 0, Local::Tcp(listener.local_addr().unwrap()));
    let serving = there.await.unwrap();
    let bound: Target = serving.bound().parse().unwrap();
    let Target::Tcp(host, port) = bound else { panic!("it listens at {}", serving.bound()) };
    let served = scene.link.serve(Target::tcp(&host, port), 0, Local::Tcp(listener.local_addr().unwrap()));
    // The same place, asked for again, is taken over.
    let _serving = (served.await.unwrap(), drop(serving));
    let forward = forwarded(&scene.link, counting().await).await.0;
    let held = TcpListener::bind(loopback()).await.unwrap();
    let (_forward, mut stream) = forwarded(&scene.link, held.local_addr().unwrap()).await;
    let (mut there, _) = soon(held.accept()).await.unwrap();
    there.write_all(b"x").await.unwrap();
    soon(stream.read_exact(&mut [0])).await.unwrap();
    scene.way.cut();
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let Event::Cut { why } = scene.event().await else { panic!("something else was told") };
    assert!(why.contains("the way was cut"), "{why}");
    let event = scene.event().await;
    assert!(matches!(event, Event::Restored { .. }), "{event:?}");
    let mut stream = TcpStream::connect(forward.addr()).await.unwrap();
    stream.write_all(b"whole").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "5 Some(101)");
    // The relay's listener is there again as well.
    let connected = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect((host.as_str(), port)).await
                && stream.write_all(b"x").await.is_ok()
                && let Ok(accepted) = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await
            {
                return (stream, accepted.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (_there, (mut here, _)) = soon(connected).await;
    soon(here.read_exact(&mut [0])).await.unwrap();
}

#[tokio::test]
async fn certificates_of_another_run_and_those_of_relays_are_refused() {
    let scene = Scene::new().await;
    let other = Keys::new().unwrap();
    let nobody: Tell = Arc::new(|_| {});
    let connect = |credentials: Credentials| {
        let deadline = Deadline::after(Duration::from_secs(3));
        let (connector, nobody) = (over_tcp(scene.relay.addr()), nobody.clone());
        async move { Link::connect("a pod", connector, &credentials, nobody, deadline).await }
    };
    // Who asks is no harness of this run, though he believes its relays.
    let stranger = other.harness().unwrap().believing(&scene.keys.harness().unwrap());
    let pod = scene.keys.relay().unwrap().believing(&scene.keys.harness().unwrap());
    for credentials in [stranger, pod] {
        let error = connect(credentials).await.err().unwrap().to_string();
        assert!(error.starts_with("reach the relay of a pod: ") && error.contains("fatal alert"), "{error}");
    }
    // And the other way round: this is no relay of his.
    let error = connect(other.harness().unwrap()).await.err().unwrap().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(connect(scene.keys.harness().unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_file_is_put_below_the_directory_and_nowhere_else() {
    let scene = Scene::new().await;
    soon(scene.link.put("clock/offset", vec![1, 2, 3], 0o644)).await.unwrap();
    assert_eq!(std::fs::read(scene.path("files/clock/offset")).unwrap(), [1, 2, 3]);
    let error = soon(scene.link.put("../offset", vec![1], 0o644)).await.unwrap_err().to_string();
    assert!(error.contains("put \"../offset\"") && error.contains("must lead below"), "{error}");
    assert!(!scene.path("offset").exists());
    let error = scene.link.put("large", vec![0; 4 << 20], 0o644).await.unwrap_err().to_string();
    assert!(error.contains("4194304 bytes"), "{error}");
}

#[tokio::test]
async fn the_echo_answers_with_the_name_of_its_host() {
    let echo = Echo::start(loopback()).await.unwrap();
    let mut stream = TcpStream::connect(echo.addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{}\n", echo::host_name())), "{answer}");
}

#[test]
fn credentials_are_read_as_they_were_written_and_what_is_wrong_is_said_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    let error = Credentials::read(&path).unwrap_err().to_string();
    assert!(error.contains("ca.pem"), "{error}");
    let made = Keys::new().unwrap().relay().unwrap();
    for (name, content) in made.files() {
        std::fs::write(path.join(name), content).unwrap();
    }
    let read = Credentials::read(&path).unwrap();
    assert_eq!(read.files(), made.files());
    assert_eq!(format!("{read:?}"), "Credentials(..)");
    std::fs::write(path.join("key.pem"), "-----BEGIN PRIVATE KEY-----\nc2VjcmV0").unwrap();
    let error = Credentials::read(&path).unwrap_err().to_string();
    assert!(error.contains("key.pem holds no private key") && !error.contains("c2Vj"), "{error}");
}

#[tokio::test]
async fn a_door_is_there_before_its_way_and_who_came_early_is_led_on() {
    let scene = Scene::new().await;
    let there = scene.path("there.sock");
    let listener = UnixListener::bind(&there).unwrap();
    let door = Door::open(&scene.path("door.sock"), Target::Unix(there)).unwrap();
    let mut early = UnixStream::connect(door.path()).await.unwrap();
    early.write_all(b"early").await.unwrap();
    // Nobody dials before there is a way.
    let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "{nobody:?}");
    door.lead_by(&scene.link);
    let (mut accepted, _) = soon(listener.accept()).await.unwrap();
    let mut heard = [0; 5];
    soon(accepted.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"early");
    let path = door.path().to_owned();
    drop(door);
    assert!(!path.exists());
}
