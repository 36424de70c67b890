//! Threads of our own inside somebody else's program.
#![allow(unsafe_code, reason = "the signal mask has no safe wrapper")]

use std::mem::MaybeUninit;
use std::thread::JoinHandle;

/// Starts a thread on which no signal handler of the program ever runs: the program decides which of its own threads take signals.
/// The library starts all its threads here.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    let before = block_signals();
    // The new thread inherits the mask.
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    restore(&before);
    started
}

/// Blocks every signal on this thread and returns the mask that was set before.
fn block_signals() -> libc::sigset_t {
    let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
    // SAFETY:
    // - sigfillset initialises the set that it is given;
    // - pthread_sigmask reads that set and initialises the other one; with a valid first argument it cannot fail;
    // - both pointers are to live variables of the right type.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn restore(mask: &libc::sigset_t) {
    // SAFETY: the set was initialised by `block_signals`, and a null third argument asks for nothing back.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}
