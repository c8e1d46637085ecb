//! Where a cell tells how it gets on.

use tokio::sync::mpsc::UnboundedSender;

use super::lanes::Turn;
use crate::archive::RunEvent;
use crate::plan::known_defects;
use crate::scenario::Scenario;
use crate::timeline::{CellId, Log, Phase, ProviderSubject, Recorder, Source, Subject};

/// Where a cell tells how it gets on.
pub(super) struct Teller<'a> {
    pub(super) cell: &'a CellId,
    pub(super) events: &'a UnboundedSender<RunEvent>,
    pub(super) recorder: &'a Recorder,
    pub(super) turn: &'a Turn,
}

impl Teller<'_> {
    /// Enters a phase: recorded, and shown.
    pub(super) fn phase(&self, name: &str) {
        self.recorder.record(Source::Harness, None, None, Phase { name: name.to_owned() });
        self.progress(name, 0, 0, 0);
    }

    /// Says what is known to be wrong in the versions that are used, before anything is found.
    pub(super) fn known_defects(&self, scenario: &Scenario, subject: &Subject) {
        let ProviderSubject { kind, version, .. } = &subject.provider;
        for defect in known_defects(scenario.provider.kind, version) {
            let line = format!("{kind} {version} is known for {}: it {}", defect.mode, defect.what);
            let _ = self.events.send(RunEvent::Notice { text: format!("{}: {line}", self.cell) });
            self.recorder.record(Source::Harness, None, None, Log { line });
        }
    }

    /// Names what could not be taken away.
    pub(super) fn left(&self, namespace: &str, why: &str) {
        let advice = "`rotacheck sweep` finds it, or it goes with its cluster";
        let text = format!("{}: the namespace {namespace} may be left ({why}); {advice}", self.cell);
        let _ = self.events.send(RunEvent::Notice { text });
    }

    /// The proxies are up, or will never be: they are observed.
    pub(super) fn observes(&self) {
        self.phase("observe");
        self.turn.is_up();
    }

    pub(super) fn progress(&self, phase: &str, step: u32, steps: u32, cell_time_s: u64) {
        let event =
            RunEvent::CellProgress { cell: self.cell.clone(), phase: phase.to_owned(), step, steps, cell_time_s };
        // Nobody listens any more only when the run itself is over.
        let _ = self.events.send(event);
    }
}
