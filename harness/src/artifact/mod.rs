//! A version becomes a verified executable.
