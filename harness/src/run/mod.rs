//! A cell's life.
