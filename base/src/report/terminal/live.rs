//! What is said while a run goes on.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::Mark;
use super::super::text::{duration, plain, span};
use super::folded;
use super::paint::Paint;
use super::summary::verdict_line;
use crate::archive::RunEvent;
use crate::timeline::CellId;

/// After so much silence, a line says that the run is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// On a terminal, so many cells are each told in a sentence; of more, only those that need somebody.
const FEW: usize = 10;

pub(super) enum Live {
    Lines(Lines),
    Bars(Bars),
}

impl Live {
    pub(super) fn lines(out: Box<dyn Write + Send>, paint: Paint, now: Instant) -> Self {
        Live::Lines(Lines { out, paint, done: 0, total: 0, running: BTreeMap::new(), last_said: now })
    }

    pub(super) fn bars(paint: Paint, width: usize) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Live::Bars(Bars { screen, paint, width, overall: None, running: BTreeMap::new(), few: false })
    }

    pub(super) fn event(&mut self, event: &RunEvent, now: Instant) -> std::io::Result<()> {
        match self {
            Live::Lines(lines) => lines.event(event, now),
            Live::Bars(bars) => bars.event(event),
        }
    }

    pub(super) fn tick(&mut self, now: Instant) -> std::io::Result<()> {
        match self {
            Live::Lines(lines) => lines.tick(now),
            Live::Bars(bars) => {
                bars.overall.iter().chain(bars.running.values()).for_each(ProgressBar::tick);
                Ok(())
            }
        }
    }
}

/// `observe 12/33, 4 h 12 min of cell time`.
fn progress(phase: &str, step: u32, steps: u32, cell_time_s: u64) -> String {
    let mut text = plain(phase).replace('_', " ");
    if steps > 0 {
        text.push_str(&format!(" {step}/{steps}"));
    }
    if cell_time_s > 0 {
        text.push_str(&format!(", {} of cell time", span(i64::try_from(cell_time_s).unwrap_or(i64::MAX))));
    }
    text
}

/// For logs: a line for each cell that ended, and signs of life.
pub(super) struct Lines {
    out: Box<dyn Write + Send>,
    paint: Paint,
    done: usize,
    total: usize,
    running: BTreeMap<CellId, String>,
    last_said: Instant,
}

impl Lines {
    fn event(&mut self, event: &RunEvent, now: Instant) -> std::io::Result<()> {
        match event {
            RunEvent::RunStarted { run, cells } => {
                self.total = cells.len();
                let noun = if self.total == 1 { "cell" } else { "cells" };
                self.say(now, &format!("run {}: {} {noun}, {} at a time", plain(&run.id), self.total, run.jobs))
            }
            RunEvent::Notice { text } => self.say(now, &plain(text)),
            RunEvent::CellStarted { cell } => {
                self.running.insert(cell.clone(), "begins".into());
                Ok(())
            }
            RunEvent::CellProgress { cell, phase, step, steps, cell_time_s } => {
                self.running.insert(cell.clone(), progress(phase, *step, *steps, *cell_time_s));
                Ok(())
            }
            RunEvent::CellFinished { report } => {
                self.running.remove(&report.id);
                self.done += 1;
                let line = format!(
                    "[{:>w$}/{}] {} {}: {} ({})",
                    self.done,
                    self.total,
                    self.paint.mark(Mark::of(report), &Mark::of(report).glyph().to_string()),
                    report.id,
                    verdict_line(report, self.paint),
                    duration(report.duration_ms),
                    w = self.total.to_string().len(),
                );
                self.say(now, &line)
            }
            RunEvent::Interrupted => self.say(now, "interrupted: collecting and cleaning up; once more kills"),
            RunEvent::RunFinished { .. } => self.out.flush(),
        }
    }

    fn tick(&mut self, now: Instant) -> std::io::Result<()> {
        if self.total == 0 || now.duration_since(self.last_said) < HEARTBEAT {
            return Ok(());
        }
        let running: Vec<String> = self.running.iter().map(|(cell, at)| format!("{cell} ({at})")).collect();
        let running = if running.is_empty() { "nothing is running".to_owned() } else { running.join("; ") };
        self.say(now, &format!("{}/{} cells done; {running}", self.done, self.total))
    }

    fn say(&mut self, now: Instant, line: &str) -> std::io::Result<()> {
        self.last_said = now;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

/// For a terminal: one bar for all cells, a line for each that runs.
pub(super) struct Bars {
    screen: MultiProgress,
    paint: Paint,
    width: usize,
    overall: Option<ProgressBar>,
    running: BTreeMap<CellId, ProgressBar>,
    few: bool,
}

impl Bars {
    fn event(&mut self, event: &RunEvent) -> std::io::Result<()> {
        match event {
            RunEvent::RunStarted { cells, .. } => {
                self.few = cells.len() <= FEW;
                let bar = self.screen.add(ProgressBar::new(cells.len() as u64));
                bar.set_style(style("{bar:30} {pos}/{len} cells  {elapsed}"));
                bar.tick();
                self.overall = Some(bar);
                Ok(())
            }
            RunEvent::Notice { text } => self.screen.println(plain(text)),
            RunEvent::CellStarted { cell } => {
                let bar = self.screen.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix}  {msg}"));
                bar.set_prefix(cell.to_string());
                bar.tick();
                self.running.insert(cell.clone(), bar);
                Ok(())
            }
            RunEvent::CellProgress { cell, phase, step, steps, cell_time_s } => {
                if let Some(bar) = self.running.get(cell) {
                    bar.set_message(progress(phase, *step, *steps, *cell_time_s));
                }
                Ok(())
            }
            RunEvent::CellFinished { report } => {
                if let Some(bar) = self.running.remove(&report.id) {
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                }
                if let Some(bar) = &self.overall {
                    bar.inc(1);
                }
                // Of many cells, what is as expected waits for the matrix; the others are told again beside it.
                if self.few || (Mark::of(report).needs_attention() && !report.as_expected) {
                    let mark = Mark::of(report);
                    let glyph = self.paint.mark(mark, &mark.glyph().to_string());
                    let line = format!("{glyph} {}: {}", report.id, verdict_line(report, self.paint));
                    self.screen.println(folded(&line, self.width))?;
                }
                Ok(())
            }
            RunEvent::Interrupted => self.screen.println("interrupted: collecting and cleaning up; once more kills"),
            RunEvent::RunFinished { .. } => self.screen.clear(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a constant template, shown by every run")
}
