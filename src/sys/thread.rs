//! Threads of our own inside somebody else's program.
#![allow(unsafe_code, reason = "the signal mask has no safe wrapper")]

use std::any::Any;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::JoinHandle;

/// Starts a thread on which no signal handler of the program ever runs: the program decides which of its own threads take signals.
/// The library starts all its threads here.
///
/// A panic ends the thread and nothing else, whatever it was thrown with: see [`forget_panic`].
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    let before = block_signals();
    // The new thread inherits the mask.
    let started = std::thread::Builder::new().name(name.into()).spawn(|| {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|thrown| {
            forget_panic(thrown);
            resume_unwind(Box::new("the thread panicked"))
        })
    });
    before.iter().for_each(restore);
    started
}

/// Drops what a panic was thrown with. That can panic again: a value of the program's own may do so when it is dropped, and the standard
/// library aborts the process if that happens with what a thread left behind. The second panic's value is leaked.
#[cold]
pub(crate) fn forget_panic(thrown: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
        std::mem::forget(again);
    }
}

/// Blocks every signal on this thread and returns the mask that was set before. `None`: a filter refuses that, and everything stays as it
/// is. Our threads then take signals of the program; each of their waits goes on after one.
fn block_signals() -> Option<libc::sigset_t> {
    let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
    // SAFETY:
    // - sigfillset initialises the set that it is given;
    // - pthread_sigmask reads that set and, if it returns 0, has initialised the other one;
    // - both pointers are to live variables of the right type.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let failed = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        (failed == 0).then(|| before.assume_init())
    }
}

fn restore(mask: &libc::sigset_t) {
    // SAFETY: the set was initialised by `block_signals`, and a null third argument asks for nothing back.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, with another of its kind.
    struct Grenade;

    impl Drop for Grenade {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }

    /// Issue 13, A7. Without the care in `spawn` this aborts the process.
    #[test]
    fn a_panic_that_panics_again_when_it_is_dropped_ends_its_thread_and_nothing_else() {
        let thread = spawn("flipcall-test", || std::panic::panic_any(Grenade)).unwrap();
        assert!(thread.join().is_err());
        drop(spawn("flipcall-test", || std::panic::panic_any(Grenade)).unwrap());
    }
}
