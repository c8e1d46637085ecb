//! The ledger of one proxy in letters and digits, for whoever can't see the drawing or wants its times.

use super::prose::clock;
use crate::timeline::Layer;
use crate::timeline::ledger::{Entry, Row};

pub(super) struct TableRow {
    pub(super) class: String,
    pub(super) name: String,
    pub(super) serial: String,
    pub(super) not_after: String,
    pub(super) sends: u32,
    pub(super) cells: Vec<(&'static str, String)>,
}

impl TableRow {
    /// Row `number` of the table, in the colour that the drawing gives it.
    pub(super) fn new(number: usize, row: &Row, class: String) -> Self {
        let entries = [
            row.entry(Layer::Issued),
            row.entry(Layer::Sent),
            row.entry(Layer::Acked),
            row.entry(Layer::Dumped),
            row.entry(Layer::Loaded),
            row.inbound.clone(),
            row.outbound.clone(),
        ];
        Self {
            class,
            name: number.to_string(),
            serial: row.cert.serial.short(),
            not_after: clock(row.cert.not_after),
            sends: row.sends,
            cells: entries.iter().map(entry).collect(),
        }
    }
}

fn entry(entry: &Entry) -> (&'static str, String) {
    match entry {
        Entry::Reached { first, count, of, .. } if count < of => {
            ("partly", format!("{} ({count} of {of})", clock(first.at.wall)))
        }
        Entry::Reached { first, .. } => ("reached", clock(first.at.wall)),
        Entry::Rejected { at, .. } => ("rejected", format!("refused {}", clock(at.at.wall))),
        Entry::NotReached => ("not", "not reached".to_owned()),
        Entry::Unseen { .. } => ("unseen", "unseen".to_owned()),
    }
}
