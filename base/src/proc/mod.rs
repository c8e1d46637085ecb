//! Child processes, and the guard that leaves none behind.
//!
//! Everything that a cell starts is a descendant of its guard, a process of its own that outlives a harness killed in
//! whatever way. The harness asks it over a socket pair ([`wire`]); the guard's side is [`warden`].

mod cpu;
mod errand;
mod error;
mod guard;
mod log;
mod mounts;
mod ports;
mod process;
mod warden;
mod wire;

pub use cpu::{CpuTimes, cpu_times};
pub use errand::{Errand, dies_with_us};
pub use error::ProcError;
pub use guard::{Guard, Spawn, Stopped};
pub use log::log_tail;
pub use mounts::{MOUNTED, become_with_mount, private_mounts};
pub use ports::free_ports;
pub use process::is_stopped;
pub use process::{Exit, Process};
pub use rustix::process::Signal;
pub use warden::run_guard;
