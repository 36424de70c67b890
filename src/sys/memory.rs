//! Memory that was freed, back to the kernel.
//!
//! The usual allocator keeps what is freed: up to 64 MiB for each of its arenas, of which there are eight for each CPU, once it has seen one
//! large block. So buffers of large messages that were released would stay with the process, and how many is up to its clients.
#![allow(unsafe_code, reason = "the allocator's request has no safe wrapper")]

use std::sync::atomic::{AtomicBool, Ordering};

/// Large buffers were freed since memory was given back last.
static IS_DUE: AtomicBool = AtomicBool::new(false);

/// Large buffers were freed, or are about to be.
pub(crate) fn released() {
    IS_DUE.store(true, Ordering::Relaxed);
}

/// Gives freed memory back to the kernel, if large buffers were freed since the last time. It can take a millisecond and more, in which
/// other threads that allocate may wait: for threads that have nothing to do.
#[cold]
pub(crate) fn give_back() {
    if IS_DUE.swap(false, Ordering::Relaxed) {
        trim();
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it may be called at any time by any thread, takes a number, and moves nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
