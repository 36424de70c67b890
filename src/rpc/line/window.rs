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

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::kept::Kept;
use super::{Budget, Incoming, Outgoing, RETAINED, TooLarge, hang_up};
use crate::endpoint::{Halted, SHORT, SHORT_BYTES, SHORT_HEAD, SHORT_WORDS};
use crate::rpc::Violation;
use crate::rpc::codec::{Encode, Encoder, Sink};
use crate::rpc::wire::{self, BULK_DATAGRAM, FLAG_BULK, WINDOW_HEADER};
use crate::stream::{FrameSocket, MAX_ATTACHMENTS};
use crate::{Deadline, Endpoint, ErrorKind, Result};

/// A window and the socket beside it.
#[derive(Debug)]
pub(crate) struct WindowLine {
    pub(super) endpoint: Endpoint,
    pub(crate) socket: FrameSocket,
    /// The private copy of the last message that was not short, or not all here; header included. It only grows.
    buffer: Vec<u8>,
    /// Bytes of it that are that message.
    filled: usize,
    /// A payload that arrives as bulk.
    pub(super) bulk: Vec<u8>,
    /// A payload that leaves as bulk. Boxed: the hot path does not touch it.
    pub(super) leaving: Box<Leaving>,
    pub(super) kept: Kept,
    /// Where in it a payload lies that arrived.
    pub(super) payload: Range<usize>,
    /// Whether the last message came as bulk.
    pub(super) came_as_bulk: bool,
}

/// A bulk payload on its way out.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub(super) bytes: u64,
    /// The part of it that goes out next.
    pub(super) piece: Vec<u8>,
    /// What became of an answer that was sent while its method ran, `None` if encoding it panicked.
    pub(super) answered: Option<Result<()>>,
    /// An answer that goes out when its method has returned: whether there is one, and its payload.
    pub(super) is_held: bool,
    pub(super) held: Vec<u8>,
}

/// The private copy of a message that fits the window's first cache line: on the stack of whoever takes it.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct Short {
    bytes: [u8; SHORT_BYTES],
    /// Its header.
    head: u32,
    /// Bytes of its payload; [`ELSEWHERE`](Self::ELSEWHERE): it is not here.
    filled: usize,
}

impl Short {
    const ELSEWHERE: usize = usize::MAX;

    /// Room for a message.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; SHORT_BYTES], head: 0, filled: Self::ELSEWHERE }
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

/// A message that lies in the window, ready to be flipped.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Staged {
    datagram: u32,
    pub(crate) bulk: bool,
}

const _: () = assert!(SHORT_HEAD == WINDOW_HEADER);

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
    pub(crate) fn new(endpoint: Endpoint, mut socket: FrameSocket, budget: &Arc<Budget>) -> Self {
        socket.set_max_frame(wire::BULK_FRAME as u32);
        socket.set_linger(wire::BULK_LINGER);
        // Whatever the kernel gives is fine.
        let _ = set_socket_send_buffer_size(&socket, wire::BULK_BUFFER);
        let kept = Kept::new(Arc::clone(budget));
        let (buffer, bulk, leaving, payload) = (Vec::new(), Vec::new(), Box::default(), 0..0);
        Self { endpoint, socket, buffer, filled: 0, bulk, leaving, kept, payload, came_as_bulk: false }
    }

    /// The most payload bytes of a message that fits the window.
    pub(crate) fn room(&self) -> u32 {
        self.endpoint.capacity() - WINDOW_HEADER as u32
    }

    /// Encodes a message into the window. If it turns out too long for that and may be sent as bulk, it is announced there, and encoded
    /// again when it is [sent](Self::send_rest).
    ///
    /// # Errors
    /// [`TooLarge`] if the payload is over `maximum` bytes, or does not fit the window and may not be bulk.
    #[inline(always)]
    pub(crate) fn stage<T: Encode + ?Sized>(
        &mut self,
        message: &Outgoing<'_, T>,
        maximum: u64,
        bulk: bool,
    ) -> Result<Staged, TooLarge> {
        let mut sink = WindowSink { endpoint: &mut self.endpoint, at: WINDOW_HEADER as u32, full: false };
        let mut encoder = Encoder::new(&mut sink);
        message.encode(&mut encoder);
        let Some((words, length)) = encoder.short::<SHORT_WORDS>().filter(|&(_, length)| length as u64 <= maximum)
        else {
            let length = encoder.finish().filter(|&length| length <= maximum).ok_or(TooLarge)?;
            let (datagram, full) = (sink.at, sink.full);
            return if full {
                self.stage_bulk(message.head(FLAG_BULK), length, bulk)
            } else {
                Ok(self.stage_long(message.head(0), datagram))
            };
        };
        // If the connection is gone, the flip says so.
        let _ = self.endpoint.write_short(message.head(0), &words, length as u32);
        Ok(Staged { datagram: (WINDOW_HEADER + length) as u32, bulk: false })
    }

    /// The header of a message whose payload is in the window already.
    fn stage_long(&mut self, head: [u8; WINDOW_HEADER], datagram: u32) -> Staged {
        let _ = self.endpoint.write(0, &head);
        Staged { datagram, bulk: false }
    }

    #[cold]
    fn stage_bulk(&mut self, head: [u8; WINDOW_HEADER], length: u64, may: bool) -> Result<Staged, TooLarge> {
        if !may {
            return Err(TooLarge);
        }
        (self.leaving.bytes, self.leaving.is_held) = (length, false);
        let mut datagram = [0; BULK_DATAGRAM];
        datagram[..WINDOW_HEADER].copy_from_slice(&head);
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
    #[inline(always)]
    pub(crate) fn call(&mut self, staged: Staged, deadline: Deadline) -> Result<u32, Halted> {
        self.endpoint.call(staged.datagram, deadline)
    }

    /// Waits for the pen. A deadline leaves the line as it is.
    #[inline]
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<u32> {
        self.endpoint.wait(deadline)
    }

    /// The message that came with the pen, if it is short and all of it is in the window: its type. Anything else is for
    /// [`take`](Self::take), with the same `short`.
    #[inline(always)]
    pub(crate) fn take_short(&mut self, datagram: u32, short: &mut Short) -> Option<u16> {
        if !(WINDOW_HEADER as u32..=SHORT).contains(&datagram) {
            return None;
        }
        let head = self.endpoint.read_short(&mut short.bytes)?;
        (short.head, short.filled) = (u32::from_ne_bytes(head), datagram as usize - WINDOW_HEADER);
        let [a, b, fds, flags] = head;
        (u16::from_ne_bytes([fds, flags]) == 0).then_some(u16::from_ne_bytes([a, b]))
    }

    /// Takes the message that came with the pen, after [`take_short`](Self::take_short) with the same `short`. Its payload is then in
    /// [`payload`](Self::payload), unless it is announced as bulk: then [`receive_bulk`](Self::receive_bulk) or
    /// [`discard_bulk`](Self::discard_bulk) has to follow.
    ///
    /// # Errors
    /// Every error but a failed system call is the peer's fault; the line must be shut down.
    pub(crate) fn take(&mut self, datagram: u32, short: &Short) -> Result<Incoming> {
        self.came_as_bulk = false;
        self.filled = datagram as usize;
        if self.buffer.len() < self.filled {
            self.buffer.resize(self.filled, 0);
        }
        let Some(copy) = self.buffer.get_mut(..self.filled) else { unreachable!("it was just resized") };
        match copy.split_first_chunk_mut() {
            Some((front, rest)) if short.filled != Short::ELSEWHERE => {
                *front = short.head.to_ne_bytes();
                rest.copy_from_slice(short.payload());
            }
            _ => self.endpoint.read(0, copy)?,
        }
        let Some(&[a, b, fds, flags]) = copy.first_chunk() else { return Err(Violation::Datagram(datagram).into()) };
        let tag = u16::from_ne_bytes([a, b]);
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
            attachments = Some(Box::new(came));
        }
        let mut bulk = 0;
        if flags & FLAG_BULK != 0 {
            bulk = match <[u8; 8]>::try_from(self.payload()) {
                Ok(bytes) => u64::from_ne_bytes(bytes),
                Err(_) => return Err(Violation::Datagram(self.filled as u32).into()),
            };
            if bulk == 0 {
                return Err(Violation::Bulk(0).into());
            }
        }
        Ok(Incoming { tag, fds: attachments, bulk })
    }

    /// The payload of the last message that was [taken](Self::take).
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        if self.came_as_bulk { &self.bulk[self.payload.clone()] } else { &self.buffer[WINDOW_HEADER..self.filled] }
    }

    /// Lends that payload out, so that the line can be written to meanwhile; give it back with [`restore`](Self::restore).
    pub(crate) fn lend(&mut self) -> Lent {
        if self.came_as_bulk {
            Lent { bytes: std::mem::take(&mut self.bulk), range: self.payload.clone(), is_bulk: true }
        } else {
            Lent { bytes: std::mem::take(&mut self.buffer), range: WINDOW_HEADER..self.filled, is_bulk: false }
        }
    }

    /// Takes back what was lent.
    pub(crate) fn restore(&mut self, lent: Lent) {
        if lent.is_bulk {
            self.bulk = lent.bytes;
        } else {
            self.buffer = lent.bytes;
        }
    }

    /// Whether the memory of large messages is to be looked at when the call is over: [`trim`](Self::trim).
    #[inline(always)]
    pub(crate) fn is_untrimmed(&self) -> bool {
        self.kept.is_unsettled()
    }

    /// A call is over: gives the memory of large messages back unless it may be kept for the next ones. Whether it is kept.
    #[cold]
    pub(crate) fn trim(&mut self) -> bool {
        let (bulk, held) = (self.bulk.capacity(), self.leaving.held.capacity());
        if bulk + held <= RETAINED {
            self.kept.nothing();
        } else if !self.kept.settle(bulk + held, bulk.max(held)) {
            self.give_back();
        }
        self.kept.is_any()
    }

    /// Gives the memory of large messages back.
    pub(crate) fn give_back(&mut self) {
        for buffer in [&mut self.bulk, &mut self.leaving.held] {
            if buffer.capacity() > RETAINED / 2 {
                *buffer = Vec::new();
            }
        }
        self.kept.nothing();
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
    range: Range<usize>,
    is_bulk: bool,
}

impl std::ops::Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}
