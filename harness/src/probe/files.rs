//! What is seen of a proxy on this machine beside its own answers: whether it watches the files of its certificate, which
//! socket it sees, and what its log says.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use camino::Utf8Path;

use super::context::ProbeContext;
use crate::fleet::Proxy;
use crate::timeline::{Layer, Log, SocketInode, Source, Watch};

/// More than a proxy says at the level of warnings between two samples.
const MOST: u64 = 1 << 20;

/// Records whether the proxy watches the directory into which its files are moved. Of a proxy without files, nothing.
pub(super) fn files(proxy: &Proxy, ctx: &ProbeContext) {
    let Some(directory) = &proxy.watches else { return };
    match watched(proxy.pid, directory) {
        Ok(watched) => {
            let fact = Watch { directory: directory.to_string(), watched };
            ctx.recorder.record(Source::Census, Some(&proxy.id), None, fact);
        }
        Err(e) => ctx.blind(Source::Census, &proxy.id, None, "inotify", e),
    }
}

/// Records what the proxy's log said since the last time, as far as it tells about certificates.
pub(super) fn log(proxy: &Proxy, ctx: &ProbeContext) {
    if proxy.telling.is_empty() {
        return;
    }
    match said(proxy, ctx) {
        Ok(lines) => {
            for line in lines {
                ctx.recorder.record(Source::Process, Some(&proxy.id), None, Log { line });
            }
        }
        Err(e) => ctx.blind(Source::Process, &proxy.id, Some(Layer::Acked), "log", e),
    }
}

/// Whether the process has an inotify watch on the directory: proc_pid_fdinfo(5) shows the inodes, in hexadecimal.
fn watched(pid: i32, directory: &Utf8Path) -> std::io::Result<bool> {
    // Not the device, which the kernel shows in a form of its own.
    let inode = format!("{:x}", std::fs::metadata(directory)?.ino());
    for descriptor in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that was closed meanwhile watches nothing.
        let info = std::fs::read_to_string(descriptor?.path()).unwrap_or_default();
        let mut watches = info.lines().filter(|line| line.starts_with("inotify "));
        if watches.any(|line| line.split(' ').any(|field| field.strip_prefix("ino:") == Some(&inode))) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn said(proxy: &Proxy, ctx: &ProbeContext) -> std::io::Result<Vec<String>> {
    let mut file = std::fs::File::open(&proxy.log)?;
    let from = ctx.read_so_far(proxy);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    // The last line may still be being written.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    ctx.has_read(proxy, from + whole as u64);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let tells = |line: &&str| proxy.telling.iter().any(|words| line.contains(words));
    Ok(text.lines().filter(tells).map(str::to_owned).collect())
}

/// Records which inode the provider's socket has for the proxy, and which for the provider: where the file itself was
/// mounted, and not its directory, a provider that binds anew is not seen. That they are the same is recorded only where
/// it is `wanted`.
pub(super) fn socket(proxy: &Proxy, wanted: bool, ctx: &ProbeContext) {
    let Some((inside, outside)) = &proxy.socket else { return };
    let of = |path: &str| std::fs::metadata(path).ok().map(|meta| format!("{}:{}", meta.dev(), meta.ino()));
    let (seen, real) = (of(&format!("/proc/{}/root{inside}", proxy.pid)), of(outside.as_str()));
    if seen == real && !wanted {
        return;
    }
    let fact = SocketInode { socket: inside.to_string(), inside: seen, outside: real };
    ctx.recorder.record(Source::Census, Some(&proxy.id), None, fact);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_watched_from_the_moment_of_the_watch_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(!watched(me, path).unwrap());
        let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
        rustix::fs::inotify::add_watch(&inotify, path.as_str(), rustix::fs::inotify::WatchFlags::MOVED_TO).unwrap();
        assert!(watched(me, path).unwrap());
        assert!(!watched(me, path.parent().unwrap()).unwrap());
    }
}
