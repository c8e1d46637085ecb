//! Which report, and where to: `json=out.json`, `html=x.html`, `terminal`.

use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

use super::file::FileReporter;
use super::terminal::Terminal;
use super::{Reporter, html, json, junit, markdown};

/// A report that is written as a whole when the run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Versioned JSON, for machines.
    Json,
    /// One self-contained page.
    Html,
    /// JUnit XML, for CI.
    Junit,
    /// Markdown, for a pull request's comment or a job's summary.
    Markdown,
}

impl FileFormat {
    /// All of them.
    pub const ALL: [FileFormat; 4] = [FileFormat::Json, FileFormat::Html, FileFormat::Junit, FileFormat::Markdown];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FileFormat::Json => "json",
            FileFormat::Html => "html",
            FileFormat::Junit => "junit",
            FileFormat::Markdown => "markdown",
        }
    }
}

/// A report that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportSpec {
    /// Progress and the matrix, on the terminal.
    Terminal,
    /// A file; `-` for standard output.
    File {
        /// Its format.
        format: FileFormat,
        /// Where to.
        path: Utf8PathBuf,
    },
}

/// Why a text asks for no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no report: {why}")]
pub struct InvalidSpec {
    text: String,
    why: String,
}

impl FromStr for ReportSpec {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let invalid = |why: String| InvalidSpec { text: text.to_owned(), why };
        if text == "terminal" {
            return Ok(ReportSpec::Terminal);
        }
        let Some((name, path)) = text.split_once('=') else {
            return Err(invalid("write it as json=out.json, html=.., junit=.., markdown=.. or terminal".into()));
        };
        let Some(format) = FileFormat::ALL.into_iter().find(|f| f.name() == name) else {
            return Err(invalid(format!("there is no format {name:?}; there are json, html, junit and markdown")));
        };
        if path.is_empty() {
            return Err(invalid(format!("say where to: {name}=FILE, or {name}=- for standard output")));
        }
        Ok(ReportSpec::File { format, path: path.into() })
    }
}

impl fmt::Display for ReportSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReportSpec::Terminal => f.write_str("terminal"),
            ReportSpec::File { format, path } => write!(f, "{}={path}", format.name()),
        }
    }
}

impl ReportSpec {
    /// Whether it takes standard output for itself.
    fn takes_stdout(&self) -> bool {
        matches!(self, ReportSpec::File { path, .. } if path == Utf8Path::new("-"))
    }

    /// The reporters for what was asked for. The terminal is the default beside any files; where a file report goes
    /// to standard output, the terminal's matrix goes to standard error.
    pub fn reporters(specs: &[ReportSpec]) -> Vec<Box<dyn Reporter>> {
        let stdout_taken = specs.iter().any(ReportSpec::takes_stdout);
        let mut reporters: Vec<Box<dyn Reporter>> = vec![Box::new(Terminal::attached(stdout_taken))];
        reporters.extend(specs.iter().filter_map(ReportSpec::file_reporter));
        reporters
    }

    /// The reporter that writes the file, if it is one.
    pub(super) fn file_reporter(&self) -> Option<Box<dyn Reporter>> {
        let ReportSpec::File { format, path } = self else { return None };
        let render = match format {
            FileFormat::Json => json::render,
            FileFormat::Html => html::render,
            FileFormat::Junit => junit::render,
            FileFormat::Markdown => markdown::render,
        };
        Some(Box::new(FileReporter::new(path.clone(), render)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_as_they_are_written() {
        for text in ["terminal", "json=out.json", "html=a=b.html", "junit=-", "markdown=x/y.md"] {
            assert_eq!(text.parse::<ReportSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_spec_says_what_would_be_right() {
        let said = |text: &str| text.parse::<ReportSpec>().unwrap_err().to_string();
        insta::assert_snapshot!([said("jsn=x"), said("json"), said("html=")].join("\n"), @r#"
        "jsn=x" is no report: there is no format "jsn"; there are json, html, junit and markdown
        "json" is no report: write it as json=out.json, html=.., junit=.., markdown=.. or terminal
        "html=" is no report: say where to: html=FILE, or html=- for standard output
        "#);
    }
}
