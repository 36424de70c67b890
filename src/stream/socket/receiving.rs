//! How a [`FrameSocket`] receives messages.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::frame_socket::FrameSocket;
use super::inbox::{Fill, Message, Wait};
use super::readiness::{self, WaitEnd};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::decoder;
use crate::stream::frame::header::Header;
use crate::sys::foreign::STUCK_AFTER;

/// What a wait for bytes ended with.
enum Awaited {
    /// There is something to receive, or the socket has hung up.
    Bytes,
    /// The time is up.
    Nothing,
    /// The process that ends the connection has ended, and everything that it sent was received.
    EndOfProcess,
}

impl FrameSocket {
    /// Receives the next message, `None` once the peer has closed between frames. Descriptors that come with it are in its
    /// attachments.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the deadline passed; what came of a frame is kept, and the next call goes on
    /// with it. [`ErrorKind::Violation`](crate::ErrorKind::Violation) for a frame over the maximum, one that took too long, or misplaced
    /// descriptors; [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone) for an end inside a frame.
    pub fn receive(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Message<'_>>> {
        let mut deadline = deadline.into();
        self.check()?;
        loop {
            match self.inbox.ready() {
                Ok(true) => break,
                Ok(false) if self.fill_again(&mut deadline)? => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(self.poison(error)),
            }
        }
        self.inbox.take()
    }

    /// What the peer said before a write to it failed. The socket is poisoned by then, but what came still lies there.
    pub(crate) fn last_words(&mut self) -> Option<Message<'_>> {
        loop {
            if self.inbox.ready().ok()? {
                return self.inbox.take().ok()?;
            }
            match self.inbox.fill(self.socket.as_fd(), Wait::No) {
                Ok(Fill::Bytes) => {}
                _ => return None,
            }
        }
    }

    /// Waits for the header of the next message and leaves the message where it is: for a receiver that decides by the length whether
    /// it wants to take it ([`receive`](Self::receive)) or not ([`discard`](Self::discard)).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn peek(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Header>> {
        let mut deadline = deadline.into();
        self.check()?;
        loop {
            match self.inbox.ready_header() {
                Ok(Some(header)) => return Ok(Some(header)),
                Ok(None) if self.fill_again(&mut deadline)? => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.poison(error)),
            }
        }
    }

    /// Reads the next message and throws it away as it comes, descriptors included. `None` as in [`receive`](Self::receive).
    ///
    /// # Errors
    /// As [`receive`](Self::receive), except that a deadline inside the message poisons the socket.
    pub fn discard(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Header>> {
        let mut deadline = deadline.into();
        // It covers the header and the rest.
        deadline.resolve();
        let Some(header) = self.peek(deadline)? else { return Ok(None) };
        let mut left = Header::SIZE + header.length as usize;
        loop {
            self.inbox.discard(&mut left);
            if left == 0 {
                return Ok(Some(header));
            }
            match self.fill(&mut deadline) {
                Ok(true) => {}
                Ok(false) => return Err(self.poison(decoder::end_inside_frame())),
                Err(error) => return Err(self.cut(error)),
            }
        }
    }

    /// [`fill`](Self::fill) for what may take several. The time counts from the first on, however soon each of them brings something; a
    /// message that comes whole reads no clock.
    fn fill_again(&mut self, deadline: &mut Deadline) -> Result<bool> {
        if self.inbox.is_inside_message() {
            deadline.resolve();
        }
        self.fill(deadline)
    }

    /// Receives more bytes; `false`: the peer sends no more.
    pub(super) fn fill(&mut self, deadline: &mut Deadline) -> Result<bool> {
        let (mut wait, mut idle) = (self.wait_in_kernel(*deadline), None);
        loop {
            let filled = self.inbox.fill(self.socket.as_fd(), wait);
            match filled.and_then(|fill| self.inbox.check().map(|()| fill)) {
                Ok(Fill::Bytes) => {
                    self.socket.note_read();
                    return Ok(true);
                }
                Ok(Fill::End) => return Ok(false),
                Ok(Fill::Nothing) if readiness::lingers(self.linger, &mut idle) => continue,
                Ok(Fill::Nothing) => {}
                Err(error) => return Err(self.poison(error)),
            }
            // A wait that is this long can afford a `poll`, which relies on nothing.
            wait = Wait::No;
            let closing = self.inbox.is_closing().then(|| Instant::now() + STUCK_AFTER);
            let end = WaitEnd::earliest(deadline, [self.inbox.frame_due(), closing]);
            match self.wait_for_bytes(end.at())? {
                Awaited::Bytes => {}
                Awaited::Nothing if !end.is_deadline() => {}
                Awaited::Nothing => return Err(readiness::timeout("the deadline passed before a whole message came")),
                Awaited::EndOfProcess => {
                    return Err(self.poison(Error::new(ErrorKind::PeerGone, "the process that connected has ended")));
                }
            }
        }
    }

    /// Waits until there is something to receive, or the process that ends the connection has ended.
    fn wait_for_bytes(&self, until: Option<Instant>) -> Result<Awaited> {
        let Some(process) = self.peer.as_ref().and_then(|peer| peer.process()) else {
            let came = readiness::wait(&*self.socket, PollFlags::IN, until)?;
            return Ok(if came { Awaited::Bytes } else { Awaited::Nothing });
        };
        let socket = PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN);
        let mut fds = [socket, PollFd::from_borrowed_fd(process, PollFlags::IN)];
        let ready = readiness::wait_any(&mut fds, until)?;
        Ok(match fds[0].revents().is_empty() {
            false => Awaited::Bytes,
            true if ready > 0 => Awaited::EndOfProcess,
            true => Awaited::Nothing,
        })
    }

    /// How the first receive of a wait may sleep itself, instead of trying first and leaving the sleep to a `poll`.
    fn wait_in_kernel(&self, deadline: Deadline) -> Wait {
        // In a stream of long frames the bytes are on their way: a receiver that tries, and sleeps only then, finds more of them at once.
        if !self.linger.is_zero() || self.inbox.expects_long() {
            return Wait::No;
        }
        let inside = self.inbox.is_inside_message();
        if self.unshared {
            let far = deadline.is_beyond(readiness::FAR) && (!inside || self.patience >= readiness::FAR);
            return if far { Wait::Slice } else { Wait::No };
        }
        // A process that shares the socket can make a receive return early or late. Early is no harm, and late is none if nothing is to be kept:
        // neither a deadline of the caller nor that of a frame that has begun.
        let free = deadline.is_beyond(Duration::MAX) && !inside && !self.inbox.is_closing() && self.peer.is_none();
        if free { Wait::FirstByte } else { Wait::No }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::stream::frame::violation::FrameViolation;

    /// Issue 13, D: half a frame would hold its receiver, and what it keeps for the frame, for ever.
    #[test]
    fn half_a_frame_is_waited_for_no_longer_than_the_patience() {
        let (ours, mut theirs) = FrameSocket::pair().unwrap();
        let mut ours = ours.with_patience(Duration::from_millis(100));
        theirs.write_all(&[0, 1, 0, 0, 0, 9, 7]).unwrap();
        let begun = Instant::now();
        let error = ours.receive(Duration::from_secs(5)).unwrap_err();
        let why = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        assert_eq!(why, Some(&FrameViolation::TooSlow), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
