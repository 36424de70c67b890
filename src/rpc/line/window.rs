//! Messages in a window.
//!
//! ```text
//!   0        2      3       4                     4       12
//! +--------+------+-------+-----------···       +-------+
//! | type   | fds  | flags | payload             | u64 length, if flag BULK: the payload follows on the socket
//! +--------+------+-------+-----------···       +-------+
//!   native endian
//! ```
//!
//! Descriptors go over the socket before the flip, a bulk payload after it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::{Incoming, Outgoing, TooLarge, hang_up};
use crate::endpoint::Halted;
use crate::rpc::Violation;
use crate::rpc::codec::Sink;
use crate::rpc::wire::{self, BULK_DATAGRAM, FLAG_BULK, WINDOW_HEADER};
use crate::stream::{FrameSocket, MAX_ATTACHMENTS};
use crate::{Deadline, Endpoint, ErrorKind, Result};

/// A window and the socket beside it.
#[derive(Debug)]
pub(crate) struct WindowLine {
    pub(super) endpoint: Endpoint,
    pub(crate) socket: FrameSocket,
    /// The private copy of the last message, header included; it only grows.
    buffer: Vec<u8>,
    /// Bytes of it that are the last message.
    filled: usize,
    /// A payload that arrives or leaves as bulk.
    pub(super) bulk: Vec<u8>,
    /// Whether the last message came as bulk.
    pub(super) came_as_bulk: bool,
}

/// A message that lies in the window, ready to be flipped.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Staged {
    datagram: u32,
    pub(crate) bulk: bool,
}

/// Writes behind the header of a message until the window is full.
struct WindowSink<'a> {
    endpoint: &'a mut Endpoint,
    at: u32,
    full: bool,
}

impl Sink for WindowSink<'_> {
    #[inline]
    fn take(&mut self, bytes: &[u8]) {
        self.full = self.full || self.endpoint.write(self.at, bytes).is_err();
        if !self.full {
            self.at += bytes.len() as u32;
        }
    }
}

impl WindowLine {
    pub(crate) fn new(endpoint: Endpoint, mut socket: FrameSocket) -> Self {
        socket.set_max_frame(wire::BULK_FRAME as u32);
        Self { endpoint, socket, buffer: Vec::new(), filled: 0, bulk: Vec::new(), came_as_bulk: false }
    }

    /// The most payload bytes of a message that fits the window.
    pub(crate) fn room(&self) -> u32 {
        self.endpoint.capacity() - WINDOW_HEADER as u32
    }

    /// Encodes a message into the window, or, if it turns out too long for that and may be sent as bulk, into a buffer.
    ///
    /// # Errors
    /// [`TooLarge`] if the payload is over `maximum` bytes, or does not fit the window and may not be bulk.
    #[inline]
    pub(crate) fn stage(&mut self, message: &Outgoing<'_>, maximum: u64, bulk: bool) -> Result<Staged, TooLarge> {
        let [a, b] = message.tag.to_ne_bytes();
        let mut sink = WindowSink { endpoint: &mut self.endpoint, at: 0, full: false };
        let length = {
            let mut encoder = crate::rpc::codec::Encoder::new(&mut sink);
            encoder.raw(&[a, b, message.fds, 0]);
            message.prefix.encode(&mut encoder);
            message.value.encode(&mut encoder);
            encoder.finish().ok_or(TooLarge)? - WINDOW_HEADER as u64
        };
        if length > maximum {
            return Err(TooLarge);
        }
        if !sink.full {
            return Ok(Staged { datagram: sink.at, bulk: false });
        }
        if bulk { self.stage_bulk(message, length) } else { Err(TooLarge) }
    }

    #[cold]
    fn stage_bulk(&mut self, message: &Outgoing<'_>, length: u64) -> Result<Staged, TooLarge> {
        self.bulk.clear();
        self.bulk.reserve_exact(usize::try_from(length).map_err(|_| TooLarge)?);
        let length = message.encode_to(&mut self.bulk).ok_or(TooLarge)?;
        let [a, b] = message.tag.to_ne_bytes();
        let mut datagram = [0; BULK_DATAGRAM];
        datagram[..WINDOW_HEADER].copy_from_slice(&[a, b, message.fds, FLAG_BULK]);
        datagram[WINDOW_HEADER..].copy_from_slice(&length.to_ne_bytes());
        // A window is at least a page. If the connection is gone, the flip says so.
        let _ = self.endpoint.write(0, &datagram);
        Ok(Staged { datagram: BULK_DATAGRAM as u32, bulk: true })
    }

    /// Sends the descriptors that a staged message announced. A failure leaves the line as it was unless the socket says otherwise.
    pub(crate) fn attach(&mut self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        if fds.is_empty() {
            return Ok(());
        }
        self.socket.send_attach(fds, Deadline::after(wire::TRANSFER))
    }

    /// Hands over the pen with a staged message. An error means that the peer never saw it.
    #[inline]
    pub(crate) fn flip(&mut self, staged: Staged) -> Result<()> {
        self.endpoint.flip(staged.datagram)
    }

    /// Flips a staged message that has no bulk and waits for the next.
    #[inline]
    pub(crate) fn call(&mut self, staged: Staged, deadline: Deadline) -> Result<u32, Halted> {
        self.endpoint.call(staged.datagram, deadline)
    }

    /// Sends the payload that did not fit, after the flip.
    #[inline]
    pub(crate) fn send_rest(&mut self, staged: Staged) -> Result<()> {
        if staged.bulk { self.send_bulk(Instant::now() + wire::TRANSFER) } else { Ok(()) }
    }

    /// As [`send_rest`](Self::send_rest), until the deadline at the latest.
    #[inline]
    pub(crate) fn send_rest_by(&mut self, staged: Staged, deadline: &mut Deadline) -> Result<()> {
        if !staged.bulk {
            return Ok(());
        }
        let patience = Instant::now() + wire::TRANSFER;
        self.send_bulk(deadline.resolve().map_or(patience, |due| due.min(patience)))
    }

    /// Waits for the pen. A deadline leaves the line as it is.
    #[inline]
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<u32> {
        self.endpoint.wait(deadline)
    }

    /// Takes the message that came with the pen. Its payload is then in [`payload`](Self::payload), unless it is announced as bulk:
    /// then [`receive_bulk`](Self::receive_bulk) or [`discard_bulk`](Self::discard_bulk) has to follow.
    ///
    /// # Errors
    /// Every error but a failed system call is the peer's fault; the line must be shut down.
    #[inline]
    pub(crate) fn take(&mut self, datagram: u32) -> Result<Incoming> {
        let length = datagram as usize;
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let Some(copy) = self.buffer.get_mut(..length) else { unreachable!("it was just resized") };
        self.endpoint.read(0, copy)?;
        let Some(&[a, b, fds, flags]) = copy.first_chunk() else { return Err(Violation::Datagram(datagram).into()) };
        let tag = u16::from_ne_bytes([a, b]);
        (self.filled, self.came_as_bulk) = (length, false);
        if fds == 0 && flags == 0 {
            return Ok(Incoming { tag, fds: None, bulk: 0 });
        }
        self.take_more(tag, fds, flags)
    }

    /// The parts of a message that travel on the socket.
    #[cold]
    fn take_more(&mut self, tag: u16, fds: u8, flags: u8) -> Result<Incoming> {
        let is_plain = matches!(tag, wire::ERROR | wire::CHUNK | wire::END | wire::CONTINUE);
        if flags & !FLAG_BULK != 0 || (is_plain && flags != 0) {
            return Err(Violation::Flags(flags).into());
        }
        if usize::from(fds) > MAX_ATTACHMENTS || (is_plain && fds != 0) {
            return Err(Violation::Descriptors(fds).into());
        }
        let mut attachments = None;
        if fds > 0 {
            let came = self.socket.take_attach().map_err(|error| match error.kind() {
                // What was announced is always there when the pen comes.
                ErrorKind::Timeout => Violation::Descriptors(fds).into(),
                _ => error,
            })?;
            if came.len() != usize::from(fds) && !came.lost() {
                return Err(Violation::Descriptors(fds).into());
            }
            attachments = Some(came);
        }
        let mut bulk = 0;
        if flags & FLAG_BULK != 0 {
            bulk = match self.buffer[..self.filled].get(WINDOW_HEADER..).map(<[u8; 8]>::try_from) {
                Some(Ok(bytes)) => u64::from_ne_bytes(bytes),
                _ => return Err(Violation::Datagram(self.filled as u32).into()),
            };
            if bulk == 0 {
                return Err(Violation::Bulk(0).into());
            }
        }
        Ok(Incoming { tag, fds: attachments, bulk })
    }

    /// The payload of the last message.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        if self.came_as_bulk { &self.bulk } else { &self.buffer[WINDOW_HEADER..self.filled] }
    }

    /// Lends the last payload out, so that the line can be written to meanwhile; give it back with [`restore`](Self::restore).
    #[inline]
    pub(crate) fn lend(&mut self) -> Lent {
        if self.came_as_bulk {
            Lent { bytes: std::mem::take(&mut self.bulk), from: 0, to: None }
        } else {
            Lent { bytes: std::mem::take(&mut self.buffer), from: WINDOW_HEADER, to: Some(self.filled) }
        }
    }

    /// Takes back what was lent.
    #[inline]
    pub(crate) fn restore(&mut self, lent: Lent) {
        match lent.to {
            Some(_) => self.buffer = lent.bytes,
            None if lent.bytes.capacity() <= super::RETAINED && self.bulk.capacity() == 0 => self.bulk = lent.bytes,
            None => {}
        }
    }

    /// Gives memory of an unusually large message back.
    #[inline]
    pub(crate) fn trim(&mut self) {
        if self.bulk.capacity() > super::RETAINED {
            self.bulk = Vec::new();
        }
    }

    /// Ends the line from this side.
    pub(crate) fn shut_down(&self) {
        self.endpoint.shutdown_handle().shut_down();
        hang_up(&self.socket.shared());
    }

    /// Whether it is known already that no call can succeed any more. Costs a load.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.endpoint.is_over()
    }
}

impl Drop for WindowLine {
    /// The endpoint shuts the window down by itself. Whoever else holds the socket, such as a cancel token, must see its end too.
    fn drop(&mut self) {
        hang_up(&self.socket.shared());
    }
}

impl AsFd for WindowLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A payload out of its line.
#[derive(Debug)]
pub(crate) struct Lent {
    bytes: Vec<u8>,
    from: usize,
    to: Option<usize>,
}

impl std::ops::Deref for Lent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..self.to.unwrap_or(self.bytes.len())]
    }
}
