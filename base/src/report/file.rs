//! Reports that are written as a whole, when the run is over.

use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::{ReportError, Reporter};
use crate::archive::{RunEvent, RunRecord};
use crate::plan::CellReport;

pub(super) type Render = fn(&RunRecord, &[CellReport]) -> Result<String, ReportError>;

/// Writes one file on the last event.
pub(super) struct FileReporter {
    path: Utf8PathBuf,
    render: Render,
}

impl FileReporter {
    pub(super) fn new(path: Utf8PathBuf, render: Render) -> Self {
        Self { path, render }
    }
}

impl Reporter for FileReporter {
    fn event(&mut self, event: &RunEvent) -> Result<(), ReportError> {
        let RunEvent::RunFinished { run, cells } = event else { return Ok(()) };
        let text = (self.render)(run, cells)?;
        write(&self.path, text.as_bytes()).map_err(|source| ReportError::Write { path: self.path.clone(), source })
    }
}

fn write(path: &Utf8Path, bytes: &[u8]) -> std::io::Result<()> {
    if path == "-" {
        let mut out = std::io::stdout().lock();
        return match out.write_all(bytes).and_then(|()| out.flush()) {
            // Whoever reads has had enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
    }
    // A pipe or a device is written to; a file is replaced as a whole, so that no reader sees half of it.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return std::fs::write(path, bytes);
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_str().is_empty() => parent,
        _ => Utf8Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // A report is for others to read: as a plain write would make it, not private as temporary files are.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut file = builder.prefix(".report-").permissions(permissions).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;

    #[test]
    fn a_report_replaces_the_old_one_only_when_it_is_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(scratch.path().join("out.txt")).unwrap();
        std::fs::write(&path, "old").unwrap();
        let finished = RunEvent::RunFinished { run: sample::record(), cells: Vec::new() };
        let fails: Render = |_, _| Err(ReportError::Format { format: "test", why: "no".into() });
        assert!(FileReporter::new(path.clone(), fails).event(&finished).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        FileReporter::new(path.clone(), |run, _| Ok(run.id.clone())).event(&finished).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), sample::record().id);
    }

    #[test]
    fn a_report_that_cannot_be_written_names_its_path() {
        let mut reporter = FileReporter::new("/proc/nowhere/x.json".into(), |_, _| Ok(String::new()));
        let finished = RunEvent::RunFinished { run: sample::record(), cells: Vec::new() };
        let error = reporter.event(&finished).unwrap_err().to_string();
        assert!(error.starts_with("write the report /proc/nowhere/x.json: "), "{error}");
    }
}
