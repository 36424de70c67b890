//! What a server did, in numbers.

use std::sync::atomic::AtomicU64;

/// The counters themselves. Calls of channels that still run are counted by their workers.
#[derive(Debug, Default)]
pub(super) struct CounterCells {
    pub(super) connections: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) channels_opened: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) broken: AtomicU64,
}

/// What a server did so far, see [`ServerHandle::counters`](super::ServerHandle::counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerCounters {
    /// Connections served.
    pub connections: u64,
    /// Connections closed at once, because a limit was reached.
    pub refused: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Calls answered.
    pub calls: u64,
    /// Calls answered with an error.
    pub errors: u64,
    /// Calls whose handler panicked or did not answer.
    pub panics: u64,
    /// Channels and connections that ended because their client broke the protocol, by a failed system call, or because its thread
    /// panicked.
    pub broken: u64,
}
