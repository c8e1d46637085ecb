//! Processor time, for the run record.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// User and system time together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    /// Of this process, all threads.
    pub own: Duration,
    /// Of its children that have ended and were waited for, and of theirs. A guard's children are not among them: see
    /// [`super::Stopped::children_cpu`].
    pub children: Duration,
}

/// What this process has used since its birth. Take differences: under `cargo run`, cargo becomes the harness, and what
/// it and the compilers used is in the count.
pub fn cpu_times() -> CpuTimes {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = Duration::try_from(own).unwrap_or_default();
    CpuTimes { own, children: children_cpu() }
}

fn children_cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "rustix has no getrusage, and /proc counts in hundredths of a second")]
    // SAFETY: the place is of the right type and the answer is only zeroes where the call fails; all-zero is valid.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec);
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_and_of_its_children_is_counted() {
        let before = cpu_times();
        let mut sum = 0u64;
        while cpu_times().own < before.own + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let loop_of_a_shell = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        std::process::Command::new("sh").args(["-c", loop_of_a_shell]).status().unwrap();
        assert!(cpu_times().children > before.children);
    }
}
