//! What lies unread on a socket that nobody reads now.
//!
//! A peer can send its own ends of a socket over that socket and die: while they lie in our queue, its end never hangs up. Nothing else
//! belongs there, so what stays is a violation. It is seen in ticks and not by the clock, so that a process that was stopped in between, or a
//! machine that stood still, is none.

/// How many ticks in a row have to find bytes, with nobody reading in between.
const MOST_TICKS: u32 = 4;

/// A socket on which there is something.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// How often it had been read from at the last tick.
    reads: Option<u32>,
    ticks: u32,
}

/// What a tick says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is there any more.
    Empty,
    /// It may still be read.
    Waits,
    /// Nobody reads it.
    Violation,
}

impl Unread {
    /// A tick found so many bytes, and that the socket has been read from so often.
    pub(super) fn tick(&mut self, bytes: u64, reads: u32) -> Verdict {
        if bytes == 0 {
            return Verdict::Empty;
        }
        self.ticks = if self.reads == Some(reads) { self.ticks + 1 } else { 0 };
        self.reads = Some(reads);
        if self.ticks >= MOST_TICKS { Verdict::Violation } else { Verdict::Waits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_nobody_reads_are_a_violation() {
        let mut unread = Unread::default();
        assert!((0..20).all(|reads| unread.tick(5, reads) == Verdict::Waits), "somebody reads");
        assert!((0..3).all(|more| unread.tick(5 + more, 19) == Verdict::Waits));
        assert_eq!(unread.tick(9, 19), Verdict::Violation);
        assert_eq!(unread.tick(0, 19), Verdict::Empty);
    }
}
