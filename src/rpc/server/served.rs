//! What the server asks of a transport, and of what stands at its other end.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::outcome::Ready;
use super::reply::Way;
use super::shared::Connection;
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::rpc::Status;
use crate::rpc::message::arrival::Arrival;
use crate::rpc::message::hello::Agreement;
use crate::rpc::message::outgoing::Outgoing;
use crate::rpc::transport::{InlineMessage, Payload, Received, Staged};

/// How far the answer to a request has got.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    /// It lies in the window, to be flipped.
    Staged(Staged),
    /// It went out.
    Out,
    /// It went out with descriptors.
    WithFds,
}

impl Sent {
    /// An answer with so many descriptors went out.
    pub(super) fn out(fds: usize) -> Self {
        if fds == 0 { Self::Out } else { Self::WithFds }
    }
}

/// A transport as the server uses it: a window or a socket.
pub(super) trait Served {
    /// What is known of a request before anything of it was received.
    type Signal: Copy;

    /// Waits for the first request; `None` at the end of the connection.
    fn first(&mut self) -> Result<Option<Self::Signal>>;

    /// Sends what is not out of the last answer, and waits for the next request.
    fn next(&mut self, sent: Sent) -> Result<Option<Self::Signal>>;

    /// The server is closing. A transport whose shutdown overtakes an answer sends its last one, and leaves it to be taken: `None`. Any
    /// other goes on until the connection ends.
    fn leave(&mut self, sent: Sent, worker: &Worker) -> Result<Option<Sent>>;

    /// The request, if it is inline and nothing but its payload belongs to it: its type. Anything else is for the functions below.
    fn take_inline(&mut self, signal: Self::Signal, inline: &mut InlineMessage) -> Option<u16>;

    /// The request, after `take_inline` with the same `inline`, if it is for a method, is here, and nothing but its payload belongs to it:
    /// its type and payload. Anything else is for the functions below.
    fn take_plain(
        &mut self,
        signal: Self::Signal,
        inline: &InlineMessage,
        maximum: u64,
    ) -> Result<Option<(u16, Payload)>>;

    /// What came, after `take_plain`.
    fn arrived(&mut self, signal: Self::Signal, maximum: u64) -> Result<Arrival>;

    /// Bytes of a request that are still to come and may take long, 0 if there are none.
    fn to_come(&self, arrival: &Arrival) -> u64;

    /// Receives a request that arrived at `began`, if that is known.
    fn receive_request(&mut self, arrival: Arrival, began: Option<Instant>) -> Result<Received>;

    /// Receives it and throws it away.
    fn discard_request(&mut self, arrival: Arrival, began: Option<Instant>) -> Result<()>;

    /// Takes the memory of a request back.
    fn take_back(&mut self, request: Payload);

    /// The way of an answer.
    fn way(&mut self) -> Way<'_>;

    /// The most payload bytes of a message that cannot be cut.
    fn most(&self) -> u32;

    /// Sends an answer that is encoded.
    ///
    /// # Errors
    /// The outer one: the transport is gone. The inner one: the descriptors cannot be sent, and nothing was.
    fn send_ready(&mut self, ready: Ready, fds: &[BorrowedFd<'_>]) -> Result<Result<(), Error>>;

    /// Sends an answer that is short.
    fn send_short(&mut self, message: &Outgoing<'_>, maximum: u64) -> Result<()>;

    /// Ends the transport.
    fn end(&self);
}

/// What a request was that may have been for the connection and not for a method.
pub(super) enum Own {
    /// It is for a method.
    No,
    /// It is answered.
    Answered(Sent),
    /// It is answered with an error.
    Refused(Status),
}

/// What stands at the server's end of a transport: a base connection, or a channel of it.
pub(super) trait Role<T> {
    /// What was agreed on with the client.
    fn agreement(&self) -> Agreement;

    /// Answers a request that is not for a method.
    fn serve(&mut self, transport: &mut T, request: &Received, connection: &std::sync::Arc<Connection>) -> Result<Own>;

    /// The answer to a request that is thrown away unread.
    fn unworthy(&self, arrival: &Arrival) -> Option<Status>;

    /// A request came and was thrown away.
    fn missed(&mut self);
}

/// A channel serves methods alone, by what its base connection agreed on.
impl<T> Role<T> for Agreement {
    #[inline]
    fn agreement(&self) -> Agreement {
        *self
    }

    fn serve(&mut self, _: &mut T, _: &Received, _: &std::sync::Arc<Connection>) -> Result<Own> {
        Ok(Own::No)
    }

    fn unworthy(&self, _: &Arrival) -> Option<Status> {
        None
    }

    fn missed(&mut self) {}
}
