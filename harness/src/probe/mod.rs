//! What is asked from outside.
