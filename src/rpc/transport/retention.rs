//! How long a transport retains the buffers of its large messages.
//!
//! Fresh memory costs several times what it takes to carry a message: the kernel takes a fault for each page and zeroes it. So a
//! transport retains the buffers of a large message for the next one: until [`SMALLER`] messages in a row needed less than half of them, or, at a
//! server, until its client was quiet for [`QUIET`]. All transports of a client or a server retain at most [`BUDGET`] bytes between
//! them; past it a transport releases its buffers after each message. Only buffers of at most [`FREE`] bytes count for nothing and stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::memory;

/// What the transports of one client or one server retain together, in bytes: the largest message four times.
const BUDGET: u64 = 256 << 20;

/// Bytes that a buffer of a transport may have for good: hundreds of connections that idle with such buffers cost little.
pub(super) const FREE: usize = 128 << 10;

/// Bytes up to which a buffer is not released because messages are smaller now: a wrong guess costs more than it saves.
pub(super) const RETAINED: usize = 2 << 20;

/// Messages in a row that needed less than half of what is retained, after which it is released.
const SMALLER: u8 = 16;

/// How long a server retains something for a client that does not call. Fresh pages for 64 MiB take about as long.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// How long a client has to be quiet after that before freed memory goes back to the kernel.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);

/// What may still be retained.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU64::new(BUDGET))
    }
}

impl Budget {
    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What one transport retains.
#[derive(Debug)]
pub(super) struct Retention {
    budget: Arc<Budget>,
    bytes: u64,
    smaller: u8,
    /// Bytes of the longest payload since the last [end of a call](Self::end_call) that did not fit the window.
    longest: u64,
    /// Buffers were released, and their memory may still be with the allocator.
    has_released: bool,
}

impl Retention {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0, smaller: 0, longest: 0, has_released: false }
    }

    /// A payload of so many bytes needed a buffer.
    pub(super) fn record(&mut self, bytes: usize) {
        self.longest = self.longest.max(bytes as u64);
    }

    /// Whether something is to be decided when the call is over.
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        self.bytes | self.longest != 0
    }

    /// Whether something is retained.
    pub(super) fn is_any(&self) -> bool {
        self.bytes != 0
    }

    /// Nothing is retained any more.
    pub(super) fn release(&mut self) {
        if self.bytes != 0 {
            self.note_released();
        }
        self.budget.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        (self.smaller, self.longest) = (0, 0);
    }

    /// A call is over: whether buffers of `bytes` bytes together, the largest of them of `largest`, may stay.
    pub(super) fn end_call(&mut self, bytes: usize, largest: usize) -> bool {
        let is_smaller = std::mem::take(&mut self.longest) < largest as u64 / 2 && largest > RETAINED;
        self.smaller = if is_smaller { self.smaller + 1 } else { 0 };
        self.budget.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        if self.smaller < SMALLER && self.budget.take(bytes as u64) {
            self.bytes = bytes as u64;
            return true;
        }
        self.smaller = 0;
        self.note_released();
        false
    }

    fn note_released(&mut self) {
        self.has_released = true;
        memory::released();
    }

    /// Whether buffers were released, whose memory is to [go back](Self::give_back) to the kernel once the peer is quiet for [`SETTLED`].
    pub(super) fn has_released(&self) -> bool {
        self.has_released
    }

    /// Gives freed memory back to the kernel.
    #[cold]
    pub(super) fn give_back(&mut self) {
        self.has_released = false;
        memory::give_back();
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 64 << 20;

    #[test]
    fn what_is_retained_goes_after_a_row_of_smaller_messages() {
        let mut retention = Retention::new(Arc::default());
        let mut message = |bytes| {
            retention.record(bytes);
            retention.end_call(LARGE, LARGE)
        };
        assert!(message(LARGE));
        for _ in 0..3 {
            assert!((1..SMALLER).all(|_| message(LARGE / 2 - 1)));
            assert!(message(LARGE / 2), "a large one begins the row anew");
        }
        assert!((1..SMALLER).all(|_| message(0)));
        assert!(!message(0));
        assert!(!retention.is_any());
    }

    #[test]
    fn all_transports_together_retain_no_more_than_the_budget() {
        let budget = Arc::<Budget>::default();
        let mut transports: Vec<_> = (0..5).map(|_| Retention::new(Arc::clone(&budget))).collect();
        let retained: Vec<_> =
            transports.iter_mut().map(|one| (one.record(LARGE), one.end_call(LARGE, LARGE)).1).collect();
        assert_eq!(retained, [true, true, true, true, false]);
        transports.remove(0);
        transports[3].record(LARGE);
        assert!(transports[3].end_call(LARGE, LARGE), "a transport that ended gave its part back");
        drop(transports);
        assert_eq!(budget.0.load(Ordering::Relaxed), BUDGET);
    }
}
