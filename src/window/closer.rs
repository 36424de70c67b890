//! Closes descriptors that a peer sent and that were refused.
//!
//! Such a descriptor can be a file of a FUSE server that the peer runs, and closing it can block for as long as the peer likes. So a
//! disposable thread does it, and a caller never waits.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

use crate::sys::fork::PerProcess;
use crate::sys::thread;

/// Threads that may be stuck in a close at a time. Past that refused descriptors queue up unclosed: a peer can make us keep
/// descriptors (which their own limit bounds), not threads.
const MOST_THREADS: usize = 32;

/// A forked child has none of its parent's threads, so it begins with a closer of its own.
static CLOSER: PerProcess<Mutex<Closer>> = PerProcess::new();

#[derive(Default)]
struct Closer {
    queue: Vec<OwnedFd>,
    threads: usize,
}

/// Closes `fd` soon, without blocking the caller.
pub(super) fn close_aside(fd: OwnedFd) {
    let Ok(closer) = CLOSER.get_or_try_init(|| Ok(Mutex::default())) else {
        // Not even a page of memory can be had. One descriptor that stays open is a smaller evil than a caller that hangs.
        std::mem::forget(fd);
        return;
    };
    let mut state = lock(closer);
    state.queue.push(fd);
    if state.threads < MOST_THREADS {
        let started = thread::spawn("flipcall-close", || close_queued(closer));
        // Without a thread the descriptor waits in the queue for the next one that can be started.
        state.threads += usize::from(started.is_ok());
    }
}

fn close_queued(closer: &Mutex<Closer>) {
    loop {
        let mut state = lock(closer);
        let Some(fd) = state.queue.pop() else {
            state.threads -= 1;
            return;
        };
        drop(state);
        drop(fd);
    }
}

fn lock(closer: &Mutex<Closer>) -> MutexGuard<'_, Closer> {
    closer.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
