//! What lies unread on a watched socket.
//!
//! A peer can put its own end of a socket into the queue of ours, where nobody reads, and die: the queue holds the end open, and no hang-up ever
//! comes. Nothing honest lies there for long. So what does for [`TICKS`] polls in a row, [`TICK`] apart, is a violation. Polls
//! are counted and not time: a process that was stopped for a while gets its chance to read.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often what lies unread is polled again.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Polls after which it is the end: a second.
const TICKS: u8 = 4;

/// Watched sockets with something unread, by their tokens.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<u64, Since>);

#[derive(Debug)]
struct Since {
    /// How often the socket had been read then.
    reads: u32,
    /// Polls since.
    ticks: u8,
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn tokens(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    /// Something lies unread on a socket that was read so often.
    pub(super) fn found(&mut self, token: u64, reads: u32) {
        self.0.entry(token).or_insert(Since { reads, ticks: 0 });
    }

    /// Nothing does any more, or nobody watches it.
    pub(super) fn forget(&mut self, token: u64) {
        self.0.remove(&token);
    }

    /// A poll found something unread again. Whether that is the end.
    pub(super) fn found_again(&mut self, token: u64, reads: u32) -> bool {
        let Some(since) = self.0.get_mut(&token) else { return false };
        if since.reads == reads {
            since.ticks += 1;
        } else {
            *since = Since { reads, ticks: 0 };
        }
        since.ticks >= TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_read_is_the_end_and_what_is_read_now_and_then_is_not() {
        let mut unread = Unread::default();
        unread.found(1, 7);
        unread.found(1, 8);
        assert_eq!([7, 7, 7, 7].map(|reads| unread.found_again(1, reads)), [false, false, false, true]);
        unread.found(2, 0);
        assert!((1..100).all(|reads| !unread.found_again(2, reads / 3)), "somebody reads");
        unread.forget(2);
        assert!(!unread.found_again(2, 33));
        assert_eq!(unread.tokens(), [1]);
    }
}
