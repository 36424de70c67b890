//! What an endpoint did so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of an endpoint's counters. While a call runs it may show some of them before and some after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Flips of ours that the peer can see, handshake included.
    pub flips: u64,
    /// Datagrams received, handshake included.
    pub receives: u64,
    /// Bytes of the datagrams flipped to the peer.
    pub bytes_sent: u64,
    /// Bytes of the datagrams received.
    pub bytes_received: u64,
    /// Waits that ended while spinning.
    pub spin_hits: u64,
    /// Waits that ended right after the CPU was yielded.
    pub yield_hits: u64,
    /// Waits that had to sleep.
    pub parks: u64,
    /// System calls made to wake the peer.
    pub wakes_sent: u64,
    /// Wakes that were left out because the peer said that it was awake.
    pub wakes_elided: u64,
    /// Wakes that the kernel refused, because the peer had put a lock on the state word.
    pub wakes_failed: u64,
    /// Times this side was woken, or not let to sleep, for nothing.
    pub spurious_wakes: u64,
}

impl Counters {
    /// Calls completed by a client, or received by a server: datagrams that came after the handshake's.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.receives.saturating_sub(1)
    }
}

/// The counters where they are counted: one writer, any number of readers.
#[derive(Debug, Default)]
pub(crate) struct CounterCells {
    pub(crate) flips: Count,
    pub(crate) receives: Count,
    pub(crate) bytes_sent: Count,
    pub(crate) bytes_received: Count,
    pub(crate) yield_hits: Count,
    pub(crate) parks: Count,
    /// Waits that slept and then got control.
    pub(crate) woken: Count,
    pub(crate) wakes_sent: Count,
    pub(crate) spurious_wakes: Count,
    /// The one that shutdowns from any thread count too.
    pub(crate) wakes_failed: AtomicU64,
}

/// A counter with a single writer: a relaxed load and store, no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline(always)]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl CounterCells {
    /// The counters now.
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            flips: self.flips.get(),
            receives: self.receives.get(),
            bytes_sent: self.bytes_sent.get(),
            bytes_received: self.bytes_received.get(),
            // What neither slept nor yielded spun: one counter less on the way of a call.
            spin_hits: self.receives.get().saturating_sub(self.woken.get() + self.yield_hits.get()),
            yield_hits: self.yield_hits.get(),
            parks: self.parks.get(),
            wakes_sent: self.wakes_sent.get(),
            // Every flip either wakes or does not: one counter less on the way of a call. The flip is counted after its wake.
            wakes_elided: self.flips.get().saturating_sub(self.wakes_sent.get()),
            wakes_failed: self.wakes_failed.load(Ordering::Relaxed),
            spurious_wakes: self.spurious_wakes.get(),
        }
    }
}
