//! Messages as frames on a socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::kept::Kept;
use super::{Budget, Outgoing, RETAINED, TooLarge, hang_up};
use crate::rpc::codec::Encode;
use crate::stream::{FrameSocket, Message};
use crate::{Deadline, Result};

/// A socket that carries one call at a time.
#[derive(Debug)]
pub(crate) struct SocketLine {
    pub(crate) socket: FrameSocket,
    /// The payload that goes out next.
    pub(crate) out: Vec<u8>,
    /// The buffer that a large message came in, for the next one.
    large: Vec<u8>,
    kept: Kept,
}

impl SocketLine {
    pub(crate) fn new(socket: FrameSocket, budget: &Arc<Budget>) -> Self {
        Self { socket, out: Vec::new(), large: Vec::new(), kept: Kept::new(Arc::clone(budget)) }
    }

    /// Encodes and sends a message. Any error means that the peer has not got a whole message.
    ///
    /// # Errors
    /// `Ok(Err(TooLarge))`: the payload is over `maximum`, nothing was sent.
    pub(crate) fn send<T: Encode + ?Sized>(
        &mut self,
        message: &Outgoing<'_, T>,
        fds: &[BorrowedFd<'_>],
        maximum: u64,
        deadline: Deadline,
    ) -> Result<Result<(), TooLarge>> {
        self.out.clear();
        match message.encode_to(&mut self.out) {
            Some(length) if length <= maximum.min(u64::from(u32::MAX)) => {}
            _ => return Ok(Err(TooLarge)),
        }
        self.send_encoded(message.tag, fds, deadline).map(Ok)
    }

    /// Sends what lies in `out`.
    pub(crate) fn send_encoded(&mut self, tag: u16, fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<()> {
        match fds {
            [] => self.socket.send(tag, &self.out, deadline),
            fds => self.socket.send_with_fds(tag, &[&self.out], fds, deadline),
        }
    }

    /// The next message, `None` at the end of the connection.
    pub(crate) fn receive(&mut self, deadline: Deadline) -> Result<Option<Message<'_>>> {
        if !self.large.is_empty() {
            let mut deadline = deadline;
            deadline.resolve();
            if let Some(header) = self.socket.peek(deadline)? {
                self.expect(header.length as usize);
            }
            return self.socket.receive(deadline);
        }
        self.socket.receive(deadline)
    }

    /// A message of so many bytes is about to be received: a large one comes into the buffer that is kept for such.
    pub(crate) fn expect(&mut self, length: usize) {
        if length > RETAINED && !self.large.is_empty() {
            self.socket.swap_buffer(0, &mut self.large);
        }
    }

    /// A call is over: keeps the memory of large messages for the next ones, or gives it back. Whether it is kept.
    #[inline]
    pub(crate) fn trim(&mut self) -> bool {
        let came = self.socket.buffer_size();
        if self.out.capacity().max(came).max(self.large.len()) <= RETAINED {
            return false;
        }
        self.trim_large(came)
    }

    #[cold]
    fn trim_large(&mut self, came: usize) -> bool {
        if came > RETAINED {
            self.kept.needed(came);
            self.socket.swap_buffer(0, &mut self.large);
        }
        self.kept.needed(self.out.len());
        let (out, large) = (self.out.capacity(), self.large.len());
        if self.kept.settle(out + large, out.max(large)) { true } else { self.give_back() }
    }

    /// Gives the memory of large messages back; `false`, none is kept.
    #[cold]
    pub(crate) fn give_back(&mut self) -> bool {
        (self.out, self.large) = (Vec::new(), Vec::new());
        self.kept.nothing();
        false
    }

    /// Ends the line from this side.
    pub(crate) fn shut_down(&self) {
        hang_up(&self.shared());
    }

    /// The socket, to be watched or shut down elsewhere.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        self.socket.shared()
    }
}

impl AsFd for SocketLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
