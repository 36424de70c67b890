//! What a handler knows about its call, and how it answers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::rpc::{Code, Status};
use crate::stream::{Attachments, MAX_ATTACHMENTS, Peer};
use crate::sys::fork::Origin;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::poll;

/// A call, as its handler sees it.
pub struct Context<'a> {
    pub(super) caller: &'a Arc<Peer>,
    pub(super) socket: &'a Arc<PeerSocket>,
    /// When the call's deadline passes.
    pub(super) due: Option<Instant>,
    pub(super) received: Option<Box<Attachments>>,
    pub(super) answer_fds: Vec<OwnedFd>,
    /// Whether the client may be sent descriptors.
    pub(super) may_attach: bool,
    pub(super) max_chunk: u32,
}

impl Context<'_> {
    /// When the caller stops waiting; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// How long the caller still waits; `None`: for ever. Reads the clock if there is a deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Checks that somebody still waits for the answer. A handler that takes long asks now and then, and returns the error.
    ///
    /// # Errors
    /// [`Code::Timeout`] if the caller's deadline has passed, [`Code::Cancelled`] if the caller is gone.
    pub fn check(&self) -> Result<(), Status> {
        if self.remaining().is_some_and(|left| left.is_zero()) {
            return Err(timed_out());
        }
        if self.cancel_token().is_cancelled() {
            return Err(Status::new(Code::Cancelled, "the caller is gone"));
        }
        Ok(())
    }

    /// A token that tells whether the caller is gone, for other threads too.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken {
            socket: Arc::clone(self.socket),
            peer: self.caller.process().is_some().then(|| Arc::clone(self.caller)),
            origin: Origin::here(),
        }
    }

    /// The process that connected, as the kernel recorded it then.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.caller
    }

    /// How many descriptors came with the request and have not been taken.
    #[must_use]
    pub fn received_fds(&self) -> usize {
        self.received.as_ref().map_or(0, |fds| fds.len())
    }

    /// Takes the next descriptor that came with the request. It is foreign: check what it is before any other use. A descriptor that the
    /// handler does not take is closed.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.received.as_mut().and_then(|fds| fds.take_first())
    }

    /// Sends a descriptor along with the answer that the method gives after this. It is closed if the call fails, or its answer is a stream.
    ///
    /// # Errors
    /// [`Code::NoResource`] for more than 16 descriptors, or for a client of the base protocol, which takes none.
    pub fn attach(&mut self, fd: impl Into<OwnedFd>) -> Result<(), Status> {
        if !self.may_attach {
            return Err(Status::new(Code::NoResource, "a client of the base protocol takes no descriptors"));
        }
        if self.answer_fds.len() == MAX_ATTACHMENTS {
            let what = format!("an answer carries no more descriptors (limit {MAX_ATTACHMENTS})");
            return Err(Status::new(Code::NoResource, what));
        }
        self.answer_fds.push(fd.into());
        Ok(())
    }

    /// The most payload bytes that a chunk of a streamed answer may have.
    #[must_use]
    pub fn max_chunk(&self) -> u32 {
        self.max_chunk
    }
}

pub(super) fn timed_out() -> Status {
    Status::new(Code::Timeout, "the deadline of the call has passed")
}

/// Tells whether the caller is gone: it died, closed its socket, or shut its channel down.
#[derive(Debug, Clone)]
pub struct CancelToken {
    socket: Arc<PeerSocket>,
    /// The process whose end is the caller's as well.
    peer: Option<Arc<Peer>>,
    origin: Origin,
}

impl CancelToken {
    /// Whether the caller is gone. One system call.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Sleeps for `time`, or until the caller is gone. `true`: it is gone, or this is a child that was forked since, which has no caller.
    pub fn wait(&self, time: Duration) -> bool {
        if !self.origin.is_here() {
            return true;
        }
        let until = Instant::now().checked_add(time);
        let socket = PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::empty());
        let process = self.peer.as_ref().and_then(|peer| peer.process());
        let ended = match process.map(|process| PollFd::from_borrowed_fd(process, PollFlags::IN)) {
            Some(process) => poll::wait_any(&mut [socket, process], until),
            None => poll::wait_any(&mut [socket], until),
        };
        ended.map(|ready| ready > 0).unwrap_or_else(|_| {
            // A filter refuses to say. Nobody is taken for gone who may be there.
            std::thread::sleep(time);
            false
        })
    }
}

impl AsFd for CancelToken {
    /// The socket whose hang-up is the cancellation: for a handler that polls other things as well. Nothing may be read from it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
