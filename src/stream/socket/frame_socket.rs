//! A socket that carries frames, with a deadline on every wait.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//! use flipcall::Deadline;
//! use flipcall::stream::FrameSocket;
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
//! let deadline = Deadline::after(Duration::from_secs(5));
//!
//! ours.send(0x0201, b"hello", deadline)?;
//! let message = theirs.receive(deadline)?.expect("the peer has not closed");
//! assert_eq!((message.tag, message.payload), (0x0201, &b"hello"[..]));
//!
//! drop(ours);
//! assert!(theirs.receive(deadline)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::Shutdown;

use super::inbox::{Fill, Inbox, Message, Wait};
use super::outbox::{WriteError, send_all};
use super::readiness::{self, WaitEnd};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::attach::attach_frame;
use crate::stream::frame::decoder;
use crate::stream::frame::header::Header;
use crate::sys::foreign::STUCK_AFTER;

/// The largest payload that a [`FrameSocket`] accepts unless told otherwise, in bytes: the default for RPC messages.
pub const DEFAULT_MAX_FRAME: u32 = 64 * 1024 * 1024;

/// How long a frame that has begun may take to come in, and 64 KiB of a write to go out, unless told otherwise. A peer that sends or
/// takes a byte now and then is cut off by this; an honest one on a loaded machine is not.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// Slices of a message that fit on the stack: header and what RPC puts before a payload.
const SLICES_ON_STACK: usize = 6;

/// A payload of at most this many bytes is copied behind its header: sending one slice costs less than sending two.
const COPIED: usize = 512;

/// A blocking stream socket that carries frames.
///
/// Works the same whatever flags and options the socket has or is given by others meanwhile. After a violation, a broken connection
/// or a frame that was cut short the socket is poisoned: it is shut down both ways, and every later call returns the same error.
pub struct FrameSocket {
    pub(super) socket: Arc<OwnedFd>,
    pub(super) inbox: Inbox,
    patience: Duration,
    poison: Option<Error>,
    /// Our direction was ended.
    pub(super) finished: bool,
    /// Nobody else holds our open file description.
    pub(super) unshared: bool,
    /// How long a transfer is tried again before it sleeps.
    pub(super) linger: Duration,
}

impl FrameSocket {
    /// Frames on a connected stream socket (unix, vsock, TCP), with the default limits and without attachments. Others may hold
    /// duplicates of it: see [`assume_unshared`](Self::assume_unshared).
    #[must_use]
    pub fn new(socket: impl Into<OwnedFd>) -> Self {
        let inbox = Inbox::new(DEFAULT_MAX_FRAME, DEFAULT_PATIENCE);
        Self {
            socket: Arc::new(socket.into()),
            inbox,
            patience: DEFAULT_PATIENCE,
            poison: None,
            finished: false,
            unshared: false,
            linger: Duration::ZERO,
        }
    }

    /// Changes the largest payload accepted, in bytes, from the next frame on.
    #[must_use]
    pub fn with_max_frame(mut self, bytes: u32) -> Self {
        self.set_max_frame(bytes);
        self
    }

    /// The largest payload accepted, in bytes.
    #[must_use]
    pub fn max_frame(&self) -> u32 {
        self.inbox.max_frame()
    }

    /// [`with_max_frame`](Self::with_max_frame) in place.
    pub(crate) fn set_max_frame(&mut self, bytes: u32) {
        self.inbox.decoder().set_maximum(bytes);
    }

    /// Changes how long a frame that has begun may take to come in, and 64 KiB of a write to go out.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self.inbox.set_patience(patience);
        self
    }

    /// How long a frame that has begun may take to come in, and 64 KiB of a write to go out.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Sets how long a transfer that has to wait is tried again before it sleeps: where the peer is known to be at the other half of it, a
    /// wake costs more than the wait.
    pub(crate) fn set_linger(&mut self, time: Duration) {
        self.linger = time;
    }

    /// Allows the peer to attach descriptors to its messages, or takes that back. At first they are not taken: the kernel drops what
    /// comes, and the frame that announces it is a message of tag [`ATTACH`](crate::stream::ATTACH) like any other. Where the kernel can
    /// (`SO_PASSRIGHTS`, Linux 6.16), the peer's `sendmsg` fails with `EPERM` instead once this was called with `false`, and from the
    /// beginning on a socket of a [`Listener`](crate::stream::Listener). So allow them first, and then let the peer know that it may.
    ///
    /// # Errors
    /// [`ErrorKind::System`] if the socket refuses the option.
    pub fn set_attachments(&mut self, allowed: bool) -> Result<()> {
        self.inbox.set_attachments(self.socket.as_fd(), allowed)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the deadline passed: if nothing of the message was sent, the socket is as it was, else it is poisoned
    /// (see [`is_usable`](Self::is_usable)). [`ErrorKind::PeerGone`] if the connection is over, [`ErrorKind::Violation`] if the peer
    /// stopped taking what is sent, [`ErrorKind::InvalidInput`] for a payload of 4 GiB or more, or after [`finish`](Self::finish).
    pub fn send(&mut self, tag: u16, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        self.send_vectored(tag, &[payload], deadline)
    }

    /// Sends a message whose payload is the concatenation of `slices`, without copying them together.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_vectored(&mut self, tag: u16, slices: &[&[u8]], deadline: impl Into<Deadline>) -> Result<()> {
        self.send_message(tag, slices, &[], &[], deadline.into())
    }

    /// Sends a message with descriptors: an ATTACH frame and the message, in one system call if the socket has room.
    ///
    /// # Errors
    /// As [`send`](Self::send). [`ErrorKind::InvalidInput`] for none or over [`MAX_ATTACHMENTS`](crate::stream::MAX_ATTACHMENTS) descriptors. [`ErrorKind::System`] if
    /// the kernel refuses the descriptors (`EPERM`: the peer does not take any; `ETOOMANYREFS`: too many are under way): nothing was
    /// sent then.
    #[doc(alias = "SCM_RIGHTS")]
    pub fn send_with_fds(
        &mut self,
        tag: u16,
        slices: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        let attach = attach_frame(fds.len())?;
        self.send_message(tag, slices, &attach, fds, deadline.into())
    }

    fn send_message(
        &mut self,
        tag: u16,
        slices: &[&[u8]],
        attach: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<()> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let header = Header::of_payload(tag, length)?.encode();
        let heads = [attach, &header];
        if fds.is_empty() && length <= COPIED {
            let mut frame = [0; Header::SIZE + COPIED];
            let mut end = 0;
            for slice in heads.iter().chain(slices) {
                frame[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            return self.write(&mut [IoSlice::new(&frame[..end])], &[], deadline);
        }
        let all = heads.iter().chain(slices);
        if slices.len() + heads.len() <= SLICES_ON_STACK {
            let mut gathered = [IoSlice::new(&[]); SLICES_ON_STACK];
            let count = all.zip(&mut gathered).map(|(slice, place)| *place = IoSlice::new(slice)).count();
            return self.write(&mut gathered[..count], fds, deadline);
        }
        let mut gathered: Vec<_> = all.map(|slice| IoSlice::new(slice)).collect();
        self.write(&mut gathered, fds, deadline)
    }

    pub(super) fn write(
        &mut self,
        slices: &mut [IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        mut deadline: Deadline,
    ) -> Result<()> {
        self.check()?;
        if self.finished {
            // Refused here: the kernel's EPIPE would look like an end of the peer, and end its direction as well.
            return Err(Error::invalid("nothing can be sent after finish() ended this direction"));
        }
        let (patience, linger) = (self.patience, self.linger);
        match send_all(self.socket.as_fd(), slices, fds, &mut deadline, patience, self.unshared, linger) {
            Ok(()) => Ok(()),
            // The kernel refused the descriptors, or time ran out before the first byte: the stream is whole.
            Err(WriteError { error, untouched: true })
                if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::System) =>
            {
                Err(error)
            }
            Err(WriteError { error, .. }) => Err(self.cut(error)),
        }
    }

    /// Receives the next message, `None` once the peer has closed between frames. Descriptors that come with it are in its
    /// attachments.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the deadline passed; what came of a frame is kept, and the next call goes on with it.
    /// [`ErrorKind::Violation`] for a frame over the maximum, one that took too long, or misplaced descriptors;
    /// [`ErrorKind::PeerGone`] for an end inside a frame.
    pub fn receive(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Message<'_>>> {
        let mut deadline = deadline.into();
        self.check()?;
        loop {
            match self.inbox.ready() {
                Ok(true) => break,
                Ok(false) if self.fill(&mut deadline)? => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(self.poison(error)),
            }
        }
        self.inbox.take()
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
                Ok(None) if self.fill(&mut deadline)? => {}
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

    /// Receives more bytes; `false`: the peer sends no more.
    pub(super) fn fill(&mut self, deadline: &mut Deadline) -> Result<bool> {
        let (mut wait, mut idle) = (self.wait_in_kernel(*deadline), None);
        loop {
            let filled = self.inbox.fill(self.socket.as_fd(), wait);
            match filled.and_then(|fill| self.inbox.check().map(|()| fill)) {
                Ok(Fill::Bytes) => return Ok(true),
                Ok(Fill::End) => return Ok(false),
                Ok(Fill::Nothing) if readiness::lingers(self.linger, &mut idle) => continue,
                Ok(Fill::Nothing) => {}
                Err(error) => return Err(self.poison(error)),
            }
            // A wait that is this long can afford a `poll`, which relies on nothing.
            wait = Wait::No;
            let closing = self.inbox.is_closing().then(|| Instant::now() + STUCK_AFTER);
            let end = WaitEnd::earliest(deadline, [self.inbox.frame_due(), closing]);
            if !readiness::wait(&*self.socket, PollFlags::IN, end.at())? && end.is_deadline() {
                return Err(readiness::timeout("the deadline passed before a whole message came"));
            }
        }
    }

    /// Whether the socket can still be used: `false` once an error has poisoned it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.poison.is_none()
    }

    /// Sends the header of a frame whose payload the caller sends.
    pub(super) fn send_header(&mut self, header: Header, deadline: &mut Deadline) -> Result<()> {
        self.write(&mut [IoSlice::new(&header.encode())], &[], *deadline)
    }

    /// How the first receive of a wait may sleep itself, instead of looking first and leaving the sleep to a `poll`.
    fn wait_in_kernel(&self, deadline: Deadline) -> Wait {
        // In a stream of long frames the bytes are on their way: who looks, and sleeps only then, finds more of them at once.
        if !self.linger.is_zero() || self.inbox.expects_long() {
            return Wait::No;
        }
        let inside = self.inbox.is_inside_message();
        if self.unshared {
            let far = deadline.is_beyond(readiness::FAR) && (!inside || self.patience >= readiness::FAR);
            return if far { Wait::Slice } else { Wait::No };
        }
        // Who shares the socket can make a receive return early or late. Early is no harm, and late is none if nothing is to be kept:
        // neither a deadline of the caller nor that of a frame that has begun.
        let free = deadline.is_beyond(Duration::MAX) && !inside && !self.inbox.is_closing();
        if free { Wait::FirstByte } else { Wait::No }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// Ends the socket for `error`, which every later call returns.
    #[cold]
    pub(super) fn poison(&mut self, error: Error) -> Error {
        if self.poison.is_none() {
            self.poison = Some(error.clone());
            // The only failure is that the connection is over already.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        }
        error
    }

    /// Ends the socket inside a frame. A deadline is reported as one, and later as our own shutdown.
    #[cold]
    pub(super) fn cut(&mut self, error: Error) -> Error {
        let lasting = match error.kind() {
            ErrorKind::Timeout => {
                Error::caused(ErrorKind::LocalShutdown, "a deadline cut a frame short", error.clone())
            }
            _ => error.clone(),
        };
        self.poison(lasting);
        error
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for FrameSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameSocket")
            .field("socket", &self.socket)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}
