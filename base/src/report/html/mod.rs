//! One page without outside references: the matrix, and for each cell what was expected, what was observed, and the
//! way of every generation through the layers over time.
//!
//! `page` holds what the templates in `templates/report/` show, already in words; `cell` one cell of it, `lanes` the
//! drawing, `table` the same in letters, `evidence` the observations that are cited. The templates escape everything.

mod cell;
mod evidence;
mod lanes;
mod page;
mod prose;
mod shape;
mod table;

use askama::Template as _;
use camino::Utf8Path;

use super::ReportError;
use crate::archive::{RunRecord, read_timeline};
use crate::plan::CellReport;

/// The report as a page. The recordings are read from the run's directory; a cell without one is shown without its
/// drawing, and says why.
pub(super) fn render(run: &RunRecord, cells: &[CellReport]) -> Result<String, ReportError> {
    let directory = Utf8Path::new(&run.directory);
    let page =
        page::Page::new(run, cells, |cell| read_timeline(directory, &cell.id).map_err(|e| format!("cannot {e}")));
    page.render().map_err(|e| ReportError::Format { format: "html", why: e.to_string() })
}

#[cfg(test)]
mod tests;
