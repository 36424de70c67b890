//! Messages with one descriptor, on a socket without frames.
//!
//! The way to open a new service endpoint over an existing connection: make a socket pair, attach one end to a message, keep the other.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//! use flipcall::Deadline;
//! use flipcall::stream::{MissingFd, receive_with_fd, send_pipe};
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let mut kept = send_pipe(&ours, b"open console", Deadline::NEVER)?;
//!
//! let mut buffer = [0; 64];
//! let received = receive_with_fd(&theirs, &mut buffer, MissingFd::Refuse, Deadline::NEVER)?.unwrap();
//! assert_eq!(&buffer[..received.bytes], b"open console");
//!
//! kept.write_all(b"hi")?;
//! let mut other_end = UnixStream::from(received.fd);
//! other_end.read_exact(&mut buffer[..2])?;
//! assert_eq!(&buffer[..2], b"hi");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::attachments::exhausted;
use super::frame_socket::DEFAULT_PATIENCE;
use super::outbox::send_all;
use super::readiness;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::foreign;
use crate::sys::lift::lift;
use crate::sys::receive::{ReceiveError, receive};

/// What to do with a message that came without a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingFd {
    /// It is an error.
    Refuse,
    /// Throw it away and wait for the next one.
    Skip,
}

/// A message and its descriptor.
#[derive(Debug)]
#[non_exhaustive]
pub struct WithFd {
    /// Bytes at the front of the buffer.
    pub bytes: usize,
    /// The first descriptor that came. It is foreign: check what it is before any other use.
    pub fd: OwnedFd,
}

/// Sends `message`, which must not be empty, with `fd` attached to its first byte.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an empty message; [`ErrorKind::Timeout`], [`ErrorKind::PeerGone`] and [`ErrorKind::System`] as
/// sending goes. After a timeout part of the message may have been sent.
#[doc(alias = "SCM_RIGHTS")]
pub fn send_with_fd(socket: impl AsFd, message: &[u8], fd: impl AsFd, deadline: impl Into<Deadline>) -> Result<()> {
    if message.is_empty() {
        return Err(Error::invalid("a message that carries a descriptor needs at least one byte"));
    }
    let (mut slices, fds) = ([IoSlice::new(message)], [fd.as_fd()]);
    send_all(socket.as_fd(), &mut slices, &fds, &mut deadline.into(), DEFAULT_PATIENCE, false, Duration::ZERO)
        .map_err(|failed| failed.error)
}

/// Makes a socket pair, sends one end with `message` and returns the other.
///
/// # Errors
/// As [`send_with_fd`]; [`ErrorKind::System`] if no socket pair can be made.
pub fn send_pipe(socket: impl AsFd, message: &[u8], deadline: impl Into<Deadline>) -> Result<UnixStream> {
    let pair = UnixStream::pair().and_then(|(kept, sent)| Ok((lift(kept)?, sent)));
    let (kept, sent) = pair.map_err(|error| Error::system("cannot make a socket pair", error))?;
    send_with_fd(socket, message, &sent, deadline)?;
    Ok(kept.into())
}

/// Receives up to a buffer of bytes and exactly one descriptor: the first is kept, others are closed, away from this thread.
/// `None`: the peer closed.
///
/// On a stream socket a receive brings what one `sendmsg` with a descriptor sent, and possibly bytes that were sent before it; a
/// protocol that wants to tell messages apart uses `SOCK_SEQPACKET` or waits for each answer.
///
/// # Errors
/// [`ErrorKind::Refused`] if no descriptor came and `missing` says that this is an error, or if one was lost to this process's own
/// descriptor limit; [`ErrorKind::Timeout`] if the deadline passed.
#[doc(alias = "SCM_RIGHTS")]
pub fn receive_with_fd(
    socket: impl AsFd,
    buffer: &mut [u8],
    missing: MissingFd,
    deadline: impl Into<Deadline>,
) -> Result<Option<WithFd>> {
    let (socket, mut deadline) = (socket.as_fd(), deadline.into());
    loop {
        let mut fds = Vec::new();
        match receive(socket, &mut [IoSliceMut::new(buffer)], &mut fds, false) {
            Ok(received) if received.bytes == 0 && fds.is_empty() => return Ok(None),
            Ok(received) => {
                let mut fds = fds.into_iter();
                let first = fds.next();
                foreign::close(fds);
                match first {
                    Some(fd) => return Ok(Some(WithFd { bytes: received.bytes, fd })),
                    None if received.truncated => {
                        return Err(Error::new(
                            ErrorKind::Refused,
                            "the descriptor of a message was lost to the descriptor limit of this process",
                        ));
                    }
                    None if missing == MissingFd::Refuse => {
                        return Err(Error::new(ErrorKind::Refused, "the peer's message came without a descriptor"));
                    }
                    // A peer that sends such messages without end does not put the deadline off.
                    None if deadline.resolve().is_some_and(|until| Instant::now() >= until) => {
                        return Err(readiness::timeout("the deadline passed before a message with a descriptor came"));
                    }
                    None => {}
                }
            }
            Err(ReceiveError::Exhausted) => return Err(exhausted()),
            Err(ReceiveError::System(error)) => retry(socket, &error, &mut deadline)?,
        }
    }
}

/// Waits after a receive that brought nothing, if that is why it failed.
fn retry(socket: BorrowedFd<'_>, error: &std::io::Error, deadline: &mut Deadline) -> Result<()> {
    match Errno::from_io_error(error) {
        Some(Errno::INTR) => Ok(()),
        Some(Errno::AGAIN) if readiness::wait(socket, PollFlags::IN, deadline.resolve())? => Ok(()),
        Some(Errno::AGAIN) => Err(readiness::timeout("the deadline passed before a message came")),
        errno => Err(readiness::transfer_error("cannot receive a descriptor", errno.unwrap_or(Errno::IO))),
    }
}
