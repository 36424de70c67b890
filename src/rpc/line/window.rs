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
//! Descriptors go over the socket before the flip, a bulk payload after it; or in [parts](super::parts) through the window, where both
//! sides know how.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::kept::Kept;
use super::parts::{self, PartHead};
use super::{Budget, Outgoing, RETAINED, TooLarge, hang_up};
use crate::endpoint::Endpoint;
use crate::endpoint::{Halted, INLINE_WORDS};
use crate::rpc::codec::{Encode, Encoder, Sink};
use crate::rpc::message::head::WindowHead;
use crate::rpc::wire::{self, BULK_DATAGRAM, FLAG_BULK, WINDOW_HEADER};
use crate::stream::FrameSocket;
use crate::{Deadline, Result};

/// A window and the socket beside it.
#[derive(Debug)]
pub(crate) struct WindowLine {
    pub(super) endpoint: Endpoint,
    pub(crate) socket: FrameSocket,
    /// The private copy of the last message that was not short, or not all here; header included. It only grows.
    pub(super) buffer: Vec<u8>,
    /// Bytes of it that are that message.
    pub(super) filled: usize,
    /// A payload that arrives as bulk.
    pub(super) bulk: Vec<u8>,
    /// A payload that leaves as bulk. Boxed: the hot path does not touch it.
    pub(super) leaving: Box<Leaving>,
    pub(super) kept: Kept,
    /// Where in it a payload lies that arrived.
    pub(super) payload: Range<usize>,
    /// Whether the last message came as bulk.
    pub(super) came_as_bulk: bool,
    /// Whether the peer knows parts.
    pub(super) takes_parts: bool,
    /// Bytes of the payload that are in the window, with more parts to follow; 0 if all of it follows on the socket.
    pub(super) first_part: u32,
}

/// A bulk payload on its way out.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub(super) bytes: u64,
    /// What its first part begins with, if it goes through the window.
    pub(super) part: Option<PartHead>,
    /// The part of it that goes out next.
    pub(super) piece: Vec<u8>,
    /// What became of an answer that was sent while its method ran, `None` if encoding it panicked.
    pub(super) answered: Option<Result<()>>,
    /// An answer that goes out when its method has returned: whether there is one, and its payload.
    pub(super) is_held: bool,
    pub(super) held: Vec<u8>,
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
        self.full = self.full || self.endpoint.write_at(self.at, bytes).is_err();
        if !self.full {
            self.at += bytes.len() as u32;
        }
    }
}

impl WindowLine {
    /// Joins the two. `takes_parts`: both sides agreed on the extension.
    pub(crate) fn new(endpoint: Endpoint, mut socket: FrameSocket, takes_parts: bool, budget: &Arc<Budget>) -> Self {
        socket.set_max_frame(wire::BULK_FRAME as u32);
        socket.set_linger(wire::BULK_LINGER);
        // Whatever the kernel gives is fine.
        let _ = set_socket_send_buffer_size(&socket, wire::BULK_BUFFER);
        let kept = Kept::new(Arc::clone(budget));
        let (buffer, bulk, leaving, payload) = (Vec::new(), Vec::new(), Box::default(), 0..0);
        Self {
            endpoint,
            socket,
            buffer,
            filled: 0,
            bulk,
            leaving,
            kept,
            payload,
            came_as_bulk: false,
            takes_parts,
            first_part: 0,
        }
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
        let Some((words, length)) = encoder.as_words::<INLINE_WORDS>().filter(|&(_, length)| length as u64 <= maximum)
        else {
            let length = encoder.finish().filter(|&length| length <= maximum).ok_or(TooLarge)?;
            let (datagram, full) = (sink.at, sink.full);
            return if full {
                self.stage_bulk(WindowHead { flags: FLAG_BULK, ..message.head() }.encode(), length, bulk)
            } else {
                Ok(self.stage_long(message.head().encode(), datagram))
            };
        };
        // If the connection is gone, the flip says so.
        let _ = self.endpoint.write_inline(message.head().encode(), &words, length as u32);
        Ok(Staged { datagram: (WINDOW_HEADER + length) as u32, bulk: false })
    }

    /// The header of a message whose payload is in the window already.
    fn stage_long(&mut self, head: [u8; WINDOW_HEADER], datagram: u32) -> Staged {
        let _ = self.endpoint.write_at(0, &head);
        Staged { datagram, bulk: false }
    }

    #[cold]
    fn stage_bulk(&mut self, head: [u8; WINDOW_HEADER], length: u64, may: bool) -> Result<Staged, TooLarge> {
        if !may {
            return Err(TooLarge);
        }
        (self.leaving.bytes, self.leaving.is_held) = (length, false);
        let in_parts = self.takes_parts && parts::are_better(self.endpoint.capacity(), length);
        self.leaving.part = in_parts.then(|| PartHead::first(head, length));
        if in_parts {
            return Ok(Staged { datagram: 0, bulk: true });
        }
        let mut datagram = [0; BULK_DATAGRAM];
        datagram[..WINDOW_HEADER].copy_from_slice(&head);
        datagram[WINDOW_HEADER..].copy_from_slice(&length.to_ne_bytes());
        // A window is at least a page. If the connection is gone, the flip says so.
        let _ = self.endpoint.write_at(0, &datagram);
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
    pub(crate) fn call(&mut self, staged: Staged, deadline: &mut Deadline) -> Result<u32, Halted> {
        self.endpoint.call(staged.datagram, deadline)
    }

    /// Waits for the pen. A deadline leaves the line as it is.
    #[inline]
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<u32> {
        self.endpoint.wait(deadline)
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
