//! Where the sockets are served, and what befalls them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal};

use super::ProviderError;
use super::files::Files;
use super::issuer::Deliver;
use crate::proc::is_stopped;
use crate::scenario::Fault;
use crate::timeline::{ProxyId, Recorder, SecretName, Source};
use crate::xds::{Delivery, Outlet, OutletApart, Question, Sink, Socket, ask};

/// Numbers of the streams of fresh subscribers: far from those of the proxies.
const WITNESS_STREAMS: u64 = 1 << 40;
/// Longer than any cell in which nobody answers goes on.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the sockets are served.
pub(super) enum Serving {
    Here(Outlet),
    Apart(OutletApart),
    /// No socket at all.
    Files(Arc<Files>),
}

/// The socket, with what is wrong with it at present.
pub(super) struct Served {
    serving: Serving,
    path: Utf8PathBuf,
    wrong: Option<Fault>,
    /// Fresh subscribers that wait for an answer.
    asking: tokio::task::JoinSet<()>,
}

impl Served {
    pub(super) async fn start(program: Option<&Utf8Path>, path: &Utf8Path, sink: Sink) -> Result<Self, ProviderError> {
        let serving = match program {
            None => Serving::Here(Outlet::serve(Socket::bind(path)?, 1, sink)?),
            Some(program) => Serving::Apart(OutletApart::spawn(program, path, sink).await?),
        };
        Ok(Self { serving, path: path.to_owned(), wrong: None, asking: tokio::task::JoinSet::new() })
    }

    pub(super) fn files(files: Files) -> Self {
        let path = files.root().to_owned();
        Self { serving: Serving::Files(Arc::new(files)), path, wrong: None, asking: tokio::task::JoinSet::new() }
    }

    /// The files, where there is no socket.
    pub(super) fn as_files(&self) -> Option<&Files> {
        match &self.serving {
            Serving::Files(files) => Some(files),
            Serving::Here(_) | Serving::Apart(_) => None,
        }
    }

    /// From now on, files are put into place as these faults have it.
    pub(super) fn befall_files(&self, faults: impl FnOnce() -> HashMap<ProxyId, Fault>) {
        if let Some(files) = self.as_files() {
            files.befall(faults());
        }
    }

    /// Where proxies get their secrets.
    pub(super) fn delivery(&self) -> Delivery {
        match &self.serving {
            Serving::Files(files) => Delivery::Files(files.root().to_owned()),
            Serving::Here(_) | Serving::Apart(_) => Delivery::Socket(self.path.clone()),
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match &self.serving {
            Serving::Files(_) | Serving::Here(_) => None,
            Serving::Apart(outlet) => outlet.pid(),
        }
    }

    pub(super) fn deliver(&self) -> Deliver {
        match &self.serving {
            Serving::Here(outlet) => {
                let hub = outlet.hub();
                Box::new(move |command| hub.deliver(command))
            }
            Serving::Files(files) => {
                let files = files.clone();
                Box::new(move |command| files.deliver(command))
            }
            Serving::Apart(outlet) => {
                let commands = outlet.commands();
                Box::new(move |command| {
                    // Lost only once the process has ended, and with it the streams.
                    let _ = commands.as_ref().map(|commands| commands.send(command));
                })
            }
        }
    }

    /// Takes the socket from what was wrong with it to what is to be wrong with it now; whether that begins now.
    pub(super) async fn befall(&mut self, fault: Option<Fault>) -> Result<bool, ProviderError> {
        if self.wrong == fault {
            return Ok(false);
        }
        match (self.wrong.take(), &mut self.serving) {
            (Some(Fault::Freeze), _) => self.signal(Signal::CONT, "woken").await?,
            (Some(Fault::SocketGone), Serving::Here(outlet)) => outlet.reopen()?,
            // The old socket can't get its path back.
            (Some(Fault::SocketUnlinked), Serving::Here(outlet)) => {
                outlet.close().await;
                outlet.reopen()?;
            }
            _ => {}
        }
        match (fault, &mut self.serving) {
            (Some(Fault::Freeze), _) => self.signal(Signal::STOP, "frozen").await?,
            (Some(Fault::SocketGone), Serving::Here(outlet)) => outlet.close().await,
            (Some(Fault::SocketReplaced), Serving::Here(outlet)) => {
                outlet.close().await;
                outlet.reopen()?;
            }
            (Some(Fault::SocketUnlinked), Serving::Here(outlet)) => outlet.unlink(),
            _ => {}
        }
        self.wrong = fault;
        Ok(fault.is_some())
    }

    /// Asks as a fresh subscriber, where only one can tell what is wrong. `silent`: nothing came on any stream, which
    /// may have two reasons.
    pub(super) fn ask(&mut self, recorder: &Recorder, silent: bool) {
        if silent || matches!(self.wrong, Some(Fault::Freeze | Fault::SocketUnlinked | Fault::SocketGone)) {
            let (path, recorder) = (self.path.clone(), recorder.clone());
            let stream = WITNESS_STREAMS + recorder.len() as u64;
            self.asking.spawn(async move {
                let name = SecretName::default_svid();
                let note = |fact| {
                    recorder.record(Source::Witness, None, Some(&name), fact);
                };
                if let Err(e) = ask(Question::of(&path, &name), stream, PATIENCE, note).await {
                    recorder.record(Source::Witness, None, Some(&name), e.blind());
                }
            });
        }
    }

    async fn signal(&self, signal: Signal, what: &'static str) -> Result<(), ProviderError> {
        let Some(number) = self.pid() else { return Ok(()) };
        let failed = |source| ProviderError::Freeze { pid: number, what, source };
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        // Not reaped before `stop`: the number can't have passed to somebody else.
        let sent = pid.map_or(Err(rustix::io::Errno::SRCH), |pid| rustix::process::kill_process(pid, signal));
        sent.map_err(|e| failed(e.into()))?;
        let until = tokio::time::Instant::now() + Duration::from_secs(5);
        while signal == Signal::STOP && !is_stopped(number) {
            if tokio::time::Instant::now() > until {
                return Err(failed(std::io::ErrorKind::TimedOut.into()));
            }
            // The kernel tells only the parent's wait, which the runtime owns.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        self.asking.abort_all();
        // An error: it has ended already.
        let _ = self.befall(None).await;
        match self.serving {
            Serving::Here(outlet) => outlet.stop().await,
            Serving::Apart(outlet) => outlet.stop().await,
            // They go with the directory that they are in.
            Serving::Files(_) => {}
        }
    }
}
