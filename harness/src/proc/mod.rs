//! Child processes, and the guard that leaves none behind.
