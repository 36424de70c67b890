//! What came from the socket to the handles that it is for, and the end of the mux: the work of whichever thread reads.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::ended::Ended;
use super::frame_receiver::{FrameReceiver, Received};
use super::payload::Payload;
use super::protocol::control::Reason;
use super::protocol::state::{Event, Key, MAX_UNSENT_CONTROL};
use super::shared::{Inner, Shared, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::violation::FrameViolation;

/// The most receives for the last words of a peer that takes no more bytes: more than a socket holds.
const LAST_RECEIVES: usize = 64;

/// Ends the mux however this thread ends: a bug here must not leave handles waiting.
pub(super) struct Guard<'a>(pub(super) &'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::System, "the thread that read the socket of the mux ended unexpectedly");
        self.0.fail(&mut self.0.lock(), error, None);
    }
}

/// Ends the mux for `error`, and tells the peer if it is to blame.
pub(super) fn end(shared: &Shared, inner: &mut Inner, error: &Error) {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<FrameViolation>());
    let text = source.map(|violation| violation.to_string()).unwrap_or_default();
    let reason = match source {
        Some(FrameViolation::TooSlow | FrameViolation::WriteTooSlow) => Reason::TOO_SLOW,
        _ => Reason::VIOLATION,
    };
    let goodbye = (error.kind() == ErrorKind::Violation).then_some((reason, &*text));
    shared.fail(inner, error.clone(), goodbye);
}

/// The peer sends no more: the end of the mux both ways.
pub(super) fn peer_closed() -> Error {
    Error::new(ErrorKind::PeerGone, "the peer closed the mux")
}

/// What a peer that takes no more bytes sent before: a GOODBYE says more than the write that failed.
pub(super) fn last_words(shared: &Shared, inner: &mut Inner, receiver: &mut FrameReceiver) -> Option<Error> {
    for _ in 0..LAST_RECEIVES {
        match receiver.fill(shared.socket.as_fd()) {
            Ok(Received::More | Received::Drained) => {}
            Ok(Received::End | Received::Nothing) | Err(_) => return None,
        }
        if let Err(error) = deliver_received(shared, inner, receiver) {
            return Some(error);
        }
    }
    None
}

/// Hands out the frames that are here.
pub(super) fn deliver_received(shared: &Shared, inner: &mut Inner, receiver: &mut FrameReceiver) -> Result<()> {
    let mut spare = std::mem::take(&mut inner.spare);
    let lent = RefCell::new(&mut spare);
    let taken = receiver.frames(
        || lent.borrow_mut().pop(),
        |tag, payload| deliver(shared, inner, tag, payload, || lent.borrow_mut().pop()),
    );
    inner.spare.append(&mut spare);
    taken?;
    if inner.table.outgoing_bytes() + inner.write_queue.unsent() > 2 * MAX_UNSENT_CONTROL
        || inner.table.outgoing_bytes() > MAX_UNSENT_CONTROL
    {
        return Err(FrameViolation::WriteTooSlow.into());
    }
    Ok(())
}

/// One frame to the state table, and what it means to the handles.
fn deliver(
    shared: &Shared,
    inner: &mut Inner,
    tag: u16,
    payload: Payload<'_>,
    spare: impl FnOnce() -> Option<Vec<u8>>,
) -> Result<()> {
    // The events borrow the payload, which is moved to a queue only for data.
    let key = match inner.table.receive(tag, payload.bytes())? {
        Event::Data(key) => key,
        Event::Nothing => return Ok(()),
        Event::Hello => {
            shared.greeted.notify();
            return Ok(());
        }
        Event::Offered(key, name) => {
            let name = name.to_owned();
            inner.slots.insert(key, Slot { accepted: true, ..Slot::default() });
            inner.offers.push_back((key, name));
            shared.offered.notify();
            return Ok(());
        }
        Event::Accepted(key) => {
            if let Some(slot) = inner.slots.get_mut(&key) {
                slot.accepted = true;
                slot.writable.notify();
            }
            return Ok(());
        }
        Event::Credit(key) => {
            if let Some(slot) = inner.slots.get(&key) {
                inner.due_wakes.push(Arc::clone(&slot.writable));
            }
            return Ok(());
        }
        Event::Ended(key) => {
            if let Some(slot) = inner.slots.get_mut(&key) {
                slot.peer_ended = true;
                slot.readable.notify();
            }
            return Ok(());
        }
        Event::Refused(key, reason) => {
            inner.fail_channel(key, Ended::Refused(reason).into());
            return Ok(());
        }
        Event::Reset(key, reason) => {
            inner.fail_channel(key, Ended::Reset(reason).into());
            return Ok(());
        }
        Event::Goodbye(reason, text) => return Err(Ended::Goodbye(reason, text.to_owned()).into()),
    };
    enqueue(inner, key, payload, spare);
    Ok(())
}

/// Data to the queue of its channel, or nowhere if nobody wants it.
fn enqueue(inner: &mut Inner, key: Key, payload: Payload<'_>, spare: impl FnOnce() -> Option<Vec<u8>>) {
    match inner.slots.get_mut(&key) {
        Some(slot) if !slot.receiver_gone => {
            slot.queue.push(payload, spare);
            if slot.queue.len() == 1 {
                inner.due_wakes.push(Arc::clone(&slot.readable));
            }
        }
        Some(_) => inner.table.consume(key, payload.bytes().len()),
        None => {
            inner.table.reset(key, Reason::CANCELLED);
            inner.table.consume(key, payload.bytes().len());
        }
    }
}
