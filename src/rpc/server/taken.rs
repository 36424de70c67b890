//! Waits until a client took the descriptors of an answer.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::poll;

/// The first pause between two polls of whether a peer took what was sent. Each is twice as long as the one before it, so a peer that takes
/// it late is noticed after at most as long again.
const FIRST_PAUSE: Duration = Duration::from_micros(10);

/// The longest pause: a peer that never reads costs ten polls a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Waits for at most `patience` until the peer has received everything that was sent on a socket: descriptors that lie unread there are
/// charged to us, and a hundred of them starve the whole process.
pub(super) fn wait_until_taken(
    socket: &impl AsFd,
    patience: Duration,
    is_taken: impl Fn() -> Result<bool>,
) -> Result<()> {
    let (mut pause, mut give_up) = (FIRST_PAUSE, None);
    while !is_taken()? {
        let now = Instant::now();
        let give_up = *give_up.get_or_insert(now + patience);
        if now >= give_up {
            let what = format!("the client left the descriptors of an answer unread for {patience:?}");
            return Err(Error::new(ErrorKind::Timeout, what));
        }
        let until = give_up.min(now + pause);
        if poll::wait(socket, PollFlags::empty(), Some(until)).is_ok_and(|has_ended| has_ended) {
            return Err(Error::new(ErrorKind::PeerGone, "the peer closed the socket"));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Issue 13, B11: it cost a thousand polls a second, for ever.
    #[test]
    fn what_is_never_taken_costs_few_polls_and_ends() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (polls, patience) = (Cell::new(0), Duration::from_millis(500));
        let begun = Instant::now();
        let never = || {
            polls.set(polls.get() + 1);
            Ok(false)
        };
        assert_eq!(wait_until_taken(&ours, patience, never).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(begun.elapsed() >= patience);
        // 10 µs doubled to 100 ms are 14 steps, the rest takes 4.
        assert!(polls.get() <= 20, "{} polls", polls.get());
    }
}
