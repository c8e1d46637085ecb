//! What a timeline proves: checks over the ledger, the layer to blame, the mode that fits. Pure: no clock, no
//! network, no process.

mod model;

pub use model::*;
