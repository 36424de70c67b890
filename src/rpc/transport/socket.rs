//! Messages as frames on a socket.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::payload::{Buffer, Payload, Received};
use super::retention::{Budget, FREE, RETAINED, Retention};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::rpc::codec::Encode;
use crate::rpc::message::number::{ATTACH, MOST_DESCRIPTORS};
use crate::rpc::message::outgoing::{Outgoing, TooLarge};
use crate::stream::{Attachments, FrameSocket, Header};

const _: () = assert!(ATTACH == crate::stream::ATTACH && MOST_DESCRIPTORS as usize == crate::stream::MAX_ATTACHMENTS);

/// A socket that carries one call at a time.
pub(crate) struct SocketTransport {
    pub(crate) socket: FrameSocket,
    /// The payload that goes out next.
    out: Vec<u8>,
    /// The buffer that a large message came in, for the next one.
    large: Vec<u8>,
    retention: Retention,
}

impl SocketTransport {
    pub(crate) fn new(socket: FrameSocket, budget: &Arc<Budget>) -> Self {
        Self { socket, out: Vec::new(), large: Vec::new(), retention: Retention::new(Arc::clone(budget)) }
    }

    /// Encodes a message, which [`send_encoded`](Self::send_encoded) sends.
    ///
    /// # Errors
    /// Its payload is over `maximum`.
    pub(crate) fn encode<T: Encode + ?Sized>(
        &mut self,
        message: &Outgoing<'_, T>,
        maximum: u64,
    ) -> Result<(), TooLarge> {
        self.out.clear();
        match message.encode_to(&mut self.out) {
            Some(length) if length <= maximum.min(u64::from(u32::MAX)) => Ok(()),
            _ => Err(TooLarge),
        }
    }

    /// Sends what was encoded last. Any error means that the peer has not got a whole message.
    pub(crate) fn send_encoded(&mut self, tag: u16, fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<()> {
        match fds {
            [] => self.socket.send(tag, &self.out, deadline),
            fds => self.socket.send_with_fds(tag, &[&self.out], fds, deadline),
        }
    }

    /// The header of the next message, `None` at the end of the connection.
    pub(crate) fn peek(&mut self, deadline: Deadline) -> Result<Option<Header>> {
        self.socket.peek(deadline)
    }

    /// The next message, `None` at the end of the connection.
    pub(crate) fn receive(&mut self, mut deadline: Deadline) -> Result<Option<Received>> {
        if !self.large.is_empty() {
            deadline.resolve();
            if let Some(header) = self.socket.peek(deadline)? {
                self.expect(header.length as usize);
            }
        }
        let Some(message) = self.socket.receive(deadline)? else { return Ok(None) };
        let (tag, length, fds) = (message.tag, message.payload.len(), message.attachments);
        Ok(Some(self.hand_over(tag, length, fds)))
    }

    /// What the peer said before a write to it failed.
    pub(crate) fn last_words(&mut self) -> Option<Received> {
        let message = self.socket.last_words()?;
        let (tag, length, fds) = (message.tag, message.payload.len(), message.attachments);
        Some(self.hand_over(tag, length, fds))
    }

    /// The message that came last stays in the buffer that it came in, which goes back with the payload.
    fn hand_over(&mut self, tag: u16, length: usize, fds: Attachments) -> Received {
        let fds = (!fds.is_empty() || fds.lost()).then(|| Box::new(fds));
        let mut bytes = Vec::new();
        let range = self.socket.swap_buffer(length, &mut bytes);
        Received { tag, fds, payload: Payload { bytes, range, from: Buffer::Message } }
    }

    /// Takes the memory of a payload back.
    pub(crate) fn restore(&mut self, payload: Payload) {
        let mut bytes = payload.bytes;
        self.socket.swap_buffer(0, &mut bytes);
    }

    /// A message of so many bytes is about to be received: a large one comes into the buffer that is retained for such.
    pub(crate) fn expect(&mut self, length: usize) {
        if length > RETAINED && !self.large.is_empty() {
            self.socket.swap_buffer(0, &mut self.large);
        }
    }

    /// A call is over: retains the memory of large messages for the next ones, or releases it. Whether it is retained.
    #[inline]
    pub(crate) fn end_call(&mut self) -> bool {
        let came = self.socket.buffer_size();
        if self.out.capacity().max(came).max(self.large.len()) <= FREE {
            return false;
        }
        self.end_large_call(came)
    }

    #[cold]
    fn end_large_call(&mut self, came: usize) -> bool {
        if came > RETAINED {
            self.retention.record(came);
            self.socket.swap_buffer(0, &mut self.large);
        }
        self.retention.record(self.out.len());
        let (out, large, came) = (self.out.capacity(), self.large.len(), self.socket.buffer_size());
        self.retention.end_call(out + large + came, out.max(large)) || self.release()
    }

    /// Releases the memory of large messages; `false`, none is retained.
    #[cold]
    pub(crate) fn release(&mut self) -> bool {
        (self.out, self.large) = (Vec::new(), Vec::new());
        self.socket.release_buffer(FREE);
        self.retention.release();
        false
    }

    /// Whether the socket cannot carry another call: an error ended it, or more came than the last answer and would pass for the next
    /// one.
    #[inline]
    pub(crate) fn is_spoilt(&self) -> bool {
        !self.socket.is_usable() || self.socket.has_begun_message()
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
        self.socket.shutdown_handle().shutdown();
    }
}

impl AsFd for SocketTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for SocketTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketTransport").field("socket", &self.socket).finish_non_exhaustive()
    }
}
