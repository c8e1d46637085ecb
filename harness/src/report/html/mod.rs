//! One page without outside references.

use super::ReportError;
use crate::archive::RunRecord;
use crate::plan::CellReport;

pub(super) fn render(_run: &RunRecord, _cells: &[CellReport]) -> Result<String, ReportError> {
    Err(ReportError::Format { format: "html", why: "not written yet".into() })
}
