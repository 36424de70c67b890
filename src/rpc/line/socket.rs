//! Messages as frames on a socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::{Outgoing, TooLarge, hang_up};
use crate::rpc::codec::Encode;
use crate::stream::{FrameSocket, Message};
use crate::{Deadline, Result};

/// A socket that carries one call at a time.
#[derive(Debug)]
pub(crate) struct SocketLine {
    pub(crate) socket: FrameSocket,
    /// The payload that goes out next.
    pub(crate) out: Vec<u8>,
}

impl SocketLine {
    pub(crate) fn new(socket: FrameSocket) -> Self {
        Self { socket, out: Vec::new() }
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
        let sent = match fds {
            [] => self.socket.send(tag, &self.out, deadline),
            fds => self.socket.send_with_fds(tag, &[&self.out], fds, deadline),
        };
        if self.out.capacity() > super::RETAINED {
            self.out = Vec::new();
        }
        sent
    }

    /// The next message, `None` at the end of the connection.
    pub(crate) fn receive(&mut self, deadline: Deadline) -> Result<Option<Message<'_>>> {
        self.socket.receive(deadline)
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
