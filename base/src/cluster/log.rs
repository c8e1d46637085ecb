//! What containers log, as they log it.

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};

use super::error::Right;
use super::pods::place;
use super::{Cluster, ClusterError, PodName};

/// A longer line is passed over: nobody reads it.
const LONGEST_LINE: usize = 64 << 10;
/// Whoever begins to listen hears what was said so many seconds before: until the log is open, something may have come.
const BEFORE: i64 = 2;

impl Cluster {
    /// Hands on what a container logs, from the beginning, until it ends or the API server breaks off.
    pub async fn follow_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        each: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ClusterError> {
        let pod = PodName { namespace: namespace.to_owned(), name: pod.to_owned() };
        let params = LogParams { container: Some(container.into()), follow: true, ..LogParams::default() };
        self.follow(&pod, &params, each).await
    }

    /// Hands on what a container logs from now on, line by line, each with the time at which its node took it.
    pub async fn listen(
        &self,
        pod: &PodName,
        container: &str,
        mut each: impl FnMut(jiff::Timestamp, &str) -> std::io::Result<()>,
    ) -> Result<(), ClusterError> {
        let params = LogParams {
            container: Some(container.into()),
            follow: true,
            timestamps: true,
            since_seconds: Some(BEFORE),
            ..LogParams::default()
        };
        let mut lines = Lines::default();
        let each = |piece: &[u8]| {
            lines.take(piece, |line| match timed(line) {
                Some((time, line)) => each(time, line),
                None => Ok(()),
            })
        };
        self.follow(pod, &params, each).await
    }

    async fn follow(
        &self,
        pod: &PodName,
        params: &LogParams,
        mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ClusterError> {
        let container = params.container.as_deref().unwrap_or_default();
        let what = format!("follow the log of {pod} {container}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let opened = api.log_stream(&pod.name, params).await;
        let stream = opened.map_err(|e| ClusterError::of(&e, Right::Logs, &place(Some(&pod.namespace))))?;
        futures::pin_mut!(stream);
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = async {
                let n = stream.read(&mut buffer).await?;
                each(&buffer[..n]).map(|()| n)
            };
            match read.await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(ClusterError::Undone { what, said: e.to_string() }),
            }
        }
    }
}

/// A line, and before it the time at which its node took it.
pub(super) fn timed(line: &str) -> Option<(jiff::Timestamp, &str)> {
    let (time, line) = line.split_once(' ')?;
    Some((time.parse().ok()?, line))
}

/// Puts pieces together to lines.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn take(&mut self, piece: &[u8], mut each: impl FnMut(&str) -> std::io::Result<()>) -> std::io::Result<()> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n");
            self.too_long |= self.line.len() + part.len() > LONGEST_LINE;
            if !self.too_long {
                self.line.extend_from_slice(text.unwrap_or(part));
            }
            if text.is_some() {
                let line = std::mem::take(&mut self.line);
                if !std::mem::take(&mut self.too_long) {
                    each(&String::from_utf8_lossy(&line))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::canned::answering;

    #[tokio::test]
    async fn lines_come_with_their_time_and_what_is_none_is_passed_over() {
        let log = "2026-11-26T22:39:02.5Z a line\nno time\n2026-11-26T22:39:03Z \n2026-11-26T22:39:04Z unfinished\n";
        let (cluster, asked) = answering(vec![(200, json!(log))]);
        let pod = PodName { namespace: "ns".into(), name: "a".into() };
        let mut heard = Vec::new();
        let listen = cluster.listen(&pod, "istio-proxy", |time, line| {
            heard.push((time.to_string(), line.to_owned()));
            Ok(())
        });
        listen.await.unwrap();
        let lines: Vec<_> = heard.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["a line", "", "unfinished"]);
        assert_eq!(heard[0].0, "2026-11-26T22:39:02.5Z");
        let asked = asked.await.unwrap();
        for part in ["/pods/a/log?", "container=istio-proxy", "follow=true", "timestamps=true", "sinceSeconds=2"] {
            assert!(asked[0].contains(part), "{asked:?}");
        }
    }

    #[test]
    fn lines_are_whole_however_they_are_cut_and_have_an_end() {
        let long = "x".repeat(LONGEST_LINE + 1);
        let text = format!("one\n{long}\ntwo\nthr");
        for size in [1, 3, 4096, text.len()] {
            let (mut lines, mut heard) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines
                    .take(piece, |line| {
                        heard.push(line.to_owned());
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(heard, ["one", "two"], "in pieces of {size}");
        }
    }
}
