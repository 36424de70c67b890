//! The server's side of a window channel.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::config::LAST_ANSWER;
use super::outcome::Ready;
use super::reply::Way;
use super::served::{Sent, Served};
use super::taken::wait_until_taken;
use super::worker::Worker;
use crate::deadline::Deadline;
use crate::endpoint::Halted;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::CallViolation;
use crate::rpc::message::arrival::{Arrival, Whereabouts};
use crate::rpc::message::outgoing::Outgoing;
use crate::rpc::message::transfer::TransferDue;
use crate::rpc::transport::{InlineMessage, Payload, QUIET, Received, SETTLED, WindowTransport};

impl Served for WindowTransport {
    /// Bytes of the datagram that came with control.
    type Signal = u32;

    fn first(&mut self) -> Result<Option<u32>> {
        self.wait(Deadline::NEVER).map(Some)
    }

    #[inline(always)]
    fn next(&mut self, sent: Sent) -> Result<Option<u32>> {
        match sent {
            Sent::Staged(staged) if !self.is_retention_due() => {
                let mut never = Deadline::NEVER;
                self.call(staged, &mut never).map(Some).map_err(Halted::into_error)
            }
            sent => wait_slowly(self, sent).map(Some),
        }
    }

    #[cold]
    fn leave(&mut self, sent: Sent, worker: &Worker) -> Result<Option<Sent>> {
        if let Sent::Staged(staged) = sent {
            self.flip(staged)?;
        }
        worker.leave();
        let _ = self.wait(Deadline::after(LAST_ANSWER));
        Ok(None)
    }

    #[inline(always)]
    fn take_inline(&mut self, datagram: u32, inline: &mut InlineMessage) -> Option<u16> {
        self.take_inline(datagram, inline)
    }

    #[inline(always)]
    fn take_plain(&mut self, datagram: u32, inline: &InlineMessage, maximum: u64) -> Result<Option<(u16, Payload)>> {
        self.take_plain(datagram, inline, maximum)
    }

    fn arrived(&mut self, datagram: u32, maximum: u64) -> Result<Arrival> {
        self.arrive(datagram, maximum)
    }

    fn to_come(&self, arrival: &Arrival) -> u64 {
        match &arrival.payload {
            Whereabouts::Here(_) => 0,
            elsewhere => elsewhere.length(),
        }
    }

    fn receive_request(&mut self, arrival: Arrival, began: Option<Instant>) -> Result<Received> {
        let patience = self.patience();
        self.receive(arrival, || due(patience, began))
    }

    fn discard_request(&mut self, arrival: Arrival, began: Option<Instant>) -> Result<()> {
        self.discard(arrival, due(self.patience(), began))
    }

    #[inline(always)]
    fn take_back(&mut self, request: Payload) {
        self.restore(request);
    }

    #[inline(always)]
    fn way(&mut self) -> Way<'_> {
        Way::Window(self)
    }

    #[inline]
    fn most(&self) -> u32 {
        self.room()
    }

    #[cold]
    fn send_ready(&mut self, ready: Ready, fds: &[BorrowedFd<'_>]) -> Result<Result<(), Error>> {
        match self.attach(fds) {
            Err(error) if self.is_socket_usable() => return Ok(Err(error)),
            attached => attached?,
        }
        match ready {
            Ready::Staged(staged) => self.flip(staged)?,
            Ready::Held(held) => self.send_held(held)?,
            Ready::Encoded => unreachable!("only a socket has an answer that is encoded and not in a window"),
        }
        Ok(Ok(()))
    }

    #[cold]
    fn send_short(&mut self, message: &Outgoing<'_>, maximum: u64) -> Result<()> {
        let staged = self.stage(message, maximum).map_err(|_| CallViolation::TooLarge(0))?;
        self.flip(staged)
    }

    fn end(&self) {
        self.shut_down();
    }
}

fn due(patience: Duration, began: Option<Instant>) -> TransferDue {
    TransferDue::of_request(patience, began.unwrap_or_else(Instant::now))
}

/// Waits for the next call, after one that was more than a datagram each way. Memory of large messages is retained for a client that
/// goes on with them at once.
#[inline(never)]
fn wait_slowly(transport: &mut WindowTransport, sent: Sent) -> Result<u32> {
    match sent {
        Sent::Staged(staged) => transport.flip(staged)?,
        Sent::Out => {}
        Sent::WithFds => wait_until_taken(transport, transport.patience(), || transport.is_drained())?,
    }
    if transport.is_retention_due() && transport.end_call() {
        match transport.wait(Deadline::after(QUIET)) {
            Err(error) if error.kind() == ErrorKind::Timeout => transport.release(),
            waited => return waited,
        }
    }
    if transport.has_released() {
        match transport.wait(Deadline::after(SETTLED)) {
            Err(error) if error.kind() == ErrorKind::Timeout => transport.give_back(),
            waited => return waited,
        }
    }
    transport.wait(Deadline::NEVER)
}
