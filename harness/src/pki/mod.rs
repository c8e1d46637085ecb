//! Authorities, SVIDs and the facts of a chain. Keys live in memory only.
