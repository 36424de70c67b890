//! A mux for peers that only know the frame: a channel is an id, and nothing else.
//!
//! There is no credit: a reader that does not keep up stops the socket for all channels. Id 0 is data like any other. An empty message
//! is never sent, because one known reader takes it for an error; a received one is an empty message.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::stream::socket::inbox::Message;
use crate::stream::socket::nonblocking::{BufferedWriter, NonBlockingReader, Step};
use crate::stream::socket::readiness::{self, WaitEnd};
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket_kind::check_stream;

/// Reading stops while more than this many bytes wait to be written: a peer that sends and does not read is not answered into memory.
const BACKLOG: usize = 256 * 1024;

/// One side of a mux in plain mode, for one thread.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use flipcall::{Deadline, stream::mux::PlainMux};
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let (mut ours, mut theirs) = (PlainMux::new(ours, 64 * 1024), PlainMux::new(theirs, 64 * 1024));
/// ours.send(3, b"hello", Deadline::NEVER)?;
/// let message = theirs.receive(Deadline::NEVER)?.unwrap();
/// assert_eq!((message.tag, message.payload), (3, &b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PlainMux {
    socket: PeerSocket,
    reader: NonBlockingReader,
    writer: BufferedWriter,
    /// Why this socket cannot be used at all.
    unusable: Option<Error>,
}

impl PlainMux {
    /// A side on a connected stream socket that refuses messages over `maximum` bytes. Every call fails with
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is not a stream socket.
    pub fn new(socket: impl Into<OwnedFd>, maximum: u32) -> Self {
        let (reader, writer) = (NonBlockingReader::new(maximum), BufferedWriter::new(usize::MAX));
        let socket = socket.into();
        let unusable = check_stream(socket.as_fd()).err();
        Self { socket: PeerSocket::new(socket), reader, writer, unusable }
    }

    /// Sends a message that is not empty. Waits only while more than 256 KiB are waiting already; what the socket does not take is
    /// written by later calls.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an empty message,
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): nothing was sent, and [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone).
    pub fn send(&mut self, id: u16, message: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        if message.is_empty() {
            return Err(Error::invalid("a message in plain mode must not be empty"));
        }
        self.drain(BACKLOG, deadline)?;
        self.writer.push(&self.socket, id, &[message])
    }

    /// Waits until no more than `bytes` wait to be written.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn drain(&mut self, bytes: usize, deadline: impl Into<Deadline>) -> Result<()> {
        let mut deadline = deadline.into();
        self.check()?;
        self.writer.flush(&self.socket)?;
        while self.writer.backlog() > bytes {
            self.wait(
                PollFlags::OUT,
                &mut deadline,
                "the deadline passed before the peer took what waits to be written",
            )?;
            self.writer.flush(&self.socket)?;
        }
        Ok(())
    }

    /// Receives the next message and writes what waits meanwhile; `None` once the peer has closed.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone), and
    /// [`ErrorKind::Violation`](crate::ErrorKind::Violation) for a message over the maximum or a peer that drips.
    pub fn receive(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Message<'_>>> {
        let mut deadline = deadline.into();
        self.check()?;
        loop {
            self.writer.flush(&self.socket)?;
            let backlog = self.writer.backlog();
            if backlog <= BACKLOG {
                if self.reader.holds_message() {
                    break;
                }
                match self.reader.fill(&self.socket)? {
                    Some(true) => break,
                    Some(false) => {}
                    None => return Ok(None),
                }
            }
            let reading = if backlog <= BACKLOG { PollFlags::IN } else { PollFlags::empty() };
            let writing = if backlog > 0 { PollFlags::OUT } else { PollFlags::empty() };
            self.wait(reading | writing, &mut deadline, "the deadline passed before a message came")?;
        }
        match self.reader.read(&self.socket)? {
            Step::Message(message) => Ok(Some(message)),
            Step::Nothing | Step::Closed => Ok(None),
        }
    }

    fn check(&self) -> Result<()> {
        self.unusable.clone().map_or(Ok(()), Err)
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.writer.backlog()
    }

    fn wait(&mut self, events: PollFlags, deadline: &mut Deadline, late: &'static str) -> Result<()> {
        let end = WaitEnd::earliest(deadline, [self.reader.due(), self.writer.due()]);
        if !readiness::wait(&self.socket, events, end.at())? && end.is_deadline() {
            return Err(readiness::timeout(late));
        }
        self.reader.check()?;
        self.writer.check()
    }
}

impl AsFd for PlainMux {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
