//! Frames in an event loop: many sockets, one thread, nobody waits for anybody.
//!
//! The reader hands out at most one message per readiness event, so that a busy socket cannot keep the loop from the others, and says
//! when it already holds another one, for which no event will come. The writer never waits: what the socket does not take is kept, up
//! to a bound, and the loop asks for writability while there is a backlog.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use flipcall::stream::{BufferedWriter, NonBlockingReader, Step};
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut reader, mut writer) = (NonBlockingReader::new(64 * 1024), BufferedWriter::new(1024 * 1024));
//! assert!(matches!(reader.read(&ours)?, Step::Nothing));
//!
//! writer.push(&theirs, 7, &[b"one"])?;
//! writer.push(&theirs, 8, &[b"two"])?;
//! assert_eq!(writer.backlog(), 0);
//! let Step::Message(message) = reader.read(&ours)? else { panic!("one is here") };
//! assert_eq!((message.tag, message.payload), (7, &b"one"[..]));
//! assert!(reader.holds_message());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::frame_socket::DEFAULT_PATIENCE;
use super::inbox::{Fill, Inbox, Message, Wait};
use super::outbox::try_send;
use super::progress::{PROGRESS_BYTES, Progress};
use super::readiness;
use crate::error::{Error, Result};
use crate::stream::frame::header::Header;
use crate::stream::frame::violation::FrameViolation;
use crate::sys::fork::Origin;
use crate::sys::socket_kind::check_stream;

/// What one poll of a socket brought. A loop must do something in each case, so there will be no other.
#[derive(Debug)]
pub enum Step<'a> {
    /// A message, borrowed until the reader is used again.
    Message(Message<'a>),
    /// No whole message yet; what came is kept.
    Nothing,
    /// The peer closed between frames.
    Closed,
}

/// Keeps the state of a partial frame across readiness events. It does not own the socket: pass one and the same socket each time.
pub struct NonBlockingReader {
    inbox: Inbox,
    poison: Option<Error>,
    /// The kind of the socket was looked at.
    checked: bool,
    origin: Origin,
}

impl NonBlockingReader {
    /// A reader that refuses payloads over `maximum` bytes and takes no attachments.
    #[must_use]
    pub fn new(maximum: u32) -> Self {
        let inbox = Inbox::new(maximum, DEFAULT_PATIENCE);
        Self { inbox, poison: None, checked: false, origin: Origin::here() }
    }

    /// Changes how long a frame that has begun may take; 30 s unless told otherwise.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.inbox.set_patience(patience);
        self
    }

    /// The largest payload accepted, in bytes.
    #[must_use]
    pub fn max_frame(&self) -> u32 {
        self.inbox.max_frame()
    }

    /// As [`FrameSocket::set_attachments`](crate::stream::FrameSocket::set_attachments).
    ///
    /// # Errors
    /// As there.
    pub fn set_attachments(&mut self, socket: impl AsFd, allowed: bool) -> Result<()> {
        self.inbox.set_attachments(socket.as_fd(), allowed)
    }

    /// Polls the socket once: a message that is here already, or what one receive brings.
    ///
    /// # Errors
    /// As [`FrameSocket::receive`](crate::stream::FrameSocket::receive), never a timeout;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is not a stream socket. After an error the connection is over; every later
    /// call returns it again.
    pub fn read(&mut self, socket: impl AsFd) -> Result<Step<'_>> {
        self.origin.check()?;
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        match self.advance(socket) {
            Ok(Fill::Bytes) => {}
            Ok(Fill::Nothing) => return Ok(Step::Nothing),
            Ok(Fill::End) => return Ok(Step::Closed),
            Err(error) => {
                self.poison = Some(error.clone());
                return Err(error);
            }
        }
        Ok(self.inbox.take()?.map_or(Step::Nothing, Step::Message))
    }

    /// Receives once and says whether a message is here; `None`: the peer closed.
    pub(in crate::stream) fn fill(&mut self, socket: impl AsFd) -> Result<Option<bool>> {
        Ok(match self.advance(socket)? {
            Fill::Bytes => Some(true),
            Fill::Nothing => Some(false),
            Fill::End => None,
        })
    }

    /// `Fill::Bytes`: a message can be taken.
    fn advance(&mut self, socket: impl AsFd) -> Result<Fill> {
        self.origin.check()?;
        if self.inbox.ready()? {
            return Ok(Fill::Bytes);
        }
        if !self.checked {
            check_stream(socket.as_fd())?;
            self.checked = true;
        }
        let fill = self.inbox.fill(socket.as_fd(), Wait::No)?;
        if self.inbox.ready()? {
            return Ok(Fill::Bytes);
        }
        self.inbox.check()?;
        Ok(if fill == Fill::Bytes { Fill::Nothing } else { fill })
    }

    /// Whether another whole message is here already: the loop must come back without waiting for readiness.
    #[must_use]
    pub fn holds_message(&mut self) -> bool {
        self.inbox.ready().unwrap_or(true)
    }

    /// When [`check`](Self::check) should be called at the latest: the deadline of the frame that has begun.
    #[must_use]
    pub fn due(&mut self) -> Option<Instant> {
        self.inbox.frame_due()
    }

    /// An error once this connection may not go on: the frame that has begun took too long.
    ///
    /// # Errors
    /// [`ErrorKind::Violation`](crate::ErrorKind::Violation), or [`ErrorKind::Refused`](crate::ErrorKind::Refused) if closing a
    /// descriptor that the peer sent hangs.
    pub fn check(&mut self) -> Result<()> {
        self.inbox.check()
    }
}

impl std::fmt::Debug for NonBlockingReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NonBlockingReader").field("poison", &self.poison).finish_non_exhaustive()
    }
}

/// Frames on their way to a socket that may be full. It does not own the socket: pass one and the same socket each time.
pub struct BufferedWriter {
    waiting: Vec<u8>,
    at: usize,
    bound: usize,
    patience: Duration,
    progress: Progress,
    /// The kind of the socket was looked at.
    checked: bool,
    origin: Origin,
}

impl std::fmt::Debug for BufferedWriter {
    /// Without the bytes that wait.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferedWriter")
            .field("backlog", &self.backlog())
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

impl BufferedWriter {
    /// A writer that keeps up to `bound` bytes for a peer that does not read.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            waiting: Vec::new(),
            at: 0,
            bound,
            patience: DEFAULT_PATIENCE,
            progress: Progress::default(),
            checked: false,
            origin: Origin::here(),
        }
    }

    /// Changes how long 64 KiB of the backlog may take to go out; 30 s unless told otherwise.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The most bytes that are kept for a peer that does not read.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Bytes that wait for the socket.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.waiting.len() - self.at
    }

    /// Sends a message whose payload is the concatenation of `slices`, or keeps what the socket does not take.
    ///
    /// # Errors
    /// [`ErrorKind::Violation`](crate::ErrorKind::Violation) if the backlog would exceed the bound: nothing of the message was sent or
    /// kept. [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a payload of 4 GiB or more, or if it is not a stream socket;
    /// [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone).
    pub fn push(&mut self, socket: impl AsFd, tag: u16, slices: &[&[u8]]) -> Result<()> {
        self.origin.check()?;
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let header = Header::of_payload(tag, length)?;
        if self.backlog() > 0 && self.backlog() + Header::SIZE + length > self.bound {
            return Err(FrameViolation::Backlog { waiting: self.backlog(), bound: self.bound }.into());
        }
        if !self.checked {
            check_stream(socket.as_fd())?;
            self.checked = true;
        }
        self.compact();
        self.waiting.extend(header.encode());
        slices.iter().for_each(|slice| self.waiting.extend_from_slice(slice));
        self.flush(socket)
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone) if the connection is over,
    /// [`ErrorKind::Violation`](crate::ErrorKind::Violation) if the peer takes less than 64 KiB in the time allowed.
    pub fn flush(&mut self, socket: impl AsFd) -> Result<()> {
        self.origin.check()?;
        while self.backlog() > 0 {
            match try_send(&socket, &self.waiting[self.at..]) {
                Ok(count) => {
                    self.at += count;
                    self.progress.advance(count);
                }
                Err(Errno::AGAIN) => {
                    self.progress.stall();
                    return self.check();
                }
                Err(errno) => return Err(readiness::transfer_error("cannot send to the socket", errno)),
            }
        }
        self.progress.finish();
        self.compact();
        Ok(())
    }

    /// When [`check`](Self::check) should be called at the latest.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.progress.due(self.patience)
    }

    /// An error once the peer has taken less than 64 KiB in the time allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Violation`](crate::ErrorKind::Violation).
    pub fn check(&self) -> Result<()> {
        if self.progress.is_overdue(self.patience) { Err(FrameViolation::WriteTooSlow.into()) } else { Ok(()) }
    }

    /// Forgets what was written, once that is worth moving the rest, and gives a long message's memory back.
    fn compact(&mut self) {
        if self.at == self.waiting.len() {
            self.waiting.clear();
            self.waiting.shrink_to(PROGRESS_BYTES);
        } else if self.at >= self.waiting.len() / 2 {
            self.waiting.drain(..self.at);
        } else {
            return;
        }
        self.at = 0;
    }
}
