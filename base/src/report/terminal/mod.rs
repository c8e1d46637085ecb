//! Progress on standard error, the matrix on standard output.
//!
//! On a terminal there are bars and colours; in a pipe, a file or CI plain lines, and a sign of life when nothing was
//! said for half a minute.

mod live;
mod paint;
mod summary;

use std::io::{IsTerminal as _, Write};
use std::time::Instant;

use super::{ReportError, Reporter};
use crate::archive::RunEvent;

pub use paint::Paint;
pub use summary::summary;

use live::Live;

/// Columns where nothing says how many there are.
const USUAL_WIDTH: usize = 80;
/// Wide terminals make no wider matrices than one can follow with the eye.
const WIDEST: usize = 160;

/// Where and how to talk.
pub struct Style {
    /// Bars instead of lines (standard error is a terminal).
    pub bars: bool,
    /// Colours in the talk.
    pub talk: Paint,
    /// Colours in the data.
    pub data: Paint,
    /// Columns for the data.
    pub width: usize,
    /// Whether sentences of the data are wrapped at the width; whoever greps wants them whole.
    pub fold: bool,
}

/// The reporter of a person at a terminal, and of whoever reads logs.
pub struct Terminal {
    live: Live,
    data: Box<dyn Write + Send>,
    paint: Paint,
    width: usize,
    fold: bool,
}

impl Terminal {
    /// Standard error and standard output; `stdout_taken` puts the data on standard error too.
    pub fn attached(stdout_taken: bool) -> Self {
        let stderr_tty = std::io::stderr().is_terminal();
        let data_tty = if stdout_taken { stderr_tty } else { std::io::stdout().is_terminal() };
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && !dumb;
        let paint = |tty: bool| if tty && colour { Paint::Colour } else { Paint::Plain };
        let style = Style {
            bars: stderr_tty && !dumb,
            talk: paint(stderr_tty),
            data: paint(data_tty),
            width: width(data_tty, stdout_taken),
            fold: data_tty,
        };
        let data: Box<dyn Write + Send> =
            if stdout_taken { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
        Self::new(style, Box::new(std::io::stderr()), data)
    }

    /// Talks to `talk`, writes the matrix to `data`.
    pub fn new(style: Style, talk: Box<dyn Write + Send>, data: Box<dyn Write + Send>) -> Self {
        let live = if style.bars {
            Live::bars(style.talk, style.width)
        } else {
            Live::lines(talk, style.talk, Instant::now())
        };
        Self { live, data, paint: style.data, width: style.width, fold: style.fold }
    }

    fn tick_at(&mut self, now: Instant) -> Result<(), ReportError> {
        unless_nobody_reads(self.live.tick(now))
    }
}

impl Reporter for Terminal {
    fn event(&mut self, event: &RunEvent) -> Result<(), ReportError> {
        unless_nobody_reads(self.live.event(event, Instant::now()))?;
        if let RunEvent::RunFinished { run, cells } = event {
            let mut text = summary(run, cells, self.width, self.paint);
            if self.fold {
                // Commands and paths are there to be copied, and the matrix has been made to fit.
                let whole = |line: &str| line.starts_with(' ') || !line.contains(": ");
                let lines = text.lines().map(|l| if whole(l) { l.to_owned() } else { folded(l, self.width) });
                text = lines.map(|line| line + "\n").collect();
            }
            unless_nobody_reads(self.data.write_all(text.as_bytes()).and_then(|()| self.data.flush()))?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), ReportError> {
        self.tick_at(Instant::now())
    }
}

/// A sentence for a terminal: wrapped between words, with a hanging indent; colour takes no width.
fn folded(line: &str, width: usize) -> String {
    let options = textwrap::Options::new(width).subsequent_indent("    ").break_words(false);
    textwrap::fill(line, options.word_splitter(textwrap::WordSplitter::NoHyphenation))
}

/// Whoever reads (`| head`) may have had enough.
fn unless_nobody_reads(written: std::io::Result<()>) -> Result<(), ReportError> {
    match written {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(ReportError::Terminal),
    }
}

fn width(tty: bool, on_stderr: bool) -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|c| c.parse::<usize>().ok());
    let measured = || {
        let size = if on_stderr {
            rustix::termios::tcgetwinsize(std::io::stderr())
        } else {
            rustix::termios::tcgetwinsize(std::io::stdout())
        };
        size.ok().map(|s| usize::from(s.ws_col)).filter(|c| *c > 0)
    };
    asked.or_else(|| tty.then(measured).flatten()).unwrap_or(USUAL_WIDTH).clamp(40, WIDEST)
}

#[cfg(test)]
mod tests;
