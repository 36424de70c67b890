//! Keeps SIGPIPE away from a program that did not ask for it.
//!
//! `sendfile` and `splice` have no `MSG_NOSIGNAL`: if the peer has closed its end they raise SIGPIPE, and that kills a program which leaves
//! the signal at its default. So it is blocked on this thread around such a call, and taken away again if the call raised it.
#![allow(unsafe_code, reason = "the signal mask has no safe wrapper")]

use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

/// Runs `call`, which may write to a pipe or socket whose other end is closed, without the signal that comes of it.
pub(crate) fn without_sigpipe<T>(call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let held = Held::new();
    let result = call();
    if matches!(result, Err(Errno::PIPE)) {
        held.take_back();
    }
    result
}

/// SIGPIPE, blocked on this thread until dropped.
struct Held {
    before: libc::sigset_t,
    /// The program had one pending, which stays.
    was_pending: bool,
}

impl Held {
    fn new() -> Self {
        let (sigpipe, mut before) = (sigpipe(), MaybeUninit::<libc::sigset_t>::uninit());
        // SAFETY:
        // - both pointers are to live sets, of which the first is initialised and the second is initialised by the call;
        // - with a valid first argument pthread_sigmask cannot fail.
        let before = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe, before.as_mut_ptr());
            before.assume_init()
        };
        // One that was not blocked could not be pending: it would have been delivered.
        Self { was_pending: contains_sigpipe(&before) && is_pending(), before }
    }

    /// Takes the signal that the call has raised on this thread.
    fn take_back(&self) {
        if self.was_pending {
            return;
        }
        let (sigpipe, now) = (sigpipe(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: both pointers are to initialised variables that outlive the call; a null second argument asks for nothing back. The
        // signal is blocked on this thread, as the call requires; nothing is lost if it fails, since then none is pending.
        while unsafe { libc::sigtimedwait(&sigpipe, ptr::null_mut(), &now) } == -1
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set was initialised by pthread_sigmask, and a null third argument asks for nothing back.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// The set of SIGPIPE alone.
fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, and sigaddset changes an initialised one.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

fn contains_sigpipe(set: &libc::sigset_t) -> bool {
    // SAFETY: the set is initialised.
    unsafe { libc::sigismember(set, libc::SIGPIPE) == 1 }
}

fn is_pending() -> bool {
    let mut pending = sigpipe();
    // SAFETY: a live set, which the call overwrites.
    let failed = unsafe { libc::sigpending(&mut pending) } != 0;
    !failed && contains_sigpipe(&pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Raises SIGPIPE on this thread, as the kernel does.
    fn raise() -> Result<(), Errno> {
        // SAFETY: plain numbers.
        unsafe { libc::raise(libc::SIGPIPE) };
        Err(Errno::PIPE)
    }

    /// Issue 13, C15.
    #[test]
    fn only_the_signal_that_the_call_raised_is_taken() {
        // A thread of its own: the mask and what is pending are its alone.
        let test = || {
            assert_eq!(without_sigpipe(raise), Err(Errno::PIPE));
            let outer = Held::new();
            assert!(!is_pending());
            assert_eq!(without_sigpipe(raise), Err(Errno::PIPE));
            assert!(!is_pending());
            let _ = raise();
            assert_eq!(without_sigpipe(raise), Err(Errno::PIPE));
            assert!(is_pending(), "the program's own");
            outer.take_back();
            assert!(!is_pending());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
