//! Exit codes, and how errors are shown.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::stderr::say;
use crate::archive::ArchiveError;
use crate::artifact::ArtifactError;
use crate::plan::{CellReport, Outcome};

/// How the process ends; the numbers are documented in `docs/reference/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All as expected.
    AsExpected = 0,
    /// A conformance failure: Fail, UnexpectedPass, a missed control.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A scenario or configuration is invalid.
    Invalid = 3,
    /// No cell was selected, or none that makes sense on its subject.
    NothingSelected = 4,
    /// It could not be told: Inconclusive, Error.
    CouldNotTell = 5,
    /// A bug of rotacheck.
    Bug = 70,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// What a run's cells deserve: 1 before 5 before 0.
    pub(super) fn of(reports: &[CellReport]) -> Self {
        let unexpected = |outcomes: &[Outcome]| reports.iter().any(|r| !r.as_expected && outcomes.contains(&r.outcome));
        if unexpected(&[Outcome::Fail, Outcome::Pass, Outcome::UnexpectedPass]) {
            Exit::Failed
        } else if unexpected(&[Outcome::Inconclusive, Outcome::Error, Outcome::NotRun]) {
            Exit::CouldNotTell
        } else if reports.iter().all(|r| r.outcome == Outcome::Unsupported) {
            // Nothing was tried: that is not green.
            Exit::NothingSelected
        } else {
            Exit::AsExpected
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// How errors look from now on: wrapped for a terminal, and as they are for whatever else reads them. Never are words
/// broken, since paths and commands are there to be copied.
pub(super) fn set_rendering() {
    let terminal = std::io::stderr().is_terminal();
    // It fails only where somebody else has chosen already.
    let _ = miette::set_hook(Box::new(move |_| {
        Box::new(miette::MietteHandlerOpts::new().wrap_lines(terminal).break_words(false).build())
    }));
}

/// An error that ends the command, with the exit code that it deserves.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    report: miette::Report,
}

impl CliError {
    /// An error in a sentence, without a hint.
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, report: miette::miette!("{message}") }
    }

    /// An error with a hint: what to do about it.
    pub fn with_hint(exit: Exit, message: impl std::fmt::Display, hint: impl std::fmt::Display) -> Self {
        Self { exit, report: miette::miette!(help = hint.to_string(), "{message}") }
    }

    /// An error that renders itself, with carets into the user's file.
    pub fn diagnostic(exit: Exit, diagnostic: impl miette::Diagnostic + Send + Sync + 'static) -> Self {
        Self { exit, report: diagnostic.into() }
    }

    pub(super) fn cannot_listen(e: std::io::Error) -> Self {
        Self::new(Exit::CouldNotTell, format!("cannot listen for signals: {e}"))
    }

    /// An error of an executable's; `doing` completes "cannot ...".
    pub(super) fn artifact(doing: impl std::fmt::Display, e: &ArtifactError) -> Self {
        let exit = if e.is_configuration() { Exit::Invalid } else { Exit::CouldNotTell };
        let message = format!("cannot {doing}: {e}");
        match e.hint() {
            Some(hint) => Self::with_hint(exit, message, hint),
            None => Self::new(exit, message),
        }
    }

    /// A run that can't be read.
    #[cfg(feature = "kubernetes")]
    pub(super) fn kind(e: &crate::fleet::KindError) -> Self {
        let told = format!("cannot {e}");
        match e.hint() {
            Some(hint) => Self::with_hint(Exit::CouldNotTell, told, hint),
            None => Self::new(Exit::CouldNotTell, told),
        }
    }

    pub(super) fn archive(e: &ArchiveError) -> Self {
        let hint = "`rotacheck run` makes one; name its directory, such as rotacheck-runs/latest";
        match e {
            ArchiveError::NotARun { .. } | ArchiveError::Io { .. } => {
                Self::with_hint(Exit::Usage, format!("cannot {e}"), hint)
            }
            e => Self::new(Exit::CouldNotTell, format!("cannot {e}")),
        }
    }

    /// Shows it on stderr.
    pub fn render(&self) -> ExitCode {
        say(format_args!("{:?}", self.report));
        self.exit.into()
    }
}
