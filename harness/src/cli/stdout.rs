//! Data, which goes to stdout.

use std::io::{self, Write as _};

use super::{CliError, Exit};

/// Prints a line. A reader that went away has seen what it wanted.
pub(super) fn print(line: impl std::fmt::Display) -> Result<(), CliError> {
    match writeln!(io::stdout(), "{line}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::CouldNotTell, format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}
