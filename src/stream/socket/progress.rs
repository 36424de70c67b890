//! Whether a peer takes what is written to it.

use std::time::{Duration, Instant};

/// A peer must take this many bytes, or the rest, within the time allowed. Small enough that an honest slow reader passes, large enough
/// that a peer which takes a byte now and then does not.
pub(in crate::stream) const PROGRESS_BYTES: usize = 64 * 1024;

/// The clock of the current [`PROGRESS_BYTES`]. It runs only while the socket is full, so a write that never waits reads no clock.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::stream) struct Progress {
    since: Option<Instant>,
    /// Bytes that went out since then.
    moved: usize,
}

impl Progress {
    /// The socket is full: the clock runs from now on, unless it does already.
    pub(in crate::stream) fn stall(&mut self) {
        if self.since.is_none() {
            *self = Self { since: Some(Instant::now()), moved: 0 };
        }
    }

    /// `count` bytes went out: once they are enough, the clock stops.
    pub(in crate::stream) fn advance(&mut self, count: usize) {
        self.moved += count;
        if self.moved >= PROGRESS_BYTES {
            *self = Self::default();
        }
    }

    /// Nothing is left to write.
    pub(in crate::stream) fn finish(&mut self) {
        *self = Self::default();
    }

    /// When the peer must have taken enough; `None` while the clock does not run.
    pub(in crate::stream) fn due(&self, patience: Duration) -> Option<Instant> {
        self.since.and_then(|since| since.checked_add(patience))
    }

    /// Whether the peer has taken too little for too long.
    pub(in crate::stream) fn is_overdue(&self, patience: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_while_too_little_moves() {
        let mut progress = Progress::default();
        progress.advance(10);
        assert_eq!(progress.due(Duration::ZERO), None);
        progress.stall();
        assert!(progress.is_overdue(Duration::ZERO));
        assert!(!progress.is_overdue(Duration::MAX));
        let due = progress.due(Duration::ZERO);
        progress.advance(PROGRESS_BYTES - 1);
        progress.stall();
        assert_eq!(progress.due(Duration::ZERO), due, "what went out before it ran does not count");
        progress.advance(1);
        assert_eq!(progress.due(Duration::ZERO), None);
        progress.stall();
        assert!(progress.due(Duration::ZERO) >= due);
        progress.finish();
        assert!(!progress.is_overdue(Duration::ZERO));
    }
}
