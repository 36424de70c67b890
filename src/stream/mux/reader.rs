//! The reader thread of a mux: takes what the peer sends while no program does, never waits for one, and writes what no other thread
//! can.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::control::{Control, Reason};
use super::core::{Event, Key, MAX_UNSENT_CONTROL};
use super::intake::{Intake, Intook, Payload};
use super::lead::{LEASE, SHORT_LEASE, Watch};
use super::shared::{Ended, Inner, Shared, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::violation::{MuxViolation, Violation};
use crate::stream::socket::readiness;

/// How many receives may follow each other before sleeping programs are woken and the pen is looked at. Waking a program for each frame
/// of a stream would cost two switches a frame; four frames of the default size are half of the default credit.
const BURST: usize = 4;

/// The most receives for the last words of a peer that takes no more bytes: more than a socket holds.
const LAST_RECEIVES: usize = 64;

/// Runs until the mux has ended.
pub(super) fn run(shared: &Shared, handshake: Duration) {
    let hello_due = Instant::now().checked_add(handshake);
    let _guard = Guard(shared);
    let mut outcome = Ok(());
    loop {
        let mut inner = shared.lock();
        shared.flush(&mut inner);
        let judged = outcome.and_then(|()| judge(shared, &mut inner, hello_due));
        if inner.error.is_some() {
            return;
        }
        if let Err(error) = judged {
            return end(shared, &mut inner, &error);
        }
        outcome = sleep(shared, inner, hello_due).map(|readable| {
            if readable {
                receive_burst(shared);
            }
        });
    }
}

/// Ends the mux however this thread ends: a bug here must not leave handles waiting.
pub(super) struct Guard<'a>(pub(super) &'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::System, "the thread that read the socket of the mux is gone");
        self.0.fail(&mut self.0.lock(), error, None);
    }
}

/// Ends the mux for `error`, and tells the peer if it is to blame.
pub(super) fn end(shared: &Shared, inner: &mut Inner, error: &Error) {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Violation>());
    let text = source.map(|violation| violation.to_string()).unwrap_or_default();
    let reason = match source {
        Some(Violation::TooSlow | Violation::WriteTooSlow) => Reason::TOO_SLOW,
        _ => Reason::VIOLATION,
    };
    let goodbye = (error.kind() == ErrorKind::Violation).then_some((reason, &*text));
    shared.fail(inner, error.clone(), goodbye);
}

/// The peer sends no more: the end of the mux both ways.
pub(super) fn peer_closed() -> Error {
    Error::new(ErrorKind::PeerGone, "the peer closed the mux")
}

/// What ends the mux between two receives.
fn judge(shared: &Shared, inner: &mut Inner, hello_due: Option<Instant>) -> Result<()> {
    if let Some(error) = inner.pen.broken.clone() {
        let Some(mut intake) = inner.lead.take() else {
            // Whoever leads looks for the last words.
            shared.nudge_leader(inner);
            return Ok(());
        };
        return Err(last_words(shared, inner, &mut intake).unwrap_or(error));
    }
    if inner.core.peer_max_frame().is_none() && hello_due.is_some_and(|due| Instant::now() >= due) {
        return Err(Violation::from(MuxViolation::LateHello).into());
    }
    if inner.pen.stalled_since().is_some_and(|since| since.elapsed() >= shared.patience) {
        return Err(Violation::WriteTooSlow.into());
    }
    if let Some(reason) = inner.closing
        && inner.pen.is_between_frames()
    {
        // The socket may be full of what was due before: then the next turns of this thread write the rest.
        if !std::mem::replace(&mut inner.said_goodbye, true) {
            inner.pen.append(&Control::Goodbye { reason, text: "" });
            shared.flush(inner);
        }
        if inner.pen.is_between_frames() {
            let error = Error::new(ErrorKind::LocalShutdown, "this side has closed the mux");
            shared.fail(inner, error, None);
        }
    }
    Ok(())
}

/// What a peer that takes no more bytes sent before: a GOODBYE says more than the write that failed.
pub(super) fn last_words(shared: &Shared, inner: &mut Inner, intake: &mut Intake) -> Option<Error> {
    for _ in 0..LAST_RECEIVES {
        match intake.fill(shared.socket.as_fd()) {
            Ok(Intook::More | Intook::Drained) => {}
            Ok(Intook::End | Intook::Nothing) | Err(_) => return None,
        }
        if let Err(error) = take_in(shared, inner, intake) {
            return Some(error);
        }
    }
    None
}

/// Sleeps until the socket or another thread has something to do. Whether there may be something to read.
fn sleep(shared: &Shared, mut inner: MutexGuard<'_, Inner>, hello_due: Option<Instant>) -> Result<bool> {
    let watch = inner.lead.look();
    let (reading, lease_due, frame_due) = match (watch, inner.lead.intake()) {
        (Watch::Socket, Some(intake)) => {
            intake.check()?;
            (PollFlags::IN, None, intake.frame_due())
        }
        (Watch::Lease, _) => (PollFlags::empty(), Instant::now().checked_add(LEASE), None),
        (Watch::ShortLease, _) => (PollFlags::empty(), Instant::now().checked_add(SHORT_LEASE), None),
        _ => (PollFlags::empty(), None, None),
    };
    let writing = if inner.pen.needs_reader() { PollFlags::OUT } else { PollFlags::empty() };
    let hello_due = hello_due.filter(|_| inner.core.peer_max_frame().is_none());
    let write_due = inner.pen.stalled_since().and_then(|since| since.checked_add(shared.patience));
    let due = std::mem::take(&mut inner.due_wakes);
    drop(inner);
    // Without the lock: who wakes up on this CPU would find it taken and go back to sleep.
    due.iter().for_each(|signal| signal.notify());
    let until = [lease_due, frame_due, hello_due, write_due].into_iter().flatten().min();
    let events = reading | writing;
    let mut fds = [PollFd::new(&shared.wake, PollFlags::IN), PollFd::new(&shared.socket, events)];
    // A hang-up is reported whatever was asked for, and it is not this thread's business while a program leads.
    let watched = if events.is_empty() { 1 } else { 2 };
    readiness::wait_any(&mut fds[..watched], until)?;
    if fds[0].revents().contains(PollFlags::IN) {
        // Other threads only count up; the read empties it.
        let _ = rustix::io::read(&shared.wake, &mut [0u8; 8]);
    }
    Ok(reading == PollFlags::IN && !fds[1].revents().is_empty())
}

/// Receives until the socket has no more for now, if the lead can be had.
fn receive_burst(shared: &Shared) {
    let Some(mut intake) = shared.lock().lead.take_over() else { return };
    for _ in 0..BURST {
        let intook = match intake.fill(shared.socket.as_fd()) {
            Ok(Intook::Nothing) => break,
            Ok(Intook::End) => Err(peer_closed()),
            other => other,
        };
        let mut inner = shared.lock();
        let taken = intook.and_then(|intook| take_in(shared, &mut inner, &mut intake).map(|()| intook));
        if inner.core.has_outgoing() {
            shared.flush(&mut inner);
        }
        match taken {
            Ok(Intook::More) => {}
            Ok(_) => break,
            Err(error) => {
                // Under the lock: a program that leads next would find the end of the stream, and take that for the reason.
                end(shared, &mut inner, &error);
                break;
            }
        }
    }
    shared.lock().lead.hand_over(intake);
}

/// Hands out the frames that are here.
pub(super) fn take_in(shared: &Shared, inner: &mut Inner, intake: &mut Intake) -> Result<()> {
    let mut spare = std::mem::take(&mut inner.spare);
    let lent = RefCell::new(&mut spare);
    let taken = intake.frames(
        || lent.borrow_mut().pop(),
        |tag, payload| deliver(shared, inner, tag, payload, || lent.borrow_mut().pop()),
    );
    inner.spare.append(&mut spare);
    taken?;
    if inner.core.outgoing_bytes() + inner.pen.unsent() > 2 * MAX_UNSENT_CONTROL
        || inner.core.outgoing_bytes() > MAX_UNSENT_CONTROL
    {
        return Err(Violation::WriteTooSlow.into());
    }
    Ok(())
}

/// One frame to the core, and what it means to the handles.
fn deliver(
    shared: &Shared,
    inner: &mut Inner,
    tag: u16,
    payload: Payload<'_>,
    spare: impl FnOnce() -> Option<Vec<u8>>,
) -> Result<()> {
    // The core's events borrow the payload, which is moved to a queue only for data.
    let key = match inner.core.receive(tag, payload.bytes())? {
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
        Some(_) => inner.core.consume(key, payload.bytes().len()),
        None => {
            inner.core.reset(key, Reason::CANCELLED);
            inner.core.consume(key, payload.bytes().len());
        }
    }
}
