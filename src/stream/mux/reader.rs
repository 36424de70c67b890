//! The reader thread of a mux: takes what the peer sends while no program does, never waits for one, and writes what no other thread
//! can.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::delivery::{Guard, deliver_received, end, last_words, peer_closed};
use super::frame_receiver::Received;
use super::protocol::control::Control;
use super::protocol::leadership::{LEASE, ReaderSleep, SHORT_LEASE};
use super::shared::{Inner, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::violation::{FrameViolation, MuxViolation};
use crate::stream::socket::readiness;

/// How many receives may follow each other before sleeping programs are woken and this thread sees to the write queue. Waking a program for each frame
/// of a stream would cost two switches a frame; four frames of the default size are half of the default credit.
const BURST: usize = 4;

/// Runs until the mux has ended.
pub(super) fn run(shared: &Shared, handshake: Duration) {
    let hello_due = Instant::now().checked_add(handshake);
    let _guard = Guard(shared);
    let mut outcome = Ok(());
    loop {
        let mut inner = shared.lock();
        shared.flush(&mut inner);
        let checked = outcome.and_then(|()| check_for_an_end(shared, &mut inner, hello_due));
        if inner.error.is_some() {
            return;
        }
        if let Err(error) = checked {
            return end(shared, &mut inner, &error);
        }
        outcome = sleep(shared, inner, hello_due).map(|readable| {
            if readable {
                receive_burst(shared);
            }
        });
    }
}

/// What ends the mux between two receives.
fn check_for_an_end(shared: &Shared, inner: &mut Inner, hello_due: Option<Instant>) -> Result<()> {
    if let Some(error) = inner.write_queue.broken.clone() {
        let Some(mut receiver) = inner.leadership.become_leader() else {
            // The leader reads the last words.
            shared.nudge_leader(inner);
            return Ok(());
        };
        return Err(last_words(shared, inner, &mut receiver).unwrap_or(error));
    }
    if inner.table.peer_max_frame().is_none() && hello_due.is_some_and(|due| Instant::now() >= due) {
        return Err(FrameViolation::from(MuxViolation::LateHello).into());
    }
    if inner.write_queue.progress().is_overdue(shared.patience) {
        return Err(FrameViolation::WriteTooSlow.into());
    }
    if let Some(reason) = inner.closing
        && inner.write_queue.is_between_frames()
    {
        // The socket may be full of what was due before: then the next turns of this thread write the rest.
        if !std::mem::replace(&mut inner.said_goodbye, true) {
            inner.write_queue.append(&Control::Goodbye { reason, text: "" });
            shared.flush(inner);
        }
        if inner.write_queue.is_between_frames() {
            let error = Error::new(ErrorKind::LocalShutdown, "this side closed the mux");
            shared.fail(inner, error, None);
        }
    }
    Ok(())
}

/// Sleeps until the socket or another thread has something to do. Whether there may be something to read.
fn sleep(shared: &Shared, mut inner: MutexGuard<'_, Inner>, hello_due: Option<Instant>) -> Result<bool> {
    let kind = inner.leadership.next_sleep();
    let (reading, lease_due, frame_due) = match (kind, inner.leadership.receiver()) {
        (ReaderSleep::OnSocket, Some(receiver)) => {
            receiver.check()?;
            (PollFlags::IN, None, receiver.frame_due())
        }
        (ReaderSleep::Lease, _) => (PollFlags::empty(), Instant::now().checked_add(LEASE), None),
        (ReaderSleep::ShortLease, _) => (PollFlags::empty(), Instant::now().checked_add(SHORT_LEASE), None),
        _ => (PollFlags::empty(), None, None),
    };
    let writing = if inner.write_queue.needs_reader() { PollFlags::OUT } else { PollFlags::empty() };
    let hello_due = hello_due.filter(|_| inner.table.peer_max_frame().is_none());
    let write_due = inner.write_queue.progress().due(shared.patience);
    let due = std::mem::take(&mut inner.due_wakes);
    drop(inner);
    // Without the lock: a thread that wakes up on this CPU would find it taken and go back to sleep.
    due.iter().for_each(|signal| signal.notify());
    let until = [lease_due, frame_due, hello_due, write_due].into_iter().flatten().min();
    let events = reading | writing;
    let mut fds = [PollFd::new(&shared.wake, PollFlags::IN), PollFd::new(&shared.socket, events)];
    // A hang-up is reported whatever was asked for, and it is not this thread's business while a program is the leader.
    let watched = if events.is_empty() { 1 } else { 2 };
    readiness::wait_any(&mut fds[..watched], until)?;
    if fds[0].revents().contains(PollFlags::IN) {
        // Other threads only count up; the read empties it.
        let _ = rustix::io::read(&shared.wake, &mut [0u8; 8]);
    }
    Ok(reading == PollFlags::IN && !fds[1].revents().is_empty())
}

/// Receives until the socket has no more for now, if there is no other leader.
fn receive_burst(shared: &Shared) {
    let Some(mut receiver) = shared.lock().leadership.take_over() else { return };
    for _ in 0..BURST {
        let received = match receiver.fill(shared.socket.as_fd()) {
            Ok(Received::Nothing) => break,
            Ok(Received::End) => Err(peer_closed()),
            other => other,
        };
        let mut inner = shared.lock();
        let taken =
            received.and_then(|received| deliver_received(shared, &mut inner, &mut receiver).map(|()| received));
        if inner.table.has_outgoing() {
            shared.flush(&mut inner);
        }
        match taken {
            Ok(Received::More) => {}
            Ok(_) => break,
            Err(error) => {
                // Under the lock: the next leader would find the end of the stream, and take that for the reason.
                end(shared, &mut inner, &error);
                break;
            }
        }
    }
    shared.lock().leadership.return_from_reading(receiver);
}
