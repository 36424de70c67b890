//! Closes descriptors that a peer sent and that were refused.
//!
//! Such a descriptor can be a file of a FUSE server that the peer runs, and closing it can block for as long as the peer likes. So a
//! disposable thread does it, and a caller never waits.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

/// Threads that may be stuck in a close at a time. Past that refused descriptors queue up unclosed: a peer can make us keep
/// descriptors (which their own limit bounds), not threads.
const MOST_THREADS: usize = 32;

struct Closer {
    queue: Vec<OwnedFd>,
    threads: usize,
}

static CLOSER: Mutex<Closer> = Mutex::new(Closer { queue: Vec::new(), threads: 0 });

/// Closes `fd` soon, without blocking the caller.
pub(super) fn close_aside(fd: OwnedFd) {
    let mut closer = CLOSER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    closer.queue.push(fd);
    if closer.threads < MOST_THREADS {
        let started = std::thread::Builder::new().name("flipcall-close".into()).spawn(close_queued);
        // Without a thread the descriptor waits in the queue for the next one that can be started.
        closer.threads += usize::from(started.is_ok());
    }
}

fn close_queued() {
    loop {
        let mut closer = CLOSER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(fd) = closer.queue.pop() else {
            closer.threads -= 1;
            return;
        };
        drop(closer);
        drop(fd);
    }
}
