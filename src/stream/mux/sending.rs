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
    /// Sends a data frame: waits for credit, waits for the pen, writes.
    pub(super) fn send_data(
        &self,
        key: Key,
        signal: &Arc<Signal>,
        payload: &[u8],
        deadline: &mut Deadline,
    ) -> Result<()> {
        let cost = FRAME_COST + payload.len() as u64;
        let mut inner = self.lock();
        loop {
            inner.check(key)?;
            match inner.core.credit(key) {
                None => return Err(Error::new(ErrorKind::LocalShutdown, "this side has ended the channel")),
                Some(credit) if credit >= cost => break,
                Some(_) => inner = self.wait(inner, signal, deadline)?,
            }
        }
        let mut inner = self.take_pen(inner, key, signal, deadline)?;
        let mut control = Vec::new();
        if inner.core.spend(key, payload.len()) {
            inner.core.take_outgoing(&mut control);
            drop(inner);
            let header = Header { tag: key.id, length: payload.len() as u32 }.encode();
            let written = self.write([&control, &header, payload], deadline);
            let mut inner = self.lock();
            let result = self.put_pen_down(&mut inner, written);
            let due = std::mem::take(&mut inner.due_wakes);
            drop(inner);
            due.iter().for_each(|signal| signal.notify());
            return result;
        }
        // The channel failed while this thread waited in the queue.
        self.put_pen_down(&mut inner, Ok(Vec::new()))?;
        self.flush_or_wake(&mut inner);
        inner.check(key)?;
        Err(Error::new(ErrorKind::LocalShutdown, "this side has ended the channel"))
    }

    /// Waits in the queue for the pen.
    fn take_pen<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        key: Key,
        signal: &Arc<Signal>,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>> {
        if !(inner.pen.is_free() && inner.pen.queue.is_empty()) {
            inner.pen.tickets += 1;
            let ticket = inner.pen.tickets;
            inner.pen.queue.push_back((ticket, Arc::clone(signal)));
            loop {
                let is_next = inner.pen.queue.front().is_some_and(|(first, _)| *first == ticket);
                let failed = inner.check(key).and_then(|()| inner.pen.broken.clone().map_or(Ok(()), Err)).err();
                if let Some(error) = failed {
                    inner.pen.leave_queue(ticket);
                    return Err(error);
                }
                if inner.pen.is_free() && is_next {
                    inner.pen.queue.pop_front();
                    break;
                }
                match signal.wait(inner, deadline) {
                    Ok(guard) => inner = guard,
                    Err(mut guard) => {
                        guard.pen.leave_queue(ticket);
                        return Err(readiness::timeout("the deadline passed before a frame could be sent"));
                    }
                }
            }
        }
        if let Some(error) = &inner.pen.broken {
            return Err(error.clone());
        }
        inner.pen.held = true;
        Ok(inner)
    }
}
