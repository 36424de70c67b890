//! The primitives that the control layer is written with, and the only file that knows `cfg(loom)`.
//!
//! In a normal build they are the machine's atomics and the kernel's futex (`native.rs`). Under `--cfg loom` they are loom's atomics
//! and a model of the futex (`model.rs`), so that loom explores every interleaving of the very code that ships.

#[cfg(not(loom))]
#[path = "native.rs"]
mod machine;

#[cfg(loom)]
#[path = "model.rs"]
mod machine;

pub(crate) use machine::{
    AtomicU32, Ordering, breath, fence, fence_after_exchange, header_at, pause, prefetch_to_write, sleep,
    sleep_private, wake_private, wake_shared, yield_cpu,
};
#[cfg(test)]
pub(crate) use machine::{explore, thread};

/// The four words at the start of a packet window. The peer can change each of them at any time.
#[repr(C)]
pub(crate) struct HeaderWords {
    /// Who holds control: 0 the client, 1 the server, 2 nobody any more.
    pub(crate) state: AtomicU32,
    /// The length of the datagram in bytes.
    pub(crate) length: AtomicU32,
    /// Extension `park`: non-zero while the client sleeps.
    pub(crate) client_parked: AtomicU32,
    /// Extension `park`: non-zero while the server sleeps.
    pub(crate) server_parked: AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<HeaderWords>() == 16 && align_of::<HeaderWords>() == 4);
    assert!(std::mem::offset_of!(HeaderWords, state) == 0);
    assert!(std::mem::offset_of!(HeaderWords, length) == 4);
    assert!(std::mem::offset_of!(HeaderWords, client_parked) == 8);
    assert!(std::mem::offset_of!(HeaderWords, server_parked) == 12);
};

#[cfg(test)]
impl HeaderWords {
    /// A header in private memory, as a fresh window shows it.
    pub(crate) fn zeroed() -> Self {
        let zero = || AtomicU32::new(0);
        Self { state: zero(), length: zero(), client_parked: zero(), server_parked: zero() }
    }
}

/// Why a sleep ended. None of the variants says what the words hold now: the sleeper polls again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(loom, allow(dead_code, reason = "in a model no time passes and no signal comes"))]
pub(crate) enum Slept {
    /// Somebody woke one of the words, for whatever reason.
    Woken,
    /// A word already differed from what was expected; nothing slept.
    Changed,
    /// The time was up, or a slice of it where the kernel cannot sleep on two words.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}
