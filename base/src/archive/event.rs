//! The one ordered stream of what happens in a run; reporters listen to it.

use crate::plan::CellReport;
use crate::timeline::{CellId, ScenarioName, Subject};

use super::RunRecord;

/// A cell that is going to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCell {
    /// `scenario@subject`.
    pub id: CellId,
    /// Row of the matrix.
    pub scenario: ScenarioName,
    /// Column of the matrix.
    pub subject: Subject,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// First event.
    RunStarted {
        /// The run.
        run: RunRecord,
        /// Its cells, in the order of the matrix.
        cells: Vec<PlannedCell>,
    },
    /// Something worth saying that belongs to no cell.
    Notice {
        /// One line.
        text: String,
    },
    /// A cell began.
    CellStarted {
        /// Which.
        cell: CellId,
    },
    /// A cell got on.
    CellProgress {
        /// Which.
        cell: CellId,
        /// Phase of its life.
        phase: String,
        /// Steps done.
        step: u32,
        /// Steps planned; 0 while unknown.
        steps: u32,
        /// Cell time that has passed, seconds.
        cell_time_s: u64,
    },
    /// A cell ended.
    CellFinished {
        /// All that is known of it.
        report: Box<CellReport>,
    },
    /// The user asked to stop (first signal: collect and clean up).
    Interrupted,
    /// Last event.
    RunFinished {
        /// The run, with its duration.
        run: RunRecord,
        /// Every planned cell, in the order of the matrix.
        cells: Vec<CellReport>,
    },
}
