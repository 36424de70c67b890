//! The cancel word: how a local shutdown or the death of the peer reaches a thread that sleeps on a window.
//!
//! A sleeper waits for two words at once, the shared state word and this one. The peer can swallow wakes of the shared word (it can
//! requeue or lock it), but it cannot reach this one: it lives in private memory.

use super::sync::{AtomicU32, Ordering, wake_private};

/// A set of [`Cancel`] causes that only grows.
#[derive(Debug)]
pub(crate) struct CancelWord(AtomicU32);

/// Why a wait ends without an answer. The values are bits of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cancel {
    /// This side shut the connection down.
    Shutdown = 1,
    /// The peer is dead.
    PeerGone = 2,
    /// The peer left something on a socket that nobody reads.
    Unread = 8,
    /// The connection is poisoned: no wait will ever end well.
    Poisoned = 4,
}

impl CancelWord {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Adds a cause and wakes the sleepers. Returns whether the cause is new.
    pub(crate) fn raise(&self, cause: Cancel) -> bool {
        let before = self.0.fetch_or(cause as u32, Ordering::AcqRel);
        wake_private(&self.0);
        before & cause as u32 == 0
    }

    /// Whether anything was raised; one load of a private cache line.
    #[inline(always)]
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Whether `cause` was raised.
    pub(crate) fn has(&self, cause: Cancel) -> bool {
        self.0.load(Ordering::Acquire) & cause as u32 != 0
    }

    /// The word to sleep on while it is 0.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}
