//! Talk, which goes to stderr.

use std::io::{self, Write as _};

/// Says a line. That nobody listens any more must not end what is going on, as `eprintln!` would.
pub(super) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
