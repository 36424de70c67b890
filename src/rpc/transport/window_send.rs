//! What leaves and does not fit the window.

use std::time::Instant;

use super::bulk::BulkSink;
use super::fragments::FragmentSink;
use super::staged::Long;
use super::window::WindowTransport;
use crate::deadline::Deadline;
use crate::endpoint::Halted;
use crate::error::Result;
use crate::rpc::codec::{Encode, Raw};
use crate::rpc::message::bulk::announcement;
use crate::rpc::message::fragment::{FragmentSender, are_better};
use crate::rpc::message::number::BULK_DATAGRAM;
use crate::rpc::message::outgoing::{Outgoing, Uneven};
use crate::rpc::message::prefix::Prefix;
use crate::rpc::message::transfer::TransferDue;

/// A long answer whose payload waits in the transport until its method has returned.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Held(Long);

impl WindowTransport {
    /// Sends a message that did not fit the window, until the deadline at the latest. If the peer has seen something of it and not got
    /// all, the transport has to be shut down.
    ///
    /// # Errors
    /// [`Halted::Unsent`]: the peer never saw it.
    #[cold]
    pub(crate) fn send_long(
        &mut self,
        long: Long,
        message: &Outgoing<'_>,
        mut deadline: Deadline,
    ) -> Result<(), Halted> {
        let due = TransferDue::within(self.outbound.patience, Instant::now(), deadline.resolve());
        let (capacity, length) = (self.endpoint.capacity(), long.length);
        if self.fragments && are_better(capacity, length) {
            let sender = FragmentSender::new(long.head, length, capacity);
            let mut sink = FragmentSink::new(&mut self.endpoint, sender, due);
            let _ = message.encode_to(&mut sink);
            return sink.finish();
        }
        let announced = self.endpoint.write_at(0, &announcement(long.head, length));
        announced.and_then(|()| self.endpoint.flip(BULK_DATAGRAM as u32)).map_err(Halted::Unsent)?;
        let mut sink = BulkSink::new(&mut self.socket, &self.endpoint, &mut self.outbound.waiting, length, due);
        let _ = message.encode_to(&mut sink);
        sink.finish().map_err(Halted::Unanswered)
    }

    /// Keeps the payload of a long answer until its method has returned, when [`send_held`](Self::send_held) sends it.
    ///
    /// # Errors
    /// The value did not write as many bytes as when it was encoded first.
    #[cold]
    pub(crate) fn hold(&mut self, long: Long, message: &Outgoing<'_>) -> Result<Held, Uneven> {
        let held = &mut self.outbound.held;
        held.clear();
        // What is longer than memory does not get this far: the server's maximum is 32 bits.
        let length = long.length as usize;
        self.retention.record(length);
        held.reserve_exact(length);
        if message.encode_to(held) == Some(long.length) { Ok(Held(long)) } else { Err(Uneven) }
    }

    /// Sends a held answer.
    ///
    /// # Errors
    /// The transport has to be shut down.
    #[cold]
    pub(crate) fn send_held(&mut self, held: Held) -> Result<()> {
        let Held(long) = held;
        let bytes = std::mem::take(&mut self.outbound.held);
        let value: &dyn Encode = &Raw(&bytes);
        let message = Outgoing { tag: long.head.tag, prefix: Prefix::None, value, fds: long.head.fds };
        let sent = self.send_long(long, &message, Deadline::NEVER);
        self.outbound.held = bytes;
        sent.map_err(Halted::into_error)
    }
}
