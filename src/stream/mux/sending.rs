//! How a program sends a data frame: it waits for credit, waits for its turn, and writes.

use std::sync::{Arc, MutexGuard};

use super::protocol::state::{FRAME_COST, Key};
use super::shared::{Inner, Shared};
use super::signal::Signal;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::header::Header;
use crate::stream::socket::readiness;

impl Shared {
    /// Sends a data frame: waits for credit, waits for its turn, writes.
    pub(super) fn send_data(
        &self,
        key: Key,
        signal: &Arc<Signal>,
        payload: &[u8],
        deadline: &mut Deadline,
    ) -> Result<()> {
        let cost = FRAME_COST + payload.len() as u64;
        let mut inner = self.enter()?;
        loop {
            inner.check(key)?;
            match inner.table.credit(key) {
                None => {
                    return Err(Error::new(ErrorKind::LocalShutdown, "this side ended its direction of the channel"));
                }
                Some(credit) if credit >= cost => break,
                Some(_) => {
                    inner = self.wait(
                        inner,
                        signal,
                        deadline,
                        "the deadline passed before the peer granted credit for the message",
                    )?
                }
            }
        }
        let mut inner = self.take_turn(inner, key, signal, deadline)?;
        let mut control = Vec::new();
        if inner.table.spend(key, payload.len()) {
            inner.table.take_outgoing(&mut control);
            drop(inner);
            let header = Header { tag: key.id, length: payload.len() as u32 }.encode();
            let written = self.write([&control, &header, payload], deadline);
            let mut inner = self.lock();
            let result = self.end_turn(&mut inner, written);
            let due = std::mem::take(&mut inner.due_wakes);
            drop(inner);
            due.iter().for_each(|signal| signal.notify());
            return result;
        }
        // The channel failed while this thread waited in the queue.
        self.end_turn(&mut inner, Ok(Vec::new()))?;
        self.flush_or_wake(&mut inner);
        inner.check(key)?;
        Err(Error::new(ErrorKind::LocalShutdown, "this side ended its direction of the channel"))
    }

    /// Waits in the write queue for the turn of this thread.
    fn take_turn<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        key: Key,
        signal: &Arc<Signal>,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>> {
        let broken = |inner: &Inner| inner.write_queue.broken.clone().map_or(Ok(()), Err);
        broken(&inner)?;
        if inner.write_queue.begin_at_once() {
            return Ok(inner);
        }
        let ticket = inner.write_queue.join(signal);
        loop {
            if let Err(error) = inner.check(key).and_then(|()| broken(&inner)) {
                inner.write_queue.leave(ticket);
                return Err(error);
            }
            if inner.write_queue.begin(ticket) {
                return Ok(inner);
            }
            match signal.wait(inner, deadline) {
                Ok(guard) => inner = guard,
                Err(mut guard) => {
                    guard.write_queue.leave(ticket);
                    return Err(readiness::timeout("the deadline passed before it was the turn of this message"));
                }
            }
        }
    }
}
