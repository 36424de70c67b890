//! Who may write to the socket.
//!
//! Frames must not mix, and a program's threads write their own data: no writer thread stands between them and the socket, because a
//! switch to it would cost more than the write. So there is one pen, and whoever wants to write waits in a queue for it: a frame
//! each, in turn, which is what makes channels share the socket fairly. Control frames go out in front of the frame of whoever has
//! the pen, or at once if nobody has. If the socket is full, the reader thread, which is the only one that never waits for a program,
//! writes the rest when there is room; so a sender that has reached its deadline leaves the rest of its frame to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::protocol::control::Control;
use super::signal::Signal;
use crate::error::Error;
use crate::stream::socket::outbox::PROGRESS_BYTES;

#[derive(Default)]
pub(super) struct Pen {
    /// Somebody is writing without the lock.
    pub(super) held: bool,
    /// Who waits, in order.
    pub(super) queue: VecDeque<(u64, Arc<Signal>)>,
    pub(super) tickets: u64,
    /// Bytes that must go out before anything else, from `rest_at` on.
    pub(super) rest: Vec<u8>,
    pub(super) rest_at: usize,
    /// Since when `rest` has not moved [`PROGRESS_BYTES`], and what it moved since.
    pub(super) stalled: Option<(Instant, usize)>,
    /// Writing failed: the peer does not take anything any more.
    pub(super) broken: Option<Error>,
    /// The goodbye that whoever holds the pen sends behind its frame, once the mux has ended.
    pub(super) last_words: Vec<u8>,
}

impl Pen {
    pub(super) fn is_free(&self) -> bool {
        !self.held && self.rest.is_empty()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether a frame written now would begin behind a whole one.
    pub(super) fn is_between_frames(&self) -> bool {
        self.is_free() && self.broken.is_none()
    }

    /// Queues a last control frame; to be written by a flush.
    pub(super) fn append(&mut self, control: &Control<'_>) {
        control.encode(&mut self.rest);
    }

    /// Whether there is something that the reader thread should write once the socket has room.
    pub(super) fn needs_reader(&self) -> bool {
        !self.held && !self.rest.is_empty() && self.broken.is_none()
    }

    /// Since when the rest has not made the progress that it must.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled.map(|(since, _)| since)
    }

    /// Bytes that were handed over and have not been written.
    pub(super) fn unsent(&self) -> usize {
        self.rest.len() - self.rest_at
    }

    pub(super) fn notify_all(&self) {
        self.queue.iter().for_each(|(_, signal)| signal.notify());
    }

    /// Whose turn it is, if the pen is free.
    pub(super) fn next(&self) -> Option<&Arc<Signal>> {
        self.queue.front().filter(|_| self.is_free()).map(|(_, signal)| signal)
    }

    pub(super) fn leave_queue(&mut self, ticket: u64) {
        self.queue.retain(|(other, _)| *other != ticket);
        if let Some(next) = self.next() {
            next.notify();
        }
    }

    /// `count` bytes of the rest went out.
    pub(super) fn advance(&mut self, count: usize) {
        self.rest_at += count;
        if self.rest_at == self.rest.len() {
            self.rest.clear();
            (self.rest_at, self.stalled) = (0, None);
            return;
        }
        let (since, moved) = self.stalled.unwrap_or_else(|| (Instant::now(), 0));
        let moved = moved + count;
        self.stalled = Some(if moved >= PROGRESS_BYTES { (Instant::now(), 0) } else { (since, moved) });
    }
}
