//! Waits until a client took the descriptors of an answer.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::poll;

/// The longest pause between two polls of whether a peer took what was sent.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Waits until the peer has received everything that was sent on a socket: descriptors that lie unread there are charged to us, and
/// a hundred of them starve the whole process.
pub(super) fn wait_until_taken(socket: &impl AsFd, is_taken: impl Fn() -> Result<bool>) -> Result<()> {
    let mut pause = Duration::from_micros(10);
    while !is_taken()? {
        if poll::wait(socket, PollFlags::empty(), Some(Instant::now() + pause)).is_ok_and(|has_ended| has_ended) {
            return Err(Error::new(
                ErrorKind::PeerGone,
                "the client closed the socket before it took the descriptors of an answer",
            ));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}
