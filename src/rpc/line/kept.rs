//! What a line keeps of its large messages.
//!
//! Fresh memory costs several times what it takes to carry a message: the kernel takes a fault for each page and zeroes it. So a line
//! keeps the buffers of a large message for the next one: until [`SMALLER`] messages in a row needed less than half of them, or, at a
//! server, until its client was quiet for [`QUIET`]. All lines of a client or a server keep at most [`BUDGET`] bytes between them; past it
//! a line gives its buffers back after each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the lines of one client or one server keep together, in bytes: the largest message four times.
const BUDGET: u64 = 256 << 20;

/// Messages in a row that needed less than half of what is kept, after which it is given back.
const SMALLER: u8 = 16;

/// How long a server keeps something for a client that does not call. Fresh pages for 64 MiB take about as long.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// What may still be kept.
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

/// What one line keeps.
#[derive(Debug)]
pub(super) struct Kept {
    budget: Arc<Budget>,
    bytes: u64,
    smaller: u8,
    /// Bytes of the longest payload since the last [`settle`](Self::settle) that did not fit the window.
    longest: u64,
}

impl Kept {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0, smaller: 0, longest: 0 }
    }

    /// A payload of so many bytes needed a buffer.
    pub(super) fn needed(&mut self, bytes: usize) {
        self.longest = self.longest.max(bytes as u64);
    }

    /// Whether there is something to be settled when the call is over.
    #[inline(always)]
    pub(super) fn is_unsettled(&self) -> bool {
        self.bytes | self.longest != 0
    }

    /// Whether something is kept.
    pub(super) fn is_any(&self) -> bool {
        self.bytes != 0
    }

    /// Nothing is kept any more.
    pub(super) fn nothing(&mut self) {
        self.budget.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        (self.smaller, self.longest) = (0, 0);
    }

    /// A call is over: whether buffers of `bytes` bytes together, of `largest` the largest, may stay.
    pub(super) fn settle(&mut self, bytes: usize, largest: usize) -> bool {
        let is_smaller = std::mem::take(&mut self.longest) < largest as u64 / 2;
        self.smaller = if is_smaller { self.smaller + 1 } else { 0 };
        self.budget.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        if self.smaller < SMALLER && self.budget.take(bytes as u64) {
            self.bytes = bytes as u64;
            return true;
        }
        self.smaller = 0;
        false
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.nothing();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 64 << 20;

    #[test]
    fn what_is_kept_goes_after_a_row_of_smaller_messages() {
        let mut kept = Kept::new(Arc::default());
        let mut message = |bytes| {
            kept.needed(bytes);
            kept.settle(LARGE, LARGE)
        };
        assert!(message(LARGE));
        for _ in 0..3 {
            assert!((1..SMALLER).all(|_| message(LARGE / 2 - 1)));
            assert!(message(LARGE / 2), "a large one begins the row anew");
        }
        assert!((1..SMALLER).all(|_| message(0)));
        assert!(!message(0));
        assert!(!kept.is_any());
    }

    #[test]
    fn all_lines_together_keep_no_more_than_the_budget() {
        let budget = Arc::<Budget>::default();
        let mut lines: Vec<_> = (0..5).map(|_| Kept::new(Arc::clone(&budget))).collect();
        let kept: Vec<_> = lines.iter_mut().map(|line| (line.needed(LARGE), line.settle(LARGE, LARGE)).1).collect();
        assert_eq!(kept, [true, true, true, true, false]);
        lines.remove(0);
        lines[3].needed(LARGE);
        assert!(lines[3].settle(LARGE, LARGE), "a line that ended gave its part back");
        drop(lines);
        assert_eq!(budget.0.load(Ordering::Relaxed), BUDGET);
    }
}
