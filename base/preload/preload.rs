//! The wall clock of a moved process: a library for LD_PRELOAD.
//!
//! It stands before libc's `clock_gettime`, `gettimeofday` and `time`, asks the kernel itself, and adds an offset to
//! the wall clocks; monotonic time is left alone. The offset, an `i64` of nanoseconds, is the first eight bytes of the
//! file that the environment variable `ROTACHECK_OFFSET_FILE` names; whoever writes it moves every process that maps
//! it, at once. Without the variable, or where the file can't be mapped, the offset is 0.
//!
//! Built by `build.rs`, apart from the crate: no `std`, and of libc only what every libc has (`__errno_location`,
//! `memset`), so that the one library serves glibc and musl processes.
#![no_std]

use core::arch::asm;
use core::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
    pub const LSEEK: usize = 8;
    pub const MMAP: usize = 9;
    pub const CLOCK_GETTIME: usize = 228;
    pub const OPENAT: usize = 257;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const CLOSE: usize = 57;
    pub const LSEEK: usize = 62;
    pub const MMAP: usize = 222;
    pub const CLOCK_GETTIME: usize = 113;
    pub const OPENAT: usize = 56;
}

const CLOCK_REALTIME: i32 = 0;
const CLOCK_REALTIME_COARSE: i32 = 5;
const AT_FDCWD: isize = -100;
const O_RDONLY_CLOEXEC: usize = 0o2000000;
const SEEK_END: usize = 2;
const PROT_READ: usize = 1;
const MAP_SHARED: usize = 1;
const NANOS: i64 = 1_000_000_000;

/// `struct timespec` of the 64-bit ABIs.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// `struct timeval` of the 64-bit ABIs.
#[repr(C)]
pub struct Timeval {
    seconds: i64,
    micros: i64,
}

/// `struct timezone`: obsolete; libc answers zeroes.
#[repr(C)]
pub struct Timezone {
    minutes_west: i32,
    dst_time: i32,
}

static UNMOVED: AtomicI64 = AtomicI64::new(0);
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new((&raw const UNMOVED).cast_mut());

#[used]
#[unsafe(link_section = ".init_array")]
static MAP_AT_START: extern "C" fn() = map_at_start;

unsafe extern "C" {
    fn __errno_location() -> *mut i32;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
    // SAFETY: the caller passes what the kernel expects, or gets EFAULT from it.
    let result = unsafe { syscall(number::CLOCK_GETTIME, [clock as usize, time as usize, 0, 0, 0, 0]) };
    if result < 0 {
        // SAFETY: libc's pointer to this thread's errno is always valid.
        unsafe { *__errno_location() = -result as i32 };
        return -1;
    }
    if clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE {
        // SAFETY: the kernel has just written there.
        unsafe { shift(&mut *time) };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Timeval, zone: *mut Timezone) -> i32 {
    let now = wall(CLOCK_REALTIME);
    // SAFETY: the caller passes null or a place for the answer, as libc demands.
    unsafe {
        if !time.is_null() {
            time.write(Timeval { seconds: now.seconds, micros: now.nanos / 1000 });
        }
        if !zone.is_null() {
            zone.write(Timezone { minutes_west: 0, dst_time: 0 });
        }
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(place: *mut i64) -> i64 {
    let seconds = wall(CLOCK_REALTIME_COARSE).seconds;
    if !place.is_null() {
        // SAFETY: the caller passes null or a place for the answer, as libc demands.
        unsafe { place.write(seconds) };
    }
    seconds
}

/// A wall clock, moved. It can't fail: the clock exists and the place is ours.
fn wall(clock: i32) -> Timespec {
    let mut time = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: the kernel writes one timespec, there is room for it.
    unsafe { syscall(number::CLOCK_GETTIME, [clock as usize, (&raw mut time) as usize, 0, 0, 0, 0]) };
    shift(&mut time);
    time
}

fn shift(time: &mut Timespec) {
    // SAFETY: it points to UNMOVED or to a mapping that is never taken away.
    let offset = unsafe { &*OFFSET.load(Ordering::Relaxed) }.load(Ordering::Relaxed);
    let nanos = time.nanos + offset.rem_euclid(NANOS);
    time.seconds = time.seconds.wrapping_add(offset.div_euclid(NANOS));
    if nanos >= NANOS {
        time.seconds = time.seconds.wrapping_add(1);
        time.nanos = nanos - NANOS;
    } else {
        time.nanos = nanos;
    }
}

/// Runs when the library is loaded, before `main`.
extern "C" fn map_at_start() {
    let mut path = [0u8; 4097];
    if !offset_file(&mut path) {
        return;
    }
    // SAFETY: plain system calls with a terminated path and an own descriptor; the new mapping is not ours to misuse:
    // it is read through atomics only, and stays for the life of the process.
    unsafe {
        let file = syscall(number::OPENAT, [AT_FDCWD as usize, path.as_ptr() as usize, O_RDONLY_CLOEXEC, 0, 0, 0]);
        if file < 0 {
            return;
        }
        // A shorter file would be mapped too, and the first look at it would be a SIGBUS.
        if syscall(number::LSEEK, [file as usize, 0, SEEK_END, 0, 0, 0]) >= 8 {
            let mapping = syscall(number::MMAP, [0, 8, PROT_READ, MAP_SHARED, file as usize, 0]);
            if !(-4095..0).contains(&mapping) {
                OFFSET.store(mapping as *mut AtomicI64, Ordering::Relaxed);
            }
        }
        syscall(number::CLOSE, [file as usize, 0, 0, 0, 0, 0]);
    }
}

/// The value of `ROTACHECK_OFFSET_FILE`, terminated. From the kernel's copy of the environment: libc's need not be
/// there yet when a constructor runs, and only glibc passes it to constructors.
fn offset_file(path: &mut [u8; 4097]) -> bool {
    const NAME: &[u8] = b"ROTACHECK_OFFSET_FILE=";
    // SAFETY: plain system calls with a terminated path, an own descriptor and an own buffer.
    let file = unsafe {
        let environment = c"/proc/self/environ".as_ptr() as usize;
        syscall(number::OPENAT, [AT_FDCWD as usize, environment, O_RDONLY_CLOEXEC, 0, 0, 0])
    };
    if file < 0 {
        return false;
    }
    let mut chunk = [0u8; 1024];
    // Where in the present variable we are: its name still agrees, or its value is copied, or it is another one.
    let (mut matched, mut copied, mut other, mut found) = (0, 0, false, false);
    'reading: loop {
        // SAFETY: as above.
        let got = unsafe { syscall(number::READ, [file as usize, chunk.as_mut_ptr() as usize, chunk.len(), 0, 0, 0]) };
        if got <= 0 {
            break;
        }
        for &byte in chunk.iter().take(got as usize) {
            if byte == 0 {
                if matched == NAME.len() && copied > 0 && !other {
                    found = true;
                    break 'reading;
                }
                (matched, copied, other) = (0, 0, false);
            } else if other {
            } else if matched < NAME.len() {
                other = NAME.get(matched) != Some(&byte);
                matched += 1;
            } else if copied < path.len() - 1 {
                if let Some(place) = path.get_mut(copied) {
                    *place = byte;
                }
                copied += 1;
            } else {
                other = true;
            }
        }
    }
    if let Some(place) = path.get_mut(copied) {
        *place = 0;
    }
    // SAFETY: as above.
    unsafe { syscall(number::CLOSE, [file as usize, 0, 0, 0, 0, 0]) };
    found
}

/// A system call; a negative answer is an errno.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel's convention; it spoils rcx and r11 only. What the call does is the caller's affair.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call; a negative answer is an errno.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel's convention. What the call does is the caller's affair.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            in("x5") f, options(nostack));
    }
    result
}

#[panic_handler]
fn no_panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
