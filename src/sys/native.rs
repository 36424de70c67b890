//! The machine's atomics and the kernel's futex.
#![allow(unsafe_code, reason = "a reference to the header words is made from the address of a mapping")]

pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, ClockId, Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags};

use super::{HeaderWords, Slept};

/// How long one sleep lasts at most where the kernel cannot sleep on two words: the time after which a local shutdown or a
/// peer's death is noticed there.
const SLICE: Duration = Duration::from_millis(50);

/// Set once `futex_waitv` was refused: by a kernel before 5.16 (ENOSYS), or by a filter that does not know it. With what we pass to it, it
/// has no other reason for EPERM or EINVAL.
static WAITV_MISSING: AtomicBool = AtomicBool::new(false);

/// The header words at the start of a mapping.
///
/// # Safety
/// `base` is aligned to 4 and valid for reads and writes of 16 bytes for all of `'a`, and within this process nothing accesses
/// those bytes other than atomically.
pub(crate) unsafe fn header_at<'a>(base: NonNull<u8>) -> &'a HeaderWords {
    // SAFETY:
    // - alignment, validity and lifetime are the caller's promise;
    // - every field is an atomic, so the reference allows others (the peer among them) to write meanwhile;
    // - any bit pattern is a valid AtomicU32.
    unsafe { base.cast::<HeaderWords>().as_ref() }
}

/// Orders a sequentially consistent exchange of one word before a sequentially consistent load of another.
///
/// The language promises that by itself: both accesses are in the one order of all such operations, and so is the fence of the other
/// side. A fence of our own would repeat it, for 10 ns a flip where the exchange is a full barrier anyway (x86-64). The models know
/// sequentially consistent fences only, so there it is one.
#[inline(always)]
pub(crate) fn fence_after_exchange() {}

/// Asks for the cache line of a word that is about to be written, before it is loaded.
///
/// A side that sees its turn writes to that line at once. A load alone brings a shared copy, and the write then has to ask the other
/// CPU again: two transfers of the line for each flip instead of one, 430 ns a call instead of 260 where the CPUs share no cache.
#[inline(always)]
pub(crate) fn prefetch_to_write(word: &AtomicU32) {
    // SAFETY:
    // - a prefetch is a hint: it changes no register, no flag and no byte, and never faults, whatever the address;
    // - a processor without it takes it for a no-operation.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = word;
}

/// A few nanoseconds, much less than a [`pause`]: until the instructions before it are done.
#[inline(always)]
pub(crate) fn breath() {
    // SAFETY: a fence changes no register, no flag and no byte; every x86-64 processor has it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    // SAFETY: a barrier that discards fetched instructions changes no register, no flag and no byte.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("isb", options(nostack, preserves_flags, nomem));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::hint::spin_loop();
}

/// A pause of a spin loop.
#[inline(always)]
pub(crate) fn pause() {
    std::hint::spin_loop();
}

/// Lets another thread run on this CPU.
pub(crate) fn yield_cpu() {
    // Not rustix's: in a build with assertions that one panics where a filter refuses the call.
    yield_now();
}

/// Wakes one sleeper of a word that another process can see.
pub(crate) fn wake_shared(word: &AtomicU32) -> Result<(), Errno> {
    futex::wake(word, Flags::empty(), 1).map(drop)
}

/// Wakes every sleeper of a word of this process.
pub(crate) fn wake_private(word: &AtomicU32) {
    // It cannot fail: the word is mapped, aligned, and no other process can queue a priority-inheritance waiter on it.
    let _ = futex::wake(word, Flags::PRIVATE, i32::MAX as u32);
}

/// Sleeps while `shared` is `expected` and `private` is 0, until one of them is woken or the time has come.
pub(crate) fn sleep(
    shared: &AtomicU32,
    expected: u32,
    private: &AtomicU32,
    until: Option<Instant>,
) -> Result<Slept, Errno> {
    if WAITV_MISSING.load(Ordering::Relaxed) {
        return sleep_slice(shared, expected, until);
    }
    let waiters = [waiter(shared, expected, WaitFlags::empty()), waiter(private, 0, WaitFlags::PRIVATE)];
    let time = until.map(monotonic);
    match futex::waitv(&waiters, WaitvFlags::empty(), time.as_ref(), ClockId::Monotonic) {
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            WAITV_MISSING.store(true, Ordering::Relaxed);
            sleep_slice(shared, expected, until)
        }
        result => outcome(result.map(drop)),
    }
}

/// Sleeps while `word` is 0, until it is woken or the time has come.
pub(crate) fn sleep_private(word: &AtomicU32, until: Instant) -> Result<Slept, Errno> {
    wait_bitset(word, Flags::PRIVATE, 0, until)
}

/// Where `futex_waitv` is missing, the shared word alone is slept on, and the private one is polled between slices.
fn sleep_slice(shared: &AtomicU32, expected: u32, until: Option<Instant>) -> Result<Slept, Errno> {
    let slice = Instant::now() + SLICE;
    wait_bitset(shared, Flags::empty(), expected, until.map_or(slice, |until| until.min(slice)))
}

fn wait_bitset(word: &AtomicU32, flags: Flags, expected: u32, until: Instant) -> Result<Slept, Errno> {
    let time = monotonic(until);
    outcome(futex::wait_bitset(word, flags, expected, Some(&time), NonZeroU32::MAX))
}

fn waiter(word: &AtomicU32, expected: u32, flags: WaitFlags) -> Wait {
    let mut wait = Wait::new();
    wait.val = u64::from(expected);
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.flags = flags | WaitFlags::SIZE_U32;
    wait
}

fn outcome(result: Result<(), Errno>) -> Result<Slept, Errno> {
    match result {
        Ok(()) => Ok(Slept::Woken),
        Err(Errno::AGAIN) => Ok(Slept::Changed),
        Err(Errno::TIMEDOUT) => Ok(Slept::TimedOut),
        Err(Errno::INTR) => Ok(Slept::Interrupted),
        Err(errno) => Err(errno),
    }
}

/// The kernel's absolute time for an [`Instant`], both being CLOCK_MONOTONIC. One pair of readings serves for the whole process, so
/// that a sleep with a deadline costs no clock read of its own.
fn monotonic(until: Instant) -> Timespec {
    static ANCHOR: OnceLock<(Instant, Timespec)> = OnceLock::new();
    let (instant, time) = ANCHOR.get_or_init(anchor);
    let since = until.saturating_duration_since(*instant);
    let nanos = time.tv_nsec + i64::from(since.subsec_nanos());
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: time.tv_sec.saturating_add(seconds).saturating_add(nanos / NANOS_PER_SECOND),
        tv_nsec: nanos % NANOS_PER_SECOND,
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The two clocks read within 10 µs of each other: a thread that is preempted in between tries again, a few times.
fn anchor() -> (Instant, Timespec) {
    let mut best: Option<(Duration, Instant, Timespec)> = None;
    for _ in 0..16 {
        let before = Instant::now();
        let time = rustix::time::clock_gettime(ClockId::Monotonic);
        let gap = before.elapsed();
        if best.as_ref().is_none_or(|(smallest, ..)| gap < *smallest) {
            best = Some((gap, before, time));
        }
        if gap < Duration::from_micros(10) {
            break;
        }
    }
    let (_, instant, time) = best.expect("the loop ran at least once");
    (instant, time)
}

#[cfg(test)]
pub(crate) use std::thread;

/// Runs a model as an ordinary test: many times, with the machine's own interleavings.
#[cfg(test)]
pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
    (0..200).for_each(|_| model());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 13, D: a peer can queue as many threads as it likes at a word that both sides know. A wake of all of them would cost us
    /// what they are many.
    #[test]
    fn a_wake_of_a_shared_word_wakes_one_sleeper() {
        const SLEEPERS: u32 = 8;
        let word = AtomicU32::new(0);
        let begun = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..SLEEPERS {
                scope.spawn(|| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    let _ = futex::wait(&word, Flags::empty(), 0, None);
                });
            }
            while begun.load(Ordering::Relaxed) < SLEEPERS {
                yield_cpu();
            }
            // They are about to sleep. Where only one of them does so far, there is nothing to tell.
            thread::sleep(Duration::from_millis(100));
            wake_shared(&word).unwrap();
            let others = futex::wake(&word, Flags::empty(), i32::MAX as u32);
            // Whoever comes late does not fall asleep any more, or is woken here.
            word.store(1, Ordering::Relaxed);
            let _ = futex::wake(&word, Flags::empty(), i32::MAX as u32);
            assert!(others.unwrap() > 0, "one wake woke every sleeper");
        });
    }
}
