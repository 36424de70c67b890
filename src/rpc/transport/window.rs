//! Messages in a window, with a socket beside it.
//!
//! Descriptors go over the socket before the flip. A payload that does not fit the window goes through it in
//! [fragments](super::fragments) where both sides know how, else over the socket as [bulk](super::bulk), after the flip.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::fragments::take_continue;
use super::inline::InlineMessage;
use super::retention::{Budget, FREE, Retention};
use super::staged::{Long, Staged, Unstaged};
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Halted, INLINE_WORDS};
use crate::error::Result;
use crate::rpc::Status;
use crate::rpc::codec::{Encode, Encoder, Sink, from_bytes, to_bytes};
use crate::rpc::message::number::{BULK_FRAME, ERROR, TRANSFER, WINDOW_HEAD};
use crate::rpc::message::outgoing::{Outgoing, TooLarge, room};
use crate::rpc::message::stream::ChunkSender;
use crate::stream::FrameSocket;

/// What a window channel's socket may hold of bulk frames, in bytes; the kernel doubles it, and gives less where it allows less.
const SOCKET_BUFFER: usize = 512 << 10;
/// How long a bulk transfer is tried again before it sleeps: both sides are at it, and a sleep and its wake cost 30 to 90 µs.
const LINGER: Duration = Duration::from_micros(50);

/// A window and the socket beside it.
pub(crate) struct WindowTransport {
    pub(super) endpoint: Endpoint,
    pub(super) socket: FrameSocket,
    /// The buffer for the private copy of a message that is in the window whole and not inline; head included. It only grows.
    pub(super) message: Vec<u8>,
    /// The buffer for a payload that arrives and does not fit the window.
    pub(super) long: Vec<u8>,
    /// What leaves and does not fit the window. Boxed: the hot path does not touch it.
    pub(super) outbound: Box<Outbound>,
    pub(super) retention: Retention,
    /// Whether both sides know fragments.
    pub(super) fragments: bool,
}

/// What leaves and does not fit the window.
pub(super) struct Outbound {
    /// What waits to be a piece of bulk.
    pub(super) waiting: Vec<u8>,
    /// The payload of an answer that goes out when its method has returned.
    pub(super) held: Vec<u8>,
    /// How long a transfer may take.
    pub(super) patience: Duration,
}

/// Writes behind the head of a message until the window is full.
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

impl WindowTransport {
    /// Joins the two. `fragments`: both sides agreed on the extension.
    pub(crate) fn new(endpoint: Endpoint, mut socket: FrameSocket, fragments: bool, budget: &Arc<Budget>) -> Self {
        socket.set_max_frame(BULK_FRAME as u32);
        socket.set_linger(LINGER);
        // Whatever the kernel gives is fine.
        let _ = set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
        Self {
            endpoint,
            socket,
            message: Vec::new(),
            long: Vec::new(),
            outbound: Box::new(Outbound { waiting: Vec::new(), held: Vec::new(), patience: TRANSFER }),
            retention: Retention::new(Arc::clone(budget)),
            fragments,
        }
    }

    /// Changes how long a transfer may take, from 30 s.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.outbound.patience = patience;
    }

    /// How long a transfer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.outbound.patience
    }

    /// The most payload bytes of a message that fits the window.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        room(self.endpoint.capacity())
    }

    /// Encodes a message into the window.
    ///
    /// # Errors
    /// It is over `maximum` bytes, or does not fit the window: then it is encoded again when it is [sent](Self::send_long).
    #[inline(always)]
    pub(crate) fn stage<T: Encode + ?Sized>(
        &mut self,
        message: &Outgoing<'_, T>,
        maximum: u64,
    ) -> Result<Staged, Unstaged> {
        let mut sink = WindowSink { endpoint: &mut self.endpoint, at: WINDOW_HEAD as u32, full: false };
        let mut encoder = Encoder::new(&mut sink);
        message.encode(&mut encoder);
        let Some((words, length)) = encoder.as_words::<INLINE_WORDS>().filter(|&(_, length)| length as u64 <= maximum)
        else {
            let length = encoder.finish().filter(|&length| length <= maximum);
            let length = length.ok_or(Unstaged::TooLarge(TooLarge))?;
            let (datagram, full) = (sink.at, sink.full);
            if full {
                return Err(Unstaged::Long(Long { head: message.head(), length }));
            }
            // If the connection is gone, the flip says so; below as well.
            let _ = self.endpoint.write_at(0, &message.head().encode());
            return Ok(Staged { datagram });
        };
        let _ = self.endpoint.write_inline(message.head().encode(), &words, length as u32);
        Ok(Staged { datagram: (WINDOW_HEAD + length) as u32 })
    }

    /// Sends the descriptors that a message announces, before it is flipped. A failure leaves the transport as it was, if its socket is
    /// still [usable](Self::is_socket_usable).
    pub(crate) fn attach(&mut self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        if fds.is_empty() {
            return Ok(());
        }
        self.socket.send_attach(fds, Deadline::after(self.outbound.patience))
    }

    /// Whether the socket beside the window is in order.
    pub(crate) fn is_socket_usable(&self) -> bool {
        self.socket.is_usable()
    }

    /// Hands over control with a staged message. An error means that the peer never saw it.
    #[inline]
    pub(crate) fn flip(&mut self, staged: Staged) -> Result<()> {
        self.endpoint.flip(staged.datagram)
    }

    /// Flips a staged message and waits for the next: bytes of its datagram.
    #[inline(always)]
    pub(crate) fn call(&mut self, staged: Staged, deadline: &mut Deadline) -> Result<u32, Halted> {
        self.endpoint.call(staged.datagram, deadline)
    }

    /// Waits for control: bytes of the datagram that comes with it. A deadline leaves the transport as it is.
    #[inline]
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<u32> {
        self.endpoint.wait(deadline)
    }

    /// The message that came with control, if it is inline and all of it is in the window: its type. Anything else is for
    /// [`arrive`](Self::arrive), with the same `inline`.
    #[inline(always)]
    pub(crate) fn take_inline(&mut self, datagram: u32, inline: &mut InlineMessage) -> Option<u16> {
        inline.take(&self.endpoint, datagram)
    }

    /// The datagram that came with control asks for the next chunk, or the stream is over.
    pub(crate) fn take_continue(&self, datagram: u32, chunks: &mut ChunkSender) -> Result<()> {
        take_continue(&self.endpoint, datagram, |datagram, front| chunks.came(datagram, front))
    }

    /// Whether [`end_call`](Self::end_call) has something to decide when the call is over.
    #[inline(always)]
    pub(crate) fn is_retention_due(&self) -> bool {
        self.retention.is_due()
    }

    /// A call is over: releases the memory of large messages unless it may be retained for the next ones. Whether it is retained.
    #[cold]
    pub(crate) fn end_call(&mut self) -> bool {
        let (long, held) = (self.long.capacity(), self.outbound.held.capacity());
        let (message, bulk) = (self.message.capacity(), self.socket.buffer_size());
        if long.max(held).max(message).max(bulk) <= FREE {
            self.retention.release();
        } else if !self.retention.end_call(long + held + message + bulk, long.max(held)) {
            self.release();
        }
        self.retention.is_any()
    }

    /// Releases the memory of large messages.
    pub(crate) fn release(&mut self) {
        for buffer in [&mut self.long, &mut self.outbound.held, &mut self.message] {
            if buffer.capacity() > FREE {
                *buffer = Vec::new();
            }
        }
        self.socket.release_buffer(FREE);
        self.retention.release();
    }

    /// Says why the transport ends, over its socket: for a peer that has control of the window and does not use it.
    #[cold]
    pub(crate) fn say(&mut self, status: &Status) {
        // Whoever does not hear it sees the end alone.
        let _ = self.socket.send(ERROR, &to_bytes(status), Deadline::after(Duration::ZERO));
    }

    /// What the peer [said](Self::say) before the transport ended.
    #[cold]
    pub(crate) fn last_words(&mut self) -> Option<Status> {
        let message = self.socket.last_words()?;
        (message.tag == ERROR).then(|| from_bytes(message.payload).ok())?
    }

    /// Whether the memory of large messages was released, and is to [go back](Self::give_back) to the kernel once the peer is quiet.
    pub(crate) fn has_released(&self) -> bool {
        self.retention.has_released()
    }

    /// Gives freed memory back to the kernel.
    #[cold]
    pub(crate) fn give_back(&mut self) {
        self.retention.give_back();
    }

    /// Ends the transport from this side.
    pub(crate) fn shut_down(&self) {
        self.endpoint.shutdown_handle().shut_down();
        self.socket.shutdown_handle().shutdown();
    }

    /// Whether it is known already that no call can succeed any more. Costs a load.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.endpoint.is_over()
    }

    /// Whether the peer has received everything that was sent on the socket.
    pub(crate) fn is_drained(&self) -> Result<bool> {
        self.socket.is_drained()
    }
}

impl Drop for WindowTransport {
    /// The endpoint shuts the window down by itself. Others that hold the socket, such as a cancel token, must see its end too.
    fn drop(&mut self) {
        self.socket.shutdown_handle().shutdown();
    }
}

impl AsFd for WindowTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for WindowTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowTransport").field("room", &self.room()).finish_non_exhaustive()
    }
}
