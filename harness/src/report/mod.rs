//! Listeners of events and readers of archives.
