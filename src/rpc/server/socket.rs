//! The server's side of a socket: a base connection, or a channel without a window.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::outcome::Ready;
use super::quota::LARGE;
use super::reply::Way;
use super::served::{Sent, Served};
use super::taken::wait_until_taken;
use super::worker::Worker;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::CallViolation;
use crate::rpc::message::arrival::{Arrival, Whereabouts};
use crate::rpc::message::number::RESPONSE;
use crate::rpc::message::outgoing::{Outgoing, TooLarge};
use crate::rpc::transport::{InlineMessage, Payload, QUIET, Received, SETTLED, SocketTransport};
use crate::stream::Header;

impl Served for SocketTransport {
    /// The header of the request's frame.
    type Signal = Header;

    fn first(&mut self) -> Result<Option<Header>> {
        self.peek(Deadline::NEVER)
    }

    fn next(&mut self, sent: Sent) -> Result<Option<Header>> {
        if let Sent::WithFds = sent {
            wait_until_taken(&self.socket, self.socket.patience(), || self.socket.is_drained())?;
        }
        // Memory of large messages is retained for a client that goes on with them at once.
        if self.end_call() {
            match self.peek(Deadline::after(QUIET)) {
                Err(error) if error.kind() == ErrorKind::Timeout => self.release(),
                peeked => return peeked,
            };
        }
        if self.has_released() {
            match self.peek(Deadline::after(SETTLED)) {
                Err(error) if error.kind() == ErrorKind::Timeout => self.give_back(),
                peeked => return peeked,
            }
        }
        self.peek(Deadline::NEVER)
    }

    fn leave(&mut self, sent: Sent, _: &Worker) -> Result<Option<Sent>> {
        Ok(Some(sent))
    }

    #[inline(always)]
    fn take_inline(&mut self, _: Header, _: &mut InlineMessage) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn take_plain(&mut self, _: Header, _: &InlineMessage, _: u64) -> Result<Option<(u16, Payload)>> {
        Ok(None)
    }

    fn arrived(&mut self, header: Header, _: u64) -> Result<Arrival> {
        // The socket refuses a frame over the maximum. Descriptors are known once the frame is here.
        Ok(Arrival { tag: header.tag, fds: 0, payload: Whereabouts::Here(header.length) })
    }

    fn to_come(&self, arrival: &Arrival) -> u64 {
        let length = arrival.payload.length();
        if length > LARGE { length } else { 0 }
    }

    fn receive_request(&mut self, _: Arrival, _: Option<Instant>) -> Result<Received> {
        let gone = || Error::new(ErrorKind::PeerGone, "the client closed the connection inside a request");
        self.receive(Deadline::NEVER)?.ok_or_else(gone)
    }

    fn discard_request(&mut self, _: Arrival, _: Option<Instant>) -> Result<()> {
        self.socket.discard(Deadline::NEVER).map(drop)
    }

    fn take_back(&mut self, request: Payload) {
        self.restore(request);
    }

    #[inline(always)]
    fn way(&mut self) -> Way<'_> {
        Way::Socket(self)
    }

    #[inline]
    fn most(&self) -> u32 {
        u32::MAX
    }

    fn send_ready(&mut self, ready: Ready, fds: &[BorrowedFd<'_>]) -> Result<Result<(), Error>> {
        debug_assert!(matches!(ready, Ready::Encoded), "only a window has a staged answer");
        match self.send_encoded(RESPONSE, fds, Deadline::NEVER) {
            Err(error) if !fds.is_empty() && self.socket.is_usable() => Ok(Err(error)),
            sent => sent.map(Ok),
        }
    }

    #[cold]
    fn send_short(&mut self, message: &Outgoing<'_>, maximum: u64) -> Result<()> {
        self.encode(message, maximum).map_err(|TooLarge| CallViolation::TooLarge(0))?;
        self.send_encoded(message.tag, &[], Deadline::NEVER)
    }

    fn end(&self) {
        self.shut_down();
    }
}
