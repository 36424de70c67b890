//! Moves payloads through a window in fragments.

use super::fault::check_time;
use super::retention::Retention;
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Halted, INLINE_BYTES};
use crate::error::{Error, Result};
use crate::rpc::CallViolation;
use crate::rpc::codec::Sink;
use crate::rpc::message::arrival::Arrival;
use crate::rpc::message::fragment::{Fragment, FragmentReceiver, FragmentSender, FragmentStep};
use crate::rpc::message::head::{WindowHead, expect_continue};
use crate::rpc::message::number::{FRAGMENT_HEAD, WINDOW_HEAD};
use crate::rpc::message::transfer::TransferDue;

/// Sends what it takes, fragment by fragment.
pub(super) struct FragmentSink<'a> {
    endpoint: &'a mut Endpoint,
    sender: FragmentSender,
    due: TransferDue,
    failed: Option<Halted>,
}

impl<'a> FragmentSink<'a> {
    pub(super) fn new(endpoint: &'a mut Endpoint, sender: FragmentSender, due: TransferDue) -> Self {
        Self { endpoint, sender, due, failed: None }
    }

    /// Flips the last fragment.
    ///
    /// # Errors
    /// Why not all of it was sent. Unless nothing was, the transport has to be shut down.
    pub(super) fn finish(self) -> Result<(), Halted> {
        if let Some(halted) = self.failed {
            return Err(halted);
        }
        let last = self.sender.finish().map_err(|uneven| self.halted(uneven.into()))?;
        let written = self.endpoint.write_at(0, &last.head);
        written.and_then(|()| self.endpoint.flip(last.datagram)).map_err(|error| self.halted(error))
    }

    fn take_all(&mut self, mut bytes: &[u8]) -> Result<(), Halted> {
        while !bytes.is_empty() {
            match self.sender.step(bytes.len()).map_err(|uneven| self.halted(uneven.into()))? {
                FragmentStep::Fill { at, count } => {
                    let (now, later) = bytes.split_at(count);
                    self.endpoint.write_at(at, now).map_err(|error| self.halted(error))?;
                    self.sender.filled(count);
                    bytes = later;
                }
                FragmentStep::HandOver(fragment) => self.hand_over(fragment)?,
            }
        }
        Ok(())
    }

    /// Sends a full fragment and waits until the next is asked for.
    fn hand_over(&mut self, fragment: Fragment) -> Result<(), Halted> {
        // The first fragment goes out in any case: what is late is answered so.
        let in_time = if self.sender.is_begun() { check_time(&self.due) } else { Ok(()) };
        let ready = in_time.and_then(|()| self.endpoint.write_at(0, &fragment.head));
        ready.map_err(|error| self.halted(error))?;
        let until = Deadline::at(self.due.at());
        let datagram = self.endpoint.call_busy(fragment.datagram, until).map_err(|halted| match halted {
            Halted::Unsent(error) => self.halted(error),
            unanswered => unanswered,
        })?;
        self.sender.handed_over();
        take_continue(self.endpoint, datagram, expect_continue).map_err(Halted::Unanswered)
    }

    /// What an error between two flips means.
    fn halted(&self, error: Error) -> Halted {
        if self.sender.is_begun() { Halted::Unanswered(error) } else { Halted::Unsent(error) }
    }
}

impl Sink for FragmentSink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.take_all(bytes).err();
        }
    }
}

/// Has `expect` validate the front of a datagram that should be CONTINUE.
pub(super) fn take_continue(
    endpoint: &Endpoint,
    datagram: u32,
    expect: impl FnOnce(u32, &[u8]) -> Result<(), CallViolation>,
) -> Result<()> {
    // What is no inline datagram is no CONTINUE either.
    let head = endpoint.read_inline(&mut [0; INLINE_BYTES]);
    let front = head.as_ref().map_or(&[][..], |head| &head[..head.len().min(datagram as usize)]);
    Ok(expect(datagram, front)?)
}

/// What becomes of a payload that comes in fragments.
pub(super) enum Keep<'a> {
    /// It collects here.
    In(&'a mut Vec<u8>, &'a mut Retention),
    /// It is thrown away.
    Nothing,
}

/// Receives a payload of which the first fragment is in the window. Memory grows with the fragments that came: to twice of what is
/// there, and not beyond the whole.
pub(super) fn receive(
    endpoint: &mut Endpoint,
    mut fragments: FragmentReceiver,
    mut due: TransferDue,
    mut keep: Keep<'_>,
) -> Result<()> {
    loop {
        let place = fragments.current();
        if let Keep::In(payload, retention) = &mut keep {
            if payload.len() < place.end {
                let enough = fragments.length().min(place.end.max(2 * payload.len()));
                payload.reserve_exact(enough - payload.len());
                payload.resize(place.end, 0);
            }
            retention.record(place.end);
            endpoint.read_at(FRAGMENT_HEAD as u32, &mut payload[place])?;
            due.learn(payload);
        }
        if fragments.is_complete() {
            return Ok(());
        }
        ask_for_next(endpoint, &mut fragments, &due)?;
    }
}

/// Asks for the next fragment, and checks it.
fn ask_for_next(endpoint: &mut Endpoint, fragments: &mut FragmentReceiver, due: &TransferDue) -> Result<()> {
    check_time(due)?;
    endpoint.write_at(0, &WindowHead::CONTINUE.encode())?;
    let until = Deadline::at(due.at());
    let datagram = endpoint.call_busy(WINDOW_HEAD as u32, until).map_err(Halted::into_error)?;
    let mut front = [0; Arrival::FRONT];
    let front = &mut front[..Arrival::FRONT.min(datagram as usize)];
    endpoint.read_at(0, front)?;
    Ok(fragments.next(datagram, front)?)
}
